//! A rename that waits behind somebody's transaction: the publish goes on once it is over.

use bson::{Document, doc};
use futures_util::TryStreamExt;

use crate::common::{Bed, wait_for};
use crate::jobs;

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_locked_delays_the_publish_and_fails_nothing() {
    let bed = Bed::start(1).await;
    jobs::load(&bed, "docs", 400, 10).await;
    bed.load("counts", vec![doc! { "_id": "old", "value": 1 }]).await;
    let _coordinator = bed.coordinator();
    let first = bed.spawn(
        "worker",
        &["worker", "--slots", "1"],
        &[("AVIARY_LEASE_TTL_MS", crate::common::LEASE_TTL_MS)],
    );
    let mut session = bed.client.start_session().await.expect("a session");
    session.start_transaction().await.expect("begun");
    let locked = bed.coll("counts");
    locked.insert_one(doc! { "_id": "mine" }).session(&mut session).await.expect("inserted");

    let id = jobs::submit(&bed, "docs", "replace:counts", &[]).await;
    waiting_renames(&bed, 1).await;
    // The publisher dies with its rename under way, and the next one meets the same lock.
    first.kill().expect("killed");
    let _second = bed.worker();
    wait_for("the next publisher", || async {
        let again = doc! { "job": &id, "kind": "publish", "epoch": { "$gt": 1 } };
        bed.coll("aviary").find_one(again).await.ok().flatten()
    })
    .await;
    assert_eq!(jobs::state(&bed, &id).await, "publishing");
    session.abort_transaction().await.expect("ended");
    jobs::succeeded(&bed, &id).await;
    assert_eq!(jobs::total(&bed, "counts").await, 400);
    jobs::nothing_left(&bed).await;
}

/// Waits until so many renames wait for a lock.
async fn waiting_renames(bed: &Bed, count: usize) {
    wait_for("a rename that waits", || async {
        let waiting = [
            doc! { "$currentOp": { "allUsers": true } },
            doc! { "$match": { "command.renameCollection": { "$exists": true }, "waitingForLock": true } },
        ];
        let found = bed.client.database("admin").aggregate(waiting).await.ok()?;
        let found: Vec<Document> = found.try_collect().await.ok()?;
        (found.len() >= count).then_some(())
    })
    .await;
}
