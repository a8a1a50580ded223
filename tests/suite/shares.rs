//! One worker with one slot serves several jobs at once: whose task comes when.

use aviary_testcontainers::Managed;
use bson::{DateTime, Document, doc};
use futures_util::TryStreamExt;

use crate::common::{Bed, wait_for};

/// Each document takes a good while, wherever this runs.
pub const SLOW: &str = "function () {
  let h = this._id;
  for (let i = 0; i < 300000; i++) h = (h * 31 + i) % 1000003;
  emit(h % 3, 1);
}";
const QUICK: &str = "function () { emit(this._id % 3, 1); }";

/// How many documents [`SLOW`] reads. Each one gets its own task.
const TASKS: i32 = 60;

async fn bed() -> Bed {
    let bed = Bed::start(1).await.in_parts();
    let pad = "x".repeat(60_000);
    bed.load("large", (0..TASKS).map(|n| doc! { "_id": n, "pad": &pad }).collect()).await;
    bed.load("small", (0..20).map(|n| doc! { "_id": n }).collect()).await;
    bed.file("slow.js", SLOW);
    bed.file("quick.js", QUICK);
    bed
}

/// One that gives each document of the large input a task.
fn coordinator(bed: &Bed) -> Managed {
    bed.spawn("coordinator", &["coordinator"], &[("AVIARY_SPLIT_BYTES", "65536")])
}

/// Submits a job and does not wait for it. Returns its id.
async fn submit(bed: &Bed, client: &str, input: &str, map: &str) -> String {
    let map = bed.dir.path().join(map).display().to_string();
    let target = format!("replace:{client}_{input}");
    let args = [
        "submit", "--detach", "--quiet", "-c", input, "--map", &map, "--reduce", "_sum", "--out",
        &target, "--client", client,
    ];
    bed.aviary(&args).await.ok().stdout.trim().to_owned()
}

/// A job's state; nothing while no coordinator has taken the request in.
async fn state(bed: &Bed, id: &str) -> Option<String> {
    let job = bed.coll("aviary").find_one(doc! { "_id": id }).await.expect("read")?;
    Some(job.get_str("state").expect("a state").to_owned())
}

async fn ended(bed: &Bed, id: &str) {
    let end = async || (state(bed, id).await.as_deref() == Some("succeeded")).then_some(());
    wait_for("the job to succeed", end).await;
}

async fn maps_done(bed: &Bed, id: &str) -> u64 {
    let done = doc! { "job": id, "kind": "map", "state": "done" };
    bed.coll("aviary").count_documents(done).await.expect("counted")
}

/// When each map task of a job was begun, in order.
async fn begins(bed: &Bed, id: &str) -> Vec<DateTime> {
    let tasks = bed.coll("aviary").find(doc! { "job": id, "kind": "map" }).await.expect("found");
    let tasks: Vec<Document> = tasks.try_collect().await.expect("read");
    let mut begins: Vec<DateTime> =
        tasks.iter().map(|task| *task.get_datetime("leased").expect("a time")).collect();
    begins.sort();
    begins
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_job_does_not_wait_for_a_large_one_of_the_same_client() {
    let bed = bed().await;
    let _coordinator = coordinator(&bed);
    let _worker = bed.spawn("worker", &["worker", "--slots", "1"], &[]);
    let large = submit(&bed, "ann", "large", "slow.js").await;
    let began = async || (maps_done(&bed, &large).await >= 3).then_some(());
    wait_for("the large job to be under way", began).await;
    for _ in 0..3 {
        let small = submit(&bed, "ann", "small", "quick.js").await;
        ended(&bed, &small).await;
    }
    assert_eq!(
        state(&bed, &large).await.as_deref(),
        Some("mapping"),
        "three small jobs came and went"
    );
    ended(&bed, &large).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_go_round_among_clients() {
    let bed = bed().await;
    let first = submit(&bed, "ann", "large", "slow.js").await;
    let second = submit(&bed, "bob", "large", "slow.js").await;
    let _coordinator = coordinator(&bed);
    for id in [&first, &second] {
        let planned = async || (state(&bed, id).await.as_deref() == Some("mapping")).then_some(());
        wait_for("the job to be planned", planned).await;
    }
    let _worker = bed.spawn("worker", &["worker", "--slots", "1"], &[]);
    ended(&bed, &first).await;
    ended(&bed, &second).await;
    let (first, second) = (begins(&bed, &first).await, begins(&bed, &second).await);
    assert!(first.len() >= 30 && second.len() == first.len(), "{first:?} {second:?}");
    // Whatever a task took: of either, half had begun before three quarters of the other had.
    let at = |begins: &[DateTime], quarters: usize| begins[begins.len() * quarters / 4 - 1];
    assert!(at(&second, 2) < at(&first, 3), "the second did not wait: {first:?} {second:?}");
    assert!(at(&first, 2) < at(&second, 3), "nor did the first: {first:?} {second:?}");
}
