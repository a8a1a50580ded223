//! `aviary cancel`.

use std::time::{Duration, Instant};

use bson::{Document, doc};

use super::args::{Global, JobArg};
use super::asked::{self, Found};
use crate::error::{Error, Result};
use crate::ids::JobId;
use crate::job::{Job, JobEvent, JobState};
use crate::protocol::publish::merged;
use crate::store::Store;
use crate::store::retry::until_known;
use crate::terminal::tell;

pub(super) async fn run(global: &Global, args: JobArg) -> Result<()> {
    let store = global.store("aviary-cancel").await?;
    let job = match asked::find(&store, &args.job).await? {
        Found::Job(job) => *job,
        Found::Request(id) => {
            if asked::take_back(&store, &id).await? {
                if !global.quiet {
                    tell!("the request {id} is taken back; nothing of it ran");
                }
                return Ok(());
            }
            store.find_job(&args.job).await?
        }
    };
    let (and, set, left) = match job.state {
        JobState::Stopped => stopped(&store, &job).await?,
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

/// For a job that has stopped: the state that it has to be in still, what it says once it is cancelled, and the same
/// for the person who does it.
async fn stopped(store: &Store, job: &Job) -> Result<(Document, Document, String)> {
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
