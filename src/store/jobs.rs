//! Job documents: written by clients, moved on by conditional updates.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bson::raw::RawDocumentBuf;
use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use mongodb::options::ReturnDocument;

use super::Store;
use super::error::{Action, classify};
use super::leases::waiting_for;
use super::readable::{Listed, list, read, read_one};
use super::retry::until_known;
use crate::error::{Error, Result, StoreError, StoreErrorKind};
use crate::ids::JobId;
use crate::job::{Job, JobEvent, JobState};
use crate::planted::planted;

/// What a listing of jobs is narrowed to.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Only jobs of this client.
    pub client: Option<String>,
    /// Only jobs with this tag.
    pub tag: Option<String>,
    /// Only jobs in this state.
    pub state: Option<String>,
    /// At most this many, the youngest first.
    pub limit: i64,
}

/// What these documents are for people.
const JOB: &str = "job";

impl Store {
    /// Writes a new job, once: when the reply is lost, its id tells whether it was written.
    ///
    /// # Errors
    /// [`Error::OutcomeUnknown`] when that cannot be learnt, [`Error::Store`].
    pub async fn insert_job(&self, job: &Job) -> Result<()> {
        let unsure = AtomicBool::new(false);
        let written = until_known(async |again| {
            unsure.store(again, Ordering::Relaxed);
            self.try_insert(job).await
        })
        .await;
        match written {
            Err(Error::Store { source, .. })
                if unsure.into_inner() || source.kind == StoreErrorKind::Transient =>
            {
                let id = &job.id;
                Err(Error::OutcomeUnknown {
                    what: format!("job {id} was submitted"),
                    hint: format!(
                        "`aviary status {id}` tells once the database answers; submitting again may run it twice"
                    ),
                    source,
                })
            }
            outcome => outcome,
        }
    }

    async fn try_insert(&self, job: &Job) -> Result<()> {
        let written = self.aviary().clone_with_type::<Job>().insert_one(job).await;
        match written {
            Err(e) if classify(&e).kind == StoreErrorKind::DuplicateKey => {}
            outcome => {
                return outcome.action("write the job").map(|_| ()).map_err(|e| self.explain(e));
            }
        }
        // The id is random, so it was an earlier try. What a majority does not have yet may still be lost.
        let found = self
            .aviary()
            .find_one(doc! { "_id": &job.id, "shard": self.home() })
            .projection(doc! { "_id": 1 })
            .await
            .action("read the job")?;
        found.map(|_| ()).ok_or_else(|| Error::Store {
            action: "write the job".into(),
            source: StoreError {
                message: "a majority of the servers does not have it yet".into(),
                code: None,
                kind: StoreErrorKind::Transient,
            },
        })
    }

    /// Reads a job by its id.
    ///
    /// # Errors
    /// [`Error::Newer`], [`Error::Store`].
    pub async fn job(&self, id: &JobId) -> Result<Option<Job>> {
        let found = self
            .aviary()
            .clone_with_type::<RawDocumentBuf>()
            .find_one(doc! { "_id": id, "shard": self.home(), "kind": "job" })
            .await
            .action("read the job")?;
        read_one(JOB, found)
    }

    /// Finds a job by its id or by the unambiguous beginning or end of one; `last` is the youngest.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Usage`] when several match, [`Error::Newer`], [`Error::Store`].
    pub async fn find_job(&self, text: &str) -> Result<Job> {
        let missing = || Error::NotFound {
            what: format!("job {text}"),
            hint: format!("aviary -d {} list shows what there is", self.db_name()),
        };
        if text == "last" {
            let filter = JobFilter { limit: 1, ..JobFilter::default() };
            let listed = self.jobs(&filter).await?;
            let newer = listed.unreadable.into_iter().next();
            return listed.rows.into_iter().next().ok_or_else(|| newer.unwrap_or_else(missing));
        }
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(missing());
        }
        let found: Vec<RawDocumentBuf> = self
            .aviary()
            .clone_with_type::<RawDocumentBuf>()
            .find(doc! { "kind": "job", "_id": { "$regex": format!("^{text}|{text}$") } })
            .limit(2)
            .await
            .action("read jobs")?
            .try_collect()
            .await
            .action("read jobs")?;
        let mut found = found.into_iter();
        match (found.next(), found.next()) {
            (Some(job), None) => read(JOB, &job),
            (Some(_), Some(_)) => {
                Err(Error::Usage(format!("several jobs match {text}; give more of the id")))
            }
            (None, _) => Err(missing()),
        }
    }

    /// Lists jobs, the youngest first.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn jobs(&self, filter: &JobFilter) -> Result<Listed<Job>> {
        let mut query = doc! { "kind": "job" };
        for (field, wanted) in
            [("client", &filter.client), ("tag", &filter.tag), ("state", &filter.state)]
        {
            if let Some(wanted) = wanted {
                query.insert(field, wanted);
            }
        }
        let found = self
            .aviary()
            .clone_with_type::<RawDocumentBuf>()
            .find(query)
            .sort(doc! { "created": -1 })
            .limit(filter.limit)
            .await
            .action("read jobs")?;
        list(JOB, found, "read jobs").await
    }

    /// The jobs a coordinator has something to do for: running, or ended and not cleaned up. One that it cannot read
    /// waits for a coordinator that can.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn jobs_to_tend(&self) -> Result<Vec<Job>> {
        let open: Vec<&str> =
            JobState::ALL.iter().filter(|s| !s.is_terminal()).map(|s| s.as_str()).collect();
        let found = self
            .aviary()
            .clone_with_type::<RawDocumentBuf>()
            .find(doc! { "shard": self.home(), "kind": "job", "$or": [
                { "state": { "$in": open } },
                { "cleaned": false },
            ] })
            .sort(doc! { "priority": -1, "_id": 1 })
            .await
            .action("read open jobs")?;
        Ok(list(JOB, found, "read open jobs").await?.rows)
    }

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

    /// The databases that jobs, those removed lately among them, write their output to.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn output_databases(&self) -> Result<Vec<String>> {
        let mut names = BTreeSet::new();
        for (field, kind) in [("spec.output.db", "job"), ("db", REMOVED)] {
            let found = self
                .aviary()
                .distinct(field, doc! { "kind": kind })
                .await
                .action("list output databases")?;
            names.extend(found.into_iter().filter_map(|name| name.as_str().map(str::to_owned)));
        }
        Ok(names.into_iter().collect())
    }

    /// Makes a job this coordinator's, so that one whose role is older can move it no more. `None` when the
    /// job is gone, or a younger coordinator has it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn adopt(&self, id: &JobId, epoch: i64) -> Result<Option<Job>> {
        self.aviary()
            .clone_with_type::<Job>()
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
            .action("take over a job")
    }

    /// Notes that a person wants a job to end which publishes. `false` when it does not publish now.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn request_cancel(&self, id: &JobId) -> Result<bool> {
        let publishing = doc! { "state": JobState::Publishing.as_str() };
        self.set_job(id, publishing, doc! { "cancel": true }).await
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

    /// Removes a job, its tasks and what their functions logged.
    ///
    /// What stays for a while is a tombstone: a worker that was frozen can still bring back the job's hidden
    /// collection, and only a known job's may be swept.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn delete_job(&self, id: &JobId) -> Result<()> {
        /// Nobody is frozen for longer than this and then goes on.
        const KEPT_MS: i64 = 7 * 24 * 3_600_000;
        self.aviary().delete_many(doc! { "job": id }).await.action("remove the job's tasks")?;
        let tombstone = doc! { "$replaceWith": {
            "_id": "$_id",
            "kind": REMOVED,
            "shard": "$shard",
            "db": "$spec.output.db",
            "removed": "$$NOW",
            "expires": { "$add": ["$$NOW", KEPT_MS] },
        } };
        if planted("tombstone-dropped") {
            self.aviary()
                .delete_one(doc! { "_id": id, "shard": self.home() })
                .await
                .action("remove the job")?;
            return Ok(());
        }
        self.aviary()
            .update_one(doc! { "_id": id, "shard": self.home(), "kind": "job" }, vec![tombstone])
            .await
            .action("remove the job")?;
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

    /// The database that the output of a job went to that was removed; `None` for a job that was never here.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn removed(&self, id: &JobId) -> Result<Option<String>> {
        let tombstone = doc! { "_id": id, "shard": self.home(), "kind": REMOVED };
        let found = self.aviary().find_one(tombstone).await.action("look for a removed job")?;
        Ok(found.and_then(|found| found.get_str("db").ok().map(str::to_owned)))
    }
}

/// The kind of what is left of a job that was removed.
const REMOVED: &str = "removed";
