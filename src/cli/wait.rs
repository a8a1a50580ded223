//! Waiting for a job, with a progress bar where there is a terminal to show it on.

use std::collections::HashSet;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use bson::DateTime;
use indicatif::{ProgressBar, ProgressStyle};

use super::output;
use super::waiting::{self, Reason};
use crate::error::{Error, Result};
use crate::ids::JobId;
use crate::job::{Job, JobState};
use crate::request::{Answer, REQUESTS};
use crate::store::Store;
use crate::store::retry::{ANSWER_MAX, within};
use crate::task::JobPhases;
use crate::terminal::tell;

/// A look is answered sooner, unless the database is away.
const SILENCE: Duration = Duration::from_secs(4);

/// What a person is told then.
const AWAY: &str = "the database is away, waiting for it";

/// How long an answer is waited for at least when the wait itself is to end.
const ANSWER_MIN: Duration = Duration::from_secs(5);

/// Waits until the job has ended and been cleaned up after, or waits for a person itself, through failovers of the
/// database. What keeps the job waiting is told on standard error.
///
/// # Errors
/// [`Error::WaitTimeout`], [`Error::Unreachable`], [`Error::NotFound`] when the job is removed meanwhile,
/// [`Error::Store`].
pub(super) async fn ended(
    store: &Store,
    id: &JobId,
    quiet: bool,
    timeout: Option<Duration>,
) -> Result<(Job, JobPhases)> {
    /// How long the database may be away before the wait is given up.
    const AWAY_MAX: Duration = Duration::from_secs(120);
    let mut watch = Watch::new(quiet);
    let began = Instant::now();
    let mut heard = DateTime::now();
    let mut away_since: Option<Instant> = None;
    loop {
        let left = timeout.map(|limit| limit.saturating_sub(began.elapsed()));
        let looking = look_within(store, id, left, watch.counts());
        tokio::pin!(looking);
        let looked = loop {
            tokio::select! {
                looked = &mut looking => break looked,
                () = tokio::time::sleep(SILENCE) => watch.say(AWAY),
            }
        };
        let is_over = timeout.is_some_and(|limit| began.elapsed() >= limit);
        match looked {
            Ok(None) => {
                (heard, away_since) = (DateTime::now(), None);
                if is_over {
                    watch.bar.finish_and_clear();
                    let how = "waits for a coordinator to take it in".to_owned();
                    return Err(Error::WaitTimeout { job: id.to_string(), how });
                }
            }
            Ok(Some((job, phases))) => {
                (heard, away_since) = (DateTime::now(), None);
                if let Some(phases) = phases {
                    watch.show(&job, &phases);
                    if is_over_with(&job) {
                        watch.bar.finish_and_clear();
                        return Ok((job, phases));
                    }
                }
                if is_over {
                    watch.bar.finish_and_clear();
                    let how = standing(store, &job).await;
                    return Err(Error::WaitTimeout { job: id.to_string(), how });
                }
                if watch.is_still() {
                    watch.tell(reasons(store, &job).await);
                }
            }
            Err(error) if error.is_transient() => {
                let since = *away_since.get_or_insert_with(Instant::now);
                if is_over || since.elapsed() >= AWAY_MAX {
                    watch.bar.finish_and_clear();
                    return Err(Error::Unreachable {
                        job: id.to_string(),
                        since: output::date(Some(heard)).unwrap_or_default(),
                        why: error.to_string(),
                    });
                }
                watch.say(AWAY);
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(pause(began.elapsed())).await;
    }
}

/// Where a job stands that is not waited for any longer, behind its name.
async fn standing(store: &Store, job: &Job) -> String {
    let reasons = reasons(store, job).await;
    let reasons: Vec<String> = reasons.iter().flatten().map(Reason::to_string).collect();
    match reasons.as_slice() {
        [] => format!("is {}", job.state),
        reasons => format!("is {}, waiting: {}", job.state, reasons.join("; ").replace('\n', " ")),
    }
}

/// What the job waits for, if there is an answer soon.
async fn reasons(store: &Store, job: &Job) -> Result<Vec<Reason>> {
    let (store, job) = (store.clone(), job.clone());
    let asking = async move { waiting::reasons(&store, &job).await };
    within(ANSWER_MIN, "ask what the job waits for", asking).await
}

/// A look that does not outlast the wait by much.
async fn look_within(
    store: &Store,
    id: &JobId,
    left: Option<Duration>,
    counts: bool,
) -> Result<Option<(Job, Option<JobPhases>)>> {
    let limit = left.map_or(ANSWER_MAX, |left| left.clamp(ANSWER_MIN, ANSWER_MAX));
    let (store, id) = (store.clone(), id.clone());
    let looking = async move { look(&store, &id, counts).await };
    within(limit, "ask for the job", looking).await
}

/// How long until a job is looked at again: a part of the time that has passed, since that is what its end is
/// noticed late by.
pub(super) fn pause(passed: Duration) -> Duration {
    const SHORTEST: Duration = Duration::from_millis(4);
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
        JobState::Cancelled => {
            // What is in the target all the same.
            if let Some(error) = &job.error {
                tell!("note: {}", error.message);
            }
            Err(Error::JobCancelled(job.id.to_string()))
        }
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

/// Whether nothing more will happen to the job unless somebody asks for it.
fn is_over_with(job: &Job) -> bool {
    job.state.is_terminal() && job.cleaned || job.state == JobState::Stopped
}

/// The job, once it is there, with its tasks counted when it is over with or `counts` says so.
async fn look(store: &Store, id: &JobId, counts: bool) -> Result<Option<(Job, Option<JobPhases>)>> {
    if let Some(job) = store.job(id).await? {
        let phases =
            if counts || is_over_with(&job) { Some(store.phases(&job).await?) } else { None };
        return Ok(Some((job, phases)));
    }
    match store.answer_to(REQUESTS, id.as_str()).await? {
        Some(Answer { state: None, .. }) => Ok(None),
        Some(Answer { error: Some(problem), .. }) => Err(problem.error()),
        _ => Err(Error::NotFound { what: format!("job {id}"), hint: "somebody removed it".into() }),
    }
}

/// What a person who waits is shown.
struct Watch {
    bar: ProgressBar,
    quiet: bool,
    /// Where the job stood, and since when.
    seen: Option<(JobState, JobPhases)>,
    moved: Instant,
    /// When the tasks were counted last, or the wait began.
    counted: Instant,
    /// When it was asked last what the job waits for.
    asked: Instant,
    /// What has been told, so that nothing is told twice.
    told: HashSet<String>,
    /// What the job waits for.
    waiting: String,
}

impl Watch {
    fn new(quiet: bool) -> Self {
        let now = Instant::now();
        Self {
            bar: bar(quiet),
            quiet,
            seen: None,
            moved: now,
            counted: now,
            asked: now,
            told: HashSet::new(),
            waiting: String::new(),
        }
    }

    fn show(&mut self, job: &Job, phases: &JobPhases) {
        self.counted = Instant::now();
        let now = Some((job.state, *phases));
        if self.seen != now {
            (self.seen, self.moved) = (now, Instant::now());
            self.waiting.clear();
        }
        let (map, reduce) = (&phases.map, &phases.reduce);
        // A map task reads far more than a reduce task does, so it counts more.
        const MAP_WEIGHT: u64 = 3;
        let total = (map.total * MAP_WEIGHT + reduce.total).max(1);
        self.bar.set_length(total);
        self.bar.set_position(map.done * MAP_WEIGHT + reduce.done);
        self.bar.set_prefix(job.state.as_str());
        self.bar.set_message(format!(
            "map {}/{} reduce {}/{}{}",
            map.done, map.total, reduce.done, reduce.total, self.waiting
        ));
    }

    /// Whether it is time to count the tasks: a count costs more than a look, and nobody sees every one.
    fn counts(&self) -> bool {
        const SEEN: Duration = Duration::from_millis(200);
        self.counted.elapsed() >= SEEN
    }

    /// Whether it is time to ask what the job waits for: nothing has moved for a while.
    fn is_still(&mut self) -> bool {
        const STILL: Duration = Duration::from_secs(3);
        let is_still =
            !self.quiet && self.moved.elapsed() >= STILL && self.asked.elapsed() >= STILL;
        if is_still {
            self.asked = Instant::now();
        }
        is_still
    }

    /// Tells what the job waits for, each reason once. Asking may fail: the job is looked at again anyway.
    fn tell(&mut self, reasons: Result<Vec<Reason>>) {
        let Ok(reasons) = reasons else { return };
        self.waiting = reasons.first().map_or_else(String::new, |first| format!("; {first}"));
        for reason in reasons {
            self.say(&format!("waiting: {reason}"));
        }
    }

    /// A line beside the bar, unless it was there before.
    fn say(&mut self, line: &str) {
        if !self.quiet && self.told.insert(line.to_owned()) {
            self.bar.suspend(|| tell!("{line}"));
        }
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
