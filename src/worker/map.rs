//! A map task: reads its split, runs map and combine, writes blocks (or, map-only, output).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bson::{RawDocumentBuf, doc};
use tokio::sync::mpsc;

use super::attempt::Attempt;
use super::reduce;
use super::skips::Skips;
use super::staging::Staging;
use super::writer::{self, Target, Writer};
use crate::config;
use crate::error::{Error, Result};
use crate::exec::collect::Collect;
use crate::exec::combiner::{Combiner, Kept, TakeBlocks, boxed};
use crate::exec::function::{self, Batch, Guest};
use crate::exec::log_buffer::LogSink;
use crate::exec::prepare::{self, ExecEnv, Loaded};
use crate::exec::result_document::{Rules, builtin, document_of_emit};
use crate::exec::{manifest, rereduce};
use crate::job::{OutputMode, Reducer};
use crate::shuffle::block::Block;
use crate::shuffle::table::Combine;
use crate::store::Store;
use crate::store::blocks::BlockName;
use crate::store::input::{InputBatch, InputSize, Reading};
use crate::store::manifests::runs_document;
use crate::store::querying::QueryTime;
use crate::store::tasks::{Blocks, MapRuns};
use crate::task::{Counters, PartManifest, TaskResult};
use crate::value::RawVal;
use crate::wasm::{Judge, Level, Sink, SinkError, Stage, Sums};

/// Runs the task's work; the caller commits.
pub(super) async fn run(attempt: &Arc<Attempt>) -> Result<TaskResult> {
    let job = &attempt.job;
    let around = attempt.exec_env()?;
    let store = &attempt.store;
    let host = &attempt.host;
    let map = prepare::load(store, host, &job.spec.map, Stage::Map, &around).await?;
    let combine = combine_function(attempt, &around).await?;
    let split = attempt.task.split.clone().unwrap_or_default();
    let size =
        InputSize { documents: unsigned(job.input_documents), bytes: unsigned(job.input_bytes) };
    let reading = Reading {
        // What a task has written itself stays, and would be of two instants.
        plan: (job.reduce_tasks > 0).then(|| (job.id.clone(), attempt.task.plan)),
        input: job.spec.input.clone(),
        split,
        snapshot: job.snapshot,
        size,
        comment: doc! { "aviary": {
            "job": &job.id, "task": &attempt.task.id, "token": &attempt.lease.token,
        } },
        time: QueryTime::of(&job.spec.input, &attempt.caps, attempt.deadline.map(|d| d.left())),
    };
    let input = store.read_split(&attempt.task.shard, reading, attempt.clone().ended());
    let target = if job.is_shuffled() { Target::Blocks } else { Target::Output };
    let (writer, written) = writer::start(attempt, target);
    let work = attempt.clone();
    let computed = tokio::task::spawn_blocking(move || compute(&work, map, combine, input, writer))
        .await
        .unwrap_or_else(|e| Err(Error::Internal(format!("the map task panicked: {e}"))));
    let (mut parts, mut counters) = written.and(computed).await?;
    if job.one_task {
        let parts = std::mem::take(&mut parts);
        let reduced = reduced(attempt, &around, parts, counters.skipped).await?;
        counters.add(reduced, |name| {
            LogSink::kept(Stage::Reduce, &attempt.lines).counter_refused(name);
        });
    }
    Ok(TaskResult { token: attempt.lease.token.clone(), parts, counters: counters.to_document() })
}

/// Reduces what this task itself has mapped, the only one of its job.
async fn reduced(
    attempt: &Arc<Attempt>,
    around: &ExecEnv,
    parts: Vec<PartManifest>,
    skipped: i64,
) -> Result<Counters> {
    let functions = reduce::Functions::load(attempt, around).await?;
    let task = &attempt.task;
    // What is kept with the manifest is in memory already.
    let mut room = usize::MAX;
    let runs = |part| -> Result<MapRuns> {
        let mut of = MapRuns {
            task: task.id.clone(),
            shard: task.shard.clone(),
            n: task.n,
            token: attempt.lease.token.clone(),
            runs: Vec::new(),
            blocks: Blocks::Apart,
        };
        of.take(part, &mut room)?;
        Ok(of)
    };
    let manifest = parts.into_iter().map(runs).collect::<Result<_>>()?;
    reduce::merged(attempt, manifest, functions, skipped).await
}

/// The function that shrinks values on the map side: the job's combine, else its reduce, which is
/// associative by contract unless it streams.
async fn combine_function(attempt: &Attempt, around: &ExecEnv) -> Result<Option<Loaded>> {
    let (store, host, spec) = (&attempt.store, &attempt.host, &attempt.job.spec);
    if spec.no_combine {
        return Ok(None);
    }
    match (&spec.combine, &spec.reduce) {
        (Some(function), _) => {
            prepare::load(store, host, function, Stage::Combine, around).await.map(Some)
        }
        (None, Some(Reducer::Function(function))) => {
            prepare::load(store, host, function, Stage::Reduce, around).await.map(Some)
        }
        (None, Some(Reducer::Builtin(_)) | None) => Ok(None),
    }
}

/// Where emits go: into the shuffle, or straight to the output.
enum Emits {
    Shuffle(Box<Combiner>),
    Output(Writer),
    /// To the sink of the next instance.
    Moved,
}

pub(super) struct MapSink {
    emits: Emits,
    counters: Counters,
    pub(super) tap: LogSink,
    pub(super) rules: Rules,
}

impl Sink for MapSink {
    #[inline]
    fn emit(&mut self, key: &[u8], value: &[u8]) -> std::result::Result<(), SinkError> {
        self.take(key, value).map_err(boxed)
    }
    fn wants_sums(&self) -> Option<Sums> {
        match &self.emits {
            // Keys that are text are refused where there is a collation, when the first of them is emitted.
            Emits::Shuffle(combiner) if self.rules.collation.is_none() => combiner.sums(),
            _ => None,
        }
    }
    fn judge(&self) -> Judge {
        let rules = self.rules.clone();
        Box::new(move |key, value| rules.judge(key, value).map_err(boxed))
    }
    fn emit_sum(&mut self, key: &[u8], sum: f64, emits: u32) -> std::result::Result<(), SinkError> {
        self.take_sum(key, sum, emits).map_err(boxed)
    }
    fn emit_total(
        &mut self,
        key: &[u8],
        value: &[u8],
        emits: u32,
    ) -> std::result::Result<(), SinkError> {
        self.take_total(key, value, emits).map_err(boxed)
    }
    fn count(&mut self, name: &str, delta: i64) {
        if !self.counters.count(name, delta) {
            self.tap.counter_refused(name);
        }
    }
    fn log(&mut self, level: Level, text: &str) {
        self.tap.line(level, text);
    }
}

impl MapSink {
    #[inline]
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let (key, value) = (function::raw(key)?, function::raw(value)?);
        self.counters.emit += 1;
        self.rules.check(key, value)?;
        match &mut self.emits {
            Emits::Shuffle(combiner) => combiner.add(key, value),
            Emits::Output(writer) => {
                self.counters.output += 1;
                writer.push(document_of_emit(key, value)?)
            }
            Emits::Moved => Err(moved()),
        }
    }

    /// Whether each emit becomes a document at once.
    pub(super) fn writes_output(&self) -> bool {
        matches!(self.emits, Emits::Output(_))
    }

    /// Takes the document that an emit has become.
    pub(super) fn take_document(&mut self, document: RawDocumentBuf) -> Result<()> {
        let Emits::Output(writer) = &mut self.emits else { return Err(moved()) };
        self.counters.emit += 1;
        self.counters.output += 1;
        writer.push(document)
    }

    /// The sink for the next instance, with everything that this one has taken.
    pub(super) fn moved(&mut self) -> Self {
        Self {
            emits: std::mem::replace(&mut self.emits, Emits::Moved),
            counters: std::mem::take(&mut self.counters),
            tap: self.tap.clone(),
            rules: self.rules.clone(),
        }
    }

    pub(super) fn take_total(&mut self, key: &[u8], value: &[u8], emits: u32) -> Result<()> {
        let (key, value) = (function::raw(key)?, function::raw(value)?);
        self.counters.emit += i64::from(emits);
        self.rules.check(key, value)?;
        match &mut self.emits {
            Emits::Shuffle(combiner) => combiner.add_total(key, value, emits),
            Emits::Output(_) | Emits::Moved => {
                Err(Error::Internal("sums were given to a map-only job".into()))
            }
        }
    }

    pub(super) fn take_sum(&mut self, key: &[u8], sum: f64, emits: u32) -> Result<()> {
        let key = function::raw(key)?;
        self.counters.emit += i64::from(emits);
        self.rules.check(key, RawVal::NULL)?;
        match &mut self.emits {
            Emits::Shuffle(combiner) => combiner.add_sum(key, sum, emits),
            Emits::Output(_) | Emits::Moved => {
                Err(Error::Internal("sums were given to a map-only job".into()))
            }
        }
    }
}

fn moved() -> Error {
    Error::Internal("a sink that another has taken the place of was given something".into())
}

/// The map at work: as it is, or so that it may fail on some documents.
enum Mapping {
    Plain(Box<Guest<MapSink>>),
    Skipping(Box<Guest<Staging>>, Skips),
}

impl Mapping {
    fn start(attempt: &Arc<Attempt>, map: Loaded, sink: MapSink) -> Result<Self> {
        Ok(match Skips::are_allowed(attempt) {
            false => Self::Plain(Box::new(Guest::start(map, sink)?)),
            true => Self::Skipping(
                Box::new(Guest::start(map, Staging::new(sink))?),
                Skips::new(attempt, 0),
            ),
        })
    }

    fn bytes_target(&self) -> usize {
        match self {
            Self::Plain(map) => map.bytes_target(),
            Self::Skipping(map, _) => map.bytes_target(),
        }
    }

    fn call(&mut self, batch: &Batch) -> Result<()> {
        match self {
            Self::Plain(map) => map.call(batch),
            Self::Skipping(map, skips) => map
                .call_skipping(batch, &mut |record, error| skips.take(Stage::Map, record, &error)),
        }
    }

    fn sink_mut(&mut self) -> &mut MapSink {
        match self {
            Self::Plain(map) => map.sink_mut(),
            Self::Skipping(map, _) => map.sink_mut().sink_mut(),
        }
    }

    /// Its sink, and how many documents it has left out.
    fn finish(self) -> Result<(MapSink, u64)> {
        match self {
            Self::Plain(map) => Ok((map.into_sink(), 0)),
            Self::Skipping(map, skips) => Ok((map.into_sink().into_sink(), skips.finish()?)),
        }
    }
}

fn compute(
    attempt: &Arc<Attempt>,
    map: Loaded,
    combine: Option<Loaded>,
    mut input: mpsc::Receiver<Result<InputBatch>>,
    writer: Writer,
) -> Result<(Vec<PartManifest>, Counters)> {
    let emits = match &attempt.job.spec.reduce {
        None if !attempt.job.is_shuffled() => Emits::Output(writer),
        reduce => {
            let combine = match combine {
                Some(loaded) => {
                    let tap = LogSink::kept(loaded.stage, &attempt.lines);
                    let sink = Collect::new(tap).holding(Skips::are_allowed(attempt));
                    Some(Guest::start(loaded, sink)?)
                }
                None => None,
            };
            // Only the function itself knows: a script says so once it is loaded.
            if attempt.job.spec.output.mode == OutputMode::Reduce
                && combine.as_ref().is_some_and(Guest::streams)
            {
                return Err(rereduce::refuse_streaming());
            }
            let combine = combine.filter(|function| !function.streams());
            let how = match reduce {
                Some(Reducer::Builtin(name)) => Combine::Builtin(builtin(name)?),
                Some(Reducer::Function(_)) | None => {
                    combine.as_ref().and_then(Guest::fold).map_or(Combine::Values, Combine::Folded)
                }
            };
            Emits::Shuffle(Box::new(Combiner::new(
                how,
                combine,
                attempt.job.spec.partitions,
                config::TABLE_BYTES_MAX,
                // What this very task reads need not fit a document.
                if attempt.job.one_task { usize::MAX } else { attempt.manifest_bytes_max },
                block_sink(attempt, writer),
            )))
        }
    };
    let sink = MapSink {
        emits,
        counters: Counters::default(),
        tap: LogSink::kept(Stage::Map, &attempt.lines),
        rules: Rules::of(&attempt.job)?,
    };
    let mut map = Mapping::start(attempt, map, sink)?;
    let mut calls = Calls::default();
    while let Some(batch) = input.blocking_recv() {
        attempt.check()?;
        crate::halt::point_blocking("map.read");
        batch?.for_each(|doc| calls.push(doc, &mut map, attempt))?;
    }
    calls.flush(&mut map, attempt)?;
    attempt.check()?;
    let (MapSink { emits, mut counters, .. }, skipped) = map.finish()?;
    counters.skipped = i64::try_from(skipped).unwrap_or(i64::MAX);
    counters.input = attempt.progress.load(Ordering::Relaxed);
    let parts = match emits {
        Emits::Output(writer) => {
            writer.finish()?;
            Vec::new()
        }
        Emits::Moved => return Err(moved()),
        Emits::Shuffle(combiner) => {
            let (parts, of_combine) = combiner.finish()?;
            for (name, value) in of_combine.user {
                if !counters.count(&name, value) {
                    LogSink::kept(Stage::Combine, &attempt.lines).counter_refused(&name);
                }
            }
            parts
        }
    };
    Ok((parts, counters))
}

/// A combiner's blocks as documents on their way to the database.
fn block_sink(attempt: &Arc<Attempt>, writer: Writer) -> Box<dyn TakeBlocks> {
    let room = match attempt.job.one_task {
        true => config::ONE_TASK_KEPT_BYTES_MAX,
        false => attempt.kept_bytes_max,
    };
    Box::new(ToDatabase { attempt: attempt.clone(), writer, kept: Some(Vec::new()), room })
}

/// Blocks on their way to the database: with the manifest as long as there is room for them, all by themselves
/// otherwise.
struct ToDatabase {
    attempt: Arc<Attempt>,
    writer: Writer,
    kept: Option<Vec<Kept>>,
    room: usize,
}

impl ToDatabase {
    fn name(&self, partition: u32, run: u32, seq: u32) -> BlockName {
        let attempt = &self.attempt;
        BlockName {
            shard: attempt.job.reducing_shard(partition).to_owned(),
            job: attempt.job.id.clone(),
            partition,
            n: attempt.task.n,
            token: attempt.lease.token.clone(),
            run,
            seq,
        }
    }
}

impl ToDatabase {
    fn write(&mut self, partition: u32, run: u32, block: &Block) -> Result<()> {
        let name = self.name(partition, run, block.seq);
        self.writer.push(Store::block_document(&name, block))
    }

    /// Writes what was to go with the manifest, and what comes after it.
    fn keep_nothing(&mut self) -> Result<()> {
        for Kept { partition, run, block } in self.kept.take().unwrap_or_default() {
            self.write(partition, run, &block)?;
        }
        Ok(())
    }
}

impl TakeBlocks for ToDatabase {
    fn take(&mut self, partition: u32, run: u32, block: &Block) -> Result<()> {
        self.attempt.check()?;
        let bytes = block.data.len() + manifest::KEPT_BYTES_MORE;
        match (&mut self.kept, self.room.checked_sub(bytes)) {
            (Some(kept), Some(room)) => {
                kept.push(Kept { partition, run, block: block.clone() });
                self.room = room;
                Ok(())
            }
            _ => {
                self.keep_nothing()?;
                self.write(partition, run, block)
            }
        }
    }

    fn take_runs(&mut self, partition: u32, runs: &[u32]) -> Result<()> {
        self.attempt.check()?;
        self.keep_nothing()?;
        let document = runs_document(&self.name(partition, 0, 0), runs);
        self.writer.push(document.ok_or_else(|| manifest::too_many(partition))?)
    }

    fn finish(self: Box<Self>) -> Result<Vec<Kept>> {
        self.writer.finish()?;
        Ok(self.kept.unwrap_or_default())
    }
}

/// Calls of the function.
#[derive(Default)]
struct Calls {
    batch: Batch,
}

impl Calls {
    fn push(&mut self, doc: &[u8], map: &mut Mapping, attempt: &Attempt) -> Result<()> {
        self.batch.push(doc);
        if self.batch.bytes().len() >= map.bytes_target() {
            self.flush(map, attempt)?;
        }
        Ok(())
    }

    fn flush(&mut self, map: &mut Mapping, attempt: &Attempt) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        attempt.check()?;
        map.call(&self.batch)?;
        crate::halt::point_blocking("map.call");
        let done = i64::try_from(self.batch.len()).unwrap_or(i64::MAX);
        attempt.progress.fetch_add(done, Ordering::Relaxed);
        self.batch.clear();
        match &mut map.sink_mut().emits {
            Emits::Shuffle(combiner) => combiner.settle(),
            Emits::Output(_) | Emits::Moved => Ok(()),
        }
    }
}

fn unsigned(n: Option<i64>) -> u64 {
    n.and_then(|n| u64::try_from(n).ok()).unwrap_or(0)
}
