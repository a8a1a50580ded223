//! `aviary tasks`: a job's tasks and their leases.

use bson::Document;
use clap::Args;
use serde_json::json;

use super::args::{Format, Global, at_least_none};
use super::output;
use crate::error::Result;
use crate::store::tasks::TaskFilter;
use crate::task::{Task, TaskState};
use crate::terminal::tell;

#[derive(Debug, Args)]
pub(super) struct TasksArgs {
    /// A job's id, the unambiguous beginning or end of one, or `last`.
    #[arg(value_name = "JOB")]
    pub(super) job: String,
    /// Only tasks in this state.
    #[arg(long, value_name = "S")]
    pub(super) state: Option<TaskState>,
    /// The longest-running first.
    #[arg(long)]
    pub(super) slowest: bool,
    /// Each attempt that has ended, with its worker, its time and what became of it.
    #[arg(long)]
    pub(super) history: bool,
    /// At most this many; 0 is all of them.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    #[arg(value_parser = at_least_none(), allow_negative_numbers = true)]
    pub(super) limit: i64,
}

pub(super) async fn run(global: &Global, args: TasksArgs) -> Result<()> {
    let store = global.store("aviary-tasks").await?;
    let job = store.find_job(&args.job).await?;
    let filter = TaskFilter { state: args.state, slowest: args.slowest, limit: args.limit };
    let listed = store.tasks(&job, &filter).await?;
    output::tell_unreadable(global, &listed.unreadable);
    let tasks = listed.rows;
    if args.history {
        return history(global, &tasks);
    }
    let wide = global.format() == Format::Wide;
    let mut headings = vec!["task", "state", "worker", "until", "attempts", "progress", "took"];
    if wide {
        headings.extend(["shard", "epoch", "error"]);
    }
    output::print_rows(
        global.format(),
        &tasks,
        |task| task.id.to_string(),
        task_json,
        &headings,
        |task| {
            let mut row = vec![
                task.id.short().to_owned(),
                task.state.to_string(),
                task.worker.clone().unwrap_or_default(),
                output::date(task.until).unwrap_or_default(),
                task.attempts.to_string(),
                task.progress.map(|n| n.to_string()).unwrap_or_default(),
                output::duration(task.leased, ended(task)),
            ];
            if wide {
                row.push(task.shard.clone());
                row.push(task.epoch.to_string());
                row.push(error_of(task).unwrap_or_default());
            }
            row
        },
    )
}

/// Attempts that have ended, task by task.
fn history(global: &Global, tasks: &[Task]) -> Result<()> {
    let attempts: Vec<(&Task, &Document)> = tasks
        .iter()
        .flat_map(|task| task.history.iter().map(move |attempt| (task, attempt)))
        .collect();
    let text =
        |attempt: &Document, field: &str| attempt.get_str(field).unwrap_or_default().to_owned();
    let date = |attempt: &Document, field: &str| attempt.get_datetime(field).ok().copied();
    if attempts.is_empty() && !global.quiet {
        tell!("no attempt has ended yet");
    }
    output::print_rows(
        global.format(),
        &attempts,
        |(task, _)| task.id.to_string(),
        |(task, attempt)| {
            let mut row = json!({ "task": task.id });
            if let (Some(row), serde_json::Value::Object(attempt)) =
                (row.as_object_mut(), output::ejson(&bson::Bson::Document((*attempt).clone())))
            {
                row.extend(attempt);
            }
            row
        },
        &["task", "epoch", "worker", "began", "took", "outcome", "error"],
        |(task, attempt)| {
            vec![
                task.id.short().to_owned(),
                attempt.get("epoch").map(output::number).unwrap_or_default(),
                text(attempt, "worker"),
                output::date(date(attempt, "began")).unwrap_or_default(),
                output::duration(date(attempt, "began"), date(attempt, "ended")),
                text(attempt, "outcome"),
                text(attempt, "error"),
            ]
        },
    )
}

/// When the last attempt ended: never, for one that runs.
fn ended(task: &Task) -> Option<bson::DateTime> {
    if task.state == TaskState::Leased {
        return None;
    }
    let last = task.history.last().and_then(|attempt| attempt.get_datetime("ended").ok());
    task.finished.or(last.copied())
}

fn error_of(task: &Task) -> Option<String> {
    let error = task.error.as_ref()?;
    error.get_str("message").ok().map(str::to_owned)
}

fn task_json(task: &Task) -> serde_json::Value {
    let history: Vec<_> =
        task.history.iter().map(|h| output::ejson(&bson::Bson::Document(h.clone()))).collect();
    json!({
        "id": task.id,
        "job": task.job,
        "kind": task.kind,
        "n": task.n,
        "shard": task.shard,
        "state": task.state,
        "worker": task.worker,
        "leased": output::date(task.leased),
        "until": output::date(task.until),
        "finished": output::date(task.finished),
        "epoch": task.epoch,
        "attempts": task.attempts,
        "lost": task.lost,
        "progress": task.progress,
        "counters": task.result.as_ref().map(|r| output::ejson(&bson::Bson::Document(r.counters.clone()))),
        "history": history,
        "error": error_of(task),
    })
}
