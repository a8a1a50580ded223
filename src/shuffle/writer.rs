//! Cuts a sorted run into blocks. The format is in `block.rs`.

use super::block::{
    BLOCK_MAGIC, BLOCK_RAW_BYTES_MAX, BLOCK_RAW_BYTES_MIN, BLOCK_VERSION, Block, BlockLimits,
    CODEC_LZ4, CODEC_STORED, FRAGMENT_HEAD_BYTES, KIND_FRAGMENT, KIND_RECORDS,
};
use super::varint;
use crate::value::RawVal;

/// Bytes of data before the payload: magic, version and kind.
const DATA_HEAD_BYTES: usize = 3;

/// Writes one run. Records must come in the order of their encoded keys.
#[derive(Debug)]
pub struct RunWriter {
    raw_bytes_target: usize,
    payload: Vec<u8>,
    records: u32,
    seq: u32,
    /// The key of the last record, as type byte and bytes.
    key: Vec<u8>,
}

impl RunWriter {
    /// A writer of an empty run.
    #[must_use]
    pub fn new(limits: BlockLimits) -> Self {
        Self {
            raw_bytes_target: limits
                .raw_bytes_target
                .clamp(BLOCK_RAW_BYTES_MIN, BLOCK_RAW_BYTES_MAX),
            payload: Vec::new(),
            records: 0,
            seq: 0,
            key: Vec::new(),
        }
    }

    /// Appends a record; full blocks go to `sink`.
    ///
    /// # Errors
    /// Those of `sink`. The writer is then of no more use.
    pub fn push<E>(
        &mut self,
        key: RawVal<'_>,
        value: RawVal<'_>,
        sink: &mut impl FnMut(Block) -> Result<(), E>,
    ) -> Result<(), E> {
        let is_same_key = self.records > 0 && self.key.split_first() == Some((&key.tag, key.bytes));
        let value_part = varint::len(value.len() as u64 * 2 + 1) + value.len();
        let key_part = varint::len(key.len() as u64) + key.len();
        let room = self.raw_bytes_target.saturating_sub(self.payload.len());
        let fits = value_part + if is_same_key { 0 } else { key_part } <= room;
        if !fits {
            self.flush(sink)?;
            if key_part + value_part > self.raw_bytes_target {
                return self.push_fragments(key, value, sink);
            }
        }
        let has_key = !(fits && is_same_key);
        varint::append(value.len() as u64 * 2 + u64::from(has_key), &mut self.payload);
        if has_key {
            varint::append(key.len() as u64, &mut self.payload);
            key.append_to(&mut self.payload);
            self.key.clear();
            key.append_to(&mut self.key);
        }
        value.append_to(&mut self.payload);
        self.records += 1;
        Ok(())
    }

    /// Ends the run and gives its number of blocks.
    ///
    /// # Errors
    /// Those of `sink`.
    pub fn finish<E>(mut self, sink: &mut impl FnMut(Block) -> Result<(), E>) -> Result<u32, E> {
        self.flush(sink)?;
        Ok(self.seq)
    }

    /// Memory that the writer holds, in bytes; writing a block needs about as much once more.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.payload.capacity() + self.key.capacity()
    }

    fn flush<E>(&mut self, sink: &mut impl FnMut(Block) -> Result<(), E>) -> Result<(), E> {
        if self.records == 0 {
            return Ok(());
        }
        let block = seal(self.seq, self.records, KIND_RECORDS, &self.payload);
        self.payload.clear();
        self.records = 0;
        self.seq += 1;
        sink(block)
    }

    /// Writes a record that no block can take, in pieces.
    fn push_fragments<E>(
        &mut self,
        key: RawVal<'_>,
        value: RawVal<'_>,
        sink: &mut impl FnMut(Block) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut record = Vec::with_capacity(key.len() + value.len());
        key.append_to(&mut record);
        value.append_to(&mut record);
        let piece_bytes = self.raw_bytes_target - FRAGMENT_HEAD_BYTES;
        let count = record.len().div_ceil(piece_bytes);
        let mut offset = 0_usize;
        for (number, piece) in record.chunks(piece_bytes).enumerate() {
            let mut payload = Vec::with_capacity(FRAGMENT_HEAD_BYTES + piece.len());
            for field in [record.len(), key.len(), offset] {
                payload.extend_from_slice(&len_u32(field).to_le_bytes());
            }
            payload.extend_from_slice(piece);
            let block = seal(self.seq, u32::from(number + 1 == count), KIND_FRAGMENT, &payload);
            self.seq += 1;
            offset += piece.len();
            sink(block)?;
        }
        Ok(())
    }
}

fn len_u32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// Compresses a payload, when that pays, and computes the checksum.
fn seal(seq: u32, records: u32, kind: u8, payload: &[u8]) -> Block {
    let bound = lz4_flex::block::get_maximum_output_size(payload.len());
    let mut data = vec![0; DATA_HEAD_BYTES + bound];
    let compressed = data
        .get_mut(DATA_HEAD_BYTES..)
        .and_then(|body| lz4_flex::block::compress_into(payload, body).ok())
        .filter(|&len| len < payload.len());
    let codec = match compressed {
        Some(len) => {
            data.truncate(DATA_HEAD_BYTES + len);
            CODEC_LZ4
        }
        None => {
            data.truncate(DATA_HEAD_BYTES);
            data.extend_from_slice(payload);
            CODEC_STORED
        }
    };
    if let Some(head) = data.first_chunk_mut::<DATA_HEAD_BYTES>() {
        *head = [BLOCK_MAGIC, BLOCK_VERSION, kind];
    }
    // The buffer was made for the worst case; blocks wait in queues, so give the rest back.
    data.shrink_to_fit();
    let mut block =
        Block { seq, records, raw_bytes: len_u32(payload.len()), crc32: 0, codec, data };
    block.crc32 = block.parts().checksum();
    block
}
