//! The stored form of a run: blocks of records, compressed and checksummed.
//!
//! A *run* is the sorted records of one partition out of one spill. It is cut into blocks that each
//! parse alone. Version 1 of a block's `data`:
//!
//! ```text
//! A5            magic
//! 01            version
//! kind          00 records, 01 fragment
//! payload       as the codec says: 0 stored, 1 one LZ4 block
//! ```
//!
//! The payload of *records*, `raw_bytes` long:
//!
//! ```text
//! head          varint: value length × 2 + (1 when a key follows)
//! [key length   varint]
//! [key          type byte, bytes]
//! value         type byte, bytes
//! ```
//!
//! A record without a key belongs to the key before it. The first record of a block has its key,
//! so equal keys of neighbouring blocks are one group.
//!
//! A record that is larger than a block's target is cut into *fragments*, each a block of its own, one
//! after the other: total length (u32 LE), key length (u32 LE), offset (u32 LE), then a piece of
//! `key value`. The last fragment counts as one record and the others as none.
//!
//! The checksum covers the numbers beside the data as well, so a block cannot pass for another of its run.

use super::varint;
use crate::value::{RawVal, ValueError};

/// First byte of every block's data.
pub const BLOCK_MAGIC: u8 = 0xA5;
/// Version of the format that is written, and the only one that is read.
pub const BLOCK_VERSION: u8 = 1;
/// Largest `data` of a block, in bytes.
pub const BLOCK_DATA_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest payload of a block before compression, in bytes.
pub const BLOCK_RAW_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Smallest target that is honoured, in bytes.
pub const BLOCK_RAW_BYTES_MIN: usize = 64;
/// Largest record (key and value with their type bytes) that a reader puts together, in bytes.
pub const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// `codec` of a payload stored as it is.
pub const CODEC_STORED: u8 = 0;
/// `codec` of a payload compressed as one LZ4 block.
pub const CODEC_LZ4: u8 = 1;

pub(crate) const KIND_RECORDS: u8 = 0;
pub(crate) const KIND_FRAGMENT: u8 = 1;
pub(crate) const FRAGMENT_HEAD_BYTES: usize = 12;

/// How a run is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockLimits {
    /// Payload after which a block is closed, in bytes before compression; kept within
    /// [`BLOCK_RAW_BYTES_MIN`] and [`BLOCK_RAW_BYTES_MAX`].
    pub raw_bytes_target: usize,
}

impl Default for BlockLimits {
    fn default() -> Self {
        Self { raw_bytes_target: 1024 * 1024 }
    }
}

/// One block as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Place in the run, from 0.
    pub seq: u32,
    /// Records that end in this block.
    pub records: u32,
    /// Length of the payload before compression.
    pub raw_bytes: u32,
    /// CRC-32 (IEEE) of the fields and the data.
    pub crc32: u32,
    /// [`CODEC_STORED`] or [`CODEC_LZ4`].
    pub codec: u8,
    /// The bytes.
    pub data: Vec<u8>,
}

impl Block {
    /// Borrows the block.
    #[must_use]
    pub fn parts(&self) -> BlockParts<'_> {
        BlockParts {
            seq: self.seq,
            records: self.records,
            raw_bytes: self.raw_bytes,
            crc32: self.crc32,
            codec: self.codec,
            data: &self.data,
        }
    }
}

/// One block as it is stored, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct BlockParts<'a> {
    /// See [`Block::seq`].
    pub seq: u32,
    /// See [`Block::records`].
    pub records: u32,
    /// See [`Block::raw_bytes`].
    pub raw_bytes: u32,
    /// See [`Block::crc32`].
    pub crc32: u32,
    /// See [`Block::codec`].
    pub codec: u8,
    /// See [`Block::data`].
    pub data: &'a [u8],
}

impl BlockParts<'_> {
    /// The checksum that the block should have.
    pub(crate) fn checksum(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.seq.to_le_bytes());
        hasher.update(&self.records.to_le_bytes());
        hasher.update(&self.raw_bytes.to_le_bytes());
        hasher.update(&[self.codec]);
        hasher.update(self.data);
        hasher.finalize()
    }
}

/// What is wrong with a block. Each fits "failed to read block …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The block was damaged, or is not the block its fields say.
    #[error("checksum is {found:08x} but the block says {expected:08x}")]
    Checksum {
        /// What the block says.
        expected: u32,
        /// What its bytes give.
        found: u32,
    },
    /// It is no block, or one of a newer program.
    #[error(
        "data begins with {found:02x?}, not with magic {BLOCK_MAGIC:02x} and version {BLOCK_VERSION:02x}"
    )]
    Version {
        /// Its first bytes.
        found: Vec<u8>,
    },
    /// The codec is not known.
    #[error("codec {codec} is unknown")]
    Codec {
        /// The codec.
        codec: u8,
    },
    /// The kind is not known.
    #[error("kind {kind} is unknown")]
    Kind {
        /// The kind.
        kind: u8,
    },
    /// A size is past its limit.
    #[error("{what} is {bytes} bytes, more than {limit}")]
    TooLarge {
        /// Which size.
        what: &'static str,
        /// The size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The payload does not have its length.
    #[error("payload has {found} bytes but the block says {expected}")]
    Length {
        /// What the block says.
        expected: usize,
        /// What there is.
        found: usize,
    },
    /// The compressed bytes do not decompress.
    #[error("payload does not decompress: {reason}")]
    Decompress {
        /// The library's message.
        reason: String,
    },
    /// A record's lengths do not fit.
    #[error("record {record} is malformed: {what}")]
    Record {
        /// Its number in the block, from 0.
        record: u32,
        /// What is wrong.
        what: &'static str,
    },
    /// There are more or fewer records than the block says.
    #[error("block holds {found} records but says {expected}")]
    Records {
        /// What the block says.
        expected: u32,
        /// What there are.
        found: u32,
    },
    /// A key or value has no valid bytes.
    #[error("record {record} is malformed: {source}")]
    Value {
        /// Its number in the block, from 0.
        record: u32,
        /// What is wrong.
        source: ValueError,
    },
}

/// A block whose checksum, lengths and records were checked.
#[derive(Debug, Clone)]
pub struct DecodedBlock {
    payload: Vec<u8>,
    kind: u8,
}

/// One record, borrowed from its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The key, when it is not that of the record before.
    pub key: Option<RawVal<'a>>,
    /// The value.
    pub value: RawVal<'a>,
}

/// A piece of a record that is larger than a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// Length of the whole record, key and value with their type bytes.
    pub record_bytes: usize,
    /// Length of the key with its type byte.
    pub key_bytes: usize,
    /// Where the piece belongs.
    pub offset: usize,
    /// The piece.
    pub piece: &'a [u8],
}

/// Checks and decompresses a block.
///
/// # Errors
/// [`BlockError`] says what is wrong; no input makes it panic or allocate more than a block may have.
pub fn decode(block: BlockParts<'_>) -> Result<DecodedBlock, BlockError> {
    check_size("data", block.data.len(), BLOCK_DATA_BYTES_MAX)?;
    let found = block.checksum();
    if found != block.crc32 {
        return Err(BlockError::Checksum { expected: block.crc32, found });
    }
    let [BLOCK_MAGIC, BLOCK_VERSION, kind, body @ ..] = block.data else {
        return Err(BlockError::Version { found: block.data.iter().take(2).copied().collect() });
    };
    let raw_bytes = block.raw_bytes as usize;
    check_size("payload", raw_bytes, BLOCK_RAW_BYTES_MAX)?;
    let payload = match block.codec {
        CODEC_STORED => body.to_vec(),
        CODEC_LZ4 => lz4_flex::block::decompress(body, raw_bytes)
            .map_err(|error| BlockError::Decompress { reason: error.to_string() })?,
        codec => return Err(BlockError::Codec { codec }),
    };
    if payload.len() != raw_bytes {
        return Err(BlockError::Length { expected: raw_bytes, found: payload.len() });
    }
    let decoded = DecodedBlock { payload, kind: *kind };
    let found = match decoded.kind {
        KIND_RECORDS => decoded.count_records()?,
        KIND_FRAGMENT => decoded.check_fragment()?,
        kind => return Err(BlockError::Kind { kind }),
    };
    if found != block.records {
        return Err(BlockError::Records { expected: block.records, found });
    }
    Ok(decoded)
}

fn check_size(what: &'static str, bytes: usize, limit: usize) -> Result<(), BlockError> {
    if bytes > limit {
        return Err(BlockError::TooLarge { what, bytes, limit });
    }
    Ok(())
}

impl DecodedBlock {
    /// The records; none when the block is a fragment.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let mut at = 0;
        std::iter::from_fn(move || self.record_at(&mut at))
    }

    /// The fragment, when the block is one.
    #[must_use]
    pub fn fragment(&self) -> Option<Fragment<'_>> {
        if self.kind != KIND_FRAGMENT {
            return None;
        }
        let (head, piece) = self.payload.split_first_chunk::<FRAGMENT_HEAD_BYTES>()?;
        let (words, _) = head.as_chunks::<4>();
        let [record_bytes, key_bytes, offset] = words else {
            return None;
        };
        Some(Fragment {
            record_bytes: u32::from_le_bytes(*record_bytes) as usize,
            key_bytes: u32::from_le_bytes(*key_bytes) as usize,
            offset: u32::from_le_bytes(*offset) as usize,
            piece,
        })
    }

    /// The record at an offset of the payload, which moves past it; none at the end.
    #[inline]
    pub(crate) fn record_at(&self, at: &mut usize) -> Option<Record<'_>> {
        if self.kind != KIND_RECORDS {
            return None;
        }
        let rest = self.payload.get(*at..)?;
        let (record, rest) = read_record(rest)?;
        *at = self.payload.len() - rest.len();
        Some(record)
    }

    pub(crate) fn slice(&self, range: std::ops::Range<usize>) -> Option<&[u8]> {
        self.payload.get(range)
    }

    fn count_records(&self) -> Result<u32, BlockError> {
        let mut rest = self.payload.as_slice();
        let mut count = 0;
        while !rest.is_empty() {
            let malformed = |what| BlockError::Record { record: count, what };
            let (record, after) =
                read_record(rest).ok_or_else(|| malformed("a length does not fit the block"))?;
            if count == 0 && record.key.is_none() {
                return Err(malformed("the first record has no key"));
            }
            rest = after;
            count += 1;
        }
        Ok(count)
    }

    fn check_fragment(&self) -> Result<u32, BlockError> {
        let malformed = |what| BlockError::Record { record: 0, what };
        let fragment =
            self.fragment().ok_or_else(|| malformed("the fragment's head is cut short"))?;
        check_size("record", fragment.record_bytes, RECORD_BYTES_MAX)?;
        let end = fragment.offset.saturating_add(fragment.piece.len());
        // Both key and value have at least a type byte.
        if fragment.key_bytes == 0
            || fragment.key_bytes >= fragment.record_bytes
            || fragment.piece.is_empty()
            || end > fragment.record_bytes
        {
            return Err(malformed("the fragment's lengths contradict each other"));
        }
        Ok(u32::from(end == fragment.record_bytes))
    }
}

#[inline]
fn read_record(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let (head, mut rest) = varint::decode(bytes)?;
    let mut key = None;
    if head & 1 == 1 {
        let (key_len, after) = varint::decode(rest)?;
        let (key_bytes, after) = after.split_at_checked(usize::try_from(key_len).ok()?)?;
        key = Some(raw_of(key_bytes)?);
        rest = after;
    }
    let (value, rest) = rest.split_at_checked(usize::try_from(head >> 1).ok()?)?;
    Some((Record { key, value: raw_of(value)? }, rest))
}

pub(crate) fn raw_of(bytes: &[u8]) -> Option<RawVal<'_>> {
    let (&tag, bytes) = bytes.split_first()?;
    Some(RawVal { tag, bytes })
}
