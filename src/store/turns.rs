//! The turns of targets as documents; what they mean is told in [`crate::protocol::turn`].

use bson::{Document, doc};
use futures_util::TryStreamExt;

use super::Store;
use super::claims::job_id_pattern;
use super::error::{Action, classify};
use crate::config;
use crate::error::{Result, StoreErrorKind};
use crate::ids::JobId;
use crate::job::{Job, JobState, Output};
use crate::planted::planted;
use crate::protocol::turn::{Ask, Holder, ask};

/// The kind of these documents.
const TURN: &str = "turn";

/// What came of asking for a target's turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// It is the job's, until it is cleaned up after.
    Mine,
    /// This other job has it.
    Taken(JobId),
}

impl Store {
    /// Takes a target's turn for a job, unless another job has it.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`]: whether the job has the turn is unknown, and asking again tells.
    pub async fn take_turn(&self, job: &Job) -> Result<Turn> {
        let id = turn_of(&job.spec.output);
        if planted("turn-ignored") {
            return Ok(Turn::Mine);
        }
        loop {
            let held = self.turn_holder(&id).await?;
            let holder = match &held {
                None => Holder::Nobody,
                Some(other) if *other == job.id => Holder::Myself,
                Some(other) => self.holder(other).await?,
            };
            match (ask(holder), held) {
                (Ask::Mine, _) => return Ok(Turn::Mine),
                (Ask::Wait, Some(other)) => return Ok(Turn::Taken(other)),
                // What nobody holds is there for the taking; the server decides between two who try.
                (Ask::Take | Ask::Wait, None) => self.begin_turn(&id, &job.id).await?,
                (Ask::Take, Some(ended)) => self.pass_turn(&id, &ended, &job.id).await?,
            }
        }
    }

    /// The job that has the turn of an output's target now.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn has_turn(&self, output: &Output) -> Result<Option<JobId>> {
        self.turn_holder(&turn_of(output)).await
    }

    /// Releases the turn that a job has, if it has one.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn release_turn(&self, job: &JobId, output: &Output) -> Result<()> {
        self.aviary()
            .delete_one(doc! { "_id": turn_of(output), "shard": self.home(), "job": job })
            .await
            .action("release the target's turn")?;
        Ok(())
    }

    /// Some turns that are held, in order: the `_id`s after this one, and the jobs that have them.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn turns(&self, after: &str) -> Result<Vec<(String, JobId)>> {
        /// More than the name of any collection.
        const NAME_BYTES_MAX: i32 = 1_024;
        let found: Vec<Document> = self
            .aviary()
            .find(doc! {
                "shard": self.home(),
                "kind": TURN,
                "_id": { "$gt": after },
                "job": job_id_pattern(),
                "$expr": { "$lt": [{ "$strLenBytes": "$_id" }, NAME_BYTES_MAX] },
            })
            .projection(doc! { "job": 1 })
            .sort(doc! { "_id": 1 })
            .limit(i64::try_from(config::SWEPT_MAX).unwrap_or(i64::MAX))
            .await
            .action("list turns")?
            .try_collect()
            .await
            .action("list turns")?;
        let rows = found.iter().filter_map(|row| {
            let job = JobId::from_text(row.get_str("job").ok()?);
            Some((row.get_str("_id").ok()?.to_owned(), job))
        });
        Ok(rows.collect())
    }

    /// Releases a turn that is still held by this job.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn drop_turn(&self, id: &str, job: &JobId) -> Result<()> {
        self.aviary()
            .delete_one(doc! { "_id": id, "shard": self.home(), "kind": TURN, "job": job })
            .await
            .action("release a target's turn")?;
        Ok(())
    }

    async fn turn_holder(&self, id: &str) -> Result<Option<JobId>> {
        let turn = self
            .aviary()
            .find_one(doc! { "_id": id, "shard": self.home() })
            .await
            .action("ask for the target's turn")?;
        Ok(turn.and_then(|turn| turn.get_str("job").ok().map(JobId::from_text)))
    }

    async fn holder(&self, job: &JobId) -> Result<Holder> {
        let state = self
            .aviary()
            .find_one(doc! { "_id": job, "shard": self.home(), "kind": "job" })
            .projection(doc! { "state": 1, "cleaned": 1 })
            .await
            .action("ask for the job that has the target's turn")?;
        let Some(row) = state else { return Ok(Holder::Removed) };
        let state = row.get_str("state").unwrap_or_default();
        let known = JobState::ALL.into_iter().find(|known| known.as_str() == state);
        // A state that only a newer version knows is not one to take a turn away in.
        let state = known.unwrap_or(JobState::Publishing);
        Ok(Holder::Other(state, row.get_bool("cleaned").unwrap_or(false)))
    }

    async fn begin_turn(&self, id: &str, job: &JobId) -> Result<()> {
        let taken = self
            .aviary()
            .update_one(
                doc! { "_id": id, "shard": self.home() },
                vec![doc! { "$replaceWith": { "$cond": [
                    { "$eq": [{ "$type": "$job" }, "missing"] },
                    {
                        "_id": id,
                        "kind": TURN,
                        "shard": self.home(),
                        "job": job,
                        "since": "$$NOW",
                    },
                    "$$ROOT",
                ] } }],
            )
            .upsert(true)
            .await;
        match taken {
            Ok(_) => Ok(()),
            // Another job was faster.
            Err(error) if classify(&error).kind == StoreErrorKind::DuplicateKey => Ok(()),
            Err(error) => Err(error).action("take the target's turn"),
        }
    }

    /// From a job that has ended to another.
    async fn pass_turn(&self, id: &str, ended: &JobId, job: &JobId) -> Result<()> {
        self.aviary()
            .update_one(
                doc! { "_id": id, "shard": self.home(), "job": ended },
                vec![doc! { "$set": { "job": job, "since": "$$NOW" } }],
            )
            .await
            .action("take the target's turn")?;
        Ok(())
    }
}

fn turn_of(output: &Output) -> String {
    format!("turn/{}.{}", output.db, output.collection)
}
