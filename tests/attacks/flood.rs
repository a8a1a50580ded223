//! A database user writes numbers and documents that would take all of a process's memory or time.

use bson::{DateTime, Document, doc};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::forged::{binary, id_of, spec};
use crate::stage::Stage;
use crate::{Attack, Outcome, Role};

pub const ATTACKS: &[Attack] = &[
    attack("a job of 60,000,000 partitions", |stage| partitions(stage).boxed()),
    attack("a job of 500,000 parameters, twice", |stage| parameters(stage).boxed()),
    attack("a function of 2,147,483,647 parts", |stage| parts(stage).boxed()),
    attack("workers that say they have 2,147,483,647 slots", |stage| slots(stage).boxed()),
    attack("a block whose key is nested 150,000 deep", |stage| deep(stage).boxed()),
];

const fn attack(
    name: &'static str,
    run: for<'a> fn(&'a Stage) -> BoxFuture<'a, Outcome>,
) -> Attack {
    Attack { role: Role::Database, name, run }
}

/// Plants a job that somebody looks at before all others. Whether it takes too much, the runner sees.
async fn plant(stage: &Stage, mut job: Document) -> Outcome {
    let id = id_of(&job);
    job.insert("priority", i32::MAX);
    stage.insert("aviary", vec![job]).await;
    // It ends, or ends a daemon.
    let state = stage
        .within(|| async {
            if stage.alive().is_err() {
                return Some("harm".to_owned());
            }
            let jobs = stage.bed.coll("aviary");
            let job = jobs.find_one(doc! { "_id": &id }).projection(doc! { "state": 1 });
            let job = job.await.ok().flatten()?;
            let state = job.get_str("state").ok()?;
            ["failed", "succeeded"].contains(&state).then(|| state.to_owned())
        })
        .await;
    Outcome::Held(format!("the job: {}; an honest one is done", state.unwrap_or_default()))
}

async fn partitions(stage: &Stage) -> Outcome {
    let mut job = stage.forger().submitted();
    spec(&mut job).insert("partitions", 60_000_000);
    plant(stage, job).await
}

async fn parameters(stage: &Stage) -> Outcome {
    // As many nulls as a document holds: some 6 MB stored, half a gigabyte as values of a program.
    let nulls: Document = (0..500_000).map(|n| (n.to_string(), bson::Bson::Null)).collect();
    let jobs = [0, 1].map(|_| {
        let mut job = stage.forger().submitted();
        job.insert("priority", i32::MAX);
        spec(&mut job).insert("scope", nulls.clone());
        job
    });
    stage.insert("aviary", jobs.into()).await;
    // Nobody reads them, so they stay as they are. Whoever looks for work meets them first.
    Outcome::Held("an honest job is done beside them".to_owned())
}

async fn parts(stage: &Stage) -> Outcome {
    const PART: usize = 15 << 20;
    let digest = "e".repeat(64);
    stage
        .insert(
            "aviary-funcs",
            vec![doc! {
                "_id": &digest, "kind": "function", "language": "wasm", "file": "x", "stages": ["map"], "size": 1_i64,
                "created": DateTime::now(), "chunks": i32::MAX, "writing": "w", "content": binary(Vec::new()),
            }],
        )
        .await;
    for n in 0..30 {
        let chunk = doc! {
            "_id": format!("{digest}/w/{n:04}"), "kind": "chunk", "function": &digest, "writing": "w", "n": n,
            "content": binary(vec![0; PART]),
        };
        stage.insert("aviary-funcs", vec![chunk]).await;
    }
    let mut job = stage.forger().submitted();
    spec(&mut job).insert("map", doc! { "digest": &digest, "language": "wasm" });
    let outcome = plant(stage, job).await;
    stage.bed.coll("aviary-funcs").delete_many(doc! { "function": &digest }).await.expect("gone");
    outcome
}

async fn slots(stage: &Stage) -> Outcome {
    let shard = stage.forger().shard().to_owned();
    let rows = ["large", "larger", "largest"].map(|name| {
        doc! {
            "_id": format!("worker/{name}"), "kind": "worker", "shard": &shard, "host": "h", "pid": 1_i64,
            "slots": i32::MAX, "busy": 0, "version": "1", "started": DateTime::now(), "seen": DateTime::now(),
        }
    });
    stage.insert("aviary", rows.into()).await;
    let mut job = stage.forger().submitted();
    // Partitions follow from the slots.
    spec(&mut job).insert("partitions", 0);
    plant(stage, job).await
}

/// What a map task seems to have written for a reduce task to read.
async fn deep(stage: &Stage) -> Outcome {
    let forger = stage.forger();
    let documents = forger.reducing(&[1]);
    let block = forger.block(&id_of(&documents[0]));
    stage.insert("aviary-intermediates", vec![block]).await;
    stage.insert("aviary", documents).await;
    // The job waits for ever, at worst.
    Outcome::Held("an honest job is done".to_owned())
}
