//! Map-only jobs that read each document as they find it: a task that is tried again may find others.

use crate::common::{Bed, Ran};
use crate::faults_jobs as jobs;
use bson::{Document, doc};

const DOCUMENTS: i32 = 2_500;
/// What is added to some keys while a task has read them and not committed.
const MOVED: i32 = 100_000;

async fn load(bed: &Bed) {
    bed.load("docs", (0..DOCUMENTS).map(|n| doc! { "_id": n, "k": n, "twin": n / 2 }).collect())
        .await;
}

async fn submit(bed: &Bed, map: &str, more: &[&str]) -> Ran {
    let map = bed.file("map.js", map).display().to_string();
    let mut args = vec!["submit", "--quiet", "-c", "docs", "--map", &map, "--read", "committed"];
    args.extend(more);
    bed.aviary(&args).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_only_job_that_reads_twice_writes_what_it_read_once() {
    let bed = Bed::start(1).await;
    load(&bed).await;
    let coordinator = bed.coordinator();
    for (n, place) in (1..).zip(["map.call", "map.commit"]) {
        let doomed = bed.halting_worker(place);
        bed.known(&doomed).await;
        let output = format!("out{n}");
        let target = format!("replace:{output}");
        let map = "function () { emit(this.k, { from: this._id }); }";
        let ran = submit(&bed, map, &["--out", &target, "--detach", "-o", "name"]).await.ok();
        let id = ran.stdout.trim();
        jobs::kill_at(&doomed, place).await;
        // What the dead worker read is no longer there.
        let even = doc! { "_id": { "$mod": [2, 0] } };
        let moved = bed.coll("docs").update_many(even, doc! { "$inc": { "k": MOVED } }).await;
        assert_eq!(moved.expect("changed").modified_count, u64::try_from(DOCUMENTS / 2).unwrap());

        let worker = bed.worker();
        let job = jobs::succeeded(&bed, id).await;
        let counters = job.get_document("counters").expect("counters");
        assert_eq!(counters.get_i64("output").expect("output"), i64::from(DOCUMENTS));
        let tasks = jobs::tasks(&bed, id).await;
        let map = tasks.iter().find(|task| jobs::text(task, "kind") == "map").expect("a map task");
        assert_eq!(jobs::outcomes(map), ["lost", "done"], "{place}");
        let found = bed.all(&output).await;
        let mut expected: Vec<Document> = (0..DOCUMENTS)
            .map(|id| doc! { "_id": id + if id % 2 == 0 { MOVED * n } else { 0 }, "from": id })
            .collect();
        expected.sort_by_key(|row| row.get_i32("_id").unwrap());
        assert_eq!(found.len(), expected.len(), "{place}");
        for (found, expected) in found.iter().zip(&expected) {
            for field in ["_id", "from"] {
                assert_eq!(jobs::number(found, field), jobs::number(expected, field), "{found}");
            }
        }
        jobs::nothing_left(&bed).await;
        jobs::stop(&worker).await;
    }
    jobs::stop(&coordinator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_only_job_without_a_snapshot_does_what_one_with_a_snapshot_does() {
    let bed = Bed::start(1).await;
    load(&bed).await;
    let _coordinator =
        bed.spawn("coordinator", &["coordinator"], &[("AVIARY_SPLIT_BYTES", "16384")]);
    let _worker = bed.worker();

    // Documents, values that are none, and an emitted _id that gives way to the key.
    let reshape = "function () {
      emit(this._id, { _id: 'lost', twice: this._id * 2, of: ['a', this.k] });
      emit('plain ' + this._id, this.k);
    }";
    submit(&bed, reshape, &["--out", "replace:now", "--partitions", "3"]).await.ok();
    let map = bed.file("map.js", reshape).display().to_string();
    let then = ["submit", "--quiet", "-c", "docs", "--map", &map, "--out", "replace:then"];
    bed.aviary(&then).await.ok();
    let (now, then) = (bed.all("now").await, bed.all("then").await);
    assert_eq!(now.len(), 5_000);
    assert!(now == then, "both ways give the same documents");

    // The same key twice: from one document, and from two that may be in two tasks.
    bed.coll("kept").insert_one(doc! { "_id": "kept" }).await.unwrap();
    for map in [
        "function () { emit(this._id, 1); emit(this._id, 2); }",
        "function () { emit(this.twin, this._id); }",
        "function () { emit(this._id % 2 ? 'one' : this._id, this._id); }",
    ] {
        let ran = submit(&bed, map, &["--out", "replace:kept"]).await;
        assert_eq!(ran.code, 3, "{ran:#?}");
        for word in ["same key", "map-only", "_id"] {
            assert!(ran.stderr.contains(word), "{word:?} is missing: {ran:#?}");
        }
        assert_eq!(bed.all("kept").await, [doc! { "_id": "kept" }]);
        bed.nothing_left("a refusal").await;
    }

    // Nothing emitted, nothing found.
    submit(&bed, "function () {}", &["--out", "replace:none"]).await.ok();
    submit(&bed, reshape, &["--out", "replace:none", "--query", r#"{"_id": -1}"#]).await.ok();
    assert!(bed.all("none").await.is_empty());

    // Every way to the output.
    let inline =
        submit(&bed, "function () { emit(this._id, { k: this.k }); }", &["--limit", "3"]).await;
    assert_eq!(inline.ok().json().len(), 3);
    bed.load("target", vec![doc! { "_id": 1, "old": 1 }, doc! { "_id": -1, "old": 1 }]).await;
    let tag = "function () { emit(this._id, { tag: 'x' }); }";
    submit(&bed, tag, &["--out", "update:target"]).await.ok();
    let updated = [doc! { "_id": -1, "old": 1 }, doc! { "_id": 1, "old": 1, "tag": "x" }];
    assert_eq!(bed.all("target").await, updated);
    submit(&bed, tag, &["--out", "merge:target"]).await.ok();
    assert_eq!(bed.all("target").await.len(), 2_501);

    // People see what it is.
    let job = bed.aviary(&["status", "last", "-o", "json"]).await.ok().json().remove(0);
    assert_eq!(job["counters"]["output"], 2_500, "{job}");
    assert_eq!(job["counters"]["reduce"], 0, "{job}");
    let shown = bed.aviary(&["status", "last"]).await.ok();
    assert!(shown.stdout.contains("none (map-only)"), "{shown:#?}");
}

/// Without a snapshot a map task that runs again finds other documents than those whose keys were reduced
/// already, so that a document could be missing from the result, or be in it twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_block_of_a_job_without_a_snapshot_ends_it() {
    let bed = Bed::start(1).await;
    load(&bed).await;
    let worker = bed.worker_apart();
    let map = "function () { emit(this.k, { from: this._id }); }";
    let map_only = ["--out", "replace:kept", "--partitions", "2", "--detach", "-o", "name"];
    let reduced = [&["--reduce", "_count"], &map_only[..]].concat();
    for more in [&reduced[..], &map_only] {
        let doomed = bed.halting(&["coordinator"], "reducing");
        let ran = submit(&bed, map, more).await.ok();
        let id = ran.stdout.trim();
        jobs::kill_at(&doomed, "reducing").await;
        // One partition waits until the other is done and its own block is gone.
        let tasks = jobs::tasks(&bed, id).await;
        let is_last =
            |task: &&Document| jobs::text(task, "kind") == "reduce" && jobs::number(task, "n") == 1;
        let last = tasks.iter().find(is_last).expect("a reduce task");
        let this = doc! { "_id": last.get("_id"), "shard": last.get("shard") };
        let aviary = bed.coll("aviary");
        let later = bson::DateTime::from_millis(bson::DateTime::now().timestamp_millis() << 1);
        let wait = doc! { "$set": { "not_before": later } };
        assert_eq!(aviary.update_one(this.clone(), wait).await.unwrap().modified_count, 1);
        let coordinator = bed.coordinator();
        crate::common::wait_for("the other partition", || async {
            let done = doc! { "job": id, "kind": "reduce", "state": "done" };
            (aviary.count_documents(done).await.ok()? == 1).then_some(())
        })
        .await;
        let block = doc! { "_id": { "$regex": format!("^{id}/p0001/") } };
        let blocks = bed.coll("aviary-intermediates");
        assert!(blocks.delete_many(block).await.unwrap().deleted_count > 0);
        let moved = doc! { "$inc": { "k": MOVED } };
        bed.coll("docs").update_many(doc! {}, moved).await.expect("changed");
        aviary.update_one(this, doc! { "$unset": { "not_before": "" } }).await.unwrap();

        let waited = bed.aviary(&["status", "--watch", id]).await;
        let from = bed.all("kept").await.len();
        assert_eq!(
            waited.code, 3,
            "{from} of {DOCUMENTS} documents are in the result: {waited:#?}"
        );
        for word in ["is missing", "--read committed", "submit the job again"] {
            assert!(waited.stderr.contains(word), "{word:?} is missing: {waited:#?}");
        }
        assert_eq!(from, 0, "nothing was published");
        bed.nothing_left("a lost block").await;
        jobs::stop(&coordinator).await;
    }
    jobs::stop(&worker).await;
}
