//! A whole job over a few documents in one process: what `aviary try` runs. The same functions, the
//! same combining and reducing as in a worker, without the database between.

use std::collections::{HashMap, HashSet};

use bson::{Document, RawDocumentBuf};

use super::collation::Collated;
use super::collect::{Collect, combined};
use super::combiner::{boxed, refuse_emit};
use super::function::{self, Batch, Guest};
use super::in_parts::Differs;
use super::log_buffer::LogSink;
use super::prepare::Loaded;
use super::reducer::{How, OversizePolicy, Pairs, Reducer};
use super::rereduce::value_of;
use super::result_document::{Rules, builtin, document_of_emit, document_of_result};
use crate::error::{Error, Result};
use crate::job::OutputMode;
use crate::shuffle::table::{Combine, Table};
use crate::task::Counters;
use crate::value::{RawVal, RawValBuf, tag};
use crate::wasm::{Judge, Level, Sink, SinkError, Stage};

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
    /// The collation that the job has, or its input.
    pub collation: Option<Collated>,
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
    /// What is different when some of a key's values are reduced first, as a job may.
    pub parts: Option<Differs>,
    /// A key whose values are numbers and whose result is none.
    pub spoiled: Option<Spoiled>,
    /// A key that a map-only job emits twice, which a real one refuses.
    pub twice: Option<String>,
}

/// What a reduce made of numbers that is no number: text, or NaN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spoiled {
    /// The key.
    pub key: String,
    /// Its result.
    pub result: String,
    /// Whether one of the values is a decimal, which is an object in JavaScript.
    pub is_decimal: bool,
}

struct Emits {
    table: Table,
    direct: Option<Vec<RawDocumentBuf>>,
    rules: Rules,
    counters: Counters,
    tap: LogSink,
}

impl Sink for Emits {
    fn emit(&mut self, key: &[u8], value: &[u8]) -> std::result::Result<(), SinkError> {
        let key = function::raw(key).map_err(boxed)?;
        let value = function::raw(value).map_err(boxed)?;
        self.counters.emit += 1;
        self.rules.check(key, value).map_err(boxed)?;
        match &mut self.direct {
            Some(results) => results.push(document_of_emit(key, value).map_err(boxed)?),
            None => self.table.add(key, value).map_err(|e| boxed(refuse_emit(&e)))?,
        }
        Ok(())
    }
    fn judge(&self) -> Judge {
        let rules = self.rules.clone();
        Box::new(move |key, value| rules.judge(key, value).map_err(boxed))
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
        let builtin = match &self.reduce {
            Some(LocalReduce::Builtin(name)) => Some(builtin(name)?),
            Some(LocalReduce::Function(_)) | None => None,
        };
        let rules = Rules {
            mode: OutputMode::Inline,
            collation: self.collation,
            builtin,
            map_only: self.reduce.is_none(),
        };
        let table = Table::new(builtin.map_or(Combine::Values, Combine::Builtin));
        let direct = self.reduce.is_none().then(Vec::new);
        let tap = LogSink::printed(Stage::Map);
        let emits = Emits { table, direct, rules, counters: Counters::default(), tap };
        let mut map = Guest::start(self.map, emits)?;
        let mut batch = Batch::default();
        for doc in docs {
            batch.clear();
            batch.push(doc.as_bytes());
            map.call(&batch)?;
        }
        let Emits { table, direct, mut counters, .. } = map.into_sink();
        counters.input = i64::try_from(docs.len()).unwrap_or(i64::MAX);
        let Some(reduce) = self.reduce else {
            let results = direct.unwrap_or_default();
            counters.output = i64::try_from(results.len()).unwrap_or(i64::MAX);
            let (counters, twice) = (counters.to_document(), twice(&results)?);
            return Ok(LocalOutcome { results, counters, parts: None, spoiled: None, twice });
        };
        let functions = Functions {
            combine: self.combine,
            reduce,
            finalize: self.finalize,
            no_combine: self.no_combine,
            skip_single_values: self.skip_single_values,
        };
        let groups = drained(table)?;
        let results = functions.at_once(&groups, &mut counters)?;
        let parts = functions.in_parts(&groups, &results);
        let spoiled = functions.spoiled(&groups, &results);
        counters.output = i64::try_from(results.len()).unwrap_or(i64::MAX);
        Ok(LocalOutcome { results, counters: counters.to_document(), parts, spoiled, twice: None })
    }
}

/// The first key that two results have.
fn twice(results: &[RawDocumentBuf]) -> Result<Option<String>> {
    let mut seen = HashSet::with_capacity(results.len());
    for result in results {
        let key = value_of(result, "_id")?;
        if !seen.insert(super::rereduce::encoded(key)?) {
            return Ok(Some(key.to_string()));
        }
    }
    Ok(None)
}

/// A key with its values, or with the state of a built-in.
pub(crate) struct Group {
    pub(crate) key: RawValBuf,
    pub(crate) encoded: Vec<u8>,
    pub(crate) values: Vec<RawValBuf>,
}

fn drained(mut table: Table) -> Result<Vec<Group>> {
    let mut groups = Vec::new();
    table.drain_sorted(1, |group| {
        groups.push(Group {
            key: group.key.into(),
            encoded: group.encoded.to_vec(),
            values: group.values.map(RawValBuf::from).collect(),
        });
        Ok::<_, Error>(())
    })?;
    Ok(groups)
}

/// What comes after the map.
pub(crate) struct Functions {
    pub(crate) combine: Option<Loaded>,
    pub(crate) reduce: LocalReduce,
    pub(crate) finalize: Option<Loaded>,
    pub(crate) no_combine: bool,
    pub(crate) skip_single_values: bool,
}

impl Functions {
    /// Each key's values in one call of the reduce, or what a combine makes of all of them.
    fn at_once(&self, groups: &[Group], counters: &mut Counters) -> Result<Vec<RawDocumentBuf>> {
        let combined = match &self.combine {
            Some(loaded) => {
                let mut table = Table::new(Combine::Values);
                for group in groups {
                    for value in &group.values {
                        let added = table.add(group.key.as_raw(), value.as_raw());
                        added.map_err(|e| refuse_emit(&e))?;
                    }
                }
                let collect = Collect::new(LogSink::printed(Stage::Combine));
                let mut guest = Guest::start(loaded.clone(), collect)?;
                Some(drained(combined(&mut guest, table)?)?)
            }
            None => None,
        };
        let mut results = Vec::new();
        let mut out = |key: RawVal<'_>, value: RawVal<'_>| {
            results.push(document_of_result(key, value)?);
            Ok(())
        };
        let mut reducer = self.reducer(LogSink::printed)?;
        for group in combined.as_deref().unwrap_or(groups) {
            counters.reduce += 1;
            reduce_group(&mut reducer, group, &mut out)?;
        }
        reducer.finish(&mut out)?;
        for of_function in reducer.counters() {
            for (name, value) in of_function.user {
                counters.count(&name, value);
            }
        }
        Ok(results)
    }

    /// The first result of a reduce that is NaN though all its values are numbers, or text though they are decimals: what
    /// else becomes text is meant to.
    fn spoiled(&self, groups: &[Group], results: &[RawDocumentBuf]) -> Option<Spoiled> {
        if !matches!(self.reduce, LocalReduce::Function(_)) || self.finalize.is_some() {
            return None;
        }
        let number = |value: RawVal<'_>| {
            matches!(value.tag, tag::INT32 | tag::INT64 | tag::DECIMAL128)
                || value.as_f64().is_some_and(|double| !double.is_nan())
        };
        let spoiled =
            |value: RawVal<'_>| value.tag == tag::STRING || value.as_f64().is_some_and(f64::is_nan);
        let by_key: HashMap<&[u8], &Group> =
            groups.iter().map(|group| (group.encoded.as_slice(), group)).collect();
        results.iter().find_map(|result| {
            let (key, value) = (value_of(result, "_id").ok()?, value_of(result, "value").ok()?);
            if !spoiled(value) {
                return None;
            }
            let group = by_key.get(super::rereduce::encoded(key).ok()?.as_slice())?;
            let mut values = group.values.iter().map(RawValBuf::as_raw);
            let are_numbers = values.clone().all(number);
            let is_decimal = values.any(|value| value.tag == tag::DECIMAL128);
            (are_numbers && (is_decimal || value.tag != tag::STRING)).then(|| Spoiled {
                key: key.to_string(),
                result: value.to_string(),
                is_decimal,
            })
        })
    }

    pub(crate) fn reducer(&self, tap: impl Fn(Stage) -> LogSink) -> Result<Reducer> {
        let start = |loaded: &Loaded| Guest::start(loaded.clone(), Pairs::new(tap(loaded.stage)));
        let long = match &self.combine {
            _ if self.no_combine => OversizePolicy::Never,
            Some(loaded) => OversizePolicy::Combine(Box::new(start(loaded)?)),
            None => OversizePolicy::Reduce,
        };
        let how = match &self.reduce {
            LocalReduce::Builtin(name) => How::Builtin(builtin(name)?),
            LocalReduce::Function(loaded) => How::Function(Box::new(start(loaded)?)),
        };
        let finalize = self.finalize.as_ref().map(start).transpose()?;
        Ok(Reducer::new(how, long, finalize).skipping_single_values(self.skip_single_values))
    }
}

pub(crate) fn reduce_group(
    reducer: &mut Reducer,
    group: &Group,
    out: super::reducer::ResultSink<'_>,
) -> Result<()> {
    let mut values = group.values.iter();
    let next =
        |slot: &mut RawValBuf| Ok(values.next().map(|next| slot.set(next.as_raw())).is_some());
    reducer.group(&group.key, &group.encoded, true, next, out)
}
