//! Which tasks a worker may try to claim: those of open jobs, found job by job.
//!
//! Anybody who may write to the collection can put any number of documents in front of everybody else's. So a claimer
//! does not take whatever looks like a task with the highest priority: it reads which jobs are open, and asks for
//! tasks that are exactly these jobs' own, by their names and the types of their fields. What is nobody's, or nobody can
//! claim, is not even seen. Jobs are read in pages, and their tasks looked for some at a time; where that finds nothing,
//! the next look goes on behind it. Of those found, [`shares`](crate::protocol::shares) says whose go first.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use futures_util::future::join_all;
use mongodb::Collection;
use mongodb::options::{Hint, ReadConcern};
use rand::seq::SliceRandom;

use super::Store;
use super::batches::integer;
use super::error::{Action, classify};
use super::leases::claimable;
use super::schema::CLAIM_INDEX;
use crate::config;
use crate::error::Result;
use crate::ids::{JobId, TaskId};
use crate::job::limits::{JOB_ID_LEN, PLANS_MAX, is_job_id};
use crate::job::{Job, JobState, requires};
use crate::protocol::shares::Contender;
use crate::request::document::NAME_BYTES_MAX;
use crate::task::{TaskKind, TaskState};

/// A task that may be claimed.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) id: TaskId,
    pub(super) shard: String,
    pub(super) publishes: bool,
    /// A worker has vanished with it before.
    pub(super) was_lost: bool,
}

/// What is known of open jobs since the last look, and where the next one goes on.
#[derive(Debug, Default)]
pub(super) struct OpenJobs(Mutex<Page>);

#[derive(Debug, Clone, Default)]
struct Page {
    jobs: Vec<OpenJob>,
    /// The priority and id of the last one, if there may be more.
    last: Option<(i32, String)>,
    /// The page comes after this priority and job; nothing for the first page.
    after: Option<(i32, String)>,
    /// Jobs of the page whose tasks were looked for without finding any.
    passed: HashSet<JobId>,
}

#[derive(Debug, Clone)]
struct OpenJob {
    id: JobId,
    client: String,
    priority: i32,
    plan: i32,
    publishes: bool,
    map_tasks: i64,
    reduce_tasks: i64,
}

impl OpenJob {
    fn contender(&self) -> Contender {
        Contender {
            job: self.id.clone(),
            client: self.client.clone(),
            priority: self.priority,
            publishes: self.publishes,
            tasks: 0,
        }
    }
}

impl OpenJobs {
    fn lock(&self) -> std::sync::MutexGuard<'_, Page> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// A few tasks that may be claimed, in the order in which slots go to their jobs. Publish tasks belong to no shard.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`] when there is something that could not be asked, and nothing was found.
    pub(super) async fn candidates(&self, limit: usize) -> Result<Vec<Candidate>> {
        let page = self.open_jobs_page().await?;
        let wanted: Vec<&OpenJob> = page
            .jobs
            .iter()
            .filter(|job| !page.passed.contains(&job.id) && !self.avoids(&job.id))
            .collect();
        let mut contenders: Vec<Contender> = wanted.iter().map(|job| job.contender()).collect();
        let now = self.accounts.now();
        let order = self.accounts.lock().order(&contenders, config::CLAIM_LOOKS_MAX, now);
        let mut found: Vec<Vec<Candidate>> = Vec::new();
        found.resize_with(wanted.len(), Vec::new);
        let (mut failed, mut passed, mut count) = (None, HashSet::new(), 0);
        // Most often there is one job, and one look.
        const LOOKS_AT_ONCE: usize = 8;
        for places in order.chunks(LOOKS_AT_ONCE) {
            let jobs = || places.iter().filter_map(|place| Some((*place, wanted.get(*place)?)));
            let looks = join_all(jobs().map(|(_, job)| self.candidates_of(job, limit))).await;
            for ((place, job), tasks) in jobs().zip(looks) {
                passed.insert(job.id.clone());
                match (tasks, found.get_mut(place), contenders.get_mut(place)) {
                    (Ok(mut tasks), Some(found), Some(contender)) => {
                        // Many workers that claim at once do not all try the same task.
                        tasks.shuffle(&mut rand::rng());
                        count += tasks.len();
                        contender.tasks = tasks.len();
                        *found = tasks;
                    }
                    // Either link may be away while there is work behind the other.
                    (Err(error), ..) => failed = Some(error),
                    _ => {}
                }
            }
            if count >= limit {
                break;
            }
        }
        self.go_on(&page, passed, wanted.len(), count == 0);
        let places = self.accounts.lock().assign(&contenders, limit, now);
        let in_turn = places.into_iter().filter_map(|place| found.get_mut(place)?.pop()).collect();
        match failed {
            Some(error) if count == 0 => Err(error),
            _ => Ok(in_turn),
        }
    }

    /// Notes where the next look begins: anywhere as long as something is found, else behind what was looked at.
    fn go_on(&self, page: &Page, passed: HashSet<JobId>, wanted: usize, is_empty: bool) {
        let is_all = passed.len() >= wanted;
        let mut next = self.open_jobs.lock();
        if is_all || !is_empty {
            next.passed.clear();
            next.after = page.last.clone().filter(|_| is_empty);
        } else {
            next.passed.extend(passed);
        }
    }

    /// The open jobs that a look is for. Where they cannot be asked for, those of the last look have to do.
    async fn open_jobs_page(&self) -> Result<Page> {
        let before = self.open_jobs.lock().clone();
        let read = self.read_open_jobs(before.after.as_ref()).await;
        let (jobs, last) = match read {
            Ok(read) => read,
            Err(error) if before.jobs.is_empty() => return Err(error),
            Err(error) => {
                tracing::debug!(%error, "could not read open jobs; going by the last look");
                return Ok(before);
            }
        };
        let mut page = self.open_jobs.lock();
        (page.jobs, page.last) = (jobs, last);
        Ok(page.clone())
    }

    async fn read_open_jobs(
        &self,
        after: Option<&(i32, String)>,
    ) -> Result<(Vec<OpenJob>, Option<(i32, String)>)> {
        const ACTION: &str = "look for open jobs";
        let open = [JobState::Mapping, JobState::Reducing, JobState::Publishing];
        let mut filter = doc! {
            "shard": self.home(),
            "kind": "job",
            "state": { "$in": open.map(JobState::as_str).to_vec() },
            "_id": job_id_pattern(),
            "spec": { "$type": "object" },
            "plan": { "$type": "int", "$gte": 1, "$lte": i32::try_from(PLANS_MAX).unwrap_or(i32::MAX) },
            "priority": { "$type": "int" },
        };
        if let Some((priority, id)) = after {
            filter.insert(
                "$or",
                vec![
                    doc! { "priority": { "$lt": priority } },
                    doc! { "priority": priority, "_id": { "$gt": id } },
                ],
            );
        }
        let rows: Vec<Document> = self
            .aviary()
            .find(filter)
            .projection(doc! {
                "_id": 1, "priority": 1, "plan": 1, "state": 1, "map_tasks": 1, "reduce_tasks": 1,
                "requires": 1, "client": 1,
            })
            .sort(doc! { "priority": -1, "_id": 1 })
            .limit(i64::try_from(config::CLAIM_JOBS_MAX).unwrap_or(i64::MAX))
            .read_concern(ReadConcern::local())
            .await
            .action(ACTION)?
            .try_collect()
            .await
            .action(ACTION)?;
        let jobs: Vec<OpenJob> = rows.iter().filter_map(open_job).collect();
        let last = jobs.last().map(|job| (job.priority, job.id.to_string()));
        let last = last.filter(|_| rows.len() >= config::CLAIM_JOBS_MAX);
        Ok((jobs, last))
    }

    /// A few of a job's tasks that may be claimed.
    async fn candidates_of(&self, job: &OpenJob, limit: usize) -> Result<Vec<Candidate>> {
        let avoided = self.avoided_tasks(&job.id);
        let near = async |kinds: &[TaskKind]| {
            let filter = claimable_of(job, self.served(), kinds, &avoided);
            find(&self.aviary_of_served(), filter, limit).await
        };
        if !job.publishes {
            return near(&[TaskKind::Map, TaskKind::Reduce]).await;
        }
        if self.serves_home() {
            return near(&[TaskKind::Publish]).await;
        }
        let filter = claimable_of(job, self.home().into(), &[TaskKind::Publish], &avoided);
        find(&self.aviary(), filter, limit).await
    }
}

fn open_job(row: &Document) -> Option<OpenJob> {
    let count = |field: &str| integer(row.get(field));
    let id = JobId::from_text(row.get_str("_id").ok()?);
    // What is no number is found out when the job is read.
    let required = row.get_i32("requires").unwrap_or(0);
    if required > requires::level() {
        tracing::debug!(job = %id, required, level = requires::level(), "left to workers of a newer version");
        return None;
    }
    is_job_id(&id).then_some(OpenJob {
        priority: row.get_i32("priority").ok()?,
        plan: row.get_i32("plan").ok()?,
        publishes: row.get_str("state").ok()? == JobState::Publishing.as_str(),
        client: row
            .get_str("client")
            .ok()
            .filter(|text| text.len() <= NAME_BYTES_MAX)
            .unwrap_or_default()
            .into(),
        map_tasks: count("map_tasks").clamp(0, i64::from(config::SPLITS_MAX)),
        reduce_tasks: count("reduce_tasks").clamp(0, i64::from(config::PARTITIONS_MAX)),
        id,
    })
}

/// A condition on an `_id` that holds for ids of jobs alone.
pub(super) fn job_id_pattern() -> Document {
    doc! { "$regex": format!("^[0-9a-f]{{{JOB_ID_LEN}}}$") }
}

async fn find(
    aviary: &Collection<Document>,
    filter: Document,
    limit: usize,
) -> Result<Vec<Candidate>> {
    const ACTION: &str = "look for tasks";
    // No other index keeps tasks that have ended out of the way.
    let rows = match find_with(aviary, filter.clone(), limit, Some(CLAIM_INDEX)).await {
        Err(error) if is_bad_hint(&error) => find_with(aviary, filter, limit, None).await,
        read => read,
    }
    .action(ACTION)?;
    let candidate = |row: &Document| {
        Some(Candidate {
            id: TaskId::from_text(row.get_str("_id").ok()?),
            shard: row.get_str("shard").ok()?.to_owned(),
            publishes: row.get_str("kind").ok()? == TaskKind::Publish.as_str(),
            was_lost: row.get_str("state").ok()? != TaskState::Ready.as_str()
                || row.get_i32("lost").is_ok_and(|lost| lost > 0),
        })
    };
    Ok(rows.iter().filter_map(candidate).collect())
}

async fn find_with(
    aviary: &Collection<Document>,
    filter: Document,
    limit: usize,
    hint: Option<&str>,
) -> mongodb::error::Result<Vec<Document>> {
    let mut find = aviary
        .find(filter)
        .projection(doc! { "_id": 1, "shard": 1, "kind": 1, "state": 1, "lost": 1 })
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .read_concern(ReadConcern::local());
    if let Some(name) = hint {
        find = find.hint(Hint::Name(name.to_owned()));
    }
    find.await?.try_collect().await
}

/// Whether the server has no index of the name that it was given.
fn is_bad_hint(error: &mongodb::error::Error) -> bool {
    const BAD_VALUE: i32 = 2;
    classify(error).code == Some(BAD_VALUE)
}

/// A job's tasks on these shards that may be claimed now.
fn claimable_of(job: &OpenJob, shards: Bson, kinds: &[TaskKind], avoided: &[String]) -> Document {
    let mut filter = claimable(shards);
    let counts = [job.map_tasks, job.reduce_tasks];
    // Fields of other types than a claim can compute with are found by trying, and the task is then avoided: a schema here
    // would take the server longer than all the rest.
    filter.extend(own_tasks(&job.id, job.plan, counts, kinds));
    // With these two the index leads to this job's tasks alone. A task without a priority has that of most jobs.
    filter.insert(
        "priority",
        match job.priority {
            0 => doc! { "$in": [0, Bson::Null] },
            other => doc! { "$eq": other },
        },
    );
    filter.insert("_id", ids_of_job(&job.id));
    if !avoided.is_empty() {
        filter.insert("$and", vec![doc! { "_id": { "$nin": avoided } }]);
    }
    filter
}

/// The range that the ids of a job's tasks are in.
fn ids_of_job(job: &JobId) -> Document {
    let after_the_slash = char::from(b'/' + 1);
    doc! { "$gte": format!("{job}/"), "$lt": format!("{job}{after_the_slash}") }
}

/// A condition that holds for the tasks of a job's plan alone: those of its numbers under their own names, of which
/// nobody else can write another. `counts` are the map and reduce tasks of the plan.
pub(super) fn own_tasks(job: &JobId, plan: i32, counts: [i64; 2], kinds: &[TaskKind]) -> Document {
    let [maps, reduces] = counts;
    let numbered = |kind: TaskKind, count: i64, name: fn(&JobId, i32, u32) -> TaskId| {
        let last = u32::try_from(count - 1).unwrap_or(0);
        let form = format!("^.{{{}}}/{}/{plan}\\.[0-9]{{5}}$", job.as_str().len(), kind.as_str());
        doc! {
            "kind": kind.as_str(),
            "n": { "$gte": 0, "$lt": count },
            "_id": { "$gte": name(job, plan, 0), "$lte": name(job, plan, last), "$regex": form },
        }
    };
    let of_kind = |kind: &TaskKind| match kind {
        TaskKind::Map => numbered(*kind, maps, TaskId::map),
        TaskKind::Reduce => numbered(*kind, reduces, TaskId::reduce),
        TaskKind::Publish => {
            doc! { "kind": kind.as_str(), "n": 0, "_id": TaskId::publish(job, plan) }
        }
    };
    let any: Vec<Document> = kinds.iter().map(of_kind).collect();
    doc! {
        "job": job,
        "plan": plan,
        "kind": { "$in": kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>() },
        "$or": any,
    }
}

/// The same for a job as it was read.
pub(super) fn own_tasks_of(job: &Job, kinds: &[TaskKind]) -> Document {
    let counts = [i64::from(job.map_tasks), i64::from(job.reduce_tasks)];
    own_tasks(&job.id, job.plan, counts, kinds)
}

/// A condition: the fields that an update computes with, or that a task is read with, have their types. An update of many
/// that met one that has not would end there.
///
/// A schema, because other conditions on types look into arrays. Its names are none of a task's own filter.
pub(super) fn well_typed() -> Document {
    let is = |types: &[&str]| Bson::from(doc! { "bsonType": types.to_vec() });
    let number = ["int", "long"];
    // Fields that may be missing have their type only if they are there.
    doc! { "$jsonSchema": {
        "required": ["job", "plan", "n", "epoch", "attempts"],
        "properties": {
            "job": is(&["string"]),
            "plan": is(&["int"]),
            "n": is(&number),
            "priority": is(&["int"]),
            "epoch": is(&number),
            "attempts": is(&["int"]),
            "lost": is(&["int"]),
            "history": is(&["array"]),
            "worker": is(&["string"]),
            "token": is(&["string"]),
            "until": is(&["date"]),
            "not_before": is(&["date"]),
            "waiting": is(&["object"]),
            "split": is(&["object"]),
            "error": is(&["object"]),
            "publish": is(&["object"]),
        },
    } }
}

/// An expression: there is room in the document for what is written with a claim or at its end.
pub(super) fn has_room() -> Document {
    const TASK_BYTES_MAX: i32 = 15 << 20;
    doc! { "$lt": [{ "$bsonSize": "$$ROOT" }, TASK_BYTES_MAX] }
}
