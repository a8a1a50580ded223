//! How long a job stands still when the primary steps down.
//!
//! A job of many small tasks runs on three members. Its progress is every claim and every commit, as its task
//! documents tell afterwards, by the servers' clock. The stall is the longest time without either around a
//! step-down. Beside it stands how long nothing could be written at all: another client tries every 50 ms, with
//! `w: 1` and without retries.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bson::{Document, doc};
use mongodb::Client;
use mongodb::options::{Acknowledgment, ClientOptions, WriteConcern};
use tokio_util::task::AbortOnDropHandle;

use super::bed::{Bed, millis, stop};
use super::figures::{Times, machine, now_ms, verdict};

/// What a job may stand still beyond the election.
const MORE_MS: i64 = 5_000;
const DOCUMENTS: i32 = 1_200;
const PAD_BYTES: usize = 400;
/// About 120 map tasks.
const SPLIT_BYTES: &str = "4400";
/// A function with some work to do, so that the job outlasts what a step-down does.
const MAP: &str = "function () {
  let h = this.k;
  for (let i = 0; i < 400000; i++) h = (h * 31 + i) % 1000003;
  emit(this.k, h < 0 ? 0 : 1);
}";
/// How long after a step-down what happens is its doing.
const AFTER_MS: i64 = 12_000;
/// Commits before a step-down.
const COMMITS: u64 = 8;

/// A step-down, and when something could be written again.
struct StepDown {
    at: i64,
    election: i64,
}

/// Says whether the promise was kept.
pub async fn run(step_downs: usize) -> Result<bool> {
    println!(
        "\n2. {step_downs} step-downs of the primary of three members, under a job of many small tasks"
    );
    let bed = Bed::start(3, &[]).await?;
    bed.load("input", DOCUMENTS, PAD_BYTES).await?;
    let coordinator = bed.spawn(&["coordinator"], &[("AVIARY_SPLIT_BYTES", SPLIT_BYTES)])?;
    let mut workers = Vec::new();
    for _ in 0..2 {
        let worker = bed.spawn(&["worker", "--slots", "2"], &[])?;
        bed.known(&worker).await?;
        workers.push(worker);
    }
    let prober = Prober::start(&bed).await?;
    // The first job compiles the function.
    let warm = bed.submit_with("input", "warm", MAP).await?;
    bed.succeeded(&warm).await?;
    let calm = bed.submit_with("input", "calm", MAP).await?;
    bed.succeeded(&calm).await?;
    bed.check("calm", DOCUMENTS).await?;
    let calm = events(&bed, &calm).await?;
    let mut between = gaps(&calm, |_, _| true);

    let (mut stalls, mut elections, mut beyond) = (Vec::new(), Vec::new(), Vec::new());
    let mut jobs = 0;
    while stalls.len() < step_downs {
        jobs += 1;
        ensure!(jobs <= step_downs * 2, "jobs end before the primary has stepped down");
        let output = format!("out-{jobs}");
        let id = bed.submit_with("input", &output, MAP).await?;
        let seen = disturb(&bed, &prober, &id, step_downs - stalls.len()).await?;
        bed.succeeded(&id).await?;
        bed.check(&output, DOCUMENTS).await?;
        let events = events(&bed, &id).await?;
        for step_down in &seen {
            let until = step_down.at + step_down.election + AFTER_MS;
            let stall =
                Times::of(gaps(&events, |from, to| to > step_down.at && from < until)).max();
            println!(
                "  step-down {}: nothing could be written for {} ms, the job stood still for {stall} ms",
                stalls.len() + 1,
                step_down.election
            );
            stalls.push(stall);
            elections.push(step_down.election);
            beyond.push(stall - step_down.election);
        }
        between.extend(gaps(&events, |from, to| {
            let apart = |one: &StepDown| to <= one.at || from >= one.at + one.election + AFTER_MS;
            seen.iter().all(apart)
        }));
    }
    for worker in &workers {
        stop(worker).await?;
    }
    stop(&coordinator).await?;
    println!("  {}", machine());
    Times::of(elections).print("nothing could be written");
    Times::of(stalls).print("the longest time without progress around a step-down");
    Times::of(between).print("times without progress apart from step-downs");
    let beyond = Times::of(beyond);
    beyond.print("the stall less the election");
    Ok(verdict(
        &format!("a job stands still no longer than the election and {MORE_MS} ms"),
        beyond.max(),
        MORE_MS,
    ))
}

/// Has the primary step down while the job runs, as often as the job allows.
async fn disturb(bed: &Bed, prober: &Prober, id: &str, most: usize) -> Result<Vec<StepDown>> {
    let mut seen = Vec::new();
    let (mut goal, mut not_before) = (COMMITS, 0);
    while seen.len() < most {
        let (done, all) = bed
            .wait_for("map tasks to be committed", async || {
                let of_job = doc! { "job": id, "kind": "map" };
                let mut of_done = of_job.clone();
                of_done.insert("state", "done");
                let done = bed.coll("aviary").count_documents(of_done).await.ok()?;
                let all = bed.coll("aviary").count_documents(of_job).await.ok()?;
                let is_due = done >= goal && now_ms() >= not_before;
                (is_due || (all > 0 && done == all)).then_some((done, all))
            })
            .await?;
        // What is left must last until everything a step-down does is over.
        if done * 4 > all * 3 {
            break;
        }
        let at = now_ms();
        bed.set.step_down().await?;
        let election = bed
            .wait_for("writes to go on", async || {
                (prober.last() > at + 2_000).then(|| prober.longest(at, at + 2_000))
            })
            .await?;
        seen.push(StepDown { at, election });
        goal = done + COMMITS;
        not_before = at + election + AFTER_MS;
    }
    Ok(seen)
}

/// When the job made progress: every claim, every commit, every other end of an attempt.
async fn events(bed: &Bed, id: &str) -> Result<Vec<i64>> {
    let mut events = Vec::new();
    for task in bed.tasks(id).await? {
        events.push(millis(&task, "finished")?);
        for attempt in task.get_array("history").context("no history")? {
            let attempt = attempt.as_document().context("no attempt")?;
            // That an attempt was lost or handed back is no progress.
            events.push(millis(attempt, "began")?);
        }
    }
    events.sort_unstable();
    Ok(events)
}

/// The times between events that follow each other, where `counts` says so.
fn gaps(events: &[i64], counts: impl Fn(i64, i64) -> bool) -> Vec<i64> {
    events
        .windows(2)
        .filter_map(|pair| match pair {
            [from, to] if counts(*from, *to) => Some(to - from),
            _ => None,
        })
        .collect()
}

/// Writes every 50 ms, and notes when that worked.
struct Prober {
    written: Arc<Mutex<Vec<i64>>>,
    _task: AbortOnDropHandle<()>,
}

impl Prober {
    async fn start(bed: &Bed) -> Result<Self> {
        const EVERY: Duration = Duration::from_millis(50);
        let mut options = ClientOptions::parse(bed.set.uri()).await?;
        options.retry_writes = Some(false);
        options.heartbeat_freq = Some(Duration::from_millis(500));
        options.server_selection_timeout = Some(Duration::from_millis(500));
        let client = Client::with_options(options)?;
        let probes = client.database("probe").collection::<Document>("probes");
        let written: Arc<Mutex<Vec<i64>>> = Arc::default();
        let noted = written.clone();
        let task = tokio::spawn(async move {
            let one = WriteConcern::builder().w(Acknowledgment::Nodes(1)).build();
            let set = doc! { "$currentDate": { "at": true } };
            loop {
                let write = probes
                    .update_one(doc! { "_id": 1 }, set.clone())
                    .upsert(true)
                    .write_concern(one.clone());
                if write.await.is_ok() {
                    noted.lock().unwrap_or_else(PoisonError::into_inner).push(now_ms());
                }
                tokio::time::sleep(EVERY).await;
            }
        });
        let prober = Self { written, _task: AbortOnDropHandle::new(task) };
        bed.wait_for("a first write", async || (prober.last() > 0).then_some(())).await?;
        Ok(prober)
    }

    fn last(&self) -> i64 {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.last().copied().unwrap_or_default()
    }

    /// The longest time without a write that touches these moments.
    fn longest(&self, from: i64, until: i64) -> i64 {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Times::of(gaps(&written, |last, next| next > from && last < until)).max()
    }
}
