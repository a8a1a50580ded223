//! Publishers that are killed, or overtaken, while they merge results into a collection that has content.

use bson::{Bson, doc};

use crate::common::Bed;
use crate::jobs::{self, Ask};

/// Every place at which a worker that merges results can be made to halt. Those of `reduce` alone come first.
const PLACES: [&str; 6] = [
    "publish.completed",
    "publish.recorded",
    "publish.staged",
    "publish.merge",
    "publish.merged",
    "publish.commit",
];
const OF_REDUCE: usize = 2;

/// A reduce of which every further call shows: values that were reduced twice are in the text twice.
const MAP: &str = "function () { emit(this.k % 3000, 'v'); }";
const REDUCE: &str = "function (key, values) { return values.join(''); }";
const FINALIZE: &str = "function (key, value) { return value.split('').sort().join(''); }";

const TARGET: &str = "merged";

pub async fn killed_publishers_merge_nothing_twice(bed: &Bed) {
    jobs::load_many(bed).await;
    let coordinator = jobs::coordinator(bed);
    let finalize = bed.file("finalize.js", FINALIZE).display().to_string();
    for (mode, places) in [("reduce", &PLACES[..]), ("merge", &PLACES[OF_REDUCE..])] {
        for place in places {
            with_old_target(bed).await;
            let doomed = bed.halting_worker(place);
            let id = submit(bed, mode, &finalize).await;
            jobs::kill_at(&doomed, place).await;
            let job = jobs::job(bed, &id).await;
            assert_eq!(jobs::text(&job, "state"), "publishing", "{mode} {place}");
            let next = bed.worker();
            jobs::succeeded(bed, &id).await;
            merged(bed, mode, place).await;
            jobs::stop(&next).await;
        }
    }
    // One job, and a publisher that dies at each step of it.
    with_old_target(bed).await;
    let id = submit(bed, "reduce", &finalize).await;
    for place in PLACES {
        let doomed = bed.halting_worker(place);
        jobs::kill_at(&doomed, place).await;
    }
    let last = bed.worker();
    jobs::succeeded(bed, &id).await;
    merged(bed, "reduce", "every step").await;
    jobs::stop(&last).await;

    overtaken(bed, &finalize).await;
    jobs::stop(&coordinator).await;
}

/// A publisher that wakes up after another has finished its job writes nothing.
async fn overtaken(bed: &Bed, finalize: &str) {
    for place in ["publish.completed", "publish.merge"] {
        with_old_target(bed).await;
        let slow = bed.paused_worker(place);
        let id = submit(bed, "reduce", finalize).await;
        slow.arrived().await;
        // Frozen, it loses its lease to the next.
        slow.process.freeze().expect("frozen");
        let next = bed.worker();
        jobs::succeeded(bed, &id).await;
        merged(bed, "reduce", place).await;
        // Whoever owns the target goes on with it.
        bed.coll(TARGET).delete_many(doc! {}).await.expect("emptied");
        bed.coll(TARGET).insert_one(doc! { "_id": 1, "value": "later" }).await.expect("written");
        slow.go_on();
        slow.process.thaw().expect("thawed");
        // It says so once it has found out.
        slow.process.wait_for_log("fenced").await.expect("it learns that its lease is lost");
        jobs::stop(&slow.process).await;
        assert_eq!(bed.all(TARGET).await, [doc! { "_id": 1, "value": "later" }], "{place}");
        jobs::nothing_left(bed).await;
        jobs::stop(&next).await;
    }
}

async fn submit(bed: &Bed, mode: &'static str, finalize: &str) -> String {
    let ask = Ask { functions: Some((MAP, REDUCE)), mode: Some(mode), ..Ask::new("many", TARGET) };
    // A flag lives as long as the test.
    let finalize: &'static str = finalize.to_owned().leak();
    Ask { flags: vec!["--finalize", finalize], ..ask }.submit(bed).await
}

/// Half of what is there has a key that the job knows.
async fn with_old_target(bed: &Bed) {
    bed.coll(TARGET).drop().await.expect("dropped");
    let old = (1_500..4_500).map(|n| doc! { "_id": n, "value": "o", "more": n });
    bed.load(TARGET, old.collect()).await;
}

/// The target is what it was, with the result in it, once.
async fn merged(bed: &Bed, mode: &str, place: &str) {
    let found = bed.all(TARGET).await;
    assert_eq!(found.len(), 4_500, "{mode} {place}");
    for (n, row) in (0_i64..).zip(&found) {
        assert_eq!(jobs::number(row, "_id"), n, "{mode} {place}");
        let expected = expected(mode, n);
        assert_eq!(row.get("value"), Some(&Bson::from(expected)), "{mode} {place}: {row}");
        assert_eq!(row.contains_key("more"), n >= 3_000, "{mode} {place}: {row}");
    }
    jobs::nothing_left(bed).await;
}

/// Each of 3,000 keys is emitted eight times.
fn expected(mode: &str, n: i64) -> String {
    match (mode, n) {
        (_, 3_000..) => "o".into(),
        ("reduce", 1_500..) => format!("o{}", "v".repeat(8)),
        _ => "v".repeat(8),
    }
}
