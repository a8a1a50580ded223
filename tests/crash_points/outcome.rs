//! What a run must leave, and how it can fail to.

use std::time::{Duration, Instant};

use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::Database;

use crate::jobs::{Content, Kind, SOURCE, TARGET, content, difference};

/// Nothing takes longer that comes to an end.
pub const CEILING: Duration = Duration::from_secs(120);

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Exact,
    /// Everything is as it should be, but the point did not come.
    NotReached,
    /// A target, a result, a counter or a job's end is not what it must be.
    Wrong(String),
    /// Something did not end.
    Stuck(String),
    /// Something of an ended job stays.
    Leftovers(String),
}

impl Verdict {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::NotReached => "not reached",
            Self::Wrong(_) => "wrong",
            Self::Stuck(_) => "stuck",
            Self::Leftovers(_) => "leftovers",
        }
    }

    pub fn is_bad(&self) -> bool {
        !matches!(self, Self::Exact | Self::NotReached)
    }
}

/// Every document of a collection.
pub async fn all(db: &Database, name: &str) -> Vec<Document> {
    let found = db.collection(name).find(doc! {}).await.expect("found");
    found.try_collect().await.expect("read")
}

/// A job's document, but for what `rm` leaves of it.
pub async fn job(db: &Database, id: &str) -> Option<Document> {
    db.collection("aviary").find_one(doc! { "_id": id, "kind": "job" }).await.expect("read")
}

async fn is_answered(db: &Database, id: &str) -> bool {
    let answered = doc! { "_id": id, "state": { "$exists": true } };
    let requests = db.collection::<Document>("aviary-requests");
    requests.find_one(answered).await.expect("read").is_some()
}

pub fn text<'a>(document: &'a Document, field: &str) -> &'a str {
    document.get_str(field).unwrap_or_default()
}

/// Waits until every job has ended and been cleaned up after, and returns what is left of them.
pub async fn ended(db: &Database, ids: &[String]) -> Result<Vec<Option<Document>>, Verdict> {
    let mut jobs = Vec::new();
    for id in ids {
        let found = until(async || {
            let mut seen = job(db, id).await;
            if seen.is_none() {
                if !is_answered(db, id).await {
                    return None;
                }
                // It may have come between the two looks; one that was answered and is not there was removed.
                seen = job(db, id).await;
            }
            let Some(job) = seen else { return Some(None) };
            let state = text(&job, "state");
            let cleaned = job.get_bool("cleaned").unwrap_or(false);
            let has_ended = state == "stopped"
                || cleaned && ["succeeded", "failed", "cancelled"].contains(&state);
            has_ended.then_some(Some(job))
        });
        let Some(job) = found.await else {
            let job = job(db, id).await.unwrap_or_default();
            let tasks = open_tasks(db).await.join(", ");
            let state =
                format!("job {id} is {}, cleaned {:?}", text(&job, "state"), job.get("cleaned"));
            return Err(Verdict::Stuck(format!("{state}, open tasks: {tasks}")));
        };
        jobs.push(job);
    }
    Ok(jobs)
}

/// Asks until there is an answer, or the ceiling is reached; ever more rarely, for asking takes of the time that the
/// daemons of all runs share.
pub async fn until<T>(ask: impl AsyncFn() -> Option<T>) -> Option<T> {
    const RAREST: Duration = Duration::from_millis(400);
    asking(Duration::from_millis(40), RAREST, ask).await
}

/// The same, always as often.
pub async fn until_every<T>(pause: Duration, ask: impl AsyncFn() -> Option<T>) -> Option<T> {
    asking(pause, pause, ask).await
}

async fn asking<T>(
    mut pause: Duration,
    rarest: Duration,
    ask: impl AsyncFn() -> Option<T>,
) -> Option<T> {
    let began = Instant::now();
    while began.elapsed() < CEILING {
        if let Some(found) = ask().await {
            return Some(found);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(rarest);
    }
    None
}

/// What must be in the target, given how the jobs ended.
pub fn expected(kind: Kind, jobs: &[Document]) -> Result<Vec<Content>, Verdict> {
    let mut succeeded = 0;
    for job in jobs {
        match text(job, "state") {
            "succeeded" => {
                succeeded += 1;
                // Of a job that is removed as it ends, they may not be there yet.
                if kind != Kind::Remove {
                    counted(kind, job)?;
                }
            }
            "cancelled" if kind.cancelled_in().is_some() => {}
            state => {
                let error = job.get_document("error").map(|error| text(error, "message"));
                let error = error.unwrap_or_default();
                return Err(Verdict::Wrong(format!("the job is {state}: {error}")));
            }
        }
    }
    if succeeded == jobs.len() {
        return Ok(vec![kind.after()]);
    }
    // A merge may have been given up half-way; nothing else may.
    let merges = kind.mode() == "reduce";
    Ok(if merges { vec![kind.before(), kind.after()] } else { vec![kind.before()] })
}

fn counted(kind: Kind, job: &Document) -> Result<(), Verdict> {
    let counters = job.get_document("counters").cloned().unwrap_or_default();
    for (name, expected) in kind.counters() {
        let found = counters.get_i64(name).or_else(|_| counters.get_i32(name).map(i64::from));
        if found.ok() != Some(expected) {
            return Err(Verdict::Wrong(format!("{name} is {expected}, counted as {counters}")));
        }
    }
    Ok(())
}

/// Compares the target, or an inline result, with what may be there. After a merge that was given up
/// half-way each document is as it was or as it was to be.
pub fn compare(may_be: &[Content], found: &Content) -> Result<(), Verdict> {
    let wrong = match may_be {
        [only] => difference(only, found),
        [before, after] => {
            let either = found.iter().map(|(id, document)| {
                let old = before.get(id).filter(|old| *old == document);
                (*id, old.or_else(|| after.get(id)).cloned().unwrap_or_default())
            });
            let mut either: Content = either.collect();
            either.extend(
                before
                    .iter()
                    .filter(|(id, _)| !found.contains_key(id))
                    .map(|(id, document)| (*id, document.clone())),
            );
            difference(&either, found)
        }
        _ => unreachable!("one or two"),
    };
    wrong.map_or(Ok(()), |wrong| Err(Verdict::Wrong(wrong)))
}

/// The target, or the inline result of a job.
pub async fn found(db: &Database, kind: Kind, ids: &[String]) -> Content {
    let name = if kind.has_target() { TARGET.to_owned() } else { format!("aviary-out-{}", ids[0]) };
    content(all(db, &name).await)
}

/// Whatever only a job in the making may own.
pub async fn leftovers(db: &Database, kept: Option<&str>) -> Vec<String> {
    let names = db.list_collection_names().await.expect("listed");
    let own =
        ["aviary", "aviary-failed", "aviary-funcs", "aviary-intermediates", "aviary-requests"];
    let known = [&[SOURCE, TARGET], &own[..]].concat();
    let mut left: Vec<String> = names
        .into_iter()
        .filter(|name| !known.contains(&name.as_str()) && kept != Some(name.as_str()))
        .collect();
    let blocks = all(db, "aviary-intermediates").await.len();
    if blocks > 0 {
        left.push(format!("{blocks} blocks"));
    }
    left.extend(open_tasks(db).await);
    let turns = doc! { "kind": "turn", "job": { "$type": "string" } };
    let aviary = db.collection::<Document>("aviary");
    if let Some(turn) = aviary.find_one(turns).await.expect("read") {
        left.push(format!("the turn {turn}"));
    }
    left
}

/// Tasks, log lines, failed records and whatever else names a job that is not there.
pub async fn of_removed(db: &Database, id: &str) -> Vec<String> {
    let of_job = doc! { "job": id };
    let mut left = Vec::new();
    for name in ["aviary", "aviary-failed"] {
        let found = db.collection::<Document>(name).find(of_job.clone()).await.expect("found");
        let found: Vec<Document> = found.try_collect().await.expect("read");
        left.extend(found.iter().map(|document| format!("{document} of a removed job")));
    }
    left
}

async fn open_tasks(db: &Database) -> Vec<String> {
    let open = doc! {
        "kind": { "$in": ["map", "reduce", "publish"] },
        "state": { "$in": ["planned", "ready", "leased"] },
    };
    let found = db.collection::<Document>("aviary").find(open).await.expect("found");
    let found: Vec<Document> = found.try_collect().await.expect("read");
    found.iter().map(|task| format!("{} {}", text(task, "state"), text(task, "_id"))).collect()
}
