//! Task documents as a coordinator and a reader of listings see them; the holder's side is in
//! [`leases`](super::leases).

mod listing;
mod publishing;
mod runs;

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;

use super::Store;
use super::claims::{job_id_pattern, own_tasks_of};
use super::error::{Action, classify};
use crate::config;
use crate::error::{Result, StoreErrorKind};
use crate::ids::JobId;
use crate::job::Job;
use crate::planted::planted;
use crate::task::state::TaskEvent;
use crate::task::{JobPhases, Task, TaskKind, TaskState};

pub use listing::TaskFilter;
pub use runs::{Blocks, MapRuns};

impl Store {
    /// Writes tasks; those that exist already are left as they are, so a repeated call is harmless.
    ///
    /// # Errors
    /// [`Error::Store`](crate::error::Error::Store).
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
    /// [`Error::Store`](crate::error::Error::Store).
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
    /// [`Error::Store`](crate::error::Error::Store).
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
    /// [`Error::Store`](crate::error::Error::Store).
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
    /// [`Error::Store`](crate::error::Error::Store).
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

    /// Cancels every task of an ended job that has not finished; their leases are fenced by it.
    ///
    /// # Errors
    /// [`Error::Store`](crate::error::Error::Store).
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
    /// [`Error::Store`](crate::error::Error::Store).
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
    /// [`Error::Store`](crate::error::Error::Store).
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
    /// [`Error::Store`](crate::error::Error::Store).
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
