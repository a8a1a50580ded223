//! Functions that mean harm, or are merely broken, run by a worker that runs a normal job at the same time. Each
//! is stored behind the back of `aviary insert`, so that the worker meets all of them; what `insert` says of it is
//! shown too. Every one is refused or stopped with an error of its own, the worker lives, and the normal job's
//! output is right.

#![cfg(test)]

#[path = "../common/mod.rs"]
mod common;
mod modules;
mod scripts;

use std::sync::atomic::{AtomicBool, Ordering};

use bson::spec::BinarySubtype;
use bson::{Binary, DateTime, Document, doc};
use common::{Bed, Ran};
use futures_util::StreamExt;

/// A function and what must become of it.
pub struct Case {
    name: &'static str,
    language: &'static str,
    /// The stage it is given for; the others are harmless.
    stage: &'static str,
    content: Vec<u8>,
    outcome: Outcome,
}

/// How it must end.
pub enum Outcome {
    /// `insert` refuses it, and so does the worker: both say this.
    Refused(&'static str),
    /// `insert` cannot know; the worker stops it in its stage and says this.
    Stopped(&'static str),
    /// `insert` cannot know; the worker refuses it, as larger than what it gives, or what it has emitted, and
    /// says this.
    Unfit(&'static str),
    /// It does no harm that the limits do not cut off: its job succeeds.
    Bounded,
}

/// What is said of a function that would not end.
const TIME: &str = "one call took longer than 500 ms";
/// And of a script that does not end before it has any function.
const AT_LOAD: &str = "longer than";
/// Documents of the input that the hostile functions are given.
const VICTIMS: i32 = 20;
const NORMAL_MAP: &str = "function () { emit(this._id % 7, this._id) }";

#[tokio::test(flavor = "multi_thread")]
async fn every_hostile_function_is_stopped_and_harms_nobody() {
    let bed = Bed::start(1).await;
    bed.load("victims", (0..VICTIMS).map(|n| doc! { "_id": n, "k": n % 2 }).collect()).await;
    bed.load("input", (0..3_000).map(|n| doc! { "_id": n }).collect()).await;
    bed.aviary(&["init"]).await.ok();
    let normal = bed.file("normal.js", NORMAL_MAP);
    let map = bed.file("map.js", "function () { emit(this.k, 1) }");
    let sum = bed.file("sum.js", "function (key, values) { return Array.sum(values) }");
    for (name, path) in [("normal", &normal), ("emit-one", &map), ("sum-values", &sum)] {
        bed.aviary(&["insert", path.to_str().unwrap(), "--name", name]).await.ok();
    }
    let _coordinator = bed.coordinator();
    let worker = bed.spawn("worker", &["worker", "--slots", "3"], &[]);

    let done = AtomicBool::new(false);
    let beside = async {
        let mut rounds = 0;
        while !done.load(Ordering::Relaxed) || rounds == 0 {
            let out = format!("replace:normal{rounds}");
            let args = ["submit", "-c", "input", "--map", "normal", "--reduce", "_sum", "--out"];
            bed.aviary(&[&args[..], &[&out]].concat()).await.ok();
            right(&bed, &format!("normal{rounds}")).await;
            rounds += 1;
        }
        rounds
    };
    let mut cases = modules::cases();
    cases.extend(scripts::cases());
    let count = cases.len();
    assert!(count >= 40, "{count}");
    let hostile = async {
        let bed = &bed;
        let run = futures_util::stream::iter(cases.iter().map(|case| one(bed, case)));
        let rows: Vec<Row> = run.buffer_unordered(3).collect().await;
        done.store(true, Ordering::Relaxed);
        rows
    };
    let (rounds, mut rows) = tokio::join!(beside, hostile);
    rows.sort_by(|a, b| a.name.cmp(b.name));
    let bad: Vec<&Row> = rows.iter().filter(|row| !row.right).collect();
    for row in &rows {
        println!("{:<28} insert {:<3} job {}  {}", row.name, row.insert, row.job, row.says);
    }
    let stopped = rows.iter().filter(|row| row.job != 0).count();
    println!(
        "{count} hostile functions: {} refused by insert, {stopped} refused or stopped by the worker, {} bounded; \
         {rounds} normal jobs beside them, each right",
        rows.iter().filter(|row| row.insert == 8).count(),
        rows.iter().filter(|row| row.job == 0).count(),
    );
    assert!(bad.is_empty(), "{bad:#?}");

    // The same process, at work as before.
    let pid = i64::from(worker.pid());
    let workers = bed.aviary(&["workers", "-o", "json"]).await.ok().json();
    assert!(workers.iter().any(|row| row["pid"] == pid && row["state"] == "alive"), "{workers:?}");
    let log = worker.log().expect("a log");
    assert!(!log.contains("panicked"), "{log}");
}

/// The normal job's output.
async fn right(bed: &Bed, out: &str) {
    let expected: Vec<f64> =
        (0..7).map(|k| (0..3_000).filter(|n| n % 7 == k).map(f64::from).sum()).collect();
    let value = |doc: &Document| match doc.get("value") {
        Some(bson::Bson::Int32(n)) => f64::from(*n),
        Some(bson::Bson::Int64(n)) => *n as f64,
        Some(bson::Bson::Double(n)) => *n,
        other => panic!("no number: {other:?}"),
    };
    let found: Vec<f64> = bed.all(out).await.iter().map(value).collect();
    assert_eq!(found, expected);
}

/// What became of one.
#[derive(Debug)]
struct Row {
    name: &'static str,
    insert: i32,
    job: i32,
    says: String,
    right: bool,
}

async fn one(bed: &Bed, case: &Case) -> Row {
    let extension = if case.language == "js" { "js" } else { "wasm" };
    let path = bed.dir.path().join(format!("{}.{extension}", case.name));
    std::fs::write(&path, &case.content).expect("written");
    let insert = bed.aviary(&["insert", path.to_str().unwrap()]).await;
    let digest = store(bed, case).await;
    let job = submit(bed, case, &digest).await;
    let says = job.stderr.lines().find(|line| line.starts_with("error:")).unwrap_or_default();
    let right = match case.outcome {
        Outcome::Refused(text) => {
            insert.code == 8
                && insert.stderr.contains(text)
                && job.code == 3
                && job.stderr.contains(text)
        }
        Outcome::Stopped(text) => {
            let whose = format!(" failed: {} of {digest} ", case.stage);
            insert.code == 0
                && job.code == 3
                && job.stderr.contains(text)
                && job.stderr.contains(&whose)
        }
        Outcome::Unfit(text) => insert.code == 0 && job.code == 3 && job.stderr.contains(text),
        Outcome::Bounded => insert.code == 0 && job.code == 0,
    };
    let mut says = says.trim_start_matches("error: ").to_owned();
    if !right {
        says = format!("{says}\n{insert:?}\n{job:?}");
    }
    Row { name: case.name, insert: insert.code, job: job.code, says, right }
}

/// Stores a function as somebody with write access to the database could, whatever it is.
async fn store(bed: &Bed, case: &Case) -> String {
    let digest = blake3::hash(&case.content).to_hex().to_string();
    let content = Binary { subtype: BinarySubtype::Generic, bytes: case.content.clone() };
    let document = doc! {
        "kind": "function",
        "language": case.language,
        "file": case.name,
        "stages": ["map", "combine", "reduce", "finalize"],
        "size": case.content.len() as i64,
        "created": DateTime::now(),
        "content": content,
    };
    bed.coll("aviary-funcs")
        .replace_one(doc! { "_id": &digest }, document)
        .upsert(true)
        .await
        .expect("stored");
    digest
}

async fn submit(bed: &Bed, case: &Case, digest: &str) -> Ran {
    let mut args = vec!["submit", "-c", "victims", "--out", "replace:nothing", "-q"];
    args.extend(["--memory-mb", "64"]);
    // The others have all the time they need, however busy the machine is.
    if matches!(case.outcome, Outcome::Stopped(TIME) | Outcome::Refused(AT_LOAD)) {
        args.extend(["--record-timeout", "500ms"]);
    }
    let with = |stage: &'static str, harmless: &'static str| {
        if case.stage == stage { digest.to_owned() } else { harmless.to_owned() }
    };
    let (map, reduce) = (with("map", "emit-one"), with("reduce", "_sum"));
    args.extend(["--map", &map]);
    if case.stage == "combine" {
        args.extend(["--combine", digest, "--reduce", "sum-values"]);
    } else {
        args.extend(["--reduce", &reduce]);
    }
    if case.stage == "finalize" {
        args.extend(["--finalize", digest]);
    }
    bed.aviary(&args).await
}
