//! `aviary cancel`.

use std::time::{Duration, Instant};

use bson::doc;

use super::args::{Global, JobArg};
use super::asked::{self, Found};
use crate::coordinator::cancelling_stopped;
use crate::error::{Error, Result};
use crate::ids::JobId;
use crate::job::{Job, JobEvent, JobState};
use crate::store::Store;
use crate::store::retry::until_known;
use crate::terminal::tell;

pub(super) async fn run(global: &Global, args: JobArg) -> Result<()> {
    let store = global.store("aviary-cancel").await?;
    let job = match asked::find(&store, &args.job).await? {
        Found::Job(job) => *job,
        Found::Request(id) => {
            let retention = super::config::shared(global, &store).await?.retention;
            if asked::take_back(&store, &id, retention).await? {
                if !global.quiet {
                    tell!("the request {id} is taken back; nothing of it ran");
                }
                return Ok(());
            }
            store.find_job(&args.job).await?
        }
    };
    let (and, set, left) = match job.state {
        JobState::Stopped => cancelling_stopped(&store, &job).await?,
        _ => (doc! {}, doc! {}, String::new()),
    };
    let cancelled = until_known(async |again| {
        // An earlier try may have cancelled it, and then this one moves nothing.
        let event = JobEvent::CancelRequested;
        let moved = store.transition(&job.id, event, and.clone(), set.clone()).await?;
        let state =
            if again && !moved { store.job(&job.id).await?.map(|job| job.state) } else { None };
        Ok(moved || state == Some(JobState::Cancelled))
    })
    .await?;
    if cancelled {
        // Fencing the tasks here stops the workers at their next write, coordinator or not.
        until_known(async |_| store.cancel_tasks(&job.id).await).await?;
        if !global.quiet {
            tell!("job {} is cancelled{left}; a coordinator removes what it leaves", job.id);
        }
        return Ok(());
    }
    let now = if until_known(async |_| store.request_cancel(&job.id).await).await? {
        obeyed(&store, &job.id).await?
    } else {
        store.find_job(job.id.as_str()).await?
    };
    match now.state {
        JobState::Cancelled => {
            if !global.quiet {
                let part = now.error.map(|error| format!("; {}", error.message));
                tell!("job {} is cancelled{}", job.id, part.unwrap_or_default());
            }
            Ok(())
        }
        JobState::Publishing => {
            if !global.quiet {
                tell!(
                    "job {0} is publishing; it ends at its publisher's next step (aviary status {0} tells)",
                    job.id
                );
            }
            Ok(())
        }
        state => Err(Error::refused(
            format!("job {} is {state}", job.id),
            "a job can be cancelled until its results are in place",
        )),
    }
}

/// Waits a little for the publisher to obey.
async fn obeyed(store: &Store, id: &JobId) -> Result<Job> {
    const PATIENCE: Duration = Duration::from_secs(10);
    const LOOK_EVERY: Duration = Duration::from_millis(100);
    let began = Instant::now();
    loop {
        let job = store.find_job(id.as_str()).await?;
        if job.state != JobState::Publishing || began.elapsed() > PATIENCE {
            return Ok(job);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
