//! A reduce task: merges its partition's runs, reduces and finalizes group by group, writes output.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::attempt::Attempt;
use super::guest::Guest;
use super::loader::{self, Loaded, Surroundings};
use super::map::{builtin, document_of_result};
use super::reducer::{How, Pairs, Reducer};
use super::writer::{self, Target, Writer};
use crate::config;
use crate::error::{Error, Result};
use crate::job;
use crate::shuffle::block::{Block, BlockLimits};
use crate::shuffle::merge::{Merge, MergeError, MergeLimits};
use crate::shuffle::reader::{RunError, RunSource, SourceError};
use crate::shuffle::value::RawValBuf;
use crate::store::Store;
use crate::store::blocks::BlockName;
use crate::store::tasks::MapRuns;
use crate::task::{Counters, TaskResult};
use crate::wasm::Stage;

/// Runs the task's work; the caller commits.
pub(super) async fn run(attempt: &Arc<Attempt>) -> Result<TaskResult> {
    let spec = &attempt.job.spec;
    let (store, host) = (&attempt.store, &attempt.host);
    let around = Surroundings::of(&attempt.job, &attempt.task.id)?;
    let function = match &spec.reduce {
        Some(job::Reducer::Function(function)) => {
            Some(loader::load(store, host, function, Stage::Reduce, &around).await?)
        }
        Some(job::Reducer::Builtin(_)) | None => None,
    };
    let finalize = match &spec.finalize {
        Some(function) => {
            Some(loader::load(store, host, function, Stage::Finalize, &around).await?)
        }
        None => None,
    };
    let manifest = store.manifest(&attempt.task, attempt.job.map_tasks).await?;
    let (writer, written) = writer::start(attempt, Target::Output);
    let work = attempt.clone();
    let computed =
        tokio::task::spawn_blocking(move || compute(&work, manifest, function, finalize, writer))
            .await
            .unwrap_or_else(|e| Err(Error::Internal(format!("the reduce task panicked: {e}"))));
    let counters = written.and(computed).await?;
    Ok(TaskResult {
        token: attempt.lease.token.clone(),
        parts: Vec::new(),
        counters: counters.to_document(),
    })
}

fn compute(
    attempt: &Arc<Attempt>,
    manifest: Vec<MapRuns>,
    function: Option<Loaded>,
    finalize: Option<Loaded>,
    mut writer: Writer,
) -> Result<Counters> {
    let task = attempt.task.id.as_str();
    let how = match (&attempt.job.spec.reduce, function) {
        (_, Some(loaded)) => How::Function(Box::new(Guest::start(loaded, Pairs::new(task))?)),
        (Some(job::Reducer::Builtin(name)), None) => How::Builtin(builtin(name)?),
        (Some(job::Reducer::Function(_)) | None, None) => {
            return Err(Error::Internal("a reduce task of a job without reduce".into()));
        }
    };
    let finalize = finalize.map(|loaded| Guest::start(loaded, Pairs::new(task))).transpose()?;
    let mut reducer =
        Reducer::new(how, finalize).skipping_single_values(attempt.job.spec.skip_single_values);
    let limits = MergeLimits {
        fan_in_max: config::FAN_IN_MAX,
        block: BlockLimits { raw_bytes_target: config::BLOCK_RAW_BYTES_TARGET },
        ..MergeLimits::default()
    };
    let mut merge = Merge::new(sources(attempt, manifest), &limits).map_err(from_merge)?;
    let mut counters = Counters::default();
    let mut output = 0_i64;
    let mut out = |key: crate::shuffle::RawVal<'_>, value: crate::shuffle::RawVal<'_>| {
        output += 1;
        writer.push(document_of_result(key, value)?)
    };
    let (mut key, mut encoded) = (RawValBuf::new(), Vec::new());
    while merge.next_group().map_err(from_merge)? {
        crate::halt::point_blocking("reduce.read");
        attempt.check()?;
        counters.reduce += 1;
        attempt.progress.fetch_add(1, Ordering::Relaxed);
        key.set(merge.key());
        encoded.clear();
        encoded.extend_from_slice(merge.encoded());
        let next = |value: &mut RawValBuf| match merge.next_value().map_err(from_merge)? {
            Some(next) => {
                value.set(next);
                Ok(true)
            }
            None => Ok(false),
        };
        reducer.group(&key, &encoded, true, next, &mut out)?;
    }
    reducer.finish(&mut out)?;
    for of_function in reducer.counters() {
        for (name, value) in of_function.user {
            counters.count(&name, value);
        }
    }
    attempt.check()?;
    writer.finish()?;
    counters.output = output;
    Ok(counters)
}

fn sources(attempt: &Arc<Attempt>, manifest: Vec<MapRuns>) -> Vec<Box<dyn RunSource + Send>> {
    let mut sources: Vec<Box<dyn RunSource + Send>> = Vec::new();
    for of_task in manifest {
        for (run, blocks) in (0_u32..).zip(&of_task.runs) {
            let first = BlockName {
                shard: attempt.task.shard.clone(),
                job: attempt.job.id.clone(),
                partition: attempt.task.n,
                n: of_task.n,
                token: of_task.token.clone(),
                run,
                seq: 0,
            };
            sources.push(Box::new(StoredRun {
                store: attempt.store.clone(),
                task: of_task.task.clone(),
                shard: of_task.shard.clone(),
                runtime: Handle::current(),
                next: first,
                blocks: *blocks,
                ahead: None,
            }));
        }
    }
    sources
}

/// One run in the database, read a block ahead.
struct StoredRun {
    store: Store,
    task: crate::ids::TaskId,
    shard: String,
    runtime: Handle,
    next: BlockName,
    blocks: u32,
    ahead: Option<JoinHandle<Result<Block>>>,
}

impl StoredRun {
    fn fetch(&mut self) -> Option<JoinHandle<Result<Block>>> {
        if self.next.seq >= self.blocks {
            return None;
        }
        let (store, name) = (self.store.clone(), self.next.clone());
        let (task, shard) = (self.task.clone(), self.shard.clone());
        self.next.seq += 1;
        Some(self.runtime.spawn(async move { store.block(&name, &task, &shard).await }))
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

/// A merge's error as ours: what the database said comes back unchanged, so that a missing block
/// can be told from a damaged one.
fn from_merge(error: MergeError) -> Error {
    let text = error.to_string();
    match source_of(error) {
        Some(source) => match source.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(other) => Error::Internal(other.to_string()),
        },
        None => Error::Internal(format!("failed to merge: {text}")),
    }
}

fn source_of(error: MergeError) -> Option<SourceError> {
    match error {
        MergeError::Run { source: RunError::Source { source, .. }, .. } => Some(source),
        MergeError::Run { .. } | MergeError::Temp { .. } | MergeError::TempFull { .. } => None,
    }
}
