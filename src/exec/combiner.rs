//! What becomes of a map task's emits: combined in memory, spilled as sorted runs.

use super::collect::{Collect, combined};
use super::function::Guest;
use super::manifest;
use crate::config;
use crate::error::{Error, Result};
use crate::shuffle::block::{Block, BlockLimits};
use crate::shuffle::builtin::Builtin;
use crate::shuffle::fold::Fold;
use crate::shuffle::table::{Combine, Table};
use crate::shuffle::writer::RunWriter;
use crate::task::{Counters, PartManifest};
use crate::value::{RawVal, RawValBuf};
use crate::wasm::{SinkError, Sums};

/// Takes the blocks of spills.
pub trait TakeBlocks: Send {
    /// Takes a block of a run of a partition.
    ///
    /// # Errors
    /// Whatever keeps it from being written.
    fn take(&mut self, partition: u32, run: u32, block: &Block) -> Result<()>;

    /// Takes the numbers of blocks in the runs of a partition, for which the manifest has no room.
    ///
    /// # Errors
    /// Whatever keeps them from being written.
    fn take_runs(&mut self, partition: u32, runs: &[u32]) -> Result<()>;

    /// Sends what is still waiting, and gives back the blocks that are to go with the manifest: all of them or none.
    ///
    /// # Errors
    /// Whatever keeps it from being written.
    fn finish(self: Box<Self>) -> Result<Vec<Kept>>;
}

/// A block that is not written by itself.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The partition.
    pub partition: u32,
    /// The run of the partition.
    pub run: u32,
    /// The block.
    pub block: Block,
}

/// How many times as large as the table of emits that of combined values may become.
pub(super) const COMBINED_TIMES_MAX: usize = 4;

/// Combines emits under a memory budget.
pub struct Combiner {
    table: Table,
    combine: Option<Guest<Collect>>,
    partitions: u32,
    budget_bytes: usize,
    manifest_bytes_max: usize,
    blocks: Box<dyn TakeBlocks>,
    parts: Vec<PartManifest>,
}

impl Combiner {
    /// A combiner for one task.
    pub fn new(
        how: Combine,
        combine: Option<Guest<Collect>>,
        partitions: u32,
        budget_bytes: usize,
        manifest_bytes_max: usize,
        blocks: Box<dyn TakeBlocks>,
    ) -> Self {
        Self {
            table: Table::new(how),
            combine,
            partitions,
            budget_bytes,
            manifest_bytes_max,
            blocks,
            parts: Vec::new(),
        }
    }

    /// Takes one emit.
    ///
    /// # Errors
    /// [`Error::Refused`] naming the key, and whatever a forced spill meets.
    pub fn add(&mut self, key: RawVal<'_>, value: RawVal<'_>) -> Result<()> {
        self.table.add(key, value).map_err(|e| refuse_emit(&e))?;
        self.watch_budget()
    }

    /// One call may emit without end, so the budget is watched in it too, though more loosely: a spill in mid-call counts
    /// against the function's time.
    #[inline]
    fn watch_budget(&mut self) -> Result<()> {
        if self.table.bytes() > self.budget_bytes * 2 {
            self.spill()?;
        }
        Ok(())
    }

    /// Whether each key's values are only summed or counted.
    pub fn sums(&self) -> Option<Sums> {
        match self.table.combine() {
            Combine::Builtin(Builtin::Sum | Builtin::Count) => Some(Sums::InAnyOrder),
            Combine::Folded(Fold::Sum) => Some(Sums::InOrder),
            Combine::Builtin(_) | Combine::Folded(_) | Combine::Values => None,
        }
    }

    /// Takes so many emits of doubles, whose exact sum this is.
    ///
    /// # Errors
    /// As [`Combiner::add`].
    pub fn add_sum(&mut self, key: RawVal<'_>, sum: f64, emits: u32) -> Result<()> {
        let mut partial = RawValBuf::new();
        match self.table.combine() {
            Combine::Builtin(Builtin::Sum) | Combine::Folded(Fold::Sum) => partial.set_f64(sum),
            Combine::Builtin(Builtin::Count) => partial.set_i64(emits.into()),
            other => return Err(Error::Internal(format!("sums were given to {other:?}"))),
        }
        self.table.add_partial(key, partial.as_raw()).map_err(|e| refuse_emit(&e))?;
        self.watch_budget()
    }

    /// Takes so many emits of numbers of one type, whose exact sum this is.
    ///
    /// # Errors
    /// As [`Combiner::add`].
    pub fn add_total(&mut self, key: RawVal<'_>, total: RawVal<'_>, emits: u32) -> Result<()> {
        match self.table.combine() {
            // A sum that is exact is as good as what it is of.
            Combine::Builtin(Builtin::Sum) => self.add(key, total),
            Combine::Builtin(Builtin::Count) => {
                let mut partial = RawValBuf::new();
                partial.set_i64(emits.into());
                self.table.add_partial(key, partial.as_raw()).map_err(|e| refuse_emit(&e))?;
                self.watch_budget()
            }
            other => Err(Error::Internal(format!("sums were given to {other:?}"))),
        }
    }

    /// Makes room when the budget is used up; called between two calls of the function.
    ///
    /// # Errors
    /// Those of the combine function and of writing.
    pub fn settle(&mut self) -> Result<()> {
        if self.table.bytes() <= self.budget_bytes {
            return Ok(());
        }
        self.combine_table()?;
        // A table that combining has halved can take as much again before it must be written.
        if self.table.bytes() > self.budget_bytes / 2 { self.spill() } else { Ok(()) }
    }

    /// Writes what is left and returns the manifest, ordered by partition, and the counters of the
    /// combine function.
    ///
    /// # Errors
    /// Those of the combine function and of writing.
    pub fn finish(mut self) -> Result<(Vec<PartManifest>, Counters)> {
        self.combine_table()?;
        self.spill()?;
        self.parts.sort_by_key(|part| part.p);
        manifest::fit(&mut self.parts, self.manifest_bytes_max, self.blocks.as_mut())?;
        let kept = self.blocks.finish()?;
        manifest::keep(&mut self.parts, kept)?;
        let counters = self
            .combine
            .as_mut()
            .map(|guest| std::mem::take(&mut guest.sink_mut().counters))
            .unwrap_or_default();
        Ok((self.parts, counters))
    }

    /// Runs the user's combine over every key that has several values.
    fn combine_table(&mut self) -> Result<()> {
        let Some(combine) = self.combine.as_mut() else { return Ok(()) };
        if self.table.is_empty() || self.table.is_folded() {
            return Ok(());
        }
        let fresh = Table::new(self.table.combine());
        let table = std::mem::replace(&mut self.table, fresh);
        self.table = combined(combine, table)?;
        Ok(())
    }

    /// Writes the table as one sorted run for each partition.
    fn spill(&mut self) -> Result<()> {
        let (parts, blocks) = (&mut self.parts, self.blocks.as_mut());
        let mut open: Option<OpenRun> = None;
        self.table.drain_sorted(self.partitions, |group| -> Result<()> {
            if open.as_ref().is_none_or(|run| run.partition != group.partition) {
                if let Some(run) = open.take() {
                    run.finish(parts, blocks)?;
                }
                open = Some(OpenRun::new(group.partition, parts));
            }
            let Some(run) = open.as_mut() else { return Ok(()) };
            for value in group.values {
                run.push(group.key, value, blocks)?;
            }
            Ok(())
        })?;
        match open {
            Some(run) => run.finish(parts, blocks),
            None => Ok(()),
        }
    }
}

/// A run that is being written.
struct OpenRun {
    partition: u32,
    number: u32,
    writer: RunWriter,
    records: i64,
    bytes: i64,
}

impl OpenRun {
    fn new(partition: u32, parts: &[PartManifest]) -> Self {
        let earlier = parts.iter().find(|part| part.p == partition).map_or(0, |p| p.runs.len());
        Self {
            partition,
            number: u32::try_from(earlier).unwrap_or(u32::MAX),
            writer: RunWriter::new(BlockLimits {
                raw_bytes_target: config::BLOCK_RAW_BYTES_TARGET,
            }),
            records: 0,
            bytes: 0,
        }
    }

    fn push(
        &mut self,
        key: RawVal<'_>,
        value: RawVal<'_>,
        blocks: &mut dyn TakeBlocks,
    ) -> Result<()> {
        let (partition, number, bytes) = (self.partition, self.number, &mut self.bytes);
        self.records += 1;
        self.writer.push(key, value, &mut |block: Block| {
            *bytes += i64::try_from(block.data.len()).unwrap_or(0);
            blocks.take(partition, number, &block)
        })
    }

    fn finish(self, parts: &mut Vec<PartManifest>, blocks: &mut dyn TakeBlocks) -> Result<()> {
        let Self { partition, number, writer, records, mut bytes } = self;
        let count = writer.finish(&mut |block: Block| {
            bytes += i64::try_from(block.data.len()).unwrap_or(0);
            blocks.take(partition, number, &block)
        })?;
        let part = match parts.iter_mut().find(|part| part.p == partition) {
            Some(part) => part,
            None => {
                parts.push(PartManifest {
                    p: partition,
                    runs: Vec::new(),
                    apart: 0,
                    records: 0,
                    bytes: 0,
                    kept: Vec::new(),
                });
                parts.last_mut().ok_or_else(|| Error::Internal("no part".into()))?
            }
        };
        part.runs.push(count);
        part.records += records;
        part.bytes += bytes;
        Ok(())
    }
}

pub(crate) fn boxed(error: Error) -> SinkError {
    Box::new(error)
}

/// An emit that cannot be taken is the function's fault, so another attempt would not help.
pub(crate) fn refuse_emit(error: &crate::shuffle::table::ShuffleError) -> Error {
    Error::refused(format!("an emit is refused: {error}"), "")
}

#[cfg(test)]
mod tests {
    use bson::Bson;

    use super::*;
    use crate::shuffle::builtin::Accumulator;

    struct NoBlocks;

    impl TakeBlocks for NoBlocks {
        fn take(&mut self, _partition: u32, _run: u32, _block: &Block) -> Result<()> {
            Err(Error::Internal("nothing is spilled here".into()))
        }
        fn take_runs(&mut self, _partition: u32, _runs: &[u32]) -> Result<()> {
            Ok(())
        }
        fn finish(self: Box<Self>) -> Result<Vec<Kept>> {
            Ok(Vec::new())
        }
    }

    fn combiner(how: Combine) -> Combiner {
        Combiner::new(how, None, 1, 1 << 20, 1 << 20, Box::new(NoBlocks))
    }

    /// The result of the one key of a combiner.
    fn result(mut combiner: Combiner, builtin: Builtin) -> String {
        let mut results = Vec::new();
        combiner
            .table
            .drain_sorted(1, |mut group| -> Result<()> {
                let mut state = Accumulator::new(builtin);
                state.merge(group.values.next().unwrap()).unwrap();
                results.push(state.finish().as_raw().to_string());
                Ok(())
            })
            .unwrap();
        assert_eq!(results.len(), 1);
        results.remove(0)
    }

    #[test]
    fn a_sum_counts_as_the_emits_that_it_stands_for() {
        let key = RawValBuf::from_bson(&Bson::from("k")).unwrap();
        let values = [1.5, -3.0, 0.1, 1e300, 4.0, 7.0];
        for builtin in [Builtin::Sum, Builtin::Count] {
            let (mut single, mut summed) =
                (combiner(Combine::Builtin(builtin)), combiner(Combine::Builtin(builtin)));
            assert_eq!(single.sums(), Some(Sums::InAnyOrder));
            let add = |to: &mut Combiner, value: f64| {
                let value = RawValBuf::from_bson(&Bson::from(value)).unwrap();
                to.add(key.as_raw(), value.as_raw()).unwrap();
            };
            values.iter().for_each(|value| add(&mut single, *value));
            // Two of them are the first ones of the key, and two come later.
            summed.add_sum(key.as_raw(), -1.5, 2).unwrap();
            values[2..4].iter().for_each(|value| add(&mut summed, *value));
            summed.add_sum(key.as_raw(), 11.0, 2).unwrap();
            assert_eq!(result(single, builtin), result(summed, builtin), "{builtin}");
        }
    }

    /// The values of the one key of a combiner.
    fn values(combiner: &mut Combiner) -> Vec<String> {
        let mut values = Vec::new();
        combiner
            .table
            .drain_sorted(1, |group| -> Result<()> {
                values.extend(group.values.map(|value| value.to_string()));
                Ok(())
            })
            .unwrap();
        values
    }

    #[test]
    fn a_function_that_adds_up_is_called_only_for_what_is_no_plain_number() {
        let key = RawValBuf::from_bson(&Bson::from("k")).unwrap();
        let mut folded = combiner(Combine::Folded(Fold::Sum));
        assert_eq!(folded.sums(), Some(Sums::InOrder));
        let add = |to: &mut Combiner, value: Bson| {
            let value = RawValBuf::from_bson(&value).unwrap();
            to.add(key.as_raw(), value.as_raw()).unwrap();
        };
        add(&mut folded, Bson::from(1.5));
        folded.add_sum(key.as_raw(), 40.0, 3).unwrap();
        add(&mut folded, Bson::from(0.25));
        assert!(folded.table.is_folded());
        add(&mut folded, Bson::from("text"));
        add(&mut folded, Bson::from(2.0));
        assert!(!folded.table.is_folded());
        assert_eq!(values(&mut folded), ["41.75", "\"text\"", "2"]);
        assert!(folded.table.is_folded());
    }

    #[test]
    fn the_least_and_the_largest_are_kept() {
        let key = RawValBuf::from_bson(&Bson::from("k")).unwrap();
        for (fold, expected) in [(Fold::Min, "-2"), (Fold::Max, "7.5")] {
            let mut folded = combiner(Combine::Folded(fold));
            assert_eq!(folded.sums(), None);
            for value in [3.0, -2.0, 7.5, 1.0] {
                let value = RawValBuf::from_bson(&Bson::from(value)).unwrap();
                folded.add(key.as_raw(), value.as_raw()).unwrap();
            }
            assert_eq!(values(&mut folded), [expected]);
        }
    }

    #[test]
    fn a_total_counts_as_the_emits_that_it_stands_for() {
        let key = RawValBuf::from_bson(&Bson::from("k")).unwrap();
        let many =
            [Bson::from(7_i32), Bson::from(-3_i32), Bson::from(1_i64 << 40), Bson::from(0.5)];
        let totals = [(Bson::from(4_i32), 2), (Bson::from(1_i64 << 40), 1), (Bson::from(0.5), 1)];
        for builtin in [Builtin::Sum, Builtin::Count] {
            // Of each type, and of all types together.
            for count in 1..=many.len() {
                let (mut single, mut summed) =
                    (combiner(Combine::Builtin(builtin)), combiner(Combine::Builtin(builtin)));
                for value in &many[..count.max(2)] {
                    let value = RawValBuf::from_bson(value).unwrap();
                    single.add(key.as_raw(), value.as_raw()).unwrap();
                }
                for (total, emits) in &totals[..count.max(2) - 1] {
                    let total = RawValBuf::from_bson(total).unwrap();
                    summed.add_total(key.as_raw(), total.as_raw(), *emits).unwrap();
                }
                assert_eq!(result(single, builtin), result(summed, builtin), "{builtin} {count}");
            }
        }
    }

    #[test]
    fn sums_are_for_sums_and_counts_only() {
        for how in [Combine::Values, Combine::Builtin(Builtin::Max), Combine::Builtin(Builtin::Avg)]
        {
            let mut combiner = combiner(how);
            assert_eq!(combiner.sums(), None);
            let key = RawValBuf::from_bson(&Bson::from("k")).unwrap();
            assert!(combiner.add_sum(key.as_raw(), 1.0, 1).is_err());
        }
    }
}
