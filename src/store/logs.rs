//! The lines that functions log, as documents beside their task: a batch each, made to be read in mongosh.
//!
//! They are no part of any result. A job's lines go when the job is removed.

use bson::raw::RawDocumentBuf;
use bson::{DateTime, Document, doc};
use futures_util::TryStreamExt;
use mongodb::options::{Acknowledgment, WriteConcern};
use serde::{Deserialize, Serialize};

use super::Store;
use super::error::{Action, classify};
use super::readable::{Listed, list};
use crate::error::{Result, StoreErrorKind};
use crate::ids::{JobId, TaskId, Token};
use crate::job::Job;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When the function logged it, by its worker's clock.
    pub at: DateTime,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
    /// The stage that ran.
    pub stage: String,
    /// What it said.
    pub text: String,
}

/// Lines that one attempt logged, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogBatch {
    /// [`LogBatch::name`], by which a job's batches are in order.
    #[serde(rename = "_id")]
    pub id: String,
    /// Always [`LogBatch::KIND`].
    pub kind: String,
    /// The task's shard.
    pub shard: String,
    /// The job.
    pub job: JobId,
    /// The number of the plan that the task belongs to.
    pub plan: i32,
    /// The task.
    pub task: TaskId,
    /// The attempt, by the task's epoch.
    pub attempt: i64,
    /// The worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// The lines.
    pub lines: Vec<LogLine>,
    /// Lines beyond the limits, in an attempt's last batch.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde asks for")]
fn is_zero(n: &i64) -> bool {
    *n == 0
}

impl LogBatch {
    /// The kind of these documents.
    pub const KIND: &str = "log";

    /// The name of an attempt's batch number `n`: by task, attempt and number. The token tells apart two
    /// attempts of one epoch.
    pub fn name(task: &TaskId, epoch: i64, token: &Token, n: i32) -> String {
        format!("{task}/log/{epoch:05}.{token}.{n:04}")
    }
}

impl Store {
    /// Writes a batch. It is for people, so one server's word is enough.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn insert_log(&self, batch: &LogBatch) -> Result<()> {
        let written = self
            .aviary()
            .clone_with_type::<LogBatch>()
            .insert_one(batch)
            .write_concern(WriteConcern::builder().w(Acknowledgment::Nodes(1)).build())
            .await;
        match written {
            Ok(_) => Ok(()),
            // The driver's own second try of a write that had taken effect.
            Err(e) if classify(&e).kind == StoreErrorKind::DuplicateKey => Ok(()),
            Err(e) => Err(e).action("write log lines"),
        }
    }

    /// The names of a job's batches, in order.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn log_names(&self, job: &Job) -> Result<Vec<String>> {
        self.aviary()
            .find(doc! { "kind": LogBatch::KIND, "job": &job.id, "plan": job.plan })
            .projection(doc! { "_id": 1 })
            .sort(doc! { "_id": 1 })
            .await
            .action("look for log lines")?
            .try_filter_map(async |row| Ok(row.get_str("_id").ok().map(str::to_owned)))
            .try_collect()
            .await
            .action("look for log lines")
    }

    /// Reads batches of a job by their names, in order.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn logs(&self, job: &JobId, names: &[String]) -> Result<Listed<LogBatch>> {
        let found = self
            .aviary()
            .clone_with_type::<RawDocumentBuf>()
            .find(doc! { "kind": LogBatch::KIND, "job": job, "_id": { "$in": names } })
            .sort(doc! { "_id": 1 })
            .await
            .action("read log lines")?;
        list("log", found, "read log lines").await
    }

    /// What a job's functions warn of, as `STAGE: TEXT`, the first ones first: each text once, and at most `most`.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn warnings(&self, job: &Job, most: i64) -> Result<Vec<String>> {
        let lines = vec![
            doc! { "$match": {
                "kind": LogBatch::KIND, "job": &job.id, "plan": job.plan, "lines.level": "warn"
            } },
            doc! { "$unwind": "$lines" },
            doc! { "$match": { "lines.level": "warn" } },
            doc! { "$group": {
                "_id": { "stage": "$lines.stage", "text": "$lines.text" },
                "first": { "$min": "$lines.at" },
            } },
            doc! { "$sort": { "first": 1, "_id": 1 } },
            doc! { "$limit": most },
        ];
        let rows: Vec<Document> = self
            .aviary()
            .aggregate(lines)
            .await
            .action("look for warnings")?
            .try_collect()
            .await
            .action("look for warnings")?;
        let told = rows.iter().filter_map(|row| {
            let line = row.get_document("_id").ok()?;
            Some(format!("{}: {}", line.get_str("stage").ok()?, line.get_str("text").ok()?))
        });
        Ok(told.collect())
    }

    /// Some jobs that have log lines, in order: those after this one.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn jobs_with_logs(&self, after: &str) -> Result<Vec<JobId>> {
        self.jobs_of(doc! { "kind": LogBatch::KIND }, after, "look for log lines").await
    }

    /// Removes a job's log lines.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn delete_logs(&self, job: &JobId) -> Result<u64> {
        let outcome = self
            .aviary()
            .delete_many(doc! { "kind": LogBatch::KIND, "job": job })
            .await
            .action("remove log lines")?;
        Ok(outcome.deleted_count)
    }
}
