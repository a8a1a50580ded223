//! A job reads its whole input as of one instant: what a writer does meanwhile changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::common::{Bed, wait_for};
use bson::{Bson, DateTime, Document, Timestamp, doc};
use futures_util::TryStreamExt;
use mongodb::Collection;

const DOCS: i32 = 2_000;

/// Slow enough that a writer gets between two documents.
const MAP: &str = "function () {
  let x = 0;
  for (let i = 0; i < 15000; i++) x += i;
  emit({ g: this.g, what: 'sum' }, this.v);
  emit({ g: this.g, what: 'count' }, x > 0 ? 1 : 0);
}";

/// Inserts, changes and deletes until told to stop; remembers when each write was acknowledged.
async fn write(coll: Collection<Document>, seed: u64, stop: Arc<AtomicBool>) -> Vec<DateTime> {
    let mut acknowledged = Vec::new();
    let mut state = seed;
    let mut fresh = 0_i32;
    while !stop.load(Ordering::Acquire) {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let draw = (state >> 33) as i32;
        let id = draw % DOCS;
        match draw % 4 {
            0 => {
                fresh += 1;
                // Fractions lie between the first documents, so they fall into every split.
                let id = f64::from(id) + f64::from(fresh) / 1e7 + seed as f64 / 10.0;
                coll.insert_one(doc! { "_id": id, "g": draw % 7, "v": 1_000 }).await.unwrap();
            }
            1 => {
                coll.delete_one(doc! { "_id": id }).await.unwrap();
            }
            _ => {
                let change = doc! { "$set": { "g": draw % 7 }, "$inc": { "v": 13 } };
                coll.update_one(doc! { "_id": id }, change).await.unwrap();
            }
        }
        acknowledged.push(DateTime::now());
    }
    acknowledged
}

/// The same job over documents, in Rust: group → (sum, count).
fn recount(docs: &[Document]) -> BTreeMap<i32, (i64, i64)> {
    let mut groups = BTreeMap::new();
    for doc in docs {
        let group: &mut (i64, i64) = groups.entry(doc.get_i32("g").unwrap()).or_default();
        group.0 += i64::from(doc.get_i32("v").unwrap());
        group.1 += 1;
    }
    groups
}

fn of_results(rows: &[Document]) -> BTreeMap<i32, (i64, i64)> {
    let number = |value: Option<&Bson>| match value {
        Some(Bson::Double(n)) => *n as i64,
        Some(Bson::Int32(n)) => i64::from(*n),
        Some(Bson::Int64(n)) => *n,
        other => panic!("no number: {other:?}"),
    };
    let mut groups = BTreeMap::new();
    for row in rows {
        let key = row.get_document("_id").unwrap();
        let group: &mut (i64, i64) = groups.entry(number(key.get("g")) as i32).or_default();
        match key.get_str("what").unwrap() {
            "sum" => group.0 = number(row.get("value")),
            _ => group.1 = number(row.get("value")),
        }
    }
    groups
}

/// The collection as of a cluster time, read through the server itself.
async fn as_of(bed: &Bed, collection: &str, time: Timestamp) -> Vec<Document> {
    bed.db()
        .run_cursor_command(doc! {
            "find": collection,
            "readConcern": { "level": "snapshot", "atClusterTime": time },
        })
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_while_a_job_runs_do_not_change_its_result() {
    let bed = Bed::start(1).await;
    let pad = "x".repeat(100);
    let docs = (0..DOCS).map(|n| doc! { "_id": n, "g": n % 7, "v": n, "pad": &pad });
    bed.load("accounts", docs.collect()).await;
    let map = bed.file("map.js", MAP).display().to_string();
    let _coordinator =
        bed.spawn("coordinator", &["coordinator"], &[("AVIARY_SPLIT_BYTES", "16384")]);
    let _worker = bed.worker();

    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> =
        (1..=2).map(|seed| tokio::spawn(write(bed.coll("accounts"), seed, stop.clone()))).collect();
    // The writers are at work before the job exists.
    let accounts = bed.coll("accounts");
    wait_for("the writers", async || {
        let inserted = accounts.count_documents(doc! { "pad": null }).await.unwrap();
        (inserted > 20).then_some(())
    })
    .await;
    let ran = bed
        .aviary(&[
            "submit",
            "--quiet",
            "-o",
            "json",
            "-c",
            "accounts",
            "--map",
            &map,
            "--reduce",
            "_sum",
            "--partitions",
            "2",
            "--out",
            "replace:totals",
        ])
        .await
        .ok();
    stop.store(true, Ordering::Release);
    let mut writes = Vec::new();
    for writer in writers {
        writes.extend(writer.await.unwrap());
    }

    let job = &ran.json()[0];
    let time = &job["snapshot"];
    let time = Timestamp {
        time: u32::try_from(time["t"].as_u64().unwrap()).unwrap(),
        increment: u32::try_from(time["i"].as_u64().unwrap()).unwrap(),
    };
    let then = as_of(&bed, "accounts", time).await;
    let expected = recount(&then);
    let results = of_results(&bed.all("totals").await);
    assert_eq!(results, expected);
    assert_eq!(job["counters"]["input"], then.len());

    // It would have shown: documents were written while map tasks ran, before the last of them
    // began, and the collection is another one by now.
    let tasks: Vec<Document> = bed
        .coll("aviary")
        .find(doc! { "job": job["id"].as_str().unwrap(), "kind": "map" })
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert!(tasks.len() > 5, "{} map tasks", tasks.len());
    let begun = |task: &Document| task.get_datetime("leased").copied().unwrap();
    let first = tasks.iter().map(begun).min().unwrap();
    let last = tasks.iter().map(begun).max().unwrap();
    let meanwhile = writes.iter().filter(|at| (first..last).contains(at)).count();
    assert!(meanwhile > 50, "only {meanwhile} writes between {first} and {last}");
    let now = bed.all("accounts").await;
    assert_ne!(recount(&now), expected, "the writers changed what a later job would see");
    println!("{meanwhile} writes while {} map tasks ran", tasks.len());
}

/// Submits a job over `docs` whose worker has read the beginning of the first of several splits, does something
/// to the collection, and returns how the job ended.
async fn meanwhile(bed: &Bed, out: &str, deed: impl AsyncFnOnce()) -> crate::common::Ran {
    let pad = "x".repeat(1_000);
    let docs = (0..2_000).map(|n| doc! { "_id": n, "g": n % 7, "pad": &pad });
    bed.load("docs", docs.collect()).await;
    let worker = bed.paused_worker("map.call");
    let map = bed.file("count.js", "function () { emit(this.g, 1); }").display().to_string();
    let target = format!("replace:{out}");
    let args = ["submit", "-c", "docs", "--map", &map, "--reduce", "_sum", "--out", &target];
    let submitted = bed.aviary(&[&args[..], &["--detach", "-o", "name"]].concat()).await.ok();
    let id = submitted.stdout.trim().to_owned();
    worker.arrived().await;
    deed().await;
    worker.go_on();
    let ended = bed.aviary(&["status", &id, "-w", "--quiet"]).await;
    bed.nothing_left(out).await;
    worker.process.terminate().expect("it runs");
    worker.process.wait_gone(crate::common::ceiling()).await.expect("it ends");
    ended
}

/// A collection takes its history along when it goes, and reading it then gives nothing, without an error.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_loses_its_input_publishes_nothing() {
    let bed = Bed::start(1).await;
    let _coordinator =
        bed.spawn("coordinator", &["coordinator"], &[("AVIARY_SPLIT_BYTES", "262144")]);
    let docs = bed.coll("docs");
    let dropped = async || docs.drop().await.expect("dropped");
    let replaced = async || {
        docs.drop().await.expect("dropped");
        docs.insert_one(doc! { "_id": 1, "g": 1 }).await.expect("inserted");
    };
    for (out, words, ended) in [
        ("dropped", "was dropped, renamed or replaced", meanwhile(&bed, "dropped", dropped).await),
        // The servers know that the new one was not there when the job began, and so does Aviary.
        (
            "replaced",
            "was dropped, renamed or replaced",
            meanwhile(&bed, "replaced", replaced).await,
        ),
    ] {
        assert_eq!(ended.code, 3, "{ended:#?}");
        assert!(ended.stderr.contains(words), "{ended:#?}");
        assert_eq!(bed.all(out).await, [], "{out}");
        docs.drop().await.expect("dropped");
    }
}

/// Servers may be unable to read a collection as it was before its indexes changed. Then the job says so and
/// ends, instead of trying for ever; where they can, nothing changes.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_built_on_the_input_ends_the_job_or_does_not_matter() {
    let bed = Bed::start(1).await;
    let _coordinator =
        bed.spawn("coordinator", &["coordinator"], &[("AVIARY_SPLIT_BYTES", "262144")]);
    let build = async || {
        let index = mongodb::IndexModel::builder().keys(doc! { "g": 1 }).build();
        bed.coll("docs").create_index(index).await.expect("built");
    };
    let ended = meanwhile(&bed, "indexed", build).await;
    let results = bed.all("indexed").await;
    if ended.code == 0 {
        let counted: i64 =
            results.iter().map(|row| row.get_f64("value").expect("a count") as i64).sum();
        assert_eq!((results.len(), counted), (7, 2_000));
    } else {
        assert_eq!(ended.code, 3, "{ended:#?}");
        assert!(ended.stderr.contains("indexes or options changed"), "{ended:#?}");
        assert_eq!(results, []);
    }
}
