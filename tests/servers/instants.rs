//! An instant counts only if the collection was already what it is now, where it is now: newer servers answer for an
//! earlier one with nothing, and without an error.

use bson::{Document, doc};

use crate::common::{Bed, Links, cluster};
use crate::jobs::{counted, ended, load, snapshot, submit};

const BEFORE: i32 = 210;
const AFTER: i32 = 350;
/// One team owns all databases of these tests.
const TRUST: (&str, &str) =
    ("AVIARY_TRUST_DATABASES", "renamed,moved,replaced,passed_renamed,passed_moved,late");

/// Makes the input as it is when the job is submitted.
async fn prepare(bed: &Bed, db: &str, deed: &str) {
    bed.cluster().enable_sharding(db, "s0").await.expect("enabled");
    if deed == "renamed" {
        for name in ["docs", "other"] {
            let hashed = doc! { "_id": "hashed" };
            let namespace = format!("{db}.{name}");
            bed.cluster().shard_collection(&namespace, hashed, Some(4)).await.expect("sharded");
        }
        load(bed, db, "other", AFTER).await;
    }
    load(bed, db, "docs", BEFORE).await;
}

/// Changes what the name of the input means, and gives how many documents it has then.
async fn change(bed: &Bed, db: &str, deed: &str) -> i32 {
    let admin = bed.client.database("admin");
    match deed {
        "renamed" => {
            let (from, to) = (format!("{db}.other"), format!("{db}.docs"));
            let rename = doc! { "renameCollection": from, "to": to, "dropTarget": true };
            admin.run_command(rename).await.expect("renamed");
            AFTER
        }
        "moved" => {
            let to = doc! { "movePrimary": db, "to": "s1" };
            admin.run_command(to).await.expect("moved");
            BEFORE
        }
        "replaced" => {
            let docs = bed.client.database(db).collection::<Document>("docs");
            docs.drop().await.expect("dropped");
            load(bed, db, "docs", AFTER).await;
            AFTER
        }
        other => panic!("what is {other}?"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instant_before_the_input_was_what_it_is_is_given_up_for_a_later_one() {
    let bed = Bed::sharded(cluster(2), Links::Direct).await;
    let _workers = [0, 1].map(|shard| bed.worker_of(shard, &[TRUST]));
    for (db, deed, is_taken_over) in [
        ("renamed", "renamed", false),
        ("moved", "moved", false),
        ("replaced", "replaced", false),
        ("passed_renamed", "renamed", true),
        ("passed_moved", "moved", true),
    ] {
        prepare(&bed, db, deed).await;
        let planner = bed.pause("plan.timed", |env| {
            bed.spawn("coordinator", &["coordinator"], &[env, &[TRUST]].concat())
        });
        let id = submit(&bed, db, db).await;
        planner.arrived().await;
        let fixed = snapshot(&bed, &id).await;
        let expected = change(&bed, db, deed).await;
        let successor = is_taken_over.then(|| {
            planner.process.kill().expect("killed");
            bed.spawn("coordinator", &["coordinator"], &[TRUST])
        });
        planner.go_on();
        ended(&bed, &id).await.ok();
        assert_eq!(counted(&bed, db).await, i64::from(expected), "{db}");
        let read_at = snapshot(&bed, &id).await;
        assert!(read_at > fixed, "{db}: {read_at} is not after {fixed}");
        for coordinator in successor.iter().chain([&planner.process]) {
            let _ = coordinator.kill();
        }
    }
}

/// In a replica set the name alone tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_is_replaced_while_a_job_is_planned_is_read_as_it_is_now() {
    let bed = Bed::with(aviary_testcontainers::ReplicaSetOptions::default()).await;
    load(&bed, "test", "docs", BEFORE).await;
    let _worker = bed.worker();
    let planner = bed.pause("plan.timed", |env| bed.spawn("coordinator", &["coordinator"], env));
    let id = submit(&bed, "test", "out").await;
    planner.arrived().await;
    let fixed = snapshot(&bed, &id).await;
    bed.coll("docs").drop().await.expect("dropped");
    load(&bed, "test", "docs", AFTER).await;
    planner.go_on();
    ended(&bed, &id).await.ok();
    assert_eq!(counted(&bed, "out").await, i64::from(AFTER));
    assert!(snapshot(&bed, &id).await > fixed);
}

/// Once tasks have read, there is no other instant: the job says what happened. A database that is moved keeps the
/// identities of its collections, and leaves their history behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_database_is_moved_before_it_is_read_publishes_nothing() {
    let bed = Bed::sharded(cluster(2), Links::Direct).await;
    let _workers = [0, 1].map(|shard| bed.worker_of(shard, &[TRUST]));
    prepare(&bed, "late", "moved").await;
    let coordinator = bed.pause("mapping", |env| {
        bed.spawn("coordinator", &["coordinator"], &[env, &[TRUST]].concat())
    });
    let id = submit(&bed, "late", "late").await;
    coordinator.arrived().await;
    change(&bed, "late", "moved").await;
    coordinator.go_on();
    let ended = ended(&bed, &id).await;
    assert_eq!(ended.code, 3, "{ended:#?}");
    assert!(ended.stderr.contains("was moved to another shard"), "{ended:#?}");
    assert_eq!(bed.all("late").await, []);
}
