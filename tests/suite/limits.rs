//! Each limit of the sandbox ends a job with one error that names the function, the stage and the record.

use crate::common::{Bed, Ran};
use bson::doc;

async fn bed(documents: i32) -> Bed {
    let bed = Bed::start(1).await;
    bed.load("docs", (0..documents).map(|n| doc! { "_id": n }).collect()).await;
    bed
}

async fn submit(bed: &Bed, map: &str, more: &[&str]) -> Ran {
    let map = bed.file("map.js", map).display().to_string();
    let mut args = vec!["submit", "--quiet", "-c", "docs", "--map", &map];
    args.extend(more);
    bed.aviary(&args).await
}

/// Checks that a job ended as failed for what a function did, here and in its document.
async fn breaks(bed: &Bed, map: &str, more: &[&str], code: &str, words: &[&str]) {
    let ran = submit(bed, map, more).await;
    assert_eq!(ran.code, 3, "{ran:#?}");
    let job = bed.aviary(&["status", "last", "-o", "json"]).await.ok().json().remove(0);
    assert_eq!(job["state"], "failed", "{job}");
    assert_eq!(job["error"]["code"], code, "{job}");
    let message = job["error"]["message"].as_str().unwrap();
    for word in words {
        assert!(ran.stderr.contains(word), "{word:?} is missing: {ran:#?}");
        assert!(message.contains(word), "{word:?} is missing: {message}");
    }
    assert_eq!(ran.stderr.matches("error: ").count(), 1, "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_a_task_is_limited_whatever_its_records_take() {
    let bed = bed(20_000).await;
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    // One record that would have longer, if its task had.
    breaks(
        &bed,
        "function () { if (this._id === 0) while (true); }",
        &["--limit", "1", "--task-timeout", "1s", "--record-timeout", "1h"],
        "task_timeout",
        &[
            "map of map.js used up its task's time on the document with _id 0",
            "1000 ms",
            "--task-timeout",
        ],
    )
    .await;
    // Many records, none of which takes long: all of them together would take hours.
    breaks(
        &bed,
        "function () { let x = 0; for (let i = 0; i < 3e6; i++) x += i; emit(x, 1); }",
        &["--reduce", "_sum", "--task-timeout", "1s"],
        "task_timeout",
        &["map of map.js used up its task's time on the document with _id", "1000 ms"],
    )
    .await;
    // A reduce; the map has the same time and needs next to none of it.
    let reduce =
        "({ begin(key) { this.key = key; }, next(v) { while (this.key === 2); }, end() {} })";
    let reduce = bed.file("reduce.js", reduce).display().to_string();
    breaks(
        &bed,
        "function () { emit(this._id % 4, 1); }",
        &["--reduce", &reduce, "--limit", "8", "--task-timeout", "8s", "--record-timeout", "1h"],
        "task_timeout",
        &["reduce of reduce.js used up its task's time on the key 2", "8000 ms"],
    )
    .await;
    // A task that needs no more than it has is left alone.
    submit(&bed, "function () { emit(1, 1); }", &["--reduce", "_sum", "--task-timeout", "1h"])
        .await
        .ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_record_emits_is_limited_by_record() {
    let bed = bed(300).await;
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    let hundred = "const text = 'x'.repeat(100e3);";
    // Each document emits less than the limit, all of them far more.
    let each =
        format!("function () {{ {hundred} for (let i = 0; i < 5; i++) emit(this._id, text); }}");
    submit(&bed, &each, &["--reduce", "_count", "--record-output", "600000"]).await.ok();
    // So do many that come suddenly, after calls have become large: no call may hold all they emit.
    bed.load("later", (0..6_000).map(|n| doc! { "_id": n }).collect()).await;
    let sudden = format!(
        "function () {{ {hundred} for (let i = 0; i < (this._id < 5900 ? 0 : 5); i++) emit(this._id, text); }}"
    );
    let sudden = bed.file("sudden.js", &sudden).display().to_string();
    let args = [
        "submit",
        "--quiet",
        "-c",
        "later",
        "--map",
        &sudden,
        "--reduce",
        "_count",
        "--record-output",
        "600000",
    ];
    assert_eq!(bed.aviary(&args).await.ok().stdout.lines().count(), 100);
    // One of them emits more, among others of a call.
    let one = format!(
        "function () {{ {hundred} for (let i = 0; i < (this._id === 137 ? 7 : 1); i++) emit(this._id, text); }}"
    );
    let expected = [
        "map of map.js emitted too much on the document with _id 137",
        "600000 bytes",
        "--record-output",
    ];
    let limit = ["--reduce", "_count", "--record-output", "600000"];
    breaks(&bed, &one, &limit, "function", &expected).await;
    // So little over it that its call as a whole is below what its records may emit together.
    let little = "function () { for (let i = 0; i < (this._id === 137 ? 9 : 1); i++) emit(this._id, 'x'.repeat(100)); }";
    let expected = ["emitted too much on the document with _id 137", "900 bytes"];
    let limit = ["--reduce", "_count", "--record-output", "900"];
    breaks(&bed, little, &limit, "function", &expected).await;
    // Without end.
    let endless = "function () { while (this._id === 5) emit(1, 'x'); }";
    let expected = ["emitted too much on the document with _id 5", "100000 bytes"];
    let limit = ["--reduce", "_count", "--record-output", "100000"];
    breaks(&bed, endless, &limit, "function", &expected).await;
    // A key's result counts as well.
    let reduce =
        bed.file("reduce.js", "function (key, values) { return key === 3 ? 'x'.repeat(5e3) : 0; }");
    let reduce = reduce.display().to_string();
    let expected = ["reduce of reduce.js emitted too much on the key 3", "4000 bytes"];
    let map = "function () { emit(this._id % 7, 1); }";
    breaks(&bed, map, &["--reduce", &reduce, "--record-output", "4000"], "function", &expected)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_and_time_of_a_record_name_function_and_record() {
    let bed = bed(50).await;
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    breaks(
        &bed,
        "function () { const a = []; while (this._id === 31) a.push('x'.repeat(1e6) + a.length); }",
        &["--memory-mb", "24"],
        "function",
        &["map of map.js ran out of memory on the document with _id 31", "24 MiB", "--memory-mb"],
    )
    .await;
    breaks(
        &bed,
        "function () { while (this._id === 32); }",
        &["--record-timeout", "2s"],
        "function",
        &[
            "map of map.js ran out of time on the document with _id 32",
            "2000 ms",
            "--record-timeout",
        ],
    )
    .await;
}

/// A job's memory is what its functions are tried with.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_may_have_more_memory_wherever_its_functions_run() {
    let bed = bed(4).await;
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    // It takes 200 MiB as soon as it is loaded.
    let large = "const much = Array.from({length: 200}, () => new Uint8Array(1 << 20)); \
                 function map() { emit(this._id, much.length); }";
    let small = submit(&bed, large, &["--reduce", "_sum", "--memory-mb", "128"]).await;
    assert_eq!(small.code, 8, "{small:#?}");
    submit(&bed, large, &["--reduce", "_sum", "--memory-mb", "256"]).await.ok();
    let path = bed.file("large.js", large);
    bed.aviary(&["insert", path.to_str().unwrap()]).await.ok();
    // The publisher runs the reduce once more.
    let more = ["--reduce", "_sum", "--out", "reduce:totals", "--memory-mb", "512"];
    submit(&bed, "function () { emit(1, 1); }", &more).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_leaves_a_job_to_others_that_asks_for_more_memory_than_it_gives() {
    let bed = bed(10).await;
    let _coordinator = bed.coordinator();
    let small = ["worker", "--memory-mb", "64"];
    // On a cluster it serves every shard, through the router.
    let worker = bed.spawn("worker", &small, &[]);
    let map = "function () { emit(1, 1); }";
    bed.known(&worker).await;
    let file = bed.file("map.js", map).display().to_string();
    let mut args = vec!["submit", "-c", "docs", "--map", &file, "--reduce", "_sum", "--detach"];
    args.extend(["--out", "reduce:waited", "--memory-mb", "65"]);
    let submitted = bed.aviary(&args).await.ok();
    let words = ["no worker gives", "65 MiB", "64 MiB at most", "--memory-mb 65"];
    for word in words {
        assert!(submitted.stderr.contains(word), "{word:?} is missing: {submitted:#?}");
    }
    let id = submitted.stdout.trim().to_owned();
    // It says what it waits for, and hinders nobody.
    crate::common::wait_for("the reason", || async {
        let status = bed.aviary(&["status", &id]).await.ok();
        let told = ["asks for 65 MiB", "gives 64 MiB at most", "--memory-mb 65", "--memory-mb 64"];
        told.iter().all(|word| status.words().contains(word)).then_some(())
    })
    .await;
    submit(&bed, map, &["--reduce", "_sum", "--memory-mb", "64"]).await.ok();
    let status = bed.aviary(&["status", &id, "-o", "json"]).await.ok();
    assert_eq!(status.json()[0]["state"], "mapping", "{status:#?}");
    let _capable = bed.spawn("worker", &["worker", "--memory-mb", "128"], &[]);
    bed.aviary(&["status", "-w", &id]).await.ok();
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_cannot_be_meant_are_usage_errors() {
    let bed = bed(3).await;
    let map = bed.file("map.js", "function () { emit(1, 1); }").display().to_string();
    let cases: [(&[&str], &str); 7] = [
        (&["--memory-mb", "0"], "above 0"),
        (&["--memory-mb", "5000"], "4096 MiB"),
        (&["--record-timeout", "0s"], "above 0"),
        (&["--task-timeout", "0s"], "above 0"),
        (&["--task-timeout", "soon"], "--task-timeout"),
        (&["--record-output", "0"], "above 0"),
        (&["--log-bytes", "9000000"], "--log-bytes 9000000 is more than"),
    ];
    for verb in ["submit", "try"] {
        for (more, word) in cases {
            let args = [&[verb, "-c", "docs", "--map", &map], more].concat();
            let ran = bed.aviary(&args).await;
            assert_eq!(ran.code, 2, "{ran:#?}");
            assert!(ran.stderr.contains(word), "{word}: {ran:#?}");
        }
    }
    let ran = bed.aviary(&["worker", "--memory-mb", "5000"]).await;
    assert_eq!(ran.code, 2, "{ran:#?}");
    assert!(ran.stderr.contains("4096"), "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_keeps_the_same_limits() {
    let bed = bed(100).await;
    let tries = async |map: &str, more: &[&str]| {
        let map = bed.file("map.js", map).display().to_string();
        bed.aviary(&[&["try", "--quiet", "-c", "docs", "--map", &map], more].concat()).await
    };
    let cases: [(&str, &[&str], &str); 3] = [
        (
            "function () { while (this._id >= 0); }",
            &["--task-timeout", "500ms"],
            "map of map.js used up its task's time on the document with _id",
        ),
        (
            "function () { if (this._id === 7) for (;;) emit(1, 'x'); }",
            &["--record-output", "1000", "--reduce", "_count"],
            "map of map.js emitted too much on the document with _id 7",
        ),
        (
            "function () { while (this._id === 8); }",
            &["--record-timeout", "500ms"],
            "map of map.js ran out of time on the document with _id 8",
        ),
    ];
    for (map, more, words) in cases {
        let ran = tries(map, more).await;
        assert_eq!(ran.code, 3, "{ran:#?}");
        assert!(ran.stderr.contains(words), "{words}: {ran:#?}");
    }
    // More memory than a worker gives by default.
    let much = "function () { const a = []; for (let i = 0; i < 12; i++) a.push(new Uint8Array(100e6)); emit(1, a.length); }";
    let ran = tries(much, &["--sample", "1", "--memory-mb", "1500"]).await.ok();
    assert_eq!(ran.json()[0]["value"], 12.0, "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_combine_that_makes_more_of_its_values_does_not_fill_the_worker() {
    let bed = bed(40).await;
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    // Emits 100,000 bytes so many times.
    let combine = |times: &str| {
        format!(
            r#"(module
                (import "aviary" "emit" (func $emit (param i32 i32 i32 i32)))
                (memory (export "memory") 4)
                (data (i32.const 0) "\10\07\00\00\00")
                (data (i32.const 8) "\05\a0\86\01\00\00")
                (func (export "aviary_abi_v1"))
                (func (export "aviary_alloc") (param i32) (result i32) (i32.const 131072))
                (func (export "combine") (param i32 i32) (local $i i32)
                    (loop $again
                        (call $emit (i32.const 0) (i32.const 5) (i32.const 8) (i32.const 100006))
                        (local.set $i (i32.add (local.get $i) (i32.const 1)))
                        (br_if $again {times}))))"#
        )
    };
    let reduce = bed.file("reduce.js", "function (key, values) { return values.length; }");
    let reduce = reduce.display().to_string();
    let map = "function () { emit(this._id % 10, 1); }";
    let endless = bed.file("endless.wat", &combine("(i32.const 1)")).display().to_string();
    breaks(
        &bed,
        map,
        &["--reduce", &reduce, "--combine", &endless, "--record-output", "1000000"],
        "function",
        &["combine of endless.wat emitted too much on the key 0", "1000000 bytes"],
    )
    .await;
    // Less for each key than a record may, and all together more than a task takes.
    let much = combine("(i32.lt_u (local.get $i) (i32.const 600))");
    let much = bed.file("much.wat", &much).display().to_string();
    breaks(
        &bed,
        map,
        &["--reduce", &reduce, "--combine", &much],
        "refused",
        &["combine has made more of a map task's values than they were", "--no-combine"],
    )
    .await;
}
