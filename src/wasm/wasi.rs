//! The part of WASI preview 1 that guests get, so that modules made by ordinary compilers link.
//!
//! It is inert: standard output and error are the log, the clock stands at the job's snapshot
//! time, randomness follows from the seed, sleeping takes no time, and there are no arguments,
//! variables or files. Everything that a guest can observe is the same each time it runs.

use wasmtime::{Caller, Linker, Result};

use super::abi::IMPORT_WASI;
use super::guest::{Guest, Stop};
use super::imports::parts;
use super::limits::{RANDOM_BYTES_MAX, VECTORS_MAX, WRITE_BYTES_MAX};
use super::log::Stream;
use super::sink::Sink;

/// An error number of WASI.
type Errno = i32;
const SUCCESS: Errno = 0;
const BADF: Errno = 8;
const FAULT: Errno = 21;
const INVAL: Errno = 28;
const NOSYS: Errno = 52;
const SPIPE: Errno = 70;

const STDIN: i32 = 0;
const STDOUT: i32 = 1;
const STDERR: i32 = 2;
const CLOCK_REALTIME: i32 = 0;
const CLOCK_MONOTONIC: i32 = 1;
/// The last clock that exists: the thread's processor time.
const CLOCK_LAST: i32 = 3;
/// What the clocks say of their own resolution: one millisecond.
const CLOCK_RESOLUTION_NS: u64 = 1_000_000;
const FILETYPE_CHARACTER_DEVICE: u8 = 2;
const RIGHT_FD_READ: u64 = 1 << 1;
const RIGHT_FD_WRITE: u64 = 1 << 6;
const SUBSCRIPTION_BYTES: usize = 48;
const EVENT_BYTES: usize = 32;
/// In a subscription to a clock: the time is absolute.
const SUBSCRIPTION_ABSTIME: u16 = 1;

/// Defines every function.
pub(crate) fn define<S: Sink>(linker: &mut Linker<Guest<S>>) -> Result<()> {
    let wasi = IMPORT_WASI;
    linker.func_wrap(wasi, "args_get", |_: i32, _: i32| SUCCESS)?;
    linker.func_wrap(wasi, "args_sizes_get", no_strings::<S>)?;
    linker.func_wrap(wasi, "environ_get", |_: i32, _: i32| SUCCESS)?;
    linker.func_wrap(wasi, "environ_sizes_get", no_strings::<S>)?;
    linker.func_wrap(wasi, "clock_res_get", clock_res_get::<S>)?;
    linker.func_wrap(wasi, "clock_time_get", clock_time_get::<S>)?;
    linker.func_wrap(wasi, "fd_close", |fd: i32| known(fd, SUCCESS))?;
    linker.func_wrap(wasi, "fd_fdstat_get", fd_fdstat_get::<S>)?;
    linker.func_wrap(wasi, "fd_fdstat_set_flags", |fd: i32, _: i32| known(fd, NOSYS))?;
    linker.func_wrap(wasi, "fd_prestat_get", |_: i32, _: i32| BADF)?;
    linker.func_wrap(wasi, "fd_prestat_dir_name", |_: i32, _: i32, _: i32| BADF)?;
    linker.func_wrap(wasi, "fd_read", fd_read::<S>)?;
    linker.func_wrap(wasi, "fd_seek", |fd: i32, _: i64, _: i32, _: i32| known(fd, SPIPE))?;
    linker.func_wrap(wasi, "fd_write", fd_write::<S>)?;
    linker.func_wrap(
        wasi,
        "path_open",
        |_: i32, _: i32, _: i32, _: i32, _: i32, _: i64, _: i64, _: i32, _: i32| BADF,
    )?;
    linker.func_wrap(wasi, "poll_oneoff", poll_oneoff::<S>)?;
    linker.func_wrap(wasi, "proc_exit", proc_exit::<S>)?;
    linker.func_wrap(wasi, "random_get", random_get::<S>)?;
    linker.func_wrap(wasi, "sched_yield", || SUCCESS)?;
    Ok(())
}

/// The answer for a standard stream; there are no other files.
const fn known(fd: i32, answer: Errno) -> Errno {
    match fd {
        STDIN | STDOUT | STDERR => answer,
        _ => BADF,
    }
}

fn no_strings<S: Sink>(
    mut caller: Caller<'_, Guest<S>>,
    count_ptr: u32,
    bytes_ptr: u32,
) -> Result<Errno> {
    let (memory, _) = parts(&mut caller)?;
    let written = put(memory, count_ptr, &[0; 4]).and(put(memory, bytes_ptr, &[0; 4]));
    Ok(errno(written))
}

fn clock_res_get<S: Sink>(mut caller: Caller<'_, Guest<S>>, clock: i32, ptr: u32) -> Result<Errno> {
    let (memory, _) = parts(&mut caller)?;
    Ok(match clock {
        CLOCK_REALTIME..=CLOCK_LAST => errno(put(memory, ptr, &CLOCK_RESOLUTION_NS.to_le_bytes())),
        _ => INVAL,
    })
}

fn clock_time_get<S: Sink>(
    mut caller: Caller<'_, Guest<S>>,
    clock: i32,
    _precision: i64,
    ptr: u32,
) -> Result<Errno> {
    let (memory, guest) = parts(&mut caller)?;
    let now_ns = match clock {
        CLOCK_REALTIME => guest.now_ns,
        CLOCK_MONOTONIC..=CLOCK_LAST => guest.monotonic_ns,
        _ => return Ok(INVAL),
    };
    Ok(errno(put(memory, ptr, &now_ns.to_le_bytes())))
}

fn fd_fdstat_get<S: Sink>(mut caller: Caller<'_, Guest<S>>, fd: i32, ptr: u32) -> Result<Errno> {
    let (memory, _) = parts(&mut caller)?;
    let rights = match fd {
        STDIN => RIGHT_FD_READ,
        STDOUT | STDERR => RIGHT_FD_WRITE,
        _ => return Ok(BADF),
    };
    let written = put(memory, ptr, &[0; 24])
        .and(put(memory, ptr, &[FILETYPE_CHARACTER_DEVICE]))
        .and(put(memory, ptr.wrapping_add(8), &rights.to_le_bytes()));
    Ok(errno(written))
}

fn fd_read<S: Sink>(
    mut caller: Caller<'_, Guest<S>>,
    fd: i32,
    _vectors: u32,
    _vectors_len: u32,
    read_ptr: u32,
) -> Result<Errno> {
    let (memory, _) = parts(&mut caller)?;
    Ok(match fd {
        // Standard input is at its end.
        STDIN => errno(put(memory, read_ptr, &[0; 4])),
        _ => BADF,
    })
}

fn fd_write<S: Sink>(
    mut caller: Caller<'_, Guest<S>>,
    fd: i32,
    vectors: u32,
    vectors_len: u32,
    written_ptr: u32,
) -> Result<Errno> {
    let (memory, guest) = parts(&mut caller)?;
    guest.check_time()?;
    let stream = match fd {
        STDOUT => Stream::Out,
        STDERR => Stream::Err,
        _ => return Ok(BADF),
    };
    if vectors_len as usize > VECTORS_MAX {
        return Ok(INVAL);
    }
    let mut written: u32 = 0;
    let mut left = WRITE_BYTES_MAX;
    for index in 0..vectors_len {
        let vector = vectors.wrapping_add(index.wrapping_mul(8));
        let (Some(ptr), Some(len)) =
            (get_u32(memory, vector), get_u32(memory, vector.wrapping_add(4)))
        else {
            return Ok(FAULT);
        };
        let Some(text) = get(memory, ptr, len as usize) else {
            return Ok(FAULT);
        };
        // The guest has to come back for the rest, and then its deadline is looked at.
        let text = text.get(..left).unwrap_or(text);
        guest.log.write(&mut guest.sink, stream, text);
        left -= text.len();
        written += u32::try_from(text.len()).unwrap_or(0);
        if left == 0 {
            break;
        }
    }
    Ok(errno(put(memory, written_ptr, &written.to_le_bytes())))
}

/// Every subscription is reported as ready at once. The guest's monotonic clock is set forward to
/// the earliest time it waits for, so that a loop that sleeps until some time ends.
fn poll_oneoff<S: Sink>(
    mut caller: Caller<'_, Guest<S>>,
    subscriptions: u32,
    events: u32,
    len: u32,
    events_len_ptr: u32,
) -> Result<Errno> {
    let (memory, guest) = parts(&mut caller)?;
    guest.check_time()?;
    if len == 0 || len as usize > VECTORS_MAX {
        return Ok(INVAL);
    }
    let mut wake_ns: Option<u64> = None;
    for index in 0..len as usize {
        let from = (subscriptions as usize).saturating_add(index * SUBSCRIPTION_BYTES);
        let to = (events as usize).saturating_add(index * EVENT_BYTES);
        let subscription: Option<[u8; SUBSCRIPTION_BYTES]> =
            memory.get(from..).and_then(|tail| tail.first_chunk().copied());
        let Some(subscription) = subscription else {
            return Ok(FAULT);
        };
        let kind = subscription.get(8).copied().unwrap_or_default();
        if kind == 0 {
            let wait_ns = clock_wait_ns(&subscription, guest.monotonic_ns, guest.now_ns);
            wake_ns = Some(wake_ns.map_or(wait_ns, |earliest| earliest.min(wait_ns)));
        }
        let mut event = [0; EVENT_BYTES];
        // The subscription's own mark, no error, and its kind.
        for (target, source) in event.iter_mut().zip(subscription).take(8) {
            *target = source;
        }
        if let Some(target) = event.get_mut(10) {
            *target = kind;
        }
        let Some(room) = memory.get_mut(to..).and_then(|tail| tail.get_mut(..EVENT_BYTES)) else {
            return Ok(FAULT);
        };
        room.copy_from_slice(&event);
    }
    guest.monotonic_ns = guest.monotonic_ns.saturating_add(wake_ns.unwrap_or(0));
    Ok(errno(put(memory, events_len_ptr, &len.to_le_bytes())))
}

/// How long a subscription to a clock waits from now.
fn clock_wait_ns(subscription: &[u8; SUBSCRIPTION_BYTES], monotonic_ns: u64, now_ns: u64) -> u64 {
    let clock = get_u32(subscription, 16).unwrap_or_default();
    let timeout_ns = get(subscription, 24, 8)
        .and_then(|bytes| bytes.first_chunk().copied())
        .map_or(0, u64::from_le_bytes);
    let flags = get(subscription, 40, 2)
        .and_then(|bytes| bytes.first_chunk().copied())
        .map_or(0, u16::from_le_bytes);
    if flags & SUBSCRIPTION_ABSTIME == 0 {
        timeout_ns
    } else if clock == 0 {
        timeout_ns.saturating_sub(now_ns)
    } else {
        timeout_ns.saturating_sub(monotonic_ns)
    }
}

fn proc_exit<S: Sink>(mut caller: Caller<'_, Guest<S>>, code: i32) -> Result<()> {
    Err(caller.data_mut().stop(Stop::Exit(code)))
}

fn random_get<S: Sink>(mut caller: Caller<'_, Guest<S>>, ptr: u32, len: u32) -> Result<Errno> {
    let (memory, guest) = parts(&mut caller)?;
    guest.check_time()?;
    if len as usize > RANDOM_BYTES_MAX {
        return Ok(INVAL);
    }
    let room = memory.get_mut(ptr as usize..).and_then(|tail| tail.get_mut(..len as usize));
    Ok(match room {
        Some(room) => {
            guest.random().fill(room);
            SUCCESS
        }
        None => FAULT,
    })
}

fn get(memory: &[u8], ptr: u32, len: usize) -> Option<&[u8]> {
    memory.get(ptr as usize..)?.get(..len)
}

fn get_u32(memory: &[u8], ptr: u32) -> Option<u32> {
    let bytes = get(memory, ptr, 4)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

fn put(memory: &mut [u8], ptr: u32, bytes: &[u8]) -> Option<()> {
    let room = memory.get_mut(ptr as usize..)?.get_mut(..bytes.len())?;
    room.copy_from_slice(bytes);
    Some(())
}

const fn errno(written: Option<()>) -> Errno {
    match written {
        Some(()) => SUCCESS,
        None => FAULT,
    }
}
