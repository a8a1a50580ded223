//! What the child does that a [`Compiler`](super::Compiler) starts: limit itself, compile, hand over.
//!
//! The module comes on standard input and the code goes to standard output, and nothing else does. The limits are
//! set before the first byte is read.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;

use super::host;
use super::limits::MODULE_BYTES_MAX;
use crate::terminal::tell;

/// The verb that leads here.
pub const VERB: &str = "compile-module";
/// Address space, in bytes.
pub(crate) const FLAG_MEMORY: &str = "--memory-bytes";
/// Processor time, in seconds.
pub(crate) const FLAG_CPU: &str = "--cpu-seconds";
/// The code is for a process without room for a pool of instances.
pub(crate) const FLAG_SCARCE: &str = "--scarce";
/// The exit code of a module that is refused, with the reason on standard error.
pub(crate) const REFUSED: i32 = 3;
/// The exit code where memory did not suffice.
pub(crate) const NO_MEMORY: i32 = 4;
/// The exit code of a child that cannot limit itself.
const UNLIMITED: u8 = 5;

/// What a child is told.
#[derive(Debug, Clone, Copy)]
pub struct Orders {
    /// Address space, in bytes.
    pub memory_bytes: u64,
    /// Processor time, in seconds.
    pub cpu_seconds: u64,
    /// Whether the code is for a process without room for a pool of instances.
    pub scarce: bool,
}

/// Compiles what comes on standard input; the only thing that the process does.
#[must_use]
pub fn main(orders: &Orders) -> ExitCode {
    if let Err(error) = limit(orders) {
        tell!("failed to limit what compiling takes: {error}");
        return ExitCode::from(UNLIMITED);
    }
    match compile(orders.scarce) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed::Memory) => exit_code(NO_MEMORY),
        Err(Failed::Refused(why)) => {
            tell!("{why}");
            exit_code(REFUSED)
        }
    }
}

fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Limits this process, for good.
fn limit(orders: &Orders) -> nix::Result<()> {
    // A parent that is gone wants no code.
    set_pdeathsig(Signal::SIGKILL)?;
    // Where memory runs out all the same, this process goes before the worker and the server beside it.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    // It writes nothing but its answer, and leaves no image of itself behind.
    lower(Resource::RLIMIT_FSIZE, 0, 0)?;
    lower(Resource::RLIMIT_CORE, 0, 0)?;
    lower(Resource::RLIMIT_CPU, orders.cpu_seconds, orders.cpu_seconds.saturating_add(1))?;
    lower(Resource::RLIMIT_AS, orders.memory_bytes, orders.memory_bytes)
}

/// Sets a limit, unless there is a lower one already.
fn lower(resource: Resource, soft: u64, hard: u64) -> nix::Result<()> {
    let (_, most) = getrlimit(resource)?;
    setrlimit(resource, soft.min(most), hard.min(most))
}

enum Failed {
    Memory,
    Refused(String),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::OutOfMemory => Self::Memory,
            _ => Self::Refused(format!("the parent is gone: {error}")),
        }
    }
}

impl From<wasmtime::Error> for Failed {
    fn from(error: wasmtime::Error) -> Self {
        let text = format!("{error:#}");
        let of_memory = ["out of memory", "Cannot allocate memory"];
        if of_memory.iter().any(|words| text.contains(words)) {
            return Self::Memory;
        }
        Self::Refused(text)
    }
}

fn compile(scarce: bool) -> Result<(), Failed> {
    let mut wasm = Vec::new();
    io::stdin().lock().take(MODULE_BYTES_MAX as u64).read_to_end(&mut wasm)?;
    let code = host::compiling_engine(scarce)?.precompile_module(&wasm)?;
    let mut output = io::stdout().lock();
    output.write_all(&code)?;
    Ok(output.flush()?)
}
