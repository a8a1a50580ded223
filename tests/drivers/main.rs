//! The database is the API: jobs asked for by the drivers that people have, each the real one.
//!
//! It proves, on one replica set with a coordinator and a worker, that pymongo, mongosh, the driver of Node and the
//! driver of Go need nothing of ours: what they insert runs, runs once however often it is inserted, is refused by the
//! server when it has a typo, and never runs when its transaction is aborted. And that our thin clients do what they
//! say, in all three places where they run. The scripts beside this file check each step; what they leave behind is
//! checked here.
//!
//! A driver that cannot be had makes its part be skipped, which is said; with `CI` set it is a failure instead.

#![cfg(test)]

mod answers;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/python.rs"]
mod python;
mod tools;

use std::path::Path;

use aviary_testcontainers::Managed;
use bson::{Bson, Document, doc};
use common::{Bed, mongosh, root, run_parts};
use tokio::process::Command;

/// What each script does with a driver alone.
const PLAIN: [&str; 4] = ["run", "twice", "typo", "transaction"];
/// What each script does with a thin client.
const CLIENT: [&str; 12] = [
    "submit",
    "results",
    "again",
    "jobs",
    "elsewhere",
    "primary",
    "refused",
    "failed",
    "cancel",
    "resume_refused",
    "resume",
    "transaction",
];

/// A deployment with some input, a coordinator and a worker. Jobs may write to the collections `names` of another
/// database.
async fn bed(names: &[&str]) -> (Bed, Vec<Managed>) {
    let bed = Bed::start(1).await;
    bed.load("orders", (0..100).map(|n| doc! { "_id": n, "k": n % 5, "v": n }).collect()).await;
    bed.aviary(&["init"]).await.ok();
    bed.grant("elsewhere", &[], names).await;
    let mut daemons = vec![bed.coordinator()];
    daemons.extend(bed.workers());
    (bed, daemons)
}

/// A script beside this file, which gets the deployment's address and a name for what it makes.
fn script(bed: &Bed, program: &Path, file: &str, name: &str) -> Command {
    let mut command = Command::new(program);
    command.arg(root().join("tests/drivers").join(file)).arg(bed.uri()).arg(name);
    command
}

fn python(bed: &Bed, python: &Path, file: &str, name: &str) -> Command {
    let mut command = script(bed, python, file, name);
    command.env("PYTHONPATH", root().join("clients/python")).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn node(bed: &Bed, modules: &Path, file: &str, name: &str) -> Command {
    let mut command = script(bed, Path::new("node"), file, name);
    command.env("NODE_PATH", modules);
    command
}

/// A script of the shell, which takes no arguments of its own.
fn shell(bed: &Bed, mongosh: &Path, file: &str, name: &str) -> Command {
    let mut command = Command::new(mongosh);
    command
        .args([&bed.uri().replace("/?", "/test?"), "--quiet", "--norc", "--file"])
        .arg(root().join("tests/drivers").join(file))
        .env("HOME", bed.dir.path())
        .env("NAME", name)
        .env("CLIENT", root().join("clients/javascript/aviary.js"));
    command
}

/// The sums by key of the input.
fn sums() -> Vec<Document> {
    (0..5).map(|k| doc! { "_id": f64::from(k), "value": f64::from(950 + 20 * k) }).collect()
}

/// Documents with each number as one kind of number.
fn plain(documents: Vec<Document>) -> Vec<Document> {
    let number = |value: Bson| match value {
        Bson::Int32(n) => Bson::Double(f64::from(n)),
        Bson::Int64(n) => Bson::Double(n as f64),
        other => other,
    };
    let row = |d: Document| d.into_iter().map(|(field, value)| (field, number(value))).collect();
    documents.into_iter().map(row).collect()
}

/// How many jobs came of a request.
async fn jobs_of(bed: &Bed, id: &str) -> u64 {
    let of = doc! { "kind": "job", "request.id": id };
    bed.coll("aviary").count_documents(of).await.expect("a count")
}

async fn check_plain(bed: &Bed, name: &str) {
    for step in ["units", "kept"] {
        let id = format!("{name}-{step}");
        assert_eq!(jobs_of(bed, &id).await, 1, "{id}");
        assert_eq!(plain(bed.all(&id).await), sums(), "{id}");
    }
    never(bed, &[&format!("{name}-typo"), &format!("{name}-aborted")]).await;
}

async fn check_client(bed: &Bed, name: &str) {
    for step in ["units", "slow", "stopped"] {
        assert_eq!(jobs_of(bed, &format!("{name}-{step}")).await, 1, "{name}-{step}");
    }
    assert_eq!(plain(bed.all(&format!("{name}-units")).await), sums(), "{name}");
    assert_eq!(bed.all(&format!("{name}-stopped")).await.len(), 5, "{name}");
    never(bed, &[&format!("{name}-aborted")]).await;
}

/// Neither requests, nor jobs, nor results.
async fn never(bed: &Bed, ids: &[&str]) {
    let there = bed.db().list_collection_names().await.expect("names");
    for id in ids {
        let asked = bed.coll("aviary-requests").count_documents(doc! { "_id": id }).await.unwrap();
        assert_eq!((asked, jobs_of(bed, id).await), (0, 0), "{id}");
        assert!(!there.iter().any(|name| name == id), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_driver_asks_by_a_plain_insert() {
    let (bed, _daemons) = bed(&[]).await;
    if let Some(program) = python::python().await {
        run_parts(&mut python(&bed, &program, "plain.py", "pymongo"), &PLAIN).await;
        check_plain(&bed, "pymongo").await;
    }
    if let Some(modules) = tools::node().await {
        run_parts(&mut node(&bed, &modules, "plain.js", "node"), &PLAIN).await;
        check_plain(&bed, "node").await;
    }
    if let Some(mongosh) = mongosh().await {
        run_parts(&mut shell(&bed, &mongosh, "plain_mongosh.js", "mongosh"), &PLAIN).await;
        check_plain(&bed, "mongosh").await;
    }
    if let Some(program) = tools::go(&root().join("tests/drivers/plain.go")).await {
        run_parts(Command::new(program).arg(bed.uri()).arg("go"), &PLAIN).await;
        check_plain(&bed, "go").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_of_python_does_what_it_says() {
    let Some(program) = python::python().await else { return };
    let (bed, _daemons) = bed(&["python"]).await;
    run_parts(&mut python(&bed, &program, "client.py", "python"), &CLIENT).await;
    check_client(&bed, "python").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_of_javascript_does_what_it_says() {
    let Some(modules) = tools::node().await else { return };
    let (bed, _daemons) = bed(&["javascript"]).await;
    run_parts(&mut node(&bed, &modules, "client.js", "javascript"), &CLIENT).await;
    check_client(&bed, "javascript").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_in_mongosh_does_what_it_says() {
    let Some(mongosh) = mongosh().await else { return };
    let (bed, _daemons) = bed(&["shell"]).await;
    // The shell has no session to give to it, and does not connect where its preference finds nobody.
    let without = ["transaction", "primary"];
    let parts: Vec<&str> = CLIENT.into_iter().filter(|part| !without.contains(part)).collect();
    run_parts(&mut shell(&bed, &mongosh, "client_mongosh.js", "shell"), &parts).await;
    check_client(&bed, "shell").await;
}
