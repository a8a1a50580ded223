//! What building the container image and starting a cluster of containers take.

use aviary_testcontainers::assemble::Members;
use aviary_testcontainers::{Progress, assemble, mongod, sharded};
use clap::Args;

use super::args::Global;
use super::cluster::local;
use crate::error::{Error, Result};
use crate::store::retry::until_known;
use crate::terminal::tell;

#[derive(Debug, Args)]
pub(super) struct AssembleArgs {
    /// The config servers.
    #[arg(long, value_name = "NAME/HOST:PORT,…")]
    pub(super) config_servers: Members,
    /// A shard; once for each.
    #[arg(long = "shard", required = true, value_name = "NAME/HOST:PORT,…")]
    pub(super) shards: Vec<Members>,
}

/// Makes a sharded cluster of servers that run already, and Aviary's collections in it.
pub(super) async fn assemble(global: &Global, args: AssembleArgs) -> Result<()> {
    let uri = global.deployment()?;
    // What the driver says of a malformed one would quote it.
    crate::store::check_uri(&uri)?;
    assemble::assemble(&uri, &args.config_servers, &args.shards).await.map_err(local)?;
    let store = global.store("aviary-assemble").await?;
    until_known(async |_| store.init().await).await?;
    if !global.quiet {
        tell!("{} shards are ready for Aviary", args.shards.len());
    }
    Ok(())
}

/// Prints where the servers are that a local deployment would be made of.
pub(super) async fn servers(global: &Global) -> Result<()> {
    let progress =
        if global.quiet { Progress::silent() } else { Progress::new(|line| tell!("{line}")) };
    let search = tokio::task::spawn_blocking(move || mongod::locate(&progress));
    let mongod = search.await.map_err(|e| Error::Internal(e.to_string()))?.map_err(local)?;
    super::output::line(mongod.display())?;
    if let Some(mongos) = sharded::mongos() {
        super::output::line(mongos.display())?;
    }
    Ok(())
}
