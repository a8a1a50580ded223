//! A database user writes documents into Aviary's collections that would give more than the user's own rights.

use bson::{Document, doc};
use futures_util::FutureExt;

use crate::forged::{fresh, id_of, spec, uuid_of};
use crate::stage::Stage;
use crate::{Attack, Outcome, Role};

pub const ATTACKS: &[Attack] = &[
    attack("a forged publish takes a collection of the same database", |stage| {
        publish(stage, "test").boxed()
    }),
    attack("a forged publish takes a collection of another database", |stage| {
        publish(stage, "theirs").boxed()
    }),
    attack("a planted job reads another database", |stage| read(stage, "theirs", "secret").boxed()),
    attack("a planted job reads admin", |stage| read(stage, "admin", "system.version").boxed()),
    attack("a planted job reads config", |stage| read(stage, "config", "transactions").boxed()),
    attack("a planted task skips planning and reads another database", |stage| {
        task(stage, "theirs", "secret", doc! {}).boxed()
    }),
    attack("a planted task skips planning and reads the oplog", |stage| {
        task(stage, "local", "oplog.rs", doc! {}).boxed()
    }),
    attack("counters tell by a query what another database holds", |stage| {
        task(stage, "theirs", "secret", doc! { "pin": { "$gte": 5 } }).boxed()
    }),
    attack("a planted job replaces a collection of another database", |stage| {
        write(stage, "replace", "theirs", "kept").boxed()
    }),
    attack("a planted job replaces a collection of admin", |stage| {
        write(stage, "replace", "admin", "loot").boxed()
    }),
    attack("a planted job merges into Aviary's own collection", |stage| {
        write(stage, "merge", "test", "aviary").boxed()
    }),
    attack("a planted job merges into the catalogue of functions", |stage| {
        write(stage, "merge", "test", "aviary-funcs").boxed()
    }),
    attack("a job that failed takes the results of another database's fleet along", |stage| {
        inline(stage).boxed()
    }),
    attack("a job named like a part of another one has its blocks removed", |stage| {
        blocks(stage).boxed()
    }),
];

const fn attack(
    name: &'static str,
    run: for<'a> fn(&'a Stage) -> futures_util::future::BoxFuture<'a, Outcome>,
) -> Attack {
    Attack { role: Role::Database, name, run }
}

/// A job that says of somebody else's collection that it is its results, to be renamed to where it wants them.
async fn publish(stage: &Stage, db: &str) -> Outcome {
    let victim = format!("victim-{}", fresh());
    stage.precious(db, &victim).await;
    let uuid = uuid_of(&stage.bed, db, &victim).await;
    let mut job = stage.forger().at_work(doc! {
        "state": "publishing", "publish": { "uuid": uuid }, "counters": { "output": 1_i64 },
    });
    let output = doc! { "mode": "replace", "db": db, "collection": "stolen" };
    spec(&mut job).insert("output", output);
    let id = id_of(&job);
    stage.insert("aviary", vec![job]).await;
    let state = stage.settled(&id).await.map(|job| job.get_str("state").unwrap().to_owned());
    let (left, stolen) = (stage.count(db, &victim).await, stage.count(db, "stolen").await);
    let evidence = format!("the job: {state:?}; {left} of 1 documents left, {stolen} stolen");
    Outcome::if_true(left == 0, evidence)
}

async fn secret(stage: &Stage) {
    let theirs = stage.bed.client.database("theirs").collection::<Document>("secret");
    if theirs.find_one(doc! {}).await.unwrap().is_none() {
        theirs.insert_many((0..10).map(|n| doc! { "_id": n, "pin": n })).await.unwrap();
    }
}

fn input(db: &str, collection: &str, query: Document, read: &str) -> Document {
    doc! { "db": db, "collection": collection, "query": query, "read": read }
}

/// How a job has ended.
fn how(job: &Document) -> String {
    let error = job.get_document("error").ok().and_then(|error| error.get_str("message").ok());
    format!("{} {}", job.get_str("state").unwrap_or_default(), error.unwrap_or_default())
}

/// What a job that has ended has got of what it wanted.
async fn loot(stage: &Stage, id: &str) -> Outcome {
    let job = stage.settled(id).await.expect("the planted job ends");
    let counters = job.get_document("counters").cloned().unwrap_or_default();
    let read = counters.get_i64("input").unwrap_or(0);
    let loot = stage.count("test", &format!("out-{id}")).await;
    let evidence = format!("it read {read} documents and wrote {loot}: {}", how(&job));
    Outcome::if_true(read > 0 || loot > 0, evidence)
}

async fn read(stage: &Stage, db: &str, collection: &str) -> Outcome {
    secret(stage).await;
    let mut job = stage.forger().submitted();
    let id = id_of(&job);
    let read = if db == "theirs" { "snapshot" } else { "committed" };
    spec(&mut job).insert("input", input(db, collection, doc! {}, read));
    spec(&mut job).insert(
        "output",
        doc! { "mode": "replace", "db": "test", "collection": format!("out-{id}") },
    );
    stage.insert("aviary", vec![job]).await;
    loot(stage, &id).await
}

/// A job that seems to be planned already, with a task that nobody has planned.
async fn task(stage: &Stage, db: &str, collection: &str, query: Document) -> Outcome {
    secret(stage).await;
    let forger = stage.forger();
    let mut job =
        forger.at_work(doc! { "state": "mapping", "plan": 1, "map_tasks": 1, "reduce_tasks": 0 });
    let id = id_of(&job);
    // It is the identity of another one.
    job.remove("input_uuid");
    // The collection may be younger than the snapshot of the job that this one looks like.
    spec(&mut job).insert("input", input(db, collection, query, "committed"));
    spec(&mut job).insert(
        "output",
        doc! { "mode": "replace", "db": "test", "collection": format!("out-{id}") },
    );
    spec(&mut job).remove("reduce");
    let ready = doc! {
        "_id": format!("{id}/map/1.00000"), "kind": "map", "job": &id, "plan": 1, "n": 0, "shard": forger.shard(),
        "state": "ready", "epoch": 0_i64, "attempts": 0, "priority": 0, "split": {},
    };
    stage.insert("aviary", vec![job, ready]).await;
    loot(stage, &id).await
}

async fn write(stage: &Stage, mode: &str, db: &str, collection: &str) -> Outcome {
    let kept = stage.bed.client.database("theirs").collection::<Document>("kept");
    kept.drop().await.expect("gone");
    stage.precious("theirs", "kept").await;
    if db == "test" {
        stage.unchecked(collection).await;
    }
    let mut job = stage.forger().submitted();
    let id = id_of(&job);
    spec(&mut job).insert("output", doc! { "mode": mode, "db": db, "collection": collection });
    stage.insert("aviary", vec![job]).await;
    let job = stage.settled(&id).await.expect("the planted job ends");
    // The honest map's keys are numbers, which nothing of Aviary's has for an _id.
    let numbers = doc! { "_id": { "$type": "number" } };
    let target = stage.bed.client.database(db).collection::<Document>(collection);
    let written = target.delete_many(numbers).await.expect("asked").deleted_count;
    let evidence = format!("{written} documents are in {db}.{collection}: {}", how(&job));
    Outcome::if_true(written > 0, evidence)
}

/// Another database has a fleet of its own, and results of a job that somebody is to read. A job of the same id that has
/// failed leaves nothing behind, neither there.
async fn inline(stage: &Stage) -> Outcome {
    let mut job = stage.forger().submitted();
    let id = id_of(&job);
    let victim = format!("aviary-out-{id}");
    stage.precious("theirs", &victim).await;
    job.extend(doc! { "state": "failed", "cleaned": false });
    let output = doc! { "mode": "inline", "db": "theirs", "collection": &victim };
    spec(&mut job).insert("output", output);
    stage.insert("aviary", vec![job]).await;
    let cleaned = stage
        .within(|| async {
            let job =
                stage.bed.coll("aviary").find_one(doc! { "_id": &id }).await.ok().flatten()?;
            job.get_bool("cleaned").ok()?.then_some(())
        })
        .await;
    let left = stage.count("theirs", &victim).await;
    Outcome::if_true(left == 0, format!("cleaned up: {}, {left} of 1 left", cleaned.is_some()))
}

/// A job that is over has its blocks removed: those whose names begin with its id.
async fn blocks(stage: &Stage) -> Outcome {
    let forger = stage.forger();
    stage.unchecked("aviary").await;
    stage.unchecked("aviary-intermediates").await;
    let mut owner = forger.submitted();
    let honest = id_of(&owner);
    owner.insert("state", "stopped");
    let block = doc! {
        "_id": format!("{honest}/p0000/00000/t/0000.00000"), "shard": forger.shard(), "data": 1,
    };
    stage.insert("aviary", vec![owner]).await;
    stage.insert("aviary-intermediates", vec![block.clone()]).await;
    let mut thief = forger.submitted();
    let id = format!("{honest}/p0000");
    thief.extend(doc! { "_id": &id, "state": "failed" });
    stage.insert("aviary", vec![thief]).await;
    // A job that comes after it has been looked at, too.
    let harm = stage.unharmed().await.err();
    let gone = doc! { "_id": block.get("_id") };
    let found = stage.bed.coll("aviary-intermediates").find_one(gone).await.unwrap();
    stage.bed.coll("aviary").delete_many(doc! { "_id": { "$in": [&honest, &id] } }).await.unwrap();
    let evidence = format!("the other job's block is there: {}; {harm:?}", found.is_some());
    Outcome::if_true(found.is_none() || harm.is_some(), evidence)
}
