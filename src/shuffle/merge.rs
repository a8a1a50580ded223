//! Merges the sorted runs of one partition and walks their groups.
//!
//! Memory is bounded by the fan-in: at most one decoded block a run, never all the values of a key.
//! A record larger than a block is put together in its place, so where every run stands on a record
//! of the largest size, a merge holds the fan-in times
//! [`RECORD_BYTES_MAX`](super::block::RECORD_BYTES_MAX). More runs than the fan-in are first merged,
//! neighbours with neighbours, into temporary files: a few for each pass, however many runs there are.
//! Values of one key come in the order of the runs,
//! and within a run in the order in which they were written, whatever the fan-in is; so the result
//! depends on nothing but the order in which runs are given.

use std::io;
use std::path::PathBuf;

use super::block::BlockLimits;
use super::reader::{RunCursor, RunError, RunSource, Step};
use super::spill::{SpillError, SpillWriter, TempShare, TempSpace};
use super::table::key_prefix;
use super::writer::RunWriter;
use crate::value::RawVal;

/// How many new keys are compared before their shared beginning is looked for again.
const REFRESH_KEYS: u32 = 4096;
/// Most temporary files of one pass. A pass reads those of the pass before, so twice as many may be open.
/// A file goes when all of its runs were read, so fewer files would hold more on disk that nobody needs.
pub const TEMP_FILES_PER_PASS_MAX: usize = 8;
/// Fewest runs that can be merged at once.
const FAN_IN_MIN: usize = 2;

/// What a merge may use.
#[derive(Debug, Clone)]
pub struct MergeLimits {
    /// Most runs merged at once, at least 2. Each holds a decoded block, or one record if that is
    /// larger: choose it with the largest records that are to be expected in mind.
    pub fan_in_max: usize,
    /// Where temporary runs go; the system's place for temporary files when none is given.
    pub temp_dir: Option<PathBuf>,
    /// The room for temporary runs, which other merges may share.
    pub temp_space: TempSpace,
    /// How temporary runs are cut into blocks.
    pub block: BlockLimits,
}

impl Default for MergeLimits {
    fn default() -> Self {
        Self {
            fan_in_max: 64,
            temp_dir: None,
            temp_space: TempSpace::default(),
            block: BlockLimits::default(),
        }
    }
}

/// Why a merge stopped. Each fits "failed to merge: …".
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// A run cannot be read.
    #[error("run {run}: {source}")]
    Run {
        /// The run's number in the list that was given.
        run: usize,
        /// What is wrong.
        source: RunError,
    },
    /// A temporary run cannot be read back.
    #[error("temporary run: {source}")]
    TempRun {
        /// What is wrong.
        source: RunError,
    },
    /// A temporary file cannot be made or written.
    #[error("temporary run in {dir}: {source}")]
    Temp {
        /// The directory.
        dir: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The temporary files would be larger than allowed.
    #[error("temporary runs need more than {limit} bytes{others}", others = if *alone { "" } else { ", with those of other merges" })]
    TempFull {
        /// The limit.
        limit: u64,
        /// Whether this merge's files alone would be.
        alone: bool,
    },
}

/// A run that waits to be opened.
struct Waiting {
    origin: Origin,
    source: Box<dyn RunSource + Send>,
}

/// Where a run is from.
#[derive(Debug, Clone, Copy)]
enum Origin {
    /// It has this number in the list that was given.
    Given(usize),
    /// It was made by merging others.
    Merged,
}

impl Origin {
    fn error(self, source: RunError) -> MergeError {
        match self {
            Origin::Given(run) => MergeError::Run { run, source },
            Origin::Merged => MergeError::TempRun { source },
        }
    }
}

/// Walks the groups of several runs in key order.
pub struct Merge {
    merger: Merger,
    passes: u32,
}

impl Merge {
    /// Takes the runs, in an order that is the same on every attempt. Where there are more than the
    /// fan-in, this call merges them down, which reads and writes temporary files.
    ///
    /// # Errors
    /// [`MergeError`].
    pub fn new(
        runs: Vec<Box<dyn RunSource + Send>>,
        limits: &MergeLimits,
    ) -> Result<Self, MergeError> {
        let fan_in = limits.fan_in_max.max(FAN_IN_MIN);
        let mut runs: Vec<Waiting> = runs
            .into_iter()
            .enumerate()
            .map(|(number, source)| Waiting { origin: Origin::Given(number), source })
            .collect();
        let mut passes = 0;
        let share = limits.temp_space.share();
        while runs.len() > fan_in {
            runs = merge_down(runs, fan_in, limits, &share)?;
            passes += 1;
        }
        Ok(Self { merger: Merger::open(runs)?, passes })
    }

    /// Goes to the next group, past the values of the current one that were not read; false at the end.
    ///
    /// # Errors
    /// [`MergeError::Run`]. The merge is then of no more use.
    pub fn next_group(&mut self) -> Result<bool, MergeError> {
        self.merger.next_group()
    }

    /// The group's key as the first run wrote it; null before the first group.
    #[must_use]
    pub fn key(&self) -> RawVal<'_> {
        super::block::raw_of(&self.merger.key).unwrap_or(RawVal::NULL)
    }

    /// The encoding of the group's key.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.merger.encoded
    }

    /// The group's next value, or none when all were read.
    ///
    /// # Errors
    /// [`MergeError::Run`]. The merge is then of no more use.
    #[inline]
    pub fn next_value(&mut self) -> Result<Option<RawVal<'_>>, MergeError> {
        self.merger.next_value()
    }

    /// How many passes over temporary files were needed.
    #[must_use]
    pub fn passes(&self) -> u32 {
        self.passes
    }
}

/// One pass: merges neighbours until no more than `fan_in` runs are left or all were merged once.
fn merge_down(
    runs: Vec<Waiting>,
    fan_in: usize,
    limits: &MergeLimits,
    share: &TempShare,
) -> Result<Vec<Waiting>, MergeError> {
    let mut excess = runs.len() - fan_in;
    let batches = excess.div_ceil(fan_in - 1).min(runs.len().div_ceil(fan_in));
    let runs_per_file = batches.div_ceil(TEMP_FILES_PER_PASS_MAX);
    let mut left = runs.into_iter();
    let mut merged = Vec::new();
    let mut file: Option<SpillWriter> = None;
    while excess > 0 {
        // Merging n runs removes n - 1 of them; no more is merged than must be.
        let batch: Vec<Waiting> = left.by_ref().take(fan_in.min(excess + 1)).collect();
        if batch.len() < FAN_IN_MIN {
            merged.extend(batch);
            break;
        }
        excess -= batch.len() - 1;
        let open = file.take().filter(|file| file.runs() < runs_per_file);
        let (run, open) = merge_to_file(batch, open, limits, share)?;
        merged.push(run);
        file = Some(open);
    }
    merged.extend(left);
    Ok(merged)
}

/// Merges some runs into one at the end of a temporary file, which is a new one if none is open.
fn merge_to_file(
    batch: Vec<Waiting>,
    open: Option<SpillWriter>,
    limits: &MergeLimits,
    share: &TempShare,
) -> Result<(Waiting, SpillWriter), MergeError> {
    let dir = limits.temp_dir.clone().unwrap_or_else(std::env::temp_dir);
    let temp_error = |source| MergeError::Temp { dir: dir.clone(), source };
    let mut merger = Merger::open(batch)?;
    let mut spill = match open {
        Some(open) => open,
        None => SpillWriter::create(&dir, share).map_err(temp_error)?,
    };
    let mut writer = RunWriter::new(limits.block);
    let mut sink = |block| {
        spill.write(&block).map_err(|error| match error {
            SpillError::Io(source) => temp_error(source),
            SpillError::Full(full) => {
                MergeError::TempFull { limit: full.bytes_max, alone: full.alone }
            }
        })
    };
    let mut key = Vec::new();
    while merger.next_group()? {
        key.clone_from(&merger.key);
        let key = super::block::raw_of(&key).unwrap_or(RawVal::NULL);
        while let Some(value) = merger.next_value()? {
            writer.push(key, value, &mut sink)?;
        }
    }
    writer.finish(&mut sink)?;
    let run = spill.end_run().map_err(temp_error)?;
    Ok((Waiting { origin: Origin::Merged, source: Box::new(run) }, spill))
}

/// A k-way merge of open runs.
///
/// `heap` is a binary heap over (encoded key, place of the run). The run whose values are being read
/// stays at its root, and sinks when it reaches another key.
struct Merger {
    cursors: Vec<(Origin, RunCursor)>,
    heap: Vec<HeapItem>,
    key: Vec<u8>,
    encoded: Vec<u8>,
    state: GroupState,
    /// Bytes with which the encodings of all runs' keys begin; prefixes are taken after them.
    shared: Vec<u8>,
    /// New keys until `shared` is looked for again, since it may have grown.
    keys_until_refresh: u32,
}

#[derive(Debug, Clone, Copy)]
struct HeapItem {
    prefix: u64,
    cursor: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GroupState {
    /// No group is open: the root, if any, begins the next.
    Between,
    /// The root stands on a value that was not handed out.
    Fresh,
    /// The root stands on a value that was handed out.
    Taken,
}

impl Merger {
    fn open(runs: Vec<Waiting>) -> Result<Self, MergeError> {
        let mut cursors = Vec::with_capacity(runs.len());
        let mut heap = Vec::with_capacity(runs.len());
        for (number, run) in runs.into_iter().enumerate() {
            let mut cursor = RunCursor::new(run.source);
            let step = cursor.advance().map_err(|source| run.origin.error(source))?;
            if step != Step::End {
                heap.push(HeapItem {
                    prefix: 0,
                    cursor: u32::try_from(number).unwrap_or(u32::MAX),
                });
            }
            cursors.push((run.origin, cursor));
        }
        let mut merger = Self {
            cursors,
            heap,
            key: Vec::new(),
            encoded: Vec::new(),
            state: GroupState::Between,
            shared: Vec::new(),
            keys_until_refresh: 0,
        };
        merger.refresh();
        for at in (0..merger.heap.len() / 2).rev() {
            merger.sink(at);
        }
        Ok(merger)
    }

    fn next_group(&mut self) -> Result<bool, MergeError> {
        while self.state != GroupState::Between {
            self.step()?;
        }
        let Some(root) = self.heap.first() else {
            self.key.clear();
            self.encoded.clear();
            return Ok(false);
        };
        if let Some((_, cursor)) = self.cursors.get(root.cursor as usize) {
            self.key.clear();
            self.key.extend_from_slice(cursor.key_bytes());
            self.encoded.clear();
            self.encoded.extend_from_slice(cursor.encoded());
        }
        self.state = GroupState::Fresh;
        Ok(true)
    }

    #[inline]
    fn next_value(&mut self) -> Result<Option<RawVal<'_>>, MergeError> {
        if self.state == GroupState::Taken {
            self.step()?;
        }
        if self.state == GroupState::Between {
            return Ok(None);
        }
        self.state = GroupState::Taken;
        let root = self.heap.first().map_or(usize::MAX, |root| root.cursor as usize);
        Ok(self.cursors.get(root).and_then(|(_, cursor)| cursor.value()))
    }

    /// Moves the root to its next value and settles whether the group goes on.
    fn step(&mut self) -> Result<(), MergeError> {
        let Some(root) = self.heap.first_mut() else {
            self.state = GroupState::Between;
            return Ok(());
        };
        let Some((origin, cursor)) = self.cursors.get_mut(root.cursor as usize) else {
            self.state = GroupState::Between;
            return Ok(());
        };
        let step = cursor.advance().map_err(|source| origin.error(source))?;
        match step {
            Step::SameKey => {
                self.state = GroupState::Fresh;
                return Ok(());
            }
            Step::NewKey => match cursor.encoded().strip_prefix(self.shared.as_slice()) {
                Some(rest) if self.keys_until_refresh > 0 => {
                    self.keys_until_refresh -= 1;
                    root.prefix = key_prefix(rest);
                }
                _ => self.refresh(),
            },
            Step::End => {
                self.heap.swap_remove(0);
            }
        }
        self.sink(0);
        let root = self.heap.first().map_or(usize::MAX, |root| root.cursor as usize);
        let goes_on =
            self.cursors.get(root).is_some_and(|(_, cursor)| cursor.encoded() == self.encoded);
        self.state = if goes_on { GroupState::Fresh } else { GroupState::Between };
        Ok(())
    }

    /// Looks for the bytes with which all keys begin, and takes the prefixes after them. Keys of one
    /// place often begin alike ("customer-…"), and then eight bytes from the start settle nothing.
    #[cold]
    fn refresh(&mut self) {
        self.keys_until_refresh = REFRESH_KEYS;
        let mut heads = self
            .heap
            .iter()
            .filter_map(|item| self.cursors.get(item.cursor as usize))
            .map(|(_, cursor)| cursor.encoded());
        let first = heads.next().unwrap_or_default();
        let shared = heads.fold(first.len(), |shared, head| {
            let pairs = first.iter().zip(head).take(shared);
            pairs.take_while(|(a, b)| a == b).count()
        });
        self.shared.clear();
        self.shared.extend_from_slice(first.get(..shared).unwrap_or_default());
        for item in &mut self.heap {
            if let Some((_, cursor)) = self.cursors.get(item.cursor as usize) {
                item.prefix = key_prefix(cursor.encoded().get(shared..).unwrap_or_default());
            }
        }
    }

    /// Restores the heap below an item that may have become larger.
    fn sink(&mut self, mut at: usize) {
        loop {
            let (left, right) = (at * 2 + 1, at * 2 + 2);
            let mut least = at;
            for child in [left, right] {
                if self.is_less(child, least) {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            self.heap.swap(at, least);
            at = least;
        }
    }

    /// Whether one place of the heap must come before another; a place past its end must not.
    #[inline]
    fn is_less(&self, a: usize, b: usize) -> bool {
        let (Some(a), Some(b)) = (self.heap.get(a), self.heap.get(b)) else {
            return false;
        };
        if a.prefix != b.prefix {
            return a.prefix < b.prefix;
        }
        let encoded = |item: &HeapItem| {
            self.cursors.get(item.cursor as usize).map(|(_, cursor)| cursor.encoded())
        };
        encoded(a).cmp(&encoded(b)).then(a.cursor.cmp(&b.cursor)).is_lt()
    }
}
