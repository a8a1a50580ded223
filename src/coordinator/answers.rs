//! Telling the authors of requests how their jobs fare.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bson::Document;

use crate::error::Result;
use crate::ids::JobId;
use crate::job::{Job, JobState};
use crate::request::answer::{end, progress};
use crate::store::Store;
use crate::task::JobPhases;

/// What was told last, so that the same is not told again.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<HashMap<JobId, Word>>);

#[derive(Debug)]
struct Word {
    state: JobState,
    progress: Document,
    at: Instant,
    /// How long it took to count the tasks for it.
    took: Duration,
}

impl Word {
    /// Whether there may be more to tell: a change of state at once, mere progress now and then.
    fn is_over(&self, state: JobState) -> bool {
        /// Between two words on the progress of one job.
        const PROGRESS_EVERY: Duration = Duration::from_millis(500);
        /// Counting very many tasks must not become what a coordinator does all the time.
        const COUNTS_SHARE: u32 = 50;
        self.state != state || self.at.elapsed() >= PROGRESS_EVERY.max(self.took * COUNTS_SHARE)
    }
}

impl Told {
    /// Tells what is new, and counts the job's tasks for it unless they are `counted`.
    pub(super) async fn tell(
        &self,
        store: &Store,
        job: &Job,
        counted: Option<JobPhases>,
    ) -> Result<()> {
        if job.request.is_none() || job.cleaned {
            self.lock().remove(&job.id);
            return Ok(());
        }
        if self.lock().get(&job.id).is_some_and(|word| !word.is_over(job.state)) {
            return Ok(());
        }
        let began = Instant::now();
        let phases = match counted {
            Some(counted) => counted,
            None if matches!(job.state, JobState::Mapping | JobState::Reducing) => {
                store.phases(job).await?
            }
            None => JobPhases::default(),
        };
        let took = began.elapsed();
        let now = progress(job, &phases);
        let is_known = |word: &Word| word.state == job.state && word.progress == now;
        if !self.lock().get(&job.id).is_some_and(is_known) {
            tell(store, job, &phases).await?;
        }
        let word = Word { state: job.state, progress: now, at: Instant::now(), took };
        self.lock().insert(job.id.clone(), word);
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, Word>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells how a job fares, and its result or error at its end.
///
/// # Errors
/// [`crate::error::Error::Store`].
pub(super) async fn tell(store: &Store, job: &Job, phases: &JobPhases) -> Result<()> {
    let Some(request) = &job.request else { return Ok(()) };
    // Field by field: the notes on a command stay beside them.
    let fields = progress(job, phases).into_iter();
    let mut set: Document =
        fields.map(|(name, value)| (format!("progress.{name}"), value)).collect();
    set.extend(end(job));
    store.tell(request, set).await
}
