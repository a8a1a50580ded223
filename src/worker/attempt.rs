//! One claimed task, from claim to commit, failure or hand-back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::deadline::Deadline;
use super::lines::{self, Lines};
use super::{loader, map, reduce};
use crate::config::{self, Settings};
use crate::error::{Error, Result};
use crate::ids::{JobId, WorkerId};
use crate::job::Job;
use crate::store::Store;
use crate::store::leases::{Claimed, Failure};
use crate::task::{Lease, Task, TaskKind, TaskResult};
use crate::wasm::Host;

/// What all attempts of a worker share.
pub(super) struct Context {
    pub(super) store: Store,
    pub(super) host: Host,
    pub(super) worker: WorkerId,
    pub(super) settings: Settings,
    pub(super) stop: CancellationToken,
    pub(super) specs: SpecCache,
}

/// One attempt: what the work needs, and what tells it to stop.
pub(super) struct Attempt {
    pub(super) store: Store,
    pub(super) host: Host,
    pub(super) job: Arc<Job>,
    pub(super) task: Task,
    pub(super) lease: Arc<Lease>,
    /// Documents or keys done, for people who watch.
    pub(super) progress: AtomicI64,
    /// What its functions log.
    pub(super) lines: Arc<Lines>,
    /// When its computing must have ended.
    pub(super) deadline: Option<Deadline>,
    stop: CancellationToken,
}

/// Jobs do not change once they are planned, so each is read once.
#[derive(Default)]
pub(super) struct SpecCache(Mutex<HashMap<JobId, Arc<Job>>>);

impl SpecCache {
    async fn get(&self, store: &Store, task: &Task) -> Result<Arc<Job>> {
        const KEPT_MAX: usize = 256;
        let known = self.lock().get(&task.job).cloned();
        if let Some(job) = known.filter(|job| job.plan == task.plan) {
            return Ok(job);
        }
        let job = store.job(&task.job).await?.ok_or_else(|| Error::NotFound {
            what: format!("job {} of task {}", task.job, task.id.short()),
            hint: String::new(),
        })?;
        let job = Arc::new(job);
        let mut jobs = self.lock();
        if jobs.len() >= KEPT_MAX {
            jobs.clear();
        }
        jobs.insert(task.job.clone(), job.clone());
        Ok(job)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, Arc<Job>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt {
    /// Fails when the attempt must not go on: its lease is no longer trusted, or the worker drains.
    pub(super) fn check(&self) -> Result<()> {
        if self.stop.is_cancelled() {
            return Err(Error::NotYet(DRAINED.to_owned()));
        }
        self.lease.check()
    }

    /// Whether another attempt may have written output already: an earlier one, or, where a failover has
    /// rolled the claim back, one of the same epoch. Nothing else writes what a reduce task does, so there
    /// it is taken for granted; the number of results is checked in the end.
    pub(super) fn is_repeat(&self) -> bool {
        self.task.epoch > 1 || self.task.kind == TaskKind::Reduce
    }
}

/// The history's word for an attempt that was handed back because its worker stopped.
const DRAINED: &str = "drained";

/// Runs a claimed task to its end. Whatever happens, nothing is left to the caller.
pub(super) async fn run(context: &Context, claimed: Claimed) {
    let Claimed { task, lease } = claimed;
    let started = Instant::now();
    let id = task.id.clone();
    tracing::info!(task = %id, worker = %context.worker, attempt = task.attempts, epoch = task.epoch, "claimed");
    let outcome = match context.specs.get(&context.store, &task).await {
        Ok(job) => {
            let limits = &job.spec.limits;
            let attempt = Arc::new(Attempt {
                lines: Lines::new(
                    id.as_str(),
                    usize::try_from(limits.log_bytes).unwrap_or(usize::MAX),
                ),
                deadline: limits.task_timeout_ms.and_then(Deadline::after_ms),
                store: context.store.clone(),
                host: context.host.clone(),
                job,
                task,
                lease: lease.clone(),
                progress: AtomicI64::new(0),
                stop: context.stop.clone(),
            });
            // Ends with this future whatever becomes of it: a lease that nobody works under has to run out.
            let renewer = AbortOnDropHandle::new(tokio::spawn(renew(
                attempt.clone(),
                context.settings.clone(),
            )));
            let worked = CancellationToken::new();
            let logged = tokio::spawn(lines::write(attempt.clone(), worked.clone()));
            let outcome = work(&attempt).await;
            worked.cancel();
            // Whoever sees that the task has ended finds its lines; they are not worth waiting for long.
            let _ = tokio::time::timeout(lines::LAST_LINES_MAX, logged).await;
            drop(renewer);
            outcome
        }
        Err(error) => Err(error),
    };
    let committed = match outcome {
        Ok(result) => context.store.commit(&lease, &result).await,
        Err(error) => Err(error),
    };
    let ms = started.elapsed().as_millis();
    match committed {
        Ok(()) => tracing::info!(task = %id, ms, "committed"),
        Err(error) => give_up(context, &lease, error).await,
    }
}

async fn work(attempt: &Arc<Attempt>) -> Result<TaskResult> {
    let worker = format!("worker {}", attempt.task.worker.as_deref().unwrap_or("?"));
    loader::refuse_memory(&attempt.job, &attempt.host, &worker, "workers")?;
    let result = match attempt.task.kind {
        TaskKind::Map => map::run(attempt).await?,
        TaskKind::Reduce => reduce::run(attempt).await?,
    };
    crate::halt::point(match attempt.task.kind {
        TaskKind::Map => "map.commit",
        TaskKind::Reduce => "reduce.commit",
    })
    .await;
    Ok(result)
}

/// Extends the lease until it is lost or the attempt ends.
async fn renew(attempt: Arc<Attempt>, settings: Settings) {
    /// A renewal that failed is tried again so soon: a failover leaves only part of the lease.
    const AGAIN: Duration = Duration::from_millis(250);
    let mut pause = settings.renew_every();
    loop {
        tokio::time::sleep(pause).await;
        pause = settings.renew_every();
        let sent = Instant::now();
        let progress = attempt.progress.load(Ordering::Relaxed);
        // Dropping a driver's future half-way may harm it, so an abort must not hit this one.
        let (store, lease, settings) =
            (attempt.store.clone(), attempt.lease.clone(), settings.clone());
        let renewal = tokio::spawn(async move { store.renew(&lease, progress, &settings).await });
        match renewal.await {
            Ok(Ok(true)) => attempt.lease.extend(sent),
            Ok(Ok(false)) => {
                tracing::warn!(task = %attempt.task.id, "the lease is lost; stopping the attempt");
                attempt.lease.lose();
                return;
            }
            // Trust goes on running out by itself.
            Ok(Err(error)) => {
                tracing::debug!(task = %attempt.task.id, %error, "could not renew");
                pause = pause.min(AGAIN);
            }
            Err(error) => tracing::error!(%error, "renewal panicked"),
        }
    }
}

/// Writes down how the attempt ended, behind the fence.
async fn give_up(context: &Context, lease: &Arc<Lease>, error: Error) {
    /// A pause before a task is tried again that waits for something else.
    const NOT_YET_PAUSE_MS: i64 = 500;
    let store = &context.store;
    let written = match &error {
        Error::LeaseLost(_) => {
            tracing::warn!(task = %lease.task, "fenced: the lease was lost before the commit");
            return;
        }
        Error::NotYet(why) if why == DRAINED => {
            tracing::info!(task = %lease.task, "handing the lease back");
            retrying(|| store.release(lease, DRAINED, None, 0)).await
        }
        Error::NotYet(why) => {
            tracing::debug!(task = %lease.task, why, "not yet");
            retrying(|| store.release(lease, "waited", None, NOT_YET_PAUSE_MS)).await
        }
        // A worker of the job's own version can do it.
        error @ Error::Newer { .. } => store.leave_to_others(lease, error).await.map(|()| true),
        Error::BlockMissing { task, shard, token, .. } => {
            tracing::warn!(task = %lease.task, %error, "sending the map task back");
            let why = error.to_string();
            let released =
                retrying(|| store.release(lease, "block missing", Some(&why), NOT_YET_PAUSE_MS))
                    .await;
            // The blocks of a job that has ended are gone for good, and so is the lease: a job's tasks are
            // cancelled before its blocks are removed.
            if matches!(released, Ok(true))
                && let Err(error) = store.reopen_lost(task, shard, token).await
            {
                tracing::warn!(%error, "could not send the map task back");
            }
            released
        }
        // A failover is not the task's fault, so it does not burn an attempt.
        error if error.is_transient() => {
            tracing::warn!(task = %lease.task, %error, "the database is away; handing the lease back");
            let why = error.to_string();
            retrying(|| store.release(lease, "database away", Some(&why), NOT_YET_PAUSE_MS)).await
        }
        error => {
            tracing::warn!(task = %lease.task, %error, "the attempt failed");
            let failure = Failure {
                code: error.code().to_owned(),
                message: error.to_string(),
                retryable: error.is_retryable(),
                attempts_max: attempts_max(error),
            };
            retrying(|| store.fail(lease, &failure)).await
        }
    };
    match written {
        Ok(true) => {}
        Ok(false) => tracing::warn!(task = %lease.task, "fenced: somebody else has the task"),
        // Its lease will run out.
        Err(error) => tracing::warn!(task = %lease.task, %error, "could not end the attempt"),
    }
}

/// A function that ran out of time may only have met a busy machine: it gets one more try.
fn attempts_max(error: &Error) -> i32 {
    const TIMEOUT_ATTEMPTS_MAX: i32 = 2;
    match error {
        Error::Function(_) | Error::TaskTimeout(_) => TIMEOUT_ATTEMPTS_MAX,
        _ => config::ATTEMPTS_MAX,
    }
}

/// Repeats a fenced write through a failover. A repeat of one that took effect matches nothing,
/// which is then reported as fenced and is as good.
async fn retrying<F, W>(write: F) -> Result<bool>
where
    F: Fn() -> W,
    W: Future<Output = Result<bool>>,
{
    const TRIES_MAX: u32 = 40;
    const PAUSE: Duration = Duration::from_millis(250);
    let mut tries = 0;
    loop {
        tries += 1;
        match write().await {
            Err(error) if error.is_transient() && tries < TRIES_MAX => {
                tokio::time::sleep(PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}
