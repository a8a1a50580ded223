//! Runs in temporary files, for merges of more runs than the fan-in.
//!
//! A file holds several runs, one after the other, and is opened once: a process may have only so many
//! files open, and a merge any number of runs. A run is the blocks of it, each after its fields and the
//! length of its data. A file has no name from the start, so it is gone when the last of its runs is,
//! even when the process is killed.
//!
//! What all merges of a process have in such files is limited together ([`TempSpace`]): the disk is shared
//! with a server, which suffers when it is full.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::block::{BLOCK_DATA_BYTES_MAX, Block};
use super::reader::{RunSource, SourceError};

/// Sequence, records, raw bytes, checksum and data length as u32 LE, and the codec.
const HEAD_BYTES: usize = 21;
/// Small blocks are gathered to so many bytes before they are written.
const BUFFER_BYTES: usize = 256 * 1024;

/// The room that a process has for temporary files. Clones share it.
#[derive(Debug, Clone)]
pub struct TempSpace(Arc<Room>);

#[derive(Debug)]
struct Room {
    bytes_max: u64,
    used: AtomicU64,
}

/// The part of the room that one merge has taken.
#[derive(Debug, Clone)]
pub(crate) struct TempShare {
    space: TempSpace,
    taken: Arc<AtomicU64>,
}

/// There is no room left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoTempRoom {
    /// All the room there is, in bytes.
    pub(crate) bytes_max: u64,
    /// Whether the merge would need more than that by itself.
    pub(crate) alone: bool,
}

impl TempSpace {
    /// Room for so many bytes, none of which are taken.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        Self(Arc::new(Room { bytes_max, used: AtomicU64::new(0) }))
    }

    /// Bytes of all temporary files that there are now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// All the room there is, in bytes.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.0.bytes_max
    }

    pub(crate) fn share(&self) -> TempShare {
        TempShare { space: self.clone(), taken: Arc::default() }
    }
}

impl Default for TempSpace {
    fn default() -> Self {
        Self::new(u64::MAX)
    }
}

impl TempShare {
    fn take(&self, bytes: u64) -> Result<(), NoTempRoom> {
        let Room { bytes_max, used } = &*self.space.0;
        let with = |used: u64| used.checked_add(bytes).filter(|used| used <= bytes_max);
        match used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with) {
            Ok(_) => {
                self.taken.fetch_add(bytes, Ordering::Relaxed);
                Ok(())
            }
            Err(_) => {
                let wanted = self.taken.load(Ordering::Relaxed).saturating_add(bytes);
                Err(NoTempRoom { bytes_max: *bytes_max, alone: wanted > *bytes_max })
            }
        }
    }

    fn give_back(&self, bytes: u64) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
        self.space.0.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Why a block cannot be spilled.
#[derive(Debug)]
pub(crate) enum SpillError {
    Io(io::Error),
    Full(NoTempRoom),
}

impl From<io::Error> for SpillError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A temporary file, gone when nobody has it any more.
struct TempFile {
    file: File,
    bytes: AtomicU64,
    share: TempShare,
}

impl TempFile {
    /// Takes room for what is about to be written.
    fn grow(&self, bytes: usize) -> Result<(), NoTempRoom> {
        self.share.take(bytes as u64)?;
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        self.share.give_back(*self.bytes.get_mut());
    }
}

/// Writes runs to a temporary file, one after the other.
pub(crate) struct SpillWriter {
    file: Arc<TempFile>,
    buffer: Vec<u8>,
    /// Where the buffer belongs in the file.
    at: u64,
    /// Where the run that is being written begins.
    start: u64,
    /// How many were written.
    runs: usize,
}

impl SpillWriter {
    pub(crate) fn create(dir: &Path, share: &TempShare) -> io::Result<Self> {
        let file = tempfile::tempfile_in(dir)?;
        let file = TempFile { file, bytes: AtomicU64::new(0), share: share.clone() };
        Ok(Self { file: Arc::new(file), buffer: Vec::new(), at: 0, start: 0, runs: 0 })
    }

    pub(crate) fn write(&mut self, block: &Block) -> Result<(), SpillError> {
        self.file.grow(HEAD_BYTES + block.data.len()).map_err(SpillError::Full)?;
        let len = u32::try_from(block.data.len()).unwrap_or(u32::MAX);
        for field in [block.seq, block.records, block.raw_bytes, block.crc32, len] {
            self.buffer.extend_from_slice(&field.to_le_bytes());
        }
        self.buffer.push(block.codec);
        self.buffer.extend_from_slice(&block.data);
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Ends the run; what is written from here on belongs to the next.
    pub(crate) fn end_run(&mut self) -> io::Result<SpilledRun> {
        self.flush()?;
        let run = SpilledRun { file: self.file.clone(), at: self.start, end: self.at };
        self.start = self.at;
        self.runs += 1;
        Ok(run)
    }

    /// How many runs were written to the file.
    pub(crate) fn runs(&self) -> usize {
        self.runs
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.file.write_all_at(&self.buffer, self.at)?;
        self.at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// A run in a temporary file.
pub(crate) struct SpilledRun {
    file: Arc<TempFile>,
    /// Where its next block is.
    at: u64,
    end: u64,
}

impl SpilledRun {
    fn read_block(&mut self) -> io::Result<Block> {
        let mut head = [0; HEAD_BYTES];
        self.file.file.read_exact_at(&mut head, self.at)?;
        let ([seq, records, raw_bytes, crc32, len], &[codec]) = head.as_chunks::<4>() else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let len = u32::from_le_bytes(*len) as usize;
        if len > BLOCK_DATA_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a temporary run has a block longer than a block may be",
            ));
        }
        let mut data = vec![0; len];
        self.file.file.read_exact_at(&mut data, self.at + HEAD_BYTES as u64)?;
        self.at += (HEAD_BYTES + len) as u64;
        Ok(Block {
            seq: u32::from_le_bytes(*seq),
            records: u32::from_le_bytes(*records),
            raw_bytes: u32::from_le_bytes(*raw_bytes),
            crc32: u32::from_le_bytes(*crc32),
            codec,
            data,
        })
    }
}

impl RunSource for SpilledRun {
    fn next_block(&mut self) -> Result<Option<Block>, SourceError> {
        if self.at >= self.end {
            return Ok(None);
        }
        Ok(Some(self.read_block()?))
    }
}
