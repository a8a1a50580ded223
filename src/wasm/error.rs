//! What can go wrong: with a guest while it runs, and with the host around it.

use std::time::Duration;

use super::abi::{Stage, Step};
use super::cache::CacheError;
use super::compiler::NoCode;
use super::problem::InvalidModule;

/// The error of a sink, of whatever type the sink has.
pub type SinkError = Box<dyn std::error::Error + Send + Sync>;

/// Why a guest's call ended without success. Its instance is of no use afterwards.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuestError {
    /// The guest said itself that it failed: an exception in JavaScript, a bad record.
    #[error("run {step}: {message}")]
    Failed {
        /// What the guest was doing.
        step: Step,
        /// The first line of what it said.
        message: String,
        /// The further lines, commonly where it happened; may be empty.
        stack: String,
    },
    /// The guest did what WebAssembly forbids, or panicked.
    #[error("run {step}: the function trapped: {message}")]
    Trap {
        /// What the guest was doing.
        step: Step,
        /// What it did.
        message: String,
        /// Names of the functions that were running, innermost first; may be empty.
        backtrace: Vec<String>,
        /// The end of what it wrote to standard error.
        stderr: String,
    },
    /// The guest used up its time.
    #[error("run {step}: took longer than {} ms", limit.as_millis())]
    Timeout {
        /// What the guest was doing.
        step: Step,
        /// The time that it had.
        limit: Duration,
    },
    /// The guest needed more memory than it may have.
    #[error("run {step}: needs more memory than the limit of {limit_bytes} bytes ({detail})")]
    Memory {
        /// What the guest was doing.
        step: Step,
        /// The memory that it may have, in bytes.
        limit_bytes: usize,
        /// How the guest ended after memory was refused.
        detail: String,
    },
    /// The guest emitted more than a record may.
    #[error("run {step}: one record emitted more than the limit of {limit_bytes} bytes")]
    Output {
        /// What the guest was doing.
        step: Step,
        /// What a record may emit, in bytes.
        limit_bytes: u64,
    },
    /// The guest called one of the host's functions with something impossible.
    #[error("run {step}: {fault}")]
    BadEmit {
        /// What the guest was doing.
        step: Step,
        /// What is wrong.
        fault: EmitFault,
    },
    /// The guest ended itself by `proc_exit`.
    #[error("run {step}: the function exited with code {code}")]
    Exit {
        /// What the guest was doing.
        step: Step,
        /// The code that it gave.
        code: i32,
        /// The end of what it wrote to standard error.
        stderr: String,
    },
    /// The guest gave no room for its input.
    #[error("run {step}: aviary_alloc({len}) returned {ptr}, which is outside of memory")]
    BadAlloc {
        /// What the guest was doing.
        step: Step,
        /// The address that it returned.
        ptr: u32,
        /// The room that was asked for, in bytes.
        len: usize,
    },
    /// The input is larger than a call takes.
    #[error("run {step}: input of {len} bytes exceeds the limit of {max} bytes")]
    Input {
        /// What the guest was to do.
        step: Step,
        /// Size of the input, in bytes.
        len: usize,
        /// The limit, in bytes.
        max: usize,
    },
    /// The function has no such stage.
    #[error("run {stage}: the function does not have it in this form")]
    NotExported {
        /// The stage that was called.
        stage: Stage,
    },
    /// JavaScript sources are missing for the JavaScript guest, or given to another module.
    #[error("start: {}", if *given { "sources were given, but the module takes none" } else { "the JavaScript guest needs sources" })]
    Script {
        /// Whether sources were given.
        given: bool,
    },
    /// The sink stopped the call.
    #[error("take the output of {step}: {error}")]
    Sink {
        /// What the guest was doing.
        step: Step,
        /// The sink's own error, as it was returned.
        error: SinkError,
    },
    /// All places for instances are taken.
    #[error("start: {instances_max} instances are running already")]
    Busy {
        /// How many may run at once.
        instances_max: u32,
    },
    /// The instance could not be set up, by the host's fault or for want of its memory.
    #[error("start: {message}")]
    Instantiate {
        /// What the runtime says.
        message: String,
    },
    /// The instance failed in an earlier call.
    #[error("run {stage}: an earlier call of this instance failed")]
    Poisoned {
        /// The stage that was called.
        stage: Stage,
    },
}

impl GuestError {
    /// Whether the same input fails in the same way every time, so that trying again is of no use.
    #[must_use]
    pub const fn is_deterministic(&self) -> bool {
        match self {
            Self::Failed { .. }
            | Self::Trap { .. }
            | Self::Memory { .. }
            | Self::Output { .. }
            | Self::BadEmit { .. }
            | Self::Exit { .. }
            | Self::BadAlloc { .. }
            | Self::Input { .. }
            | Self::NotExported { .. }
            | Self::Script { .. } => true,
            Self::Timeout { .. }
            | Self::Sink { .. }
            | Self::Busy { .. }
            | Self::Instantiate { .. }
            | Self::Poisoned { .. } => false,
        }
    }

    /// A stable name of the kind, for records and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Failed { .. } => "guest_failed",
            Self::Trap { .. } => "guest_trap",
            Self::Timeout { .. } => "guest_timeout",
            Self::Memory { .. } => "guest_memory",
            Self::Output { .. } => "guest_output",
            Self::BadEmit { .. } => "guest_bad_emit",
            Self::Exit { .. } => "guest_exit",
            Self::BadAlloc { .. } => "guest_bad_alloc",
            Self::Input { .. } => "guest_input",
            Self::NotExported { .. } => "guest_not_exported",
            Self::Script { .. } => "guest_script",
            Self::Sink { .. } => "sink",
            Self::Busy { .. } => "host_busy",
            Self::Instantiate { .. } => "host_instantiate",
            Self::Poisoned { .. } => "guest_poisoned",
        }
    }
}

/// How a guest misused one of the host's functions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EmitFault {
    /// An address or a length points outside of the guest's memory.
    #[error("{what} at {ptr} with {len} bytes lies outside of memory")]
    Bounds {
        /// What was to be read or written.
        what: &'static str,
        /// The address.
        ptr: u32,
        /// The length, in bytes.
        len: u32,
    },
    /// Something is longer than it may be.
    #[error("{what} of {len} bytes exceeds the limit of {max} bytes")]
    TooLarge {
        /// What was given.
        what: &'static str,
        /// Its length, in bytes.
        len: usize,
        /// The limit, in bytes.
        max: usize,
    },
    /// Bytes are not a BSON value.
    #[error("{what} is not a BSON value: {why}")]
    Malformed {
        /// What was given.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A name is not UTF-8.
    #[error("{what} is not UTF-8")]
    Utf8 {
        /// What was given.
        what: &'static str,
    },
    /// A pair was emitted while the guest was being set up, when it belongs to no input.
    #[error("emit was called outside of a stage")]
    OutsideOfStage,
    /// Sums were given where the values themselves are wanted.
    #[error("emit_sum or emit_total was called where sums are not wanted")]
    SumsNotWanted,
    /// A function of the host was called while the memory was not known yet.
    #[error("no memory is exported")]
    NoMemory,
}

/// Why the host could not provide a module.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The module breaks the contract.
    #[error(transparent)]
    Invalid(#[from] InvalidModule),
    /// The bytes are not the ones that the digest names.
    #[error("load module {expected}: its bytes have digest {found}")]
    Digest {
        /// The digest that was asked for.
        expected: blake3::Hash,
        /// The digest of the bytes.
        found: blake3::Hash,
    },
    /// The runtime could not be set up.
    #[error("set up the WebAssembly runtime: {message}")]
    Engine {
        /// What the runtime says.
        message: String,
    },
    /// The thread that keeps the deadlines could not be started.
    #[error("start the deadline thread")]
    Ticker(#[source] std::io::Error),
    /// A valid module could not be compiled.
    #[error("compile module {digest}: {message}")]
    Compile {
        /// The module.
        digest: blake3::Hash,
        /// What the compiler says.
        message: String,
    },
    /// Compiling a valid module takes more than it may.
    #[error("compile module {digest}: {what}: it needs more than the limit of {limit}")]
    CompileLimit {
        /// The module.
        digest: blake3::Hash,
        /// What it needs too much of, with its unit.
        what: &'static str,
        /// How much there may be.
        limit: u64,
    },
    /// This machine could not compile a module, which says nothing of the module.
    #[error("compile module {digest}: {why}")]
    CannotCompile {
        /// The module.
        digest: blake3::Hash,
        /// What the machine lacks.
        why: String,
    },
    /// The directory for compiled modules cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl HostError {
    pub(crate) fn no_code(digest: blake3::Hash, why: NoCode) -> Self {
        match why {
            NoCode::Refused(message) => Self::Compile { digest, message },
            NoCode::Exceeds { what, limit } => Self::CompileLimit { digest, what, limit },
            NoCode::Short(why) => Self::CannotCompile { digest, why },
        }
    }
}
