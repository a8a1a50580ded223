//! Tasks as people and the command line look at them.

use std::collections::BTreeMap;

use bson::raw::RawDocumentBuf;
use bson::{Document, doc};
use futures_util::TryStreamExt;

use super::every_kind;
use crate::error::Result;
use crate::ids::TaskId;
use crate::job::Job;
use crate::store::Store;
use crate::store::claims::own_tasks_of;
use crate::store::error::Action;
use crate::store::readable::{Listed, list, read_one};
use crate::task::{Task, TaskKind, TaskState, Waiting};

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
    /// Lists a job's tasks.
    ///
    /// # Errors
    /// [`Error::Store`](crate::error::Error::Store).
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

    /// Why a job's tasks do not move: what keeps them waiting, the longest first.
    ///
    /// # Errors
    /// [`Error::Store`](crate::error::Error::Store).
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
    /// [`Error::Store`](crate::error::Error::Store).
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
    /// [`Error::Store`](crate::error::Error::Store).
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
    /// [`Error::Newer`](crate::error::Error::Newer), [`Error::Store`](crate::error::Error::Store).
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
