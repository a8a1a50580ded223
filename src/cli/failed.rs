//! `aviary failed`: the documents and keys that a job's functions failed on and that were left out.

use clap::Args;
use serde_json::{Value, json};

use super::args::{Format, Global, at_least_none};
use super::output;
use crate::error::{Error, Result};
use crate::job::{Job, JobState};
use crate::store::failed::FailedRecord;
use crate::task::counters::SKIPPED;
use crate::terminal::{name, tell};
use crate::value::extjson::{self, Form};
use crate::value::{RawVal, tag};

#[derive(Debug, Args)]
pub(super) struct FailedArgs {
    /// A job's id, the unambiguous beginning or end of one, or `last`.
    #[arg(value_name = "JOB")]
    pub(super) job: String,
    /// At most this many; 0 is all of them.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    #[arg(value_parser = at_least_none(), allow_negative_numbers = true)]
    pub(super) limit: i64,
}

pub(super) async fn run(global: &Global, args: FailedArgs) -> Result<()> {
    let store = global.store("aviary-failed").await?;
    let job = store.find_job(&args.job).await?;
    let counted = store.counted_failed(&job).await?;
    let most = usize::try_from(args.limit).ok().filter(|most| *most > 0).unwrap_or(usize::MAX);
    let format = global.format();
    let mut headings = vec!["record", "stage", "_id or key", "what", "error"];
    if format == Format::Wide {
        headings.extend(["function", "bytes", "at"]);
    }
    let mut table = output::table(&headings);
    let mut shown = 0;
    store
        .each_failed(&job.id, &counted, |record| {
            shown += 1;
            let is_read = match format {
                Format::Json => output::line_is_read(json(&record))?,
                Format::Name => output::line_is_read(name(&record.name()))?,
                Format::Table | Format::Wide => {
                    table.add_row(row(&record, format == Format::Wide));
                    true
                }
            };
            Ok(is_read && shown < most)
        })
        .await?;
    if matches!(format, Format::Table | Format::Wide) && shown > 0 {
        table.print()?;
    }
    if store.job(&job.id).await?.is_none() {
        return Err(Error::NotFound {
            what: format!("job {}", job.id),
            hint: "it was removed while its records were listed; what is printed may lack some"
                .into(),
        });
    }
    if shown == 0 && output::is_for_people(global) {
        match job.spec.on_error.is_fail() {
            true => tell!(
                "job {} leaves no records out; with --on-error skip:N it does, and they are listed here",
                job.id
            ),
            false => tell!("job {} has left no records out", job.id),
        }
    }
    Ok(())
}

fn row(record: &FailedRecord, is_wide: bool) -> Vec<String> {
    let mut row = vec![
        record.name(),
        record.stage().to_owned(),
        record.id().map_or_else(|| "not kept".into(), |id| id.to_string()),
        record.what().to_owned(),
        shortened(record.error()),
    ];
    if is_wide {
        let function = record.function_name().unwrap_or_else(|| record.function());
        row.push(function.to_owned());
        row.push(record.bytes().to_string());
        row.push(output::date(record.at()).unwrap_or_default());
    }
    row
}

/// The first line of an error, cut to fit a table. `-o json` prints all of it.
fn shortened(error: &str) -> String {
    const CHARS_MAX: usize = 160;
    let line = error.lines().next().unwrap_or_default();
    match line.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line.to_owned(),
    }
}

fn json(record: &FailedRecord) -> Value {
    let shown = |value: RawVal<'_>| extjson::json(value, Form::Relaxed);
    let document =
        |doc: &bson::RawDocument| shown(RawVal { tag: tag::DOCUMENT, bytes: doc.as_bytes() });
    json!({
        "record": record.name(),
        "task": record.task(),
        "attempt": record.attempt(),
        "stage": record.stage(),
        "id": record.id().map(shown),
        "what": record.what(),
        "error": record.error(),
        "stack": record.stack(),
        "function": record.function(),
        "functionName": record.function_name(),
        "bytes": record.bytes(),
        "at": output::date(record.at()),
        "document": record.record().map(document),
    })
}

/// How many records a job has left out, once that is counted.
pub(super) fn skipped(job: &Job) -> i64 {
    job.counters.as_ref().and_then(|counters| counters.get_i64(SKIPPED).ok()).unwrap_or(0)
}

/// The same for people, if it has left any out.
pub(super) fn of_job(job: &Job) -> Option<String> {
    let skipped = skipped(job);
    (skipped > 0).then(|| format!("{skipped}; aviary failed {} lists them", job.id))
}

/// Tells a person whose job succeeded without some of its records.
pub(super) fn warn(job: &Job) {
    if job.state == JobState::Succeeded
        && let Some(skipped) = of_job(job)
    {
        tell!(
            "warning: documents and keys that functions failed on, and that were left out: {skipped}"
        );
    }
}
