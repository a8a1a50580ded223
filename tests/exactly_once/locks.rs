//! A rename that waits behind somebody's transaction: the publish goes on once it is over.

use aviary_testcontainers::{FailCommand, ReplicaSetOptions};
use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::{Client, ClientSession, IndexModel};

use crate::common::{Bed, LEASE_TTL_MS, wait_for};
use crate::jobs;

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_locked_delays_the_publish_and_fails_nothing() {
    let bed = Bed::with(Default::default()).await.in_parts();
    let server = bed.client.clone();
    locked(&bed, &server, async |bed, id| {
        // The next publisher meets the same lock.
        wait_for("the next publisher", || async {
            let again = doc! { "job": id, "kind": "publish", "epoch": { "$gt": 1 } };
            bed.coll("aviary").find_one(again).await.ok().flatten()
        })
        .await;
    })
    .await;
}

/// Servers refuse a change of a collection when they have waited for another one long enough: LockBusy after five
/// minutes in a cluster, ConflictingOperationInProgress, and 332. Here they say so at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_target_that_is_busy_fails_nothing() {
    let options = ReplicaSetOptions { test_commands: true, ..ReplicaSetOptions::default() };
    let bed = Bed::with(options).await.in_parts();
    jobs::load(&bed, "docs", 400, 10).await;
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    // More often than a task may fail.
    const OFTEN: u32 = 5;
    for (code, command, times) in [
        (46, "renameCollection", OFTEN),
        (117, "renameCollection", OFTEN),
        (332, "renameCollection", 2),
        (46, "drop", 2),
        (117, "createIndexes", 2),
    ] {
        bed.coll("counts").drop().await.expect("dropped");
        bed.load("counts", vec![doc! { "_id": "old", "value": 1 }]).await;
        let by_value = IndexModel::builder().keys(doc! { "value": 1 }).build();
        bed.coll("counts").create_index(by_value).await.expect("built");
        let fail = FailCommand {
            commands: vec![command.to_owned()],
            app_name: Some(PUBLISHER.to_owned()),
            error_code: Some(code),
            times: Some(times),
            ..FailCommand::default()
        };
        bed.set().fail_command(0, &fail).await.expect("a fail point");
        let id = jobs::submit(&bed, "docs", "replace:counts", &[]).await;
        jobs::succeeded(&bed, &id).await;
        let fired = bed.set().clear_fail_command(0).await.expect("cleared");
        assert!(fired > 0, "{command} {code} was never refused");
        assert_eq!(jobs::total(&bed, "counts").await, 400, "{command} {code}");
        jobs::nothing_left(&bed).await;
    }
}

/// What the process that publishes calls itself.
const PUBLISHER: &str = "aviary-worker";

/// Publishes into a target that a transaction on `server` has locked. The first publisher dies with its rename under
/// way; the transaction ends after `meanwhile`.
async fn locked(bed: &Bed, server: &Client, meanwhile: impl AsyncFnOnce(&Bed, &str)) {
    jobs::load(bed, "docs", 400, 10).await;
    bed.load("counts", vec![doc! { "_id": "old", "value": 1 }]).await;
    let _coordinator = bed.coordinator();
    let short = [("AVIARY_LEASE_TTL_MS", LEASE_TTL_MS)];
    let first = bed.spawn("worker", &["worker", "--slots", "1"], &short);
    let mut transaction = lock(server).await;

    let id = jobs::submit(bed, "docs", "replace:counts", &[]).await;
    waiting_rename(server).await;
    first.kill().expect("killed");
    let _second = bed.spawn("worker", &["worker", "--slots", "1"], &[]);
    meanwhile(bed, &id).await;
    assert_eq!(jobs::state(bed, &id).await, "publishing");
    transaction.abort_transaction().await.expect("ended");
    jobs::succeeded(bed, &id).await;
    assert_eq!(jobs::total(bed, "counts").await, 400);
    jobs::nothing_left(bed).await;
}

async fn lock(server: &Client) -> ClientSession {
    let mut session = server.start_session().await.expect("a session");
    session.start_transaction().await.expect("begun");
    let target = server.database("test").collection::<Document>("counts");
    target.insert_one(doc! { "_id": "mine" }).session(&mut session).await.expect("inserted");
    session
}

/// Waits until a rename waits for the lock.
async fn waiting_rename(server: &Client) {
    wait_for("a rename that waits", || async {
        let waiting = [
            doc! { "$currentOp": { "allUsers": true } },
            doc! { "$match": { "waitingForLock": true } },
        ];
        let found = server.database("admin").aggregate(waiting).await.ok()?;
        let found: Vec<Document> = found.try_collect().await.ok()?;
        found.iter().any(|operation| operation.to_string().contains("aviary-out-")).then_some(())
    })
    .await;
}
