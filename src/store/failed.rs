//! The records that a job's functions failed on and that were left out, each a document in `aviary-failed`.
//!
//! An attempt writes them before it commits. How many of them count is in its counters: those that the committed
//! attempt has written, by its token, and no others. They hold copies of input, so fewer may read them than jobs.

mod record;

use std::collections::HashMap;

use bson::raw::RawDocumentBuf;
use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::Collection;
use mongodb::error::Error as DriverError;

use super::Store;
use super::batches::integer;
use super::claims::own_tasks_of;
use super::error::{Action, classify};
use crate::config;
use crate::error::{Error, Result, StoreErrorKind};
use crate::ids::JobId;
use crate::job::{Input, Job, OnError};
use crate::task::counters::SKIPPED;
use crate::task::{TaskKind, TaskState};
use crate::value::{RawVal, close_document, tag};

pub use record::{FailedRecord, Failing, KEPT_RECORD_BYTES_MAX};

/// The collection.
pub const FAILED: &str = "aviary-failed";

/// Which records of a job count.
#[derive(Debug, Clone, Default)]
pub struct Counted {
    /// By task: how many count, of the attempt with this token, or of this epoch.
    tasks: HashMap<String, (i64, Attempt)>,
    /// How many committed tasks have left out.
    pub committed: i64,
}

#[derive(Debug, Clone)]
enum Attempt {
    Committed(String),
    /// The one that was given up for having left out too many.
    GivenUp(i64),
}

impl Counted {
    fn counts(&self, record: &FailedRecord) -> bool {
        let Some((most, attempt)) = self.tasks.get(record.text("task")) else { return false };
        let is_its = match attempt {
            Attempt::Committed(token) => record.text("token") == token,
            Attempt::GivenUp(epoch) => record.attempt() == *epoch,
        };
        is_its && (0..*most).contains(&record.n())
    }
}

impl Store {
    fn failed_records(&self) -> Collection<RawDocumentBuf> {
        self.database().collection(FAILED)
    }

    /// Writes records that an attempt leaves out; those that are there already are left as they are.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn insert_failed(&self, records: &[RawDocumentBuf]) -> Result<()> {
        let written = self.failed_records().insert_many(records).ordered(false).await;
        match written {
            Ok(_) => Ok(()),
            Err(e) if classify(&e).kind == StoreErrorKind::DuplicateKey => Ok(()),
            Err(e) => Err(e).action("keep records that failed"),
        }
    }

    /// How many documents and keys the committed tasks of a job have left out, and how many documents they have read.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn skipped(&self, job: &Job) -> Result<(u64, u64)> {
        const ACTION: &str = "count records that were left out";
        let mut done = own_tasks_of(job, &[TaskKind::Map, TaskKind::Reduce]);
        done.insert("state", TaskState::Done.as_str());
        let sum = |name: &str| doc! { "$sum": format!("$result.counters.{name}") };
        let rows: Vec<Document> = self
            .aviary()
            .aggregate(vec![
                doc! { "$match": done },
                doc! { "$group": { "_id": null, "skipped": sum(SKIPPED), "input": sum("input") } },
            ])
            .await
            .action(ACTION)?
            .try_collect()
            .await
            .action(ACTION)?;
        let count = |name: &str| rows.first().map_or(0, |row| whole(row, name));
        Ok((count("skipped"), count("input")))
    }

    /// Which of a job's records count.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn counted_failed(&self, job: &Job) -> Result<Counted> {
        const ACTION: &str = "look for records that were left out";
        let mut tasks = own_tasks_of(job, &[TaskKind::Map, TaskKind::Reduce]);
        tasks.insert(
            "$or",
            vec![
                doc! { "state": TaskState::Done.as_str(), "result.counters.skipped": { "$gt": 0 } },
                doc! { "state": TaskState::Quarantined.as_str() },
            ],
        );
        let fields =
            doc! { "state": 1, "epoch": 1, "result.token": 1, "result.counters.skipped": 1 };
        let mut found = self.aviary().find(tasks).projection(fields).await.action(ACTION)?;
        let mut counted = Counted::default();
        while let Some(row) = found.try_next().await.action(ACTION)? {
            let Ok(id) = row.get_str("_id") else { continue };
            let one = if row.get_str("state").unwrap_or("") == TaskState::Done.as_str() {
                let result = row.get_document("result").cloned().unwrap_or_default();
                let counters = result.get_document("counters").cloned().unwrap_or_default();
                let most = i64::try_from(whole(&counters, SKIPPED)).unwrap_or(i64::MAX);
                counted.committed = counted.committed.saturating_add(most);
                (most, Attempt::Committed(result.get_str("token").unwrap_or("").to_owned()))
            } else {
                let epoch = i64::try_from(whole(&row, "epoch")).unwrap_or(-1);
                (i64::MAX, Attempt::GivenUp(epoch))
            };
            counted.tasks.insert(id.to_owned(), one);
        }
        Ok(counted)
    }

    /// Gives each of a job's records that count to `take`, in the order of tasks, until that says to stop.
    ///
    /// # Errors
    /// [`Error::Store`], and whatever `take` returns.
    pub async fn each_failed(
        &self,
        job: &JobId,
        counted: &Counted,
        mut take: impl FnMut(FailedRecord) -> Result<bool>,
    ) -> Result<()> {
        const ACTION: &str = "read records that were left out";
        let found = self.failed_records().find(of_job(job)).sort(doc! { "_id": 1 }).await;
        let mut found = found.action(ACTION)?;
        while let Some(raw) = found.try_next().await.action(ACTION)? {
            let record = FailedRecord(raw);
            if counted.counts(&record) && !take(record)? {
                break;
            }
        }
        Ok(())
    }

    /// The first of a job's records that count.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn first_failed(&self, job: &Job) -> Result<Option<FailedRecord>> {
        let counted = self.counted_failed(job).await?;
        let mut first = None;
        self.each_failed(&job.id, &counted, |record| {
            first = Some(record);
            Ok(false)
        })
        .await?;
        Ok(first)
    }

    /// Some jobs that have such records, in order: those after this one.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn jobs_with_failed(&self, after: &str) -> Result<Vec<JobId>> {
        const ACTION: &str = "look for records that were left out";
        let mut jobs: Vec<JobId> = Vec::new();
        let mut after = after.to_owned();
        while jobs.len() < config::SWEPT_MAX {
            // All names of a job lie between its id with a slash behind it and with the next character.
            let next = doc! { "_id": { "$gte": format!("{after}0") } };
            let found: std::result::Result<_, DriverError> = self
                .failed_records()
                .find_one(next)
                .sort(doc! { "_id": 1 })
                .projection(doc! { "_id": 1 })
                .await;
            let Some(row) = found.action(ACTION)? else { break };
            let Some((job, _)) = row.get_str("_id").ok().and_then(|id| id.split_once('/')) else {
                break;
            };
            job.clone_into(&mut after);
            jobs.push(JobId::from_text(job));
        }
        Ok(jobs)
    }

    /// One of a job's records that count, by its name ([`FailedRecord::name`]).
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Store`].
    pub async fn failed_record(&self, job: &Job, name: &str) -> Result<FailedRecord> {
        let counted = self.counted_failed(job).await?;
        let mut found = None;
        if let Some((task, n)) = name.rsplit_once('/')
            && let Ok(n) = n.parse::<i64>()
        {
            const ACTION: &str = "read a record that was left out";
            let task = format!("{}/{task}", job.id);
            let filter = doc! {
                "_id": { "$gte": format!("{task}/"), "$lt": format!("{task}0") }, "n": n,
            };
            let mut rows = self.failed_records().find(filter).await.action(ACTION)?;
            while let Some(row) = rows.try_next().await.action(ACTION)? {
                let record = FailedRecord(row);
                found = found.or(Some(record).filter(|record| counted.counts(record)));
            }
        }
        found.ok_or_else(|| Error::NotFound {
            what: format!("record {name} of job {}", job.id),
            hint: format!("aviary failed {} lists them", job.id),
        })
    }

    /// The document of an input with this `_id`, as it is now.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn input_document(
        &self,
        input: &Input,
        id: RawVal<'_>,
    ) -> Result<Option<RawDocumentBuf>> {
        let mut filter = vec![0; 4];
        let mut equal = vec![0; 4];
        id.append_element("$eq", &mut equal);
        close_document(&mut equal, 0);
        RawVal { tag: tag::DOCUMENT, bytes: &equal }.append_element("_id", &mut filter);
        close_document(&mut filter, 0);
        let filter = RawDocumentBuf::from_bytes(filter)
            .map_err(|e| Error::Internal(format!("an _id is malformed: {e}")))?;
        let filter = Document::try_from(filter)
            .map_err(|e| Error::Internal(format!("an _id is malformed: {e}")))?;
        let collection = self.other_db(&input.db).collection::<RawDocumentBuf>(&input.collection);
        let mut find = collection.find_one(filter);
        if let Some(projection) = &input.projection {
            find = find.projection(projection.clone());
        }
        find.await.action("read a document of the input")
    }

    /// Removes a job's records.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn delete_failed(&self, job: &JobId) -> Result<()> {
        let gone = self.failed_records().delete_many(of_job(job)).await;
        gone.action("remove records that failed")?;
        Ok(())
    }

    /// Ends a job that has left out more records than it may. `is_over` says that no more documents will be read.
    ///
    /// # Errors
    /// [`Error::Refused`] with how many, the limit and the first error; [`Error::Store`].
    pub async fn refuse_skipped(&self, job: &Job, is_over: bool) -> Result<()> {
        let policy = job.spec.on_error;
        // A share is judged once everything is read.
        if policy.is_fail() || (!is_over && matches!(policy, OnError::SkipShare(_))) {
            return Ok(());
        }
        let (skipped, documents) = self.skipped(job).await?;
        let exceeded = match is_over {
            true => policy.is_exceeded_of(skipped, documents),
            false => policy.is_exceeded(skipped),
        };
        if !exceeded {
            return Ok(());
        }
        let first = match self.first_failed(job).await? {
            Some(first) => format!("; the first: {}", first.shown()),
            None => String::new(),
        };
        let of = if is_over { format!(" of {documents} documents read") } else { String::new() };
        Err(policy.refusal(skipped, &of, &first, &job.id))
    }
}

/// The names of a job's records.
fn of_job(job: &JobId) -> Document {
    doc! { "_id": { "$gte": format!("{job}/"), "$lt": format!("{job}0") } }
}

fn whole(row: &Document, name: &str) -> u64 {
    u64::try_from(integer(row.get(name))).unwrap_or(0)
}

/// What a document of the collection looks like.
pub(super) fn validator() -> Document {
    let text = || doc! { "bsonType": "string" };
    let names = ["_id", "job", "task", "token", "stage", "error"];
    let mut properties: Document =
        names.into_iter().map(|name| (name.to_owned(), text().into())).collect();
    properties.insert("n", doc! { "bsonType": "long" });
    properties.insert("document", doc! { "bsonType": "object" });
    doc! { "$jsonSchema": {
        "bsonType": "object",
        "required": ["_id", "job", "plan", "task", "token", "n", "stage", "error"],
        "properties": properties,
    } }
}
