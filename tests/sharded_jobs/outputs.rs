//! Results in sharded collections: replacing one keeps its shard key, its indexes and its place on
//! several shards; one that is sharded by something else is refused.

use std::collections::BTreeSet;

use bson::{Bson, Document, doc};
use mongodb::IndexModel;
use mongodb::options::IndexOptions;

use crate::common::{Bed, Links, cluster, wait_for};
use crate::jobs;

async fn index_names(bed: &Bed, name: &str) -> Vec<String> {
    let mut names = bed.coll(name).list_index_names().await.expect("listed");
    names.sort();
    names
}

async fn shard_key(bed: &Bed, name: &str) -> Option<Document> {
    let config = bed.client.database("config").collection::<Document>("collections");
    let found = config.find_one(doc! { "_id": format!("test.{name}") }).await.expect("read");
    found.map(|entry| entry.get_document("key").expect("a key").clone())
}

async fn owners(bed: &Bed, name: &str) -> BTreeSet<String> {
    let chunks = bed.cluster().chunks(&format!("test.{name}")).await.expect("chunks");
    chunks.into_iter().map(|chunk| chunk.shard).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sharded_target_stays_what_it_is_and_others_are_refused() {
    let bed = Bed::sharded(cluster(2), Links::Direct).await;
    jobs::load_sharded(&bed, "input", doc! { "_id": "hashed" }).await;
    let _coordinator = jobs::coordinator(&bed);
    let _workers = bed.workers();

    jobs::run(&bed, "input", "plain").await;
    let expected = bed.all("plain").await;
    assert_eq!(jobs::counted(&expected), jobs::recount());

    for (name, key) in [("ranged", doc! { "_id": 1 }), ("hashed", doc! { "_id": "hashed" })] {
        let namespace = format!("test.{name}");
        bed.cluster().shard_collection(&namespace, key.clone(), None).await.expect("sharded");
        if name == "ranged" {
            let middle = doc! { "_id": "key 3" };
            bed.cluster().split(&namespace, middle.clone()).await.expect("split");
            bed.cluster().move_range(&namespace, middle, "s1", true).await.expect("moved");
        }
        bed.load(name, vec![doc! { "_id": "old", "value": 0 }]).await;
        let by_total = IndexModel::builder()
            .keys(doc! { "value.total": -1 })
            .options(IndexOptions::builder().name("by total".to_owned()).build())
            .build();
        bed.coll(name).create_index(by_total).await.expect("indexed");
        let before = (index_names(&bed, name).await, owners(&bed, name).await);
        assert_eq!(before.1.len(), 2, "{name} is on both shards");
        // Twice: the second replaces what a rename has put there.
        for _ in 0..2 {
            jobs::run(&bed, "input", name).await;
            assert_eq!(shard_key(&bed, name).await, Some(key.clone()));
            assert_eq!((index_names(&bed, name).await, owners(&bed, name).await), before, "{name}");
            assert_eq!(bed.all(name).await, expected, "{name}");
        }
    }
    // Both shards really hold a part of it.
    for shard in 0..2 {
        let uri = bed.cluster().shard(shard).expect("a shard").uri();
        let direct = mongodb::Client::with_uri_str(uri).await.expect("a client");
        for name in ["ranged", "hashed"] {
            let part = direct.database("test").collection::<Document>(name);
            assert!(part.find_one(doc! {}).await.expect("read").is_some(), "{name} on s{shard}");
        }
    }
    refused(&bed).await;
    zoned(&bed, &expected).await;
    bed.nothing_left("outputs").await;
}

async fn refused(bed: &Bed) {
    let key = doc! { "customer": 1 };
    bed.cluster().shard_collection("test.other", key.clone(), None).await.expect("sharded");
    let old = vec![doc! { "_id": 1, "customer": 5 }];
    bed.load("other", old.clone()).await;
    let map = bed.file("map.js", jobs::MAP).display().to_string();
    let args = ["submit", "-c", "input", "--map", &map, "--reduce", "_count"];
    let ran = bed.aviary(&[&args[..], &["--out", "replace:other"]].concat()).await;
    assert_eq!(ran.code, 8, "{ran:?}");
    for word in ["test.other is sharded by", "customer", "{_id: \"hashed\"}"] {
        assert!(ran.stderr.contains(word), "{word} is missing: {ran:?}");
    }
    assert_eq!(bed.all("other").await, old);
    assert_eq!(shard_key(bed, "other").await, Some(key));
    let hidden: Vec<Bson> = Vec::new();
    assert_eq!(
        bed.coll("aviary")
            .distinct("_id", doc! { "spec.output.collection": "other" })
            .await
            .expect("read"),
        hidden,
        "no job was written"
    );
}

/// A cluster replaces no collection that has zones, which a job should not find out at its end.
async fn zoned(bed: &Bed, expected: &[Document]) {
    bed.cluster().shard_collection("test.zoned", doc! { "_id": 1 }, None).await.expect("sharded");
    bed.cluster().add_shard_to_zone("s1", "far").await.expect("a zone");
    let (min, max) = (doc! { "_id": Bson::MinKey }, doc! { "_id": 0 });
    bed.cluster().set_zone("test.zoned", min, max, Some("far")).await.expect("assigned");
    let map = bed.file("map.js", jobs::MAP).display().to_string();
    let reduce = bed.file("reduce.js", jobs::REDUCE).display().to_string();
    let args = ["submit", "-c", "input", "--map", &map, "--reduce", &reduce];
    let ran = bed.aviary(&[&args[..], &["--out", "replace:zoned"]].concat()).await;
    assert_eq!(ran.code, 8, "{ran:?}");
    for word in ["test.zoned", "zones", "merge"] {
        assert!(ran.stderr.contains(word), "{word} is missing: {ran:?}");
    }
    bed.aviary(&[&args[..], &["--out", "merge:zoned"]].concat()).await.ok();
    assert_eq!(bed.all("zoned").await, expected);
}

/// Replacing a target that was sharded after the job was planned would put all of it on one shard again.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_sharded_meanwhile_is_not_replaced() {
    let bed = Bed::sharded(cluster(2), Links::Routed).await;
    jobs::load_sharded(&bed, "input", doc! { "_id": "hashed" }).await;
    let old = vec![doc! { "_id": "old", "value": 0 }];
    bed.load("counts", old.clone()).await;
    let _coordinator = jobs::coordinator(&bed);
    let publisher = bed.paused_worker("publish.staged");
    let map = bed.file("map.js", jobs::MAP).display().to_string();
    let args = ["submit", "--detach", "-o", "name", "-c", "input", "--out", "replace:counts"];
    let args = [&args[..], &["--map", &map, "--reduce", "_count"]].concat();
    let id = bed.aviary(&args).await.ok().stdout.trim().to_owned();
    publisher.arrived().await;
    bed.cluster().shard_collection("test.counts", doc! { "_id": 1 }, None).await.expect("sharded");
    publisher.go_on();
    let job = wait_for("the job to end", async || {
        let job = bed.coll("aviary").find_one(doc! { "_id": &id, "cleaned": true }).await.ok();
        job.flatten()
    })
    .await;
    assert_eq!(job.get_str("state").ok(), Some("failed"), "{job:#?}");
    let error = job.get_document("error").expect("an error").get_str("message").expect("text");
    assert!(error.contains("shard key") && error.contains("submit the job again"), "{error}");
    assert_eq!(shard_key(&bed, "counts").await, Some(doc! { "_id": 1 }));
    assert_eq!(bed.all("counts").await, old);
    bed.nothing_left("a target that is sharded meanwhile").await;
}
