//! One server without a replica set: no change streams, no transactions, no snapshot reads.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::home::Home;
use crate::launch::{self, Launch, PORT_TRIES_MAX, STOP_GRACE};
use crate::ports::{self, Lease};
use crate::process::Managed;
use crate::replica_set::CACHE_GB;
use crate::uri::uri_of;
use crate::{Progress, wire};

/// What a single server is started with.
#[derive(Debug, Clone)]
pub struct StandaloneOptions {
    /// Where its data are; a temporary directory otherwise, which is removed at the end.
    pub dir: Option<PathBuf>,
    /// Its port; a free one otherwise.
    pub port: Option<u16>,
    /// The size of its cache, in GB.
    pub cache_gb: f64,
    /// Whether commands meant for tests, such as fail points, are allowed.
    pub test_commands: bool,
    /// Server parameters to set.
    pub parameters: Vec<(String, String)>,
    /// Further arguments.
    pub extra_args: Vec<String>,
    /// The server program; [`crate::mongod::locate`] finds one otherwise.
    pub mongod: Option<PathBuf>,
    /// Told about steps that take long.
    pub progress: Progress,
}

impl Default for StandaloneOptions {
    fn default() -> Self {
        Self {
            dir: None,
            port: None,
            cache_gb: CACHE_GB,
            test_commands: false,
            parameters: Vec::new(),
            extra_args: Vec::new(),
            mongod: None,
            progress: Progress::silent(),
        }
    }
}

/// A running single server. Dropping it ends it.
#[derive(Debug)]
pub struct Standalone {
    process: Mutex<Arc<Managed>>,
    lease: Lease,
    // Last, so that the directory goes after the process in it.
    home: Home,
}

impl Standalone {
    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    ///
    /// When no server program is found, or when the server does not start; the error shows the
    /// telling lines of its log.
    pub async fn start(options: StandaloneOptions) -> Result<Self> {
        let mongod = launch::program(options.mongod.as_deref(), &options.progress).await?;
        let home = Home::create(options.dir.as_deref(), false)?;
        let mut tries = 0;
        let (process, lease) = loop {
            tries += 1;
            let lease = match options.port {
                Some(port) => Lease::fixed(port),
                None => ports::lease_one()?,
            };
            let process = Launch {
                mongod: &mongod,
                dir: home.path(),
                index: 0,
                port: lease.port,
                cache_gb: options.cache_gb,
                replication: None,
                key_file: None,
                parameters: &options.parameters,
                test_commands: options.test_commands,
                extra_args: &options.extra_args,
            }
            .spawn()?;
            home.watch(process.record())?;
            match launch::wait_serving(&process, lease.port).await {
                Ok(()) => break (process, lease),
                Err(Error::PortTaken { .. })
                    if options.port.is_none() && tries < PORT_TRIES_MAX => {}
                Err(error) => return Err(error),
            }
        };
        Ok(Self { process: Mutex::new(Arc::new(process)), lease, home })
    }

    /// Its address.
    #[must_use]
    pub fn uri(&self) -> String {
        uri_of(None, &[self.lease.port], "directConnection=true")
    }

    /// Its port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.lease.port
    }

    /// Its unix socket, when its directory is not too deep to have one.
    #[must_use]
    pub fn socket(&self) -> Option<PathBuf> {
        launch::socket_path(self.dir(), self.lease.port)
    }

    /// The directory that holds its data and its log.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.home.path()
    }

    /// Its process: for its id, its log, and to hurt it.
    #[must_use]
    pub fn process(&self) -> Arc<Managed> {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&process)
    }

    /// Kills it and waits until it is gone.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub async fn kill(&self) -> Result<()> {
        let process = self.process();
        process.kill()?;
        process.wait_gone(STOP_GRACE).await
    }

    /// Ends it if it runs, starts it on the same port and data, and waits until it answers.
    ///
    /// # Errors
    ///
    /// When it does not start again.
    pub async fn restart(&self) -> Result<()> {
        let old = self.process();
        old.stop(STOP_GRACE).await?;
        let new = Arc::new(launch::spawn_again(&old)?);
        self.home.watch(new.record())?;
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&new);
        launch::wait_serving(&new, self.lease.port).await
    }

    /// Whether it answers right now.
    pub async fn answers(&self) -> bool {
        wire::hello(self.lease.port).await.is_ok()
    }

    /// Ends it; in good order when its data are kept.
    ///
    /// # Errors
    ///
    /// When it cannot be ended.
    pub async fn shutdown(self) -> Result<()> {
        if self.home.is_temporary() {
            return Ok(());
        }
        self.process().stop(STOP_GRACE).await
    }
}
