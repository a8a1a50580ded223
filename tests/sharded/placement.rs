//! Which shard has what: shard keys, splits, zones and moves.

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;

use super::common::{Bed, wait_for};
use super::{bed, count, direct, fill, held, keys};

#[tokio::test(flavor = "multi_thread")]
async fn collections_are_sharded_split_zoned_and_moved() {
    let bed = bed().await;
    bed.cluster().enable_sharding("placed", "s1").await.unwrap();
    a_hashed_key_spreads(&bed).await;
    a_ranged_key_splits_and_moves(&bed).await;
    a_compound_key_routes_by_its_prefix(&bed).await;
    what_cannot_be_is_refused(&bed).await;
    zones_are_obeyed(&bed).await;
}

async fn a_hashed_key_spreads(bed: &Bed) {
    bed.cluster().shard_collection("placed.hashed", doc! { "k": "hashed" }, Some(6)).await.unwrap();
    let things = bed.client.database("placed").collection::<Document>("hashed");
    fill(&things, 600).await;
    let mut whole = Vec::new();
    for shard in 0..3 {
        let part = held(bed, shard, "placed.hashed").await;
        assert!(part.len() > 100, "shard {shard} holds {}", part.len());
        whole.extend(part);
    }
    whole.sort_unstable();
    assert_eq!(whole, (0..600).collect::<Vec<_>>());
    let chunks = bed.cluster().chunks("placed.hashed").await.unwrap();
    assert_eq!(chunks.len(), 6);
    // A filter on the key asks one shard, one without it asks all.
    assert_eq!(shards_asked(bed, "hashed", doc! { "k": 17 }).await, 1);
    assert_eq!(shards_asked(bed, "hashed", doc! { "n": 17 }).await, 3);
}

async fn a_ranged_key_splits_and_moves(bed: &Bed) {
    let namespace = "placed.ranged";
    bed.cluster().shard_collection(namespace, doc! { "k": 1 }, None).await.unwrap();
    let things = bed.client.database("placed").collection::<Document>("ranged");
    fill(&things, 300).await;
    assert_eq!(held(bed, 1, namespace).await.len(), 300, "all on the database's first shard");
    for at in [100, 200] {
        bed.cluster().split(namespace, doc! { "k": at }).await.unwrap();
    }
    let again = bed.cluster().split(namespace, doc! { "k": 100 }).await;
    assert!(again.is_err(), "a chunk begins there already");
    bed.cluster().move_range(namespace, doc! { "k": 100 }, "s2", true).await.unwrap();
    let halved =
        doc! { "moveChunk": namespace, "find": { "k": 250 }, "to": "s0", "_waitForDelete": true };
    bed.cluster().run_admin(halved).await.unwrap();
    let chunks = bed.cluster().chunks(namespace).await.unwrap();
    let owners: Vec<&str> = chunks.iter().map(|chunk| chunk.shard.as_str()).collect();
    assert_eq!(owners, ["s1", "s2", "s0"]);
    assert_eq!(chunks[1].min, doc! { "k": 100 });
    assert_eq!(chunks[1].max, doc! { "k": 200 });
    assert_eq!(held(bed, 1, namespace).await, (0..100).collect::<Vec<_>>());
    assert_eq!(held(bed, 2, namespace).await, (100..200).collect::<Vec<_>>());
    assert_eq!(held(bed, 0, namespace).await, (200..300).collect::<Vec<_>>());
    let sorted = things.find(doc! {}).sort(doc! { "k": 1 }).await.unwrap();
    let sorted: Vec<Document> = sorted.try_collect().await.unwrap();
    assert_eq!(keys(&sorted), (0..300).collect::<Vec<_>>());
    // In two halves, by what is in the chunk.
    bed.cluster().run_admin(doc! { "split": namespace, "find": { "k": 150 } }).await.unwrap();
    let chunks = bed.cluster().chunks(namespace).await.unwrap();
    assert_eq!(chunks.len(), 4);
    assert_eq!(chunks[2].min, doc! { "k": 150 });
    let bounds = [doc! { "k": 100 }, doc! { "k": 200 }];
    bed.cluster()
        .run_admin(doc! { "mergeChunks": namespace, "bounds": bounds.to_vec() })
        .await
        .unwrap();
    assert_eq!(bed.cluster().chunks(namespace).await.unwrap().len(), 3);
    assert_eq!(count(&things).await, 300);
}

async fn a_compound_key_routes_by_its_prefix(bed: &Bed) {
    let namespace = "placed.compound";
    bed.cluster().shard_collection(namespace, doc! { "g": 1, "k": 1 }, None).await.unwrap();
    let things = bed.client.database("placed").collection::<Document>("compound");
    fill(&things, 90).await;
    let at = doc! { "g": 1, "k": Bson::MinKey };
    bed.cluster().split(namespace, at.clone()).await.unwrap();
    bed.cluster().split(namespace, doc! { "g": 1, "k": 46 }).await.unwrap();
    bed.cluster().move_range(namespace, at, "s0", true).await.unwrap();
    bed.cluster().move_range(namespace, doc! { "g": 1, "k": 46 }, "s2", true).await.unwrap();
    let expected: Vec<i32> = (0..46).filter(|k| k % 3 == 1).collect();
    assert_eq!(held(bed, 0, namespace).await, expected);
    assert_eq!(shards_asked(bed, "compound", doc! { "g": 0 }).await, 1);
    assert_eq!(shards_asked(bed, "compound", doc! { "g": 1 }).await, 2);
    let update = things.find_one_and_update(doc! { "g": 1, "k": 70 }, doc! { "$set": { "n": 3 } });
    assert_eq!(update.await.unwrap().unwrap().get_i32("k").unwrap(), 70);
    assert_eq!(things.count_documents(doc! { "g": 1 }).await.unwrap(), 30);
    assert_eq!(things.find_one(doc! { "n": 3 }).await.unwrap().unwrap().get_i32("k").unwrap(), 70);
}

async fn what_cannot_be_is_refused(bed: &Bed) {
    let cluster = bed.cluster();
    let refusals = [
        (doc! { "shardCollection": "placed.ranged", "key": { "g": 1 } }, "already enabled"),
        (doc! { "split": "placed.unsharded", "middle": { "k": 1 } }, "not sharded"),
        (doc! { "moveRange": "placed.ranged", "min": { "k": 100 }, "toShard": "s9" }, "s9"),
        (doc! { "reshardCollection": "placed.ranged", "key": { "g": 1 } }, "test router has no"),
        (doc! { "noSuchCommand": 1 }, "no such command"),
    ];
    for (command, reason) in refusals {
        let refused = cluster.run_admin(command.clone()).await.unwrap_err();
        let refused = format!("{refused} {refused:?}").to_lowercase();
        assert!(refused.contains(reason), "{command}: {refused}");
    }
}

async fn zones_are_obeyed(bed: &Bed) {
    let namespace = "placed.zoned";
    let cluster = bed.cluster();
    cluster.shard_collection(namespace, doc! { "k": 1 }, None).await.unwrap();
    let things = bed.client.database("placed").collection::<Document>("zoned");
    fill(&things, 90).await;
    for (zone, shard, min, max) in [("low", "s0", 0, 30), ("mid", "s2", 30, 60)] {
        cluster.add_shard_to_zone(shard, zone).await.unwrap();
        cluster
            .set_zone(namespace, doc! { "k": min }, doc! { "k": max }, Some(zone))
            .await
            .unwrap();
    }
    let tags = bed.client.database("config").collection::<Document>("tags");
    assert_eq!(tags.count_documents(doc! { "ns": namespace }).await.unwrap(), 2);
    cluster.start_balancer().await.unwrap();
    wait_for("the balancer to obey the zones", async || {
        let (low, mid) = (held(bed, 0, namespace).await, held(bed, 2, namespace).await);
        let obeyed = low == (0..30).collect::<Vec<_>>() && mid == (30..60).collect::<Vec<_>>();
        obeyed.then_some(())
    })
    .await;
    cluster.stop_balancer().await.unwrap();
    assert_eq!(count(&things).await, 90);
    cluster.set_zone(namespace, doc! { "k": 0 }, doc! { "k": 30 }, None).await.unwrap();
    assert_eq!(tags.count_documents(doc! { "ns": namespace }).await.unwrap(), 1);
}

/// How many shards the servers' plan for a filter names.
async fn shards_asked(bed: &Bed, name: &str, filter: Document) -> usize {
    let explain =
        doc! { "explain": { "find": name, "filter": filter }, "verbosity": "queryPlanner" };
    let plan = bed.client.database("placed").run_command(explain).await.unwrap();
    let plan = plan.get_document("queryPlanner").unwrap().get_document("winningPlan").unwrap();
    let shards = plan.get_array("shards").unwrap();
    assert!(!shards.is_empty());
    shards.len()
}

/// How often the shards refused a command for its old placement.
pub(super) async fn refusals(bed: &Bed) -> i64 {
    let mut refused = 0;
    for shard in 0..3 {
        let client = direct(bed.cluster(), shard).await;
        let status =
            client.database("admin").run_command(doc! { "serverStatus": 1 }).await.unwrap();
        let sharding = status.get_document("shardingStatistics").unwrap();
        refused += sharding.get_i64("countStaleConfigErrors").unwrap();
    }
    refused
}
