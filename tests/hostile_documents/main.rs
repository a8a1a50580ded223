//! Somebody may write arbitrary documents into Aviary's collections. Whatever they are, the coordinator and the worker
//! live, and an honest job beside them ends with the right result.

#![cfg(test)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/forged.rs"]
mod forged;
mod jobs;
mod numbers;
mod queries;
mod sweeps;
mod tasks;
mod times;

use aviary_testcontainers::Managed;
use bson::{Bson, Document, doc};
use common::{Bed, Ran, wait_for};
use forged::Forger;
pub use forged::{fresh, id_of, odd, peak_mb};

/// A deployment with a finished honest job, whose documents the hostile ones are made of.
pub struct Scene {
    /// The deployment.
    pub bed: Bed,
    /// Writes hostile documents after the honest job's.
    forger: Forger,
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
        let mut scene = Self { bed, forger: Forger::default(), count: 0.into() };
        scene.honest().await;
        scene.forger = Forger::learn(&scene.bed).await;
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

/// Whether a daemon is as well as before.
pub fn lives(daemon: &Managed) {
    let log = daemon.log().expect("a log");
    assert!(!log.contains("panicked"), "{log}");
    assert!(daemon.is_running(), "{log}");
}
