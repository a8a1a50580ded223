//! A reduce that streams: one group goes to it value by value, so neither side holds the group.

use super::combiner::ValuesChunk;
use super::function::{Guest, StreamCall};
use super::reducer::Pairs;
use crate::error::Result;
use crate::value::{RawVal, RawValBuf, close_document};

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
) -> Result<Vec<(RawValBuf, RawValBuf)>> {
    let group = group_document(key);
    function.sink_mut().expect(1);
    function.stream(StreamCall::Begin, &group)?;
    let mut chunk = ValuesChunk::begin_values();
    let mut value = RawValBuf::new();
    while next(&mut value)? {
        chunk.push(value.as_raw());
        if chunk.bytes() >= function.bytes_target() {
            function.stream(StreamCall::Next(&chunk.into_bytes()), &group)?;
            chunk = ValuesChunk::begin_values();
        }
    }
    if chunk.count() > 0 {
        function.stream(StreamCall::Next(&chunk.into_bytes()), &group)?;
    }
    function.stream(StreamCall::End, &group)?;
    Ok(function.sink_mut().take())
}

/// The document `{k}`.
fn group_document(key: RawVal<'_>) -> Vec<u8> {
    let mut body = vec![0; 4];
    key.append_element("k", &mut body);
    close_document(&mut body, 0);
    body
}
