//! What people ask of a job that is there: that it goes on, or ends.

use bson::{Document, doc};

use crate::error::Result;
use crate::job::{Job, JobEvent, JobState};
use crate::protocol::publish::merged;
use crate::store::Store;

/// Has a stopped job go on publishing. `false` when it is not stopped, and was not set going by an earlier try.
///
/// # Errors
/// [`crate::error::Error::Store`].
pub(crate) async fn resume(store: &Store, job: &Job) -> Result<bool> {
    if job.state != JobState::Stopped {
        return Ok(false);
    }
    // The task first: a worker hands it back while the job is stopped, and a coordinator that met a job which
    // publishes with a task that was given up would stop it again.
    store.resume_publish(job).await?;
    let fence = doc! { "plan": job.plan };
    // A wish to cancel that the publisher had no time to obey is taken back with it.
    let set = doc! { "error": null, "cancel": false };
    if store.transition(&job.id, JobEvent::Resumed, fence, set).await? {
        return Ok(true);
    }
    let now = store.job(&job.id).await?.map(|job| job.state);
    Ok(matches!(now, Some(JobState::Publishing | JobState::Succeeded)))
}

/// What cancelling a stopped job writes: what has to hold of it besides, what is set, and words on what is left in its
/// target for the person who does it.
///
/// # Errors
/// [`crate::error::Error::Store`].
pub(crate) async fn cancelling_stopped(
    store: &Store,
    job: &Job,
) -> Result<(Document, Document, String)> {
    let task = store.publish_task(job).await?;
    let merged = task.as_ref().and_then(|task| merged(&job.spec.output, task));
    let left = merged.map_or_else(String::new, |merged| format!(": {merged}"));
    let failed = job.error.as_ref().and_then(|error| error.task.clone());
    let why = match &job.error {
        Some(error) => format!("; it had stopped because {}", error.message),
        None => String::new(),
    };
    let message = format!("cancelled after it had stopped{left}{why}");
    let error = doc! { "code": "cancelled", "message": message, "task": failed };
    let set = doc! { "error": error };
    Ok((doc! { "state": job.state.as_str() }, set, format!(" after it had stopped{left}")))
}
