//! What people are told of their jobs: how much of them is in the target, what they wait for, what was refused.

use crate::common::{Bed, Paused, Ran, run, wait_for};
use crate::exactly_once_jobs as jobs;
use aviary_testcontainers::ReplicaSetOptions;
use bson::doc;
use mongodb::IndexModel;
use mongodb::options::IndexOptions;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

/// One job, for scripts.
async fn status(bed: &Bed, id: &str) -> Value {
    bed.aviary(&["status", id, "-o", "json"]).await.ok().json().remove(0)
}

/// One job, for people, in one line however it is wrapped.
async fn shown(bed: &Bed, id: &str) -> String {
    bed.aviary(&["status", id]).await.ok().words()
}

/// Waits until what a job's status says holds these words.
async fn comes_to_say(bed: &Bed, id: &str, wanted: &str) -> String {
    wait_for(&format!("status to say: {wanted}"), || async {
        let shown = shown(bed, id).await;
        shown.contains(wanted).then_some(shown)
    })
    .await
}

fn has(text: &str, wanted: &[&str]) {
    for word in wanted {
        assert!(text.contains(word), "{word:?} is missing: {text}");
    }
}

fn lacks(text: &str, unwanted: &[&str]) {
    for word in unwanted {
        assert!(!text.contains(word), "{word:?} is there: {text}");
    }
}

/// A collection whose unique index refuses the result of the key 7 of jobs that count 100 documents by 10 keys.
async fn strict(bed: &Bed, name: &str) {
    bed.load(name, vec![doc! { "_id": "in the way", "twin": 7, "value": 0 }]).await;
    let unique = IndexOptions::builder().unique(true).sparse(true).build();
    let unique = IndexModel::builder().keys(doc! { "twin": 1 }).options(unique).build();
    bed.coll(name).create_index(unique).await.unwrap();
}

const TWIN: &str = "function () { emit(this._id % 10, this._id % 10); }";
const TWINS: &str = "function (key, values) { return values[0]; }";

/// A job that stops at the unique index of `strict`.
async fn stopping(bed: &Bed, into: &str) -> String {
    let map = "function () { emit(this._id, { twin: this._id }); }";
    let map = bed.file("twin.js", map).display().to_string();
    let out = format!("merge:{into}");
    let args = ["submit", "--detach", "-o", "name", "-c", "docs", "--map", &map, "--out", &out];
    bed.aviary(&args).await.ok().stdout.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_publisher_says_less_than_those_before_it_reached() {
    let bed = Bed::start(1).await;
    jobs::load(&bed, "docs", 100, 20).await;
    let _coordinator = bed.coordinator();
    let doomed = bed.halting_worker("publish.merged");
    let id = jobs::submit(&bed, "docs", "merge:sums", &[]).await;
    jobs::kill(&doomed).await;
    assert_eq!(bed.all("sums").await.len(), 20);
    let next = bed.paused_worker("publish.staged");
    next.arrived().await;
    let now = status(&bed, &id).await;
    assert_eq!(now["publish"]["done"], 20, "{now}");
    has(&shown(&bed, &id).await, &["up to 20 of 20 results"]);
    let ran = cancelled_at(&bed, &id, &next).await;
    has(&ran.stderr, &["test.sums holds up to 20 of 20 results"]);
    jobs::reaches(&bed, &id, &["cancelled"]).await;
    has(&shown(&bed, &id).await, &["cancelled, test.sums holds up to 20 of 20 results"]);
    let ran = bed.aviary(&["cancel", &id]).await.ok();
    has(&ran.stderr, &["holds up to 20 of 20 results"]);
    jobs::stop(&next.process).await;

    // Of several pieces, those that are merged and the next one, which may be under way.
    jobs::load(&bed, "many", 12_000, 12_000).await;
    let doomed = bed.halting_worker("publish.piece");
    let id = jobs::submit(&bed, "many", "merge:many-sums", &[]).await;
    jobs::kill(&doomed).await;
    let now = status(&bed, &id).await;
    assert_eq!(now["publish"]["done"], 10_000, "{now}");
    has(&shown(&bed, &id).await, &["up to 10000 of 12000 results"]);
    let last = bed.worker();
    jobs::succeeded(&bed, &id).await;
    assert_eq!(status(&bed, &id).await["publish"]["done"], 12_000);
    jobs::stop(&last).await;
    jobs::nothing_left(&bed).await;
}

/// Cancels a job whose publisher waits.
async fn cancelled_at(bed: &Bed, id: &str, publisher: &Paused) -> Ran {
    let cancelling = tokio::spawn({
        let (env, id) = (bed.env(), id.to_owned());
        async move { run(&["cancel", &id], &env).await }
    });
    jobs::wished_cancelled(bed, id).await;
    publisher.go_on();
    cancelling.await.unwrap().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_stopped_names_what_was_refused_and_a_cancelled_one_advises_nothing() {
    let bed = Bed::start(1).await;
    jobs::load(&bed, "docs", 40, 40).await;
    strict(&bed, "strict").await;
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    let id = stopping(&bed, "strict").await;
    let job = jobs::reaches(&bed, &id, &["stopped"]).await;
    let error = job.get_document("error").unwrap().get_str("message").unwrap();
    has(error, &["test.strict does not take the result with the _id 7", "twin_1"]);
    lacks(error, &["aviary-out"]);
    let ran = bed.aviary(&["status", "-w", &id]).await;
    assert_eq!(ran.code, 9, "{ran:#?}");
    has(&ran.stderr, &[&format!("aviary resume {id}"), "do not submit it again"]);
    let before = shown(&bed, &id).await;
    has(&before, &["stopped, test.strict holds up to 40 of 40 results"]);
    assert_eq!(before.matches("aviary resume").count(), 1, "advice is given once: {before}");
    // It takes no longer while it waits for a person.
    assert!(job.get_datetime("stopped").is_ok(), "{job}");
    assert_eq!(shown(&bed, &id).await, before);
    for line in bed.aviary(&["status", &id]).await.ok().stdout.lines() {
        assert!(line.chars().count() <= 100, "{line:?}");
    }

    let ran = bed.aviary(&["cancel", &id]).await.ok();
    has(
        &ran.stderr,
        &["cancelled after it had stopped", "test.strict holds up to 40 of 40 results"],
    );
    let ran = bed.aviary(&["cancel", &id]).await.ok();
    has(&ran.stderr, &["cancelled after it had stopped", "holds up to 40 of 40 results"]);
    let after = shown(&bed, &id).await;
    has(&after, &["cancelled after it had stopped", "the _id 7"]);
    for text in [&ran.stderr, &after] {
        lacks(text, &["aviary resume", "being put in place"]);
    }
    jobs::nothing_left(&bed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_result_is_named_with_the_reason() {
    let bed = Bed::start(1).await;
    jobs::load(&bed, "docs", 40, 40).await;
    let validator = doc! { "$jsonSchema": { "properties": { "value": { "maximum": 30 } } } };
    bed.db().create_collection("valid").validator(validator).await.unwrap();
    let no_big = doc! { "$jsonSchema": { "properties": { "big": { "enum": [false] } } } };
    bed.db().create_collection("rows").validator(no_big).await.unwrap();
    bed.load("rows", (0..40).map(|n| doc! { "_id": n }).collect()).await;
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    let submit = async |map: &str, more: &[&str]| {
        let map = bed.file("map.js", map).display().to_string();
        let args = ["submit", "-q", "-c", "docs", "--map", &map];
        bed.aviary(&[&args[..], more].concat()).await
    };
    let id_of_39 = "function () { emit(this._id, this._id === 39 ? 39 : 1); }";
    for out in ["merge:valid", "replace:valid"] {
        let ran = submit(id_of_39, &["--reduce", "_sum", "--out", out]).await;
        assert_eq!(ran.code, 3, "{ran:#?}");
        has(&ran.stderr, &["test.valid does not take the result with the _id 39", "maximum"]);
        lacks(&ran.stderr, &["aviary-out"]);
        has(&ran.stderr, &["validator"]);
    }
    // What reduce makes of a result and what is there.
    bed.load("valid", vec![doc! { "_id": 5, "value": 30 }]).await;
    let one = "function () { emit(this._id, 1); }";
    let ran = submit(one, &["--reduce", "_sum", "--out", "reduce:valid"]).await;
    assert_eq!(ran.code, 3, "{ran:#?}");
    has(&ran.stderr, &["test.valid does not take the result with the _id 5", "maximum"]);
    has(&ran.stderr, &["nothing was changed in test.valid"]);
    has(&shown(&bed, "last").await, &["failed, nothing was changed in test.valid"]);
    assert_eq!(bed.all("valid").await.len(), 1);
    // What update sets is known to be refused only when it is.
    let big = "function () { emit(this._id, { big: this._id === 23 }); }";
    let ran = submit(big, &["--out", "update:rows"]).await;
    assert_eq!(ran.code, 9, "{ran:#?}");
    has(&ran.stderr, &["test.rows does not take the result with the _id 23", "enum"]);
    bed.aviary(&["cancel", "last"]).await.ok();
    // An index that the results would break when they take the target's place.
    strict(&bed, "unique").await;
    let twins = "function () { emit(this._id, { twin: 1 }); }";
    let ran = submit(twins, &["--out", "replace:unique"]).await;
    assert_eq!(ran.code, 3, "{ran:#?}");
    has(
        &ran.stderr,
        &["unique index of test.unique", "twin_1", "nothing was changed in test.unique"],
    );
    lacks(&ran.stderr, &["aviary-out"]);
    for out in ["replace:twice", "inline"] {
        for read in ["snapshot", "committed"] {
            let ran = submit(TWIN, &["--out", out, "--read", read]).await;
            assert_eq!(ran.code, 3, "{ran:#?}");
            has(&ran.stderr, &["same key", "_id: ", "did you forget --reduce?"]);
            lacks(&ran.stderr, &["aviary-out", "E11000"]);
        }
    }
    submit(TWIN, &["--out", "replace:twice", "--reduce", TWINS]).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_says_how_many_results_had_a_document() {
    let bed = Bed::start(1).await;
    jobs::load(&bed, "docs", 50, 50).await;
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    let map = bed.file("map.js", "function () { emit(this._id, 'x'); }").display().to_string();
    let submit =
        async |out: &str| bed.aviary(&["submit", "-c", "docs", "--map", &map, "--out", out]).await;
    let ran = submit("update:nowhere").await;
    assert_eq!(ran.code, 5, "{ran:#?}");
    has(&ran.stderr, &["collection test.nowhere not found", "--out-db"]);

    bed.load("others", vec![doc! { "_id": "a" }]).await;
    let ran = submit("update:others").await.ok();
    has(&ran.stderr, &["0 of 50 results had a document to update in test.others"]);
    bed.load("some", (40..60).map(|n| doc! { "_id": n, "kept": n }).collect()).await;
    let ran = submit("update:some").await.ok();
    has(&ran.stderr, &["10 of 50 results had a document to update in test.some"]);
    assert_eq!(status(&bed, "last").await["counters"]["updated"], 10);
    // A plain value sets the field `value`.
    let rows = bed.all("some").await;
    assert_eq!(rows[0], doc! { "_id": 40, "kept": 40, "value": "x" });
    assert_eq!(rows[19], doc! { "_id": 59, "kept": 59 });

    // Of other jobs there is nothing to say.
    let ran = submit("merge:sums").await.ok();
    lacks(&ran.stderr, &["had a document"]);
    assert!(status(&bed, "last").await["counters"].get("updated").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_does_not_move_says_why() {
    let bed = Bed::with(ReplicaSetOptions::default()).await;
    jobs::load(&bed, "docs", 40, 40).await;
    strict(&bed, "strict").await;
    let map = bed.file("map.js", "function () { emit(1, 1); }").display().to_string();
    // Nobody there.
    let args = ["submit", "-c", "docs", "--map", &map, "--reduce", "_sum"];
    let ran = bed.aviary(&[&args[..], &["--timeout", "5s"]].concat()).await;
    assert_eq!(ran.code, 7, "{ran:#?}");
    has(
        &ran.stderr,
        &[
            "waits for a coordinator",
            "no coordinator is running; start one with: aviary coordinator -d test",
        ],
    );
    lacks(&ran.stderr, &["still running"]);
    has(
        &shown(&bed, "last").await,
        &["no coordinator is running; start one with: aviary coordinator -d test"],
    );
    bed.aviary(&["cancel", "last"]).await.ok();

    let coordinator = bed.coordinator();
    let worker = bed.worker();
    let first = stopping(&bed, "strict").await;
    jobs::reaches(&bed, &first, &["stopped"]).await;
    let advice = format!("is stopped: aviary resume {first} or aviary cancel {first}");
    let second = stopping(&bed, "strict").await;
    comes_to_say(&bed, &second, &advice).await;
    let third = ["--out", "merge:strict", "--timeout", "20s"];
    let third = bed.aviary(&[&args[..], &third].concat()).await;
    assert_eq!(third.code, 7, "{third:#?}");
    has(&third.stderr, &["is publishing", &advice]);
    let told = third.stderr.lines().filter(|line| line.starts_with("waiting: ")).count();
    assert!(told >= 1, "it is told while it waits: {third:#?}");
    jobs::stop(&worker).await;
    // A resumed job does not wait for itself, though a worker met its task while it was stopped.
    bed.aviary(&["resume", &first]).await.ok();
    let aviary = bed.coll("aviary");
    let waiting = doc! { "why": format!("job {first} is stopped"), "since": bson::DateTime::now() };
    let task = doc! { "job": &first, "kind": "publish" };
    aviary.update_one(task, doc! { "$set": { "waiting": waiting } }).await.unwrap();
    lacks(&shown(&bed, &first).await, &["is stopped"]);
    for job in [&second, &first] {
        bed.aviary(&["cancel", job]).await.ok();
    }
    let worker = bed.worker();
    jobs::succeeded(&bed, status(&bed, "last").await["id"].as_str().unwrap()).await;
    jobs::stop(&worker).await;

    // All slots are taken by another job, whose worker then dies.
    let long = ("AVIARY_LEASE_TTL_MS", "600000");
    let holder = bed.pause("map.commit", |env| {
        bed.spawn("paused", &["worker", "--slots", "1"], &[env, &[long]].concat())
    });
    let held = jobs::submit(&bed, "docs", "replace:held", &[]).await;
    holder.arrived().await;
    let waits = jobs::submit(&bed, "docs", "replace:waits", &[]).await;
    comes_to_say(&bed, &waits, "the only slot of the only worker is busy").await;
    lacks(&shown(&bed, &held).await, &["busy"]);
    holder.process.kill().unwrap();
    comes_to_say(&bed, &held, "s ago; the lease runs out at").await;
    let row = doc! { "kind": "worker", "pid": i64::from(holder.process.pid()) };
    let ago = |s: i64| vec![doc! { "$set": { "seen": { "$subtract": ["$$NOW", s * 1_000] } } }];
    aviary.update_one(row.clone(), ago(0)).await.unwrap();
    let over = doc! { "$set": { "until": bson::DateTime::from_millis(0) } };
    let task = doc! { "job": &held, "state": "leased" };
    aviary.update_one(task, over).await.unwrap();
    comes_to_say(&bed, &held, "has run out; it waits for a free slot").await;

    // What is gone is busy no more, and is not listed for long.
    aviary.update_one(row.clone(), ago(60)).await.unwrap();
    let listed = bed.aviary(&["workers"]).await.ok().stdout;
    let gone = listed.lines().find(|line| line.contains("gone")).expect("a row");
    has(gone, &[" - "]);
    aviary.update_one(row, ago(1_200)).await.unwrap();
    lacks(&bed.aviary(&["workers"]).await.ok().stdout, &["gone"]);
    assert_eq!(bed.aviary(&["workers", "-o", "json"]).await.ok().json()[0]["state"], "gone");
    jobs::stop(&coordinator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_ends_while_the_database_is_away_says_so() {
    let bed = Bed::with(ReplicaSetOptions::default()).await;
    jobs::load(&bed, "docs", 4, 4).await;
    let map = bed.file("map.js", "function () { emit(1, 1); }").display().to_string();
    let args = ["submit", "-c", "docs", "--map", &map, "--reduce", "_sum", "--timeout", "15s"];
    let mut submit = tokio::process::Command::new(crate::common::AVIARY)
        .args(args)
        .envs(bed.env())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(submit.stderr.take().unwrap()).lines();
    // The last that it says before it waits.
    while !lines.next_line().await.unwrap().expect("a line").contains("no coordinator is running") {
    }
    let server = bed.set().member(0).unwrap();
    server.freeze().unwrap();
    let mut told = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        told.push_str(&line);
    }
    let ended = submit.wait().await.unwrap();
    server.thaw().unwrap();
    assert_eq!(ended.code(), Some(6), "{told}");
    has(&told, &["cannot reach the database since", "aviary status -w"]);
    lacks(&told, &["still running"]);
}

#[tokio::test]
async fn mistakes_on_the_command_line_name_the_way_out() {
    let nothing: [(String, String); 0] = [];
    let ran = run(&["submit", "-c", "docs"], &nothing).await;
    assert_eq!(ran.code, 2, "{ran:#?}");
    has(&ran.stderr, &["--map", "--module", "--command"]);
    for flag in ["--timeout", "--record-timeout", "--task-timeout"] {
        let ran = run(&["submit", "-c", "docs", "--map", "f", flag, "10"], &nothing).await;
        assert_eq!(ran.code, 2, "{ran:#?}");
        has(&ran.stderr, &["10s"]);
    }
    let scope = ["submit", "-c", "docs", "--map", "f", "--scope", "{v: {$gt 5}}"];
    let ran = run(&scope, &nothing).await;
    assert_eq!(ran.code, 2, "{ran:#?}");
    has(&ran.stderr, &[r#"'{"v": {"$gt": 5}}'"#]);
    lacks(&run(&["rm", "--help"], &nothing).await.ok().stdout, &["last"]);
    has(&run(&["down", "--help"], &nothing).await.ok().words(), &["go whole"]);
    has(&run(&["--help"], &nothing).await.ok().stdout, &["9 job stopped"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inline_result_is_where_its_job_says() {
    let bed = Bed::start(1).await;
    jobs::load(&bed, "docs", 4, 4).await;
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    let id = jobs::submit(&bed, "docs", "inline", &[]).await;
    jobs::succeeded(&bed, &id).await;
    let shown = shown(&bed, &id).await;
    has(&shown, &[&format!("kept, 4 results: aviary results {id}")]);
    lacks(&shown, &["in place"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_learns_what_a_database_can_do_that_is_set_up_after_it_started() {
    let bed = Bed::with(ReplicaSetOptions::default()).await;
    let _worker = bed.spawn("worker", &["worker", "-d", "later"], &[]);
    let told = async || {
        let rows = bed.aviary(&["workers", "-d", "later", "-o", "json"]).await.ok().json();
        rows.first().map(|row| row["can"].clone())
    };
    wait_for("the worker", async || told().await.filter(|can| can["link"] == "none")).await;
    bed.aviary(&["init", "-d", "later"]).await.ok();
    wait_for("what it learned", async || told().await.filter(|can| can["snapshots"] == true)).await;
}
