//! Tells from what the runtime and the host functions left behind why a call ended.

use std::time::Duration;

use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};

use super::abi::Step;
use super::error::GuestError;
use super::guest::{Guest, Stop};
use super::limits::Limits;
use super::module::Shared;

/// How a call ended that did not return.
pub(crate) enum Ended {
    /// The runtime ended it.
    Runtime(wasmtime::Error),
    /// It was not made, for want of room for the input.
    Alloc {
        /// What the guest gave instead of room.
        ptr: u32,
        /// The room that was needed, in bytes.
        len: usize,
    },
}

impl From<wasmtime::Error> for Ended {
    fn from(error: wasmtime::Error) -> Self {
        Self::Runtime(error)
    }
}

/// The limits that errors mention.
pub(crate) struct Bounds {
    call_timeout: Duration,
    output_bytes_max: u64,
    instances_max: u32,
}

impl Bounds {
    pub(crate) const fn new(shared: &Shared, limits: &Limits) -> Self {
        Self {
            call_timeout: limits.call_timeout,
            output_bytes_max: limits.output_bytes_max,
            instances_max: shared.instances_max,
        }
    }
}

/// The error to report. A guest that was refused memory commonly ends by trapping or failing; then
/// the want of memory is the reason worth telling, and the rest is its detail.
pub(crate) fn classify<S>(
    guest: &mut Guest<S>,
    step: Step,
    ended: Ended,
    bounds: &Bounds,
) -> GuestError {
    let refused = std::mem::take(&mut guest.memory_refused);
    let error = match (guest.stop.take(), ended) {
        (Some(stop), _) => stopped(guest, step, stop, bounds),
        (None, Ended::Alloc { ptr, len }) => GuestError::BadAlloc { step, ptr, len },
        (None, Ended::Runtime(error)) => runtime(guest, step, &error, bounds),
    };
    let detail = match &error {
        GuestError::Failed { message, .. }
        | GuestError::Trap { message, .. }
        | GuestError::Instantiate { message } => message.clone(),
        GuestError::BadAlloc { len, .. } => format!("no room for an input of {len} bytes"),
        GuestError::Exit { code, .. } => format!("the function exited with code {code}"),
        _ => return error,
    };
    if refused {
        GuestError::Memory { step, limit_bytes: guest.memory_bytes_max, detail }
    } else {
        error
    }
}

fn stopped<S>(guest: &mut Guest<S>, step: Step, stop: Stop, bounds: &Bounds) -> GuestError {
    match stop {
        Stop::Failed { message, stack } => GuestError::Failed { step, message, stack },
        Stop::Exit(code) => GuestError::Exit { step, code, stderr: guest.log.take_stderr_tail() },
        Stop::Fault(fault) => GuestError::BadEmit { step, fault },
        Stop::Output => GuestError::Output { step, limit_bytes: bounds.output_bytes_max },
        Stop::Overdue => GuestError::Timeout { step, limit: bounds.call_timeout },
        Stop::Sink(error) => GuestError::Sink { step, error },
    }
}

fn runtime<S>(
    guest: &mut Guest<S>,
    step: Step,
    error: &wasmtime::Error,
    bounds: &Bounds,
) -> GuestError {
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return match trap {
            Trap::Interrupt => GuestError::Timeout { step, limit: bounds.call_timeout },
            trap => GuestError::Trap {
                step,
                message: message(*trap),
                backtrace: backtrace(error),
                stderr: guest.log.take_stderr_tail(),
            },
        };
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return GuestError::Busy { instances_max: bounds.instances_max };
    }
    GuestError::Instantiate { message: format!("{error:#}") }
}

fn message(trap: Trap) -> String {
    match trap {
        Trap::StackOverflow => "stack overflow".to_owned(),
        Trap::UnreachableCodeReached => "unreachable code was reached".to_owned(),
        trap => trap.to_string().trim_start_matches("wasm trap: ").to_owned(),
    }
}

fn backtrace(error: &wasmtime::Error) -> Vec<String> {
    let frames = error.downcast_ref::<WasmBacktrace>().map(WasmBacktrace::frames);
    let name = |frame: &wasmtime::FrameInfo| match frame.func_name() {
        Some(name) => name.to_owned(),
        None => format!("function {}", frame.func_index()),
    };
    frames.unwrap_or_default().iter().map(name).collect()
}
