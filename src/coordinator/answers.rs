//! Telling the authors of requests how their jobs fare.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bson::{Document, doc};

use crate::error::Result;
use crate::ids::JobId;
use crate::job::{Job, JobState};
use crate::request::answer::{end, progress};
use crate::store::Store;
use crate::task::JobPhases;

/// What was told last, so that the same is not told again.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<HashMap<JobId, (JobState, Document, Instant)>>);

impl Told {
    /// Tells what is new: a change of state at once, mere progress now and then.
    pub(super) async fn tell(&self, store: &Store, job: &Job, phases: &JobPhases) -> Result<()> {
        /// Between two words on the progress of one job.
        const PROGRESS_EVERY: Duration = Duration::from_millis(500);
        if job.request.is_none() || job.cleaned {
            self.lock().remove(&job.id);
            return Ok(());
        }
        let now = progress(job, phases);
        if let Some((state, before, at)) = self.lock().get(&job.id)
            && *state == job.state
            && (*before == now || at.elapsed() < PROGRESS_EVERY)
        {
            return Ok(());
        }
        tell(store, job, phases).await?;
        self.lock().insert(job.id.clone(), (job.state, now, Instant::now()));
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, (JobState, Document, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells how a job fares, and its result or error at its end.
///
/// # Errors
/// [`crate::error::Error::Store`].
pub(super) async fn tell(store: &Store, job: &Job, phases: &JobPhases) -> Result<()> {
    let Some(request) = &job.request else { return Ok(()) };
    let mut set = doc! { "progress": progress(job, phases) };
    set.extend(end(job));
    store.tell(request, set).await
}
