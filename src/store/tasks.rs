//! Task documents as a coordinator and a reader of listings see them; the holder's side is in
//! [`leases`](super::leases).

use std::collections::BTreeMap;

use bson::raw::RawDocumentBuf;
use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;

use super::Store;
use super::claims::{job_id_pattern, own_tasks, own_tasks_of};
use super::error::{Action, classify};
use super::readable::{Listed, list, read_one};
use crate::config;
use crate::error::{Error, Result, StoreErrorKind};
use crate::ids::{JobId, TaskId, Token};
use crate::job::Job;
use crate::job::limits::{RUNS_MAX, within};
use crate::planted::planted;
use crate::shuffle::block::Block;
use crate::task::state::TaskEvent;
use crate::task::{
    JobPhases, KeptBlock, Marks, PartManifest, Publish, Task, TaskKind, TaskState, Waiting,
};

/// One map task's committed runs for one partition.
#[derive(Debug, Clone)]
pub struct MapRuns {
    /// The map task.
    pub task: TaskId,
    /// The shard its document lives on.
    pub shard: String,
    /// Its number, which orders the runs.
    pub n: u32,
    /// The attempt whose blocks count.
    pub token: Token,
    /// Blocks in each run.
    pub runs: Vec<u32>,
    /// Where the blocks are.
    pub blocks: Blocks,
}

/// Where the blocks of a map task are.
#[derive(Debug, Clone)]
pub enum Blocks {
    /// Documents of their own.
    Apart,
    /// Here, by run and place: they came with the manifest.
    Here(BTreeMap<(u32, u32), Block>),
    /// In the map task's document.
    InTask,
}

impl MapRuns {
    /// Takes what a manifest says of a partition, and its blocks if they came with it, as long as there is room for so
    /// many bytes of them.
    ///
    /// # Errors
    /// [`Error::BlockMissing`] where blocks should have come that are not there.
    pub fn take(&mut self, part: PartManifest, room: &mut usize) -> Result<()> {
        if part.kept.is_empty() {
            self.runs = part.runs;
            return Ok(());
        }
        self.runs = kept_runs(&part).ok_or_else(|| lost_kept(self))?;
        let bytes: usize = part.kept.iter().map(|block| block.data.bytes.len()).sum();
        self.blocks = match room.checked_sub(bytes) {
            Some(less) => {
                *room = less;
                Blocks::Here(part.kept.into_iter().map(kept_block).collect())
            }
            None => Blocks::InTask,
        };
        Ok(())
    }
}

/// A block out of its map task's document, by run and place. Whether it is intact is for its reader to check.
fn kept_block(kept: KeptBlock) -> ((u32, u32), Block) {
    let KeptBlock { run, seq, records, raw_bytes, crc32, codec, data } = kept;
    ((run, seq), Block { seq, records, raw_bytes, crc32, codec, data: data.bytes })
}

/// How many blocks each run has of a part whose blocks lie in the task's document; nothing if some are not there.
fn kept_runs(part: &PartManifest) -> Option<Vec<u32>> {
    let mut runs: Vec<u32> = Vec::new();
    for block in &part.kept {
        match usize::try_from(block.run).ok()? {
            last if last + 1 == runs.len() => *runs.last_mut()? += 1,
            next if next == runs.len() => runs.push(1),
            _ => return None,
        }
        (block.seq + 1 == *runs.last()?).then_some(())?;
    }
    (runs.len() == usize::try_from(part.apart).ok()?).then_some(runs)
}

fn lost_kept(of: &MapRuns) -> Error {
    Error::BlockMissing {
        block: format!("{}/{}", of.task, of.token),
        damage: Some("its task's document does not hold it".into()),
        task: of.task.clone(),
        shard: of.shard.clone(),
        token: of.token.clone(),
    }
}

/// What a listing of tasks is narrowed to.
#[derive(Debug, Clone, Default)]
pub struct TaskFilter {
    /// Only tasks in this state.
    pub state: Option<TaskState>,
    /// The longest-running first.
    pub slowest: bool,
    /// At most this many; 0 for all.
    pub limit: i64,
}

impl Store {
    /// Writes tasks; those that exist already are left as they are, so a repeated call is harmless.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn insert_tasks(&self, tasks: &[Task]) -> Result<()> {
        const TASKS_PER_INSERT_MAX: usize = 1_000;
        for chunk in tasks.chunks(TASKS_PER_INSERT_MAX) {
            let written =
                self.aviary().clone_with_type::<Task>().insert_many(chunk).ordered(false).await;
            match written {
                Ok(_) => {}
                Err(e) if classify(&e).kind == StoreErrorKind::DuplicateKey => {}
                Err(e) => return Err(e).action("write tasks"),
            }
        }
        Ok(())
    }

    /// Opens a phase: its planned tasks become ready.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn open_phase(&self, job: &Job, kind: TaskKind) -> Result<u64> {
        let outcome = self
            .aviary()
            .update_many(
                doc! {
                    "job": &job.id,
                    "kind": kind.as_str(),
                    "plan": job.plan,
                    "state": TaskState::Planned.as_str(),
                },
                doc! { "$set": { "state": TaskState::Ready.as_str() } },
            )
            .await
            .action("open a phase")?;
        Ok(outcome.modified_count)
    }

    /// What keeps the phase of a job's `current` tasks from its end, if anything does: a task that is planned still or
    /// given up, of the phase or of the one before, else one that somebody may claim or has claimed. The answer costs
    /// the same however many tasks there are, and holds only what a coordinator decides by: none counts as done. Nothing
    /// when every task has ended: they have to be counted.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn unfinished(&self, job: &Job, current: TaskKind) -> Result<Option<JobPhases>> {
        let before = match current {
            TaskKind::Reduce => vec![TaskKind::Map, TaskKind::Reduce],
            other => vec![other],
        };
        let any = async |kinds: &[TaskKind], states: [TaskState; 2]| {
            let mut filter = own_tasks_of(job, kinds);
            filter.insert("state", doc! { "$in": states.map(TaskState::as_str).to_vec() });
            let aviary = self.aviary();
            let find = aviary.find_one(filter).projection(doc! { "kind": 1, "state": 1 });
            find.await.action("look for unfinished tasks")
        };
        let current = [current];
        let (decisive, open) = futures_util::try_join!(
            any(&before, [TaskState::Planned, TaskState::Quarantined]),
            any(&current, [TaskState::Ready, TaskState::Leased]),
        )?;
        let Some(row) = decisive.or(open) else { return Ok(None) };
        let mut phases = JobPhases::default();
        let phase = match row.get_str("kind") {
            Ok("reduce") => &mut phases.reduce,
            _ => &mut phases.map,
        };
        if let Ok(state) = row.get_str("state").unwrap_or_default().parse() {
            phase.add(state, 1);
        }
        Ok(Some(phases))
    }

    /// Counts a job's tasks by phase and state.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn phases(&self, job: &Job) -> Result<JobPhases> {
        let mut counts = self
            .aviary()
            .aggregate(vec![
                doc! { "$match": own_tasks_of(job, &[TaskKind::Map, TaskKind::Reduce]) },
                doc! { "$group": { "_id": { "kind": "$kind", "state": "$state" }, "n": { "$sum": 1_i64 } } },
            ])
            .await
            .action("count tasks")?;
        let mut phases = JobPhases::default();
        while let Some(row) = counts.try_next().await.action("count tasks")? {
            let n = row.get_i64("n").ok().and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
            let id = row.get_document("_id").cloned().unwrap_or_default();
            let phase = match id.get_str("kind") {
                Ok("reduce") => &mut phases.reduce,
                _ => &mut phases.map,
            };
            phase.total += n;
            // A state of a newer version counts in the total alone.
            if let Ok(state) = id.get_str("state").unwrap_or_default().parse() {
                phase.add(state, n);
            }
        }
        Ok(phases)
    }

    /// Sums the counters of a job's committed tasks.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn counters(&self, job: &Job) -> Result<Document> {
        let mut own = crate::task::counters::BUILT_IN.to_vec();
        own.extend(crate::task::counters::AT_TIMES);
        let mut rows = self
            .aviary()
            .aggregate(vec![
                doc! { "$match": { "job": &job.id, "plan": job.plan, "state": TaskState::Done.as_str() } },
                doc! { "$project": { "c": { "$objectToArray": "$result.counters" } } },
                doc! { "$unwind": "$c" },
                doc! { "$group": { "_id": "$c.k", "n": { "$sum": "$c.v" } } },
                // Ours first: a job whose functions name ever new counters keeps them, and loses the rest.
                doc! { "$addFields": { "own": { "$in": ["$_id", own] } } },
                doc! { "$sort": { "own": -1, "_id": 1 } },
                doc! { "$limit": config::JOB_COUNTERS_MAX },
            ])
            .await
            .action("sum counters")?;
        if planted("counters-early") {
            let job = self.aviary().find_one(doc! { "_id": &job.id, "shard": self.home() }).await;
            let job = job.action("sum counters")?.unwrap_or_default();
            return Ok(job.get_document("early").cloned().unwrap_or_default());
        }
        let mut sums = Document::new();
        for name in crate::task::counters::BUILT_IN {
            sums.insert(name, 0_i64);
        }
        while let Some(row) = rows.try_next().await.action("sum counters")? {
            if let (Ok(name), Some(n)) = (row.get_str("_id"), row.get("n")) {
                sums.insert(name, n.clone());
            }
        }
        Ok(sums)
    }

    /// The committed runs of one partition, in the order of the map tasks.
    ///
    /// # Errors
    /// [`Error::NotYet`] while a map task of the plan is not committed (one whose blocks were lost
    /// runs again), [`Error::BlockMissing`] when runs that are named apart are not there, [`Error::Store`].
    pub async fn manifest(&self, task: &Task, map_tasks: u32) -> Result<Vec<MapRuns>> {
        #[cfg(feature = "mutants")]
        if planted("blocks-uncommitted") {
            return self.every_run(task).await;
        }
        let counts = [i64::from(map_tasks), 0];
        let mut committed = own_tasks(&task.job, task.plan, counts, &[TaskKind::Map]);
        committed.insert("state", TaskState::Done.as_str());
        let mut cursor = self
            .aviary()
            .find(committed)
            .projection(doc! {
                "n": 1,
                "shard": 1,
                "result.token": 1,
                "result.parts": { "$filter": {
                    "input": "$result.parts",
                    "as": "part",
                    "cond": { "$eq": ["$$part.p", i64::from(task.n)] },
                } },
            })
            .await
            .action("read the manifest")?;
        let mut runs = Vec::new();
        let (mut seen, mut count): (u32, u64) = (0, 0);
        let mut room = config::KEPT_READ_BYTES_MAX;
        while let Some(row) = cursor.try_next().await.action("read the manifest")? {
            seen += 1;
            let malformed = || Error::Internal(format!("a map task of {} is malformed", task.job));
            let id = row.get_str("_id").map_err(|_| malformed())?;
            let shard = row.get_str("shard").map_err(|_| malformed())?;
            let n = int(row.get("n")).ok_or_else(malformed)?;
            let result = row.get_document("result").map_err(|_| malformed())?;
            let token = result.get_str("token").map_err(|_| malformed())?;
            let Some(part) = result.get_array("parts").ok().and_then(|parts| parts.first()) else {
                continue;
            };
            let part: PartManifest = bson::deserialize_from_bson(part.clone())
                .map_err(|e| Error::Internal(format!("a manifest is malformed: {e}")))?;
            let (apart, is_kept) = (part.apart, !part.kept.is_empty());
            let mut of = MapRuns {
                task: TaskId::from_text(id),
                shard: shard.to_owned(),
                n,
                token: Token::from_text(token),
                runs: Vec::new(),
                blocks: Blocks::Apart,
            };
            of.take(part, &mut room)?;
            if apart > 0 && !is_kept {
                of.runs = self.runs_apart(task, &of, apart).await?;
            }
            // Each is opened, or at least waits to be.
            count += of.runs.len() as u64;
            within("result.parts.runs", count, RUNS_MAX)?;
            runs.push(of);
        }
        if seen < map_tasks && !planted("maps-incomplete") {
            return Err(Error::NotYet(format!("{seen} of {map_tasks} map tasks are committed")));
        }
        runs.sort_by_key(|run| run.n);
        Ok(runs)
    }

    /// Reads one block out of the document of the map task that wrote it.
    ///
    /// # Errors
    /// [`Error::BlockMissing`] when it is not there, [`Error::Store`].
    pub async fn kept_block(&self, of: &MapRuns, p: u32, run: u32, seq: u32) -> Result<Block> {
        let found = self
            .aviary_at(&of.shard)
            .find_one(doc! { "_id": &of.task, "shard": &of.shard, "result.token": &of.token })
            .projection(doc! { "_id": 0, "result.parts": { "$filter": {
                "input": "$result.parts",
                "as": "part",
                "cond": { "$eq": ["$$part.p", i64::from(p)] },
            } } })
            .await
            .action("read a block of the shuffle")?;
        let part = found.as_ref().and_then(|found| found.get_document("result").ok());
        let part = part.and_then(|result| result.get_array("parts").ok()?.first());
        let part: Option<PartManifest> =
            part.and_then(|part| bson::deserialize_from_bson(part.clone()).ok());
        let mut blocks = part.map(|part| part.kept).unwrap_or_default().into_iter().map(kept_block);
        let block = blocks.find(|(at, _)| *at == (run, seq)).map(|(_, block)| block);
        block.ok_or_else(|| lost_kept(of))
    }

    /// Removes the blocks in the documents of a job's map tasks.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn drop_kept(&self, job: &JobId) -> Result<()> {
        let kept = doc! {
            "job": job,
            "kind": TaskKind::Map.as_str(),
            "result.parts.kept": { "$exists": true },
        };
        let gone = doc! { "$unset": { "result.parts.$[].kept": "" } };
        self.aviary().update_many(kept, gone).await.action("remove blocks of the shuffle")?;
        Ok(())
    }

    /// Lists a job's tasks.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn tasks(&self, job: &Job, filter: &TaskFilter) -> Result<Listed<Task>> {
        let mut query = doc! { "job": &job.id, "kind": every_kind(), "plan": job.plan };
        if let Some(state) = filter.state {
            query.insert("state", state.as_str());
        }
        let mut pipeline = vec![doc! { "$match": query }];
        if filter.slowest {
            pipeline.push(doc! { "$addFields": { "_ran": { "$subtract": [
                { "$cond": [
                    { "$eq": ["$state", TaskState::Leased.as_str()] },
                    "$$NOW",
                    { "$ifNull": ["$finished", { "$ifNull": [{ "$last": "$history.ended" }, "$$NOW"] }] },
                ] },
                { "$ifNull": ["$leased", "$$NOW"] },
            ] } } });
            pipeline.push(doc! { "$sort": { "_ran": -1 } });
        } else {
            pipeline.push(doc! { "$sort": { "_id": 1 } });
        }
        if filter.limit > 0 {
            pipeline.push(doc! { "$limit": filter.limit });
        }
        let found = self
            .aviary()
            .aggregate(pipeline)
            .with_type::<RawDocumentBuf>()
            .await
            .action("read tasks")?;
        list("task", found, "read tasks").await
    }

    /// Cancels every task of an ended job that has not finished; their leases are fenced by it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn cancel_tasks(&self, job: &JobId) -> Result<u64> {
        let outcome = self
            .aviary()
            .update_many(
                doc! { "job": job, "kind": every_kind(), "state": { "$in": open_states() } },
                doc! {
                    "$set": { "state": TaskState::Cancelled.as_str() },
                    "$unset": { "token": "", "until": "", "not_before": "" },
                },
            )
            .await
            .action("cancel tasks")?;
        Ok(outcome.modified_count)
    }

    /// Removes tasks of plans that do not count: of all but this one.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn delete_stale_plans(&self, plan: i32, job: &JobId) -> Result<u64> {
        // The turn that a job has bears its id too, and no plan.
        let stale = doc! { "job": job, "plan": { "$exists": true, "$ne": plan } };
        let outcome =
            self.aviary().delete_many(stale).await.action("remove tasks of an abandoned plan")?;
        Ok(outcome.deleted_count)
    }

    /// Removes every task of a job that was removed.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn delete_tasks(&self, job: &JobId) -> Result<()> {
        self.aviary()
            .delete_many(doc! { "job": job, "kind": every_kind() })
            .await
            .action("remove a removed job's tasks")?;
        Ok(())
    }

    /// Some jobs that have tasks which somebody may yet claim or open, in order: those after this one, at most
    /// [`config::SWEPT_MAX`].
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn jobs_with_open_tasks(&self, after: &str) -> Result<Vec<JobId>> {
        let open = doc! {
            "shard": self.every_shard(),
            "kind": every_kind(),
            "state": { "$in": open_states() },
        };
        self.jobs_of(open, after, "look for open tasks").await
    }

    /// The jobs that documents belong to, in order: some of them. Unlike those of `distinct`, they never become too many
    /// for a reply.
    pub(super) async fn jobs_of(
        &self,
        mut filter: Document,
        after: &str,
        action: &str,
    ) -> Result<Vec<JobId>> {
        let most = i64::try_from(config::SWEPT_MAX).unwrap_or(i64::MAX);
        let mut id = job_id_pattern();
        id.insert("$gt", after);
        filter.insert("job", id);
        let rows: Vec<Document> = self
            .aviary()
            .aggregate(vec![
                doc! { "$match": filter },
                doc! { "$group": { "_id": "$job" } },
                doc! { "$sort": { "_id": 1 } },
                doc! { "$limit": most },
            ])
            .allow_disk_use(true)
            .await
            .action(action)?
            .try_collect()
            .await
            .action(action)?;
        Ok(rows.iter().filter_map(|row| row.get_str("_id").ok().map(JobId::from_text)).collect())
    }

    /// The task that publishes a job's results, once it is there.
    ///
    /// # Errors
    /// [`Error::Newer`], [`Error::Store`].
    pub async fn publish_task(&self, job: &Job) -> Result<Option<Task>> {
        let found = self
            .aviary()
            .clone_with_type::<RawDocumentBuf>()
            .find_one(self.publish_of(job))
            .await
            .action("read the publish task")?;
        read_one("task", found)
    }

    /// The filter for a job's publish task.
    fn publish_of(&self, job: &Job) -> Document {
        doc! { "_id": TaskId::publish(&job.id, job.plan), "shard": self.home() }
    }

    /// Writes the task that publishes a job's results, unless it is there already.
    ///
    /// # Errors
    /// [`Error::Internal`] for a job without results, [`Error::Store`].
    pub async fn open_publish(&self, job: &Job) -> Result<()> {
        let results = job
            .publish
            .as_ref()
            .ok_or_else(|| Error::Internal(format!("job {} has no results to publish", job.id)))?;
        let rows = job.counters.as_ref().and_then(|counters| counters.get_i64("output").ok());
        let task = Task {
            state: TaskState::Ready,
            priority: job.priority,
            publish: Some(Publish {
                uuid: results.uuid.clone(),
                rows: rows.unwrap_or(0),
                marks: Marks::default(),
            }),
            ..Task::planned(TaskKind::Publish, &job.id, job.plan, 0, self.home())
        };
        self.insert_tasks(&[task]).await
    }

    /// Takes back a publish task that nobody works on. `false` when somebody does, or did.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn withdraw_publish(&self, job: &Job) -> Result<bool> {
        let waiting = doc! { "$in": [TaskState::Planned.as_str(), TaskState::Ready.as_str()] };
        let mut from = self.publish_of(job);
        from.insert("state", waiting);
        let outcome = self
            .aviary()
            .update_one(
                from,
                doc! {
                    "$set": { "state": TaskState::Cancelled.as_str() },
                    "$unset": { "not_before": "" },
                },
            )
            .await
            .action("take the publish task back")?;
        Ok(outcome.modified_count == 1)
    }

    /// Opens a publish task again that was given up. `false` when it was not.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn resume_publish(&self, job: &Job) -> Result<bool> {
        let mut from = self.publish_of(job);
        from.insert("state", TaskState::Quarantined.as_str());
        let outcome = self
            .aviary()
            .update_one(
                from,
                doc! {
                    "$set": { "state": TaskState::Ready.as_str(), "attempts": 0, "lost": 0 },
                    "$unset": { "error": "", "not_before": "", "waiting": "" },
                },
            )
            .await
            .action("open the publish task again")?;
        Ok(outcome.modified_count == 1)
    }

    /// Why a job's tasks do not move: what keeps them waiting, the longest first.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn waiting_tasks(&self, job: &Job) -> Result<Vec<(TaskId, Waiting)>> {
        /// A person reads these.
        const SHOWN_MAX: i64 = 5;
        const ACTION: &str = "ask why tasks wait";
        let cursor = self
            .aviary()
            .clone_with_type::<RawDocumentBuf>()
            .find(doc! {
                "job": &job.id,
                "kind": every_kind(),
                "plan": job.plan,
                "state": TaskState::Ready.as_str(),
                "waiting": { "$exists": true },
            })
            .sort(doc! { "waiting.since": 1 })
            .limit(SHOWN_MAX)
            .await
            .action(ACTION)?;
        let found: Vec<Task> = list("task", cursor, ACTION).await?.rows;
        Ok(found.into_iter().filter_map(|task| Some((task.id, task.waiting?))).collect())
    }

    /// The shards on which a job has tasks that may be claimed now.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn shards_of_ready(&self, job: &Job) -> Result<Vec<String>> {
        let ready = doc! {
            "job": &job.id,
            "kind": every_kind(),
            "plan": job.plan,
            "state": TaskState::Ready.as_str(),
            "$expr": { "$lte": [{ "$ifNull": ["$not_before", "$$NOW"] }, "$$NOW"] },
        };
        const ACTION: &str = "look for ready tasks";
        // Unlike distinct, an aggregation knows the server's clock.
        let group = doc! { "$group": { "_id": "$shard" } };
        let found = self.aviary().aggregate(vec![doc! { "$match": ready }, group]).await;
        let found: Vec<Document> = found.action(ACTION)?.try_collect().await.action(ACTION)?;
        Ok(found.iter().filter_map(|row| row.get_str("_id").ok().map(str::to_owned)).collect())
    }

    /// How many tasks each worker has on lease now, of all jobs.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn leases_by_worker(&self) -> Result<BTreeMap<String, i64>> {
        const ACTION: &str = "count leases";
        let mut rows = self
            .aviary()
            .aggregate(vec![
                doc! { "$match": {
                    "shard": self.every_shard(),
                    "kind": every_kind(),
                    "state": TaskState::Leased.as_str(),
                    "$expr": { "$gt": ["$until", "$$NOW"] },
                } },
                doc! { "$group": { "_id": "$worker", "n": { "$sum": 1_i64 } } },
            ])
            .await
            .action(ACTION)?;
        let mut counts = BTreeMap::new();
        while let Some(row) = rows.try_next().await.action(ACTION)? {
            if let (Ok(worker), Ok(n)) = (row.get_str("_id"), row.get_i64("n")) {
                counts.insert(worker.to_owned(), n);
            }
        }
        Ok(counts)
    }

    /// The first task that was given up, if any: why the job fails.
    ///
    /// # Errors
    /// [`Error::Newer`], [`Error::Store`].
    pub async fn quarantined(&self, job: &Job) -> Result<Option<Task>> {
        let mut given_up = own_tasks_of(job, &TaskKind::ALL);
        given_up.insert("state", TaskState::Quarantined.as_str());
        let found = self
            .aviary()
            .clone_with_type::<RawDocumentBuf>()
            .find_one(given_up)
            .sort(doc! { "_id": 1 })
            .await
            .action("read a quarantined task")?;
        read_one("task", found)
    }
}

/// A condition that holds for tasks of every kind, and for nothing else of a job's.
fn every_kind() -> Document {
    doc! { "$in": TaskKind::ALL.map(TaskKind::as_str).to_vec() }
}

/// The states of tasks that end with their job.
fn open_states() -> Vec<Bson> {
    TaskState::sources_of(TaskEvent::JobEnded).into_iter().map(|s| s.as_str().into()).collect()
}

fn int(value: Option<&Bson>) -> Option<u32> {
    match value {
        Some(Bson::Int32(n)) => u32::try_from(*n).ok(),
        Some(Bson::Int64(n)) => u32::try_from(*n).ok(),
        _ => None,
    }
}
