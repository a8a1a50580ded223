//! How much later a small job ends when the coordinator is killed.
//!
//! Two coordinators run, and two users submit jobs of 100 documents, each the next one as soon as the last has ended.
//! Now and then the coordinator that holds the role is killed (`kill -9`), and another one started in its place. Jobs
//! that ran meanwhile are set against those that were not disturbed. A job's time is from `created` to `finished` of
//! its document; starting `aviary submit` is not part of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use aviary_testcontainers::Managed;
use bson::{Document, doc};

use super::bed::{Bed, is_of, millis, pause, stop};
use super::figures::{Times, machine, now_ms, verdict};

/// Long enough that a third of it, the time between two renewals, stands out from the noise.
const TTL_MS: i64 = 6_000;
const DOCUMENTS: i32 = 100;
/// How long jobs are undisturbed between two kills, at least.
const CALM: Duration = Duration::from_secs(4);

/// When a coordinator was killed, and when another one had the role.
struct Kill {
    at: i64,
    taken: i64,
}

/// Says whether the promise was kept.
pub async fn run(kills: usize) -> Result<bool> {
    println!(
        "\n3. {kills} coordinators killed, under jobs of {DOCUMENTS} documents; leases of {TTL_MS} ms, default poll"
    );
    let bed = Bed::start(1, &[]).await?;
    bed.load("input", DOCUMENTS, 0).await?;
    let coordinators = vec![coordinator(&bed).await?, coordinator(&bed).await?];
    let worker = bed.spawn(&["worker", "--slots", "2"], &[])?;
    bed.known(&worker).await?;
    // The first job compiles the function.
    let warm = bed.submit("input", "warm").await?;
    bed.succeeded(&warm).await?;

    // Two users, each with one job at a time: what waits for a coordinator is not to become a crowd.
    let enough = AtomicBool::new(false);
    let ((killed, coordinators), one, other) = tokio::try_join!(
        kill(&bed, coordinators, kills, &enough),
        submit(&bed, "one", &enough),
        submit(&bed, "other", &enough),
    )?;
    for process in coordinators.iter().chain([&worker]) {
        stop(process).await?;
    }
    report(&killed, &[one, other].concat())
}

async fn coordinator(bed: &Bed) -> Result<Managed> {
    let ttl = TTL_MS.to_string();
    let process = bed.spawn(&["coordinator"], &[("AVIARY_LEASE_TTL_MS", &ttl)])?;
    process.wait_for_log("coordinator started").await?;
    Ok(process)
}

/// Kills the holder of the role so many times, lets the users know when that is done, and returns those that run.
async fn kill(
    bed: &Bed,
    mut coordinators: Vec<Managed>,
    kills: usize,
    enough: &AtomicBool,
) -> Result<(Vec<Kill>, Vec<Managed>)> {
    let mut killed = Vec::new();
    for _ in 0..kills {
        tokio::time::sleep(CALM).await;
        pause(TTL_MS).await;
        let holder = role(bed).await?.get_str("worker").context("nobody has the role")?.to_owned();
        let Some(place) = coordinators.iter().position(|one| is_of(&holder, one)) else {
            bail!("{holder} is none of those that were started");
        };
        let doomed = coordinators.remove(place);
        let at = now_ms();
        doomed.kill()?;
        let taken = bed
            .wait_for("another coordinator", async || {
                let now = role(bed).await.ok()?;
                (now.get_str("worker").ok()? != holder).then(|| millis(&now, "leased").ok())?
            })
            .await?;
        killed.push(Kill { at, taken });
        // When the next one asks for the role must not depend on when this one renews it.
        pause(TTL_MS / 3).await;
        coordinators.push(coordinator(bed).await?);
    }
    tokio::time::sleep(CALM).await;
    enough.store(true, Ordering::Relaxed);
    Ok((killed, coordinators))
}

/// Prints what was measured, and says whether the promise was kept.
fn report(killed: &[Kill], jobs: &[(i64, i64)]) -> Result<bool> {
    let (mut calm, mut disturbed) = (Vec::new(), Vec::new());
    for (created, finished) in jobs {
        let is_disturbed = killed.iter().any(|kill| *created < kill.taken && *finished > kill.at);
        if is_disturbed { &mut disturbed } else { &mut calm }.push(finished - created);
    }
    ensure!(!calm.is_empty() && !disturbed.is_empty(), "no job to compare with");
    let (calm, disturbed) = (Times::of(calm), Times::of(disturbed));
    println!("  {}", machine());
    Times::of(killed.iter().map(|kill| kill.taken - kill.at).collect())
        .print("from the kill until another had the role");
    calm.print("a job, undisturbed");
    disturbed.print("a job that a kill met");
    let delay = disturbed.max() - calm.percentile(50);
    println!("  the slowest of them took {delay} ms longer than half of the undisturbed ones");
    Ok(verdict(
        "the slowest job that a kill met takes no longer than the slowest undisturbed one and the lease",
        disturbed.max(),
        TTL_MS + calm.max(),
    ))
}

/// Submits one job after the other until there are enough; says when each was created and when it had ended.
async fn submit(bed: &Bed, user: &str, enough: &AtomicBool) -> Result<Vec<(i64, i64)>> {
    let mut times = Vec::new();
    while !enough.load(Ordering::Relaxed) {
        let output = format!("out-{user}-{}", times.len());
        let id = bed.submit("input", &output).await?;
        let job = bed.succeeded(&id).await?;
        bed.check(&output, DOCUMENTS).await?;
        times.push((millis(&job, "created")?, millis(&job, "finished")?));
    }
    Ok(times)
}

/// The role of coordinator as it stands.
async fn role(bed: &Bed) -> Result<Document> {
    let found = bed.coll("aviary").find_one(doc! { "_id": "coordinator" }).await?;
    found.context("there is no role yet")
}
