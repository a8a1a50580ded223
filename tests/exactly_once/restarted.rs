//! A server that was restarted since a job's snapshot cannot read it; the others can.

use aviary_testcontainers::ReplicaSetOptions;
use bson::doc;

use crate::common::{Bed, wait_for};
use crate::jobs;

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_primary_does_not_fail_a_job_whose_snapshot_is_older() {
    let bed = Bed::with(ReplicaSetOptions { members: 3, ..ReplicaSetOptions::default() })
        .await
        .in_parts();
    jobs::load(&bed, "docs", 400, 10).await;
    let coordinator =
        bed.pause("plan.written", |env| bed.spawn("coordinator", &["coordinator"], env));
    let id = jobs::submit(&bed, "docs", "replace:counts", &[]).await;
    coordinator.arrived().await;
    // From here on the job has its snapshot.
    let primary = bed.set().wait_primary().await.expect("a primary");
    bed.coll("later").insert_one(doc! { "_id": 1 }).await.expect("inserted");
    bed.set().stop(primary).await.expect("stopped");
    bed.set().restart(primary).await.expect("restarted");
    bed.set().wait_healthy().await.expect("healthy");
    wait_for("the restarted member to be the primary", || async {
        let up = doc! { "replSetStepUp": 1 };
        // Refused while it is behind, or while somebody else is elected.
        let _ = bed.set().run_on_member(primary, up).await;
        (bed.set().primary().await == Some(primary)).then_some(())
    })
    .await;
    coordinator.go_on();
    let worker = bed.worker();
    jobs::succeeded(&bed, &id).await;
    let log = worker.log().expect("its log");
    assert!(log.contains("asking another member for the snapshot"), "{log}");
    assert_eq!(jobs::total(&bed, "counts").await, 400);
    jobs::nothing_left(&bed).await;
}
