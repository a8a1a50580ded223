//! The command line of one server, and waiting until it serves.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::process::{Managed, ManagedCommand, POLL};
use crate::{Progress, home, mongod, wire};

/// How long a condition of a deployment is awaited before it counts as failed.
pub(crate) const CONDITION: Duration = Duration::from_secs(120);
/// How long a server has to end by itself.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(30);
/// How often a start is tried again when somebody took a port.
pub(crate) const PORT_TRIES_MAX: u32 = 5;
/// The kernel's limit for the path of a unix socket, without the closing zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// mongod waits this long for clients to go away when it is asked to end; its default is 15 s.
const QUIESCE_MS: u32 = 200;

/// What one server is started with.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) mongod: &'a Path,
    pub(crate) dir: &'a Path,
    pub(crate) index: usize,
    pub(crate) port: u16,
    pub(crate) cache_gb: f64,
    /// The replica set's name, and the size of its log in MB.
    pub(crate) replication: Option<(&'a str, u32)>,
    pub(crate) key_file: Option<&'a Path>,
    pub(crate) parameters: &'a [(String, String)],
    pub(crate) test_commands: bool,
    pub(crate) extra_args: &'a [String],
}

impl Launch<'_> {
    /// Starts the server; it does not serve yet.
    pub(crate) fn spawn(&self) -> Result<Managed> {
        let member_dir = self.dir.join(format!("member-{}", self.index));
        let data = member_dir.join("data");
        home::create_private(&data)?;
        let mut command = ManagedCommand::new(self.mongod, member_dir.join("mongod.log"))
            .name(format!("mongod {}", self.index))
            .isolated(&member_dir)
            // In one word: the watchdog knows a server by it.
            .arg(format!("--dbpath={}", data.display()))
            .arg(format!("--port={}", self.port))
            .arg("--bind_ip=127.0.0.1")
            // Never zlib: servers before 6.0.27 let clients that ask for it read their memory (CVE-2025-14847).
            .arg("--networkMessageCompressors=snappy,zstd")
            .arg(format!("--wiredTigerCacheSizeGB={}", self.cache_gb));
        command = match socket_path(self.dir, self.port) {
            Some(_) => command.arg(format!("--unixSocketPrefix={}", self.dir.display())),
            None => command.arg("--nounixsocket"),
        };
        if let Some((name, oplog_mb)) = self.replication {
            command =
                command.arg(format!("--replSet={name}")).arg(format!("--oplogSize={oplog_mb}"));
        }
        if let Some(key_file) = self.key_file {
            command = command.arg(format!("--keyFile={}", key_file.display()));
        }
        let mut parameters = vec![
            "diagnosticDataCollectionEnabled=false".to_owned(),
            format!("shutdownTimeoutMillisForSignaledShutdown={QUIESCE_MS}"),
        ];
        if self.test_commands {
            parameters.push("enableTestCommands=1".to_owned());
        }
        let more = self.parameters.iter();
        parameters.extend(more.map(|(name, value)| format!("{name}={value}")));
        for parameter in parameters {
            command = command.args(["--setParameter".to_owned(), parameter]);
        }
        command.args(self.extra_args).spawn()
    }
}

/// Starts a server again with the words it was started with.
pub(crate) fn spawn_again(process: &Managed) -> Result<Managed> {
    let record = process.record();
    let (program, args) = record.command.split_first().ok_or(Error::Options {
        option: "command",
        reason: format!("nothing is known of how {} was started", record.name),
    })?;
    let dir = record.log.parent().unwrap_or(Path::new("/"));
    ManagedCommand::new(program, &record.log).name(&record.name).isolated(dir).args(args).spawn()
}

/// Waits until the server listens and answers.
pub(crate) async fn wait_serving(process: &Managed, port: u16) -> Result<()> {
    // Its own word first: whoever answers on the port might be another program.
    let heard = process.wait_for_log("Waiting for connections").await;
    if let Err(error) = heard {
        let log = process.log()?;
        if log.contains("Address already in use") {
            return Err(Error::PortTaken { name: process.name().to_owned(), port });
        }
        if let Some(library) = mongod::missing_library(&log) {
            let program = process.record().command.first();
            return Err(Error::LibraryMissing {
                path: program.map(PathBuf::from).unwrap_or_default(),
                library,
            });
        }
        return Err(error);
    }
    let deadline = Instant::now() + CONDITION;
    loop {
        match wire::hello(port).await {
            Ok(_) => return Ok(()),
            // Slow to answer on a busy machine, or ended after all.
            Err(error) if Instant::now() > deadline || !process.is_running() => return Err(error),
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

/// The server's unix socket, when its path is short enough to have one.
pub(crate) fn socket_path(dir: &Path, port: u16) -> Option<PathBuf> {
    let path = dir.join(format!("mongodb-{port}.sock"));
    (path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX).then_some(path)
}

/// The server program to use. Finding it may take long, so it has a thread of its own.
pub(crate) async fn program(chosen: Option<&Path>, progress: &Progress) -> Result<PathBuf> {
    if let Some(path) = chosen {
        return Ok(path.to_path_buf());
    }
    let progress = progress.clone();
    let search = tokio::task::spawn_blocking(move || mongod::locate(&progress));
    search.await.unwrap_or_else(|error| Err(Error::MongodMissing { reason: error.to_string() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deep_directory_has_no_socket() {
        assert!(socket_path(Path::new("/tmp/x"), 27017).is_some());
        let deep = PathBuf::from(format!("/{}", "d".repeat(100)));
        assert_eq!(socket_path(&deep, 27017), None);
    }
}
