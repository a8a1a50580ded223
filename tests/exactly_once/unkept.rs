//! A publish that no majority has: the primary alone has made it when its client learns that it may not last, and
//! then the primary is gone.

use aviary_testcontainers::ReplicaSetOptions;
use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;

use crate::common::{Bed, wait_for};
use crate::jobs;
use crate::rolled_back::replication;

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_that_is_rolled_back_is_made_again() {
    rolled_back("replace", doc! { "command.to": "test.counts" }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_that_is_rolled_back_is_made_again() {
    rolled_back("merge", doc! { "command.comment.aviary-publish": { "$exists": true } }).await;
}

/// Publishes with the last step interrupted while it waits for a majority; `last` tells that step from others.
async fn rolled_back(mode: &str, last: Document) {
    let options =
        ReplicaSetOptions { members: 3, test_commands: true, ..ReplicaSetOptions::default() };
    let bed = Bed::with(options).await.in_parts();
    jobs::load(&bed, "docs", 400, 10).await;
    bed.load("counts", vec![doc! { "_id": 0, "value": 1 }]).await;
    let _coordinator = bed.coordinator();
    // The lease is not what decides here.
    let lasting = [("AVIARY_LEASE_TTL_MS", "3600000")];
    let _worker = bed.spawn("worker", &["worker", "--slots", "1"], &lasting);
    // Neither the collection can be renamed over nor its document be written until this is over.
    let mut session = bed.client.start_session().await.expect("a session");
    session.start_transaction().await.expect("begun");
    let change = doc! { "$set": { "value": 2 } };
    let counts = bed.coll("counts");
    counts.update_one(doc! { "_id": 0 }, change).session(&mut session).await.expect("updated");
    let id = jobs::submit(&bed, "docs", &format!("{mode}:counts"), &[]).await;
    let step =
        wait_for("the publisher's last step", async || operations(&bed, &last).await.pop()).await;

    let primary = bed.set().wait_primary().await.expect("a primary");
    let others: Vec<usize> = (0..3).filter(|member| *member != primary).collect();
    for other in &others {
        replication(&bed, *other, "alwaysOn").await;
    }
    let clock = clock(&bed).await;
    session.abort_transaction().await.expect("ended");
    wait_for("the primary to have the results", async || {
        (jobs::total(&bed, "counts").await == 400).then_some(())
    })
    .await;
    let kill = doc! { "killOp": 1, "op": &step };
    bed.client.database("admin").run_command(kill).await.expect("interrupted");
    // Whatever it does next, no majority will have that either.
    wait_for("the publisher to go on", async || {
        let done = doc! { "job": &id, "kind": "publish", "state": "done" };
        let commits = bed.coll("aviary").find_one(done).await.ok()?.is_some();
        let asks = self::clock(&bed).await != clock;
        let again = operations(&bed, &last).await.iter().any(|other| *other != step);
        (commits || asks || again).then_some(())
    })
    .await;
    bed.set().kill(primary).await.expect("killed");
    for other in &others {
        replication(&bed, *other, "off").await;
    }
    jobs::succeeded(&bed, &id).await;
    assert_eq!(jobs::total(&bed, "counts").await, 400);
    jobs::nothing_left(&bed).await;
}

/// What runs on the primary and is like this.
async fn operations(bed: &Bed, like: &Document) -> Vec<Bson> {
    let running = [doc! { "$currentOp": {} }, doc! { "$match": like }];
    let Ok(found) = bed.client.database("admin").aggregate(running).await else {
        return Vec::new();
    };
    let found: Vec<Document> = found.try_collect().await.unwrap_or_default();
    found.iter().filter_map(|operation| operation.get("opid").cloned()).collect()
}

/// When a publisher last made sure of something, as the primary has it.
async fn clock(bed: &Bed) -> Option<Bson> {
    let clock = bed.coll("aviary").find_one(doc! { "kind": "clock" }).await.ok()??;
    clock.get("seen").cloned()
}
