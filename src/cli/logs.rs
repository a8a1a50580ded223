//! `aviary logs`: what a job's functions logged, in the order of tasks, attempts and lines.

use std::collections::HashSet;
use std::io::Write as _;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::args::{Format, Global};
use super::output;
use crate::error::{Error, Result};
use crate::ids::TaskId;
use crate::job::Job;
use crate::store::Store;
use crate::store::logs::{LogBatch, LogLine};
use crate::store::tasks::TaskFilter;
use crate::terminal::{self, name, one_line};

#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// A job's id, the unambiguous beginning or end of one, or `last`.
    #[arg(value_name = "JOB")]
    pub(super) job: String,
    /// Only lines of this task, as `aviary tasks` names it, e.g. map/1.00003.
    #[arg(long, value_name = "T")]
    pub(super) task: Option<String>,
    /// Go on printing until the job ends.
    #[arg(short, long)]
    pub(super) follow: bool,
}

/// Batches read at once: each has at most so many lines as an attempt may log.
const BATCHES_PER_READ: usize = 16;
/// Pause between two looks at a job that is followed.
const FOLLOW_PAUSE: Duration = Duration::from_millis(500);

pub(super) async fn run(global: &Global, args: LogsArgs) -> Result<()> {
    let store = global.store("aviary-logs").await?;
    let mut job = store.find_job(&args.job).await?;
    let task = match &args.task {
        Some(text) => Some(find_task(&store, &job, text).await?),
        None => None,
    };
    let mut printed = HashSet::new();
    loop {
        // Read before the lines are, so that the last look comes after the job's end.
        let over = !args.follow || job.state.is_terminal();
        if !print_new(global, &store, &job, task.as_ref(), &mut printed).await? || over {
            return Ok(());
        }
        tokio::time::sleep(FOLLOW_PAUSE).await;
        job = store.job(&job.id).await?.ok_or_else(|| Error::NotFound {
            what: format!("job {}", job.id),
            hint: "it was removed meanwhile".into(),
        })?;
    }
}

/// Prints the batches that were not printed yet; false when nobody reads on.
async fn print_new(
    global: &Global,
    store: &Store,
    job: &Job,
    task: Option<&TaskId>,
    printed: &mut HashSet<String>,
) -> Result<bool> {
    let prefix = task.map(|task| format!("{task}/"));
    let mut names = store.log_names(job).await?;
    names.retain(|name| {
        prefix.as_ref().is_none_or(|prefix| name.starts_with(prefix)) && !printed.contains(name)
    });
    for some in names.chunks(BATCHES_PER_READ) {
        let listed = store.logs(&job.id, some).await?;
        output::tell_unreadable(global, &listed.unreadable);
        for batch in listed.rows {
            match print(global.format(), &batch) {
                Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => return Ok(false),
                written => written.map_err(|e| Error::io("print the lines", e))?,
            }
        }
    }
    printed.extend(names);
    Ok(true)
}

fn print(format: Format, batch: &LogBatch) -> std::io::Result<()> {
    let mut out = terminal::out();
    let (task, attempt) = (batch.task.short(), batch.attempt);
    for line in &batch.lines {
        let at = output::date(Some(line.at)).unwrap_or_default();
        match format {
            Format::Json => {
                let line = json!({
                    "task": batch.task, "attempt": attempt, "worker": batch.worker, "at": at,
                    "level": line.level, "stage": line.stage, "text": line.text,
                });
                writeln!(out, "{line}")?;
            }
            Format::Name => writeln!(out, "{}", name(&line.text))?,
            Format::Table => {
                let (kind, text) = shown(line);
                writeln!(out, "{task} #{attempt} {kind}: {text}")?;
            }
            Format::Wide => {
                let worker = one_line(batch.worker.as_deref().unwrap_or("?"));
                let (kind, text) = shown(line);
                writeln!(out, "{at} {task} #{attempt} {worker} {kind}: {text}")?;
            }
        }
    }
    if batch.dropped == 0 {
        return Ok(());
    }
    match format {
        Format::Json => {
            let note = json!({ "task": batch.task, "attempt": attempt, "dropped": batch.dropped });
            writeln!(out, "{note}")
        }
        Format::Table | Format::Wide => {
            writeln!(out, "{task} #{attempt} ({} more lines were dropped)", batch.dropped)
        }
        Format::Name => Ok(()),
    }
}

/// A line's stage and level, and its text. Only what begins a line of ours begins at the margin.
fn shown(line: &LogLine) -> (String, String) {
    (one_line(&format!("{} {}", line.stage, line.level)), line.text.replace('\n', "\n    "))
}

/// A task of the job by its id or the part after the job's.
async fn find_task(store: &Store, job: &Job, text: &str) -> Result<TaskId> {
    let tasks = store.tasks(job, &TaskFilter::default()).await?.rows;
    let found = tasks.into_iter().find(|task| task.id.as_str() == text || task.id.short() == text);
    found.map(|task| task.id).ok_or_else(|| Error::NotFound {
        what: format!("task {text} of job {}", job.id),
        hint: format!("aviary tasks {} lists them", job.id),
    })
}
