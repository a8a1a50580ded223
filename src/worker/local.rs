//! A whole job over a few documents in one process: what `aviary try` runs. The same functions, the
//! same combining and reducing as in a worker, without the database between.

use bson::{Document, RawDocumentBuf};

use super::combiner::{Collect, boxed, combined, refuse_emit};
use super::guest::{self, Batch, Guest};
use super::lines::Tap;
use super::loader::Loaded;
use super::map::{builtin, document_of_emit, document_of_result};
use super::reducer::{How, Long, Pairs, Reducer};
use crate::error::Result;
use crate::shuffle::table::{Combine, Table};
use crate::shuffle::value::RawValBuf;
use crate::task::Counters;
use crate::wasm::{Level, Sink, SinkError, Stage};

/// A job's functions, loaded.
pub struct LocalJob {
    /// The map.
    pub map: Loaded,
    /// The combine, if the job has one of its own.
    pub combine: Option<Loaded>,
    /// Whether the reduce must see all values of a key in one call.
    pub no_combine: bool,
    /// The reduce; none for a map-only job.
    pub reduce: Option<LocalReduce>,
    /// The finalize.
    pub finalize: Option<Loaded>,
    /// Whether a key's only value is its result.
    pub skip_single_values: bool,
}

/// A reduce, loaded.
pub enum LocalReduce {
    /// A built-in, by name.
    Builtin(String),
    /// A function.
    Function(Box<Loaded>),
}

/// What a trial produced.
#[derive(Debug)]
pub struct LocalOutcome {
    /// The results in key order (for a map-only job, in the order of the emits).
    pub results: Vec<RawDocumentBuf>,
    /// The counters.
    pub counters: Document,
}

struct Emits {
    table: Table,
    direct: Option<Vec<RawDocumentBuf>>,
    counters: Counters,
    tap: Tap,
}

impl Sink for Emits {
    fn emit(&mut self, key: &[u8], value: &[u8]) -> std::result::Result<(), SinkError> {
        let key = guest::raw(key).map_err(boxed)?;
        let value = guest::raw(value).map_err(boxed)?;
        self.counters.emit += 1;
        match &mut self.direct {
            Some(results) => results.push(document_of_emit(key, value).map_err(boxed)?),
            None => self.table.add(key, value).map_err(|e| boxed(refuse_emit(&e)))?,
        }
        Ok(())
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

impl LocalJob {
    /// Runs the job over documents.
    ///
    /// # Errors
    /// [`crate::error::Error::Function`] and [`crate::error::Error::Refused`], as in a worker.
    pub fn run(self, docs: &[RawDocumentBuf]) -> Result<LocalOutcome> {
        let table = Table::new(match &self.reduce {
            Some(LocalReduce::Builtin(name)) => Combine::Builtin(builtin(name)?),
            Some(LocalReduce::Function(_)) | None => Combine::Values,
        });
        let direct = self.reduce.is_none().then(Vec::new);
        let tap = Tap::printed(Stage::Map);
        let emits = Emits { table, direct, counters: Counters::default(), tap };
        let mut map = Guest::start(self.map, emits)?;
        let mut batch = Batch::default();
        for doc in docs {
            batch.clear();
            batch.push(doc.as_bytes());
            map.call(&batch)?;
        }
        let Emits { mut table, direct, mut counters, .. } = map.into_sink();
        counters.input = i64::try_from(docs.len()).unwrap_or(i64::MAX);
        let mut results = direct.unwrap_or_default();
        if let Some(reduce) = self.reduce {
            let start = |loaded: Loaded| {
                let pairs = Pairs::new(Tap::printed(loaded.stage));
                Guest::start(loaded, pairs)
            };
            let mut long = if self.no_combine { Long::Never } else { Long::Reduce };
            if let Some(loaded) = self.combine {
                let collect = Collect::new(Tap::printed(Stage::Combine));
                table = combined(&mut Guest::start(loaded.clone(), collect)?, table)?;
                long = Long::Combine(Box::new(start(loaded)?));
            }
            let how = match reduce {
                LocalReduce::Builtin(name) => How::Builtin(builtin(&name)?),
                LocalReduce::Function(loaded) => How::Function(Box::new(start(*loaded)?)),
            };
            let mut reducer = Reducer::new(how, long, self.finalize.map(start).transpose()?)
                .skipping_single_values(self.skip_single_values);
            let mut out = |key: crate::shuffle::RawVal<'_>, value: crate::shuffle::RawVal<'_>| {
                results.push(document_of_result(key, value)?);
                Ok(())
            };
            table.drain_sorted(1, |group| {
                counters.reduce += 1;
                let mut values = group.values;
                let key = RawValBuf::from(group.key);
                let next =
                    |value: &mut RawValBuf| Ok(values.next().map(|next| value.set(next)).is_some());
                reducer.group(&key, group.encoded, true, next, &mut out)
            })?;
            reducer.finish(&mut out)?;
            for of_function in reducer.counters() {
                for (name, value) in of_function.user {
                    counters.count(&name, value);
                }
            }
        }
        counters.output = i64::try_from(results.len()).unwrap_or(i64::MAX);
        Ok(LocalOutcome { results, counters: counters.to_document() })
    }
}
