//! Whatever an input is sharded by and whatever indexes it has, a job reads each of its documents once.

use bson::oid::ObjectId;
use bson::{Bson, DateTime, Document, doc};
use futures_util::TryStreamExt;
use mongodb::IndexModel;
use mongodb::options::{Collation, CollationStrength, IndexOptions};

use crate::common::{Bed, Links, cluster};
use crate::jobs;

#[tokio::test(flavor = "multi_thread")]
async fn every_document_is_read_once_whatever_the_collection_is_sharded_by() {
    let mut bed = Bed::sharded(cluster(2), Links::Direct).await;
    bed.cluster().enable_sharding("test", "s0").await.expect("enabled");
    descending(&bed).await;
    insensitive(&bed).await;
    collated(&bed).await;
    mixed(&bed).await;
    for links in [Links::Direct, Links::Routed] {
        bed.links = links;
        let mut daemons = bed.workers();
        daemons.push(jobs::coordinator(&bed));
        read_once(&bed, "descending", &[], doc! {}).await;
        read_once(&bed, "insensitive", &[], doc! {}).await;
        read_once(&bed, "collated", &[], doc! {}).await;
        let some = ["--query", r#"{"name": "ANNA"}"#];
        let job = read_once(&bed, "collated", &some, doc! { "name": "ANNA" }).await;
        assert_eq!(job["counters"]["input"], 200, "the collection's own collation: {job:#}");
        read_once(&bed, "mixed", &[], doc! {}).await;
        jobs::stop(daemons).await;
    }
}

/// The only index along the shard key goes on with a field that goes down, and all documents of a device
/// lie at the border between two shards.
async fn descending(bed: &Bed) {
    let index = IndexModel::builder().keys(doc! { "device": 1, "ts": -1 }).build();
    bed.coll("descending").create_index(index).await.expect("indexed");
    halve(bed, "descending", doc! { "device": 1 }, doc! { "device": "m" }).await;
    let mut documents = Vec::new();
    for device in ["a", "m", "z"] {
        documents.extend((0..300).map(|ts| doc! { "device": device, "ts": ts }));
    }
    // The beginning of the index; the end of its shard key is in no chunk.
    for ts in [Bson::MinKey, Bson::Int32(1), Bson::MaxKey] {
        documents.push(doc! { "device": Bson::MinKey, "ts": ts });
    }
    load(bed, "descending", documents).await;
}

/// Another index has the same fields, and a collation.
async fn insensitive(bed: &Bed) {
    let insensitive =
        Collation::builder().locale("en").strength(CollationStrength::Secondary).build();
    let options = IndexOptions::builder().name("insensitive".to_owned()).collation(insensitive);
    let index = IndexModel::builder().keys(doc! { "email": 1 }).options(options.build()).build();
    bed.coll("insensitive").create_index(index).await.expect("indexed");
    halve(bed, "insensitive", doc! { "email": 1 }, doc! { "email": "m" }).await;
    load(bed, "insensitive", people()).await;
}

/// Text in the collection compares otherwise than text in its chunks' bounds.
async fn collated(bed: &Bed) {
    let create = doc! { "create": "collated", "collation": { "locale": "en", "strength": 2 } };
    bed.db().run_command(create).await.expect("created");
    halve(bed, "collated", doc! { "email": 1 }, doc! { "email": "m" }).await;
    load(bed, "collated", people()).await;
}

fn people() -> Vec<Document> {
    let named = ["anna", "Anna", "Mia", "mia", "Zoe", "zoe"].into_iter();
    let of = |name: &'static str| {
        (0..100).map(move |n| doc! { "email": format!("{name}{n}@example.org"), "name": name })
    };
    named.flat_map(of).collect()
}

/// Keys of every type, and none.
async fn mixed(bed: &Bed) {
    let key = doc! { "k": 1, "l": 1 };
    halve(bed, "mixed", key, doc! { "k": "m", "l": Bson::MinKey }).await;
    let bounds = [Bson::Null, Bson::Double(f64::NAN), Bson::Int64(3), Bson::Boolean(true)];
    for bound in bounds {
        let at = doc! { "k": bound, "l": Bson::Null };
        bed.cluster().split("test.mixed", at.clone()).await.expect("split");
        bed.cluster().move_range("test.mixed", at, "s1", true).await.expect("moved");
    }
    let mut values: Vec<Bson> =
        (0..50).flat_map(|n| [Bson::Int32(n), Bson::Int64(n.into())]).collect();
    values.extend([f64::NAN, f64::NEG_INFINITY, -0.0, 3.0, 3.5].map(Bson::Double));
    values.extend(["", "l", "m", "n"].map(Bson::from));
    values.extend([
        Bson::MinKey,
        Bson::Null,
        Bson::Boolean(false),
        Bson::Boolean(true),
        Bson::MaxKey,
    ]);
    values.extend([doc! {}, doc! { "k": 1 }, doc! { "k": [1, 2] }].map(Bson::Document));
    values.push(ObjectId::from_bytes([7; 12]).into());
    values.push(DateTime::from_millis(0).into());
    let mut documents = vec![doc! {}];
    for k in &values {
        documents.push(doc! { "k": k });
        documents.push(doc! { "l": k });
        for l in [Bson::MinKey, Bson::Null, Bson::Int32(1), Bson::MaxKey] {
            // The end of all keys is in no chunk.
            if (k, &l) != (&Bson::MaxKey, &Bson::MaxKey) {
                documents.push(doc! { "k": k, "l": l });
            }
        }
    }
    load(bed, "mixed", documents).await;
}

/// Shards a collection; what is from `at` on is on the second shard.
async fn halve(bed: &Bed, name: &str, key: Document, at: Document) {
    let namespace = format!("test.{name}");
    let simple = doc! { "locale": "simple" };
    let shard = doc! { "shardCollection": &namespace, "key": key, "collation": simple };
    bed.cluster().run_admin(shard).await.expect("sharded");
    bed.cluster().split(&namespace, at.clone()).await.expect("split");
    bed.cluster().move_range(&namespace, at, "s1", true).await.expect("moved");
}

async fn load(bed: &Bed, name: &str, documents: Vec<Document>) {
    let numbered = documents.into_iter().zip(0_i32..).map(|(mut document, n)| {
        // Not text: of an input with a collation no text may be a key.
        document.insert("_id", f64::from(n));
        document
    });
    bed.load(name, numbered.collect()).await;
}

/// Runs a job that counts each `_id`, with more flags, and compares that with what `query` finds there.
async fn read_once(bed: &Bed, name: &str, more: &[&str], query: Document) -> serde_json::Value {
    let map = bed.file("each.js", "function () { emit(this._id, 1); }").display().to_string();
    let target = format!("replace:{name}_out");
    let args = ["submit", "-c", name, "--map", &map, "--reduce", "_count", "--out", &target];
    let args = [&args[..], &["-o", "json", "--quiet"], more].concat();
    let job = bed.aviary(&args).await.ok().json().remove(0);
    let there = bed.coll(name).find(query).await.expect("found");
    let there: Vec<Document> = there.try_collect().await.expect("read");
    let found = bed.all(&format!("{name}_out")).await;
    let is_read = |document: &&Document| {
        let of_it = |row: &&Document| row.get("_id") == document.get("_id");
        found.iter().find(of_it).is_some_and(|row| row.get("value") == Some(&Bson::Int64(1)))
    };
    let (read, others): (Vec<&Document>, Vec<&Document>) = there.iter().partition(is_read);
    let what = format!("{name}, {:?}: {} read once, not so {others:?}", bed.links, read.len());
    assert!(others.is_empty(), "{what}");
    assert_eq!(job["counters"]["input"], there.len(), "{what}");
    assert_eq!(found.len(), there.len(), "{what}");
    job
}
