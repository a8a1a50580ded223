//! The values of a key as a function is given them: a BSON array in the making.

use super::function::Batch;
use crate::value::{RawVal, close_document, tag};

/// A document `{k, v: […]}` in the making, at the end of a batch.
pub(crate) struct ValuesChunk {
    body: Vec<u8>,
    array_start: usize,
    count: u64,
}

impl ValuesChunk {
    /// Begins a document `{v: […]}` without a key, for a group that streams.
    pub(crate) fn begin_values() -> Self {
        Self::with_array(vec![0; 4])
    }

    /// Begins a document for a key.
    pub(crate) fn begin(key: RawVal<'_>) -> Self {
        let mut body = vec![0; 4];
        key.append_element("k", &mut body);
        Self::with_array(body)
    }

    fn with_array(mut body: Vec<u8>) -> Self {
        body.push(tag::ARRAY);
        body.extend_from_slice(b"v\0");
        let array_start = body.len();
        body.extend_from_slice(&[0; 4]);
        Self { body, array_start, count: 0 }
    }

    /// Appends a value.
    pub(crate) fn push(&mut self, value: RawVal<'_>) {
        let mut digits = [0_u8; 20];
        value.append_element(decimal(self.count, &mut digits), &mut self.body);
        self.count += 1;
    }

    /// Bytes so far.
    pub(crate) fn bytes(&self) -> usize {
        self.body.len()
    }

    /// Values so far.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Ends the document and appends it to the batch.
    pub(crate) fn end(self, batch: &mut Batch) {
        batch.push(&self.into_bytes());
    }

    /// Ends the document.
    pub(crate) fn into_bytes(mut self) -> Vec<u8> {
        close_document(&mut self.body, self.array_start);
        close_document(&mut self.body, 0);
        self.body
    }
}

/// An array index as text, without an allocation.
fn decimal(mut n: u64, digits: &mut [u8; 20]) -> &str {
    let mut at = digits.len();
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + u8::try_from(n % 10).unwrap_or(0);
        at -= 1;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    digits.get(at..).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or("0")
}
