//! Workers that cannot do a task leave it to those that can.

use bson::doc;

use crate::common::{Bed, wait_for};
use crate::jobs;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_too_small_leaves_a_job_to_another() {
    let bed = Bed::start(1).await.in_parts();
    jobs::load(&bed, "docs", 400, 10).await;
    let _coordinator =
        bed.spawn("coordinator", &["coordinator"], &[("AVIARY_SPLIT_BYTES", "2000")]);
    let small = bed.spawn("small", &["worker", "--slots", "2", "--memory-mb", "64"], &[]);
    for _ in 0..3 {
        let id = jobs::submit(&bed, "docs", "reduce:sums", &["--memory-mb", "128"]).await;
        small.wait_for_log("leaving the task to another worker").await.expect("it says so");
        assert_ne!(jobs::state(&bed, &id).await, "failed");
        let capable = bed.spawn("capable", &["worker", "--slots", "1"], &[]);
        jobs::succeeded(&bed, &id).await;
        jobs::stop(&capable).await;
    }
    assert_eq!(jobs::total(&bed, "sums").await, 3 * 400);
    jobs::nothing_left(&bed).await;
}

/// More runs than are merged at once need temporary files.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_temporary_files_leaves_a_task_to_another() {
    let bed = Bed::start(1).await.in_parts();
    let pad = "x".repeat(2_000);
    let docs = (0..120).map(|n| doc! { "_id": n, "keys": 120, "pad": &pad });
    bed.load("docs", docs.collect()).await;
    // A split for every document or two.
    let _coordinator =
        bed.spawn("coordinator", &["coordinator"], &[("AVIARY_SPLIT_BYTES", "2000")]);
    let missing = bed.dir.path().join("missing").display().to_string();
    let lacking = bed.spawn("lacking", &["worker", "--slots", "2"], &[("TMPDIR", &missing)]);
    let id = jobs::submit(&bed, "docs", "replace:counts", &[]).await;
    lacking.wait_for_log("leaving the task to another worker").await.expect("it says so");
    wait_for("the reason in status", || async {
        let status = bed.aviary(&["status", &id, "-o", "json"]).await.ok();
        let waiting = status.json()[0]["waiting"].to_string();
        waiting.contains("temporary").then_some(())
    })
    .await;
    assert_eq!(jobs::state(&bed, &id).await, "reducing");
    let _capable = bed.worker();
    jobs::succeeded(&bed, &id).await;
    assert_eq!(jobs::total(&bed, "counts").await, 120);
    jobs::nothing_left(&bed).await;
}
