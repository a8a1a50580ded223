//! What the holder of the coordinator's role writes into a job: each write names the state, the plan or the epoch that it was
//! decided by.

use std::time::Duration;

use bson::raw::RawDocumentBuf;
use bson::{Bson, Document, doc};
use mongodb::options::ReturnDocument;

use super::JOB;
use crate::error::{Error, Result};
use crate::ids::JobId;
use crate::job::{Job, JobEvent, JobState};
use crate::store::Store;
use crate::store::error::Action;
use crate::store::leases::waiting_for;
use crate::store::readable::{read, read_one};

impl Store {
    /// The input's bytes and the time taken of the youngest job that succeeded with this map function.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn last_run_of(&self, map_digest: &str) -> Result<Option<(u64, Duration)>> {
        let found = self
            .aviary()
            .clone_with_type::<RawDocumentBuf>()
            .find_one(doc! {
                "kind": "job",
                "state": JobState::Succeeded.as_str(),
                "spec.map.digest": map_digest,
            })
            .sort(doc! { "created": -1 })
            .await
            .action("read earlier jobs")?;
        let job: Option<Job> = found.and_then(|raw| read(JOB, &raw).ok());
        Ok(job.and_then(|job| {
            let took = job.finished?.timestamp_millis() - job.started?.timestamp_millis();
            let bytes = u64::try_from(job.input_bytes?).ok()?;
            Some((bytes, Duration::from_millis(u64::try_from(took).ok()?)))
        }))
    }

    /// Takes one arrow of the job's state diagram, and sets `set` with it.
    ///
    /// `and` narrows the filter further. `false` means that the job was no longer in a state in
    /// which `event` has a meaning (or `and` did not hold): somebody else has moved it on.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn transition(
        &self,
        id: &JobId,
        event: JobEvent,
        and: Document,
        set: Document,
    ) -> Result<bool> {
        let sources = JobState::sources_of(event);
        let target = sources
            .first()
            .and_then(|source| source.after(event))
            .ok_or_else(|| Error::Internal(format!("{event:?} leads nowhere")))?;
        let sources: Vec<Bson> = sources.into_iter().map(|s| s.as_str().into()).collect();
        let mut filter =
            doc! { "_id": id, "shard": self.home(), "kind": "job", "state": { "$in": sources } };
        filter.extend(and);
        let mut set = set;
        set.insert("state", target.as_str());
        let mut dates = Document::new();
        if target.is_terminal() {
            dates.insert("finished", true);
        }
        if event == JobEvent::Taken {
            dates.insert("started", true);
        }
        if event == JobEvent::PublishStopped {
            dates.insert("stopped", true);
        }
        let mut update = doc! { "$set": set };
        if !dates.is_empty() {
            update.insert("$currentDate", dates);
        }
        let outcome = self
            .aviary()
            .update_one(filter, update)
            .await
            .action("move the job on")
            .map_err(|e| self.explain(e))?;
        Ok(outcome.modified_count == 1)
    }

    /// Begins a new plan of a job that is being planned, and returns its number.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn begin_plan(&self, job: &Job) -> Result<Option<i32>> {
        let job = self
            .aviary()
            .find_one_and_update(
                doc! {
                    "_id": &job.id,
                    "shard": self.home(),
                    "state": JobState::Planning.as_str(),
                    "plan": job.plan,
                    "role": job.role,
                },
                doc! { "$inc": { "plan": 1 } },
            )
            .return_document(ReturnDocument::After)
            .await
            .action("begin a plan")?;
        Ok(job.and_then(|job| job.get_i32("plan").ok()))
    }

    /// Sets fields of a job document under a filter; `false` when it does not match.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn set_job(&self, id: &JobId, and: Document, set: Document) -> Result<bool> {
        let mut filter = doc! { "_id": id, "shard": self.home(), "kind": "job" };
        filter.extend(and);
        let outcome = self
            .aviary()
            .update_one(filter, doc! { "$set": set })
            .await
            .action("update the job")?;
        Ok(outcome.matched_count == 1)
    }

    /// Makes a job this coordinator's, so that one whose role is older can move it no more. `None` when the
    /// job is gone, or a younger coordinator has it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn adopt(&self, id: &JobId, epoch: i64) -> Result<Option<Job>> {
        let mine = self
            .aviary()
            .clone_with_type::<RawDocumentBuf>()
            .find_one_and_update(
                doc! {
                    "_id": id,
                    "shard": self.home(),
                    "kind": "job",
                    "role": { "$not": { "$gt": epoch } },
                },
                doc! { "$set": { "role": epoch } },
            )
            .return_document(ReturnDocument::After)
            .await
            .action("take over a job")?;
        read_one(JOB, mine)
    }

    /// Notes why a job does not move.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn note_waiting(&self, id: &JobId, why: &str) -> Result<()> {
        self.aviary()
            .update_one(
                doc! { "_id": id, "shard": self.home(), "kind": "job" },
                vec![doc! { "$set": { "waiting": waiting_for(why) } }],
            )
            .await
            .action("note why a job waits")?;
        Ok(())
    }

    /// Notes that nothing keeps a job waiting any more.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn note_moving(&self, id: &JobId) -> Result<()> {
        self.aviary()
            .update_one(
                doc! { "_id": id, "shard": self.home(), "kind": "job" },
                doc! { "$unset": { "waiting": "" } },
            )
            .await
            .action("note that a job moves")?;
        Ok(())
    }

    /// Counts what an attempt has done before it commits: a fault, for the tests to find.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(crate) async fn count_early(&self, id: &JobId, counters: &Document) -> Result<()> {
        let early: Document =
            counters.iter().map(|(name, n)| (format!("early.{name}"), n.clone())).collect();
        self.aviary()
            .update_one(doc! { "_id": id, "shard": self.home() }, doc! { "$inc": early })
            .await
            .action("count too early")?;
        Ok(())
    }
}
