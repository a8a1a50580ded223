//! Job documents: written by clients, moved on by conditional updates.

mod moves;

use std::collections::BTreeSet;
use std::time::Duration;

use bson::raw::RawDocumentBuf;
use bson::{Document, doc};
use futures_util::TryStreamExt;

use super::Store;
use super::claims::job_id_pattern;
use super::error::{Action, classify, not_kept_yet};
use super::readable::{Listed, list, read, read_one};
use crate::config;
use crate::error::{Error, Result, StoreErrorKind};
use crate::ids::JobId;
use crate::job::{Job, JobState};
use crate::planted::planted;
use crate::request::{Answer, REQUESTS};

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

/// A job that a coordinator may have something to do for.
#[derive(Debug, Clone)]
pub struct ToTend {
    /// The job.
    pub id: JobId,
    /// Jobs with a higher number go first.
    pub priority: i32,
}

/// What these documents are for people.
const JOB: &str = "job";

impl Store {
    /// Writes a new job. One that is there already is left as it is.
    ///
    /// # Errors
    /// [`Error::Store`]; the same again is harmless.
    pub async fn insert_job(&self, job: &Job) -> Result<()> {
        let written = self.aviary().clone_with_type::<Job>().insert_one(job).await;
        match written {
            Err(e) if classify(&e).kind == StoreErrorKind::DuplicateKey => {}
            outcome => {
                return outcome.action("write the job").map(|_| ()).map_err(|e| self.explain(e));
            }
        }
        // What a majority does not have yet may still be lost.
        let found = self
            .aviary()
            .find_one(doc! { "_id": &job.id, "shard": self.home() })
            .projection(doc! { "_id": 1 })
            .await
            .action("read the job")?;
        found.map(|_| ()).ok_or_else(|| not_kept_yet("write the job"))
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
            return self.asked_job(text).await?.ok_or_else(missing);
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
            (None, _) => self.asked_job(text).await?.ok_or_else(missing),
        }
    }

    /// The job of a request, found by the request's own `_id`.
    async fn asked_job(&self, text: &str) -> Result<Option<Job>> {
        match self.answer_to(REQUESTS, text).await? {
            None => Ok(None),
            Some(Answer { state: Some(_), job: Some(job), error: None }) => {
                self.job(&JobId::from_text(job)).await
            }
            Some(Answer { error: Some(problem), job: None, .. }) => Err(problem.error()),
            Some(Answer { job: Some(job), state: Some(_), .. }) => {
                self.job(&JobId::from_text(job)).await
            }
            Some(_) => Err(Error::NotFound {
                what: format!("job {text}"),
                hint: format!(
                    "its request waits for a coordinator; start one with: aviary coordinator -d {}",
                    self.db_name()
                ),
            }),
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

    /// Some jobs that a coordinator has something to do for: running, or ended and not cleaned up. Those after this
    /// one, if there are more than [`config::JOBS_PER_LOOK`].
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn jobs_to_tend(&self, after: Option<&ToTend>) -> Result<Vec<ToTend>> {
        // Each has an index that jobs which have ended and been cleaned up after are not in, however many they are.
        let open: Vec<&str> =
            JobState::ALL.iter().filter(|s| !s.is_terminal()).map(|s| s.as_str()).collect();
        let ended = doc! { "state": { "$nin": &open }, "cleaned": false };
        let open = self.to_tend(doc! { "state": { "$in": open } }, after);
        let (mut jobs, ended) =
            futures_util::try_join!(open, self.to_tend(ended, after)).action("read open jobs")?;
        jobs.extend(ended);
        jobs.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.id.cmp(&b.id)));
        jobs.dedup_by(|a, b| a.id == b.id);
        jobs.truncate(config::JOBS_PER_LOOK);
        Ok(jobs)
    }

    async fn to_tend(
        &self,
        which: Document,
        after: Option<&ToTend>,
    ) -> mongodb::error::Result<Vec<ToTend>> {
        let mut filter = doc! {
            "shard": self.home(),
            "kind": "job",
            "_id": job_id_pattern(),
            "priority": { "$type": "int" },
        };
        filter.extend(which);
        if let Some(ToTend { id, priority }) = after {
            let later = vec![
                doc! { "priority": { "$lt": priority } },
                doc! { "priority": priority, "_id": { "$gt": id } },
            ];
            filter.insert("$or", later);
        }
        let rows: Vec<Document> = self
            .aviary()
            .find(filter)
            .projection(doc! { "_id": 1, "priority": 1 })
            .sort(doc! { "priority": -1, "_id": 1 })
            .limit(i64::try_from(config::JOBS_PER_LOOK).unwrap_or(i64::MAX))
            .await?
            .try_collect()
            .await?;
        let row = |row: &Document| {
            let id = JobId::from_text(row.get_str("_id").ok()?);
            Some(ToTend { id, priority: row.get_i32("priority").ok()? })
        };
        Ok(rows.iter().filter_map(row).collect())
    }

    /// Some databases that jobs, those removed lately among them, write their output to, in order: those after this
    /// one. What cannot be a database's name is none.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn output_databases(&self, after: &str) -> Result<Vec<String>> {
        const ACTION: &str = "list output databases";
        let most = i64::try_from(config::SWEPT_MAX).unwrap_or(i64::MAX);
        let mut names = BTreeSet::new();
        for (field, kind) in [("spec.output.db", "job"), ("db", REMOVED)] {
            let is_name = doc! { "$regex": r#"^[^/\\. "$\x00]{1,63}$"#, "$gt": after };
            let rows: Vec<Document> = self
                .aviary()
                .aggregate(vec![
                    doc! { "$match": { "kind": kind, field: is_name } },
                    doc! { "$group": { "_id": format!("${field}") } },
                    doc! { "$sort": { "_id": 1 } },
                    doc! { "$limit": most },
                ])
                .allow_disk_use(true)
                .await
                .action(ACTION)?
                .try_collect()
                .await
                .action(ACTION)?;
            names.extend(rows.iter().filter_map(|row| row.get_str("_id").ok().map(str::to_owned)));
        }
        Ok(names.into_iter().take(config::SWEPT_MAX).collect())
    }

    /// Notes that a person wants a job to end which publishes. `false` when it does not publish now.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn request_cancel(&self, id: &JobId) -> Result<bool> {
        let publishing = doc! { "state": JobState::Publishing.as_str() };
        self.set_job(id, publishing, doc! { "cancel": true }).await
    }

    /// Removes a job, its tasks and what their functions logged.
    ///
    /// What stays for the time of `retention` is a tombstone: a worker that was frozen can still bring back the job's hidden
    /// collection, and only a known job's may be swept.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn delete_job(&self, id: &JobId, retention: Duration) -> Result<()> {
        let kept_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        self.aviary().delete_many(doc! { "job": id }).await.action("remove the job's tasks")?;
        let tombstone = doc! { "$replaceWith": {
            "_id": "$_id",
            "kind": REMOVED,
            "shard": "$shard",
            "db": "$spec.output.db",
            "removed": "$$NOW",
            "expires": { "$add": ["$$NOW", kept_ms] },
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
