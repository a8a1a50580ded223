//! A run: data, daemons, jobs and faults for a while, then calm, then everything is written down.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::Database;

use crate::World;
use crate::common::{Ran, run};
use crate::dice::Dice;
use crate::history::What;
use crate::jobs::{Input, Kind, content, documents};

/// Jobs of one database that have not ended.
const OPEN_MAX: usize = 4;
/// How long after the last fault a job may take to end, and what it leaves to go.
const CALM_MAX: Duration = Duration::from_secs(300);
/// How long a question to a deployment that is being hurt is asked again.
const PATIENCE: Duration = Duration::from_secs(120);

/// Loads the input and what targets hold before.
pub async fn load(world: &World) {
    for db in &world.dbs {
        let db = world.bed.client.database(db);
        for input in Input::ALL {
            let documents = input.documents();
            for chunk in documents.chunks(5_000) {
                db.collection::<Document>(input.name()).insert_many(chunk).await.expect("loaded");
            }
        }
        for kind in Kind::ALL {
            let before = documents(&kind.before());
            let targets = world.bed.client.database(&kind.target_db(db.name()));
            for target in kind.targets() {
                for chunk in before.chunks(5_000) {
                    targets
                        .collection::<Document>(&target)
                        .insert_many(chunk)
                        .await
                        .expect("loaded");
                }
            }
        }
        for kind in Kind::ALL.into_iter().filter(|kind| kind.target_db(db.name()) != db.name()) {
            let grant = doc! { "_id": db.name(), "write": kind.targets() };
            let theirs = world.bed.client.database(&kind.target_db(db.name()));
            let grants = theirs.collection::<Document>("aviary-grants");
            grants.insert_one(grant).await.expect("granted");
        }
        world.aviary(db.name(), &["init"]).await.ok();
    }
}

/// Submits jobs to a database until the time is over; cancels and removes some.
pub async fn submit(world: Arc<World>, db: String, next: Arc<AtomicI64>, over: Arc<AtomicBool>) {
    let mut dice = Dice::new(
        world.seed,
        100 + world.dbs.iter().position(|name| *name == db).expect("it") as u64,
    );
    let database = world.bed.client.database(&db);
    while !over.load(Ordering::SeqCst) {
        let open =
            doc! { "kind": "job", "state": { "$nin": ["succeeded", "failed", "cancelled"] } };
        let jobs = database.collection::<Document>("aviary");
        let open = jobs.count_documents(open).await.unwrap_or(OPEN_MAX as u64);
        if open >= OPEN_MAX as u64 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        }
        if dice.one_in(5) {
            remove_one(&world, &database).await;
        }
        let n = next.fetch_add(1, Ordering::SeqCst);
        let kind = Kind::any(&mut dice);
        let factor = 1 + dice.below(9) as i64;
        let targets = kind.targets();
        let target = if targets.is_empty() { String::new() } else { dice.pick(&targets).clone() };
        let ran = world.aviary(&db, &kind.submission(&db, &target, n, factor)).await;
        let id = ran.stdout.trim().to_owned();
        let id = (ran.code == 0).then_some(id);
        world.history.add(What::Submitted {
            n,
            db: db.clone(),
            kind,
            target,
            factor,
            code: ran.code,
            id: id.clone(),
            said: ran.stderr.trim().to_owned(),
        });
        if let Some(id) = id.filter(|_| dice.one_in(8)) {
            tokio::time::sleep(dice.pause(0, 4_000)).await;
            let code = world.aviary(&db, &["cancel", &id]).await.code;
            world.history.add(What::CancelAsked { n, code });
        }
    }
}

/// Removes a job that is over, after it has been written down.
async fn remove_one(world: &World, db: &Database) {
    let over = doc! { "kind": "job", "cleaned": true };
    let jobs = db.collection::<Document>("aviary");
    let Ok(Some(job)) = jobs.find_one(over).await else { return };
    if is_over(&job) && !ended(world, db, &job).await {
        rm(world, db, &job).await;
    }
}

async fn rm(world: &World, db: &Database, job: &Document) {
    let code = world.aviary(db.name(), &["rm", text(job, "_id")]).await.code;
    world.history.add(What::Removed { n: number(job), code });
}

/// Starts daemons again that ended by themselves.
pub async fn look_after(world: Arc<World>, over: Arc<AtomicBool>) {
    while !over.load(Ordering::SeqCst) {
        for member in &world.fleet.members {
            member.look_after(&world.bed, &world.history);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Waits for the end of every job, and writes down what there is then.
pub async fn take_stock(world: &World) {
    let calm = Instant::now();
    for db in &world.dbs {
        let database = world.bed.client.database(db);
        loop {
            let jobs = find(&database, "aviary", doc! { "kind": "job" }).await;
            let open: Vec<&Document> = jobs.iter().filter(|job| !is_over(job)).collect();
            if open.is_empty() {
                break;
            }
            if calm.elapsed() > CALM_MAX {
                for job in open {
                    let tasks = find(&database, "aviary", doc! { "job": job.get("_id"), "state": { "$in": ["planned", "ready", "leased"] } }).await;
                    let tasks: Vec<String> = tasks
                        .iter()
                        .map(|task| format!("{} {}", text(task, "state"), text(task, "_id")))
                        .collect();
                    let what = format!(
                        "{} {}, cleaned {:?}, open: {}",
                        text(job, "_id"),
                        text(job, "state"),
                        job.get("cleaned"),
                        tasks.join(", ")
                    );
                    world.history.add(What::Stuck { n: number(job), what });
                }
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for job in find(&database, "aviary", doc! { "kind": "job" }).await {
            ended(world, &database, &job).await;
        }
        for kind in Kind::ALL {
            let targets = world.bed.client.database(&kind.target_db(db));
            for target in kind.targets() {
                let found = content(find(&targets, &target, doc! {}).await);
                world.history.add(What::Content { db: db.clone(), target, content: found });
            }
        }
        leftovers(world, &database, calm).await;
    }
    odd_daemons(world);
}

/// Writes down how a job ended; `true` when it has been removed with its inline result.
async fn ended(world: &World, db: &Database, job: &Document) -> bool {
    let (n, id) = (number(job), text(job, "_id").to_owned());
    let counters = job.get_document("counters").cloned().unwrap_or_default();
    let counters: BTreeMap<String, i64> = counters
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_i64().or(value.as_i32().map(i64::from))?)))
        .collect();
    let error = job.get_document("error").ok().map(ToString::to_string);
    let state = text(job, "state").to_owned();
    let succeeded = state == "succeeded";
    // A part of a merge that was given up may be in the target.
    let publishing = doc! { "kind": "publish", "job": &id, "state": { "$ne": "planned" } };
    let began_to_publish =
        job.contains_key("publish") || !find(db, "aviary", publishing).await.is_empty();
    world.history.add(What::Ended { n, id: id.clone(), state, began_to_publish, counters, error });
    let is_inline = job.get_document("spec").and_then(|spec| spec.get_document("output"));
    let is_inline = is_inline.is_ok_and(|output| text(output, "mode") == "inline");
    if is_inline && succeeded {
        let found = find(db, &format!("aviary-out-{id}"), doc! {}).await;
        world.history.add(What::Inline { n, content: content(found) });
        // What is left of it then is a leak like any other.
        rm(world, db, job).await;
        return true;
    }
    false
}

/// Waits until nothing of the jobs is left, and writes down what stays.
async fn leftovers(world: &World, db: &Database, calm: Instant) {
    loop {
        let mut left = Vec::new();
        for kind in [Kind::Reduce, Kind::WideReduce] {
            let outputs = world.bed.client.database(&kind.target_db(db.name()));
            let names = patiently(|| async { outputs.list_collection_names().await }).await;
            left.extend(names.into_iter().filter(|name| name.starts_with("aviary-out-")));
        }
        let blocks = find(db, "aviary-intermediates", doc! {}).await.len();
        if blocks > 0 {
            left.push(format!("{blocks} blocks"));
        }
        let open = doc! { "kind": { "$in": ["map", "reduce", "publish"] }, "state": { "$in": ["planned", "ready", "leased"] } };
        for task in find(db, "aviary", open).await {
            left.push(format!("{} {}", text(&task, "state"), text(&task, "_id")));
        }
        for turn in find(db, "aviary", doc! { "kind": "turn", "job": { "$type": "string" } }).await
        {
            left.push(format!("turn {}", text(&turn, "_id")));
        }
        if left.is_empty() {
            return;
        }
        if calm.elapsed() > CALM_MAX {
            for what in left {
                world.history.add(What::Left { db: db.name().to_owned(), what });
            }
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// How often odd daemons met what is wrong with them. What others do with one that is too small, or whose
/// clock is off, is nothing that shows: each start of such a one counts.
fn odd_daemons(world: &World) {
    for member in &world.fleet.members {
        let Some(oddity) = member.oddity else { continue };
        let times = match oddity.says() {
            Some(words) => {
                let logs = member.logs(&world.bed);
                logs.iter().map(|log| log.lines().filter(|line| line.contains(words)).count()).sum()
            }
            None => member.pids().len(),
        };
        world.fired(oddity.class(), times as i64, &member.name);
    }
}

fn is_over(job: &Document) -> bool {
    let is_over = ["succeeded", "failed", "cancelled"].contains(&text(job, "state"));
    is_over && job.get_bool("cleaned").unwrap_or(false)
}

fn number(job: &Document) -> i64 {
    text(job, "tag").strip_prefix("chaos-").and_then(|n| n.parse().ok()).unwrap_or(-1)
}

fn text<'a>(document: &'a Document, field: &str) -> &'a str {
    document.get_str(field).unwrap_or_default()
}

async fn find(db: &Database, collection: &str, filter: Document) -> Vec<Document> {
    let collection = db.collection(collection);
    patiently(|| async {
        let found = collection.find(filter.clone()).await?;
        found.try_collect().await
    })
    .await
}

/// Asks a deployment that may not answer yet.
async fn patiently<T, W: Future<Output = mongodb::error::Result<T>>>(ask: impl Fn() -> W) -> T {
    let began = Instant::now();
    loop {
        match ask().await {
            Ok(found) => return found,
            Err(error) => assert!(began.elapsed() < PATIENCE, "no answer: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

impl World {
    /// Runs the binary against the whole deployment.
    pub async fn aviary<S: AsRef<std::ffi::OsStr>>(&self, db: &str, args: &[S]) -> Ran {
        let mut env = self.bed.env();
        env.push(("AVIARY_DB".to_owned(), db.to_owned()));
        run(args, &env).await
    }
}
