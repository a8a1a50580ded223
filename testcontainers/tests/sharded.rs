//! A sharded cluster routes, moves data under reads and writes, and survives its faults. All of it
//! holds for a mongos as well as for the test-only router.
#![cfg(test)]

use std::time::{Duration, Instant};

use aviary_testcontainers::mongodb::bson::{Bson, Document, Timestamp, doc};
use aviary_testcontainers::mongodb::options::{ReadConcern, ReturnDocument};
use aviary_testcontainers::mongodb::{Client, Collection, Cursor, IndexModel};
use aviary_testcontainers::{RouterProgram, ShardedCluster, ShardedClusterOptions};

const CEILING: Duration = Duration::from_secs(90);

/// The router as a process, so that it can be killed like a mongos.
fn options() -> ShardedClusterOptions {
    ShardedClusterOptions { router: router_program(), ..ShardedClusterOptions::default() }
}

fn router_program() -> RouterProgram {
    let mongos = std::env::var_os("AVIARY_MONGOS").filter(|value| !value.is_empty());
    RouterProgram::Program {
        path: mongos.unwrap_or_else(|| env!("CARGO_BIN_EXE_aviary-test-router").into()).into(),
        args: Vec::new(),
    }
}

async fn client(cluster: &ShardedCluster) -> Client {
    Client::with_uri_str(cluster.uri()).await.unwrap()
}

async fn all(mut cursor: Cursor<Document>) -> Vec<Document> {
    let mut found = Vec::new();
    while cursor.advance().await.unwrap() {
        found.push(cursor.deserialize_current().unwrap());
    }
    found
}

async fn insert_numbers(things: &Collection<Document>, count: i32) {
    let documents: Vec<Document> = (0..count).map(|n| doc! { "_id": n, "k": n, "n": 0 }).collect();
    things.insert_many(documents).await.unwrap();
}

/// How many documents a shard's own server has, orphans included.
async fn count_on(cluster: &ShardedCluster, shard: usize, db: &str, collection: &str) -> i32 {
    let shard = cluster.shard(shard).unwrap();
    let client = Client::with_uri_str(shard.uri()).await.unwrap();
    let count = client.database(db).run_command(doc! { "count": collection }).await.unwrap();
    count.get_i32("n").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_shards_serve_as_one() {
    let mut cluster =
        ShardedCluster::start(ShardedClusterOptions { shards: 3, ..options() }).await.unwrap();
    let client = client(&cluster).await;
    a_hashed_collection_is_spread_and_read_as_one(&cluster, &client).await;
    a_ranged_collection_is_sorted_over_shards(&cluster, &client).await;
    find_and_modify_goes_to_the_owner_wherever_it_moves(&cluster, &client).await;
    a_snapshot_is_whole_while_a_chunk_moves(&cluster, &client).await;
    a_forgotten_cursor_does_not_hold_up_a_deletion(&cluster, &client).await;
    collections_are_indexed_renamed_and_dropped(&cluster, &client).await;
    a_zone_is_obeyed_by_the_balancer(&cluster, &client).await;

    assert_eq!(cluster.add_shard().await.unwrap(), 3);
    assert_eq!(cluster.shard_names(), ["s0", "s1", "s2", "s3"]);
    let things = client.database("ranged").collection::<Document>("things");
    cluster.move_range("ranged.things", doc! { "k": 500 }, "s3", true).await.unwrap();
    assert!(count_on(&cluster, 3, "ranged", "things").await > 0);
    assert_eq!(things.count_documents(doc! {}).await.unwrap(), 1_000);
}

async fn a_hashed_collection_is_spread_and_read_as_one(cluster: &ShardedCluster, client: &Client) {
    cluster.enable_sharding("hashed", "s1").await.unwrap();
    cluster.shard_collection("hashed.things", doc! { "k": "hashed" }, Some(6)).await.unwrap();
    let things = client.database("hashed").collection::<Document>("things");
    insert_numbers(&things, 3_000).await;
    for shard in 0..3 {
        assert!(count_on(cluster, shard, "hashed", "things").await > 0, "shard {shard}");
    }
    assert_eq!(things.count_documents(doc! {}).await.unwrap(), 3_000);
    assert_eq!(things.count_documents(doc! { "k": { "$lt": 10 } }).await.unwrap(), 10);

    let found =
        all(things.find(doc! {}).sort(doc! { "k": -1 }).batch_size(70).await.unwrap()).await;
    let keys: Vec<i32> = found.iter().map(|found| found.get_i32("k").unwrap()).collect();
    assert_eq!(keys, (0..3_000).rev().collect::<Vec<_>>());

    let updated = things.update_many(doc! { "k": { "$lt": 100 } }, doc! { "$inc": { "n": 1 } });
    assert_eq!(updated.await.unwrap().modified_count, 100);
    assert_eq!(things.delete_one(doc! { "k": 2_999 }).await.unwrap().deleted_count, 1);
    let twice = things.insert_one(doc! { "_id": 1, "k": 1 }).await;
    assert!(twice.unwrap_err().to_string().contains("E11000"));
    let sums = [doc! { "$group": { "_id": null, "n": { "$sum": "$n" } } }];
    let sums = all(things.aggregate(sums).await.unwrap()).await;
    assert_eq!(sums[0].get_i32("n").unwrap(), 100);
    assert_eq!(things.distinct("n", doc! {}).await.unwrap().len(), 2);
}

async fn a_ranged_collection_is_sorted_over_shards(cluster: &ShardedCluster, client: &Client) {
    let namespace = "ranged.things";
    cluster.enable_sharding("ranged", "s0").await.unwrap();
    cluster.shard_collection(namespace, doc! { "k": 1 }, None).await.unwrap();
    let things = client.database("ranged").collection::<Document>("things");
    insert_numbers(&things, 1_000).await;
    for (at, shard) in [(250, "s1"), (500, "s2"), (750, "s1")] {
        cluster.split(namespace, doc! { "k": at }).await.unwrap();
        cluster.move_range(namespace, doc! { "k": at }, shard, true).await.unwrap();
    }
    let shards: Vec<String> =
        cluster.chunks(namespace).await.unwrap().into_iter().map(|chunk| chunk.shard).collect();
    assert_eq!(shards, ["s0", "s1", "s2", "s1"]);
    assert_eq!(count_on(cluster, 1, "ranged", "things").await, 500);
    let found = all(things.find(doc! {}).sort(doc! { "k": 1 }).batch_size(33).await.unwrap()).await;
    assert_eq!(found.len(), 1_000);
    let keys: Vec<i32> = found.iter().map(|found| found.get_i32("k").unwrap()).collect();
    assert_eq!(keys, (0..1_000).collect::<Vec<_>>());
}

async fn find_and_modify_goes_to_the_owner_wherever_it_moves(
    cluster: &ShardedCluster,
    client: &Client,
) {
    for db in ["hashed", "ranged"] {
        let things = client.database(db).collection::<Document>("things");
        for k in (0..1_000).step_by(50) {
            let increment = doc! { "$inc": { "n": 100 } };
            let found = things
                .find_one_and_update(doc! { "k": k }, increment)
                .return_document(ReturnDocument::After)
                .await
                .unwrap()
                .unwrap();
            assert!(found.get_i32("n").unwrap() >= 100, "{found}");
        }
    }
    let things = client.database("ranged").collection::<Document>("things");
    // Every increment counts exactly once while the document moves to and fro.
    let counting = things.clone();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let incrementing = tokio::spawn(async move {
        let mut done = 0;
        while stopped.try_recv().is_err() {
            let filter = doc! { "k": 800 };
            let update = doc! { "$inc": { "moved": 1 } };
            counting.find_one_and_update(filter.clone(), update.clone()).await.unwrap().unwrap();
            assert_eq!(counting.update_one(filter, update).await.unwrap().matched_count, 1);
            done += 2;
        }
        done
    });
    for shard in ["s0", "s2", "s1"] {
        cluster.move_range("ranged.things", doc! { "k": 750 }, shard, true).await.unwrap();
    }
    stop.send(()).unwrap();
    let done = incrementing.await.unwrap();
    let found = things.find_one(doc! { "k": 800 }).await.unwrap().unwrap();
    assert_eq!(found.get_i32("moved").unwrap(), done);

    let unsharded = client.database("fresh").collection::<Document>("things");
    unsharded
        .find_one_and_update(doc! { "_id": 1 }, doc! { "$set": { "a": 1 } })
        .upsert(true)
        .await
        .unwrap();
    assert_eq!(unsharded.count_documents(doc! {}).await.unwrap(), 1);
    let keyless = things.find_one_and_update(doc! { "n": 1 }, doc! { "$set": { "n": 2 } }).await;
    assert!(keyless.is_err());
}

async fn a_snapshot_is_whole_while_a_chunk_moves(cluster: &ShardedCluster, client: &Client) {
    let db = client.database("ranged");
    let things = db.collection::<Document>("things");
    let majority = aviary_testcontainers::mongodb::options::WriteConcern::majority();
    things.insert_one(doc! { "_id": -1, "k": -1 }).write_concern(majority.clone()).await.unwrap();
    let ping = db.run_command(doc! { "find": "things", "limit": 1 }).await.unwrap();
    let Bson::Timestamp(time) = ping.get("operationTime").cloned().unwrap() else {
        panic!("{ping}")
    };
    let read_at = |time: Timestamp| {
        doc! {
            "find": "things",
            "filter": {},
            "batchSize": 100,
            "readConcern": { "level": "snapshot", "atClusterTime": time },
        }
    };
    let mut begun = db.run_cursor_command(read_at(time)).await.unwrap();
    assert!(begun.advance().await.unwrap());
    let mut before = vec![begun.deserialize_current().unwrap()];

    things.delete_many(doc! { "k": { "$lt": 0 } }).write_concern(majority).await.unwrap();
    cluster.move_range("ranged.things", doc! { "k": 250 }, "s2", false).await.unwrap();
    while begun.advance().await.unwrap() {
        before.push(begun.deserialize_current().unwrap());
    }
    let after = all(db.run_cursor_command(read_at(time)).await.unwrap()).await;
    for found in [before, after] {
        let mut keys: Vec<i32> = found.iter().map(|found| found.get_i32("k").unwrap()).collect();
        keys.sort_unstable();
        assert_eq!(keys, (-1..1_000).collect::<Vec<_>>());
    }
    let now = things.find(doc! {}).read_concern(ReadConcern::majority()).await.unwrap();
    assert_eq!(all(now).await.len(), 1_000);
}

async fn a_forgotten_cursor_does_not_hold_up_a_deletion(cluster: &ShardedCluster, client: &Client) {
    let things = client.database("ranged").collection::<Document>("things");
    let mut cursor = things.find(doc! {}).batch_size(2).await.unwrap();
    assert!(cursor.advance().await.unwrap());
    drop(cursor);
    // Waits for the deletion, which waits for open cursors.
    cluster.move_range("ranged.things", doc! { "k": 250 }, "s1", true).await.unwrap();
}

async fn collections_are_indexed_renamed_and_dropped(cluster: &ShardedCluster, client: &Client) {
    let db = client.database("ranged");
    let things = db.collection::<Document>("things");
    things.create_index(IndexModel::builder().keys(doc! { "n": 1 }).build()).await.unwrap();
    assert_eq!(things.list_index_names().await.unwrap(), ["_id_", "k_1", "n_1"]);
    for shard in 0..3 {
        let direct = Client::with_uri_str(cluster.shard(shard).unwrap().uri()).await.unwrap();
        let direct = direct.database("ranged").collection::<Document>("things");
        assert!(direct.list_index_names().await.unwrap().contains(&"n_1".to_owned()), "{shard}");
    }
    things.drop_index("n_1").await.unwrap();
    assert_eq!(things.list_index_names().await.unwrap().len(), 2);

    let rename = doc! { "renameCollection": "ranged.things", "to": "ranged.renamed" };
    cluster.run_admin(rename).await.unwrap();
    let renamed = db.collection::<Document>("renamed");
    assert_eq!(renamed.count_documents(doc! {}).await.unwrap(), 1_000);
    assert_eq!(things.count_documents(doc! {}).await.unwrap(), 0);
    assert_eq!(cluster.chunks("ranged.renamed").await.unwrap().len(), 4);
    let back = doc! { "renameCollection": "ranged.renamed", "to": "ranged.things" };
    cluster.run_admin(back).await.unwrap();

    db.create_collection("small").validator(doc! { "a": { "$ne": 1 } }).await.unwrap();
    let small = db.collection::<Document>("small");
    assert!(small.insert_one(doc! { "a": 1 }).await.is_err());
    db.run_command(doc! { "collMod": "small", "validator": {} }).await.unwrap();
    small.insert_one(doc! { "a": 1 }).await.unwrap();
    let mut names = db.list_collection_names().await.unwrap();
    names.sort();
    assert_eq!(names, ["small", "things"]);
    small.drop().await.unwrap();
    assert_eq!(small.count_documents(doc! {}).await.unwrap(), 0);
    client.database("fresh").drop().await.unwrap();
    let databases = client.list_database_names().await.unwrap();
    assert_eq!(databases, ["admin", "config", "hashed", "ranged"]);
}

async fn a_zone_is_obeyed_by_the_balancer(cluster: &ShardedCluster, client: &Client) {
    let namespace = "zoned.things";
    cluster.enable_sharding("zoned", "s0").await.unwrap();
    cluster.shard_collection(namespace, doc! { "k": 1 }, None).await.unwrap();
    let things = client.database("zoned").collection::<Document>("things");
    insert_numbers(&things, 100).await;
    cluster.split(namespace, doc! { "k": 50 }).await.unwrap();
    cluster.add_shard_to_zone("s2", "high").await.unwrap();
    let (min, max) = (doc! { "k": 50 }, doc! { "k": Bson::MaxKey });
    cluster.set_zone(namespace, min.clone(), max, Some("high")).await.unwrap();
    cluster.start_balancer().await.unwrap();
    let deadline = Instant::now() + CEILING;
    loop {
        let chunks = cluster.chunks(namespace).await.unwrap();
        if chunks.iter().any(|chunk| chunk.min == min && chunk.shard == "s2") {
            break;
        }
        assert!(Instant::now() < deadline, "{chunks:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    cluster.stop_balancer().await.unwrap();
    assert_eq!(things.count_documents(doc! {}).await.unwrap(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_survives_its_primaries_and_its_router() {
    let members = ShardedClusterOptions { shard_members: 3, config_members: 3, ..options() };
    let cluster = ShardedCluster::start(members).await.unwrap();
    let client = client(&cluster).await;
    cluster.enable_sharding("test", "s0").await.unwrap();
    cluster.shard_collection("test.things", doc! { "k": "hashed" }, Some(4)).await.unwrap();
    let things = client.database("test").collection::<Document>("things");
    insert_numbers(&things, 500).await;

    for index in 0..2 {
        let shard = cluster.shard(index).unwrap();
        let primary = shard.wait_primary().await.unwrap();
        shard.kill(primary).await.unwrap();
        assert_eq!(things.count_documents(doc! {}).await.unwrap(), 500);
        for k in 0..50 {
            let update = doc! { "$inc": { "n": 1 } };
            things.find_one_and_update(doc! { "k": k }, update).await.unwrap().unwrap();
        }
        shard.restart(primary).await.unwrap();
    }
    let shard = cluster.shard(1).unwrap();
    shard.step_down().await.unwrap();
    assert_eq!(things.count_documents(doc! { "n": 2 }).await.unwrap(), 50);

    let primary = cluster.config().wait_primary().await.unwrap();
    cluster.config().kill(primary).await.unwrap();
    things.insert_one(doc! { "_id": 1_000, "k": 1_000 }).await.unwrap();
    cluster.shard_collection("test.more", doc! { "k": 1 }, None).await.unwrap();
    cluster.config().restart(primary).await.unwrap();

    let mut cursor = things.find(doc! {}).batch_size(2).await.unwrap();
    assert!(cursor.advance().await.unwrap());
    cluster.router().kill().await.unwrap();
    assert!(!cluster.router().answers().await);
    cluster.router().restart().await.unwrap();
    assert_eq!(things.count_documents(doc! {}).await.unwrap(), 501);
    // Its rest was known to the killed router only.
    let rest = async {
        while cursor.advance().await? {}
        Ok::<_, aviary_testcontainers::mongodb::error::Error>(())
    };
    assert!(rest.await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_within_the_process_serves_and_is_killed_as_well() {
    let in_process = ShardedClusterOptions {
        shards: 1,
        router: RouterProgram::InProcess,
        ..ShardedClusterOptions::default()
    };
    let cluster = ShardedCluster::start(in_process).await.unwrap();
    let (dir, uri) = (cluster.dir().to_owned(), cluster.uri());
    let client = Client::with_uri_str(&uri).await.unwrap();
    let things = client.database("test").collection::<Document>("things");
    insert_numbers(&things, 10).await;
    cluster.router().kill().await.unwrap();
    assert!(!cluster.router().answers().await);
    cluster.router().restart().await.unwrap();
    assert_eq!(things.count_documents(doc! {}).await.unwrap(), 10);
    drop(cluster);
    assert!(!dir.exists());
}
