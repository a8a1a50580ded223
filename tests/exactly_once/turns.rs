//! Two jobs that reduce into one target: neither's values are lost.

use bson::doc;

use crate::common::{Bed, wait_for};
use crate::cutter::Cutter;
use crate::jobs;

const KEYS: i32 = 10;

async fn with_target(bed: &Bed) {
    jobs::load(bed, "docs", 1_000, KEYS).await;
    bed.load("sums", (0..KEYS).map(|n| doc! { "_id": n, "value": 1_001 }).collect()).await;
}

/// One publisher's merge fails once for a reason that passes, while another job is ready to publish.
#[tokio::test(flavor = "multi_thread")]
async fn a_merge_that_fails_once_loses_no_other_jobs_update() {
    let bed = Bed::start(1).await.in_parts();
    with_target(&bed).await;
    let cutter = Cutter::to_primary(&bed).await;
    let through = [("AVIARY_URI", cutter.uri())];
    let through = through.each_ref().map(|(name, uri)| (*name, uri.as_str()));
    let _coordinator = bed.spawn("coordinator", &["coordinator"], &through);
    let worker = bed.pause("reduce.commit", |env| {
        bed.spawn("worker", &["worker", "--slots", "2"], &[&through[..], env].concat())
    });
    let first = jobs::submit(&bed, "docs", "reduce:sums", &[]).await;
    let second = jobs::submit(&bed, "docs", "reduce:sums", &[]).await;
    // Both are about to publish.
    for id in [&first, &second] {
        wait_for("the reduce task to be done but for its commit", || async {
            let leased = doc! { "job": id, "kind": "reduce", "state": "leased" };
            bed.coll("aviary").find_one(leased).await.ok().flatten()
        })
        .await;
    }
    cutter.cut("$merge");
    worker.go_on();
    cutter.has_cut().await;
    jobs::succeeded(&bed, &first).await;
    jobs::succeeded(&bed, &second).await;
    assert_eq!(jobs::total(&bed, "sums").await, 10_010 + 2_000);
    jobs::nothing_left(&bed).await;
}

/// A publisher is killed right after it has recorded what the target is to hold; meanwhile another job
/// is done, and has to wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_killed_after_it_recorded_its_values_keeps_its_turn() {
    let bed = Bed::start(1).await.in_parts();
    with_target(&bed).await;
    let _coordinator = bed.coordinator();
    let doomed = bed.halting_worker("publish.recorded");
    let first = jobs::submit(&bed, "docs", "reduce:sums", &[]).await;
    jobs::kill(&doomed).await;
    // A younger job that goes first, if it may.
    let second = jobs::submit(&bed, "docs", "reduce:sums", &["--priority", "9"]).await;
    let _worker = bed.spawn("worker", &["worker", "--slots", "2"], &[]);
    jobs::succeeded(&bed, &first).await;
    jobs::succeeded(&bed, &second).await;
    assert_eq!(jobs::total(&bed, "sums").await, 10_010 + 2_000);
    assert!(jobs::publish_history(&bed, &first).await.contains(&"lost".to_owned()));
    jobs::nothing_left(&bed).await;
}

/// A job that has its target's turn and nobody to publish it makes another wait, and that one says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_for_its_turn_says_so() {
    let bed = Bed::start(1).await.in_parts();
    with_target(&bed).await;
    let _coordinator = bed.coordinator();
    let slow = bed.paused_worker("publish.merge");
    let first = jobs::submit(&bed, "docs", "merge:sums", &[]).await;
    slow.arrived().await;
    let _worker = bed.worker();
    let second = jobs::submit(&bed, "docs", "replace:sums", &[]).await;
    let told = format!("job {first} publishes into test.sums");
    wait_for("the reason in status", || async {
        let status = bed.aviary(&["status", &second]).await.ok();
        status.words().contains(&told).then_some(())
    })
    .await;
    slow.go_on();
    jobs::succeeded(&bed, &first).await;
    jobs::succeeded(&bed, &second).await;
    jobs::nothing_left(&bed).await;
}
