//! The records that a job's functions failed on and that were left out, each a document in `aviary-failed`.
//!
//! An attempt writes them before it commits. How many of them count is in its counters: those that the committed
//! attempt has written, by its token, and no others. They hold copies of input, so fewer may read them than jobs.

use std::collections::HashMap;

use bson::raw::{RawDocument, RawDocumentBuf};
use bson::{DateTime, Document, doc};
use futures_util::TryStreamExt;
use mongodb::Collection;
use mongodb::error::Error as DriverError;

use super::Store;
use super::claims::own_tasks_of;
use super::error::{Action, classify};
use crate::config;
use crate::error::{Error, Result, StoreErrorKind};
use crate::ids::{JobId, TaskId, Token};
use crate::job::{Input, Job};
use crate::task::counters::SKIPPED;
use crate::task::{TaskKind, TaskState};
use crate::value::{Elements, RawVal, close_document, tag};

/// The collection.
pub const FAILED: &str = "aviary-failed";

/// Bytes of a record that are kept with its error.
pub const KEPT_RECORD_BYTES_MAX: usize = 16 << 10;
/// Bytes of its `_id` or key that are kept as a value.
const KEPT_ID_BYTES_MAX: usize = 1 << 10;
/// Levels within each other that a kept value may have: it lies one deeper than where it was, and servers take no
/// document of more than 180.
const KEPT_LEVELS_MAX: usize = 90;

/// One record as an attempt leaves it out.
#[derive(Debug)]
pub struct Failing<'a> {
    /// The task.
    pub task: &'a TaskId,
    /// The job.
    pub job: &'a JobId,
    /// The number of the plan that the task belongs to.
    pub plan: i32,
    /// The attempt, by the task's epoch.
    pub attempt: i64,
    /// The attempt, by its fence.
    pub token: &'a Token,
    /// How many the attempt has left out before.
    pub n: u64,
    /// The stage that failed.
    pub stage: &'a str,
    /// The function's digest.
    pub function: &'a str,
    /// Its name or file.
    pub name: Option<&'a str>,
    /// What happened, in a few words: `failed`, `trapped`, `ran out of time`.
    pub what: &'a str,
    /// The error's first line.
    pub error: &'a str,
    /// The function's stack.
    pub stack: &'a str,
    /// The document's `_id`, or the key.
    pub id: Option<RawVal<'a>>,
    /// All of what the function was given for it: the document, `{k, v: […]}` or `{k, v}`.
    pub record: Option<&'a RawDocument>,
    /// How many bytes it has.
    pub bytes: usize,
}

/// Cuts a text where it is too long.
fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    format!("{} […]", &text.get(..text.floor_char_boundary(most)).unwrap_or_default())
}

/// Whether a value may be kept as it is.
fn is_shallow(value: RawVal<'_>) -> bool {
    value.validate().is_ok() && has_levels(value, KEPT_LEVELS_MAX)
}

/// Whether a value has no more levels within each other.
fn has_levels(value: RawVal<'_>, most: usize) -> bool {
    if !matches!(value.tag, tag::DOCUMENT | tag::ARRAY | tag::CODE_WITH_SCOPE) {
        return true;
    }
    // A scope lies behind the code's own length and text; there is no need to look into it.
    if most == 0 || value.tag == tag::CODE_WITH_SCOPE {
        return false;
    }
    let mut elements = Elements::new(value.bytes);
    while let Ok(Some((_, inner))) = elements.next() {
        if !has_levels(inner, most - 1) {
            return false;
        }
    }
    true
}

impl Failing<'_> {
    /// The name of a job's record: the task, and how many the same attempt has left out before.
    fn id(&self) -> String {
        format!("{}/{:05}.{}/{:06}", self.task, self.attempt, self.token, self.n)
    }

    /// The document that keeps it.
    pub fn to_document(&self) -> RawDocumentBuf {
        let mut doc = bson::rawdoc! {
            "_id": self.id(),
            "job": self.job.as_str(),
            "plan": self.plan,
            "task": self.task.as_str(),
            "attempt": self.attempt,
            "token": self.token.as_str(),
            "n": i64::try_from(self.n).unwrap_or(i64::MAX),
            "at": DateTime::now(),
            "stage": self.stage,
            "function": self.function,
            "what": self.what,
            "error": cut(self.error, config::FAILED_TEXT_BYTES_MAX),
            "bytes": i64::try_from(self.bytes).unwrap_or(i64::MAX),
        };
        if let Some(name) = self.name {
            doc.append(bson::cstr!("name"), name);
        }
        if !self.stack.is_empty() {
            doc.append(bson::cstr!("stack"), cut(self.stack, config::FAILED_TEXT_BYTES_MAX));
        }
        let mut bytes = doc.into_bytes();
        // The document's own end.
        bytes.pop();
        let small = |value: RawVal<'_>, most| value.bytes.len() <= most && is_shallow(value);
        if let Some(id) = self.id.filter(|id| small(*id, KEPT_ID_BYTES_MAX)) {
            id.append_element("record", &mut bytes);
        }
        let record = self.record.map(|doc| RawVal { tag: tag::DOCUMENT, bytes: doc.as_bytes() });
        if let Some(record) = record.filter(|record| small(*record, KEPT_RECORD_BYTES_MAX)) {
            record.append_element("document", &mut bytes);
        }
        close_document(&mut bytes, 0);
        RawDocumentBuf::from_bytes(bytes).unwrap_or_default()
    }
}

/// A record that was left out, as it is read.
#[derive(Debug, Clone)]
pub struct FailedRecord(RawDocumentBuf);

impl FailedRecord {
    fn text(&self, field: &str) -> &str {
        self.0.get_str(field).unwrap_or("")
    }

    /// The task.
    pub fn task(&self) -> TaskId {
        TaskId::from_text(self.text("task"))
    }

    /// By what a person names it: the task and its number there.
    pub fn name(&self) -> String {
        format!("{}/{}", self.task().short(), self.n())
    }

    /// How many the attempt had left out before.
    pub fn n(&self) -> i64 {
        self.0.get_i64("n").unwrap_or(-1)
    }

    /// The attempt.
    pub fn attempt(&self) -> i64 {
        self.0.get_i64("attempt").unwrap_or(0)
    }

    /// When it failed, by its worker's clock.
    pub fn at(&self) -> Option<DateTime> {
        self.0.get_datetime("at").ok()
    }

    /// The stage that failed on it.
    pub fn stage(&self) -> &str {
        self.text("stage")
    }

    /// The digest of the function that failed.
    pub fn function(&self) -> &str {
        self.text("function")
    }

    /// That function's name or file.
    pub fn function_name(&self) -> Option<&str> {
        self.0.get_str("name").ok()
    }

    /// What happened, in a few words.
    pub fn what(&self) -> &str {
        self.text("what")
    }

    /// The error.
    pub fn error(&self) -> &str {
        self.text("error")
    }

    /// The function's stack; may be empty.
    pub fn stack(&self) -> &str {
        self.text("stack")
    }

    /// How many bytes the record has.
    pub fn bytes(&self) -> i64 {
        self.0.get_i64("bytes").unwrap_or(0)
    }

    /// The document's `_id` or the key, if it was kept.
    pub fn id(&self) -> Option<RawVal<'_>> {
        let mut elements = Elements::new(self.0.as_bytes());
        while let Ok(Some((name, value))) = elements.next() {
            if name == b"record" {
                return Some(value);
            }
        }
        None
    }

    /// The record itself, if it was kept.
    pub fn record(&self) -> Option<&RawDocument> {
        self.0.get_document("document").ok()
    }
}

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
        if policy.is_fail() {
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
        Err(Error::refused(
            format!(
                "functions failed on {skipped} records{of}, more than --on-error {policy} allows{first}"
            ),
            format!("aviary failed {} lists them", job.id),
        ))
    }
}

impl FailedRecord {
    /// The error, and on what, in one line.
    pub fn shown(&self) -> String {
        let word = if self.stage() == "map" { "the document with _id" } else { "the key" };
        let on = match self.id() {
            Some(id) => format!(" on {word} {id}"),
            None => String::new(),
        };
        format!("{} {}{on}: {}", self.stage(), self.what(), self.error())
    }
}

/// The names of a job's records.
fn of_job(job: &JobId) -> Document {
    doc! { "_id": { "$gte": format!("{job}/"), "$lt": format!("{job}0") } }
}

fn whole(row: &Document, name: &str) -> u64 {
    let n = match row.get(name) {
        Some(bson::Bson::Int32(n)) => i64::from(*n),
        Some(bson::Bson::Int64(n)) => *n,
        _ => 0,
    };
    u64::try_from(n).unwrap_or(0)
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
