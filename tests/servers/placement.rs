//! Where collections are, as newer clusters describe it.

use aviary_testcontainers::{RouterProgram, ShardedClusterOptions};
use bson::{Bson, Document, Timestamp, doc};
use futures_util::TryStreamExt;
use mongodb::{Client, Collection};

use crate::common::{AVIARY, Bed, Links, cluster, wait_for};
use crate::jobs::{counted, ended, load, submit};

const COUNT: i32 = 210;

/// A collection of the cluster's configuration, past every router.
async fn config(bed: &Bed, name: &str) -> Collection<Document> {
    let servers = Client::with_uri_str(bed.cluster().config().uri()).await.expect("a client");
    servers.database("config").collection(name)
}

/// Has every server of the cluster read the configuration anew.
async fn flush(bed: &Bed) {
    let flush = doc! { "flushRouterConfig": 1 };
    for server in bed.servers().await.iter().chain([&bed.client]) {
        server.database("admin").run_command(flush.clone()).await.expect("flushed");
    }
}

/// From MongoDB 8.0 on a collection that is not sharded may be on any shard, and the cluster keeps a book of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_was_moved_to_a_shard_of_its_own_is_read_and_replaced_there_as_a_whole() {
    let bed = Bed::sharded(cluster(2), Links::Direct).await;
    bed.cluster().enable_sharding("test", "s0").await.expect("enabled");
    for name in ["docs", "out"] {
        let namespace = format!("test.{name}");
        bed.cluster().shard_collection(&namespace, doc! { "_id": 1 }, None).await.expect("sharded");
        let all = bed.cluster().chunks(&namespace).await.expect("chunks").remove(0);
        bed.cluster().move_range(&namespace, all.min, "s1", true).await.expect("moved");
        let entry = doc! { "_id": &namespace };
        let change = doc! { "$set": { "unsplittable": true } };
        let changed = config(&bed, "collections").await.update_one(entry, change).await;
        assert_eq!(changed.expect("changed").modified_count, 1);
    }
    flush(&bed).await;
    load(&bed, "test", "docs", COUNT).await;
    bed.load("out", vec![doc! { "_id": "old", "value": 1.0 }]).await;
    let (_coordinator, _workers) = (bed.coordinator(), bed.workers());
    let id = submit(&bed, "test", "out").await;
    ended(&bed, &id).await.ok();
    assert_eq!(counted(&bed, "out").await, i64::from(COUNT));
    let maps = doc! { "job": &id, "kind": "map" };
    let maps = bed.coll("aviary").find(maps).await.expect("read");
    let maps: Vec<Document> = maps.try_collect().await.expect("read");
    for task in &maps {
        assert_eq!(task.get_str("shard").ok(), Some("s1"), "{task:#?}");
        let split = task.get_document("split").expect("a split");
        assert_eq!(split.get("index"), None, "not read by a shard key: {split:#?}");
    }
    assert!(!maps.is_empty());
    // The results are not sharded by what the book says of their target.
    let entry = doc! { "_id": "test.out" };
    assert_eq!(config(&bed, "collections").await.find_one(entry).await.expect("read"), None);
}

/// Clusters merge chunks by themselves from MongoDB 7.0 on, but only those that are older than their history.
#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_a_cluster_merges_by_itself_cost_no_job_anything() {
    let bed = Bed::sharded(cluster(2), Links::Routed).await;
    bed.cluster().enable_sharding("test", "s0").await.expect("enabled");
    bed.cluster().shard_collection("test.docs", doc! { "_id": 1 }, None).await.expect("sharded");
    bed.cluster().split("test.docs", doc! { "_id": COUNT / 2 }).await.expect("split");
    load(&bed, "test", "docs", COUNT).await;
    let _worker = bed.worker();
    let coordinator = bed.pause("mapping", |env| bed.spawn("coordinator", &["coordinator"], env));
    let id = submit(&bed, "test", "out").await;
    coordinator.arrived().await;

    let chunks = config(&bed, "chunks").await;
    let entry = doc! { "_id": "test.docs" };
    let entry = config(&bed, "collections").await.find_one(entry).await.expect("read");
    let of_docs = doc! { "uuid": entry.expect("sharded").get("uuid").cloned().expect("a uuid") };
    let rows: Vec<Document> =
        chunks.find(of_docs.clone()).await.expect("read").try_collect().await.expect("read");
    assert_eq!(rows.len(), 2);
    let youngest = rows.iter().map(valid_after).max_by_key(|at| (at.time, at.increment));
    let bounds = [Bson::MinKey, Bson::MaxKey].map(|end| Bson::from(doc! { "_id": end })).to_vec();
    let merge = doc! { "mergeChunks": "test.docs", "bounds": bounds };
    bed.cluster().run_admin(merge).await.expect("merged");
    // Whoever asks for a merge gets one that begins now; one that nobody asked for has its parts' time.
    let aged = doc! { "$set": { "history.0.validAfter": youngest.expect("two") } };
    assert_eq!(chunks.update_many(of_docs, aged).await.expect("changed").matched_count, 1);
    flush(&bed).await;

    coordinator.go_on();
    ended(&bed, &id).await.ok();
    assert_eq!(counted(&bed, "out").await, i64::from(COUNT));
}

fn valid_after(chunk: &Document) -> Timestamp {
    let history = chunk.get_array("history").expect("a history");
    let entry = history[0].as_document().expect("an entry");
    entry.get_timestamp("validAfter").expect("a time")
}

/// Through a router `$$NOW` is the router's time, and a shard's own where a worker asks its shard.
#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_are_further_apart_than_leases_allow_for_are_told() {
    for (ahead_ms, is_told) in [(0, false), (30_000, true)] {
        let args = vec!["test-router".into(), format!("--testClockAheadMs={ahead_ms}")];
        let router = RouterProgram::Program { path: AVIARY.into(), args };
        let options = ShardedClusterOptions { router, ..cluster(1) };
        let bed = Bed::sharded(options, Links::Direct).await;
        bed.aviary(&["init"]).await.ok();
        let worker = bed.worker();
        // Its first report comes after its first look at the clocks.
        bed.known(&worker).await;
        let log = worker.log().expect("a log");
        assert_eq!(log.contains("NTP"), is_told, "{log}");
        assert_eq!(log.contains("router_is_ahead"), is_told, "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_writes_down_what_its_deployment_can_do() {
    let parameters = vec![("minSnapshotHistoryWindowInSeconds".into(), "1200".into())];
    let options = ShardedClusterOptions { parameters, ..cluster(1) };
    let mut bed = Bed::sharded(options, Links::Direct).await;
    bed.aviary(&["init"]).await.ok();
    for (links, link) in [(Links::Direct, "used"), (Links::Routed, "none")] {
        bed.links = links;
        let worker = bed.worker();
        bed.known(&worker).await;
        let expected =
            doc! { "snapshots": true, "history_s": 1_200_i64, "zones": true, "link": link };
        let row = doc! { "kind": "worker", "pid": i64::from(worker.pid()), "can": expected };
        wait_for("the worker's document", || async {
            bed.coll("aviary").find_one(row.clone()).await.ok().flatten()
        })
        .await;
        // A listing shows what a majority has.
        let mine = wait_for("the worker in the listing", || async {
            let listed = bed.aviary(&["workers", "-o", "json"]).await.ok().json();
            listed.into_iter().find(|row| row["pid"] == u64::from(worker.pid()))
        })
        .await;
        assert_eq!(mine["can"]["link"], link);
        worker.terminate().expect("it runs");
        worker.wait_gone(crate::common::ceiling()).await.expect("it ends");
    }
}
