//! `aviary up` and `aviary down`: a real deployment on this machine.

use std::path::{Path, PathBuf};

use aviary_testcontainers::{Managed, ManagedCommand, Progress, ReplicaSet, ReplicaSetOptions};

use super::args::{DownArgs, Global, UpArgs};
use crate::error::{Error, Result};

/// The database that coordinator and workers of a local deployment work in unless told otherwise.
pub(super) const DB_DEFAULT: &str = "test";

/// A deployment on this machine with its daemons. Everything ends when it is dropped, unless it was
/// made to stay.
pub(super) struct Local {
    set: ReplicaSet,
    daemons: Vec<Managed>,
    uri: String,
}

/// What a local deployment is made of.
pub(super) struct LocalOptions {
    pub(super) members: usize,
    pub(super) workers: usize,
    pub(super) slots: usize,
    pub(super) dir: Option<PathBuf>,
    pub(super) port: Option<u16>,
    pub(super) stays: bool,
    pub(super) db: String,
    pub(super) quiet: bool,
}

impl Local {
    /// Starts servers and daemons.
    pub(super) async fn start(options: LocalOptions) -> Result<Self> {
        let quiet = options.quiet;
        let progress =
            if quiet { Progress::silent() } else { Progress::new(|line| eprintln!("{line}")) };
        let set = ReplicaSet::start(ReplicaSetOptions {
            members: options.members,
            dir: options.dir,
            ports: options.port,
            persistent: options.stays,
            progress,
            ..ReplicaSetOptions::default()
        })
        .await
        .map_err(local)?;
        let uri = with_db(&set.uri(), &options.db);
        let mut started = Self { set, daemons: Vec::new(), uri };
        started.spawn("coordinator", &["coordinator".into()])?;
        for n in 0..options.workers {
            let args = ["worker".into(), "--slots".into(), options.slots.to_string()];
            started.spawn(&format!("worker-{n}"), &args)?;
        }
        Ok(started)
    }

    /// The URI, with the database in it.
    pub(super) fn uri(&self) -> &str {
        &self.uri
    }

    /// Where data and logs are.
    pub(super) fn dir(&self) -> &Path {
        self.set.dir()
    }

    fn spawn(&mut self, name: &str, args: &[String]) -> Result<()> {
        let program = std::env::current_exe().map_err(|e| Error::io("find this program", e))?;
        let log = self.set.dir().join(format!("{name}.log"));
        let daemon = ManagedCommand::new(program, log)
            .name(name)
            .args(args)
            .env("AVIARY_URI", &self.uri)
            .env_remove("AVIARY_DB")
            .env_remove("AVIARY_CONFIG")
            .spawn()
            .map_err(local)?;
        self.set.adopt(&daemon).map_err(local)?;
        self.daemons.push(daemon);
        Ok(())
    }

    /// Ends daemons and servers in order and removes what was temporary.
    pub(super) async fn stop(self) -> Result<()> {
        const GRACE: std::time::Duration = std::time::Duration::from_secs(20);
        for daemon in &self.daemons {
            daemon.stop(GRACE).await.map_err(local)?;
        }
        self.set.shutdown().await.map_err(local)
    }

    /// Leaves everything running.
    pub(super) fn leave(self) {
        for daemon in &self.daemons {
            daemon.detach();
        }
        // A persistent set outlives its handle.
        drop(self.set);
    }
}

pub(super) async fn up(global: &Global, args: UpArgs) -> Result<()> {
    if args.workers == 0 || args.slots == 0 {
        return Err(Error::Usage("--workers and --slots must be at least 1".into()));
    }
    let dir = match (&args.dir, args.detach) {
        (None, true) => Some(detached_dir()),
        (dir, _) => dir.clone(),
    };
    let stop = super::daemons::stop_on_signal()?;
    let local = Local::start(LocalOptions {
        members: args.members.parse().unwrap_or(1),
        workers: args.workers,
        slots: args.slots,
        dir: dir.clone(),
        port: args.port,
        stays: args.detach,
        db: global.db.clone().unwrap_or_else(|| DB_DEFAULT.to_owned()),
        quiet: global.quiet,
    })
    .await?;
    println!("{}", local.uri());
    if args.detach {
        if !global.quiet {
            eprintln!("logs and data are in {}", local.dir().display());
            match &args.dir {
                Some(dir) => eprintln!("stop it with: aviary down --dir {}", dir.display()),
                None => eprintln!("stop it with: aviary down"),
            }
        }
        local.leave();
        return Ok(());
    }
    if !global.quiet {
        eprintln!("logs and data are in {}; stop with Ctrl-C", local.dir().display());
    }
    stop.cancelled().await;
    local.stop().await
}

pub(super) async fn down(global: &Global, args: DownArgs) -> Result<()> {
    let dir = args.dir.unwrap_or_else(detached_dir);
    if !aviary_testcontainers::state::State::path(&dir).exists() {
        return Err(Error::NotFound {
            what: format!("a deployment in {}", dir.display()),
            hint: "name the directory that aviary up --detach was given, with --dir".into(),
        });
    }
    let ended = aviary_testcontainers::state::down(&dir, args.remove).await.map_err(local)?;
    if !global.quiet {
        eprintln!("processes ended: {}", ended.len());
    }
    Ok(())
}

fn detached_dir() -> PathBuf {
    aviary_testcontainers::mongod::cache_dir().join("up")
}

fn with_db(uri: &str, db: &str) -> String {
    match uri.split_once("/?") {
        Some((hosts, options)) => format!("{hosts}/{db}?{options}"),
        None => format!("{}/{db}", uri.trim_end_matches('/')),
    }
}

/// A failure to start or stop something on this machine.
fn local(error: aviary_testcontainers::Error) -> Error {
    Error::refused(error.to_string(), "")
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
