//! The Rust driver through a cluster's router: what holds for a `mongos` holds for the stand-in that
//! tests use in its place. Nothing here runs a job; see `motion.rs` and the suites on clusters.

#![cfg(test)]

#[path = "../common/mod.rs"]
mod common;
mod crud;
mod cursors;
mod moves;
mod placement;
mod schema;
mod sessions;
mod streams;
mod survival;

use aviary_testcontainers::ShardedCluster;
use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::{Client, Collection, Database};

use common::{Bed, Links, cluster, run};

/// A cluster of three shards behind the router.
async fn bed() -> Bed {
    Bed::sharded(cluster(3), Links::Routed).await
}

/// A shard's own server, behind the router's back.
async fn direct(cluster: &ShardedCluster, shard: usize) -> Client {
    Client::with_uri_str(cluster.shard(shard).unwrap().uri()).await.unwrap()
}

/// The values of `k` that a shard's own server holds, in order.
async fn held(bed: &Bed, shard: usize, namespace: &str) -> Vec<i32> {
    let (db, name) = namespace.split_once('.').unwrap();
    let client = direct(bed.cluster(), shard).await;
    let found = client.database(db).collection::<Document>(name).find(doc! {}).await.unwrap();
    sorted_keys(&found.try_collect::<Vec<_>>().await.unwrap())
}

fn keys(found: &[Document]) -> Vec<i32> {
    found.iter().map(|found| found.get_i32("k").unwrap()).collect()
}

fn sorted_keys(found: &[Document]) -> Vec<i32> {
    let mut keys = keys(found);
    keys.sort_unstable();
    keys
}

/// A collection ranged by `k` with the documents `0..300`, a hundred of them on each shard.
async fn thirds(bed: &Bed, db: &str, name: &str) -> Collection<Document> {
    let namespace = format!("{db}.{name}");
    bed.cluster().enable_sharding(db, "s0").await.unwrap();
    bed.cluster().shard_collection(&namespace, doc! { "k": 1 }, None).await.unwrap();
    for (at, shard) in [(100, "s1"), (200, "s2")] {
        bed.cluster().split(&namespace, doc! { "k": at }).await.unwrap();
        bed.cluster().move_range(&namespace, doc! { "k": at }, shard, true).await.unwrap();
    }
    let things = bed.client.database(db).collection(name);
    fill(&things, 300).await;
    for shard in 0..3 {
        let first = i32::try_from(shard).unwrap() * 100;
        assert_eq!(held(bed, shard, &namespace).await, (first..first + 100).collect::<Vec<_>>());
    }
    things
}

/// Inserts the documents `0..count`, with `k` as `_id` and three groups `g`.
async fn fill(things: &Collection<Document>, count: i32) {
    let docs = (0..count).map(|k| doc! { "_id": k, "k": k, "g": k % 3, "n": 0 });
    let inserted = things.insert_many(docs).await.unwrap();
    assert_eq!(inserted.inserted_ids.len(), usize::try_from(count).unwrap());
}

async fn count(things: &Collection<Document>) -> u64 {
    things.count_documents(doc! {}).await.unwrap()
}

async fn names(db: &Database) -> Vec<String> {
    let mut names = db.list_collection_names().await.unwrap();
    names.sort();
    names
}

#[tokio::test]
async fn the_stand_in_is_no_verb_that_anybody_is_shown() {
    let help = run(&["--help"], &[]).await.ok().stdout;
    assert!(help.contains("coordinator"), "{help}");
    assert!(!help.contains("test-router"), "{help}");
    // It is there for tests, and says what it is.
    let bare = run(&["test-router"], &[]).await;
    assert_eq!(bare.code, 2, "{bare:#?}");
    assert!(bare.stdout.contains("the test-only router needs"), "{bare:#?}");
}
