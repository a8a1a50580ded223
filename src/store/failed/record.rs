//! One record that was left out, as it is written and as it is read.

use bson::DateTime;
use bson::raw::{RawDocument, RawDocumentBuf};

use crate::config;
use crate::ids::{JobId, TaskId, Token};
use crate::value::{Elements, RawVal, close_document, tag};

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
pub struct FailedRecord(pub(super) RawDocumentBuf);

impl FailedRecord {
    pub(super) fn text(&self, field: &str) -> &str {
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
