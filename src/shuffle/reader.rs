//! Walks the records of one run, block by block.

use std::cmp::Ordering;
use std::ops::Range;

use super::block::{self, Block, BlockError, DecodedBlock, raw_of};
use crate::value::key::{self, KeyError, STRING_CLASS};
use crate::value::{RawVal, string_payload, tag};

/// Whatever a source has to say when it cannot give the next block.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Gives the blocks of one run in order. A call may block.
pub trait RunSource {
    /// The next block, or none at the run's end.
    ///
    /// # Errors
    /// Whatever kept the block from being read.
    fn next_block(&mut self) -> Result<Option<Block>, SourceError>;
}

/// Why a run cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The source failed.
    #[error("block {seq} did not arrive: {source}")]
    Source {
        /// The block that was wanted.
        seq: u32,
        /// What the source says.
        source: SourceError,
    },
    /// A block is damaged.
    #[error("block {seq}: {source}")]
    Block {
        /// The block.
        seq: u32,
        /// What is wrong with it.
        source: BlockError,
    },
    /// The source gave another block than the next.
    #[error("block {expected} is missing, block {found} came instead")]
    Sequence {
        /// The block that was wanted.
        expected: u32,
        /// The block that came.
        found: u32,
    },
    /// The pieces of a large record do not follow each other.
    #[error("block {seq}: a fragment of a large record is missing")]
    Fragment {
        /// The block.
        seq: u32,
    },
    /// The run is not sorted.
    #[error("block {seq}: key {key} is out of order")]
    Unsorted {
        /// The block.
        seq: u32,
        /// The key, shortened.
        key: String,
    },
    /// A key cannot be encoded.
    #[error("block {seq}: {source}")]
    Key {
        /// The block.
        seq: u32,
        /// What is wrong with the key.
        source: KeyError,
    },
}

/// Where a step led.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// To another value of the same key.
    SameKey,
    /// To the first value of the next key.
    NewKey,
    /// Past the last record.
    End,
}

/// The position in one run. At most one decoded block, or one large record, is held.
pub(crate) struct RunCursor {
    source: Box<dyn RunSource + Send>,
    next_seq: u32,
    block: Option<DecodedBlock>,
    /// Offset of the next record in the block.
    at: usize,
    /// Where the current value begins in the block; it ends at the next record.
    value_start: usize,
    /// A record put together from fragments, and the length of its key.
    large: Vec<u8>,
    large_key_bytes: usize,
    large_record_bytes: usize,
    is_large: bool,
    key: CurrentKey,
}

/// The current key of a cursor.
#[derive(Default)]
struct CurrentKey {
    /// Where the key lies in the block; it is copied only when the block goes before the key does.
    in_block: Option<Range<usize>>,
    copy: Vec<u8>,
    /// Empty before the first key, as no encoding is.
    encoded: Vec<u8>,
    scratch: Vec<u8>,
}

impl RunCursor {
    pub(crate) fn new(source: Box<dyn RunSource + Send>) -> Self {
        Self {
            source,
            next_seq: 0,
            block: None,
            at: 0,
            value_start: 0,
            large: Vec::new(),
            large_key_bytes: 0,
            large_record_bytes: 0,
            is_large: false,
            key: CurrentKey::default(),
        }
    }

    /// The current key, as type byte and bytes.
    #[inline]
    pub(crate) fn key_bytes(&self) -> &[u8] {
        match (&self.key.in_block, &self.block) {
            (Some(range), Some(block)) => block.slice(range.clone()).unwrap_or_default(),
            _ => &self.key.copy,
        }
    }

    /// The current key's encoding.
    #[inline]
    pub(crate) fn encoded(&self) -> &[u8] {
        &self.key.encoded
    }

    /// The current value; none before the first step and past the last record.
    #[inline]
    pub(crate) fn value(&self) -> Option<RawVal<'_>> {
        if self.is_large {
            return raw_of(self.large.get(self.large_key_bytes..)?);
        }
        raw_of(self.block.as_ref()?.slice(self.value_start..self.at)?)
    }

    /// Goes to the next record.
    #[inline]
    pub(crate) fn advance(&mut self) -> Result<Step, RunError> {
        self.is_large = false;
        loop {
            if let Some(block) = &self.block
                && let Some(record) = block.record_at(&mut self.at)
            {
                self.value_start = self.at - record.value.len();
                let Some(key) = record.key else {
                    return Ok(Step::SameKey);
                };
                let step = self.key.step_to(key, self.next_seq.saturating_sub(1))?;
                if step == Step::NewKey {
                    // The key ends where the value begins.
                    let end = self.value_start;
                    self.key.in_block = Some(end.saturating_sub(key.len())..end);
                }
                return Ok(step);
            }
            if !self.load()? {
                return Ok(Step::End);
            }
            if self.is_large {
                let key = self.large.get(..self.large_key_bytes).and_then(raw_of);
                let key = key.unwrap_or(RawVal::NULL);
                let step = self.key.step_to(key, self.next_seq.saturating_sub(1))?;
                if step == Step::NewKey {
                    self.key.in_block = None;
                    self.key.copy.clear();
                    key.append_to(&mut self.key.copy);
                }
                return Ok(step);
            }
        }
    }

    /// Loads the next block, or all blocks of a large record; false at the run's end.
    fn load(&mut self) -> Result<bool, RunError> {
        // The old block goes first, so that never two of one run are held.
        if let (Some(range), Some(block)) = (self.key.in_block.take(), self.block.take()) {
            self.key.copy.clear();
            self.key.copy.extend_from_slice(block.slice(range).unwrap_or_default());
        }
        self.block = None;
        self.at = 0;
        self.large.clear();
        let Some(mut block) = self.pull()? else {
            return Ok(false);
        };
        while let Some(fragment) = block.fragment() {
            let seq = self.next_seq.saturating_sub(1);
            let is_next = fragment.offset == self.large.len()
                && (fragment.offset == 0
                    || (fragment.key_bytes == self.large_key_bytes
                        && fragment.record_bytes == self.large_record_bytes));
            if !is_next {
                return Err(RunError::Fragment { seq });
            }
            if fragment.offset == 0 {
                self.large.reserve_exact(fragment.record_bytes);
                self.large_key_bytes = fragment.key_bytes;
                self.large_record_bytes = fragment.record_bytes;
            }
            self.large.extend_from_slice(fragment.piece);
            if self.large.len() == fragment.record_bytes {
                self.is_large = true;
                return Ok(true);
            }
            block = self.pull()?.ok_or(RunError::Fragment { seq })?;
        }
        if !self.large.is_empty() {
            return Err(RunError::Fragment { seq: self.next_seq.saturating_sub(1) });
        }
        self.large.shrink_to(0);
        self.block = Some(block);
        Ok(true)
    }

    fn pull(&mut self) -> Result<Option<DecodedBlock>, RunError> {
        let seq = self.next_seq;
        let pulled = self.source.next_block().map_err(|source| RunError::Source { seq, source })?;
        let Some(stored) = pulled else {
            return Ok(None);
        };
        if stored.seq != seq {
            return Err(RunError::Sequence { expected: seq, found: stored.seq });
        }
        self.next_seq += 1;
        block::decode(stored.parts()).map(Some).map_err(|source| RunError::Block { seq, source })
    }
}

impl CurrentKey {
    /// Compares the next record's key with the current one and makes its encoding current.
    #[inline]
    fn step_to(&mut self, key: RawVal<'_>, seq: u32) -> Result<Step, RunError> {
        // A string's encoding is its text, so neither is encoded to be compared.
        if key.tag == tag::STRING
            && let Some(text) = string_payload(key.bytes)
            && let [STRING_CLASS, current @ ..] = self.encoded.as_slice()
        {
            let order = text.cmp(current);
            if order.is_gt() {
                self.encoded.truncate(1);
                self.encoded.extend_from_slice(text);
            }
            return step_of(order, key, seq);
        }
        self.step_to_encoded(key, seq)
    }

    fn step_to_encoded(&mut self, key: RawVal<'_>, seq: u32) -> Result<Step, RunError> {
        self.scratch.clear();
        key::encode(key, &mut self.scratch).map_err(|source| RunError::Key { seq, source })?;
        let order = self.scratch.cmp(&self.encoded);
        if order.is_gt() {
            std::mem::swap(&mut self.encoded, &mut self.scratch);
        }
        step_of(order, key, seq)
    }
}

#[inline]
fn step_of(order: Ordering, key: RawVal<'_>, seq: u32) -> Result<Step, RunError> {
    match order {
        Ordering::Greater => Ok(Step::NewKey),
        // The same key, though perhaps written differently (1 and 1.0).
        Ordering::Equal => Ok(Step::SameKey),
        Ordering::Less => Err(RunError::Unsorted { seq, key: key.to_string() }),
    }
}
