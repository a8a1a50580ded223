//! A request that was inserted, until its job has ended.

use std::time::{Duration, Instant};

use bson::{DateTime, Document};

use crate::cli::args::{Format, Global};
use crate::cli::{output, wait};
use crate::error::{Error, Result};
use crate::ids::JobId;
use crate::job::{Input, Job, Output, OutputMode};
use crate::store::Store;
use crate::store::retry::{ANSWER_MAX, within};
use crate::task::JobPhases;
use crate::task::counters::{UNMATCHED, UPDATED};
use crate::terminal::tell;

/// How long a caller who does not wait for the job waits for the answer: where a coordinator runs, it comes at
/// once. One that serves every database may have to wake first.
pub(super) async fn detached_patience(store: &Store) -> Option<Duration> {
    const PATIENCE: Duration = Duration::from_secs(10);
    const WAKES_WITHIN: Duration = Duration::from_secs(2);
    let runs = store.has_coordinator().await.unwrap_or(true);
    Some(if runs { PATIENCE } else { WAKES_WITHIN })
}

/// Waits for the coordinator's answer, and returns the job's id. `None` when there is none in time.
///
/// # Errors
/// The refusal.
pub(in crate::cli) async fn accepted(
    store: &Store,
    requests: &str,
    key: &str,
    patience: Option<Duration>,
) -> Result<Option<JobId>> {
    /// An answer of the database is waited for so long at least.
    const ANSWER_MIN: Duration = Duration::from_secs(5);
    let began = Instant::now();
    let mut heard = DateTime::now();
    loop {
        let left = patience.map(|patience| patience.saturating_sub(began.elapsed()));
        let limit = left.map_or(ANSWER_MAX, |left| left.clamp(ANSWER_MIN, ANSWER_MAX));
        let (asked, of, id) = (store.clone(), requests.to_owned(), key.to_owned());
        let asking = async move { asked.answer_to(&of, &id).await };
        let away = match within(limit, "ask for the answer", asking).await {
            Ok(answer) => {
                heard = DateTime::now();
                let answer = answer.unwrap_or_default();
                match (answer.state.as_deref(), answer.job, answer.error) {
                    (Some("accepted"), Some(job), _) => return Ok(Some(JobId::from_text(job))),
                    (Some("refused"), _, Some(problem)) => return Err(problem.error()),
                    _ => None,
                }
            }
            Err(error) if error.is_transient() => Some(error),
            Err(error) => return Err(error),
        };
        if patience.is_some_and(|patience| began.elapsed() >= patience) {
            return match away {
                None => Ok(None),
                Some(error) => Err(Error::Unreachable {
                    job: key.to_owned(),
                    since: output::date(Some(heard)).unwrap_or_default(),
                    why: error.to_string(),
                }),
            };
        }
        tokio::time::sleep(wait::pause(began.elapsed())).await;
    }
}

/// Waits for the end of a job as its request tells of it.
pub(super) async fn follow(
    global: &Global,
    store: &Store,
    requests: &str,
    id: &JobId,
    timeout: Option<Duration>,
) -> Result<()> {
    let began = Instant::now();
    loop {
        let told = store.told(requests, id).await;
        match told {
            Err(error) if error.is_transient() => {}
            told => {
                let told = told?;
                if let Ok(error) = told.get_document("error") {
                    let message = error.get_str("message").unwrap_or("unknown").to_owned();
                    let job = id.to_string();
                    return Err(match error.get_str("code") {
                        Ok("cancelled") => Error::JobCancelled(job),
                        Ok("stopped") => Error::JobStopped { job, message },
                        _ => Error::JobFailed { job, message },
                    });
                }
                if let Ok(result) = told.get_document("result") {
                    match global.format() {
                        Format::Json => {
                            output::line(output::ejson(&bson::Bson::Document(result.clone())))?;
                        }
                        _ => output::line(id)?,
                    }
                    return Ok(());
                }
            }
        }
        if timeout.is_some_and(|timeout| began.elapsed() >= timeout) {
            return Err(Error::WaitTimeout { job: id.to_string(), how: "goes on".to_owned() });
        }
        tokio::time::sleep(wait::pause(began.elapsed())).await;
    }
}

/// Waits for a job, prints how it ended, and turns that into the exit code.
pub(in crate::cli) async fn finish(
    global: &Global,
    store: &Store,
    id: &JobId,
    timeout: Option<std::time::Duration>,
) -> Result<()> {
    let (job, phases) = tokio::select! {
        ended = wait::ended(store, id, global.quiet, timeout) => ended?,
        // The job is the database's by now, and goes on.
        _ = tokio::signal::ctrl_c() => {
            return Err(Error::WaitTimeout { job: id.to_string(), how: "goes on".into() });
        }
    };
    match global.format() {
        Format::Json => output::line(output::job_json(&job, &phases))?,
        Format::Name => output::line(&job.id)?,
        Format::Table | Format::Wide => {
            if !global.quiet {
                tell_warnings(store, &job).await;
            }
            wait::verdict(&job)?;
            if !global.quiet {
                crate::cli::failed::warn(&job);
                summary(&job);
            }
            if job.spec.output.mode == OutputMode::Inline {
                crate::cli::results::print(
                    store,
                    &job,
                    Document::from_iter([("_id".into(), 1.into())]),
                    0,
                )
                .await?;
            }
        }
    }
    wait::verdict(&job)
}

/// Shows what the job's functions warn of, as `try` does.
async fn tell_warnings(store: &Store, job: &Job) {
    const SHOWN_MAX: i64 = 5;
    match store.warnings(job, SHOWN_MAX + 1).await {
        Ok(warnings) => {
            let shown = usize::try_from(SHOWN_MAX).unwrap_or(usize::MAX);
            for warning in warnings.iter().take(shown) {
                tell!("warning: {warning}");
            }
            if warnings.len() > shown {
                tell!("warning: there are more; `aviary logs {}` shows them all", job.id);
            }
        }
        // They are for people, and stay in the log.
        Err(error) => tracing::debug!(%error, "cannot read what the functions warn of"),
    }
}

fn summary(job: &Job) {
    tell!(
        "job {} {} in {}: {}",
        job.id,
        job.state,
        output::duration(Some(job.created), job.finished),
        job.counters.as_ref().map(output::counters).unwrap_or_default()
    );
    let count = |name| job.counters.as_ref()?.get(name).map(output::number);
    let Output { mode, db, collection } = &job.spec.output;
    if *mode == OutputMode::Update {
        let [updated, unmatched, output] =
            [UPDATED, UNMATCHED, "output"].map(|name| count(name).unwrap_or_else(|| "0".into()));
        tell!("{updated} of {output} results had a document to update in {db}.{collection}");
        if unmatched != "0" {
            tell!(
                "warning: {unmatched} results have an _id that it does not hold, and were left out"
            );
        }
    } else if mode.has_target() {
        tell!("results are in {db}.{collection}");
    }
    if count("input").as_deref() == Some("0") {
        let Input { db, collection, .. } = &job.spec.input;
        let left = match job.spec.output.mode {
            OutputMode::Replace => ", so the target is empty now",
            _ => "",
        };
        tell!("note: no document of {db}.{collection} matched{left}");
    }
}

pub(super) async fn announce(global: &Global, store: &Store, job: &Job) -> Result<()> {
    match global.format() {
        Format::Json => {
            let phases: JobPhases = store.phases(job).await.unwrap_or_default();
            output::line(output::job_json(job, &phases))?;
        }
        Format::Name | Format::Table | Format::Wide => output::line(&job.id)?,
    }
    Ok(())
}
