//! A combine at work over a full table.

use super::combiner::{COMBINED_TIMES_MAX, boxed, refuse_emit};
use super::function::{self, Batch, Guest};
use super::log_buffer::LogSink;
use super::skipping::Undo;
use super::values_chunk::ValuesChunk;
use crate::config;
use crate::error::{Error, Result};
use crate::shuffle::table::{Combine, Table};
use crate::task::Counters;
use crate::value::{Elements, RawVal, RawValBuf, ValueError};
use crate::wasm::{Level, Sink, SinkError};

/// Collects what a combine function emits in a table of its own.
pub struct Collect {
    table: Table,
    pub(super) counters: Counters,
    tap: LogSink,
    /// What one call emits and counts, where the call may fail.
    held: Option<Held>,
}

/// What one call of combine gives until it has ended well.
#[derive(Default)]
struct Held {
    pairs: Vec<(RawValBuf, RawValBuf)>,
    counts: Counters,
    /// Whether it was told already that some values are not combined.
    has_told: bool,
}

impl Collect {
    /// An empty collection for a task's function.
    pub fn new(tap: LogSink) -> Self {
        let table = Table::new(Combine::Values);
        Self { table, counters: Counters::default(), tap, held: None }
    }

    /// The same where the function may fail on some keys, whose values are then left as they are.
    #[must_use]
    pub fn holding(self, holds: bool) -> Self {
        Self { held: holds.then(Held::default), ..self }
    }
}

impl Sink for Collect {
    fn emit(&mut self, key: &[u8], value: &[u8]) -> std::result::Result<(), SinkError> {
        if self.table.bytes() > config::TABLE_BYTES_MAX * COMBINED_TIMES_MAX {
            let stage = self.tap.stage();
            return Err(boxed(Error::refused(
                format!(
                    "{stage} has made more of a map task's values than they were: {} bytes",
                    self.table.bytes()
                ),
                format!(
                    "{stage} must emit less than it is given; or combine nothing, with --no-combine"
                ),
            )));
        }
        let (key, value) =
            (function::raw(key).map_err(boxed)?, function::raw(value).map_err(boxed)?);
        if let Some(held) = &mut self.held {
            held.pairs.push((RawValBuf::from(key), RawValBuf::from(value)));
            return Ok(());
        }
        self.table.add(key, value).map_err(|e| boxed(refuse_emit(&e)))
    }
    fn count(&mut self, name: &str, delta: i64) {
        let counters = self.held.as_mut().map_or(&mut self.counters, |held| &mut held.counts);
        if !counters.count(name, delta) {
            self.tap.counter_refused(name);
        }
    }
    fn log(&mut self, level: Level, text: &str) {
        self.tap.line(level, text);
    }
}

impl Undo for Collect {
    fn keep(&mut self) -> Result<()> {
        let Some(held) = &mut self.held else { return Ok(()) };
        for (key, value) in held.pairs.drain(..) {
            self.table.add(key.as_raw(), value.as_raw()).map_err(|e| refuse_emit(&e))?;
        }
        for (name, delta) in std::mem::take(&mut held.counts.user) {
            if !self.counters.count(&name, delta) {
                self.tap.counter_refused(&name);
            }
        }
        Ok(())
    }

    fn undo(&mut self, _again: bool) {
        if let Some(held) = &mut self.held {
            held.pairs.clear();
            held.counts.user.clear();
        }
    }

    fn moved(&mut self) -> Self {
        let fresh = Self::new(self.tap.clone());
        std::mem::replace(self, fresh)
    }
}

/// Runs a combine over every key of a table that has several values, and gives the table of what it emitted.
///
/// # Errors
/// Those of the function.
pub(crate) fn combined(combine: &mut Guest<Collect>, mut old: Table) -> Result<Table> {
    combine.sink_mut().table = Table::new(old.combine());
    let mut batch = Batch::default();
    // The order does not matter for the result, but a fixed one makes every attempt alike.
    old.drain_sorted(1, |group| -> Result<()> {
        let mut values = group.values;
        let (first, second) = (values.next(), values.next());
        let Some(first) = first else { return Ok(()) };
        let Some(second) = second else {
            return collect(combine, group.key, first);
        };
        let mut chunk = ValuesChunk::begin(group.key);
        for value in [first, second].into_iter().chain(values) {
            if chunk.bytes() > config::VALUES_BYTES_MAX {
                // The rest of a very long list goes into another document of the same key.
                chunk.end(&mut batch);
                flush(combine, &mut batch)?;
                chunk = ValuesChunk::begin(group.key);
            }
            chunk.push(value);
        }
        chunk.end(&mut batch);
        if batch.bytes().len() >= combine.bytes_target() {
            flush(combine, &mut batch)?;
        }
        Ok(())
    })?;
    flush(combine, &mut batch)?;
    Ok(std::mem::replace(&mut combine.sink_mut().table, Table::new(Combine::Values)))
}

fn collect(combine: &mut Guest<Collect>, key: RawVal<'_>, value: RawVal<'_>) -> Result<()> {
    combine.sink_mut().table.add(key, value).map_err(|e| refuse_emit(&e))
}

fn flush(combine: &mut Guest<Collect>, batch: &mut Batch) -> Result<()> {
    if batch.is_empty() {
        return Ok(());
    }
    if combine.sink_mut().held.is_some() {
        // Whether a key can be reduced is found out in the end, where it counts once.
        let mut left = Vec::new();
        combine.call_skipping(batch, &mut |group, error| {
            left.push((group.to_vec(), error));
            Ok(())
        })?;
        for (group, error) in left {
            combine.sink_mut().leave(&group, &error)?;
        }
    } else {
        combine.call(batch)?;
    }
    batch.clear();
    Ok(())
}

impl Collect {
    /// Takes the values of a group as they are, since the function fails on them.
    fn leave(&mut self, group: &[u8], error: &Error) -> Result<()> {
        let malformed =
            |e: ValueError| Error::Internal(format!("a group to combine is malformed: {e}"));
        let (mut key, mut fields) = (RawVal::NULL, Elements::new(group));
        while let Some((name, field)) = fields.next().map_err(malformed)? {
            if name == b"k" {
                key = field;
                continue;
            }
            let mut values = Elements::new(field.bytes);
            while let Some((_, value)) = values.next().map_err(malformed)? {
                self.table.add(key, value).map_err(|e| refuse_emit(&e))?;
            }
        }
        if let Some(held) = &mut self.held
            && !std::mem::replace(&mut held.has_told, true)
        {
            let text = error.to_string();
            let text = text.lines().next().unwrap_or_default();
            self.tap.line(Level::Info, &format!("not combined, only reduced in the end: {text}"));
        }
        Ok(())
    }
}
