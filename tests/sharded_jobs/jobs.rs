//! Documents and a job that these tests share.

use std::collections::BTreeMap;

use aviary_testcontainers::Managed;
use bson::oid::ObjectId;
use bson::{Bson, DateTime, Document, doc};

use crate::common::{Bed, ceiling};

/// Keys of many types, some of them equal across types.
pub const MAP: &str = "function () { emit(this.key, {n: 1, total: this.v, low: this.v}); }";

pub const REDUCE: &str = "function (key, values) {
  const all = {n: 0, total: 0, low: values[0].low};
  for (const value of values) {
    all.n += value.n;
    all.total += value.total;
    if (value.low < all.low) all.low = value.low;
  }
  return all;
}";

/// How many documents [`documents`] gives.
pub const COUNT: i32 = 9_000;
const KEYS: i32 = 600;

/// Documents whose `_id`s and keys are of many types.
pub fn documents() -> Vec<Document> {
    (0..COUNT).map(|i| doc! { "_id": id(i), "n": i, "key": key(i), "v": i % 97 }).collect()
}

fn id(i: i32) -> Bson {
    match i % 5 {
        0 => Bson::Int32(i),
        1 => Bson::Double(f64::from(i) + 0.5),
        2 => Bson::String(format!("id {i}")),
        3 => Bson::ObjectId(object_id(i)),
        _ => Bson::Document(doc! { "i": i, "of": "document" }),
    }
}

fn key(i: i32) -> Bson {
    let k = i * 7 % KEYS;
    match (k % 6, i % 2) {
        // The same key in two types.
        (0, 0) => Bson::Int32(k),
        (0, _) => Bson::Double(f64::from(k)),
        (1, _) => Bson::String(format!("key {k}")),
        (2, _) => Bson::ObjectId(object_id(k)),
        (3, _) => Bson::DateTime(DateTime::from_millis(i64::from(k) * 86_400_000)),
        (4, _) => Bson::Document(doc! { "a": k, "b": [k, "x"] }),
        _ => Bson::Int64(i64::from(k) << 33),
    }
}

fn object_id(i: i32) -> ObjectId {
    let mut bytes = [7; 12];
    bytes[8..].copy_from_slice(&i.to_be_bytes());
    ObjectId::from_bytes(bytes)
}

/// How many documents have which key, counted here. Keys are told apart by what is the same for
/// equal keys of different types.
pub fn recount() -> BTreeMap<String, (i64, i64)> {
    recount_first(COUNT)
}

/// The same of the documents with the lowest `n`.
pub fn recount_first(count: i32) -> BTreeMap<String, (i64, i64)> {
    let mut groups: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for i in 0..count {
        let group = groups.entry(name_of(&key(i))).or_default();
        group.0 += 1;
        group.1 += i64::from(i % 97);
    }
    groups
}

/// The same of a job's output.
pub fn counted(rows: &[Document]) -> BTreeMap<String, (i64, i64)> {
    rows.iter()
        .map(|row| {
            let value = row.get_document("value").expect("a value");
            let part = |name: &str| value.get_f64(name).expect("a number") as i64;
            (name_of(row.get("_id").expect("an id")), (part("n"), part("total")))
        })
        .collect()
}

fn name_of(key: &Bson) -> String {
    match key {
        Bson::Int32(n) => n.to_string(),
        Bson::Double(n) => n.to_string(),
        other => other.to_string(),
    }
}

/// A sharded collection with the documents, its chunks spread over all shards.
pub async fn load_sharded(bed: &Bed, name: &str, key: Document) {
    let namespace = format!("test.{name}");
    let shards = bed.cluster().shard_names();
    let hashed = key.values().any(|direction| direction.as_str().is_some());
    let pieces = i32::try_from(shards.len()).expect("few") * 4;
    let chunks = hashed.then_some(pieces);
    bed.cluster().enable_sharding("test", &shards[0]).await.expect("enabled");
    bed.cluster().shard_collection(&namespace, key.clone(), chunks).await.expect("sharded");
    for n in (1..pieces).filter(|_| !hashed) {
        let at = doc! { "n": COUNT / pieces * n };
        bed.cluster().split(&namespace, at.clone()).await.expect("split");
        let to = &shards[usize::try_from(n).expect("positive") % shards.len()];
        if *to != shards[0] {
            bed.cluster().move_range(&namespace, at, to, true).await.expect("moved");
        }
    }
    bed.load(name, documents()).await;
    let chunks = bed.cluster().chunks(&namespace).await.expect("chunks");
    for shard in &shards {
        assert!(chunks.iter().any(|chunk| chunk.shard == *shard), "{shard} has a part");
    }
}

/// A coordinator that plans small splits.
pub fn coordinator(bed: &Bed) -> Managed {
    bed.spawn("coordinator", &["coordinator"], &[("AVIARY_SPLIT_BYTES", "60000")])
}

/// Runs the job over all documents to its end, and gives it as JSON.
pub async fn run(bed: &Bed, input: &str, output: &str) -> serde_json::Value {
    let job = run_with(bed, input, output, &[]).await;
    assert_eq!(job["counters"]["input"], COUNT, "{job:#}");
    job
}

/// The same with more flags.
pub async fn run_with(bed: &Bed, input: &str, output: &str, more: &[&str]) -> serde_json::Value {
    let (map, reduce) = (bed.file("map.js", MAP), bed.file("reduce.js", REDUCE));
    let (map, reduce) = (map.display().to_string(), reduce.display().to_string());
    let out = format!("replace:{output}");
    let mut args = vec!["submit", "-c", input, "--map", &map, "--reduce", &reduce, "--out", &out];
    args.extend(["--partitions", "5", "-o", "json", "--quiet"]);
    args.extend(more);
    bed.aviary(&args).await.ok().json().remove(0)
}

/// The shards on which a job's tasks of a kind were done, with how many there were on each.
pub async fn shards_of(bed: &Bed, job: &serde_json::Value, kind: &str) -> BTreeMap<String, u32> {
    let id = job["id"].as_str().expect("an id");
    let mut shards = BTreeMap::new();
    for task in bed.aviary(&["tasks", id, "-o", "json"]).await.ok().json() {
        if task["kind"] == kind {
            *shards.entry(task["shard"].as_str().expect("a shard").to_owned()).or_default() += 1;
        }
    }
    shards
}

/// Ends daemons as an operator would.
pub async fn stop(daemons: Vec<Managed>) {
    for daemon in &daemons {
        daemon.terminate().expect("it runs");
    }
    for daemon in &daemons {
        daemon.wait_gone(ceiling()).await.expect("it ends");
    }
}
