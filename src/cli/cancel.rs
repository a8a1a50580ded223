//! `aviary cancel`.

use bson::doc;

use super::args::{Global, JobArg};
use crate::error::{Error, Result};
use crate::job::{JobEvent, JobState};
use crate::store::retry::until_known;

pub(super) async fn run(global: &Global, args: JobArg) -> Result<()> {
    let store = global.store("aviary-cancel").await?;
    let job = store.find_job(&args.job).await?;
    let cancelled = until_known(async |again| {
        // An earlier try may have cancelled it, and then this one moves nothing.
        let moved = store.transition(&job.id, JobEvent::CancelRequested, doc! {}, doc! {}).await?;
        let state =
            if again && !moved { store.job(&job.id).await?.map(|job| job.state) } else { None };
        Ok(moved || state == Some(JobState::Cancelled))
    })
    .await?;
    if !cancelled {
        let now = store.find_job(job.id.as_str()).await?;
        return match now.state {
            JobState::Cancelled => Ok(()),
            state => Err(Error::refused(
                format!("job {} is {state}", job.id),
                "only a job that has not begun to publish can be cancelled",
            )),
        };
    }
    // Fencing the tasks here stops the workers at their next write, coordinator or not.
    until_known(async |_| store.cancel_tasks(&job.id).await).await?;
    if !global.quiet {
        eprintln!("job {} is cancelled; a coordinator removes what it leaves", job.id);
    }
    Ok(())
}
