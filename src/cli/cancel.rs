//! `aviary cancel`.

use bson::doc;

use super::args::{Global, JobArg};
use crate::error::{Error, Result};
use crate::job::{JobEvent, JobState};

pub(super) async fn run(global: &Global, args: JobArg) -> Result<()> {
    let store = global.store("aviary-cancel").await?;
    let job = store.find_job(&args.job).await?;
    let cancelled = store.transition(&job.id, JobEvent::CancelRequested, doc! {}, doc! {}).await?;
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
    store.cancel_tasks(&job.id).await?;
    if !global.quiet {
        eprintln!("job {} is cancelled; a coordinator removes what it leaves", job.id);
    }
    Ok(())
}
