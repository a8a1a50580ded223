//! One look at every open job, and the moves that can be made for it now.
//!
//! Which moves those are is decided by [`crate::protocol::coordinate`]; this executes them. Every write names
//! the job's state, its plan and the epoch of the role, so a coordinator that was superseded in the middle
//! changes nothing more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::{Document, doc};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::answers::{self, Told};
use super::{gc, planning};
use crate::config::{self, Settings};
use crate::error::{Error, Result};
use crate::ids::JobId;
use crate::job::{Job, JobError, JobEvent, JobState, Output};
use crate::protocol::backoff::Backoff;
use crate::protocol::coordinate::{Move, PublishTask, View, moves};
use crate::protocol::publish::merged;
use crate::settings::Live;
use crate::store::Store;
use crate::store::jobs::ToTend;
use crate::store::retry::{self, within};
use crate::task::{JobPhases, TaskKind};

/// The holder of the role, for as long as it is trusted to be.
pub(super) trait Held: Clone + Send + Sync + 'static {
    /// The epoch of the role, unless it is lost.
    fn epoch(&self) -> Option<i64>;
}

/// Reconciles jobs, each on its own: what is slow or wedged holds up no other.
pub(super) struct Reconciler<H> {
    store: Store,
    settings: Live,
    role: H,
    at_once: Arc<Semaphore>,
    told: Arc<Told>,
    /// What is still being done for a job since an earlier look.
    busy: HashMap<JobId, JoinHandle<Tended>>,
    /// Jobs that cannot move on for a reason that does not pass by itself.
    backoff: Backoff<JobId>,
    since: Instant,
    /// When the open jobs were seen first, while they are few.
    known: HashMap<JobId, Instant>,
    /// Where the next look goes on, if there are more jobs than one can tend.
    after: Option<ToTend>,
}

/// What a look found.
pub(super) enum Looked {
    /// One of a few jobs got to another state.
    Moved,
    /// There are few jobs, the youngest known for so long, and none got to another state.
    Still {
        youngest: Duration,
    },
    Many,
}

/// Whether a job is to be tended again as soon as may be.
enum Tended {
    Well,
    /// It has got to another state.
    Moved,
    /// Its turn comes again later.
    Failed,
}

impl<H: Held> Reconciler<H> {
    pub(super) fn new(store: Store, settings: Live, role: H) -> Self {
        let at_once = Arc::new(Semaphore::new(config::MOVES_AT_ONCE));
        /// Jobs that cannot move on, to be remembered.
        const FAILING_MAX: usize = 10_000;
        Self {
            store,
            settings,
            role,
            at_once,
            told: Arc::default(),
            busy: HashMap::new(),
            backoff: Backoff::new(FAILING_MAX),
            since: Instant::now(),
            known: HashMap::new(),
            after: None,
        }
    }

    /// Tends every open job once, or a part of them where there are very many. A job that cannot go on fails; the
    /// others are not held up by it. Says how soon another look is worth its cost.
    pub(super) async fn look(&mut self) -> Result<Looked> {
        let (store, after) = (self.store.clone(), self.after.take());
        let listing = async move {
            let giving_up = store.quarantine_exhausted();
            let (jobs, given_up) = tokio::join!(store.jobs_to_tend(after.as_ref()), giving_up);
            // A shard that is away must not keep the jobs of the others from moving.
            if let Err(error) = given_up {
                tracing::warn!(%error, "could not look for exhausted tasks");
            }
            jobs
        };
        let jobs = within(retry::ANSWER_MAX, "read open jobs", listing).await?;
        self.after = jobs.last().filter(|_| jobs.len() >= config::JOBS_PER_LOOK).cloned();
        self.busy.retain(|_, tending| !tending.is_finished());
        let now = self.now_ms();
        let youngest = self.youngest(&jobs);
        let mut tending = Vec::new();
        for job in jobs {
            if self.busy.contains_key(&job.id) || !self.backoff.is_due(&job.id, now) {
                continue;
            }
            let (store, settings) = (self.store.clone(), self.settings.now());
            let (role, at_once, id) = (self.role.clone(), self.at_once.clone(), job.id.clone());
            let told = self.told.clone();
            let handle = tokio::spawn(async move {
                // Never closed.
                let Ok(_permit) = at_once.acquire().await else { return Tended::Well };
                tend(&store, &settings, &role, &told, job.id).await
            });
            tending.push((id, handle));
        }
        let mut moved = false;
        let until = tokio::time::Instant::now() + config::MOVE_MAX;
        for (id, mut handle) in tending {
            match tokio::time::timeout_at(until, &mut handle).await {
                Ok(Ok(Tended::Well)) => self.backoff.worked(&id),
                Ok(Ok(Tended::Moved)) => {
                    self.backoff.worked(&id);
                    moved = true;
                }
                Ok(Ok(Tended::Failed)) => {
                    let now = self.now_ms();
                    self.backoff.failed(&id, now);
                }
                Ok(Err(error)) => tracing::error!(job = %id, %error, "tending the job panicked"),
                Err(_) => {
                    tracing::warn!(job = %id, "what is done for the job takes long; going on without");
                    self.busy.insert(id, handle);
                }
            }
        }
        Ok(match youngest {
            None => Looked::Many,
            Some(_) if moved => Looked::Moved,
            Some(youngest) => Looked::Still { youngest },
        })
    }

    /// How long the youngest of the listed jobs has been known, if they are few.
    fn youngest(&mut self, jobs: &[ToTend]) -> Option<Duration> {
        /// With more jobs than these, one of them moves on at nearly every look.
        const FEW: usize = 4;
        if jobs.len() > FEW {
            self.known.clear();
            return None;
        }
        self.known.retain(|id, _| jobs.iter().any(|job| job.id == *id));
        let now = Instant::now();
        let since = jobs.iter().map(|job| *self.known.entry(job.id.clone()).or_insert(now));
        Some(since.max().map_or(Duration::MAX, |since| now.duration_since(since)))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

async fn tend<H: Held>(
    store: &Store,
    settings: &Settings,
    role: &H,
    told: &Told,
    id: JobId,
) -> Tended {
    let seen = match store.job(&id).await {
        Ok(Some(seen)) => seen,
        Ok(None) => return Tended::Well,
        Err(error) => {
            // One that it cannot read waits for a coordinator that can.
            tracing::debug!(job = %id, %error, "could not read the job");
            return if error.is_transient() { Tended::Well } else { Tended::Failed };
        }
    };
    let (waited, state) = (seen.waiting.is_some(), seen.state);
    match reconcile(store, settings, role, seen).await {
        Ok(now) => {
            if waited && let Err(error) = store.note_moving(&id).await {
                tracing::debug!(job = %id, %error, "could not note that the job moves");
            }
            let Some((job, counted)) = now else { return Tended::Well };
            if let Err(error) = told.tell(store, &job, counted).await {
                tracing::debug!(job = %id, %error, "could not tell how the job fares");
            }
            if job.state == state { Tended::Well } else { Tended::Moved }
        }
        Err(error) => {
            tracing::warn!(job = %id, %error, "the job has to wait");
            if let Err(error) = store.note_waiting(&id, &error.to_string()).await {
                tracing::debug!(job = %id, %error, "could not note why the job waits");
            }
            // What passes by itself may pass soon.
            if error.is_transient() { Tended::Well } else { Tended::Failed }
        }
    }
}

/// Moves a job on as far as it will go now. Tells how it stands, and how many of its tasks do where, if they were
/// counted.
///
/// # Errors
/// What keeps the job from moving for the time being.
async fn reconcile<H: Held>(
    store: &Store,
    settings: &Settings,
    role: &H,
    seen: Job,
) -> Result<Option<(Job, Option<JobPhases>)>> {
    let Some(epoch) = role.epoch() else { return Ok(None) };
    let mut job = if seen.role == epoch {
        seen
    } else {
        let Some(mine) = store.adopt(&seen.id, epoch).await? else { return Ok(None) };
        mine
    };
    if may_fail(job.state)
        && let Err(error) = admit(store, settings, &job)
    {
        tracing::warn!(job = %job.id, %error, "the job is refused");
        fail(store, &job, job_error(&error)).await?;
        return Ok(store.job(&job.id).await?.map(|now| (now, None)));
    }
    loop {
        if matches!(job.state, JobState::Mapping | JobState::Reducing)
            && let Err(error) = store.refuse_skipped(&job, false).await
        {
            if error.is_transient() {
                return Err(error);
            }
            fail(store, &job, job_error(&error)).await?;
            return Ok(store.job(&job.id).await?.map(|now| (now, None)));
        }
        let (view, counted) = view(store, &job).await?;
        let planned = moves(&view);
        if planned.is_empty() {
            return Ok(Some((job, counted)));
        }
        for one in planned {
            if role.epoch() != Some(epoch) {
                return Ok(None);
            }
            if let Err(error) = execute(store, settings, &job, one).await {
                // A coordinator of the job's own version can tend what this one cannot read.
                let is_others = matches!(error, Error::Newer { .. });
                if error.is_transient() || is_others || !may_fail(job.state) {
                    return Err(error);
                }
                tracing::warn!(job = %job.id, %error, "the job cannot go on");
                fail(store, &job, job_error(&error)).await?;
            }
        }
        let Some(now) = store.job(&job.id).await? else { return Ok(None) };
        if now.role != epoch {
            return Ok(None);
        }
        if now.state == job.state && now.cleaned == job.cleaned {
            return Ok(Some((now, counted)));
        }
        if now.state != job.state {
            tracing::info!(job = %now.id, from = %job.state, to = %now.state, "job moved on");
        }
        job = now;
    }
}

/// Checks a job as it is read: not every job has been through `aviary submit`.
///
/// # Errors
/// [`Error::Usage`] and [`Error::Refused`], naming what is wrong.
fn admit(store: &Store, settings: &Settings, job: &Job) -> Result<()> {
    settings.caps.check_job(job)?;
    job.spec.validate(store.db_name())
}

fn job_error(error: &Error) -> JobError {
    JobError { code: error.code().to_owned(), message: error.to_string(), task: None }
}

/// Whether what the coordinator meets may end a job in this state. Once it publishes, only the publish task
/// can tell what has become of the target.
fn may_fail(state: JobState) -> bool {
    match state {
        JobState::Submitted | JobState::Planning | JobState::Mapping | JobState::Reducing => true,
        JobState::Publishing
        | JobState::Stopped
        | JobState::Succeeded
        | JobState::Failed
        | JobState::Cancelled => false,
    }
}

/// What is to be decided by. All tasks of a phase are counted once it may have ended, and not at every look.
async fn view(store: &Store, job: &Job) -> Result<(View, Option<JobPhases>)> {
    let current = match job.state {
        JobState::Mapping => Some(TaskKind::Map),
        JobState::Reducing => Some(TaskKind::Reduce),
        _ => None,
    };
    let (mut phases, mut counted) = (JobPhases::default(), None);
    if let Some(current) = current {
        phases = match store.unfinished(job, current).await? {
            Some(unfinished) => unfinished,
            None => *counted.insert(store.phases(job).await?),
        };
    }
    let publish = match job.state {
        JobState::Publishing => store.publish_task(job).await?,
        _ => None,
    };
    let view = View {
        state: job.state,
        mode: job.spec.output.mode,
        cancel: job.cancel,
        cleaned: job.cleaned,
        plan_lost: job.plan_lost == Some(job.plan),
        map_tasks: u64::from(job.map_tasks),
        reduce_tasks: u64::from(job.reduce_tasks),
        phases,
        publish: publish.map(|task| PublishTask {
            state: task.state,
            marks: task.publish.map(|publish| publish.marks).unwrap_or_default(),
        }),
    };
    Ok((view, counted))
}

/// What every move of a job names: its plan, and the coordinator that it belongs to.
fn fence(job: &Job) -> Document {
    doc! { "plan": job.plan, "role": job.role }
}

async fn execute(store: &Store, settings: &Settings, job: &Job, one: Move) -> Result<()> {
    let transition =
        async |event, set| store.transition(&job.id, event, fence(job), set).await.map(|_| ());
    match one {
        Move::Take => transition(JobEvent::Taken, doc! {}).await,
        Move::PlanAnew => {
            planning::refuse_lost_input(store, job).await?;
            transition(JobEvent::PlanLost, doc! {}).await
        }
        Move::Plan => planning::make_plan(store, settings, job).await,
        Move::OpenMap => {
            crate::halt::point("mapping").await;
            store.open_phase(job, TaskKind::Map).await.map(|_| ())
        }
        Move::OpenReduce => {
            crate::halt::point("reducing").await;
            store.open_phase(job, TaskKind::Reduce).await.map(|_| ())
        }
        Move::Reduce => {
            planning::refuse_lost_input(store, job).await?;
            store.refuse_skipped(job, true).await?;
            transition(JobEvent::Mapped, doc! {}).await
        }
        Move::Publish(event) => {
            if event == JobEvent::MappedOnly {
                planning::refuse_lost_input(store, job).await?;
            }
            store.refuse_skipped(job, true).await?;
            begin_publish(store, job, event).await
        }
        Move::OpenPublish => store.open_publish(job).await,
        Move::WithdrawPublish => store.withdraw_publish(job).await.map(|_| ()),
        Move::Succeed => transition(JobEvent::Published, doc! {}).await,
        Move::Fail => end_with_task(store, job, JobEvent::Failed).await,
        Move::Stop => end_with_task(store, job, JobEvent::PublishStopped).await,
        Move::Cancel => transition(JobEvent::PublishCancelled, cancelled(store, job).await?).await,
        Move::CleanUp => {
            // Once it is cleaned up after, nobody looks at the job any more.
            let counters = Some(store.counters(job).await?);
            let counted = Job { counters, ..job.clone() };
            match answers::tell(store, &counted, &JobPhases::default()).await {
                Err(error) if error.is_transient() => return Err(error),
                // An answer that cannot be given must not keep what the job has left.
                Err(error) => {
                    tracing::warn!(job = %job.id, %error, "could not tell how the job ended")
                }
                Ok(()) => {}
            }
            gc::clean_up(store, job).await
        }
    }
}

/// Notes the identity of the results, and moves the job to `publishing`.
async fn begin_publish(store: &Store, job: &Job, event: JobEvent) -> Result<()> {
    let output = &job.spec.output;
    let hidden = Output::hidden(&job.id);
    let mut uuid = store.identity(&output.db, &hidden).await?;
    if uuid.is_none() {
        // A server that was superseded may not know of it. It acknowledges no write, and after one it is not
        // asked.
        store.cluster_time().await?;
        uuid = store.identity(&output.db, &hidden).await?;
    }
    let uuid = uuid.ok_or_else(|| {
        Error::refused(
            format!("the job's hidden collection {hidden} is gone"),
            "somebody dropped it; nothing was published, so the job can be submitted again",
        )
    })?;
    let counters = store.counters(job).await?;
    let set = doc! { "publish": { "uuid": uuid }, "counters": counters };
    store.transition(&job.id, event, fence(job), set).await?;
    Ok(())
}

/// What a cancelled job says of its target.
async fn cancelled(store: &Store, job: &Job) -> Result<Document> {
    let Some(task) = store.publish_task(job).await? else { return Ok(doc! {}) };
    let Some(merged) = merged(&job.spec.output, &task) else { return Ok(doc! {}) };
    let error = JobError {
        code: "cancelled".into(),
        message: format!("cancelled while its results were merged: {merged}"),
        task: Some(task.id.short().to_owned()),
    };
    Ok(doc! { "error": serialized(&error)? })
}

async fn end_with_task(store: &Store, job: &Job, event: JobEvent) -> Result<()> {
    let Some(task) = store.quarantined(job).await? else { return Ok(()) };
    let error = task.error.unwrap_or_default();
    let text = |name: &str| error.get_str(name).unwrap_or("unknown").to_owned();
    let mut message = text("message");
    let Output { db, collection, mode } = &job.spec.output;
    if event == JobEvent::Failed && task.kind == TaskKind::Publish && mode.has_target() {
        message.push_str(&format!("; nothing was changed in {db}.{collection}"));
    }
    let error = JobError { code: text("code"), message, task: Some(task.id.short().to_owned()) };
    let set = doc! { "error": serialized(&error)? };
    store.transition(&job.id, event, fence(job), set).await?;
    Ok(())
}

async fn fail(store: &Store, job: &Job, error: JobError) -> Result<()> {
    let mut and = fence(job);
    and.insert("state", job.state.as_str());
    let set = doc! { "error": serialized(&error)? };
    store.transition(&job.id, JobEvent::Failed, and, set).await?;
    Ok(())
}

fn serialized(error: &JobError) -> Result<bson::Bson> {
    bson::serialize_to_bson(error)
        .map_err(|e| Error::Internal(format!("an error does not serialize: {e}")))
}
