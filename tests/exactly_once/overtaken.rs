//! Publishers and coordinators that are frozen, overtaken and thawed: a healthy job never fails.

use bson::doc;

use crate::common::{Bed, Paused, wait_for};
use crate::jobs;

/// One publisher is frozen before it has looked for the results, the next one has completed them, so that what
/// the first looks for is gone while the job still publishes.
#[tokio::test(flavor = "multi_thread")]
async fn an_overtaken_publisher_does_not_fail_the_job() {
    let bed = Bed::start(1).await.in_parts();
    jobs::load(&bed, "docs", 1_000, 10).await;
    bed.load("sums", (0..10).map(|n| doc! { "_id": n, "value": 1_001 }).collect()).await;
    let _coordinator = bed.coordinator();
    let first = trusting(&bed, "publish.staged");
    let id = jobs::submit(&bed, "docs", "reduce:sums", &[]).await;
    first.arrived().await;
    first.process.freeze().expect("frozen");
    expire(&bed, &id).await;
    let second = bed.paused_worker("publish.merge");
    second.arrived().await;
    first.go_on();
    first.process.thaw().expect("thawed");
    first.process.wait_for_log("fenced").await.expect("it learns that its lease is lost");
    assert_eq!(jobs::state(&bed, &id).await, "publishing");
    second.go_on();
    jobs::succeeded(&bed, &id).await;
    assert_eq!(jobs::total(&bed, "sums").await, 10_010 + 1_000);
    jobs::nothing_left(&bed).await;
}

/// A coordinator is frozen at every place in turn; another one takes over and finishes; the first is thawed.
#[tokio::test(flavor = "multi_thread")]
async fn a_superseded_coordinator_changes_nothing() {
    let bed = Bed::start(1).await.in_parts();
    jobs::load(&bed, "docs", 400, 10).await;
    let _worker = bed.worker();
    for place in ["plan", "plan.written", "mapping", "reducing", "clean"] {
        let slow = bed.pause(place, |env| bed.spawn("slow", &["coordinator"], env));
        let id = jobs::submit(&bed, "docs", "replace:counts", &[]).await;
        slow.arrived().await;
        slow.process.freeze().expect("frozen");
        let next = bed.coordinator();
        jobs::succeeded(&bed, &id).await;
        let before = jobs::job(&bed, &id).await;
        slow.go_on();
        slow.process.thaw().expect("thawed");
        let learned = slow.process.wait_for_log("\"holds\":false").await;
        learned.expect("it learns that the role is not its own");
        jobs::stop(&slow.process).await;
        let after = jobs::job(&bed, &id).await;
        for field in ["state", "plan", "map_tasks", "error"] {
            assert_eq!(after.get(field), before.get(field), "{place}");
        }
        assert_eq!(jobs::total(&bed, "counts").await, 400, "{place}");
        jobs::nothing_left(&bed).await;
        let stale = doc! { "job": &id, "plan": { "$ne": after.get_i32("plan").expect("a plan") } };
        wait_for("tasks of plans that do not count to go", || async {
            bed.coll("aviary").find_one(stale.clone()).await.ok()?.is_none().then_some(())
        })
        .await;
        jobs::stop(&next).await;
    }
}

/// SIGTERM in the middle of a publish hands the task to the next worker.
#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_is_told_to_stop_hands_its_task_over() {
    let bed = Bed::start(1).await.in_parts();
    jobs::load(&bed, "docs", 400, 10).await;
    let _coordinator = bed.coordinator();
    for (mode, place) in [("replace", "publish.staged"), ("merge", "publish.staged")] {
        let first = bed.paused_worker(place);
        let id = jobs::submit(&bed, "docs", &format!("{mode}:counts"), &[]).await;
        first.arrived().await;
        first.process.terminate().expect("it runs");
        first.go_on();
        let _next = bed.worker();
        jobs::succeeded(&bed, &id).await;
        assert!(jobs::publish_history(&bed, &id).await.contains(&"drained".to_owned()));
        assert_eq!(jobs::total(&bed, "counts").await, 400);
        jobs::nothing_left(&bed).await;
        jobs::stop(&_next).await;
    }
}

/// One publisher is frozen before it records what the target is to hold. Another has taken over, and has not looked at
/// the target yet, when the first wakes up: were its values merged now, the other would count them once more.
#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_is_overtaken_records_nothing() {
    let bed = Bed::start(1).await.in_parts();
    jobs::load(&bed, "docs", 1_000, 10).await;
    bed.load("sums", (0..10).map(|n| doc! { "_id": n, "value": 1_001 }).collect()).await;
    let _coordinator = bed.coordinator();
    let first = trusting(&bed, "publish.completed");
    let id = jobs::submit(&bed, "docs", "reduce:sums", &[]).await;
    first.arrived().await;
    first.process.freeze().expect("frozen");
    expire(&bed, &id).await;
    let second = bed.paused_worker("publish.staged");
    second.arrived().await;
    first.go_on();
    first.process.thaw().expect("thawed");
    first.process.wait_for_log("fenced").await.expect("it learns that its lease is lost");
    jobs::stop(&first.process).await;
    assert_eq!(jobs::total(&bed, "sums").await, 10_010, "nothing is merged");
    second.go_on();
    jobs::succeeded(&bed, &id).await;
    assert_eq!(jobs::total(&bed, "sums").await, 10_010 + 1_000);
    jobs::nothing_left(&bed).await;
}

/// The publisher dies once the result is in place, and its owner drops it before anybody has looked.
#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_its_owner_has_dropped_was_published() {
    let bed = Bed::start(1).await.in_parts();
    jobs::load(&bed, "docs", 400, 10).await;
    let _coordinator = bed.coordinator();
    let doomed = bed.halting_worker("publish.renamed");
    let id = jobs::submit(&bed, "docs", "replace:counts", &[]).await;
    jobs::kill(&doomed).await;
    assert_eq!(jobs::total(&bed, "counts").await, 400);
    bed.coll("counts").drop().await.expect("dropped");
    let _next = bed.worker();
    jobs::succeeded(&bed, &id).await;
    assert_eq!(bed.all("counts").await.len(), 0);
    jobs::nothing_left(&bed).await;
}

/// A worker that stops at a place, and trusts its lease for longer than the server will let it have it: only the fence
/// is left to stop it.
fn trusting(bed: &Bed, place: &str) -> Paused {
    bed.pause(place, |env| {
        let more = [("AVIARY_LEASE_TTL_MS", "3600000")];
        bed.spawn("trusting", &["worker", "--slots", "1"], &[env, &more[..]].concat())
    })
}

/// Ends the lease on a job's publish task as the server sees it.
async fn expire(bed: &Bed, id: &str) {
    let over = vec![doc! { "$set": { "until": { "$subtract": ["$$NOW", 1_000] } } }];
    let leased = doc! { "job": id, "kind": "publish", "state": "leased" };
    let expired = bed.coll("aviary").update_one(leased, over).await.expect("updated");
    assert_eq!(expired.modified_count, 1);
}
