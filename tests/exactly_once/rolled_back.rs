//! A claim that a failover rolls back: the next one has the same epoch.

use aviary_testcontainers::ReplicaSetOptions;
use bson::{Document, doc};
use mongodb::Client;

use crate::common::{Bed, wait_for};
use crate::jobs;

#[tokio::test(flavor = "multi_thread")]
async fn a_rolled_back_claim_does_not_fail_a_map_only_job() {
    let options =
        ReplicaSetOptions { members: 3, test_commands: true, ..ReplicaSetOptions::default() };
    let bed = Bed::with(options).await.in_parts();
    jobs::load(&bed, "docs", 40, 40).await;
    let coordinator = bed.coordinator();
    let id = jobs::submit(&bed, "docs", "replace:copies", &["--map-only"]).await;
    wait_for("a task to claim", || async {
        let ready = doc! { "job": &id, "kind": "map", "state": "ready" };
        bed.coll("aviary").find_one(ready).await.ok().flatten()
    })
    .await;
    jobs::stop(&coordinator).await;
    // From here on nothing reaches the others: what the primary acknowledges alone will be rolled back.
    let primary = bed.set().wait_primary().await.expect("a primary");
    let others: Vec<usize> = (0..3).filter(|member| *member != primary).collect();
    for other in &others {
        replication(&bed, *other, "alwaysOn").await;
    }
    // It does not look after its lease while the test lasts, so it goes on as if nothing had happened.
    let first = bed.pause("map.read", |env| {
        let more = [("AVIARY_LEASE_TTL_MS", "3600000")];
        bed.spawn("worker", &["worker", "--slots", "1"], &[env, &more[..]].concat())
    });
    first.arrived().await;
    bed.set().kill(primary).await.expect("killed");
    for other in &others {
        replication(&bed, *other, "off").await;
    }
    bed.set().wait_primary().await.expect("a new primary");
    let task = wait_for("the task as the others know it", || async {
        bed.coll("aviary").find_one(doc! { "job": &id, "kind": "map" }).await.ok().flatten()
    })
    .await;
    assert_eq!(jobs::number(&task, "epoch"), 0, "the claim was rolled back: {task}");
    first.go_on();
    first.process.wait_for_log("fenced").await.expect("it learns that its claim is gone");
    jobs::stop(&first.process).await;
    let _worker = bed.worker();
    let _coordinator = bed.coordinator();
    jobs::succeeded(&bed, &id).await;
    assert_eq!(bed.all("copies").await.len(), 40);
}

/// Stops a member from fetching what the primary writes, or lets it go on.
pub async fn replication(bed: &Bed, member: usize, mode: &str) {
    let port = bed.set().port(member).expect("a port");
    let uri = format!("mongodb://127.0.0.1:{port}/?directConnection=true");
    let admin = Client::with_uri_str(uri).await.expect("a client").database("admin");
    let set = doc! { "configureFailPoint": "stopReplProducer", "mode": mode };
    let _: Document = admin.run_command(set).await.expect("a fail point");
}
