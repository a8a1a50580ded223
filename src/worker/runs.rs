//! The runs of a partition as a reduce task reads them, and what becomes of blocks that are not there or not
//! as they were written.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::attempt::Attempt;
use crate::config;
use crate::error::{Error, Result};
use crate::job::ReadMode;
use crate::shuffle::block::Block;
use crate::shuffle::merge::MergeError;
use crate::shuffle::reader::{RunError, RunSource, SourceError};
use crate::store::blocks::BlockName;
use crate::store::tasks::{Blocks, MapRuns};

/// A run that a map task wrote. There may be very many, so what a task's runs have in common is held once.
#[derive(Clone)]
pub(super) struct RunOf {
    task: Arc<MapRuns>,
    run: u32,
}

/// The runs of a partition, in the order in which they are merged.
pub(super) fn runs_of(manifest: Vec<MapRuns>) -> Vec<RunOf> {
    let tasks = manifest.into_iter().map(Arc::new);
    let of_task = |task: Arc<MapRuns>| {
        let runs = u32::try_from(task.runs.len()).unwrap_or(u32::MAX);
        (0..runs).map(move |run| RunOf { task: task.clone(), run })
    };
    tasks.flat_map(of_task).collect()
}

impl RunOf {
    fn block(&self, attempt: &Attempt, seq: u32) -> BlockName {
        BlockName {
            shard: attempt.task.shard.clone(),
            job: attempt.job.id.clone(),
            partition: attempt.task.n,
            n: self.task.n,
            token: self.task.token.clone(),
            run: self.run,
            seq,
        }
    }
}

pub(super) fn sources(attempt: &Arc<Attempt>, runs: &[RunOf]) -> Vec<Box<dyn RunSource + Send>> {
    let source = |of: &RunOf| -> Box<dyn RunSource + Send> {
        let runtime = Handle::current();
        Box::new(StoredRun {
            attempt: attempt.clone(),
            runtime,
            of: of.clone(),
            next: 0,
            ahead: None,
        })
    };
    runs.iter().map(source).collect()
}

/// One run in the database. From its first block on it is read a block ahead; a merge begins no more runs at
/// a time than its fan-in.
struct StoredRun {
    attempt: Arc<Attempt>,
    runtime: Handle,
    of: RunOf,
    next: u32,
    ahead: Option<Ahead>,
}

/// A block that is there, or on its way.
enum Ahead {
    Here(Block),
    OnItsWay(JoinHandle<Result<Block>>),
}

impl StoredRun {
    fn fetch(&mut self) -> Option<Ahead> {
        let RunOf { task, run } = &self.of;
        let blocks = usize::try_from(*run).ok().and_then(|run| task.runs.get(run));
        if self.next >= blocks.copied().unwrap_or(0) {
            return None;
        }
        let name = self.of.block(&self.attempt, self.next);
        let place = (*run, self.next);
        self.next += 1;
        if let Blocks::Here(here) = &task.blocks
            && let Some(block) = here.get(&place)
        {
            return Some(Ahead::Here(block.clone()));
        }
        let (attempt, task) = (self.attempt.clone(), task.clone());
        Some(Ahead::OnItsWay(self.runtime.spawn(async move {
            let store = &attempt.store;
            match &task.blocks {
                Blocks::Apart => store.block(&name, &task.task, &task.shard).await,
                Blocks::Here(_) | Blocks::InTask => {
                    store.kept_block(&task, name.partition, name.run, name.seq).await
                }
            }
        })))
    }
}

impl RunSource for StoredRun {
    fn next_block(&mut self) -> std::result::Result<Option<Block>, SourceError> {
        let Some(pending) = self.ahead.take().or_else(|| self.fetch()) else { return Ok(None) };
        let panicked = |e| Box::new(Error::Internal(format!("reading a block panicked: {e}")));
        let block = match pending {
            Ahead::Here(block) => block,
            Ahead::OnItsWay(pending) => self.runtime.block_on(pending).map_err(panicked)??,
        };
        self.ahead = self.fetch();
        Ok(Some(block))
    }
}

/// The history's word for an attempt that met a damaged block.
pub(super) const BLOCK_DAMAGED: &str = "block damaged";

/// A merge's error as ours. What the database said comes back unchanged. A run that does not read as it was
/// written has lost a block to its map task, as if the block were missing.
pub(super) fn from_merge(error: MergeError, attempt: &Attempt, runs: &[RunOf]) -> Error {
    let lost = match error {
        MergeError::Run { source: RunError::Source { source, .. }, .. } => {
            match source.downcast::<Error>() {
                Ok(ours) => *ours,
                Err(other) => return Error::Internal(other.to_string()),
            }
        }
        MergeError::Run { run, source } => match runs.get(run) {
            Some(of) => damaged(attempt, of, &source),
            None => return Error::Internal(format!("failed to merge: run {run}: {source}")),
        },
        MergeError::TempFull { limit, alone } => return no_room(attempt, limit, alone),
        // Another worker may have the disk that this one lacks.
        error @ (MergeError::TempRun { .. } | MergeError::Temp { .. }) => {
            return Error::unfit(
                format!("failed to merge: {error}"),
                "give the worker a directory for temporary files with room in it (TMPDIR)",
            );
        }
    };
    unless_in_vain(attempt, lost)
}

/// What becomes of a task whose temporary files do not fit the worker's quota. Where others have the rest of it, the
/// task waits; where it needs more than all of it, what a person has set is a limit for jobs, while a small disk is the
/// worker's lack.
fn no_room(attempt: &Attempt, limit: u64, alone: bool) -> Error {
    let worker = attempt.task.worker.as_deref().unwrap_or("?");
    if !alone {
        return Error::NotYet(format!(
            "the other tasks of worker {worker} have the rest of the {limit} bytes that it gives to temporary \
             files (--spill-bytes)"
        ));
    }
    let why = format!(
        "merging the blocks of partition {} takes more temporary files than the {limit} bytes that worker \
         {worker} gives to them (--spill-bytes)",
        attempt.task.n
    );
    let hint = "start workers with a larger --spill-bytes (AVIARY_SPILL_BYTES), or submit the job with more \
                --partitions";
    if attempt.spills.is_set { Error::refused(why, hint) } else { Error::unfit(why, hint) }
}

/// What becomes of an attempt that has lost a block. As a rule the block's map task runs again; not where that
/// would not help, or would make something else of it.
pub(super) fn unless_in_vain(attempt: &Attempt, lost: Error) -> Error {
    let Error::BlockMissing { block, damage, .. } = &lost else { return lost };
    let what = damage.as_ref().map_or("missing".to_owned(), |why| format!("damaged ({why})"));
    if attempt.job.spec.input.read == ReadMode::Committed {
        // Reduce tasks may have written what the old block says, and others would go by the new one.
        return Error::refused(
            format!(
                "block {block} of the shuffle is {what}, and with --read committed its map task would \
                 find other documents than those that are reduced already"
            ),
            "nothing was published; submit the job again",
        );
    }
    let is_damage = |ended: &&bson::Document| {
        ended.get_str("outcome").is_ok_and(|outcome| outcome == BLOCK_DAMAGED)
    };
    let before = attempt.task.history.iter().filter(is_damage).count();
    if damage.is_none() || before < config::BLOCKS_DAMAGED_MAX {
        return lost;
    }
    Error::refused(
        format!("block {block} of the shuffle is {what}, as others were {before} times before"),
        "look for a failing disk, and give every worker the same version",
    )
}

fn damaged(attempt: &Attempt, of: &RunOf, why: &RunError) -> Error {
    let seq = match why {
        RunError::Source { seq, .. }
        | RunError::Block { seq, .. }
        | RunError::Sequence { expected: seq, .. }
        | RunError::Fragment { seq }
        | RunError::Unsorted { seq, .. }
        | RunError::Key { seq, .. } => *seq,
    };
    Error::BlockMissing {
        block: of.block(attempt, seq).id(),
        damage: Some(why.to_string()),
        task: of.task.task.clone(),
        shard: of.task.shard.clone(),
        token: of.task.token.clone(),
    }
}
