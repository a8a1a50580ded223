//! A reduce task: merges its partition's runs, reduces and finalizes group by group, writes output.
//!
//! A map-only job that reads without a snapshot has such tasks too, which hand on what was emitted: its map
//! tasks may not write output themselves, since one that is tried again may emit other keys than before.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use super::attempt::Attempt;
use super::runs::{RunOf, from_merge, runs_of, sources, unless_in_vain};
use super::skips::Skips;
use super::writer::{self, Target, Writer};
use crate::config;
use crate::error::{Error, Result};
use crate::exec::function::{self, Guest};
use crate::exec::log_buffer::LogSink;
use crate::exec::prepare::{self, ExecEnv, Loaded};
use crate::exec::reducer::{How, OversizePolicy, Pairs, Reducer, TakeGroup};
use crate::exec::result_document::{builtin, document_of_emit, document_of_result};
use crate::job;
use crate::shuffle::block::BlockLimits;
use crate::shuffle::merge::{Merge, MergeLimits};
use crate::store::tasks::MapRuns;
use crate::task::{Counters, TaskResult};
use crate::value::RawValBuf;
use crate::wasm::Stage;

/// Runs the task's work; the caller commits.
pub(super) async fn run(attempt: &Arc<Attempt>) -> Result<TaskResult> {
    let functions = Functions::load(attempt, &attempt.exec_env()?).await?;
    let manifest = attempt.store.manifest(&attempt.task, attempt.job.map_tasks).await;
    let manifest = manifest.map_err(|error| unless_in_vain(attempt, error))?;
    let counters = merged(attempt, manifest, functions, 0).await?;
    Ok(TaskResult {
        token: attempt.lease.token.clone(),
        parts: Vec::new(),
        counters: counters.to_document(),
    })
}

/// Reduces what map tasks have left behind, and writes the results. The attempt has left out so many documents before.
pub(super) async fn merged(
    attempt: &Arc<Attempt>,
    manifest: Vec<MapRuns>,
    functions: Functions,
    skipped: i64,
) -> Result<Counters> {
    let (writer, written) = writer::start(attempt, Target::Output);
    let work = attempt.clone();
    let computed =
        tokio::task::spawn_blocking(move || compute(&work, manifest, functions, writer, skipped))
            .await
            .unwrap_or_else(|e| Err(Error::Internal(format!("the reduce task panicked: {e}"))));
    written.and(computed).await
}

/// A job's functions on the reduce side.
pub(super) struct Functions {
    reduce: Option<Loaded>,
    combine: Option<Loaded>,
    finalize: Option<Loaded>,
}

impl Functions {
    /// Loads those that the job has.
    ///
    /// # Errors
    /// Those of loading a function.
    pub(super) async fn load(attempt: &Attempt, around: &ExecEnv) -> Result<Self> {
        let spec = &attempt.job.spec;
        let (store, host) = (&attempt.store, &attempt.host);
        let load = async |function: Option<&job::FunctionRef>, stage| match function {
            Some(function) => prepare::load(store, host, function, stage, around).await.map(Some),
            None => Ok(None),
        };
        let reduce = match &spec.reduce {
            Some(job::Reducer::Function(function)) => Some(function),
            Some(job::Reducer::Builtin(_)) | None => None,
        };
        Ok(Self {
            reduce: load(reduce, Stage::Reduce).await?,
            combine: load(spec.combine.as_ref(), Stage::Combine).await?,
            finalize: load(spec.finalize.as_ref(), Stage::Finalize).await?,
        })
    }
}

/// Starts what the groups of a task go through.
fn reducer(attempt: &Attempt, functions: Functions) -> Result<Reducer> {
    let spec = &attempt.job.spec;
    let start = |loaded: Loaded| {
        let tap = LogSink::kept(loaded.stage, &attempt.lines);
        Guest::start(loaded, Pairs::new(tap).holding(Skips::are_allowed(attempt)))
    };
    let how = match (&spec.reduce, functions.reduce) {
        (_, Some(loaded)) => How::Function(Box::new(start(loaded)?)),
        (Some(job::Reducer::Builtin(name)), None) => How::Builtin(builtin(name)?),
        (Some(job::Reducer::Function(_)) | None, None) => {
            return Err(Error::Internal("a reduce task of a job without reduce".into()));
        }
    };
    let long = match functions.combine {
        _ if spec.no_combine => OversizePolicy::Never,
        Some(loaded) => OversizePolicy::Combine(Box::new(start(loaded)?)),
        None => OversizePolicy::Reduce,
    };
    let reducer = Reducer::new(how, long, functions.finalize.map(start).transpose()?);
    Ok(reducer.skipping_single_values(spec.skip_single_values))
}

fn compute(
    attempt: &Arc<Attempt>,
    manifest: Vec<MapRuns>,
    functions: Functions,
    writer: Writer,
    skipped: i64,
) -> Result<Counters> {
    let limits = MergeLimits {
        fan_in_max: config::FAN_IN_MAX,
        block: BlockLimits { raw_bytes_target: config::BLOCK_RAW_BYTES_TARGET },
        temp_dir: None,
        temp_space: attempt.spills.space.clone(),
    };
    let runs = runs_of(manifest);
    let failed = |error| from_merge(error, attempt, &runs);
    let merge = Merge::new(sources(attempt, &runs), &limits).map_err(failed)?;
    match &attempt.job.spec.reduce {
        Some(_) => reduce(attempt, merge, &runs, functions, writer, skipped),
        None => hand_on(attempt, merge, &runs, writer),
    }
}

fn reduce(
    attempt: &Arc<Attempt>,
    mut merge: Merge,
    runs: &[RunOf],
    functions: Functions,
    mut writer: Writer,
    skipped: i64,
) -> Result<Counters> {
    let before = u64::try_from(skipped).unwrap_or(0);
    let skips = Skips::are_allowed(attempt)
        .then(|| Arc::new(Mutex::new(Some(Skips::new(attempt, before)))));
    let mut reducer = reducer(attempt, functions)?.leaving_out(skips.clone().map(left_out));
    let failed = |error| from_merge(error, attempt, runs);
    let mut counters = Counters::default();
    let mut output = 0_i64;
    let mut out = |key: crate::value::RawVal<'_>, value: crate::value::RawVal<'_>| {
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
                LogSink::kept(Stage::Reduce, &attempt.lines).counter_refused(&name);
            }
        }
    }
    attempt.check()?;
    writer.finish()?;
    counters.output = output;
    if let Some(skips) = skips.and_then(|skips| lock(&skips).take()) {
        let left_out = skips.finish()?.saturating_sub(before);
        counters.skipped = i64::try_from(left_out).unwrap_or(i64::MAX);
    }
    Ok(counters)
}

type SharedSkips = Arc<Mutex<Option<Skips>>>;

fn lock(skips: &SharedSkips) -> std::sync::MutexGuard<'_, Option<Skips>> {
    skips.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the keys that functions fail on.
fn left_out(skips: SharedSkips) -> TakeGroup {
    Box::new(move |stage, group, error| match lock(&skips).as_mut() {
        Some(skips) => skips.take(stage, group, &error),
        None => Err(error),
    })
}

/// Writes what a map-only job emitted.
fn hand_on(
    attempt: &Arc<Attempt>,
    mut merge: Merge,
    runs: &[RunOf],
    mut writer: Writer,
) -> Result<Counters> {
    let failed = |error| from_merge(error, attempt, runs);
    let mut counters = Counters::default();
    let (mut key, mut value) = (RawValBuf::new(), RawValBuf::new());
    while merge.next_group().map_err(failed)? {
        crate::halt::point_blocking("reduce.read");
        attempt.check()?;
        attempt.progress.fetch_add(1, Ordering::Relaxed);
        key.set(merge.key());
        check_deadline(attempt, &key)?;
        let Some(emitted) = merge.next_value().map_err(failed)? else { continue };
        value.set(emitted);
        if merge.next_value().map_err(failed)?.is_some() {
            return Err(Error::refused(
                format!("two results have the same key, and so the same _id: {key}"),
                "a map-only job must emit each key once (did you forget --reduce?)",
            ));
        }
        counters.output += 1;
        writer.push(document_of_emit(key.as_raw(), value.as_raw())?)?;
    }
    attempt.check()?;
    writer.finish()?;
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
    Err(deadline.error(Stage::Reduce.name(), function, Some(function::name_key(key.as_raw()))))
}
