//! The publish task of a job.

use bson::raw::RawDocumentBuf;
use bson::{Document, doc};

use crate::error::{Error, Result};
use crate::ids::TaskId;
use crate::job::Job;
use crate::store::Store;
use crate::store::error::Action;
use crate::store::readable::read_one;
use crate::task::{Marks, Publish, Task, TaskKind, TaskState};

impl Store {
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
}
