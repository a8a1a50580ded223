//! Runs in temporary files, for merges of more runs than the fan-in.
//!
//! A file holds the blocks of one run, each after its fields and the length of its data. It has no name
//! from the start, so it is gone when it is closed, even when the process is killed.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::block::{BLOCK_DATA_BYTES_MAX, Block};
use super::reader::{RunSource, SourceError};

/// Sequence, records, raw bytes, checksum and data length as u32 LE, and the codec.
const HEAD_BYTES: usize = 21;

/// A run that is being written to a temporary file.
pub(crate) struct SpillWriter {
    file: BufWriter<File>,
    bytes: u64,
}

impl SpillWriter {
    pub(crate) fn create(dir: &Path) -> io::Result<Self> {
        Ok(Self { file: BufWriter::new(tempfile::tempfile_in(dir)?), bytes: 0 })
    }

    pub(crate) fn write(&mut self, block: &Block) -> io::Result<()> {
        let len = u32::try_from(block.data.len()).unwrap_or(u32::MAX);
        for field in [block.seq, block.records, block.raw_bytes, block.crc32, len] {
            self.file.write_all(&field.to_le_bytes())?;
        }
        self.file.write_all(&[block.codec])?;
        self.file.write_all(&block.data)?;
        self.bytes += (HEAD_BYTES + block.data.len()) as u64;
        Ok(())
    }

    /// Length of the file so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Turns to reading, from the start.
    pub(crate) fn into_run(self) -> io::Result<SpilledRun> {
        let mut file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(SpilledRun { file: BufReader::new(file), bytes_left: self.bytes })
    }
}

/// A run in a temporary file.
pub(crate) struct SpilledRun {
    file: BufReader<File>,
    bytes_left: u64,
}

impl SpilledRun {
    fn field(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.file.read_exact(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn read_block(&mut self) -> io::Result<Block> {
        let (seq, records, raw_bytes) = (self.field()?, self.field()?, self.field()?);
        let (crc32, len) = (self.field()?, self.field()? as usize);
        let mut codec = [0];
        self.file.read_exact(&mut codec)?;
        if len > BLOCK_DATA_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a temporary run has a block longer than a block may be",
            ));
        }
        let mut data = vec![0; len];
        self.file.read_exact(&mut data)?;
        self.bytes_left = self.bytes_left.saturating_sub((HEAD_BYTES + len) as u64);
        let [codec] = codec;
        Ok(Block { seq, records, raw_bytes, crc32, codec, data })
    }
}

impl RunSource for SpilledRun {
    fn next_block(&mut self) -> Result<Option<Block>, SourceError> {
        if self.bytes_left == 0 {
            return Ok(None);
        }
        Ok(Some(self.read_block()?))
    }
}
