//! One function at work: batches go in, emits go to a sink, and a failure comes out with the record
//! that caused it.

use std::error::Error as _;

use super::loader::Loaded;
use crate::error::{Error, FunctionError, Result};
use crate::shuffle::value::RawVal;
use crate::wasm::{GuestError, Instance, Level, Sink, SinkError, Stage};

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
    loaded: Loaded,
    instance: Instance<S>,
}

impl<S: Sink> Guest<S> {
    /// Starts an instance.
    ///
    /// # Errors
    /// [`Error::Function`] when the function's own start fails.
    pub fn start(loaded: Loaded, sink: S) -> Result<Self> {
        let instance = Instance::new(&loaded.module, loaded.options.clone(), sink)
            .map_err(|error| describe(loaded.stage, error, None))?;
        Ok(Self { loaded, instance })
    }

    /// Runs the function over a batch.
    ///
    /// A failure is traced to its record by running the batch's documents one by one in a fresh
    /// instance whose emits go nowhere: functions are deterministic, so the same one fails again.
    ///
    /// # Errors
    /// [`Error::Function`], or whatever the sink returned.
    pub fn call(&mut self, batch: &Batch) -> Result<()> {
        match self.instance.call(self.loaded.stage, batch.bytes()) {
            Ok(()) => Ok(()),
            Err(GuestError::Sink { error, .. }) => Err(from_sink(error)),
            Err(error) => Err(self.diagnose(error, batch)),
        }
    }

    /// The sink.
    pub fn sink_mut(&mut self) -> &mut S {
        self.instance.sink_mut()
    }

    /// Ends the instance and returns its sink.
    pub fn into_sink(self) -> S {
        self.instance.into_sink()
    }

    fn diagnose(&self, error: GuestError, batch: &Batch) -> Error {
        if batch.len() == 1 {
            return describe(self.loaded.stage, error, batch.documents().next());
        }
        let probe = Instance::new(&self.loaded.module, self.loaded.options.clone(), Nowhere);
        if let Ok(mut probe) = probe {
            for doc in batch.documents() {
                if let Err(found) = probe.call(self.loaded.stage, doc) {
                    return describe(self.loaded.stage, found, Some(doc));
                }
            }
        }
        describe(self.loaded.stage, error, None)
    }
}

/// A sink's error as ours again.
pub fn from_sink(error: SinkError) -> Error {
    match error.downcast::<Error>() {
        Ok(ours) => *ours,
        Err(other) => Error::Internal(other.to_string()),
    }
}

fn describe(stage: Stage, error: GuestError, record: Option<&[u8]>) -> Error {
    let deterministic = error.is_deterministic();
    let record = record.and_then(|doc| name_record(stage, doc));
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
        GuestError::BadEmit { fault, .. } => {
            ("emitted something impossible", fault.to_string(), String::new())
        }
        GuestError::Sink { error, .. } => return from_sink(error),
        other => {
            let cause = other.source().map_or(String::new(), |cause| format!(": {cause}"));
            ("failed", format!("{other}{cause}"), String::new())
        }
    };
    Error::Function(FunctionError {
        stage: stage.to_string(),
        what,
        record,
        message,
        stack,
        deterministic,
    })
}

/// What a person calls a record: a document by its `_id`, a group by its key.
fn name_record(stage: Stage, doc: &[u8]) -> Option<String> {
    let doc = bson::RawDocument::from_bytes(doc).ok()?;
    let (field, word) = match stage {
        Stage::Map => ("_id", "the document with _id"),
        Stage::Combine | Stage::Reduce | Stage::Finalize => ("k", "the key"),
    };
    let value: bson::Bson = doc.get(field).ok()??.try_into().ok()?;
    Some(format!("{word} {}", shorten(&value)))
}

fn shorten(value: &bson::Bson) -> String {
    crate::shuffle::value::RawValBuf::from_bson(value)
        .map_or_else(|_| "?".to_owned(), |raw| raw.to_string())
}

/// Takes everything, keeps nothing.
struct Nowhere;

impl Sink for Nowhere {
    fn emit(&mut self, _key: &[u8], _value: &[u8]) -> std::result::Result<(), SinkError> {
        Ok(())
    }
    fn count(&mut self, _name: &str, _delta: i64) {}
    fn log(&mut self, _level: Level, _text: &str) {}
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
