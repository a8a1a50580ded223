//! Printing: tables for people, JSON for scripts.

use std::io::Write as _;

use bson::{Bson, DateTime, RawDocument};
use comfy_table::{ContentArrangement, presets};
use serde_json::{Map, Value, json};

use super::args::{Format, Global};
use crate::error::{Error, Result};
use crate::exec::rereduce;
use crate::job::{Job, JobState};
use crate::store::Store;
use crate::task::{JobPhases, PhaseCounts};
use crate::terminal::{self, tell};
use crate::value::extjson::{self, Form};
use crate::value::{RawVal, ValueError, tag};

/// A table for people. A cell stays in its line, so that nothing in it can pass for another row.
pub(super) struct Table(comfy_table::Table);

impl Table {
    pub(super) fn add_row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.0.add_row(cells.into_iter().map(|cell| terminal::one_line(&cell)));
    }

    /// A row with text of several lines.
    pub(super) fn add_text(&mut self, heading: &str, text: &str) {
        self.0.add_row([heading, text]);
    }

    pub(super) fn print(&self) -> Result<()> {
        line(&self.0)
    }
}

/// A table with these headings, sized to the terminal.
pub(super) fn table(headings: &[&str]) -> Table {
    let mut table = comfy_table::Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(headings.iter().map(|h| h.to_uppercase()));
    Table(table)
}

/// Has the table wrap what is longer than a person reads in a line, also where there is no terminal.
pub(super) fn wrap(table: &mut Table) {
    const COLUMNS_MAX: u16 = 100;
    let width = table.0.width().unwrap_or(COLUMNS_MAX).min(COLUMNS_MAX);
    table.0.set_width(width);
}

/// When a job ended, or stopped.
pub(super) fn ended(job: &Job) -> Option<DateTime> {
    match job.state {
        JobState::Stopped => job.stopped,
        _ => job.finished,
    }
}

/// Prints a line of data. A reader that has seen enough (`| head`) is not an error.
///
/// # Errors
/// [`Error::Io`], as when the disk is full.
pub(super) fn line(text: impl std::fmt::Display) -> Result<()> {
    line_is_read(text).map(|_| ())
}

/// Like [`line`], but returns false once the reader is gone, so that a long listing can stop.
///
/// # Errors
/// Those of [`line`].
pub(super) fn line_is_read(text: impl std::fmt::Display) -> Result<bool> {
    match writeln!(terminal::out(), "{text}") {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(Error::io("print", e)),
    }
}

/// Prints a name as a script may read it back.
///
/// # Errors
/// Those of [`line`].
pub(super) fn name(name: &str) -> Result<()> {
    line(terminal::name(name))
}

/// Prints rows in the chosen format: names and rows are only asked for when they are wanted.
pub(super) fn print_rows<T>(
    format: Format,
    items: &[T],
    name_of: impl Fn(&T) -> String,
    json: impl Fn(&T) -> Value,
    headings: &[&str],
    row: impl Fn(&T) -> Vec<String>,
) -> Result<()> {
    match format {
        Format::Name => items.iter().try_for_each(|item| name(&name_of(item))),
        Format::Json => items.iter().try_for_each(|item| line(json(item))),
        Format::Table | Format::Wide => {
            let mut table = table(headings);
            for item in items {
                table.add_row(row(item));
            }
            table.print()
        }
    }
}

/// A job's counters on one line.
pub(super) fn counters(counters: &bson::Document) -> String {
    let each = counters.iter().map(|(name, value)| format!("{name} {}", number(value)));
    each.collect::<Vec<_>>().join(", ")
}

/// Whether a person reads along, rather than a script.
pub(super) fn is_for_people(global: &Global) -> bool {
    !global.quiet && matches!(global.format(), Format::Table | Format::Wide)
}

/// Tells people that nothing was found, and where that was: often another database is meant.
pub(super) fn hint_at_db(global: &Global, store: &Store, nothing: &str) {
    if is_for_people(global) {
        tell!("{nothing} in database {}; --db names another", store.db_name());
    }
}

/// Tells what a listing leaves out because a newer version wrote it.
pub(super) fn tell_unreadable(global: &Global, unreadable: &[Error]) {
    if !global.quiet {
        for error in unreadable {
            tell!("warning: {error}");
        }
    }
}

/// A job as the contract has it.
pub(super) fn job_json(job: &Job, phases: &JobPhases) -> Value {
    let spec = &job.spec;
    let has_target = spec.output.mode.has_target();
    let collection = if has_target { json!(spec.output.collection) } else { Value::Null };
    json!({
        "id": job.id,
        "state": job.state,
        "client": job.client,
        "tag": job.tag,
        "priority": job.priority,
        "input": {
            "db": spec.input.db,
            "collection": spec.input.collection,
            "query": query(&spec.input.query),
        },
        "output": { "mode": spec.output.mode, "db": spec.output.db, "collection": collection },
        "created": date(Some(job.created)),
        "started": date(job.started),
        "finished": date(job.finished),
        "snapshot": job.snapshot.map(|t| json!({ "t": t.time, "i": t.increment })),
        "phases": { "map": phase_json(&phases.map), "reduce": phase_json(&phases.reduce) },
        "onError": spec.on_error.to_string(),
        "skipped": super::failed::skipped(job),
        "counters": counters_json(job),
        "error": job.error.as_ref().map(|e| json!({
            "code": e.code, "message": e.message, "task": e.task,
        })),
    })
}

/// Counters with plain numbers.
pub(super) fn counters_json(job: &Job) -> Value {
    let mut map = Map::new();
    for (name, value) in job.counters.iter().flatten() {
        map.insert(name.clone(), ejson(value));
    }
    Value::Object(map)
}

fn phase_json(phase: &PhaseCounts) -> Value {
    json!({
        "total": phase.total,
        "ready": phase.ready + phase.planned,
        "leased": phase.leased,
        "done": phase.done,
        "quarantined": phase.quarantined,
    })
}

/// Canonical extended JSON, which loses nothing.
pub(super) fn exact(document: bson::Document) -> String {
    extjson::of_bson(&Bson::Document(document), Form::Canonical).to_string()
}

/// Relaxed extended JSON.
pub(super) fn ejson(value: &Bson) -> Value {
    extjson::of_bson(value, Form::Relaxed)
}

/// A query or an order in relaxed extended JSON.
pub(super) fn query(query: &bson::Document) -> Value {
    extjson::of_bson(&Bson::Document(query.clone()), Form::Query)
}

/// A result as a line of relaxed extended JSON. Text that is not UTF-8, which JSON cannot hold, is told of on standard
/// error.
pub(super) fn result(document: &RawDocument) -> String {
    let value = RawVal { tag: tag::DOCUMENT, bytes: document.as_bytes() };
    if let Err(error @ ValueError::NotUtf8 { .. }) = value.validate() {
        let id =
            rereduce::value_of(document, "_id").map_or_else(|_| "?".into(), |id| id.to_string());
        tell!("warning: the result with _id {id}: {error}; it is shown with \u{FFFD} in its place");
    }
    extjson::json(value, Form::Relaxed).to_string()
}

/// A date as text, or nothing.
pub(super) fn date(date: Option<DateTime>) -> Option<String> {
    date.and_then(|d| d.try_to_rfc3339_string().ok())
}

/// A date for people: to the second.
pub(super) fn when(date: DateTime) -> String {
    let stamp = jiff::Timestamp::from_millisecond(date.timestamp_millis());
    stamp.map_or_else(|_| String::new(), |stamp| format!("{stamp:.0}"))
}

/// How long ago, or how long something took, in whole seconds.
pub(super) fn duration(from: Option<DateTime>, to: Option<DateTime>) -> String {
    let Some(from) = from else { return String::new() };
    let to = to.unwrap_or_else(DateTime::now);
    let ms = to.timestamp_millis().saturating_sub(from.timestamp_millis()).max(0);
    format!("{}.{}s", ms / 1_000, ms % 1_000 / 100)
}

/// A number for people: whole doubles without a fraction.
pub(super) fn number(value: &Bson) -> String {
    match value {
        #[expect(clippy::float_cmp, reason = "whole numbers are exact")]
        Bson::Double(d) if d.trunc() == *d && d.abs() < 1e15 => format!("{d:.0}"),
        Bson::Double(d) => d.to_string(),
        Bson::Int32(n) => n.to_string(),
        Bson::Int64(n) => n.to_string(),
        other => ejson(other).to_string(),
    }
}
