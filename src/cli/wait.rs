//! Waiting for a job, with a progress bar where there is a terminal to show it on.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::error::{Error, Result};
use crate::ids::JobId;
use crate::job::{Job, JobState};
use crate::request::{Answer, REQUESTS};
use crate::store::Store;
use crate::task::JobPhases;

/// Waits until the job has ended and been cleaned up after, or waits for a person itself, through failovers of the database.
///
/// # Errors
/// [`Error::WaitTimeout`], [`Error::NotFound`] when the job is removed meanwhile, [`Error::Store`].
pub(super) async fn ended(
    store: &Store,
    id: &JobId,
    quiet: bool,
    timeout: Option<Duration>,
) -> Result<(Job, JobPhases)> {
    /// How long the database may be away before the wait is given up.
    const AWAY_MAX: Duration = Duration::from_secs(120);
    let bar = bar(quiet);
    let began = Instant::now();
    let mut away_since: Option<Instant> = None;
    loop {
        match look(store, id).await {
            Ok(None) => away_since = None,
            Ok(Some((job, phases))) => {
                away_since = None;
                show(&bar, &job, &phases);
                if job.state.is_terminal() && job.cleaned || job.state == JobState::Stopped {
                    bar.finish_and_clear();
                    return Ok((job, phases));
                }
            }
            Err(error)
                if error.is_transient()
                    && away_since.get_or_insert_with(Instant::now).elapsed() < AWAY_MAX =>
            {
                bar.set_message("the database is away, waiting for it");
            }
            Err(error) => return Err(error),
        }
        if timeout.is_some_and(|limit| began.elapsed() >= limit) {
            bar.finish_and_clear();
            return Err(Error::WaitTimeout(id.to_string()));
        }
        tokio::time::sleep(pause(began.elapsed())).await;
    }
}

/// How long until a job is looked at again: a part of the time that has passed, since that is what its end is
/// noticed late by.
pub(super) fn pause(passed: Duration) -> Duration {
    const SHORTEST: Duration = Duration::from_millis(20);
    const LONGEST: Duration = Duration::from_millis(300);
    const PART: u32 = 32;
    (passed / PART).clamp(SHORTEST, LONGEST)
}

/// What the job's end means for the exit code.
///
/// # Errors
/// [`Error::JobFailed`], [`Error::JobStopped`], [`Error::JobCancelled`].
pub(super) fn verdict(job: &Job) -> Result<()> {
    match job.state {
        JobState::Failed => {
            Err(Error::JobFailed { job: job.id.to_string(), message: message(job) })
        }
        JobState::Stopped => {
            Err(Error::JobStopped { job: job.id.to_string(), message: message(job) })
        }
        JobState::Cancelled => Err(Error::JobCancelled(job.id.to_string())),
        JobState::Submitted
        | JobState::Planning
        | JobState::Mapping
        | JobState::Reducing
        | JobState::Publishing
        | JobState::Succeeded => Ok(()),
    }
}

fn message(job: &Job) -> String {
    job.error.as_ref().map_or_else(
        || "unknown".to_owned(),
        |e| match &e.task {
            Some(task) => format!("{} (task {task})", e.message),
            None => e.message.clone(),
        },
    )
}

/// The job, once it is there.
async fn look(store: &Store, id: &JobId) -> Result<Option<(Job, JobPhases)>> {
    if let Some(job) = store.job(id).await? {
        let phases = store.phases(&job).await?;
        return Ok(Some((job, phases)));
    }
    match store.answer_to(REQUESTS, id.as_str()).await? {
        Some(Answer { state: None, .. }) => Ok(None),
        Some(Answer { error: Some(problem), .. }) => Err(problem.error()),
        _ => Err(Error::NotFound { what: format!("job {id}"), hint: "somebody removed it".into() }),
    }
}

fn bar(quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(100);
    if let Ok(style) =
        ProgressStyle::with_template("{prefix:>10} [{bar:40}] {percent:>3}% {msg} {elapsed}")
    {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn show(bar: &ProgressBar, job: &Job, phases: &JobPhases) {
    let (map, reduce) = (&phases.map, &phases.reduce);
    // A map task reads far more than a reduce task does, so it counts more.
    const MAP_WEIGHT: u64 = 3;
    let total = (map.total * MAP_WEIGHT + reduce.total).max(1);
    bar.set_length(total);
    bar.set_position(map.done * MAP_WEIGHT + reduce.done);
    bar.set_prefix(job.state.as_str());
    bar.set_message(format!(
        "map {}/{} reduce {}/{}",
        map.done, map.total, reduce.done, reduce.total
    ));
}
