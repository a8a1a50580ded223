//! Somebody may write arbitrary documents into Aviary's collections. Whatever they are, the coordinator and the worker
//! live, and an honest job beside them ends with the right result.

#![cfg(test)]

#[path = "../common/mod.rs"]
mod common;
mod jobs;
mod numbers;
mod queries;
mod sweeps;
mod tasks;
mod times;

use aviary_testcontainers::Managed;
use bson::{Bson, Document, doc};
use common::{Bed, Ran, wait_for};

/// A deployment with a finished honest job, whose documents the hostile ones are made of.
pub struct Scene {
    /// The deployment.
    pub bed: Bed,
    /// The honest job's document.
    pub job: Document,
    /// Its map task.
    pub task: Document,
    count: std::sync::atomic::AtomicU32,
}

impl Scene {
    /// A coordinator and a worker at work.
    pub async fn start() -> (Self, Managed, Managed) {
        Self::with(&[], &[]).await
    }

    /// The same with more flags for coordinator and worker.
    pub async fn with(coordinator: &[&str], worker: &[&str]) -> (Self, Managed, Managed) {
        let bed = Bed::start(1).await;
        bed.load("few", (0..40).map(|n| doc! { "_id": n, "g": n % 4 }).collect()).await;
        let coordinator = bed.spawn("coordinator", &[&["coordinator"], coordinator].concat(), &[]);
        let worker = bed.spawn("worker", &[&["worker", "--slots", "1"], worker].concat(), &[]);
        let map = bed.file("map.js", "function () { emit(this.g, 1); }");
        bed.aviary(&["insert", map.to_str().unwrap(), "--name", "by-g"]).await.ok();
        let mut scene = Self { bed, job: doc! {}, task: doc! {}, count: 0.into() };
        scene.honest().await;
        let of = async |kind: &str| {
            let found = scene.bed.coll("aviary").find_one(doc! { "kind": kind }).await;
            found.expect("asked").expect("it is there")
        };
        (scene.job, scene.task) = (of("job").await, of("map").await);
        (scene, coordinator, worker)
    }

    /// An honest job, from submission to its right result.
    pub async fn honest(&self) {
        let n = self.count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let out = format!("honest{n}");
        self.submit(&["--out", &format!("replace:{out}")]).await.ok();
        let rows = self.bed.all(&out).await;
        let expected: Vec<(Bson, f64)> =
            (0..4).map(|g| (Bson::Double(f64::from(g)), 10.0)).collect();
        let value = |row: &Document| match row.get("value") {
            Some(Bson::Int32(n)) => f64::from(*n),
            Some(Bson::Int64(n)) => *n as f64,
            other => other.and_then(Bson::as_f64).expect("a number"),
        };
        let rows: Vec<(Bson, f64)> =
            rows.iter().map(|row| (row.get("_id").unwrap().clone(), value(row))).collect();
        assert_eq!(rows, expected);
    }

    /// Submits a job over the few documents.
    pub async fn submit(&self, more: &[&str]) -> Ran {
        let args =
            ["submit", "-q", "-o", "name", "-c", "few", "--map", "by-g", "--reduce", "_count"];
        self.bed.aviary(&[&args, more].concat()).await
    }

    /// A job's document as it is before anybody has looked at it, with another id.
    pub fn submitted(&self) -> Document {
        let mut job = self.job.clone();
        for gone in ["started", "finished", "snapshot", "publish", "counters", "reduce_on"] {
            job.remove(gone);
        }
        let id = fresh();
        job.extend(doc! {
            "_id": &id, "state": "submitted", "plan": 0, "map_tasks": 0_i64, "reduce_tasks": 0_i64, "role": 0_i64,
            "cleaned": false,
        });
        let spec = job.get_document_mut("spec").unwrap();
        spec.insert("partitions", 1);
        spec.get_document_mut("output").unwrap().insert("collection", format!("out-{id}"));
        job
    }

    /// A ready map task of another job.
    pub fn ready(&self, job: &str) -> Document {
        let mut task = self.task.clone();
        for gone in ["result", "finished", "history", "token", "until", "lost", "worker", "leased"]
        {
            task.remove(gone);
        }
        task.extend(doc! {
            "_id": format!("{job}/map/1.00000"), "job": job, "state": "ready", "attempts": 0, "epoch": 0_i64,
        });
        task
    }

    /// Writes documents as they are.
    pub async fn insert(&self, collection: &str, documents: Vec<Document>) {
        for chunk in documents.chunks(1_000) {
            self.bed.coll(collection).insert_many(chunk).await.expect("inserted");
        }
    }

    /// A document of Aviary's collection.
    pub async fn find(&self, id: &str) -> Document {
        let found = self.bed.coll("aviary").find_one(doc! { "_id": id }).await;
        found.expect("asked").expect("it is there")
    }

    /// Waits until a job has failed, and gives what it says of why.
    pub async fn failed(&self, id: &str) -> String {
        let job = wait_for("the job to fail", || async {
            let job = self.find(id).await;
            job.get_str("state").is_ok_and(|state| state == "failed").then_some(job)
        })
        .await;
        job.get_document("error").unwrap().get_str("message").unwrap().to_owned()
    }
}

/// An id that no job has.
pub fn fresh() -> String {
    bson::oid::ObjectId::new().to_hex()
}

/// A document's id.
pub fn id_of(document: &Document) -> String {
    document.get_str("_id").unwrap().to_owned()
}

/// Whether a daemon is as well as before.
pub fn lives(daemon: &Managed) {
    let log = daemon.log().expect("a log");
    assert!(!log.contains("panicked"), "{log}");
    assert!(daemon.is_running(), "{log}");
}

/// The most memory that a process ever had, in MiB.
pub fn peak_mb(daemon: &Managed) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

/// Values of many types.
pub fn odd() -> Vec<Bson> {
    vec![
        Bson::Null,
        Bson::Int32(i32::MAX),
        Bson::Int64(i64::MIN),
        Bson::Double(f64::NAN),
        Bson::String("x".into()),
        Bson::Array(vec![Bson::Int32(1)]),
        Bson::Document(doc! { "a": { "b": 1 } }),
        Bson::Boolean(true),
        Bson::MinKey,
    ]
}
