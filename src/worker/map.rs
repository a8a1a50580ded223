//! A map task: reads its split, runs map and combine, writes blocks (or, map-only, output).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bson::{RawDocumentBuf, doc};
use tokio::sync::mpsc;

use super::attempt::Attempt;
use super::collation::Collated;
use super::combiner::{Collect, Combiner, Kept, TakeBlocks, boxed};
use super::guest::{self, Batch, Guest};
use super::lines::Tap;
use super::loader::{self, Loaded, Surroundings};
use super::writer::{self, Target, Writer};
use super::{manifest, once_more, reduce};
use crate::config;
use crate::error::{Error, Result};
use crate::job::{Job, OutputMode, Reducer};
use crate::shuffle::block::Block;
use crate::shuffle::builtin::{Accumulator, Builtin, BuiltinError};
use crate::shuffle::table::Combine;
use crate::store::Store;
use crate::store::blocks::BlockName;
use crate::store::input::{InputBatch, InputSize, Reading};
use crate::store::manifests::runs_document;
use crate::store::querying::QueryTime;
use crate::store::tasks::{Blocks, MapRuns};
use crate::task::{Counters, PartManifest, TaskResult};
use crate::value::{Elements, RawVal, close_document, tag};
use crate::wasm::{Judge, Level, Sink, SinkError, Stage, Sums};

/// Runs the task's work; the caller commits.
pub(super) async fn run(attempt: &Arc<Attempt>) -> Result<TaskResult> {
    let job = &attempt.job;
    let around = Surroundings::of_attempt(attempt)?;
    let store = &attempt.store;
    let host = &attempt.host;
    let map = loader::load(store, host, &job.spec.map, Stage::Map, &around).await?;
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
        let reduced = reduced(attempt, &around, std::mem::take(&mut parts)).await?;
        counters.add(reduced, |name| {
            Tap::kept(Stage::Reduce, &attempt.lines).counter_refused(name);
        });
    }
    Ok(TaskResult { token: attempt.lease.token.clone(), parts, counters: counters.to_document() })
}

/// Reduces what this task itself has mapped, the only one of its job.
async fn reduced(
    attempt: &Arc<Attempt>,
    around: &Surroundings,
    parts: Vec<PartManifest>,
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
    reduce::merged(attempt, manifest, functions).await
}

/// The function that shrinks values on the map side: the job's combine, else its reduce, which is
/// associative by contract unless it streams.
async fn combine_function(attempt: &Attempt, around: &Surroundings) -> Result<Option<Loaded>> {
    let (store, host, spec) = (&attempt.store, &attempt.host, &attempt.job.spec);
    if spec.no_combine {
        return Ok(None);
    }
    match (&spec.combine, &spec.reduce) {
        (Some(function), _) => {
            loader::load(store, host, function, Stage::Combine, around).await.map(Some)
        }
        (None, Some(Reducer::Function(function))) => {
            loader::load(store, host, function, Stage::Reduce, around).await.map(Some)
        }
        (None, Some(Reducer::Builtin(_)) | None) => Ok(None),
    }
}

/// Where emits go: into the shuffle, or straight to the output.
enum Emits {
    Shuffle(Box<Combiner>),
    Output(Writer),
}

struct MapSink {
    emits: Emits,
    counters: Counters,
    tap: Tap,
    rules: Rules,
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
    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let (key, value) = (guest::raw(key)?, guest::raw(value)?);
        self.counters.emit += 1;
        self.rules.check(key, value)?;
        match &mut self.emits {
            Emits::Shuffle(combiner) => combiner.add(key, value),
            Emits::Output(writer) => {
                self.counters.output += 1;
                writer.push(document_of_emit(key, value)?)
            }
        }
    }
}

impl MapSink {
    fn take_total(&mut self, key: &[u8], value: &[u8], emits: u32) -> Result<()> {
        let (key, value) = (guest::raw(key)?, guest::raw(value)?);
        self.counters.emit += i64::from(emits);
        self.rules.check(key, value)?;
        match &mut self.emits {
            Emits::Shuffle(combiner) => combiner.add_total(key, value, emits),
            Emits::Output(_) => Err(Error::Internal("sums were given to a map-only job".into())),
        }
    }

    fn take_sum(&mut self, key: &[u8], sum: f64, emits: u32) -> Result<()> {
        let key = guest::raw(key)?;
        self.counters.emit += i64::from(emits);
        self.rules.check(key, RawVal::NULL)?;
        match &mut self.emits {
            Emits::Shuffle(combiner) => combiner.add_sum(key, sum, emits),
            Emits::Output(_) => Err(Error::Internal("sums were given to a map-only job".into())),
        }
    }
}

/// What a job takes of its map.
#[derive(Clone)]
pub(super) struct Rules {
    pub(super) mode: OutputMode,
    /// By which the job would have to group text.
    pub(super) collation: Option<Collated>,
    pub(super) builtin: Option<Builtin>,
    /// Whether each emit becomes a document.
    pub(super) map_only: bool,
}

impl Rules {
    pub(super) fn of(job: &Job) -> Result<Self> {
        let builtin = match &job.spec.reduce {
            Some(Reducer::Builtin(name)) => Some(builtin(name)?),
            _ => None,
        };
        Ok(Self {
            mode: job.spec.output.mode,
            collation: Collated::of(job),
            builtin,
            map_only: job.spec.reduce.is_none(),
        })
    }

    /// Refuses what could become no result, when it is emitted.
    #[inline]
    pub(super) fn check(&self, key: RawVal<'_>, value: RawVal<'_>) -> Result<()> {
        check_id(key)?;
        if self.mode.adds() && key.is_nullish() {
            return Err(Error::refused(
                format!(
                    "a result has the key null, which servers merge into no collection (--out {})",
                    self.mode
                ),
                "nothing was published: emit another key, or use --out replace:NAME or inline",
            ));
        }
        if let Some(collation) = &self.collation {
            collation.refuse_text(key)?;
        }
        if self.mode == OutputMode::Update && value.tag == tag::DOCUMENT {
            check_update(value.bytes)?;
        }
        if self.mode == OutputMode::Merge && self.map_only && value.tag == tag::DOCUMENT {
            check_merge(value.bytes)?;
        }
        Ok(())
    }

    /// All that can be said of an emit by itself.
    pub(super) fn judge(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let (key, value) = (guest::raw(key)?, guest::raw(value)?);
        self.check(key, value)?;
        if let Some(builtin) = self.builtin {
            let refused = |e: BuiltinError| Error::refused(e.to_string(), "");
            Accumulator::new(builtin).add(value).map_err(refused)?;
        }
        if self.map_only {
            document_of_emit(key, value)?;
        }
        Ok(())
    }
}

/// Refuses names that a document which takes the place of another may not have.
fn check_merge(document: &[u8]) -> Result<()> {
    match name_that(document, |name| name.first() == Some(&b'$'))? {
        None => Ok(()),
        Some(name) => Err(Error::refused(
            format!(
                "--out merge: may replace a document, which servers refuse for one with a field named {name:?}"
            ),
            "rename the field, put it within another one, or use --out replace:",
        )),
    }
}

/// Refuses names whose meaning would have to be guessed: `{"a.b": 1}` may be meant as a path or as a name.
fn check_update(document: &[u8]) -> Result<()> {
    match name_that(document, |name| name.contains(&b'.') || name.first() == Some(&b'$'))? {
        None => Ok(()),
        Some(name) => Err(Error::refused(
            format!(
                "--out update: sets whole fields, and the emitted document has one named {name:?}"
            ),
            "it is not said whether that is a path: emit the field at the top with all that it is to hold \
             (names within it may have dots)",
        )),
    }
}

/// The first of an emitted document's own names that is as asked for.
fn name_that(document: &[u8], is_wanted: impl Fn(&[u8]) -> bool) -> Result<Option<String>> {
    let mut fields = Elements::new(document);
    while let Some((name, _)) = fields.next().map_err(malformed)? {
        if is_wanted(name) {
            return Ok(Some(String::from_utf8_lossy(name).into_owned()));
        }
    }
    Ok(None)
}

fn malformed(error: impl std::fmt::Display) -> Error {
    Error::Internal(format!("an emitted document is malformed: {error}"))
}

/// Refuses keys that cannot be the `_id` of a result, before anything is shuffled.
pub(super) fn check_id(key: RawVal<'_>) -> Result<()> {
    match key.tag {
        tag::ARRAY | tag::REGEX | tag::UNDEFINED => Err(Error::refused(
            format!("the key {key} is of type {}, which cannot be an _id", key.type_name()),
            "emit it inside a document ({k: …}) or as text",
        )),
        tag::DOCUMENT if begins_with_dollar(key.bytes) => Err(Error::refused(
            format!("the key {key} has a field that begins with $, which cannot be an _id"),
            "rename the field",
        )),
        _ => Ok(()),
    }
}

/// Whether a field's name begins with `$`, at any depth. Those of a reference may: servers take one as an `_id`.
fn begins_with_dollar(document: &[u8]) -> bool {
    fn any(container: &[u8], is_document: bool) -> bool {
        let (mut fields, mut n, mut reference) = (Elements::new(container), 0, false);
        // What is malformed is refused where it is read.
        while let Ok(Some((name, value))) = fields.next() {
            reference |= is_document && n == 0 && name == b"$ref";
            n += 1;
            let allowed = reference && matches!(name, b"$ref" | b"$id" | b"$db");
            let begins = is_document && name.first() == Some(&b'$') && !allowed;
            let nested = match value.tag {
                tag::DOCUMENT => any(value.bytes, true),
                tag::ARRAY => any(value.bytes, false),
                _ => false,
            };
            if begins || nested {
                return true;
            }
        }
        false
    }
    any(document, true)
}

/// A map-only job's result: the emitted document under the emitted key, or `{_id, value}`.
pub(super) fn document_of_emit(key: RawVal<'_>, value: RawVal<'_>) -> Result<RawDocumentBuf> {
    let mut body = vec![0; 4];
    key.append_element("_id", &mut body);
    if value.tag == tag::DOCUMENT {
        let mut fields = Elements::new(value.bytes);
        while let Some((name, value)) = fields.next().map_err(malformed)? {
            if name == b"_id" {
                continue;
            }
            body.push(value.tag);
            body.extend_from_slice(name);
            body.push(0);
            body.extend_from_slice(value.bytes);
        }
    } else {
        value.append_element("value", &mut body);
    }
    finish_document(body, key)
}

/// A reduced result as MongoDB's own mapReduce writes it: `{_id, value}`.
pub(super) fn document_of_result(key: RawVal<'_>, value: RawVal<'_>) -> Result<RawDocumentBuf> {
    let mut body = vec![0; 4];
    key.append_element("_id", &mut body);
    value.append_element("value", &mut body);
    finish_document(body, key)
}

fn finish_document(mut body: Vec<u8>, key: RawVal<'_>) -> Result<RawDocumentBuf> {
    close_document(&mut body, 0);
    if body.len() > config::DOCUMENT_BYTES_MAX {
        return Err(Error::refused(
            format!("the result of key {key} has {} bytes", body.len()),
            "MongoDB stores documents of at most 16 MiB",
        ));
    }
    RawDocumentBuf::from_bytes(body)
        .map_err(|e| Error::Internal(format!("a result is malformed: {e}")))
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
                    let tap = Tap::kept(loaded.stage, &attempt.lines);
                    Some(Guest::start(loaded, Collect::new(tap))?)
                }
                None => None,
            };
            // Only the function itself knows: a script says so once it is loaded.
            if attempt.job.spec.output.mode == OutputMode::Reduce
                && combine.as_ref().is_some_and(Guest::streams)
            {
                return Err(once_more::refuse_streaming());
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
        tap: Tap::kept(Stage::Map, &attempt.lines),
        rules: Rules::of(&attempt.job)?,
    };
    let mut map = Guest::start(map, sink)?;
    let mut calls = Calls::default();
    while let Some(batch) = input.blocking_recv() {
        attempt.check()?;
        crate::halt::point_blocking("map.read");
        batch?.for_each(|doc| calls.push(doc, &mut map, attempt))?;
    }
    calls.flush(&mut map, attempt)?;
    attempt.check()?;
    let MapSink { emits, mut counters, .. } = map.into_sink();
    counters.input = attempt.progress.load(Ordering::Relaxed);
    let parts = match emits {
        Emits::Output(writer) => {
            writer.finish()?;
            Vec::new()
        }
        Emits::Shuffle(combiner) => {
            let (parts, of_combine) = combiner.finish()?;
            for (name, value) in of_combine.user {
                if !counters.count(&name, value) {
                    Tap::kept(Stage::Combine, &attempt.lines).counter_refused(&name);
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
    fn push(&mut self, doc: &[u8], map: &mut Guest<MapSink>, attempt: &Attempt) -> Result<()> {
        self.batch.push(doc);
        if self.batch.bytes().len() >= map.bytes_target() {
            self.flush(map, attempt)?;
        }
        Ok(())
    }

    fn flush(&mut self, map: &mut Guest<MapSink>, attempt: &Attempt) -> Result<()> {
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
            Emits::Output(_) => Ok(()),
        }
    }
}

pub(super) fn builtin(name: &str) -> Result<Builtin> {
    name.parse().map_err(|_| {
        Error::refused(
            format!("{name} is no built-in reduce"),
            "use _sum, _count, _min, _max, _avg or _stats",
        )
    })
}

fn unsigned(n: Option<i64>) -> u64 {
    n.and_then(|n| u64::try_from(n).ok()).unwrap_or(0)
}
