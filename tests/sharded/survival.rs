//! What a cluster outlives: the primaries of its shards and of its config servers, and its own end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use aviary_testcontainers::{ShardedCluster, ShardedClusterOptions};
use bson::{Document, doc};
use mongodb::options::WriteConcern;
use mongodb::{Client, Collection};

use super::common::{Bed, Links, cluster, wait_for};
use super::{count, fill};

#[tokio::test(flavor = "multi_thread")]
async fn clients_go_on_when_primaries_are_killed() {
    let options = ShardedClusterOptions { shard_members: 3, config_members: 3, ..cluster(2) };
    let bed = Bed::sharded(options, Links::Routed).await;
    assert_eq!(bed.cluster().config().member_count(), 3);
    bed.cluster().enable_sharding("test", "s0").await.unwrap();
    bed.cluster().shard_collection("test.things", doc! { "k": "hashed" }, Some(4)).await.unwrap();
    let things = bed.coll("things");
    things.insert_one(doc! { "_id": -1, "k": -1 }).await.unwrap();

    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI32::new(0)));
    let client = Client::with_uri_str(bed.uri()).await.unwrap();
    let writing = tokio::spawn(write(
        client.database("test").collection("things"),
        stop.clone(),
        written.clone(),
    ));
    for shard in 0..2 {
        let set = bed.cluster().shard(shard).unwrap();
        let primary = set.wait_primary().await.unwrap();
        let before = written.load(Ordering::Acquire);
        wait_for("writes before the kill", async || {
            (written.load(Ordering::Acquire) >= before + 20).then_some(())
        })
        .await;
        set.kill(primary).await.unwrap();
        // Reads go on at once: the router waits for the next primary.
        let known = written.load(Ordering::Acquire);
        assert!(count(&things).await > u64::try_from(known).unwrap());
        let now = set.wait_primary().await.unwrap();
        assert_ne!(now, primary, "another member took over");
        let after = written.load(Ordering::Acquire);
        wait_for("writes after the kill", async || {
            (written.load(Ordering::Acquire) >= after + 20).then_some(())
        })
        .await;
        set.restart(primary).await.unwrap();
    }
    let config = bed.cluster().config();
    let primary = config.wait_primary().await.unwrap();
    config.kill(primary).await.unwrap();
    bed.cluster().shard_collection("test.more", doc! { "k": 1 }, None).await.unwrap();
    fill(&bed.coll("more"), 10).await;
    bed.cluster().split("test.more", doc! { "k": 5 }).await.unwrap();
    assert_eq!(bed.cluster().chunks("test.more").await.unwrap().len(), 2);
    stop.store(true, Ordering::Release);
    let acknowledged = writing.await.unwrap();

    let found: BTreeSet<i32> =
        bed.all("things").await.iter().map(|found| found.get_i32("_id").unwrap()).collect();
    let lost: Vec<_> = acknowledged.iter().filter(|id| !found.contains(id)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    assert!(acknowledged.len() >= 80);
}

/// Writes one document after the other until each is acknowledged, and returns their ids.
async fn write(
    things: Collection<Document>,
    stop: Arc<AtomicBool>,
    written: Arc<AtomicI32>,
) -> Vec<i32> {
    let mut acknowledged = Vec::new();
    for id in 0.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        loop {
            // Written again after an error that leaves open whether it was done: the same document.
            let write =
                things.replace_one(doc! { "_id": id, "k": id }, doc! { "_id": id, "k": id });
            match write.upsert(true).write_concern(WriteConcern::majority()).await {
                Ok(_) => break,
                Err(error) => println!("written again after {error}"),
            }
        }
        acknowledged.push(id);
        written.fetch_add(1, Ordering::AcqRel);
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_started_again_from_its_directory_serves_the_same_data() {
    let dir = tempfile::tempdir().unwrap();
    let options = ShardedClusterOptions { dir: Some(dir.path().join("cluster")), ..cluster(2) };
    let mut uuids = Vec::new();
    for round in 0..2 {
        let cluster = ShardedCluster::start(options.clone()).await.unwrap();
        let client = Client::with_uri_str(cluster.uri()).await.unwrap();
        let db = client.database("kept");
        let (things, plain) =
            (db.collection::<Document>("things"), db.collection::<Document>("plain"));
        if round == 0 {
            cluster.enable_sharding("kept", "s1").await.unwrap();
            cluster.shard_collection("kept.things", doc! { "k": 1 }, None).await.unwrap();
            fill(&things, 100).await;
            fill(&plain, 10).await;
            cluster.split("kept.things", doc! { "k": 40 }).await.unwrap();
            cluster.move_range("kept.things", doc! { "k": 40 }, "s0", true).await.unwrap();
        }
        assert_eq!((count(&things).await, count(&plain).await), (100, 10), "round {round}");
        let chunks = cluster.chunks("kept.things").await.unwrap();
        let owners: Vec<&str> = chunks.iter().map(|chunk| chunk.shard.as_str()).collect();
        assert_eq!(owners, ["s1", "s0"], "round {round}");
        let config = client.database("config").collection::<Document>("collections");
        let entry = config.find_one(doc! { "_id": "kept.things" }).await.unwrap().unwrap();
        uuids.push(entry.get("uuid").cloned());
        let update = things.find_one_and_update(doc! { "k": 70 }, doc! { "$inc": { "n": 1 } });
        let update = update.await.unwrap().unwrap();
        assert_eq!(update.get_i32("n").unwrap(), round);
        cluster.shutdown().await.unwrap();
    }
    assert_eq!(uuids[0], uuids[1], "the collection is the same one");
}
