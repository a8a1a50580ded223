//! A reduce that streams sees every value of a key in order, however many there are, and what is combined
//! is what the job says.

use crate::common::{AVIARY, Bed, Ran};
use bson::{Bson, Document, doc};

/// Several map tasks of little data.
const SMALL_SPLITS: [(&str, &str); 1] = [("AVIARY_SPLIT_BYTES", "20000")];

/// A list of the values of a key.
const LIST: &str = "({ begin(key) { this.all = []; }, next(v) { this.all.push(v); }, end() { return { all: this.all }; } })";

struct Functions {
    map: String,
    reduce: String,
}

fn functions(bed: &Bed, map: &str, reduce: &str) -> Functions {
    let path = |name, text| bed.file(name, text).display().to_string();
    Functions { map: path("map.js", map), reduce: path("reduce.js", reduce) }
}

async fn submit(bed: &Bed, functions: &Functions, more: &[&str]) -> Ran {
    let mut args = vec![
        "submit",
        "--quiet",
        "-c",
        "docs",
        "--map",
        &functions.map,
        "--reduce",
        &functions.reduce,
    ];
    args.extend(more);
    bed.aviary(&args).await
}

/// A counter of a number's type, whatever that is.
fn number(value: &Bson) -> i64 {
    match value {
        Bson::Int32(n) => i64::from(*n),
        Bson::Int64(n) => *n,
        #[expect(clippy::cast_possible_truncation, reason = "whole numbers of a test")]
        Bson::Double(n) => *n as i64,
        other => panic!("{other:?} is no number"),
    }
}

/// What the map tasks of the youngest job have put into the shuffle.
async fn shuffled(bed: &Bed) -> i64 {
    let mut tasks = bed.coll("aviary").find(doc! { "kind": "map", "state": "done" }).await.unwrap();
    let mut records = 0;
    while tasks.advance().await.unwrap() {
        let task = tasks.deserialize_current().unwrap();
        for part in task.get_document("result").unwrap().get_array("parts").unwrap() {
            records += number(part.as_document().unwrap().get("records").unwrap());
        }
    }
    records
}

#[tokio::test(flavor = "multi_thread")]
async fn values_come_in_the_order_of_tasks_and_of_emission_and_are_not_combined() {
    let bed = Bed::start(1).await;
    let pad = "x".repeat(100);
    bed.load("docs", (0..3_000).map(|n| doc! { "_id": n, "pad": &pad }).collect()).await;
    let _coordinator = bed.spawn("coordinator", &["coordinator"], &SMALL_SPLITS);
    let _worker = bed.worker();
    let map = "function () { for (let i = 0; i < 2; i++) emit(this._id % 3, this._id * 2 + i); }";
    let functions = functions(&bed, map, LIST);
    let ran = submit(&bed, &functions, &["--out", "replace:lists", "-o", "json"]).await.ok();
    let job = &ran.json()[0];
    assert!(job["phases"]["map"]["total"].as_u64().unwrap() > 3, "several tasks: {job}");
    assert_eq!(shuffled(&bed).await, 6_000, "every value as it was emitted");
    let lists = bed.all("lists").await;
    assert_eq!(lists.len(), 3);
    for list in lists {
        let key = number(list.get("_id").unwrap());
        let all = list.get_document("value").unwrap().get_array("all").unwrap();
        let found: Vec<i64> = all.iter().map(number).collect();
        let expected: Vec<i64> =
            (0..3_000).filter(|n| n % 3 == key).flat_map(|n| [n * 2, n * 2 + 1]).collect();
        assert_eq!(found, expected, "key {key}");
    }
    // The same in one process.
    let args =
        ["try", "-c", "docs", "--map", &functions.map, "--reduce", &functions.reduce, "--quiet"];
    let tried = bed.aviary(&args).await.ok().json();
    assert_eq!(tried.len(), 3);
    assert!(tried[0]["value"]["all"].as_array().unwrap().len() > 100, "{}", tried[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_combine_that_is_given_shrinks_what_the_reduce_streams() {
    let bed = Bed::start(1).await.in_parts();
    bed.load("docs", (0..1_000).map(|n| doc! { "_id": n }).collect()).await;
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    let functions = functions(
        &bed,
        "function () { emit(this._id % 2, { n: 1 }); }",
        "let n, parts;\nfunction reduce_begin(key) { n = 0; parts = 0; }\n\
         function reduce_next(v) { n += v.n; parts++; }\n\
         function reduce_end() { return { n: n, parts: parts }; }",
    );
    let combine = bed.file(
        "combine.js",
        "function (key, values) { return { n: values.reduce((n, v) => n + v.n, 0) }; }",
    );
    let combine = combine.display().to_string();
    let finalize = bed
        .file("finalize.js", "function (key, v) { return { n: v.n, parts: v.parts, of: key }; }");
    let finalize = finalize.display().to_string();
    let more = ["--combine", &combine, "--finalize", &finalize, "--out", "replace:sums"];
    submit(&bed, &functions, &more).await.ok();
    let records = shuffled(&bed).await;
    assert!((2..100).contains(&records), "{records}");
    let mut parts = 0;
    for sum in bed.all("sums").await {
        let value = sum.get_document("value").unwrap();
        assert_eq!(number(value.get("n").unwrap()), 500, "{sum}");
        assert_eq!(number(value.get("of").unwrap()), number(sum.get("_id").unwrap()), "{sum}");
        parts += number(value.get("parts").unwrap());
    }
    assert_eq!(parts, records);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_combine_the_reduce_runs_once_a_key_and_need_not_be_associative() {
    let bed = Bed::start(1).await;
    // Some 5 MB of values of one key, which no call takes at once.
    bed.load("docs", (0..100).map(|n| doc! { "_id": n }).collect()).await;
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    let functions = functions(
        &bed,
        // So many that the table spills again and again: 4,000,000 bytes a document.
        "function () { for (let i = 0; i < 1000; i++) emit('k', { s: this._id, n: 1, pad: 'xxxxxxxxxxxx' + i }); }",
        "function (key, values) { let s = 0, n = 0; for (const v of values) { s += v.s; n += v.n; } return s / n; }",
    );
    let combine = bed.file(
        "combine.js",
        "function (key, values) { let s = 0, n = 0; for (const v of values) { s += v.s; n += v.n; } return { s: s, n: n }; }",
    );
    let combine = combine.display().to_string();
    let ran = submit(&bed, &functions, &["--combine", &combine]).await.ok();
    assert_eq!(ran.json()[0]["value"].as_f64(), Some(49.5), "{ran:?}");
    // In one process too.
    let args = [
        "try",
        "-c",
        "docs",
        "--map",
        &functions.map,
        "--reduce",
        &functions.reduce,
        "--combine",
        &combine,
        "--quiet",
    ];
    assert_eq!(bed.aviary(&args).await.ok().json()[0]["value"].as_f64(), Some(49.5));
    // A built-in has no use for one.
    let args = [
        "submit",
        "-c",
        "docs",
        "--map",
        &functions.map,
        "--reduce",
        "_sum",
        "--combine",
        &combine,
    ];
    let ran = bed.aviary(&args).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("leave --combine out"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_combine_gives_a_plain_reduce_all_values_of_a_key_at_once() {
    let bed = Bed::start(1).await;
    let pad = "x".repeat(1_000);
    bed.load("docs", (0..5_000).map(|n| doc! { "_id": n, "pad": &pad }).collect()).await;
    let _coordinator =
        bed.spawn("coordinator", &["coordinator"], &[("AVIARY_SPLIT_BYTES", "1000000")]);
    let _worker = bed.worker();
    let functions = functions(
        &bed,
        // 5 MB of values of one key: more than a call takes as a rule.
        "function () { emit(0, this); }",
        "function (key, values) { return { calls: 1, values: values.length }; }",
    );
    let ran = submit(&bed, &functions, &["--no-combine"]).await.ok();
    assert_eq!(ran.json()[0]["value"]["values"].as_f64(), Some(5_000.0), "{ran:?}");
    // More than one call can take is refused with the key, and with what to do.
    let pad = "x".repeat(8 << 20);
    bed.load("docs", (0..5).map(|n| doc! { "_id": format!("big{n}"), "pad": &pad }).collect())
        .await;
    let ran = submit(&bed, &functions, &["--no-combine"]).await;
    assert_eq!(ran.code, 3, "{ran:?}");
    for word in ["the key 0", "--no-combine", "streams"] {
        assert!(ran.stderr.contains(word), "{word}: {ran:?}");
    }
    let args =
        ["submit", "-c", "docs", "--map", &functions.map, "--reduce", "_sum", "--no-combine"];
    assert_eq!(bed.aviary(&args).await.code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_a_reduce_that_streams_names_its_key() {
    let bed = Bed::start(1).await;
    bed.load("docs", (0..100).map(|n| doc! { "_id": n }).collect()).await;
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    let map = "function () { emit(this._id % 5, this._id); }";
    let throws =
        "({ begin(k) {}, next(v) { if (v === 93) throw new Error('odd one'); }, end() {} })";
    let ran = submit(&bed, &functions(&bed, map, throws), &[]).await;
    assert_eq!(ran.code, 3, "{ran:?}");
    for word in ["reduce of reduce.js failed on the key 3", "Error: odd one"] {
        assert!(ran.stderr.contains(word), "{word}: {ran:?}");
    }
    // So does the time that it may take for the next values.
    let loops = "({ begin(k) { this.k = k; }, next(v) { while (this.k === 4); }, end() {} })";
    let ran = submit(&bed, &functions(&bed, map, loops), &["--record-timeout", "2s"]).await;
    assert_eq!(ran.code, 3, "{ran:?}");
    for word in ["reduce of reduce.js ran out of time on the key 4", "2000 ms", "--record-timeout"]
    {
        assert!(ran.stderr.contains(word), "{word}: {ran:?}");
    }
    // And a second result of one key, and one of another key.
    for (key, words) in [("\\10\\07\\00\\00\\00", "the key 7"), ("\\0a", "the key null")] {
        let module = format!(
            r#"(module
                (import "aviary" "emit" (func $emit (param i32 i32 i32 i32)))
                (memory (export "memory") 20)
                (data (i32.const 0) "{key}")
                (func (export "aviary_abi_v1"))
                (func (export "aviary_alloc") (param i32) (result i32) (i32.const 65536))
                (func (export "reduce_begin") (param i32 i32))
                (func (export "reduce_next") (param i32 i32))
                (func (export "reduce_end")
                    (call $emit (i32.const 0) (i32.const {len}) (i32.const 0) (i32.const {len}))
                    (call $emit (i32.const 0) (i32.const {len}) (i32.const 0) (i32.const {len}))))"#,
            len = if key.len() > 4 { 5 } else { 1 },
        );
        let twice = bed.file("twice.wat", &module).display().to_string();
        let map =
            bed.file("seven.js", "function () { emit(NumberInt(7), 1); }").display().to_string();
        let args = ["submit", "--quiet", "-c", "docs", "--map", &map, "--reduce", &twice];
        let ran = bed.aviary(&args).await;
        assert_eq!(ran.code, 3, "{ran:?}");
        for word in ["reduce emitted", words, "the key it was given, once"] {
            assert!(ran.stderr.contains(word), "{word}: {ran:?}");
        }
    }
    // A part of the form is refused before anything is written.
    let part = functions(&bed, map, "({ begin(k) {}, end() {} })");
    let ran = submit(&bed, &part, &[]).await;
    assert_eq!(ran.code, 8, "{ran:?}");
    assert!(ran.stderr.contains("there is no function next"), "{ran:?}");
}

/// Values of the one key; another number is for looking at what they cost.
fn values_of_one_key() -> i64 {
    let given = std::env::var("AVIARY_STREAM_VALUES").ok();
    given.map_or(5_000_000, |n| n.parse().expect("AVIARY_STREAM_VALUES is a number"))
}

/// The most memory that a process has had so far, in MiB.
fn peak_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_millions_of_values_needs_little_memory() {
    const EMITS: i64 = 1_000;
    let values = values_of_one_key() / EMITS * EMITS;
    let bed = Bed::start(1).await;
    bed.load("docs", (0..values / EMITS).map(|n| doc! { "_id": n }).collect::<Vec<Document>>())
        .await;
    let _coordinator = bed.coordinator();
    let worker = bed.worker();
    let functions = functions(
        &bed,
        &format!(
            "function () {{ for (let i = 0; i < {EMITS}; i++) emit('all', this._id * {EMITS} + i); }}"
        ),
        // Not associative: the median of the last three digits, and whether each value follows the one before.
        "({ begin(key) { this.counts = new Uint32Array(1000); this.n = 0; this.gaps = 0; },\n\
            next(v) { if (v !== this.n) this.gaps++; this.n++; this.counts[v * 7 % 1000]++; },\n\
            end() { let seen = 0, at = 0; while ((seen += this.counts[at]) < this.n / 2) at++;\n\
                    return { n: this.n, gaps: this.gaps, median: at }; } })",
    );
    let started = std::time::Instant::now();
    // Less memory than the values have, so that they cannot be held.
    let ran = submit(&bed, &functions, &["--memory-mb", "8"]).await.ok();
    let took = started.elapsed();
    let value = &ran.json()[0]["value"];
    #[expect(clippy::cast_precision_loss, reason = "it is small")]
    let expected = values as f64;
    assert_eq!(value["n"].as_f64(), Some(expected), "{value}");
    assert_eq!(value["gaps"].as_f64(), Some(0.0), "{value}");
    assert_eq!(value["median"].as_f64(), Some(499.0), "{value}");
    let peak = peak_mib(worker.pid());
    println!("{values} values of one key in {took:.1?}, worker at most {peak} MiB ({AVIARY})");
    assert!(peak < 512, "{peak} MiB");
}
