//! A reduce task: merges its partition's runs, reduces and finalizes group by group, writes output.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::attempt::Attempt;
use super::guest::{self, Guest};
use super::lines::Tap;
use super::loader::{self, Loaded, Surroundings};
use super::map::{builtin, document_of_result};
use super::reducer::{How, Long, Pairs, Reducer};
use super::writer::{self, Target, Writer};
use crate::config;
use crate::error::{Error, Result};
use crate::job;
use crate::shuffle::block::{Block, BlockLimits};
use crate::shuffle::merge::{Merge, MergeError, MergeLimits};
use crate::shuffle::reader::{RunError, RunSource, SourceError};
use crate::shuffle::value::RawValBuf;
use crate::store::blocks::BlockName;
use crate::store::tasks::MapRuns;
use crate::task::{Counters, TaskResult};
use crate::wasm::Stage;

/// Runs the task's work; the caller commits.
pub(super) async fn run(attempt: &Arc<Attempt>) -> Result<TaskResult> {
    let spec = &attempt.job.spec;
    let (store, host) = (&attempt.store, &attempt.host);
    let around = Surroundings::of_attempt(attempt)?;
    let load = async |function: Option<&job::FunctionRef>, stage| match function {
        Some(function) => loader::load(store, host, function, stage, &around).await.map(Some),
        None => Ok(None),
    };
    let reduce = match &spec.reduce {
        Some(job::Reducer::Function(function)) => Some(function),
        Some(job::Reducer::Builtin(_)) | None => None,
    };
    let functions = Functions {
        reduce: load(reduce, Stage::Reduce).await?,
        combine: load(spec.combine.as_ref(), Stage::Combine).await?,
        finalize: load(spec.finalize.as_ref(), Stage::Finalize).await?,
    };
    let manifest = store.manifest(&attempt.task, attempt.job.map_tasks).await;
    let manifest = manifest.map_err(|error| at_most_so_often(attempt, error))?;
    let (writer, written) = writer::start(attempt, Target::Output);
    let work = attempt.clone();
    let computed = tokio::task::spawn_blocking(move || compute(&work, manifest, functions, writer))
        .await
        .unwrap_or_else(|e| Err(Error::Internal(format!("the reduce task panicked: {e}"))));
    let counters = written.and(computed).await?;
    Ok(TaskResult {
        token: attempt.lease.token.clone(),
        parts: Vec::new(),
        counters: counters.to_document(),
    })
}

/// A job's functions on the reduce side.
struct Functions {
    reduce: Option<Loaded>,
    combine: Option<Loaded>,
    finalize: Option<Loaded>,
}

/// Starts what the groups of a task go through.
fn reducer(attempt: &Attempt, functions: Functions) -> Result<Reducer> {
    let spec = &attempt.job.spec;
    let start = |loaded: Loaded| {
        let tap = Tap::kept(loaded.stage, &attempt.lines);
        Guest::start(loaded, Pairs::new(tap))
    };
    let how = match (&spec.reduce, functions.reduce) {
        (_, Some(loaded)) => How::Function(Box::new(start(loaded)?)),
        (Some(job::Reducer::Builtin(name)), None) => How::Builtin(builtin(name)?),
        (Some(job::Reducer::Function(_)) | None, None) => {
            return Err(Error::Internal("a reduce task of a job without reduce".into()));
        }
    };
    let long = match functions.combine {
        _ if spec.no_combine => Long::Never,
        Some(loaded) => Long::Combine(Box::new(start(loaded)?)),
        None => Long::Reduce,
    };
    let reducer = Reducer::new(how, long, functions.finalize.map(start).transpose()?);
    Ok(reducer.skipping_single_values(spec.skip_single_values))
}

fn compute(
    attempt: &Arc<Attempt>,
    manifest: Vec<MapRuns>,
    functions: Functions,
    mut writer: Writer,
) -> Result<Counters> {
    let mut reducer = reducer(attempt, functions)?;
    let limits = MergeLimits {
        fan_in_max: config::FAN_IN_MAX,
        block: BlockLimits { raw_bytes_target: config::BLOCK_RAW_BYTES_TARGET },
        ..MergeLimits::default()
    };
    let runs = runs_of(manifest);
    let failed = |error| from_merge(error, attempt, &runs);
    let mut merge = Merge::new(sources(attempt, &runs), &limits).map_err(failed)?;
    let mut counters = Counters::default();
    let mut output = 0_i64;
    let mut out = |key: crate::shuffle::RawVal<'_>, value: crate::shuffle::RawVal<'_>| {
        output += 1;
        writer.push(document_of_result(key, value)?)
    };
    let (mut key, mut encoded) = (RawValBuf::new(), Vec::new());
    while merge.next_group().map_err(failed)? {
        crate::halt::point_blocking("reduce.read");
        attempt.check()?;
        counters.reduce += 1;
        attempt.progress.fetch_add(1, Ordering::Relaxed);
        key.set(merge.key());
        encoded.clear();
        encoded.extend_from_slice(merge.encoded());
        check_deadline(attempt, &key)?;
        let mut values = 0_u64;
        let next = |value: &mut RawValBuf| {
            // A group may be most of the task.
            values += 1;
            if values.is_multiple_of(config::VALUES_PER_CHECK) {
                attempt.check()?;
                check_deadline(attempt, &key)?;
            }
            match merge.next_value().map_err(failed)? {
                Some(next) => {
                    value.set(next);
                    Ok(true)
                }
                None => Ok(false),
            }
        };
        reducer.group(&key, &encoded, true, next, &mut out)?;
    }
    reducer.finish(&mut out)?;
    for of_function in reducer.counters() {
        for (name, value) in of_function.user {
            if !counters.count(&name, value) {
                Tap::kept(Stage::Reduce, &attempt.lines).counter_refused(&name);
            }
        }
    }
    attempt.check()?;
    writer.finish()?;
    counters.output = output;
    Ok(counters)
}

/// Ends a task that has gone past its time. Functions look for themselves; built-ins do not.
fn check_deadline(attempt: &Attempt, key: &RawValBuf) -> Result<()> {
    let Some(deadline) = attempt.deadline.filter(|deadline| deadline.left().is_zero()) else {
        return Ok(());
    };
    let function = match &attempt.job.spec.reduce {
        Some(job::Reducer::Builtin(name)) => Some(name.clone()),
        Some(job::Reducer::Function(function)) => function.name.clone(),
        None => None,
    };
    Err(deadline.error(Stage::Reduce.name(), function, Some(guest::name_key(key.as_raw()))))
}

/// A run that a map task wrote. There may be very many, so what a task's runs have in common is held once.
#[derive(Clone)]
struct RunOf {
    task: Arc<MapRuns>,
    run: u32,
}

/// The runs of a partition, in the order in which they are merged.
fn runs_of(manifest: Vec<MapRuns>) -> Vec<RunOf> {
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

fn sources(attempt: &Arc<Attempt>, runs: &[RunOf]) -> Vec<Box<dyn RunSource + Send>> {
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
    ahead: Option<JoinHandle<Result<Block>>>,
}

impl StoredRun {
    fn fetch(&mut self) -> Option<JoinHandle<Result<Block>>> {
        let task = &self.of.task;
        let blocks = usize::try_from(self.of.run).ok().and_then(|run| task.runs.get(run));
        if self.next >= blocks.copied().unwrap_or(0) {
            return None;
        }
        let name = self.of.block(&self.attempt, self.next);
        self.next += 1;
        let (attempt, task) = (self.attempt.clone(), task.clone());
        Some(
            self.runtime
                .spawn(async move { attempt.store.block(&name, &task.task, &task.shard).await }),
        )
    }
}

impl RunSource for StoredRun {
    fn next_block(&mut self) -> std::result::Result<Option<Block>, SourceError> {
        let Some(pending) = self.ahead.take().or_else(|| self.fetch()) else { return Ok(None) };
        let block = self
            .runtime
            .block_on(pending)
            .map_err(|e| Box::new(Error::Internal(format!("reading a block panicked: {e}"))))??;
        self.ahead = self.fetch();
        Ok(Some(block))
    }
}

/// The history's word for an attempt that met a damaged block.
pub(super) const BLOCK_DAMAGED: &str = "block damaged";

/// A merge's error as ours. What the database said comes back unchanged. A run that does not read as it was
/// written has lost a block to its map task, as if the block were missing.
fn from_merge(error: MergeError, attempt: &Attempt, runs: &[RunOf]) -> Error {
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
        error @ (MergeError::TempRun { .. }
        | MergeError::Temp { .. }
        | MergeError::TempFull { .. }) => {
            return Error::Internal(format!("failed to merge: {error}"));
        }
    };
    at_most_so_often(attempt, lost)
}

/// Gives up on a task that meets damaged blocks again and again.
fn at_most_so_often(attempt: &Attempt, lost: Error) -> Error {
    if !matches!(lost, Error::BlockMissing { damage: Some(_), .. }) {
        return lost;
    }
    let is_damage = |ended: &&bson::Document| {
        ended.get_str("outcome").is_ok_and(|outcome| outcome == BLOCK_DAMAGED)
    };
    let before = attempt.task.history.iter().filter(is_damage).count();
    if before < config::BLOCKS_DAMAGED_MAX {
        return lost;
    }
    Error::refused(
        format!("{lost}, as {before} times before"),
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
