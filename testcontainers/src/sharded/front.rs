//! The router in front of a sharded cluster: which program it is, and what can be done to it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::task::JoinHandle;

use super::ShardedClusterOptions;
use crate::error::{Error, Result};
use crate::home::Home;
use crate::launch::{self, CONDITION, STOP_GRACE};
use crate::mongod::is_executable;
use crate::ports::{self, Lease};
use crate::process::{Managed, ManagedCommand, POLL, Record};
use crate::program;
use crate::router::Router;
use crate::wire;

/// The environment variable that names the `mongos` to use.
pub const MONGOS_VARIABLE: &str = "AVIARY_MONGOS";
/// The environment variable that names the stand-in's program, `aviary-test-router`.
pub const ROUTER_VARIABLE: &str = "AVIARY_TEST_ROUTER";
const STAND_IN: &str = "aviary-test-router";

/// What to use as the router.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum RouterProgram {
    /// The `mongos` that `AVIARY_MONGOS` names or that is on `PATH`; otherwise the test-only
    /// stand-in: the program that `AVIARY_TEST_ROUTER` names or that lies beside this program,
    /// and at last a task of this program.
    #[default]
    Auto,
    /// A program that takes the arguments of a mongos, after arguments of its own.
    Program {
        /// The program.
        path: PathBuf,
        /// Its first arguments.
        args: Vec<String>,
    },
    /// The test-only stand-in as a task of this program, which ends with it.
    InProcess,
}

/// A router and the means to hurt it.
#[derive(Debug)]
pub struct Front {
    lease: Lease,
    config_db: String,
    key_file: Option<PathBuf>,
    running: Mutex<Running>,
    watched_dir: PathBuf,
}

#[derive(Debug)]
enum Running {
    Process(Arc<Managed>),
    /// Absent once it was killed.
    Task(Option<JoinHandle<()>>),
}

impl Front {
    pub(super) async fn start(
        options: &ShardedClusterOptions,
        config_db: &str,
        key_file: Option<&Path>,
        home: &Home,
    ) -> Result<Self> {
        let lease = match options.port {
            Some(port) => Lease::fixed(port),
            None => ports::lease_one()?,
        };
        let port = lease.port;
        let running = match router(&options.router) {
            Some((path, args)) => {
                let key_file = key_file.iter().map(|path| format!("--keyFile={}", path.display()));
                let process = ManagedCommand::new(path, home.path().join("router.log"))
                    .name("router")
                    .isolated(home.path())
                    .args(args)
                    .arg(format!("--configdb={config_db}"))
                    .arg(format!("--port={port}"))
                    .arg("--bind_ip=127.0.0.1")
                    .args(key_file)
                    .spawn()?;
                home.watch(process.record())?;
                launch::wait_serving(&process, port).await?;
                Running::Process(Arc::new(process))
            }
            None if options.persistent => {
                return Err(Error::Options {
                    option: "router",
                    reason: "one in this process cannot outlive it".to_owned(),
                });
            }
            None => Running::Task(Some(spawn_task(config_db, key_file, port).await?)),
        };
        Ok(Self {
            lease,
            config_db: config_db.to_owned(),
            key_file: key_file.map(Path::to_path_buf),
            running: Mutex::new(running),
            watched_dir: home.path().to_path_buf(),
        })
    }

    /// The router's port on 127.0.0.1; it stays the same over restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.lease.port
    }

    /// The router's process: for its id, its log, and to freeze it. `None` for one that is a task
    /// of this program.
    #[must_use]
    pub fn process(&self) -> Option<Arc<Managed>> {
        match &*self.lock() {
            Running::Process(process) => Some(Arc::clone(process)),
            Running::Task(_) => None,
        }
    }

    /// Kills the router (SIGKILL; a task is dropped) and waits until it is gone. Its cursors are
    /// gone too, and its clients' connections are closed.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub async fn kill(&self) -> Result<()> {
        if let Some(process) = self.process() {
            process.kill()?;
            return process.wait_gone(STOP_GRACE).await;
        }
        let task = match &mut *self.lock() {
            Running::Task(task) => task.take(),
            Running::Process(_) => None,
        };
        if let Some(task) = task {
            task.abort();
            // It ends with nothing but its having been aborted.
            task.await.ok();
        }
        Ok(())
    }

    /// Ends the router if it runs, starts it on the same port, and waits until it serves.
    ///
    /// # Errors
    ///
    /// When it does not start again.
    pub async fn restart(&self) -> Result<()> {
        if let Some(old) = self.process() {
            old.stop(STOP_GRACE).await?;
            let new = launch::spawn_again(&old)?;
            crate::home::watch_in(&self.watched_dir, new.record())?;
            launch::wait_serving(&new, self.port()).await?;
            *self.lock() = Running::Process(Arc::new(new));
            return Ok(());
        }
        self.kill().await?;
        let task = spawn_task(&self.config_db, self.key_file.as_deref(), self.port()).await?;
        *self.lock() = Running::Task(Some(task));
        Ok(())
    }

    /// Whether it answers right now.
    pub async fn answers(&self) -> bool {
        wire::hello(self.port()).await.is_ok()
    }

    pub(super) fn record(&self) -> Option<Record> {
        self.process().map(|process| process.record().clone())
    }

    pub(super) fn detach(&self) -> Result<()> {
        if let Some(process) = self.process() {
            process.detach();
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Running::Task(Some(task)) = &*self.lock() {
            task.abort();
        }
    }
}

async fn spawn_task(config_db: &str, key_file: Option<&Path>, port: u16) -> Result<JoinHandle<()>> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let deadline = Instant::now() + CONDITION;
    loop {
        match Router::bind(config_db, address, key_file).await {
            Ok(router) => return Ok(router.spawn()),
            // The connections of the one before may not be closed yet.
            Err(error)
                if error.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < deadline =>
            {
                tokio::time::sleep(POLL).await;
            }
            Err(source) => return Err(Error::Router { port, source }),
        }
    }
}

/// The program to start and its first arguments; `None` for a task of this program.
/// The real `mongos` of this machine: the one that `AVIARY_MONGOS` names, or that is on `PATH`.
#[must_use]
pub fn mongos() -> Option<PathBuf> {
    named(MONGOS_VARIABLE).or_else(|| program::all_on_path("mongos").next())
}

fn named(variable: &str) -> Option<PathBuf> {
    crate::named::var_os(variable).map(|value| program::named(&value))
}

fn router(choice: &RouterProgram) -> Option<(PathBuf, Vec<String>)> {
    let found = match choice {
        RouterProgram::Program { path, args } => return Some((path.clone(), args.clone())),
        RouterProgram::InProcess => None,
        RouterProgram::Auto => mongos().or_else(|| named(ROUTER_VARIABLE)).or_else(beside),
    };
    found.map(|path| (path, Vec::new()))
}

/// Cargo puts programs into one directory, and tests and examples into directories in it.
fn beside() -> Option<PathBuf> {
    let this = std::env::current_exe().ok()?;
    let mut dirs = this.ancestors().skip(1).take(2).map(|dir| dir.join(STAND_IN));
    dirs.find(|file| is_executable(Path::new(file)))
}
