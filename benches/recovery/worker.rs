//! From `kill -9` of a worker to its task running elsewhere.
//!
//! The worker that is killed stands at a named place of its task (see `src/halt.rs`) and keeps its lease; another
//! worker of the same shard has nothing to do. Nobody tells anybody of the death: the lease runs out, and the other
//! one, which looks for work at least every poll, claims the task. The moment of the claim is `leased` of the next
//! attempt, by the server's clock, which is the machine's, as is the moment of the kill.

use anyhow::{Context, Result, ensure};
use aviary_testcontainers::Managed;
use bson::{Document, doc};

use super::bed::{Bed, is_of, millis, pause, stop};
use super::figures::{Times, machine, now_ms, verdict};

const TTL_MS: i64 = 3_000;
/// What may come on top of the lease: a poll, and a claim on a busy machine.
const MORE_MS: i64 = 2_000;
const DOCUMENTS: i32 = 100;
/// Where workers are killed, and in which kind of task.
const PLACES: [(&str, &str); 3] =
    [("map.read", "map"), ("reduce.read", "reduce"), ("publish.staged", "publish")];
/// A task outlives seven workers; the next one would end its job.
const KILLS_OF_A_JOB: usize = 5;

/// What one kill showed, in milliseconds.
struct Kill {
    kind: &'static str,
    /// From the kill to the claim by another worker.
    claimed: i64,
    /// From the end of the lease to that claim.
    late: i64,
    /// From the kill until another worker was where the killed one had been; the last of a job is not asked.
    again: Option<i64>,
}

/// Says whether the promise was kept.
pub async fn run(kills: usize) -> Result<bool> {
    println!(
        "\n1. {kills} workers killed, each holding a task; leases of {TTL_MS} ms, default poll"
    );
    let ttl = TTL_MS.to_string();
    let bed = Bed::start(1, &[("AVIARY_LEASE_TTL_MS", &ttl)]).await?;
    bed.load("input", DOCUMENTS, 0).await?;
    let coordinator = bed.spawn(&["coordinator"], &[])?;
    let mut seen: Vec<Kill> = Vec::new();
    let mut missed = 0;
    for (n, (place, kind)) in PLACES.into_iter().cycle().enumerate() {
        if seen.len() >= kills {
            break;
        }
        let of_job = KILLS_OF_A_JOB.min(kills - seen.len());
        let found = one_job(&bed, place, kind, &format!("out-{n}"), of_job).await?;
        missed += of_job - found.len();
        ensure!(
            missed <= kills,
            "workers lose their leases before they are killed; give them less to bear"
        );
        seen.extend(found);
    }
    stop(&coordinator).await?;
    println!("  {}", machine());
    if missed > 0 {
        println!(
            "  not counted: {missed} workers that had lost their lease before they were killed"
        );
    }
    for (_, kind) in PLACES {
        let of_kind = seen.iter().filter(|kill| kill.kind == kind);
        Times::of(of_kind.map(|kill| kill.claimed).collect())
            .print(&format!("from the kill to the claim of a {kind} task"));
    }
    let claimed = Times::of(seen.iter().map(|kill| kill.claimed).collect());
    claimed.print("from the kill to the claim, all");
    Times::of(seen.iter().map(|kill| kill.late).collect())
        .print("of this, from the end of the lease to the claim");
    Times::of(seen.iter().filter_map(|kill| kill.again).collect())
        .print("from the kill until another was as far in the task");
    Ok(verdict(
        &format!("p99 from the kill to the claim is within the lease and {MORE_MS} ms"),
        claimed.percentile(99),
        TTL_MS + MORE_MS,
    ))
}

/// One job, of whose task `kind` one worker after the other is killed.
async fn one_job(
    bed: &Bed,
    place: &str,
    kind: &'static str,
    output: &str,
    kills: usize,
) -> Result<Vec<Kill>> {
    let start = async |place: Option<&str>| -> Result<Managed> {
        let env: Vec<_> = place.map(|place| ("AVIARY_HALT_AT", place)).into_iter().collect();
        let worker = bed.spawn(&["worker", "--slots", "1"], &env)?;
        bed.known(&worker).await?;
        Ok(worker)
    };
    let mut seen: Vec<Kill> = Vec::new();
    let mut killed_at: Option<i64> = None;
    let mut holder = start(Some(place)).await?;
    let id = bed.submit("input", output).await?;
    for n in 1..=kills {
        holder.wait_for_log("halted").await?;
        if let (Some(killed), Some(last)) = (killed_at, seen.last_mut()) {
            last.again = Some(now_ms() - killed);
        }
        let next = start((n < kills).then_some(place)).await?;
        // A lease is renewed every third of it; any moment in between is as good.
        pause(TTL_MS).await;
        let killed = now_ms();
        holder.kill()?;
        let held = task(bed, &id, kind).await?;
        let is_held = is_of(held.get_str("worker").unwrap_or_default(), &holder)
            && held.get_str("state").is_ok_and(|state| state == "leased");
        let epoch = held.get_i64("epoch").context("no epoch")?;
        let claimed = bed
            .wait_for("the task to be claimed by another worker", async || {
                let now = task(bed, &id, kind).await.ok()?;
                // The last worker does not halt, so the task may be done by now; it names its worker still.
                let by_next = is_of(now.get_str("worker").ok()?, &next);
                (by_next && (now.get_i64("epoch").ok()? > epoch || !is_held)).then_some(now)
            })
            .await?;
        killed_at = is_held.then_some(killed);
        if is_held {
            let claimed = millis(&claimed, "leased")?;
            let late = claimed - millis(&held, "until")?;
            seen.push(Kill { kind, claimed: claimed - killed, late, again: None });
        }
        holder = next;
    }
    bed.succeeded(&id).await?;
    bed.check(output, DOCUMENTS).await?;
    stop(&holder).await?;
    Ok(seen)
}

/// The job's only task of a kind.
async fn task(bed: &Bed, job: &str, kind: &str) -> Result<Document> {
    let found = bed.coll("aviary").find_one(doc! { "job": job, "kind": kind }).await?;
    found.with_context(|| format!("job {job} has no {kind} task"))
}
