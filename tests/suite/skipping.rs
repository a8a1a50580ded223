//! `--on-error skip:N`: records that a function fails on are left out, kept and counted once; everything else is right.

use std::collections::BTreeMap;

use bson::{Bson, Document, doc};
use serde_json::Value;

use crate::common::{Bed, Ran, wait_for};
use crate::faults_jobs::{SPLIT_BYTES, kill_at};

async fn submit(bed: &Bed, collection: &str, map: &str, more: &[&str]) -> Ran {
    let map = bed.file("map.js", map).display().to_string();
    let mut args = vec!["submit", "-c", collection, "--map", &map];
    args.extend(more);
    bed.aviary(&args).await
}

/// What a job has left out, as `aviary failed` tells it.
async fn failed(bed: &Bed, job: &str) -> Vec<Value> {
    bed.aviary(&["failed", job, "-o", "json"]).await.ok().json()
}

/// A number of whatever type.
#[expect(clippy::cast_possible_truncation, reason = "these are whole and small")]
fn whole(value: &Bson) -> i64 {
    match value {
        Bson::Int32(n) => i64::from(*n),
        Bson::Int64(n) => *n,
        Bson::Double(n) => {
            assert!(n.fract() == 0.0, "{n}");
            *n as i64
        }
        other => panic!("{other} is no number"),
    }
}

/// Results that are numbers, by their keys.
async fn numbers(bed: &Bed, collection: &str) -> BTreeMap<i64, i64> {
    let rows = bed.all(collection).await;
    let count = rows.len();
    let of = |row: &Document| {
        (whole(row.get("_id").expect("a key")), whole(row.get("value").expect("a value")))
    };
    let found: BTreeMap<i64, i64> = rows.iter().map(of).collect();
    assert_eq!(found.len(), count, "a key came twice");
    found
}

async fn status(bed: &Bed) -> Value {
    bed.aviary(&["status", "last", "-o", "json"]).await.ok().json().remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_a_map_throws_on_is_left_out_and_kept() {
    let bed = Bed::start(1).await;
    bed.load("docs", (0..1_000).map(|n| doc! { "_id": n, "n": n }).collect()).await;
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    let map = "function () {
      emit(this._id, 1);
      if (this._id === 500) throw new Error('bad ' + this.n);
      emit(-1, 1);
    }";
    let more = ["--reduce", "_sum", "--on-error", "skip:10", "--out", "replace:out"];
    let ran = submit(&bed, "docs", map, &more).await.ok();
    assert!(ran.stderr.contains("warning: "), "{ran:#?}");
    assert!(ran.stderr.contains("aviary failed"), "{ran:#?}");
    let results = numbers(&bed, "out").await;
    let mut expected: BTreeMap<i64, i64> = (0..1_000).map(|n| (n, 1)).collect();
    expected.remove(&500);
    expected.insert(-1, 999);
    assert_eq!(results, expected);
    let job = status(&bed).await;
    assert_eq!((&job["state"], &job["skipped"]), (&"succeeded".into(), &1.into()), "{job}");
    assert_eq!(job["counters"]["input"], 1_000, "{job}");
    assert_eq!(job["counters"]["emit"], 1_998, "{job}");
    let left = failed(&bed, "last").await;
    assert_eq!(left.len(), 1, "{left:#?}");
    assert_eq!(left[0]["id"], 500);
    assert_eq!(left[0]["error"], "Error: bad 500");
    assert_eq!(left[0]["what"], "failed");
    assert_eq!(left[0]["document"], serde_json::json!({ "_id": 500, "n": 500 }));
    let record = left[0]["record"].as_str().unwrap();
    let again = bed.aviary(&["replay", "last", record]).await;
    assert_eq!(again.code, 3, "{again:#?}");
    assert!(again.stderr.contains("bad 500"), "{again:#?}");
    let mended = bed.file("fixed.js", "function () { print('seen'); emit(this._id, this.n); }");
    let mended = mended.display().to_string();
    let well = bed.aviary(&["replay", "last", record, "--map", &mended]).await.ok();
    assert_eq!(well.json(), [serde_json::json!({ "key": 500.0, "value": 500.0 })]);
    assert!(well.stderr.contains("seen"), "{well:#?}");
}

/// A record's `_id` or key, which is a double where JavaScript has emitted it.
#[expect(clippy::cast_possible_truncation, reason = "these are whole and small")]
fn id_of(record: &Value) -> i64 {
    record["id"].as_f64().expect("a number") as i64
}

const DOCUMENTS: i64 = 100_000;
const KEYS: i64 = 97;
/// Documents that a function fails on, and how: the first and the last, two side by side.
const BAD: [(i64, &str); 7] = [
    (0, "throw"),
    (17, "much"),
    (33_333, "loop"),
    (50_000, "deep"),
    (50_001, "throw"),
    (77_777, "array"),
    (99_999, "stack"),
];

async fn load_bad(bed: &Bed) {
    let docs = (0..DOCUMENTS).map(|n| {
        let mut doc = doc! { "_id": n, "k": n % KEYS, "v": n % 13 };
        if let Some((_, how)) = BAD.iter().find(|(id, _)| *id == n) {
            doc.insert("bad", *how);
        }
        doc
    });
    bed.load("docs", docs.collect()).await;
}

fn good() -> impl Iterator<Item = i64> {
    (0..DOCUMENTS).filter(|n| BAD.iter().all(|(bad, _)| bad != n))
}

/// What is right without the bad documents.
fn sums() -> BTreeMap<i64, i64> {
    let mut sums = BTreeMap::new();
    for n in good() {
        *sums.entry(n % KEYS).or_default() += n % 13;
    }
    sums
}

/// In JavaScript: what `good` emits, and after emits that must not count the failure of a bad one.
fn javascript(key: &str) -> String {
    format!(
        "function () {{
          if (this.bad === undefined) {{ emit({key}, this.v); return; }}
          for (let i = 0; i < 500; i++) {{ emit({key}, 1000000); emit(-5, 0.1); count('of bad', 1); }}
          switch (this.bad) {{
            case 'throw': throw new TypeError('thrown at ' + this._id);
            case 'much': for (let n = 0; ; n++) emit('much' + n, 1);
            case 'loop': while (true);
            case 'deep': {{ let d = {{}}; for (let i = 0; i < 300; i++) d = {{d}}; emit({key}, d); return; }}
            case 'array': emit([1], 1); return;
            case 'stack': (function again() {{ return again() + 1; }})();
          }}
        }}"
    )
}

/// The same in Rust.
const RUST: &str = r#"
use aviary::*;

fn map(doc: Doc) {
    let key = doc.get("k").i64();
    let Some(bad) = doc.get("bad").as_str() else {
        emit(key, doc.get("v").i64());
        return;
    };
    for _ in 0..500 {
        emit(key, 1_000_000_i64);
        emit(-5_i64, 0.1);
    }
    match bad {
        "throw" => panic!("thrown"),
        "much" => {
            for n in 0.. {
                emit(n as i64, 1_i64);
            }
        }
        "loop" => loop {},
        "deep" => core::arch::wasm32::unreachable(),
        "array" => emit(doc.get("k"), doc.get("none").i64()),
        _ => {
            let mut all = Vec::new();
            loop {
                all.push(vec![1_u8; 1 << 20]);
                std::hint::black_box(&all);
            }
        }
    }
}
"#;

/// Each bad document is listed once, with its id and a copy.
fn assert_left(left: &[Value], what: &[(i64, &str)]) {
    let mut ids: Vec<i64> = left.iter().map(|record| record["id"].as_i64().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, BAD.map(|(id, _)| id), "{left:#?}");
    for record in left {
        let id = record["id"].as_i64().unwrap();
        assert_eq!(record["document"]["_id"], id, "{record:#}");
        assert_eq!(record["stage"], "map");
        assert_eq!(record["function"].as_str().unwrap().len(), 64);
        let expected = what.iter().find(|(bad, _)| *bad == id).unwrap().1;
        assert_eq!(record["what"], expected, "{record:#}");
    }
}

const IN_JAVASCRIPT: [(i64, &str); 7] = [
    (0, "failed"),
    (17, "emitted too much"),
    (33_333, "ran out of time"),
    (50_000, "failed"),
    (50_001, "failed"),
    (77_777, "emitted what cannot be taken"),
    (99_999, "failed"),
];

const LIMITS: [&str; 6] =
    ["--record-timeout", "2s", "--record-output", "200000", "--memory-mb", "64"];

async fn skips_seven(bed: &Bed, map: &str, more: &[&str]) -> Value {
    let skip = ["--on-error", "skip:7", "--out", "replace:out"];
    submit(bed, "docs", map, &[&LIMITS[..], &skip, more].concat()).await.ok();
    let job = status(bed).await;
    assert_eq!((&job["state"], &job["skipped"]), (&"succeeded".into(), &7.into()), "{job}");
    assert_eq!(job["counters"]["input"], DOCUMENTS, "{job}");
    assert_eq!(job["counters"]["emit"], DOCUMENTS - 7, "{job}");
    assert!(job["counters"]["of bad"].is_null(), "{job}");
    job
}

/// Each reduce is tried where there are many tasks; in one, a few are.
async fn seven_ways_to_fail(bed: &Bed, with_all: bool) {
    load_bad(bed).await;
    let _coordinator =
        bed.spawn("coordinator", &["coordinator"], &[("AVIARY_SPLIT_BYTES", SPLIT_BYTES)]);
    let _worker = bed.worker();

    // Map-only: the key is the _id.
    skips_seven(bed, &javascript("this._id"), &[]).await;
    let expected: BTreeMap<i64, i64> = good().map(|n| (n, n % 13)).collect();
    assert!(numbers(bed, "out").await == expected, "map-only");
    assert_left(&failed(bed, "last").await, &IN_JAVASCRIPT);

    // Sums that the guest adds up, in any order and in the order of emission, and values that it does not.
    let map = javascript("this.k");
    let known = "function (k, values) { return Array.sum(values); }";
    let other = "function (k, values) {
      let sum = 0;
      for (const v of values) { if (v > 1e9) throw new Error('never'); sum += v; }
      return sum;
    }";
    for reduce in if with_all { vec!["_sum", known, other] } else { vec![other] } {
        skips_seven(bed, &map, &["--reduce", reduce]).await;
        assert_eq!(numbers(bed, "out").await, sums(), "{reduce}");
        assert_left(&failed(bed, "last").await, &IN_JAVASCRIPT);
    }
    // As text, which is what guests add up by themselves.
    let map = javascript("'k' + this.k");
    for reduce in if with_all { vec!["_sum", "_count", known] } else { vec!["_sum"] } {
        skips_seven(bed, &map, &["--reduce", reduce]).await;
        let rows = bed.all("out").await;
        assert_eq!(rows.len(), usize::try_from(KEYS).unwrap(), "{reduce}");
        for row in rows {
            let key: i64 = row.get_str("_id").unwrap()[1..].parse().unwrap();
            let count = good().filter(|n| n % KEYS == key).count();
            let expected = match reduce {
                "_count" => i64::try_from(count).unwrap(),
                _ => sums()[&key],
            };
            assert_eq!(whole(row.get("value").unwrap()), expected, "{reduce} {key}");
        }
    }

    // One too few.
    let few = ["--reduce", "_sum", "--on-error", "skip:6", "--out", "replace:few"];
    let ran = submit(bed, "docs", &map, &[&LIMITS[..], &few].concat()).await;
    assert_eq!(ran.code, 3, "{ran:#?}");
    for word in ["functions failed on 7 records", "skip:6", "thrown at 0", "aviary failed"] {
        assert!(ran.stderr.contains(word), "{word}: {ran:#?}");
    }
    assert!(bed.all("few").await.is_empty());
    assert_left(&failed(bed, "last").await, &IN_JAVASCRIPT);
    // A share, judged when all is read.
    for (policy, code) in [("skip:0.007%", 0), ("skip:0.006%", 3)] {
        let share = ["--reduce", "_sum", "--on-error", policy, "--out", "replace:few"];
        let ran = submit(bed, "docs", &map, &[&LIMITS[..], &share].concat()).await;
        assert_eq!(ran.code, code, "{policy}: {ran:#?}");
        if code == 3 {
            assert!(ran.stderr.contains("7 records of 100000 documents read"), "{ran:#?}");
        }
    }
    let job = status(bed).await["id"].as_str().unwrap().to_owned();
    assert!(!failed(bed, &job).await.is_empty());
    let of_job = doc! { "job": &job };
    assert!(bed.coll("aviary-failed").count_documents(of_job.clone()).await.unwrap() >= 7);
    bed.aviary(&["rm", &job]).await.ok();
    assert_eq!(bed.coll("aviary-failed").count_documents(of_job).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn seven_ways_to_fail_in_many_tasks() {
    seven_ways_to_fail(&Bed::start(1).await.in_parts(), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn seven_ways_to_fail_in_one_task() {
    seven_ways_to_fail(&Bed::start(1).await, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn seven_ways_to_fail_in_rust() {
    let bed = Bed::start(1).await.in_parts();
    load_bad(&bed).await;
    let _coordinator =
        bed.spawn("coordinator", &["coordinator"], &[("AVIARY_SPLIT_BYTES", SPLIT_BYTES)]);
    let _worker = bed.worker();
    let map = bed.file("map.rs", RUST).display().to_string();
    let skip = ["--on-error", "skip:7", "--out", "replace:out", "--reduce", "_sum"];
    let args = [&["submit", "-c", "docs", "--map", &map], &LIMITS[..], &skip].concat();
    bed.aviary(&args).await.ok();
    let job = status(&bed).await;
    assert_eq!((&job["state"], &job["skipped"]), (&"succeeded".into(), &7.into()), "{job}");
    assert_eq!(job["counters"]["emit"], DOCUMENTS - 7, "{job}");
    assert_eq!(numbers(&bed, "out").await, sums());
    let what = [
        (0, "failed"),
        (17, "emitted too much"),
        (33_333, "ran out of time"),
        (50_000, "trapped"),
        (50_001, "failed"),
        (77_777, "failed"),
        (99_999, "ran out of memory"),
    ];
    assert_left(&failed(&bed, "last").await, &what);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_killed_workers_left_out_is_left_out_once() {
    let bed = Bed::start(1).await.in_parts();
    load_bad(&bed).await;
    let _coordinator =
        bed.spawn("coordinator", &["coordinator"], &[("AVIARY_SPLIT_BYTES", SPLIT_BYTES)]);
    let map = bed.file("map.js", &javascript("this.k")).display().to_string();
    let skip = ["--on-error", "skip:7", "--out", "replace:out", "--reduce", "_sum", "--detach"];
    let names = ["-o", "name"];
    let args = [&["submit", "-c", "docs", "--map", &map], &LIMITS[..], &skip, &names].concat();
    for place in ["skip.write", "map.commit", "skip.write"] {
        let doomed = bed.halting_worker(place);
        bed.known(&doomed).await;
        if bed.coll("aviary").count_documents(doc! { "kind": "job" }).await.unwrap() == 0 {
            bed.aviary(&args).await.ok();
        }
        kill_at(&doomed, place).await;
    }
    let _worker = bed.worker();
    bed.aviary(&["status", "last", "--watch"]).await.ok();
    let job = status(&bed).await;
    assert_eq!((&job["state"], &job["skipped"]), (&"succeeded".into(), &7.into()), "{job}");
    assert_eq!(job["counters"]["emit"], DOCUMENTS - 7, "{job}");
    assert_eq!(numbers(&bed, "out").await, sums());
    assert_left(&failed(&bed, "last").await, &IN_JAVASCRIPT);
    // What the killed ones wrote is there, and does not count.
    let written = bed.coll("aviary-failed").count_documents(doc! {}).await.unwrap();
    assert!(written > 7, "{written}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_reduce_or_finalize_fail_on_are_left_out() {
    let bed = Bed::start(1).await.in_parts();
    bed.load("docs", (0..20_000).map(|n| doc! { "_id": n, "k": n % 50 }).collect()).await;
    let _coordinator =
        bed.spawn("coordinator", &["coordinator"], &[("AVIARY_SPLIT_BYTES", SPLIT_BYTES)]);
    let _worker = bed.worker();
    let map = "function () { if (this._id === 777) throw new Error('seven'); emit(this.k, 1); }";
    let plain = "function (k, values) {
      if (k === 13) throw new Error('unlucky ' + k);
      let n = 0;
      for (const v of values) { if (v < 0) return -1; n += v; }
      return n;
    }";
    let streaming = "({
      begin(k) { this.k = k; this.n = 0; },
      next(v) { if (this.k === 13 && this.n > 100) throw new Error('unlucky 13'); this.n += v; },
      end() { return this.n; },
    })";
    let finalize = "function (k, v) { if (k === 20) while (true); return v * 2; }";
    let mut expected: BTreeMap<i64, i64> = (0..50).map(|k| (k, 800)).collect();
    expected.insert(27, 798);
    expected.retain(|k, _| ![13, 20].contains(k));
    for (reduce, more) in [(plain, None), (plain, Some("--no-combine")), (streaming, None)] {
        let mut rest = vec!["--reduce", reduce, "--finalize", finalize, "--record-timeout", "3s"];
        rest.extend(["--out", "replace:out", "--on-error", "skip:3"]);
        rest.extend(more);
        submit(&bed, "docs", map, &rest).await.ok();
        assert_eq!(numbers(&bed, "out").await, expected, "{reduce} {more:?}");
        let left = failed(&bed, "last").await;
        let mut of: Vec<(&str, i64, &str)> = left
            .iter()
            .map(|r| (r["stage"].as_str().unwrap(), id_of(r), r["what"].as_str().unwrap()))
            .collect();
        of.sort_unstable();
        let all =
            [("finalize", 20, "ran out of time"), ("map", 777, "failed"), ("reduce", 13, "failed")];
        assert_eq!(of, all, "{left:#?}");
        assert_eq!(status(&bed).await["skipped"], 3);
        let record = left.iter().find(|r| r["stage"] == "reduce").unwrap();
        let name = record["record"].as_str().unwrap();
        let fixed = "function (k, values) { return values.length; }";
        let again = bed.aviary(&["replay", "last", name, "--reduce", fixed]).await;
        if reduce == plain {
            assert_eq!(again.ok().json()[0]["key"].as_f64(), Some(13.0));
        }
        // One fewer than fail.
        *rest.iter_mut().find(|arg| **arg == "skip:3").unwrap() = "skip:2";
        let ran = submit(&bed, "docs", map, &rest).await;
        assert_eq!(ran.code, 3, "{ran:#?}");
        assert!(ran.stderr.contains("functions failed on 3 records"), "{ran:#?}");
        assert_eq!(failed(&bed, "last").await.len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_records_fault_is_not_left_out() {
    let bed = Bed::start(1).await;
    bed.load("docs", (0..100).map(|n| doc! { "_id": n }).collect()).await;
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    for policy in ["skip", "skip:-1", "skip:100001", "skip:101%", "skip:0.0001%", "ignore"] {
        let ran = submit(&bed, "docs", "function () {}", &["--on-error", policy]).await;
        assert_eq!(ran.code, 2, "{policy}: {ran:#?}");
        assert!(ran.stderr.contains("skip:N"), "{ran:#?}");
    }
    // skip:0 is fail.
    let bad = "function () { if (this._id === 5) throw new Error('five'); emit(1, 1); }";
    let ran = submit(&bed, "docs", bad, &["--reduce", "_sum", "--on-error", "skip:0"]).await;
    assert_eq!(ran.code, 3, "{ran:#?}");
    assert!(ran.stderr.contains("five"), "{ran:#?}");
    // The time of the task is over, whatever record was at hand.
    let slow = "function () { while (true); }";
    let skip = ["--on-error", "skip:100", "--task-timeout", "2s", "--record-timeout", "1h"];
    let ran = submit(&bed, "docs", slow, &skip).await;
    assert_eq!(ran.code, 3, "{ran:#?}");
    assert_eq!(status(&bed).await["error"]["code"], "task_timeout");
    // A document too large to keep is named, and read from the input.
    let large = doc! { "_id": "large", "text": "x".repeat(20_000) };
    bed.load("large", vec![large]).await;
    let map = "function () { throw new Error('large'); }";
    let skip = ["--on-error", "skip:100%", "--reduce", "_sum"];
    submit(&bed, "large", map, &skip).await.ok();
    let left = failed(&bed, "last").await.remove(0);
    assert!(left["document"].is_null(), "{left}");
    assert!(left["bytes"].as_i64().unwrap() > 20_000);
    let fixed = "function () { emit(this._id, this.text.length); }";
    let name = left["record"].as_str().unwrap();
    let ran = bed.aviary(&["replay", "last", name, "--map", fixed]).await.ok();
    assert!(ran.stderr.contains("may have changed since"), "{ran:#?}");
    assert_eq!(ran.json()[0]["value"], 20_000.0);
    let ran = bed.aviary(&["replay", "last", "map/1.00000/9"]).await;
    assert_eq!(ran.code, 5, "{ran:#?}");
    // By document.
    let request = doc! {
        "_id": "one", "v": 1, "input": { "collection": "docs" }, "map": { "js": bad },
        "reduce": "_sum", "onError": "skip:10",
    };
    bed.coll("aviary-requests").insert_one(request.clone()).await.unwrap();
    wait_for("a coordinator to take the request in", || async {
        let accepted = doc! { "_id": "one", "state": "accepted" };
        bed.coll("aviary-requests").find_one(accepted).await.unwrap()
    })
    .await;
    bed.aviary(&["status", "one", "--watch"]).await.ok();
    let mut other = request;
    other.extend(doc! { "_id": "two", "onError": "skip:x" });
    bed.coll("aviary-requests").insert_one(other).await.unwrap();
    let ran = bed.aviary(&["status", "two", "--watch"]).await;
    assert_ne!(ran.code, 0, "{ran:#?}");
}
