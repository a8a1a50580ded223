//! Why a job does not move, and how far its publishing has come.

use std::collections::BTreeSet;
use std::fmt;

use bson::DateTime;
use serde_json::{Value, json};

use super::output;
use crate::error::Result;
use crate::job::{Job, JobState};
use crate::store::Store;
use crate::store::tasks::TaskFilter;
use crate::store::workers::WorkerRow;
use crate::task::{Publish, Task, TaskState};

/// One thing that a job waits for.
pub(super) struct Reason {
    /// The task that waits, if it is one.
    task: Option<String>,
    why: String,
    since: Option<DateTime>,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(task) = &self.task {
            write!(f, "{task}: ")?;
        }
        f.write_str(&self.why)?;
        if let Some(since) = output::date(self.since) {
            write!(f, " (since {since})")?;
        }
        Ok(())
    }
}

/// What keeps a job from moving. Nothing, for one that has ended or moves.
///
/// # Errors
/// [`Error::Store`](crate::error::Error::Store).
pub(super) async fn reasons(store: &Store, job: &Job) -> Result<Vec<Reason>> {
    if job.state.is_terminal() {
        return Ok(Vec::new());
    }
    let mut reasons = Vec::new();
    let general = |why: String| Reason { task: None, why, since: None };
    if let Some(waiting) = &job.waiting {
        reasons.push(Reason { since: Some(waiting.since), ..general(waiting.why.clone()) });
    }
    if job.state == JobState::Stopped {
        let what = format!(
            "a person: aviary resume {0} goes on publishing, aviary cancel {0} leaves the target as it is",
            job.id
        );
        reasons.push(general(what));
        return Ok(reasons);
    }
    for (task, waiting) in store.waiting_tasks(job).await? {
        reasons.push(Reason {
            task: Some(task.short().to_owned()),
            why: waiting.why,
            since: Some(waiting.since),
        });
    }
    if !store.has_coordinator().await? {
        reasons.push(general("no coordinator is running".into()));
    }
    let workers = store.workers().await?.rows;
    let alive: Vec<WorkerRow> = workers.into_iter().filter(WorkerRow::is_alive).collect();
    if alive.is_empty() {
        reasons.push(general("no worker is running".into()));
        return Ok(reasons);
    }
    let some = |state| TaskFilter { state: Some(state), limit: 1_000, ..TaskFilter::default() };
    let ready = store.tasks(job, &some(TaskState::Ready)).await?.rows;
    reasons.extend(unserved(store, &ready, &alive).into_iter().map(general));
    let leased = store.tasks(job, &some(TaskState::Leased)).await?.rows;
    reasons.extend(leased.iter().filter_map(|task| vanished(task, &alive)));
    Ok(reasons)
}

/// Shards that have tasks and no worker.
fn unserved(store: &Store, ready: &[Task], alive: &[WorkerRow]) -> Option<String> {
    let served = |shard: &str| {
        shard == store.home()
            || alive.iter().any(|worker| worker.shard == shard || worker.shard == store.home())
    };
    let idle: BTreeSet<&str> =
        ready.iter().map(|task| task.shard.as_str()).filter(|shard| !served(shard)).collect();
    let names: Vec<&str> = idle.into_iter().collect();
    (!names.is_empty()).then(|| format!("no worker serves the shard {}", names.join(", ")))
}

/// A lease whose holder is not heard of any more.
fn vanished(task: &Task, alive: &[WorkerRow]) -> Option<Reason> {
    let worker = task.worker.as_ref()?;
    let is_heard_of = alive.iter().any(|row| row.id.strip_prefix("worker/") == Some(worker));
    (!is_heard_of).then(|| Reason {
        task: Some(task.id.short().to_owned()),
        why: format!(
            "the lease of {worker}, which is not heard of, to run out at {}",
            output::date(task.until).unwrap_or_default()
        ),
        since: None,
    })
}

/// The reasons for scripts.
pub(super) fn json(reasons: &[Reason]) -> Value {
    let one = |reason: &Reason| json!({ "task": reason.task, "why": reason.why, "since": output::date(reason.since) });
    Value::Array(reasons.iter().map(one).collect())
}

/// How far publishing has come, for a person. Nothing before it begins.
///
/// # Errors
/// [`Error::Store`](crate::error::Error::Store).
pub(super) async fn publish_row(store: &Store, job: &Job) -> Result<Option<String>> {
    Ok(publish_task(store, job).await?.map(|(task, publish)| {
        let step = step(&task, &publish);
        match task.progress {
            Some(done) if task.state == TaskState::Leased => {
                format!("{step}, {done} of {} results", publish.rows)
            }
            _ => format!("{step}, {} results", publish.rows),
        }
    }))
}

/// The same for scripts.
///
/// # Errors
/// [`Error::Store`](crate::error::Error::Store).
pub(super) async fn publish_json(store: &Store, job: &Job) -> Result<Value> {
    Ok(publish_task(store, job).await?.map_or(Value::Null, |(task, publish)| {
        json!({
            "state": task.state,
            "step": step(&task, &publish),
            "done": task.progress,
            "results": publish.rows,
        })
    }))
}

async fn publish_task(store: &Store, job: &Job) -> Result<Option<(Task, Publish)>> {
    let task = store.publish_task(job).await?;
    Ok(task.and_then(|task| task.publish.clone().map(|publish| (task, publish))))
}

fn step(task: &Task, publish: &Publish) -> &'static str {
    match (task.state, publish.marks) {
        (TaskState::Done, _) => "in place",
        (_, marks) if marks.begun => "being put in place",
        (_, marks) if marks.completed => "completed",
        (_, marks) if marks.counted => "counted",
        _ => "waiting",
    }
}
