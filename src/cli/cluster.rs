//! `aviary up` and `aviary down`: a real deployment on this machine.

mod servers;

use std::path::{Path, PathBuf};

use aviary_testcontainers::state::{self, State};
use aviary_testcontainers::{Managed, ManagedCommand, Progress};
use clap::Args;

use super::args::Global;
use super::deployments;
use crate::dirs;
use crate::error::{Error, Result};
use crate::store::retry::until_known;
use crate::store::{ConnectOptions, Store};
use crate::terminal::tell;

use servers::Servers;

#[derive(Debug, Args)]
pub(super) struct UpArgs {
    /// A sharded cluster with so many shards, instead of a replica set. Its router is a mongos where
    /// one is on PATH, otherwise a stand-in for trying things out.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) shards: Option<u16>,
    /// Members of the replica set, or of each shard.
    #[arg(long, default_value = "1", value_parser = ["1", "3"], value_name = "M")]
    pub(super) members: String,
    /// Worker processes; in a sharded cluster, for each shard.
    #[arg(long, default_value_t = 1, value_name = "K", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) workers: u16,
    /// Tasks a worker runs at once.
    #[arg(long, default_value_t = 2, value_name = "S", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) slots: u16,
    /// Where the data lives [default: a temporary directory, gone at the end; with --detach, one in
    /// the cache directory].
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
    /// The first member's port; the others follow.
    #[arg(long, value_name = "P")]
    pub(super) port: Option<u16>,
    /// Return at once; `aviary down` stops it.
    #[arg(long)]
    pub(super) detach: bool,
    /// Start nothing: list the deployments that `up` has started on this machine. A verb that is given no URI
    /// uses the one that runs.
    #[arg(long, conflicts_with_all = ["shards", "members", "workers", "slots", "dir", "port", "detach"])]
    pub(super) list: bool,
}

#[derive(Debug, Args)]
pub(super) struct DownArgs {
    /// The directory that `up --detach` was given [default: the one it chose].
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
    /// Remove the data too: logs and the servers' own directories, which go whole, with whatever was put there.
    /// What lies beside them stays.
    #[arg(long)]
    pub(super) remove: bool,
}

/// The database that coordinator and workers of a local deployment work in unless told otherwise.
pub(super) const DB_DEFAULT: &str = "test";

/// A deployment on this machine with its daemons. Everything ends when it is dropped, unless it was
/// made to stay.
pub(super) struct Local {
    servers: Servers,
    daemons: Vec<Managed>,
    /// Of the deployment, with the database in it that people are told of.
    uri: String,
    env: Vec<(&'static str, String)>,
}

/// What a local deployment is made of.
pub(super) struct LocalOptions {
    /// Shards of a sharded cluster; a replica set without any.
    pub(super) shards: usize,
    pub(super) members: usize,
    /// Worker processes, in a sharded cluster for each shard.
    pub(super) workers: usize,
    pub(super) slots: usize,
    pub(super) dir: Option<PathBuf>,
    pub(super) port: Option<u16>,
    pub(super) stays: bool,
    pub(super) db: String,
    /// Variables of the daemons, besides those of this process.
    pub(super) env: Vec<(&'static str, String)>,
    pub(super) quiet: bool,
}

impl Local {
    /// Starts servers and daemons.
    pub(super) async fn start(options: LocalOptions) -> Result<Self> {
        let progress =
            if options.quiet { Progress::silent() } else { Progress::new(|line| tell!("{line}")) };
        let servers = Servers::start(&options, progress).await?;
        if !options.quiet
            && let Some(caution) = servers.caution().await
        {
            tell!("{caution}");
        }
        let uri = with_db(&servers.uri(), &options.db);
        let mut started = Self { servers, daemons: Vec::new(), uri, env: options.env.clone() };
        // Daemons serve what has been set up.
        let spawned = match started.init().await {
            Ok(()) => started.spawn_daemons(&options),
            Err(error) => Err(error),
        };
        if let Err(error) = spawned {
            // Servers that are to stay would run on, and the error says that nothing was started.
            started.stop().await?;
            return Err(error);
        }
        Ok(started)
    }

    /// Makes Aviary's collections in the database that people are told of.
    async fn init(&self) -> Result<()> {
        let store = Store::connect(&self.connection()).await?;
        until_known(async |_| store.init().await).await?;
        store.close().await;
        Ok(())
    }

    fn connection(&self) -> ConnectOptions {
        ConnectOptions {
            uri: self.uri.clone(),
            db: None,
            any_db: false,
            app_name: "aviary-up".to_owned(),
            shard: None,
            shard_uri: None,
            trusted: std::collections::BTreeSet::new(),
        }
    }

    fn spawn_daemons(&mut self, options: &LocalOptions) -> Result<()> {
        let links = self.servers.beside(options.workers)?;
        self.spawn("coordinator", &["coordinator".into()])?;
        for (n, link) in links.into_iter().enumerate() {
            let mut args = vec!["worker".into(), "--slots".into(), options.slots.to_string()];
            args.extend(link.into_iter().flat_map(|link| ["--shard-uri".into(), link]));
            self.spawn(&format!("worker-{n}"), &args)?;
        }
        Ok(())
    }

    /// Waits until the coordinator and the workers have reported, so that `aviary workers` lists them right after
    /// `up`. If they are late, it says so and goes on.
    async fn reported(&self, workers: usize, quiet: bool) {
        const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
        const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(100);
        let all = match &self.servers {
            Servers::Set(_) => workers,
            Servers::Cluster(cluster) => workers * cluster.shard_count(),
        };
        let reporting = async {
            let store = Store::connect(&self.connection()).await?;
            loop {
                let rows = store.workers().await.map(|listed| listed.rows).unwrap_or_default();
                let alive = rows.iter().filter(|worker| worker.is_alive()).count();
                if alive >= all && store.has_coordinator().await.unwrap_or_default() {
                    return Ok::<_, Error>(());
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        match tokio::time::timeout(PATIENCE, reporting).await {
            Ok(Ok(())) => {}
            _ if quiet => {}
            _ => tell!(
                "coordinator and workers have not reported yet; their logs are in {}",
                self.dir().display()
            ),
        }
    }

    /// The URI, with the database in it.
    pub(super) fn uri(&self) -> &str {
        &self.uri
    }

    /// Where data and logs are.
    pub(super) fn dir(&self) -> &Path {
        self.servers.dir()
    }

    fn spawn(&mut self, name: &str, args: &[String]) -> Result<()> {
        let program = std::env::current_exe().map_err(|e| Error::io("find this program", e))?;
        let log = self.servers.dir().join(format!("{name}.log"));
        let mut daemon = ManagedCommand::new(program, log)
            .name(name)
            .args(args)
            .env("AVIARY_URI", self.servers.uri())
            .env_remove("AVIARY_URI_FILE")
            .env_remove("AVIARY_SHARD")
            .env_remove("AVIARY_SHARD_URI")
            .env_remove("AVIARY_SHARD_URI_FILE")
            .env_remove("AVIARY_DB")
            .env_remove("AVIARY_CONFIG");
        for (variable, value) in &self.env {
            daemon = daemon.env(*variable, value);
        }
        let daemon = daemon.spawn().map_err(local)?;
        self.servers.adopt(&daemon)?;
        self.daemons.push(daemon);
        Ok(())
    }

    /// Ends daemons and servers in order and removes what was temporary.
    pub(super) async fn stop(self) -> Result<()> {
        const GRACE: std::time::Duration = std::time::Duration::from_secs(20);
        for daemon in &self.daemons {
            daemon.stop(GRACE).await.map_err(local)?;
        }
        self.servers.shutdown().await
    }

    /// Leaves everything running.
    pub(super) fn leave(self) {
        for daemon in &self.daemons {
            daemon.detach();
        }
        // Persistent servers outlive their handle.
        drop(self.servers);
    }
}

pub(super) async fn up(global: &Global, args: UpArgs) -> Result<()> {
    if args.list {
        return deployments::list(global);
    }
    let dir = match (&args.dir, args.detach) {
        (None, true) => Some(detached_dir()?),
        (dir, _) => dir.clone(),
    };
    let db = global.db.clone().unwrap_or_else(|| DB_DEFAULT.to_owned());
    if let Some(dir) = &dir {
        refuse_running(dir, args.dir.as_deref(), &db)?;
    }
    if args.shards.is_some() && !global.quiet && aviary_testcontainers::sharded::mongos().is_none()
    {
        tell!(
            "there is no mongos on PATH: a stand-in takes its place, for trying things out; keep no data behind it"
        );
    }
    let stop = super::daemons::stop_on_signal()?;
    let local = Local::start(LocalOptions {
        shards: args.shards.map_or(0, usize::from),
        members: args.members.parse().unwrap_or(1),
        workers: args.workers.into(),
        slots: args.slots.into(),
        dir: dir.clone(),
        port: args.port,
        stays: args.detach,
        db: db.clone(),
        env: global.for_daemons(),
        quiet: global.quiet,
    })
    .await?;
    // That it cannot be listed is no reason not to start it.
    if let Err(error) = deployments::note(local.dir(), &db) {
        tracing::warn!(%error, "aviary up --list will not show this deployment");
    }
    local.reported(args.workers.into(), global.quiet).await;
    super::output::line(local.uri())?;
    if args.detach {
        if !global.quiet {
            tell!("logs and data are in {}", local.dir().display());
            tell!("stop it with: aviary down{}", dir_flag(args.dir.as_deref()));
        }
        local.leave();
        return Ok(());
    }
    if !global.quiet {
        tell!("logs and data are in {}; stop with Ctrl-C", local.dir().display());
    }
    let ended = tokio::select! {
        () = stop.cancelled() => None,
        ended = servers_ended(local.dir(), args.members.parse().unwrap_or(1)) => Some(ended),
    };
    let stopped = local.stop().await;
    match ended {
        None => stopped,
        Some(which) => Err(Error::refused(
            format!("{which} of the deployment has ended, and so does the rest"),
            match args.dir {
                Some(dir) => format!("the logs are in {}", dir.display()),
                None => "give --dir to keep data and logs".to_owned(),
            },
        )),
    }
}

/// How a deployment is named to the verbs that take a directory.
fn dir_flag(given: Option<&Path>) -> String {
    given.map_or_else(String::new, |dir| format!(" --dir {}", dir.display()))
}

/// Says where to find a deployment that runs in a directory already, and what to do.
fn refuse_running(dir: &Path, given: Option<&Path>, db: &str) -> Result<()> {
    if !State::path(dir).exists() {
        return Ok(());
    }
    let state = State::read(dir).map_err(local)?;
    if state.running().next().is_none() {
        return Ok(());
    }
    let (shown, flag) = (dir.display(), dir_flag(given));
    if state.members.iter().all(|member| member.is_running()) {
        return Err(Error::refused(
            format!(
                "cannot start in {shown}: a deployment already runs there, at {}",
                with_db(&state.uri, db)
            ),
            format!("use that one, or stop it with: aviary down{flag}"),
        ));
    }
    Err(Error::refused(
        format!("cannot start in {shown}: a deployment runs there that has lost a server"),
        format!(
            "end the rest of it with: aviary down{flag}; then aviary up starts it again with its data"
        ),
    ))
}

/// Waits until servers have ended that a deployment cannot do without, and names one: any, or all that are members of
/// replica sets of several.
async fn servers_ended(dir: &Path, members: usize) -> String {
    const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(500);
    let Ok(state) = State::read(dir) else { return std::future::pending().await };
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let mut gone = state.members.iter().filter(|member| !member.is_running());
        let is_over = match members {
            1 => gone.clone().next().is_some(),
            _ => gone.clone().count() == state.members.len(),
        };
        if let Some(one) = gone.next().filter(|_| is_over) {
            return format!("the server {}", one.name);
        }
    }
}

pub(super) async fn down(global: &Global, args: DownArgs) -> Result<()> {
    let flag = dir_flag(args.dir.as_deref());
    let dir = match args.dir {
        Some(dir) => dir,
        None => detached_dir()?,
    };
    let known = if args.remove {
        state::is_deployment(&dir).map_err(local)?
    } else {
        State::path(&dir).exists()
    };
    if !known {
        return Err(Error::NotFound {
            what: format!("a deployment in {}", dir.display()),
            hint: "name the directory that aviary up --detach was given, with --dir".into(),
        });
    }
    let ended = state::down(&dir, args.remove).await.map_err(local)?;
    if !global.quiet {
        tell!("processes ended: {}", ended.processes.len());
        match args.remove {
            true => tell!("the data are removed"),
            false => tell!(
                "the data stay in {}: aviary up --detach{flag} serves them again, aviary down --remove{flag} removes \
                 them",
                dir.display()
            ),
        }
        for path in ended.left {
            tell!("left alone, since aviary did not make it: {}", path.display());
        }
    }
    Ok(())
}

/// Runs the stand-in for mongos until the process is ended.
pub(super) async fn router(args: &[String]) -> Result<()> {
    let ended = aviary_testcontainers::router::program::main(args).await;
    if ended == std::process::ExitCode::SUCCESS {
        return Ok(());
    }
    Err(Error::Usage("the router did not start".into()))
}

fn detached_dir() -> Result<PathBuf> {
    dirs::cache("up")
}

/// The address with a database in it.
pub(super) fn with_db(uri: &str, db: &str) -> String {
    match uri.split_once("/?") {
        Some((hosts, options)) => format!("{hosts}/{db}?{options}"),
        None => format!("{}/{db}", uri.trim_end_matches('/')),
    }
}

/// A failure to start or stop something on this machine.
pub(super) fn local(error: aviary_testcontainers::Error) -> Error {
    match error {
        // Options are named after our flags, but for one.
        aviary_testcontainers::Error::Options { option, reason } => {
            let flag = if option == "ports" { "port" } else { option };
            Error::refused(format!("cannot start with --{flag}: {reason}"), "")
        }
        error => Error::refused(format!("cannot {error}"), ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_goes_between_hosts_and_options() {
        assert_eq!(
            with_db("mongodb://127.0.0.1:1,127.0.0.1:2/?replicaSet=rs0", "test"),
            "mongodb://127.0.0.1:1,127.0.0.1:2/test?replicaSet=rs0"
        );
        assert_eq!(with_db("mongodb://h:1/", "x"), "mongodb://h:1/x");
    }
}
