//! Why a job does not move.

use std::fmt;

use bson::DateTime;
use serde_json::{Value, json};

use super::output;
use crate::config;
use crate::error::Result;
use crate::job::{Job, JobState};
use crate::store::Store;
use crate::store::tasks::TaskFilter;
use crate::store::workers::WorkerRow;
use crate::task::{Task, TaskState};

/// One thing that a job waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reason {
    /// The task that waits, if it is one.
    task: Option<String>,
    why: String,
    since: Option<DateTime>,
}

impl Reason {
    fn general(why: impl Into<String>) -> Self {
        Self { task: None, why: why.into(), since: None }
    }

    fn of(task: &Task, why: String) -> Self {
        Self { task: Some(task.id.short().to_owned()), why, since: None }
    }
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
    if let Some(waiting) = &job.waiting {
        let since = Some(waiting.since);
        reasons.push(Reason { since, ..Reason::general(&waiting.why) });
    }
    if job.state == JobState::Stopped {
        reasons.push(Reason::general(format!(
            "somebody has to decide: aviary resume {0} goes on publishing, aviary cancel {0} leaves the target as it is",
            job.id
        )));
        return Ok(reasons);
    }
    reasons.extend(of_tasks(store, job).await?);
    if !store.has_coordinator().await? {
        reasons.push(Reason::general(store.missing("coordinator")));
    }
    let workers = store.workers().await?.rows;
    let alive: Vec<&WorkerRow> = workers.iter().filter(|worker| worker.is_alive()).collect();
    if alive.is_empty() {
        reasons.push(Reason::general(store.missing("worker")));
        return Ok(reasons);
    }
    let able: Vec<&WorkerRow> =
        alive.into_iter().filter(|worker| worker.level >= job.requires).collect();
    if able.is_empty() {
        reasons.push(Reason::general(
            "no worker that runs is of a version that can do this job: upgrade a worker, then the job goes on",
        ));
        return Ok(reasons);
    }
    let leased = TaskFilter { state: Some(TaskState::Leased), limit: 1_000, slowest: false };
    let leased = store.tasks(job, &leased).await?.rows;
    let stuck: Vec<Reason> = leased.iter().filter_map(|task| vanished(task, &workers)).collect();
    let ready = store.shards_of_ready(job).await?;
    reasons.extend(unserved(store, &ready, &able).map(Reason::general));
    if stuck.len() == leased.len() && !ready.is_empty() {
        reasons.extend(busy(store, &ready, &able).await?.map(Reason::general));
    }
    reasons.extend(stuck);
    Ok(reasons)
}

/// What tasks say that they wait for, where that is still so.
async fn of_tasks(store: &Store, job: &Job) -> Result<Vec<Reason>> {
    let stopped = match job.state {
        JobState::Publishing => stopped_before(store, job).await?,
        _ => None,
    };
    // A worker may have met the task while a person was about to resume its job.
    let was_stopped = format!("job {} is stopped", job.id);
    let waiting = store.waiting_tasks(job).await?.into_iter();
    let reasons =
        waiting.filter(|(_, waiting)| waiting.why != was_stopped).map(|(task, waiting)| Reason {
            task: Some(task.short().to_owned()),
            why: stopped.clone().unwrap_or(waiting.why),
            since: Some(waiting.since),
        });
    Ok(reasons.collect())
}

/// A job that has the target's turn and does not go on without a person.
async fn stopped_before(store: &Store, job: &Job) -> Result<Option<String>> {
    let output = &job.spec.output;
    let Some(other) = store.has_turn(output).await?.filter(|other| *other != job.id) else {
        return Ok(None);
    };
    let is_stopped = store.job(&other).await?.is_some_and(|job| job.state == JobState::Stopped);
    Ok(is_stopped.then(|| {
        format!(
            "job {other}, whose turn it is to publish into {}.{}, is stopped: aviary resume {other} or aviary \
             cancel {other}",
            output.db, output.collection
        )
    }))
}

fn serves(store: &Store, worker: &WorkerRow, shard: &str) -> bool {
    shard == store.home() || worker.shard == shard || worker.shard == store.home()
}

/// Shards that have tasks and no worker.
fn unserved(store: &Store, ready: &[String], alive: &[&WorkerRow]) -> Option<String> {
    let is_served = |shard: &str| alive.iter().any(|worker| serves(store, worker, shard));
    let idle: Vec<&str> =
        ready.iter().map(String::as_str).filter(|shard| !is_served(shard)).collect();
    (!idle.is_empty()).then(|| {
        format!(
            "no worker serves the shard {}; start one there with: aviary worker --shard-uri URI",
            idle.join(", ")
        )
    })
}

/// Whether other tasks take all the slots that a job's tasks could use.
async fn busy(store: &Store, ready: &[String], alive: &[&WorkerRow]) -> Result<Option<String>> {
    let serving = alive.iter().filter(|w| ready.iter().any(|shard| serves(store, w, shard)));
    let serving: Vec<&&WorkerRow> = serving.collect();
    let leases = store.leases_by_worker().await?;
    let is_full = |worker: &WorkerRow| {
        let held = leases.get(worker.name()).copied().unwrap_or(0);
        held >= i64::from(worker.slots)
    };
    let slots: i32 = serving.iter().map(|worker| worker.slots).sum();
    let are_full = !serving.is_empty() && serving.iter().all(|worker| is_full(worker));
    Ok(are_full.then(|| match (slots, serving.len()) {
        (1, _) => "the only slot of the only worker is busy".to_owned(),
        (slots, 1) => format!("all {slots} slots of the only worker are busy"),
        (slots, workers) => format!("all {slots} slots of {workers} workers are busy"),
    }))
}

/// A lease whose holder is not heard of any more.
fn vanished(task: &Task, workers: &[WorkerRow]) -> Option<Reason> {
    let name = task.worker.as_ref()?;
    let now = workers.iter().map(|row| row.seen.timestamp_millis() + row.silent_ms).max()?;
    let until = task.until?;
    if until.timestamp_millis() < now {
        let why = format!("the lease of its worker {name} has run out; it waits for a free slot");
        return Some(Reason::of(task, why));
    }
    let seen = match workers.iter().find(|row| row.name() == name) {
        Some(row) if row.silent_ms <= config::WORKER_SILENT_MS => return None,
        Some(row) => format!("was last seen {} s ago", row.silent_ms / 1_000),
        None => "is not heard of".to_owned(),
    };
    let until = output::date(Some(until)).unwrap_or_default();
    let why = format!("its worker {name} {seen}; the lease runs out at {until}");
    Some(Reason::of(task, why))
}

/// The reasons for scripts.
pub(super) fn json(reasons: &[Reason]) -> Value {
    let one = |reason: &Reason| json!({ "task": reason.task, "why": reason.why, "since": output::date(reason.since) });
    Value::Array(reasons.iter().map(one).collect())
}
