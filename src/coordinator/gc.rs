//! Leaving nothing behind.
//!
//! A job that has ended is cleaned up at once. A worker that was frozen in the meantime can still
//! bring something back (its blocks, or a piece of the hidden collection), so leftovers of ended
//! jobs are looked for again and again.

use std::collections::HashMap;
use std::time::Instant;

use bson::doc;

use crate::config;
use crate::error::{Error, Result};
use crate::ids::JobId;
use crate::job::limits::JOB_ID_LEN;
use crate::job::spec::HIDDEN_PREFIX;
use crate::job::{Job, JobState, Output, OutputMode};
use crate::protocol::backoff::Backoff;
use crate::store::Store;

/// Fences and removes whatever an ended job no longer needs.
///
/// # Errors
/// [`crate::error::Error::Store`]; the job stays on the list and is cleaned up later.
pub async fn clean_up(store: &Store, job: &Job) -> Result<()> {
    store.cancel_tasks(&job.id).await?;
    store.delete_stale_plans(job.plan, &job.id).await?;
    if !job.spec.keep_intermediates {
        store.delete_blocks(&job.id).await?;
        store.drop_kept(&job.id).await?;
    }
    crate::halt::point("clean").await;
    let output = &job.spec.output;
    drop_hidden(store, &job.id, job.state, &output.db, output.mode).await?;
    if output.mode.adds() && job.publish.is_some() {
        // Its source is gone by now. What it has on its way must not arrive in another job's turn.
        store.end_merges(job.id.as_str()).await?;
    }
    if output.mode.has_target() {
        store.release_turn(&job.id, output).await?;
    }
    let counters = store.counters(job).await?;
    store.set_job(&job.id, doc! {}, doc! { "cleaned": true, "counters": counters }).await?;
    Ok(())
}

/// Drops the hidden collections of an ended job, but for an inline result.
///
/// # Errors
/// [`crate::error::Error::Store`].
pub async fn drop_hidden(
    store: &Store,
    id: &JobId,
    state: JobState,
    db: &str,
    mode: OutputMode,
) -> Result<()> {
    match store.may_write_in(db).await {
        Ok(true) => {}
        Err(error) if error.is_transient() => return Err(error),
        // The job could not write there, so nothing there is its own.
        Ok(false) | Err(_) => {
            tracing::debug!(job = %id, db, "leaving the output's database alone");
            return Ok(());
        }
    }
    let hidden = Output::hidden(id);
    let kept = state == JobState::Succeeded && mode == OutputMode::Inline;
    for name in store.hidden_collections(db).await? {
        let of_this_job = name
            .strip_prefix(&hidden)
            .is_some_and(|rest| rest.is_empty() && !kept || rest.starts_with('-'));
        if of_this_job {
            store.drop_collection(db, &name).await?;
        }
    }
    Ok(())
}

/// Looks, again and again, for what zombies of ended jobs have brought back.
///
/// Each kind of leftover is looked for by itself, and so is each job's and each database's: what cannot be swept
/// holds up nothing else, and is tried ever more seldom. A sweep looks at so many of each kind
/// ([`config::SWEPT_MAX`]); the next one goes on with the others.
pub struct Sweeper {
    store: Store,
    since: Instant,
    backoff: Backoff<(&'static str, String)>,
    after: HashMap<&'static str, String>,
}

impl Sweeper {
    /// One that begins at the beginning.
    pub fn new(store: Store) -> Self {
        /// Things that cannot be swept, to be remembered.
        const KEPT_MAX: usize = 10_000;
        let (since, backoff) = (Instant::now(), Backoff::new(KEPT_MAX));
        Self { store, since, backoff, after: HashMap::new() }
    }

    /// Sweeps once.
    pub async fn sweep(&mut self) {
        let store = self.store.clone();
        let mut known = HashMap::new();
        let found = store.jobs_with_blocks(self.after("blocks")).await;
        for id in self.page("blocks", found, JobId::as_str) {
            let swept = sweep_blocks(&store, &mut known, &id).await;
            self.done("blocks", id.as_str(), swept);
        }
        let found = store.jobs_with_logs(self.after("logs")).await;
        for id in self.page("logs", found, JobId::as_str) {
            let swept = sweep_logs(&store, &mut known, &id).await;
            self.done("logs", id.as_str(), swept);
        }
        let found = store.jobs_with_failed(self.after("failed")).await;
        for id in self.page("failed", found, JobId::as_str) {
            let swept = sweep_failed(&store, &mut known, &id).await;
            self.done("failed", id.as_str(), swept);
        }
        let found = store.jobs_with_open_tasks(self.after("tasks")).await;
        for id in self.page("tasks", found, JobId::as_str) {
            let swept = sweep_tasks(&store, &mut known, &id).await;
            self.done("tasks", id.as_str(), swept);
        }
        let found = store.turns(self.after("turns")).await;
        for (turn, id) in self.page("turns", found, |(turn, _)| turn.as_str()) {
            let swept = sweep_turn(&store, &mut known, &turn, &id).await;
            self.done("turns", &turn, swept);
        }
        let found = store.output_databases(self.after("outputs")).await;
        for db in self.page("outputs", found, String::as_str) {
            let swept = sweep_outputs(&store, &mut known, &db).await;
            self.done("outputs", &db, swept);
        }
    }

    fn after(&self, kind: &'static str) -> &str {
        self.after.get(kind).map_or("", String::as_str)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// What was found and is due, and where the next sweep goes on.
    fn page<T>(
        &mut self,
        kind: &'static str,
        found: Result<Vec<T>>,
        name: impl Fn(&T) -> &str,
    ) -> Vec<T> {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(kind, %error, "could not look for leftovers");
                return Vec::new();
            }
        };
        match found.last().filter(|_| found.len() >= config::SWEPT_MAX) {
            Some(last) => self.after.insert(kind, name(last).to_owned()),
            None => self.after.remove(kind),
        };
        let now = self.now_ms();
        let due = |one: &T| self.backoff.is_due(&(kind, name(one).to_owned()), now);
        found.into_iter().filter(due).collect()
    }

    fn done(&mut self, kind: &'static str, name: &str, swept: Result<()>) {
        let key = (kind, name.to_owned());
        match swept {
            Ok(()) => self.backoff.worked(&key),
            Err(error) => {
                let now = self.now_ms();
                let again_ms = self.backoff.failed(&key, now);
                tracing::warn!(kind, name, again_ms, %error, "could not sweep leftovers");
            }
        }
    }
}

type KnownJobs = HashMap<JobId, Looked>;

async fn sweep_blocks(store: &Store, known: &mut KnownJobs, id: &JobId) -> Result<()> {
    let wanted = match look_up(store, known, id).await? {
        Looked::Job(job) => !job.state.is_terminal() || job.keep_intermediates,
        Looked::Gone => false,
        Looked::Newer => true,
    };
    if !wanted {
        tracing::info!(job = %id, "removing blocks of an ended job");
        store.delete_blocks(id).await?;
    }
    Ok(())
}

async fn sweep_logs(store: &Store, known: &mut KnownJobs, id: &JobId) -> Result<()> {
    // An attempt that was frozen can write its lines after its job was removed.
    if matches!(look_up(store, known, id).await?, Looked::Gone) {
        store.delete_logs(id).await?;
    }
    Ok(())
}

async fn sweep_failed(store: &Store, known: &mut KnownJobs, id: &JobId) -> Result<()> {
    // As for log lines.
    if matches!(look_up(store, known, id).await?, Looked::Gone) {
        store.delete_failed(id).await?;
    }
    Ok(())
}

async fn sweep_tasks(store: &Store, known: &mut KnownJobs, id: &JobId) -> Result<()> {
    // A coordinator that was frozen while it planned can write its tasks after the job's end, and a worker
    // that missed a block can send a map task back.
    match look_up(store, known, id).await? {
        Looked::Job(job) if job.state.is_terminal() => {
            store.cancel_tasks(id).await?;
            store.delete_stale_plans(job.plan, id).await?;
        }
        Looked::Job(_) | Looked::Newer => {}
        Looked::Gone if store.removed(id).await?.is_some() => store.delete_tasks(id).await?,
        Looked::Gone => {}
    }
    Ok(())
}

async fn sweep_turn(store: &Store, known: &mut KnownJobs, turn: &str, id: &JobId) -> Result<()> {
    let is_free = match look_up(store, known, id).await? {
        Looked::Job(job) => job.state.is_terminal() && job.cleaned,
        Looked::Gone => true,
        Looked::Newer => false,
    };
    if is_free {
        store.drop_turn(turn, id).await?;
    }
    Ok(())
}

/// Drops hidden collections that zombies of ended or removed jobs have brought back.
async fn sweep_outputs(store: &Store, known: &mut KnownJobs, db: &str) -> Result<()> {
    for name in store.hidden_collections(db).await? {
        let Some(id) = name.strip_prefix(HIDDEN_PREFIX).and_then(|rest| rest.get(..JOB_ID_LEN))
        else {
            continue;
        };
        let id = JobId::from_text(id);
        match look_up(store, known, &id).await? {
            Looked::Job(job) if job.state.is_terminal() && job.db == db => {
                drop_hidden(store, &id, job.state, db, job.mode).await?;
            }
            Looked::Job(_) | Looked::Newer => {}
            // A job that was never in this database may be another Aviary's: leave it alone.
            Looked::Gone if store.removed(&id).await?.as_deref() == Some(db) => {
                tracing::info!(job = %id, name, "removing what is left of a removed job");
                store.drop_collection(db, &name).await?;
            }
            Looked::Gone => {}
        }
    }
    Ok(())
}

/// What is known of a job that something is left of.
#[derive(Clone)]
enum Looked {
    Job(Rest),
    Gone,
    /// This version cannot read it, so it cannot tell what the job still needs.
    Newer,
}

/// What a sweep has to know of a job. There may be many, and each of them large.
#[derive(Clone)]
struct Rest {
    state: JobState,
    plan: i32,
    cleaned: bool,
    keep_intermediates: bool,
    db: String,
    mode: OutputMode,
}

impl Rest {
    fn of(job: Job) -> Self {
        let Job { state, plan, cleaned, spec, .. } = job;
        let keep_intermediates = spec.keep_intermediates;
        Self {
            state,
            plan,
            cleaned,
            keep_intermediates,
            db: spec.output.db,
            mode: spec.output.mode,
        }
    }
}

async fn look_up(store: &Store, known: &mut KnownJobs, id: &JobId) -> Result<Looked> {
    if let Some(job) = known.get(id) {
        return Ok(job.clone());
    }
    let job = match store.job(id).await {
        Ok(Some(job)) => Looked::Job(Rest::of(job)),
        Ok(None) => Looked::Gone,
        Err(Error::Newer { .. }) => Looked::Newer,
        Err(error) => return Err(error),
    };
    known.insert(id.clone(), job.clone());
    Ok(job)
}
