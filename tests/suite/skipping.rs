//! `--on-error skip:N`: records that a function fails on are left out, kept and counted once; everything else is right.

use std::collections::BTreeMap;

use bson::{Document, doc};
use serde_json::Value;

use crate::common::{Bed, Ran, wait_for};
use crate::faults_jobs::{kill_at, stop};

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
    let mut results = BTreeMap::new();
    for row in bed.all("out").await {
        results.insert(row.get_i32("_id").unwrap_or(-2), row.get("value").unwrap().clone());
    }
    assert_eq!(results.len(), 1_000);
    assert!(!results.contains_key(&500));
    assert_eq!(results[&-1].as_f64().or(results[&-1].as_i64().map(|n| n as f64)), Some(999.0));
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
    assert_eq!(well.json(), [serde_json::json!({ "key": 500, "value": 500 })]);
    assert!(well.stderr.contains("seen"), "{well:#?}");
}
