//! One function at work: batches go in, emits go to a sink, and a failure comes out with the record
//! that caused it.

use std::error::Error as _;
use std::time::Instant;

use super::batch_sizer::Pace;
use super::prepare::Loaded;
use super::rereduce::field_of;
use crate::error::{Error, FunctionError, Result};
use crate::shuffle::fold::Fold;
use crate::value::RawVal;
use crate::wasm::{GuestError, Instance, Judged, Known, Level, Nowhere, Sink, SinkError, Stage};

/// Documents laid end to end, as functions take them.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Batch {
    /// Appends one BSON document.
    pub fn push(&mut self, doc: &[u8]) {
        self.bytes.extend_from_slice(doc);
        self.ends.push(self.bytes.len());
    }

    /// Appends one document that `write` appends to the buffer.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    /// All of them.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Forgets them, keeps the room.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Each document by itself.
    pub fn documents(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().filter_map(move |end| {
            let doc = self.bytes.get(start..*end);
            start = *end;
            doc
        })
    }
}

/// A function's instance for one task.
pub struct Guest<S: Sink> {
    pub(super) loaded: Loaded,
    pub(super) instance: Instance<S>,
    pub(super) pace: Pace,
}

/// A call of a reduce that streams.
#[derive(Debug, Clone, Copy)]
pub enum StreamCall<'a> {
    /// The group's key is given.
    Begin,
    /// Its next values, `{v: [..]}`.
    Next(&'a [u8]),
    /// There are no more.
    End,
}

impl<S: Sink> Guest<S> {
    /// Starts an instance.
    ///
    /// # Errors
    /// [`Error::Function`] when the function's own start fails.
    pub fn start(loaded: Loaded, sink: S) -> Result<Self> {
        let instance = instance(&loaded, sink)?;
        let pace = if loaded.careful { Pace::careful() } else { Pace::new() };
        Ok(Self { loaded, instance, pace })
    }

    /// Runs the function over a batch.
    ///
    /// A failure is traced to its record by running the batch's documents one by one in a fresh
    /// instance whose emits go nowhere: functions are deterministic, so the same one fails again.
    ///
    /// # Errors
    /// [`Error::Function`], [`Error::TaskTimeout`], or whatever the sink returned.
    pub fn call(&mut self, batch: &Batch) -> Result<()> {
        let stage = self.loaded.stage;
        self.begin_call(|| name_one_of(stage, batch))?;
        let started = Instant::now();
        let called = self.instance.call_batch(stage, batch.bytes(), batch.len());
        self.pace.took(started.elapsed());
        match called {
            Ok(()) if self.may_hide_excess(batch) => self.find_excess(batch),
            Ok(()) => Ok(()),
            Err(GuestError::Sink { error, .. }) => Err(self.blame(from_sink(error), batch)),
            Err(error) if is_over(&self.loaded, &error) => {
                Err(too_late(&self.loaded, name_one_of(stage, batch)))
            }
            Err(error) => Err(self.diagnose(error, batch)),
        }
    }

    /// One step of a reduce that streams, of the group with the document `{k}`.
    ///
    /// # Errors
    /// As [`Guest::call`].
    pub fn stream(&mut self, call: StreamCall<'_>, group: &[u8]) -> Result<()> {
        let record = || name_record(Stage::Reduce, group);
        self.begin_call(record)?;
        let started = Instant::now();
        let called = match call {
            StreamCall::Begin => self.instance.reduce_begin(group),
            StreamCall::Next(values) => self.instance.reduce_next(values),
            StreamCall::End => self.instance.reduce_end(),
        };
        if matches!(call, StreamCall::Next(_)) {
            self.pace.took(started.elapsed());
        }
        called.map_err(|error| match error {
            GuestError::Sink { error, .. } => from_sink(error),
            error if is_over(&self.loaded, &error) => too_late(&self.loaded, record()),
            error => describe(&self.loaded, error, record()),
        })
    }

    /// Whether it is a reduce that streams.
    pub fn streams(&self) -> bool {
        self.loaded.stage == Stage::Reduce && self.instance.streams()
    }

    /// What it makes of numbers, if it is a reduce, or a combine, that is known.
    pub fn fold(&self) -> Option<Fold> {
        self.instance.known().map(|known| match known {
            Known::Sum => Fold::Sum,
            Known::Min => Fold::Min,
            Known::Max => Fold::Max,
        })
    }

    /// Bytes that a call should be given.
    pub fn bytes_target(&self) -> usize {
        self.pace.bytes_target()
    }

    /// The sink.
    pub fn sink_mut(&mut self) -> &mut S {
        self.instance.sink_mut()
    }

    /// Ends the instance and returns its sink.
    pub fn into_sink(self) -> S {
        self.instance.into_sink()
    }

    /// Gives the call no more time than its task has left.
    pub(super) fn begin_call(&mut self, record: impl FnOnce() -> Option<String>) -> Result<()> {
        let Some(deadline) = self.loaded.deadline else { return Ok(()) };
        let left = deadline.left();
        if left.is_zero() {
            return Err(too_late(&self.loaded, record()));
        }
        self.instance.set_call_timeout(left.min(self.loaded.options.limits.call_timeout));
        Ok(())
    }

    /// Whether one record of several may have emitted more than one may.
    fn may_hide_excess(&self, batch: &Batch) -> bool {
        batch.len() > 1
            && self.instance.output_bytes() > self.loaded.options.limits.output_bytes_max
    }

    /// Looks for a record that emits too much by itself. Calls that emit so much last long, so they soon
    /// hold one record each and this is seldom needed.
    fn find_excess(&self, batch: &Batch) -> Result<()> {
        let mut probe = self.probe()?;
        for doc in batch.documents() {
            // What else may go wrong here did not go wrong where it counted.
            if let Err(error @ GuestError::Output { .. }) = probe.call(self.loaded.stage, doc) {
                return Err(describe(&self.loaded, error, name_record(self.loaded.stage, doc)));
            }
        }
        Ok(())
    }

    /// Names the record whose emit was refused, which only a run of each by itself tells.
    fn blame(&self, error: Error, batch: &Batch) -> Error {
        let Error::Refused { why, hint } = error else { return error };
        let (stage, loaded) = (self.loaded.stage, &self.loaded);
        let name = || {
            // A map's sink also fails for what no record is to blame for, such as a full disk.
            if batch.len() == 1 && stage != Stage::Map {
                return batch.documents().next().and_then(|doc| name_record(stage, doc));
            }
            let mut probe = instance(loaded, Judged(self.instance.sink().judge())).ok()?;
            batch.documents().find_map(|doc| match probe.call(stage, doc) {
                Err(GuestError::Sink { .. }) => name_record(stage, doc),
                _ => None,
            })
        };
        let Some(record) = name() else { return Error::Refused { why, hint } };
        let function = loaded.name.as_ref().map_or_else(String::new, |name| format!(" of {name}"));
        Error::Refused { why: format!("{stage}{function} on {record}: {why}"), hint }
    }

    /// An instance whose emits go nowhere.
    fn probe(&self) -> Result<Instance<Nowhere>> {
        instance(&self.loaded, Nowhere)
    }

    fn diagnose(&self, error: GuestError, batch: &Batch) -> Error {
        let stage = self.loaded.stage;
        if batch.len() == 1 {
            let record = batch.documents().next().and_then(|doc| name_record(stage, doc));
            return describe(&self.loaded, error, record);
        }
        // The records before the one at fault took no longer than the call, and that one will not either.
        let enough = self.loaded.options.limits.call_timeout.saturating_mul(2);
        let started = Instant::now();
        if let Ok(mut probe) = self.probe() {
            for doc in batch.documents() {
                if let Err(found) = probe.call(stage, doc) {
                    return describe(&self.loaded, found, name_record(stage, doc));
                }
                if started.elapsed() > enough {
                    break;
                }
            }
        }
        let excess = matches!(error, GuestError::Output { .. });
        let found = describe(&self.loaded, error, name_one_of(stage, batch));
        match found {
            // None of them is at fault. The next attempt gives each a call of its own.
            Error::Function(found) if excess => Error::Function(Box::new(FunctionError {
                what: "emitted too much in one call",
                deterministic: false,
                ..*found
            })),
            other => other,
        }
    }
}

/// An instance, whose start and calls have no more time than its task has left.
pub(super) fn instance<S: Sink>(loaded: &Loaded, sink: S) -> Result<Instance<S>> {
    let mut options = loaded.options.clone();
    if let Some(deadline) = &loaded.deadline {
        options.limits.call_timeout = options.limits.call_timeout.min(deadline.left());
    }
    Instance::new(&loaded.module, options, sink).map_err(|error| {
        if is_over(loaded, &error) { too_late(loaded, None) } else { describe(loaded, error, None) }
    })
}

/// Whether a call ended because its task had no time left.
pub(super) fn is_over(loaded: &Loaded, error: &GuestError) -> bool {
    matches!(error, GuestError::Timeout { limit, .. } if *limit < loaded.options.limits.call_timeout)
}

pub(super) fn too_late(loaded: &Loaded, record: Option<String>) -> Error {
    let (stage, name) = (loaded.stage.name(), loaded.name.clone());
    match &loaded.deadline {
        Some(deadline) => deadline.error(stage, name, record),
        None => Error::Internal("a task without a deadline went past it".into()),
    }
}

/// What a person calls the record of a batch that was being worked on, as far as that is known.
pub(super) fn name_one_of(stage: Stage, batch: &Batch) -> Option<String> {
    let first = batch.documents().next().and_then(|doc| name_record(stage, doc))?;
    Some(match batch.len() {
        1 => first,
        n => format!("{first} or one of the {} after it", n - 1),
    })
}

/// A sink's error as ours again.
pub fn from_sink(error: SinkError) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => *ours,
        Err(other) => Error::Internal(other.to_string()),
    }
}

pub(super) fn describe(loaded: &Loaded, error: GuestError, record: Option<String>) -> Error {
    let deterministic = error.is_deterministic();
    let (what, message, stack) = match error {
        GuestError::Failed { message, stack, .. } => ("failed", message, stack),
        GuestError::Trap { message, backtrace, stderr, .. } => {
            let mut stack = backtrace.join("\n");
            if !stderr.is_empty() {
                stack = format!("{stack}\n{stderr}").trim().to_owned();
            }
            ("trapped", message, stack)
        }
        GuestError::Timeout { limit, .. } => (
            "ran out of time",
            format!(
                "one call took longer than {} ms; raise --record-timeout if that is expected",
                limit.as_millis()
            ),
            String::new(),
        ),
        GuestError::Memory { limit_bytes, detail, .. } => (
            "ran out of memory",
            format!(
                "the limit is {} MiB ({detail}); raise --memory-mb if that is expected",
                limit_bytes >> 20
            ),
            String::new(),
        ),
        GuestError::Output { limit_bytes, .. } => (
            "emitted too much",
            format!(
                "the limit is {limit_bytes} bytes a record; raise --record-output if that is expected"
            ),
            String::new(),
        ),
        GuestError::BadEmit { fault, .. } => {
            ("emitted something impossible", fault.to_string(), String::new())
        }
        GuestError::Sink { error, .. } => return from_sink(error),
        other => {
            let cause = other.source().map_or(String::new(), |cause| format!(": {cause}"));
            ("failed", format!("{other}{cause}"), String::new())
        }
    };
    Error::Function(Box::new(FunctionError {
        stage: loaded.stage.to_string(),
        function: loaded.name.clone(),
        what,
        record,
        message,
        stack,
        deterministic,
    }))
}

/// What a person calls a group.
pub fn name_key(key: RawVal<'_>) -> String {
    format!("the key {key}")
}

/// What a person calls a record: a document by its `_id`, a group by its key.
pub(super) fn name_record(stage: Stage, doc: &[u8]) -> Option<String> {
    let (field, word) = match stage {
        Stage::Map => ("_id", "the document with _id"),
        Stage::Combine | Stage::Reduce | Stage::Finalize => ("k", "the key"),
    };
    let value = field_of(bson::RawDocument::from_bytes(doc).ok()?, field).ok()??;
    Some(format!("{word} {value}"))
}

/// Splits an emitted value, which the host has checked, into its type and its bytes.
///
/// # Errors
/// [`Error::Internal`] for an empty slice, which the host never passes on.
pub fn raw(value: &[u8]) -> Result<RawVal<'_>> {
    match value.split_first() {
        Some((tag, bytes)) => Ok(RawVal { tag: *tag, bytes }),
        None => Err(Error::Internal("an emitted value has no type".into())),
    }
}

/// Sends a function's log lines to ours.
pub fn log(task: &str, level: Level, text: &str) {
    match level {
        Level::Error => tracing::error!(target: "aviary::function", task, "{text}"),
        Level::Warn => tracing::warn!(target: "aviary::function", task, "{text}"),
        Level::Info => tracing::info!(target: "aviary::function", task, "{text}"),
        Level::Debug => tracing::debug!(target: "aviary::function", task, "{text}"),
        Level::Trace => tracing::trace!(target: "aviary::function", task, "{text}"),
    }
}
