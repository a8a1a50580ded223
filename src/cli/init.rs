//! `aviary init`.

use clap::Args;

use super::args::{Given, Global, Init, duration};
use crate::error::Result;
use crate::settings::Chosen;
use crate::settings::file::Values;
use crate::store::requests::tenants;
use crate::store::retry::until_known;
use crate::terminal::tell;

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// How far back snapshots can be read, e.g. 1h: raises the servers'
    /// minSnapshotHistoryWindowInSeconds where permitted.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) history_window: Option<humantime::Duration>,
    /// Create a collection of requests for this tenant, aviary-requests-NAME: who may insert there is this one.
    #[arg(long, value_name = "NAME")]
    pub(super) tenant: Vec<String>,
    #[command(flatten)]
    pub(super) given: Given<Init>,
}

pub(super) async fn run(global: &Global, args: InitArgs) -> Result<()> {
    let mut chosen = Chosen::default();
    args.given.offer_to(&mut chosen)?;
    let settings: Values =
        chosen.iter().map(|(setting, _, value)| (setting, value.clone())).collect();
    let store = global.store("aviary-init").await?;
    until_known(async |_| store.init().await).await?;
    for tenant in &args.tenant {
        let collection = tenants(tenant)?;
        until_known(async |_| store.init_requests(&collection).await).await?;
    }
    if !settings.is_empty() {
        super::config::write(&store, &settings).await?;
    }
    if let Some(window) = args.history_window {
        until_known(async |_| store.raise_history_window(window.into()).await).await?;
        if !global.quiet {
            tell!("snapshots can be read {window} back, until the servers restart");
        }
    }
    if !global.quiet {
        let on = match store.shards().await?.as_slice() {
            [one] => one.name.clone(),
            several => format!("{} shards", several.len()),
        };
        tell!("{} is ready for Aviary on {on}", store.db_name());
    }
    Ok(())
}
