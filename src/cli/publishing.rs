//! How far publishing has come, for people and for scripts.

use serde_json::{Value, json};

use crate::error::Result;
use crate::job::{Job, JobState, OutputMode};
use crate::protocol::publish::merged;
use crate::store::Store;
use crate::task::{Publish, Task, TaskState};

/// One line for a person. Nothing before publishing begins.
///
/// # Errors
/// [`Error::Store`](crate::error::Error::Store).
pub(super) async fn row(store: &Store, job: &Job) -> Result<Option<String>> {
    let Some((task, publish)) = publish_task(store, job).await? else { return Ok(None) };
    let output = &job.spec.output;
    let (step, rows) = (step(job, &task, &publish), publish.rows);
    let target = format!("{}.{}", output.db, output.collection);
    let is_in_place = task.state == TaskState::Done;
    Ok(Some(match merged(output, &task) {
        _ if is_in_place && output.mode == OutputMode::Inline => {
            format!("{step}, {rows} results: aviary results {} prints them", job.id)
        }
        _ if is_in_place => format!("{step}, {rows} results"),
        Some(_) if job.state == JobState::Publishing => {
            format!("{step}, up to {} of {rows} results", task.merged_at_most())
        }
        Some(merged) => format!("{step}, {merged}"),
        None if job.state == JobState::Publishing => format!("{step}, {rows} results"),
        None if output.mode.has_target() => format!("{step}, nothing was changed in {target}"),
        None => step.to_owned(),
    }))
}

/// The same for scripts.
///
/// # Errors
/// [`Error::Store`](crate::error::Error::Store).
pub(super) async fn json(store: &Store, job: &Job) -> Result<Value> {
    Ok(publish_task(store, job).await?.map_or(Value::Null, |(task, publish)| {
        let done = match task.state {
            TaskState::Done => Some(publish.rows),
            _ if job.spec.output.mode.adds() => Some(task.merged_at_most()),
            _ => task.progress,
        };
        json!({
            "state": task.state,
            "step": step(job, &task, &publish),
            "done": done,
            "results": publish.rows,
        })
    }))
}

async fn publish_task(store: &Store, job: &Job) -> Result<Option<(Task, Publish)>> {
    let task = store.publish_task(job).await?;
    Ok(task.and_then(|task| task.publish.clone().map(|publish| (task, publish))))
}

fn step(job: &Job, task: &Task, publish: &Publish) -> &'static str {
    match (job.state, task.state, publish.marks) {
        (_, TaskState::Done, _) => match job.spec.output.mode {
            OutputMode::Inline => "kept",
            _ => "in place",
        },
        (JobState::Cancelled, ..) => "cancelled",
        (JobState::Failed, ..) => "failed",
        (JobState::Stopped, ..) => "stopped",
        (_, _, marks) if marks.begun => "being put in place",
        (_, _, marks) if marks.completed => "completed",
        (_, _, marks) if marks.counted => "counted",
        _ => "waiting",
    }
}
