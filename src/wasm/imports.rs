//! The functions of the import module `aviary`.
//!
//! `emit` is the hot path: it reads two slices of the guest's memory in place, checks them, and
//! hands them on. Nothing is allocated.

use wasmtime::{Caller, Linker, Result};

use super::abi::{EXPORT_MEMORY, IMPORT_AVIARY, Level};
use super::error::EmitFault;
use super::guest::{Guest, Stop};
use super::limits::{COUNTER_NAME_BYTES_MAX, FAIL_TEXT_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use super::sink::{Sink, Sums};
use super::value;

/// Defines every function of the contract.
pub(crate) fn define<S: Sink>(linker: &mut Linker<Guest<S>>) -> Result<()> {
    linker.func_wrap(IMPORT_AVIARY, "emit", emit::<S>)?;
    linker.func_wrap(IMPORT_AVIARY, "emit_sum", emit_sum::<S>)?;
    linker.func_wrap(IMPORT_AVIARY, "emit_total", emit_total::<S>)?;
    linker.func_wrap(IMPORT_AVIARY, "count", count::<S>)?;
    linker.func_wrap(IMPORT_AVIARY, "log", log::<S>)?;
    linker.func_wrap(IMPORT_AVIARY, "fail", fail::<S>)?;
    linker.func_wrap(IMPORT_AVIARY, "scope", scope::<S>)?;
    Ok(())
}

/// The guest's memory and the store's data, both at once.
pub(crate) fn parts<'a, S: Sink>(
    caller: &'a mut Caller<'_, Guest<S>>,
) -> Result<(&'a mut [u8], &'a mut Guest<S>)> {
    let memory = match caller.data().memory {
        Some(memory) => memory,
        // A start function runs before the instance is known from outside.
        None => {
            let export = caller.get_export(EXPORT_MEMORY);
            let Some(memory) = export.and_then(wasmtime::Extern::into_memory) else {
                return Err(caller.data_mut().stop(Stop::Fault(EmitFault::NoMemory)));
            };
            caller.data_mut().memory = Some(memory);
            memory
        }
    };
    Ok(memory.data_and_store_mut(caller))
}

/// A piece of the guest's memory.
pub(crate) fn slice<'a>(
    memory: &'a [u8],
    what: &'static str,
    ptr: u32,
    len: u32,
) -> Result<&'a [u8], EmitFault> {
    memory.get(ptr as usize..).and_then(|tail| tail.get(..len as usize)).ok_or(EmitFault::Bounds {
        what,
        ptr,
        len,
    })
}

fn emit<S: Sink>(
    mut caller: Caller<'_, Guest<S>>,
    key_ptr: u32,
    key_len: u32,
    value_ptr: u32,
    value_len: u32,
) -> Result<()> {
    let (memory, guest) = parts(&mut caller)?;
    let pair = if guest.in_stage {
        bson(memory, "the key", key_ptr, key_len, KEY_BYTES_MAX).and_then(|key| {
            let value = bson(memory, "the value", value_ptr, value_len, VALUE_BYTES_MAX)?;
            Ok((key, value))
        })
    } else {
        Err(EmitFault::OutsideOfStage)
    };
    match pair {
        Ok((key, value)) => {
            account(guest, (key.len() + value.len()) as u64)?;
            guest.sink.emit(key, value).map_err(|error| guest.stop(Stop::Sink(error)))
        }
        Err(fault) => Err(guest.stop(Stop::Fault(fault))),
    }
}

/// Counts bytes that a call emits, and stops it where they are too many.
#[inline]
fn account<S: Sink>(guest: &mut Guest<S>, bytes: u64) -> Result<()> {
    guest.output_bytes = guest.output_bytes.saturating_add(bytes);
    if guest.output_bytes > guest.output_bytes_max {
        return Err(guest.stop(Stop::Output));
    }
    Ok(())
}

/// The bytes of a double, with its type.
const DOUBLE_BYTES: u64 = 9;

fn emit_sum<S: Sink>(
    mut caller: Caller<'_, Guest<S>>,
    key_ptr: u32,
    key_len: u32,
    sum: f64,
    emits: u32,
) -> Result<()> {
    let (memory, guest) = parts(&mut caller)?;
    let key = if !guest.in_stage {
        Err(EmitFault::OutsideOfStage)
    } else if guest.sink.wants_sums().is_none() {
        Err(EmitFault::SumsNotWanted)
    } else {
        bson(memory, "the key", key_ptr, key_len, KEY_BYTES_MAX)
    };
    match key {
        Ok(key) => {
            let each = key.len() as u64 + DOUBLE_BYTES;
            account(guest, each * u64::from(emits))?;
            guest.sink.emit_sum(key, sum, emits).map_err(|error| guest.stop(Stop::Sink(error)))
        }
        Err(fault) => Err(guest.stop(Stop::Fault(fault))),
    }
}

fn emit_total<S: Sink>(
    mut caller: Caller<'_, Guest<S>>,
    key_ptr: u32,
    key_len: u32,
    value_ptr: u32,
    value_len: u32,
    emits: u32,
) -> Result<()> {
    let (memory, guest) = parts(&mut caller)?;
    let pair = if !guest.in_stage {
        Err(EmitFault::OutsideOfStage)
    } else if guest.sink.wants_sums() != Some(Sums::InAnyOrder) {
        Err(EmitFault::SumsNotWanted)
    } else {
        bson(memory, "the key", key_ptr, key_len, KEY_BYTES_MAX).and_then(|key| {
            Ok((key, bson(memory, "the value", value_ptr, value_len, VALUE_BYTES_MAX)?))
        })
    };
    match pair {
        Ok((key, value)) => {
            account(guest, (key.len() + value.len()) as u64 * u64::from(emits))?;
            let taken = guest.sink.emit_total(key, value, emits);
            taken.map_err(|error| guest.stop(Stop::Sink(error)))
        }
        Err(fault) => Err(guest.stop(Stop::Fault(fault))),
    }
}

/// A piece of memory that holds one BSON value.
fn bson<'a>(
    memory: &'a [u8],
    what: &'static str,
    ptr: u32,
    len: u32,
    max: usize,
) -> Result<&'a [u8], EmitFault> {
    let bytes = slice(memory, what, ptr, len)?;
    if bytes.len() > max {
        let len = bytes.len();
        return Err(EmitFault::TooLarge { what, len, max });
    }
    match value::check(bytes) {
        Ok(()) => Ok(bytes),
        Err(why) => Err(EmitFault::Malformed { what, why }),
    }
}

fn count<S: Sink>(
    mut caller: Caller<'_, Guest<S>>,
    name_ptr: u32,
    name_len: u32,
    delta: i64,
) -> Result<()> {
    let (memory, guest) = parts(&mut caller)?;
    match counter_name(memory, name_ptr, name_len) {
        Ok(name) => {
            guest.sink.count(name, delta);
            Ok(())
        }
        Err(fault) => Err(guest.stop(Stop::Fault(fault))),
    }
}

fn counter_name(memory: &[u8], ptr: u32, len: u32) -> Result<&str, EmitFault> {
    let what = "the counter's name";
    let bytes = slice(memory, what, ptr, len)?;
    if bytes.len() > COUNTER_NAME_BYTES_MAX {
        let (len, max) = (bytes.len(), COUNTER_NAME_BYTES_MAX);
        return Err(EmitFault::TooLarge { what, len, max });
    }
    std::str::from_utf8(bytes).map_err(|_| EmitFault::Utf8 { what })
}

fn log<S: Sink>(mut caller: Caller<'_, Guest<S>>, level: i32, ptr: u32, len: u32) -> Result<()> {
    let (memory, guest) = parts(&mut caller)?;
    guest.check_time()?;
    match slice(memory, "the log text", ptr, len) {
        Ok(text) => {
            guest.log.entry(&mut guest.sink, Level::from_number(level), text);
            Ok(())
        }
        Err(fault) => Err(guest.stop(Stop::Fault(fault))),
    }
}

fn fail<S: Sink>(mut caller: Caller<'_, Guest<S>>, ptr: u32, len: u32) -> Result<()> {
    let (memory, guest) = parts(&mut caller)?;
    let reason = match slice(memory, "the text of the failure", ptr, len) {
        Ok(text) => {
            let text = text.get(..FAIL_TEXT_BYTES_MAX).unwrap_or(text);
            let text = String::from_utf8_lossy(text);
            let (message, stack) = text.split_once('\n').unwrap_or((&text, ""));
            Stop::Failed {
                message: message.trim_end().to_owned(),
                stack: stack.trim_end().to_owned(),
            }
        }
        Err(fault) => Stop::Fault(fault),
    };
    Err(guest.stop(reason))
}

fn scope<S: Sink>(mut caller: Caller<'_, Guest<S>>, ptr: u32, cap: u32) -> Result<u32> {
    let (memory, guest) = parts(&mut caller)?;
    guest.check_time()?;
    let copied = guest.scope.len().min(cap as usize);
    let room = memory.get_mut(ptr as usize..).and_then(|tail| tail.get_mut(..copied));
    let Some(room) = room else {
        let what = "the room for the scope";
        return Err(guest.stop(Stop::Fault(EmitFault::Bounds { what, ptr, len: cap })));
    };
    room.copy_from_slice(guest.scope.get(..copied).unwrap_or_default());
    Ok(u32::try_from(guest.scope.len()).unwrap_or(u32::MAX))
}
