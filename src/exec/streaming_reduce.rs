//! A reduce that streams: one group goes to it value by value, so neither side holds the group.

use super::function::{Guest, StreamCall};
use super::reducer::{Pairs, TakeGroup};
use super::skipping::Undo;
use super::values_chunk::ValuesChunk;
use crate::error::Result;
use crate::value::{RawVal, RawValBuf, close_document};
use crate::wasm::Stage;

/// Runs one group through the function, and returns what it emitted.
///
/// The values go several a call, as many as the function's pace allows.
///
/// # Errors
/// Those of the function, and whatever `next` returns.
pub(crate) fn reduce(
    function: &mut Guest<Pairs>,
    key: RawVal<'_>,
    mut next: impl FnMut(&mut RawValBuf) -> Result<bool>,
    left_out: &mut Option<TakeGroup>,
) -> Result<Vec<(RawValBuf, RawValBuf)>> {
    let group = group_document(key);
    function.sink_mut().expect(1);
    let mut failed = None;
    let mut step = |function: &mut Guest<Pairs>, call: StreamCall<'_>| match left_out {
        None => function.stream(call, &group),
        // The rest of its values is read and goes nowhere.
        Some(_) if failed.is_some() => Ok(()),
        Some(_) => {
            failed = function.stream_skipping(call, &group)?;
            Ok(())
        }
    };
    step(function, StreamCall::Begin)?;
    let mut chunk = ValuesChunk::begin_values();
    let mut value = RawValBuf::new();
    while next(&mut value)? {
        chunk.push(value.as_raw());
        if chunk.bytes() >= function.bytes_target() {
            step(function, StreamCall::Next(&chunk.into_bytes()))?;
            chunk = ValuesChunk::begin_values();
        }
    }
    if chunk.count() > 0 {
        step(function, StreamCall::Next(&chunk.into_bytes()))?;
    }
    step(function, StreamCall::End)?;
    match (failed, left_out) {
        (Some(error), Some(take)) => {
            function.start_again(false)?;
            take(Stage::Reduce, &group, error)?;
        }
        _ => function.sink_mut().keep()?,
    }
    Ok(function.sink_mut().take())
}

/// The document `{k}`.
fn group_document(key: RawVal<'_>) -> Vec<u8> {
    let mut body = vec![0; 4];
    key.append_element("k", &mut body);
    close_document(&mut body, 0);
    body
}
