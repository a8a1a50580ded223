//! What functions print reaches `aviary logs`, within limits, and goes with the job.

use std::collections::BTreeSet;

use crate::common::{Bed, LEASE_TTL_MS, wait_for};
use bson::doc;
use serde_json::Value;

async fn bed(documents: i32) -> Bed {
    let bed = Bed::start(1).await.in_parts();
    bed.load("docs", (0..documents).map(|n| doc! { "_id": n }).collect()).await;
    bed
}

/// Submits and waits; returns the job's id.
async fn submit(bed: &Bed, map: &str, more: &[&str]) -> String {
    let map = bed.file("map.js", map).display().to_string();
    let mut args = vec!["submit", "--quiet", "-o", "name", "-c", "docs", "--map", &map];
    args.extend(more);
    bed.aviary(&args).await.ok().stdout.trim().to_owned()
}

async fn logs(bed: &Bed, job: &str, more: &[&str]) -> Vec<Value> {
    bed.aviary(&[&["logs", job, "-o", "json"], more].concat()).await.ok().json()
}

fn texts(lines: &[Value]) -> Vec<&str> {
    lines.iter().filter_map(|line| line["text"].as_str()).collect()
}

async fn log_documents(bed: &Bed) -> u64 {
    bed.coll("aviary").count_documents(doc! { "kind": "log" }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_functions_log_is_shown_with_task_attempt_stage_and_level() {
    let bed = bed(3).await;
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    let reduce = bed.file(
        "reduce.js",
        "function (key, values) { console.warn('reducing ' + key); return Array.sum(values); }",
    );
    let finalize = bed.file(
        "finalize.js",
        "function (key, value) { console.error('total', value); count('finalized'); return value; }",
    );
    // By standard output, in two writes of one line.
    let printing = bed.file(
        "combine.wat",
        r#"(module
            (import "aviary" "emit" (func $emit (param i32 i32 i32 i32)))
            (import "wasi_snapshot_preview1" "fd_write"
                (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 20)
            (data (i32.const 0) "\08\00\00\00\06\00\00\00by std")
            (data (i32.const 32) "\28\00\00\00\04\00\00\00out\0a")
            (data (i32.const 64) "\02\04\00\00\00sum\00")
            (data (i32.const 80) "\10\03\00\00\00")
            (func (export "aviary_abi_v1"))
            (func (export "aviary_alloc") (param i32) (result i32) (i32.const 65536))
            (func (export "combine") (param i32 i32)
                (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 128)))
                (drop (call $fd_write (i32.const 1) (i32.const 32) (i32.const 1) (i32.const 128)))
                (call $emit (i32.const 64) (i32.const 9) (i32.const 80) (i32.const 5))))"#,
    );
    let job = submit(
        &bed,
        "function () { print('document', this._id); count('printed'); emit('sum', 1); }",
        &[
            "--reduce",
            reduce.to_str().unwrap(),
            "--combine",
            printing.to_str().unwrap(),
            "--finalize",
            finalize.to_str().unwrap(),
            // So that one task maps everything.
            "--sort",
            "{\"_id\": 1}",
            "--limit",
            "3",
        ],
    )
    .await;
    let lines = logs(&bed, &job, &[]).await;
    let found: Vec<String> = lines
        .iter()
        .map(|line| {
            format!("{} {} {}", line["stage"], line["level"], line["text"]).replace('"', "")
        })
        .collect();
    assert_eq!(
        found,
        [
            "map info document 0",
            "map info document 1",
            "map info document 2",
            "combine info by stdout",
            "reduce warn reducing sum",
            "finalize error total 3",
        ],
        "{lines:#?}"
    );
    for line in &lines {
        assert_eq!(line["attempt"], 1, "{line}");
        assert!(line["at"].as_str().unwrap().starts_with("20"), "{line}");
        assert!(line["worker"].is_string(), "{line}");
    }
    let map_task = lines[0]["task"].as_str().unwrap().strip_prefix(&format!("{job}/")).unwrap();
    let of_map = logs(&bed, &job, &["--task", map_task]).await;
    assert_eq!(of_map, lines[..4]);
    let ran = bed.aviary(&["logs", "last", "--task", "map/9.99999"]).await;
    assert_eq!(ran.code, 5, "{ran:?}");
    // For people, and for pipes.
    let table = bed.aviary(&["logs", "last"]).await.ok().stdout;
    assert!(table.contains(&format!("{map_task} #1 map info: document 2\n")), "{table}");
    let names = bed.aviary(&["logs", "last", "-o", "name"]).await.ok().stdout;
    assert_eq!(names.lines().count(), 6, "{names}");
    // The functions' counters.
    let counters = bed.aviary(&["counters", &job, "-o", "json"]).await.ok().json().remove(0);
    assert_eq!(
        (&counters["printed"], &counters["finalized"]),
        (&3.into(), &1.into()),
        "{counters}"
    );
    // Beside their task, and gone with the job.
    let row = bed.coll("aviary").find_one(doc! { "kind": "log" }).await.unwrap().unwrap();
    let task = doc! { "_id": row.get_str("task").unwrap() };
    let task = bed.coll("aviary").find_one(task).await.unwrap().unwrap();
    assert_eq!(row.get_str("shard").unwrap(), task.get_str("shard").unwrap());
    assert!(log_documents(&bed).await > 0);
    bed.aviary(&["rm", &job]).await.ok();
    assert_eq!(log_documents(&bed).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_lines_are_counted_and_few_of_them_kept() {
    const LINES: u64 = 1_000_000;
    let bed = bed(10).await;
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    let one_task = ["--sort", "{\"_id\": 1}", "--limit", "10"];
    let map = "function () { for (let i = 0; i < 100000; i++) print('line', this._id, i); emit(this._id, {}); }";
    let job = submit(&bed, map, &one_task).await;
    let lines = logs(&bed, &job, &[]).await;
    let kept = texts(&lines).len() as u64;
    assert_eq!(kept, 1_000, "the first of them");
    assert_eq!(lines[999]["text"], "line 0 999");
    let dropped: u64 = lines.iter().filter_map(|line| line["dropped"].as_u64()).sum();
    assert_eq!(kept + dropped, LINES);
    let table = bed.aviary(&["logs", &job]).await.ok().stdout;
    assert!(
        table.contains("(999000 more lines were dropped)"),
        "{}",
        table.lines().last().unwrap()
    );
    // Long lines are limited by their bytes.
    let map = "function () { print('x'.repeat(5000)); emit(this._id, {}); }";
    let job = submit(&bed, map, &[&one_task[..], &["--log-bytes", "12000"]].concat()).await;
    let lines = logs(&bed, &job, &[]).await;
    assert_eq!((texts(&lines).len(), &lines[2]["dropped"]), (2, &8.into()), "{lines:?}");
    let job = submit(&bed, map, &[&one_task[..], &["--log-bytes", "0"]].concat()).await;
    assert_eq!(logs(&bed, &job, &[]).await[0]["dropped"], 10);
    // Counters are limited by their names.
    let map = "function () { for (let i = 0; i < 300; i++) count('c' + (1000 + i)); emit(this._id, {}); }";
    let job = submit(&bed, map, &one_task).await;
    let counters = bed.aviary(&["counters", &job, "-o", "json"]).await.ok().json().remove(0);
    let own = counters.as_object().unwrap().iter().filter(|(name, _)| name.starts_with("c1"));
    assert_eq!(own.clone().count(), 256);
    assert!(own.clone().all(|(_, value)| *value == 10), "{counters}");
    let lines = logs(&bed, &job, &[]).await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0]["text"].as_str().unwrap().starts_with("counter c1256 is not kept"),
        "{lines:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_every_attempt_are_kept_apart_and_those_of_a_running_one_are_seen() {
    let bed = bed(5).await;
    let _coordinator = bed.coordinator();
    let doomed = bed.halting_worker("map.commit");
    let map = bed.file("map.js", "function () { print('saw', this._id); emit(this._id, {}); }");
    let args = [
        "submit",
        "--detach",
        "-c",
        "docs",
        "--map",
        map.to_str().unwrap(),
        "--sort",
        "{\"_id\": 1}",
        "--limit",
        "5",
    ];
    let job = bed.aviary(&args).await.ok().stdout.trim().to_owned();
    // The lines of an attempt that has not ended, and never will.
    wait_for("lines of the running attempt", async || {
        let lines = logs(&bed, &job, &[]).await;
        (texts(&lines).len() == 5).then_some(())
    })
    .await;
    let follower = tokio::spawn({
        let (env, job) = (bed.env(), job.clone());
        async move { crate::common::run(&["logs", &job, "--follow", "-o", "json"], &env).await }
    });
    drop(doomed);
    let _worker = bed.worker();
    bed.aviary(&["status", "-w", &job]).await.ok();
    let lines = logs(&bed, &job, &[]).await;
    let attempts: BTreeSet<i64> =
        lines.iter().filter_map(|line| line["attempt"].as_i64()).collect();
    assert!(attempts.len() == 2, "{attempts:?} after a lease of {LEASE_TTL_MS} ms: {lines:?}");
    for attempt in attempts {
        let of_this: Vec<Value> =
            lines.iter().filter(|line| line["attempt"] == attempt).cloned().collect();
        assert_eq!(texts(&of_this), ["saw 0", "saw 1", "saw 2", "saw 3", "saw 4"]);
    }
    // Who followed has seen all of them and no line twice.
    let followed = follower.await.unwrap().ok().json();
    assert_eq!(followed, lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_prints_what_every_stage_logs() {
    let bed = bed(4).await;
    let map = bed.file("map.js", "function () { print('mapping'); emit(1, 1); }");
    let reduce =
        bed.file("reduce.js", "function (k, v) { print('reducing'); return Array.sum(v); }");
    let args = [
        "try",
        "--quiet",
        "-c",
        "docs",
        "--map",
        map.to_str().unwrap(),
        "--reduce",
        reduce.to_str().unwrap(),
    ];
    let ran = bed.aviary(&args).await.ok();
    assert_eq!(ran.stderr, "mapping\nmapping\nmapping\nmapping\nreducing\n");
    assert_eq!(ran.stdout.lines().count(), 1, "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn submit_shows_what_a_jobs_functions_warn_of() {
    let bed = bed(4).await;
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    let submit = async |map: &str, more: &[&str]| {
        let args = ["submit", "-c", "docs", "--map", map, "--reduce", "function (k, v) { }"];
        bed.aviary(&[&args[..], more].concat()).await
    };
    let ran = submit("function () { emit(1, new Map()); emit(1, 2); }", &[]).await.ok();
    for words in ["warning: map: a Map was written as {}", "warning: reduce: reduce has returned"] {
        assert_eq!(ran.stderr.matches(words).count(), 1, "{words:?} is not there once: {ran:#?}");
    }
    let ran = submit("function () { emit(1, new Map()); emit(1, 2); }", &["--quiet"]).await.ok();
    assert!(!ran.stderr.contains("warning"), "{ran:#?}");
    // Also where the job fails, and of many only some.
    let map = "function () { for (var n = 0; n < 9; n++) console.warn('n' + n); nothing(); }";
    let ran = submit(map, &[]).await;
    assert_ne!(ran.code, 0);
    assert_eq!(ran.stderr.matches("warning: map: n").count(), 5, "{ran:#?}");
    assert!(ran.stderr.contains("warning: there are more"), "{ran:#?}");
    // A query that matches nothing is no error, and is told.
    let map = "function () { emit(1, 1); }";
    let ran = submit(map, &["--query", "{no: 1}", "--out", "replace:none"]).await.ok();
    let told = "no document of test.docs matched, so the target is empty now";
    assert!(ran.stderr.contains(told), "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_counters_of_a_job_are_limited_over_its_tasks() {
    let bed = bed(3_000).await;
    let _coordinator =
        bed.spawn("coordinator", &["coordinator"], &[("AVIARY_SPLIT_BYTES", "6000")]);
    let _worker = bed.worker();
    let map = "function () { count('c' + this._id); emit(this._id, {}); }";
    let job = submit(&bed, map, &[]).await;
    let counters = bed.aviary(&["counters", &job, "-o", "json"]).await.ok().json().remove(0);
    let counters = counters.as_object().unwrap();
    let own = counters.keys().filter(|name| name.starts_with('c')).count();
    assert!((990..=1_000).contains(&own), "{own}: {counters:?}");
    assert_eq!(counters["input"], 3_000);
    assert_eq!(counters["output"], 3_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_come_back_after_their_job_was_removed_are_swept() {
    let bed = bed(1).await;
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    let kept = submit(&bed, "function () { print('kept'); emit(this._id, {}); }", &[]).await;
    // What an attempt that was frozen would write.
    let mut row = bed.coll("aviary").find_one(doc! { "kind": "log" }).await.unwrap().unwrap();
    let gone = "0123456789abcdef01234567";
    row.insert("_id", row.get_str("_id").unwrap().replace(&kept, gone));
    row.insert("job", gone);
    bed.coll("aviary").insert_one(row).await.unwrap();
    wait_for("the sweep", async || {
        let lost = doc! { "kind": "log", "job": gone };
        let left = bed.coll("aviary").count_documents(lost).await.unwrap();
        (left == 0).then_some(())
    })
    .await;
    let lines = logs(&bed, &kept, &[]).await;
    assert_eq!(texts(&lines), ["kept"]);
}
