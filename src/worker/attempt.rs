//! One claimed task, from claim to commit, failure or hand-back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::commits::Commits;
use super::slots::Slot;
use super::spills::Spills;
use super::{log_writer, map, publish_task, reduce, runs};
use crate::config::{self, Caps, Settings};
use crate::error::{Error, Result};
use crate::exec::combiner::boxed;
use crate::exec::deadline::Deadline;
use crate::exec::log_buffer::Lines;
use crate::exec::prepare::{self, ExecEnv};
use crate::ids::{JobId, WorkerId};
use crate::job::{Job, JobState, OutputMode};
use crate::planted::planted;
use crate::settings::Live;
use crate::store::Store;
use crate::store::leases::{Claimed, Failure, HandBack};
use crate::store::retry::{self, within};
use crate::task::{Lease, Task, TaskKind, TaskResult};
use crate::wasm::{Host, Interrupt};

/// What all attempts of a worker share.
pub(super) struct Context {
    pub(super) store: Store,
    pub(super) host: Host,
    pub(super) worker: WorkerId,
    pub(super) settings: Live,
    pub(super) stop: CancellationToken,
    pub(super) specs: SpecCache,
    pub(super) commits: Commits,
    pub(super) spills: Spills,
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
    confirmed: OnceCell<()>,
    /// Bytes that a map task's manifest may have in the task's document.
    pub(super) manifest_bytes_max: usize,
    /// Bytes of blocks that a map task may leave in its document.
    pub(super) kept_bytes_max: usize,
    /// What jobs may ask of this worker.
    pub(super) caps: Caps,
    /// The room for temporary files.
    pub(super) spills: Spills,
    stop: CancellationToken,
}

/// Jobs do not change once they are planned, so each is read once.
#[derive(Default)]
pub(super) struct SpecCache(Mutex<HashMap<JobId, Arc<Job>>>);

impl SpecCache {
    /// The job of a task.
    ///
    /// # Errors
    /// [`Error::JobCancelled`] when the job has ended or the task's plan does not count, [`Error::NotYet`]
    /// while the plan is not complete, [`Error::Refused`] and [`Error::Usage`] for a job that asks for what no job may,
    /// [`Error::Unfit`] for more than this worker gives, [`Error::Store`].
    async fn get(&self, store: &Store, task: &Task, caps: &Caps) -> Result<Arc<Job>> {
        const KEPT_MAX: usize = 256;
        let known = self.lock().get(&task.job).cloned();
        if let Some(job) = known.filter(|job| job.plan == task.plan) {
            return Ok(job);
        }
        let ended = || Error::JobCancelled(task.job.to_string());
        let job = store.job(&task.job).await?.ok_or_else(ended)?;
        if job.plan != task.plan || job.state.is_terminal() {
            return Err(ended());
        }
        // A majority may not have the whole plan yet, and what a plan lacks must not be kept.
        if matches!(job.state, JobState::Submitted | JobState::Planning) {
            return Err(Error::NotYet(format!("the plan of job {} is not complete", job.id)));
        }
        // Not every job has been through `aviary submit`, or past a coordinator.
        Caps::default().check_job(&job)?;
        job.spec.validate(store.db_name())?;
        caps.check(&job.spec)
            .map_err(|over| Error::unfit(over.to_string(), "give every worker the same caps"))?;
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
            return Err(Error::Drained);
        }
        self.lease.check()
    }

    /// Waits until the attempt must not go on, and says why.
    pub(super) async fn ended(self: Arc<Self>) -> Error {
        const LOOK_EVERY: Duration = Duration::from_millis(200);
        loop {
            if let Err(why) = self.check() {
                return why;
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    /// Whether another attempt may have written output already. Nothing else writes what a reduce task does, so
    /// there it is taken for granted; the number of results is checked in the end. What a map task writes is
    /// known by its epoch, which [`confirm_claim`](Self::confirm_claim) makes good for.
    pub(super) fn is_repeat(&self) -> bool {
        self.task.epoch > 1 || self.task.kind == TaskKind::Reduce
    }

    /// Makes sure, before a map task's first result is written, that no failover can roll the claim back: the
    /// next attempt would have the same epoch, and would take this one's results for somebody else's. So would the
    /// attempt before, which a failover would give its lease back.
    pub(super) async fn confirm_claim(&self) -> Result<()> {
        if self.task.kind == TaskKind::Reduce || planted("claim-unconfirmed") {
            return Ok(());
        }
        self.confirmed.get_or_try_init(|| self.store.confirm(&self.lease)).await.map(|_| ())
    }
}

/// Runs a claimed task to its end. Whatever happens, nothing is left to the caller. The slot is free once the work is
/// done, or nobody waits for it any more.
pub(super) async fn run(context: &Arc<Context>, claimed: Claimed, slot: Arc<Slot>) {
    run_in(context, claimed, &slot).await;
    slot.free();
}

async fn run_in(context: &Arc<Context>, claimed: Claimed, slot: &Arc<Slot>) {
    let Claimed { task, lease, charge } = claimed;
    slot.charge(charge);
    let started = Instant::now();
    let id = task.id.clone();
    let times_shut = context.store.times_shut();
    tracing::info!(task = %id, worker = %context.worker, attempt = task.attempts, epoch = task.epoch, "claimed");
    // In a task of its own, so that a call without an answer costs no more than this attempt: an attempt that
    // has lost its lease can write nothing that counts.
    let attempting = tokio::spawn(attempt(context.clone(), task, lease.clone(), slot.clone()));
    let committed = tokio::select! {
        ended = attempting => match ended {
            Ok(outcome) => outcome,
            Err(error) => Err(Error::Internal(format!("the attempt panicked: {error}"))),
        },
        () = abandoned(&lease) => {
            tracing::warn!(task = %id, "the lease is lost, and the attempt does not end; going on without it");
            return;
        }
    };
    let ms = started.elapsed().as_millis();
    match committed {
        Ok(()) => tracing::info!(task = %id, ms, "committed"),
        Err(error) => {
            let (store, of_task) = (context.store.clone(), lease.clone());
            let ending = async move {
                let error = store.reconsidered(error, times_shut).await;
                give_up(&store, &of_task, error).await;
                Ok(())
            };
            // Its lease will run out.
            if let Err(error) = within(retry::ANSWER_MAX, "end the attempt", ending).await {
                tracing::warn!(task = %id, %error, "could not end the attempt");
            }
        }
    }
}

/// Waits until a lease has been lost for so long that an attempt should have noticed.
async fn abandoned(lease: &Lease) {
    const LOOK_EVERY: Duration = Duration::from_secs(1);
    let mut lost_at: Option<Instant> = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if lease.is_trusted() {
            lost_at = None;
        } else if lost_at.get_or_insert_with(Instant::now).elapsed() > config::ABANDON_AFTER {
            return;
        }
    }
}

/// One attempt, from the job's document to the commit.
async fn attempt(
    context: Arc<Context>,
    task: Task,
    lease: Arc<Lease>,
    slot: Arc<Slot>,
) -> Result<()> {
    let settings = context.settings.now();
    let job = context.specs.get(&context.store, &task, &settings.caps).await?;
    // A grant can be taken back.
    context.store.authorize(&job.spec).await?;
    let limits = &job.spec.limits;
    let attempt = Arc::new(Attempt {
        lines: Lines::new(
            task.id.as_str(),
            usize::try_from(limits.log_bytes).unwrap_or(usize::MAX),
        ),
        deadline: Deadline::after_ms(settings.caps.task_timeout(&job.spec)),
        store: context.store.clone(),
        host: context.host.clone(),
        job,
        task,
        lease: lease.clone(),
        progress: AtomicI64::new(0),
        confirmed: OnceCell::new(),
        manifest_bytes_max: settings.manifest_bytes_max,
        kept_bytes_max: settings.kept_bytes_max,
        caps: settings.caps,
        spills: context.spills.clone(),
        stop: context.stop.clone(),
    });
    // Ends with this future whatever becomes of it: a lease that nobody works under has to run out.
    let renewer = AbortOnDropHandle::new(tokio::spawn(renew(attempt.clone(), settings)));
    let worked = CancellationToken::new();
    let logged = tokio::spawn(log_writer::write(attempt.clone(), worked.clone()));
    let outcome = work(&attempt).await;
    slot.free();
    worked.cancel();
    // Whoever sees that the task has ended finds its lines; they are not worth waiting for long.
    let _ = tokio::time::timeout(log_writer::LAST_LINES_MAX, logged).await;
    drop(renewer);
    context.commits.commit(lease, outcome?).await
}

async fn work(attempt: &Arc<Attempt>) -> Result<TaskResult> {
    let kind = attempt.task.kind;
    // Publishing runs functions only to reduce results with what the target holds.
    if kind != TaskKind::Publish || attempt.job.spec.output.mode == OutputMode::Reduce {
        let worker = attempt.task.worker.as_deref().unwrap_or("?");
        prepare::check_memory(&attempt.job, &attempt.host, worker)?;
    }
    let result = match kind {
        TaskKind::Map => map::run(attempt).await?,
        TaskKind::Reduce => reduce::run(attempt).await?,
        TaskKind::Publish => publish_task::run(attempt).await?,
    };
    if planted("counters-early") {
        attempt.store.count_early(&attempt.job.id, &result.counters).await?;
    }
    crate::halt::point(match kind {
        TaskKind::Map => "map.commit",
        TaskKind::Reduce => "reduce.commit",
        TaskKind::Publish => "publish.commit",
    })
    .await;
    Ok(result)
}

/// Extends the lease until it is lost or the attempt ends: by as much as it was claimed for, which is how long it is
/// trusted here, whatever new leases get by now.
async fn renew(attempt: Arc<Attempt>, settings: Settings) {
    let settings = Settings { lease_ttl_ms: attempt.lease.ttl_ms, ..settings };
    /// A renewal that failed is tried again so soon: a failover leaves only part of the lease.
    const AGAIN: Duration = Duration::from_millis(250);
    let mut pause = settings.renew_every();
    loop {
        tokio::time::sleep(pause).await;
        pause = settings.renew_every();
        let sent = Instant::now();
        let progress = attempt.progress.load(Ordering::Relaxed);
        // Dropping a driver's future half-way may harm it, so an abort must not hit this one.
        let (store, lease) = (attempt.store.clone(), attempt.lease.clone());
        let answer_max = settings.renew_every();
        let renewal = async move { store.renew(&lease, progress, &settings).await };
        match within(answer_max, "renew a lease", renewal).await {
            Ok(true) => attempt.lease.extend(sent),
            Ok(false) => {
                tracing::warn!(task = %attempt.task.id, "the lease is lost; stopping the attempt");
                attempt.lease.lose();
                return;
            }
            // Trust goes on running out by itself.
            Err(error) => {
                tracing::debug!(task = %attempt.task.id, %error, "could not renew");
                pause = pause.min(AGAIN);
            }
        }
    }
}

/// Writes down how the attempt ended, behind the fence.
async fn give_up(store: &Store, lease: &Arc<Lease>, error: Error) {
    let written = match &error {
        Error::LeaseLost(_) => {
            tracing::warn!(task = %lease.task, "fenced: the lease was lost before the commit");
            return;
        }
        Error::Drained => {
            tracing::info!(task = %lease.task, "handing the lease back");
            release(store, lease, HandBack::drained()).await
        }
        Error::NotYet(why) => {
            tracing::debug!(task = %lease.task, why, "not yet");
            release(store, lease, HandBack::waiting("waited", why)).await
        }
        // Another worker may have what this one lacks, or be of the job's own version.
        error @ (Error::Unfit { .. } | Error::Newer { .. }) if !planted("unfit-fails") => {
            tracing::warn!(task = %lease.task, %error, "leaving the task to another worker");
            store.leave_to_others(lease, error).await
        }
        Error::JobCancelled(_) => {
            tracing::info!(task = %lease.task, "the job has ended or is to end; so does the task");
            retry::while_transient(retry::FAREWELL, || store.cancel_own(lease)).await
        }
        Error::BlockMissing { damage, task, shard, token, .. } => {
            tracing::warn!(task = %lease.task, %error, "sending the map task back");
            let outcome = if damage.is_some() { runs::BLOCK_DAMAGED } else { "block missing" };
            let released =
                release(store, lease, HandBack::waiting(outcome, error.to_string())).await;
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
            release(store, lease, HandBack::waiting("database away", error.to_string())).await
        }
        error => {
            tracing::warn!(task = %lease.task, %error, "the attempt failed");
            let failure = Failure {
                code: error.code().to_owned(),
                message: error.to_string(),
                retryable: error.is_retryable(),
                attempts_max: attempts_max(error),
            };
            retry::while_transient(retry::FAREWELL, || store.fail(lease, &failure)).await
        }
    };
    match written {
        Ok(true) => {}
        Ok(false) => tracing::warn!(task = %lease.task, "fenced: somebody else has the task"),
        // Its lease will run out.
        Err(error) => tracing::warn!(task = %lease.task, %error, "could not end the attempt"),
    }
}

/// Hands back a task that was claimed ahead and not begun.
pub(super) async fn hand_back(store: &Store, lease: &Arc<Lease>) {
    give_up(store, lease, Error::Drained).await;
}

/// Hands a lease back through a failover. A repeat of what took effect matches nothing, which is then reported
/// as fenced and is as good.
async fn release(store: &Store, lease: &Lease, back: HandBack) -> Result<bool> {
    retry::while_transient(retry::FAREWELL, || store.release(lease, &back)).await
}

/// A function that ran out of time may only have met a busy machine: it gets one more try.
fn attempts_max(error: &Error) -> i32 {
    const TIMEOUT_ATTEMPTS_MAX: i32 = 2;
    match error {
        Error::Function(_) | Error::TaskTimeout(_) => TIMEOUT_ATTEMPTS_MAX,
        _ => config::ATTEMPTS_MAX,
    }
}
impl Attempt {
    /// What the attempt's functions are told.
    ///
    /// # Errors
    /// As for [`ExecEnv::of`].
    pub(super) fn exec_env(self: &Arc<Self>) -> Result<ExecEnv> {
        let asked = self.clone();
        Ok(ExecEnv {
            // Whatever time they have, they end with the lease and with the worker.
            interrupt: Interrupt::new(move || asked.check().map_err(boxed)),
            deadline: self.deadline,
            // A call of several records may have taken too long where none of them did.
            careful: self.task.error.is_some(),
            ..ExecEnv::of(&self.job, &self.task.id)?
        })
    }
}
