//! `aviary resume`: a job whose results were refused by its target goes on publishing.

use bson::doc;

use super::args::{Global, JobArg};
use crate::error::{Error, Result};
use crate::job::{JobEvent, JobState};
use crate::store::retry::until_known;
use crate::terminal::tell;

pub(super) async fn run(global: &Global, args: JobArg) -> Result<()> {
    let store = global.store("aviary-resume").await?;
    let job = store.find_job(&args.job).await?;
    let refused = |state: JobState| {
        Error::refused(
            format!("job {} is {state}", job.id),
            "only a job that stopped while publishing can be resumed",
        )
    };
    if job.state != JobState::Stopped {
        return Err(refused(job.state));
    }
    // The task first: a worker hands it back while the job is stopped, and a coordinator that met a job which
    // publishes with a task that was given up would stop it again.
    until_known(async |_| store.resume_publish(&job).await).await?;
    let resumed = until_known(async |_| {
        let fence = doc! { "plan": job.plan };
        // A wish to cancel that the publisher had no time to obey is taken back with it.
        let set = doc! { "error": null, "cancel": false };
        store.transition(&job.id, JobEvent::Resumed, fence, set).await
    })
    .await?;
    if !resumed {
        let now = store.find_job(job.id.as_str()).await?;
        if now.state != JobState::Publishing && now.state != JobState::Succeeded {
            return Err(refused(now.state));
        }
    }
    if !global.quiet {
        tell!("job {0} goes on publishing; aviary status -w {0} follows it", job.id);
    }
    Ok(())
}
