//! Targets that refuse a result: before anything is written where that can be known, and never with the advice to
//! do it all again.

use bson::doc;
use mongodb::IndexModel;
use mongodb::options::IndexOptions;

use crate::common::Bed;
use crate::jobs;

/// The target's validator refuses one of five sums; the other four are not merged either.
#[tokio::test(flavor = "multi_thread")]
async fn a_reduce_that_the_targets_validator_refuses_changes_nothing() {
    let bed = Bed::start(1).await.in_parts();
    jobs::load(&bed, "docs", 1_000, 5).await;
    bed.db().create_collection("sums").validator(doc! { "value": { "$lt": 1_000 } }).await.unwrap();
    let before: Vec<_> =
        (0..5).map(|n| doc! { "_id": n, "value": if n == 3 { 900 } else { 1 } }).collect();
    bed.load("sums", before.clone()).await;
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    let id = jobs::submit(&bed, "docs", "reduce:sums", &[]).await;
    let job = jobs::reaches(&bed, &id, &["failed"]).await;
    let error = job.get_document("error").unwrap().get_str("message").unwrap();
    assert!(error.contains("validator"), "{error}");
    assert_eq!(bed.all("sums").await, before);
    // Once it is mended, the same job may be submitted again.
    let mend = doc! { "collMod": "sums", "validator": {} };
    bed.db().run_command(mend).await.unwrap();
    let id = jobs::submit(&bed, "docs", "reduce:sums", &[]).await;
    jobs::succeeded(&bed, &id).await;
    assert_eq!(jobs::total(&bed, "sums").await, 904 + 1_000);
    jobs::nothing_left(&bed).await;
}

/// A unique index refuses a part of the results, which nobody can know before: the job stops, and goes on when
/// told to, and counts nothing twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_merge_that_stopped_half_way_is_resumed() {
    let bed = stopped_bed().await;
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    let id = jobs::submit(&bed, "docs", "reduce:sums", &[]).await;
    let job = jobs::reaches(&bed, &id, &["stopped"]).await;
    let error = job.get_document("error").unwrap().get_str("message").unwrap();
    assert!(error.contains("other results may be merged already"), "{error}");
    let waiting = bed.aviary(&["status", &id]).await.ok();
    assert!(waiting.words().contains(&format!("aviary resume {id}")), "{waiting:#?}");
    // Another job waits, since this one may go on with what it has read.
    let other = jobs::submit(&bed, "docs", "reduce:sums", &[]).await;
    jobs::reaches(&bed, &other, &["publishing"]).await;
    bed.coll("sums").drop_index("value_1").await.unwrap();
    bed.aviary(&["resume", &id]).await.ok();
    bed.aviary(&["status", "-w", &id]).await.ok();
    jobs::succeeded(&bed, &other).await;
    assert_eq!(jobs::total(&bed, "sums").await, 31_000 + 1_045 + 2_000);
    assert_eq!(bed.aviary(&["resume", &id]).await.code, 8, "it has ended");
    jobs::nothing_left(&bed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_that_stopped_half_way_is_given_up() {
    let bed = stopped_bed().await;
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    let id = jobs::submit(&bed, "docs", "reduce:sums", &[]).await;
    jobs::reaches(&bed, &id, &["stopped"]).await;
    bed.aviary(&["cancel", &id]).await.ok();
    jobs::reaches(&bed, &id, &["cancelled"]).await;
    jobs::nothing_left(&bed).await;
}

/// With `update`, what is refused is known only when it is written.
#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_stopped_half_way_is_resumed() {
    let bed = Bed::start(1).await.in_parts();
    jobs::load(&bed, "docs", 40, 40).await;
    bed.db().create_collection("rows").validator(doc! { "big": { "$ne": true } }).await.unwrap();
    let rows = (0..40).map(|n| doc! { "_id": n, "kept": n });
    bed.load("rows", rows.collect()).await;
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    let map = bed.file("mark.js", "function () { emit(this._id, { big: this._id === 39 }); }");
    let map = map.display().to_string();
    let args = ["submit", "-q", "-o", "name", "-c", "docs", "--map", &map, "--out", "update:rows"];
    let ran = bed.aviary(&args).await;
    assert_eq!(ran.code, 9, "{ran:#?}");
    assert!(ran.stderr.contains("aviary resume"), "{ran:#?}");
    bed.db().run_command(doc! { "collMod": "rows", "validator": {} }).await.unwrap();
    bed.aviary(&["resume", "last"]).await.ok();
    bed.aviary(&["status", "-w", "last"]).await.ok();
    let rows = bed.all("rows").await;
    assert_eq!(rows.len(), 40);
    for (n, row) in (0..).zip(&rows) {
        assert_eq!(row.get_i32("kept").unwrap(), n);
        assert_eq!(row.get_bool("big").unwrap(), n == 39, "{row}");
    }
    jobs::nothing_left(&bed).await;
}

/// A person ends a job that is being merged; what is there stays, and the job says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_publishes_can_be_cancelled() {
    let bed = Bed::start(1).await.in_parts();
    jobs::load(&bed, "docs", 400, 10).await;
    let _coordinator = bed.coordinator();
    for (mode, place) in
        [("merge", "publish.merge"), ("replace", "publish.rename"), ("reduce", "publish.recorded")]
    {
        bed.coll("counts").drop().await.unwrap();
        bed.load("counts", vec![doc! { "_id": "old", "value": 7 }]).await;
        let slow = bed.paused_worker(place);
        let id = jobs::submit(&bed, "docs", &format!("{mode}:counts"), &[]).await;
        slow.arrived().await;
        let cancelling = tokio::spawn({
            let (env, id) = (bed.env(), id.clone());
            async move { crate::common::run(&["cancel", &id], &env).await }
        });
        jobs::wished_cancelled(&bed, &id).await;
        slow.go_on();
        let ran = cancelling.await.unwrap().ok();
        assert!(ran.stderr.contains("is cancelled"), "{mode}: {ran:#?}");
        jobs::reaches(&bed, &id, &["cancelled"]).await;
        assert_eq!(bed.all("counts").await, [doc! { "_id": "old", "value": 7 }], "{mode}");
        jobs::nothing_left(&bed).await;
        jobs::stop(&slow.process).await;
    }
    // Nobody works on it.
    let id = jobs::submit(&bed, "docs", "merge:counts", &[]).await;
    let halting = bed.halting_worker("publish.staged");
    jobs::kill(&halting).await;
    let next = bed.worker();
    jobs::succeeded(&bed, &id).await;
    jobs::stop(&next).await;
    let before = bed.all("counts").await;
    let id = jobs::submit(&bed, "docs", "replace:counts", &[]).await;
    let last = bed.paused_worker("reduce.commit");
    last.arrived().await;
    last.process.terminate().unwrap();
    last.go_on();
    bed.aviary(&["cancel", &id]).await.ok();
    jobs::reaches(&bed, &id, &["cancelled"]).await;
    assert_eq!(bed.all("counts").await, before);
    jobs::nothing_left(&bed).await;
}

/// A target whose unique index refuses one of the 20 sums that the job computes: 985 + 10 + 50 is there already.
async fn stopped_bed() -> Bed {
    let bed = Bed::start(1).await.in_parts();
    jobs::load(&bed, "docs", 1_000, 20).await;
    let mut sums: Vec<_> = (0..31).map(|n| doc! { "_id": n, "value": 985 + n }).collect();
    sums.push(doc! { "_id": "in the way", "value": 1_045 });
    bed.load("sums", sums).await;
    let unique = IndexOptions::builder().unique(true).name("value_1".to_owned()).build();
    let unique = IndexModel::builder().keys(doc! { "value": 1 }).options(unique).build();
    bed.coll("sums").create_index(unique).await.unwrap();
    bed
}

/// No server merges a document without an `_id`, and takes a null for none.
#[tokio::test(flavor = "multi_thread")]
async fn a_null_key_is_refused_before_anything_is_merged() {
    const SUM: &str = "function () { emit(this._id % 2 ? null : this._id, 1); }";
    const SET: &str = "function () { emit(this._id % 2 ? null : this._id, {n: 1}); }";
    let bed = Bed::start(1).await.in_parts();
    bed.load("docs", (0..2).map(|n| doc! { "_id": n }).collect()).await;
    let before = vec![doc! { "_id": 0, "value": 7 }];
    bed.load("sums", before.clone()).await;
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    for (mode, map, reduce) in [
        ("merge", SUM, &["--reduce", "_sum"][..]),
        ("reduce", SUM, &["--reduce", "_sum"]),
        ("update", SET, &[]),
    ] {
        let out = format!("{mode}:sums");
        let mut args =
            vec!["submit", "--detach", "-o", "name", "-c", "docs", "--out", &out, "--map", map];
        args.extend(reduce);
        let id = bed.aviary(&args).await.ok().stdout.trim().to_owned();
        let job = jobs::reaches(&bed, &id, &["failed", "stopped"]).await;
        let error = job.get_document("error").unwrap().get_str("message").unwrap();
        assert!(
            error.contains("the key null") && error.contains("nothing was published"),
            "{error}"
        );
        assert_eq!(bed.all("sums").await, before, "{mode}");
    }
    jobs::nothing_left(&bed).await;
}
