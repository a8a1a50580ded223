//! What can go wrong, in the tiers a caller acts on.
//!
//! Each variant has an exit code and a stable code word; the words themselves are a lowercase
//! fragment that fits "failed to …" or stands alone behind "error: ".

/// Whatever ends a verb or a daemon.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line or the configuration is wrong.
    #[error("{0}")]
    Usage(String),
    /// A job, function, collection or file that does not exist.
    #[error("{what} not found{hint}", hint = with_hint(.hint))]
    NotFound {
        /// What was looked for, with its name.
        what: String,
        /// What to do about it; may be empty.
        hint: String,
    },
    /// No usable server answered.
    #[error("cannot connect to {uri}: {why}")]
    Connect {
        /// What of the URI may be shown.
        uri: String,
        /// What the driver or the server said.
        why: String,
    },
    /// The deployment, the input or a function is such that Aviary must not go on.
    #[error("{why}{hint}", hint = with_hint(.hint))]
    Refused {
        /// What is wrong.
        why: String,
        /// What to do about it; may be empty.
        hint: String,
    },
    /// The database user may not do this.
    #[error("not permitted to {action}: {why}{hint}", hint = with_hint(.hint))]
    NotPermitted {
        /// What was being done.
        action: String,
        /// What the server said.
        why: String,
        /// What to do about it; may be empty.
        hint: String,
    },
    /// A database operation failed.
    #[error("failed to {action}: {source}{hint}", hint = with_hint(needed(source)))]
    Store {
        /// What was being done.
        action: String,
        /// What the server or the driver said.
        source: StoreError,
    },
    /// A document is of a newer version of Aviary, or damaged.
    #[error(
        "{what} is of a newer version of aviary than this one ({version}), which cannot read it: {why}",
        version = env!("CARGO_PKG_VERSION")
    )]
    Newer {
        /// Which document.
        what: String,
        /// What is not understood.
        why: String,
    },
    /// A write may have taken effect or not, and the database did not answer when it was asked which.
    #[error("it is not known whether {what}: {source}{hint}", hint = with_hint(.hint))]
    OutcomeUnknown {
        /// What may have happened, as a sentence.
        what: String,
        /// How to find out; may be empty.
        hint: String,
        /// What the server or the driver said last.
        source: StoreError,
    },
    /// A lease was lost: somebody else may own the task now, so nothing more may be written.
    #[error("the lease of {0} is lost")]
    LeaseLost(String),
    /// A user's function failed on its data.
    #[error("{0}")]
    Function(Box<FunctionError>),
    /// An attempt's computing took longer than its job allows.
    #[error("{0}")]
    TaskTimeout(Box<FunctionError>),
    /// A block that a committed manifest names does not exist, or not as it was written.
    #[error("block {block} of the shuffle is {what}; its map task runs again", what = damaged(.damage))]
    BlockMissing {
        /// The block's `_id`.
        block: String,
        /// What is wrong with it; nothing if it does not exist.
        damage: Option<String>,
        /// The map task that wrote it.
        task: crate::ids::TaskId,
        /// The shard that task's document lives on.
        shard: String,
        /// The attempt that wrote it.
        token: crate::ids::Token,
    },
    /// The work this depends on is not finished yet; try again later, nothing failed.
    #[error("not yet: {0}")]
    NotYet(String),
    /// The worker was told to stop; somebody else goes on.
    #[error("the worker stops")]
    Drained,
    /// This worker cannot do the work, and another one may: nothing is wrong with the job.
    #[error("{why}{hint}", hint = with_hint(.hint))]
    Unfit {
        /// What the worker lacks.
        why: String,
        /// What to do about it; may be empty.
        hint: String,
    },
    /// The job ended in failure.
    #[error("job {job} failed: {message}")]
    JobFailed {
        /// The job.
        job: String,
        /// Its recorded error.
        message: String,
    },
    /// The job stopped while its results were put in place, and waits for a person.
    #[error(
        "job {job} stopped while publishing: {message}; do not submit it again: mend the cause and run aviary \
         resume {job}, or leave the target as it is with aviary cancel {job}"
    )]
    JobStopped {
        /// The job.
        job: String,
        /// Its recorded error.
        message: String,
    },
    /// The job was cancelled.
    #[error("job {0} was cancelled")]
    JobCancelled(String),
    /// A wait ran out of time, or was interrupted; the job goes on.
    #[error(
        "stopped waiting; job {job} {how} (aviary status -w {job} follows it, aviary cancel {job} ends it)"
    )]
    WaitTimeout {
        /// The job.
        job: String,
        /// Where it stands, behind its name: `is mapping; …`.
        how: String,
    },
    /// A wait ended while the database could not be asked about the job.
    #[error(
        "cannot reach the database since {since}: {why}; job {job} is there still (aviary status -w {job} follows it \
         once the database answers)"
    )]
    Unreachable {
        /// The job.
        job: String,
        /// When it was heard of last.
        since: String,
        /// What the driver or the server said.
        why: String,
    },
    /// A local file or process failed.
    #[error("failed to {action}: {source}")]
    Io {
        /// What was being done.
        action: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// An assumption of the program itself does not hold.
    #[error("internal error: {0}")]
    Internal(String),
}

/// What to do about a refusal of the server's.
fn needed(source: &StoreError) -> &'static str {
    /// AuthenticationFailed.
    const WHO: i32 = 18;
    match (source.kind, source.code) {
        (StoreErrorKind::Unauthorized, Some(WHO)) => "check the user, the password and authSource",
        (StoreErrorKind::Unauthorized, _) => {
            "grant the user a role that may; deploy/roles.js makes one for each use, and on Atlas a custom role does"
        }
        _ => "",
    }
}

fn damaged(damage: &Option<String>) -> String {
    damage.as_ref().map_or("missing".into(), |why| format!("damaged ({why})"))
}

fn with_hint(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("; {text}") }
}

/// A failure of a user's function, with all that a person needs to find it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{stage}{function} {what}{record}: {message}{stack}",
    function = function.as_ref().map_or(String::new(), |name| format!(" of {name}")),
    record = record.as_ref().map_or(String::new(), |r| format!(" on {r}")),
    stack = if stack.is_empty() { String::new() } else { format!("\n{stack}") })]
pub struct FunctionError {
    /// `map`, `combine`, `reduce` or `finalize`.
    pub stage: String,
    /// The name or file that the function came under, if it is known.
    pub function: Option<String>,
    /// `failed`, `trapped`, `ran out of time`, `ran out of memory`, …
    pub what: &'static str,
    /// The document's `_id` or the key at hand, as extended JSON.
    pub record: Option<String>,
    /// The function's own words, or the trap's.
    pub message: String,
    /// The guest's stack, when it has one.
    pub stack: String,
    /// Whether another attempt would fail alike.
    pub deterministic: bool,
}

/// What the server or the driver said, without the driver's types.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}{code}", code = code.map_or(String::new(), |c| format!(" (code {c})")))]
pub struct StoreError {
    /// The server's or the driver's words.
    pub message: String,
    /// The server's error code, when the server answered.
    pub code: Option<i32>,
    /// What kind of failure this is.
    pub kind: StoreErrorKind,
}

/// The distinctions that decide what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// The network, a failover or a server that is not ready: the same call may work later, and
    /// whether a write took effect is unknown.
    Transient,
    /// The user lacks a privilege or the credentials are wrong.
    Unauthorized,
    /// A document with this key exists.
    DuplicateKey,
    /// The collection or index is not there.
    NamespaceNotFound,
    /// The collection exists already.
    NamespaceExists,
    /// The cluster time asked for is older than the server's history.
    SnapshotTooOld,
    /// The cluster no longer knows which shards owned what at the cluster time asked for.
    OwnersForgotten,
    /// Anything else: asking again will not help.
    Fatal,
}

impl Error {
    /// The documented exit code of the `aviary` command.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) => 2,
            Error::JobFailed { .. } | Error::Function(_) | Error::TaskTimeout(_) => 3,
            Error::JobStopped { .. } => 9,
            Error::JobCancelled(_) => 4,
            Error::NotFound { .. } => 5,
            Error::Connect { .. } | Error::OutcomeUnknown { .. } | Error::Unreachable { .. } => 6,
            Error::WaitTimeout { .. } => 7,
            Error::Refused { .. } | Error::NotPermitted { .. } | Error::Newer { .. } => 8,
            Error::Store { source, .. } => match source.kind {
                StoreErrorKind::Unauthorized => 8,
                StoreErrorKind::Transient => 6,
                StoreErrorKind::DuplicateKey
                | StoreErrorKind::NamespaceNotFound
                | StoreErrorKind::NamespaceExists
                | StoreErrorKind::SnapshotTooOld
                | StoreErrorKind::OwnersForgotten
                | StoreErrorKind::Fatal => 1,
            },
            Error::LeaseLost(_)
            | Error::BlockMissing { .. }
            | Error::NotYet(_)
            | Error::Drained
            | Error::Unfit { .. }
            | Error::Io { .. }
            | Error::Internal(_) => 1,
        }
    }

    /// A stable word for scripts and for the job document's `error.code`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Usage(_) => "usage",
            Error::NotFound { .. } => "not_found",
            Error::Connect { .. } => "connect",
            Error::Refused { .. } => "refused",
            Error::NotPermitted { .. } => "unauthorized",
            Error::Store { source, .. } => match source.kind {
                StoreErrorKind::Transient => "unavailable",
                StoreErrorKind::Unauthorized => "unauthorized",
                StoreErrorKind::SnapshotTooOld | StoreErrorKind::OwnersForgotten => {
                    "snapshot_too_old"
                }
                StoreErrorKind::DuplicateKey
                | StoreErrorKind::NamespaceNotFound
                | StoreErrorKind::NamespaceExists
                | StoreErrorKind::Fatal => "database",
            },
            Error::Newer { .. } => "newer",
            Error::OutcomeUnknown { .. } => "outcome_unknown",
            Error::LeaseLost(_) => "lease_lost",
            Error::Function(_) => "function",
            Error::TaskTimeout(_) => "task_timeout",
            Error::BlockMissing { .. } => "block_missing",
            Error::NotYet(_) => "not_yet",
            Error::Drained => "drained",
            Error::Unfit { .. } => "unfit",
            Error::JobFailed { .. } => "job_failed",
            Error::JobStopped { .. } => "job_stopped",
            Error::JobCancelled(_) => "job_cancelled",
            Error::WaitTimeout { .. } => "wait_timeout",
            Error::Unreachable { .. } => "unreachable",
            Error::Io { .. } => "io",
            Error::Internal(_) => "internal",
        }
    }

    /// Whether another attempt at the same work may succeed.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Store { source, .. } => match source.kind {
                StoreErrorKind::Transient => true,
                // A vanished cursor or namespace in mid-task is worth one more look.
                StoreErrorKind::Fatal | StoreErrorKind::NamespaceNotFound => true,
                // Where these are somebody's fault, they were turned into a refusal.
                StoreErrorKind::DuplicateKey | StoreErrorKind::NamespaceExists => true,
                StoreErrorKind::Unauthorized
                | StoreErrorKind::SnapshotTooOld
                | StoreErrorKind::OwnersForgotten => false,
            },
            Error::Function(error) => !error.deterministic,
            Error::Connect { .. }
            | Error::TaskTimeout(_)
            | Error::BlockMissing { .. }
            | Error::NotYet(_)
            | Error::Drained
            | Error::Unfit { .. }
            // By a newer one.
            | Error::Newer { .. }
            | Error::Io { .. }
            | Error::LeaseLost(_)
            | Error::Internal(_) => true,
            Error::Usage(_)
            | Error::NotFound { .. }
            | Error::Refused { .. }
            | Error::NotPermitted { .. }
            // Again may be twice.
            | Error::OutcomeUnknown { .. }
            | Error::JobFailed { .. }
            | Error::JobStopped { .. }
            | Error::JobCancelled(_)
            | Error::Unreachable { .. }
            | Error::WaitTimeout { .. } => false,
        }
    }

    /// Whether the database user lacks a privilege.
    pub fn is_unpermitted(&self) -> bool {
        match self {
            Error::NotPermitted { .. } => true,
            Error::Store { source, .. } => source.kind == StoreErrorKind::Unauthorized,
            _ => false,
        }
    }

    /// Whether a daemon should simply try again after a pause.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Store { source, .. } => source.kind == StoreErrorKind::Transient,
            Error::Connect { .. } => true,
            _ => false,
        }
    }

    /// A refusal in one line: what is wrong and what to do.
    pub fn refused(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Error::Refused { why: why.into(), hint: hint.into() }
    }

    /// Something that this worker lacks and another may have.
    pub fn unfit(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Error::Unfit { why: why.into(), hint: hint.into() }
    }

    /// A file that cannot be read: it is not there, or something else is wrong with it.
    pub fn unreadable(path: &std::path::Path, source: std::io::Error) -> Self {
        let shown = path.display();
        match source.kind() {
            std::io::ErrorKind::NotFound => {
                Error::NotFound { what: format!("file {shown}"), hint: String::new() }
            }
            std::io::ErrorKind::IsADirectory => {
                Error::Usage(format!("{shown} is a directory; name a file"))
            }
            std::io::ErrorKind::InvalidData => {
                Error::Usage(format!("{shown} is not text in UTF-8; save it as that"))
            }
            _ => Error::io(format!("read {shown}"), source),
        }
    }

    /// A local failure.
    pub fn io(action: impl Into<String>, source: std::io::Error) -> Self {
        Error::Io { action: action.into(), source }
    }
}

/// The result of nearly everything here.
pub type Result<T> = std::result::Result<T, Error>;
