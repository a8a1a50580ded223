//! What a job asks for.

use std::fmt;
use std::str::FromStr;

use bson::{Bson, Document};
use serde::{Deserialize, Serialize};

use super::on_error::OnError;
use crate::config::{self};

/// All that a client says of a job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobSpec {
    /// The documents to read.
    pub input: Input,
    /// Turns a document into keys and values.
    pub map: FunctionRef,
    /// Shrinks the values of one key on the map side; without it, `reduce` serves, unless it streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub combine: Option<FunctionRef>,
    /// Turns the values of one key into one; a job without it is map-only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reduce: Option<Reducer>,
    /// Turns a key's reduced value into the one that is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finalize: Option<FunctionRef>,
    /// Whether a key's only value is its result, without a call of `reduce`: what MongoDB did before 4.4.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skip_single_values: bool,
    /// Parameters every function can read.
    #[serde(
        default,
        deserialize_with = "crate::exact::document",
        skip_serializing_if = "Document::is_empty"
    )]
    pub scope: Document,
    /// Where the result goes.
    pub output: Output,
    /// Partitions of the shuffle; 0 until the plan has chosen.
    #[serde(default)]
    pub partitions: u32,
    /// What each function may use.
    #[serde(default)]
    pub limits: Limits,
    /// Whether values reach the reduce as they were emitted, all of a key in one call: for a reduce
    /// that is not associative and does not stream.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_combine: bool,
    /// Keep the blocks of the shuffle after the job, for looking at.
    #[serde(default)]
    pub keep_intermediates: bool,
    /// What becomes of records that a function fails on.
    #[serde(default, skip_serializing_if = "OnError::is_fail")]
    pub on_error: OnError,
}

/// The documents a job reads.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Input {
    /// The database.
    pub db: String,
    /// The collection; never a view.
    pub collection: String,
    /// Only documents that match, in MongoDB's query language.
    #[serde(default, deserialize_with = "crate::exact::document")]
    pub query: Document,
    /// The order in which `limit` counts.
    #[serde(
        default,
        deserialize_with = "crate::exact::maybe",
        skip_serializing_if = "Option::is_none"
    )]
    pub sort: Option<Document>,
    /// At most this many documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
    /// Only these fields of each document are read.
    #[serde(
        default,
        deserialize_with = "crate::exact::maybe",
        skip_serializing_if = "Option::is_none"
    )]
    pub projection: Option<Document>,
    /// How strings compare in `query` and `sort`.
    #[serde(
        default,
        deserialize_with = "crate::exact::maybe",
        skip_serializing_if = "Option::is_none"
    )]
    pub collation: Option<Document>,
    /// How consistent the reading is.
    #[serde(default)]
    pub read: ReadMode,
}

impl Input {
    /// Whether one task reads it all: only one reader can know which documents come first, and ranges
    /// of `_id` cannot be read under another order of strings than the index has.
    pub fn has_one_reader(&self) -> bool {
        self.limit.is_some() || self.sort.is_some() || self.collation.is_some()
    }

    /// Whether the query or the projection may compare text.
    pub fn compares(&self) -> bool {
        let computes = |value: &Bson| matches!(value, Bson::Document(_) | Bson::Array(_));
        let mut projected = self.projection.iter().flat_map(Document::values);
        !self.query.is_empty() || projected.any(computes)
    }

    /// Whether strings that differ may be the same to this job.
    pub fn is_collated(&self) -> bool {
        let locale = self.collation.as_ref().map(|collation| collation.get_str("locale"));
        locale.is_some_and(|locale| !matches!(locale, Ok("simple")))
    }
}

/// How consistent the reading is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadMode {
    /// Every document as of one instant, fixed when the job is planned.
    #[default]
    Snapshot,
    /// Every document as its task finds it: for jobs longer than the server's history.
    Committed,
}

/// A function in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionRef {
    /// BLAKE3 of the stored bytes, in hexadecimal.
    pub digest: String,
    /// `wasm` or `js`.
    pub language: String,
    /// The name or file it came under, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A job's reduce: a user's function, or one that runs natively in the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reducer {
    /// `_sum`, `_count`, `_min`, `_max`, `_avg` or `_stats`.
    Builtin(String),
    /// A function in the catalogue.
    Function(FunctionRef),
}

/// Where the result goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// How it gets there.
    pub mode: OutputMode,
    /// The database.
    pub db: String,
    /// The collection; for [`OutputMode::Inline`] the job's own hidden one.
    pub collection: String,
}

/// How a result gets to its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputMode {
    /// The target's content is replaced at one instant; its indexes stay.
    Replace,
    /// Results are added to the target; one whose `_id` is there already takes the place of what was.
    Merge,
    /// As merge, but what was there is reduced once more with the result.
    Reduce,
    /// Only for map-only jobs: the fields of each emitted document are set in the target's document of
    /// that `_id`; one that is not there is not brought back.
    Update,
    /// The result is kept with the job and read with `aviary results`.
    Inline,
}

impl OutputMode {
    /// Whether results go to a collection that a user owns.
    pub fn has_target(self) -> bool {
        match self {
            OutputMode::Replace | OutputMode::Merge | OutputMode::Reduce | OutputMode::Update => {
                true
            }
            OutputMode::Inline => false,
        }
    }

    /// Whether what the target holds already stays, but for what the results touch.
    pub fn adds(self) -> bool {
        match self {
            OutputMode::Merge | OutputMode::Reduce | OutputMode::Update => true,
            OutputMode::Replace | OutputMode::Inline => false,
        }
    }
}

/// What each function may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Linear memory of one function instance, in MiB.
    pub memory_mb: u64,
    /// Time one record may take, in milliseconds.
    pub record_timeout_ms: u64,
    /// Time that one attempt at a task may take, in milliseconds; none for as long as it needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_timeout_ms: Option<u64>,
    /// Keys and values that one record may emit, in bytes: a document, or a key of a later stage.
    #[serde(default = "record_output_bytes")]
    pub record_output_bytes: u64,
    /// Lines that the functions of one attempt may log, in bytes.
    #[serde(default = "log_bytes")]
    pub log_bytes: u64,
}

// Jobs that were submitted before there were these limits have the defaults.
fn record_output_bytes() -> u64 {
    config::RECORD_OUTPUT_BYTES_DEFAULT
}

fn log_bytes() -> u64 {
    config::LOG_BYTES_DEFAULT
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_mb: config::GUEST_MEMORY_MB_DEFAULT,
            record_timeout_ms: config::RECORD_TIMEOUT_MS_DEFAULT,
            task_timeout_ms: None,
            record_output_bytes: config::RECORD_OUTPUT_BYTES_DEFAULT,
            log_bytes: config::LOG_BYTES_DEFAULT,
        }
    }
}

impl Output {
    /// The job's hidden collection, in the target's own database so that it can be renamed.
    pub fn hidden(job: &crate::ids::JobId) -> String {
        format!("{HIDDEN_PREFIX}{job}")
    }

    /// The name a publisher moves the hidden collection to before it publishes it: nobody but the
    /// holder of `token` ever uses it.
    pub fn staged(job: &crate::ids::JobId, token: &str) -> String {
        format!("{HIDDEN_PREFIX}{job}-{token}")
    }
}

/// Collections whose name begins so belong to a job's output in the making.
pub const HIDDEN_PREFIX: &str = "aviary-out-";

impl FromStr for ReadMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "snapshot" => Ok(Self::Snapshot),
            "committed" => Ok(Self::Committed),
            other => Err(format!("{other:?} is not a read mode; use snapshot or committed")),
        }
    }
}

impl fmt::Display for OutputMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OutputMode::Replace => "replace",
            OutputMode::Merge => "merge",
            OutputMode::Reduce => "reduce",
            OutputMode::Update => "update",
            OutputMode::Inline => "inline",
        })
    }
}

impl JobSpec {
    /// The digests of every function that the job runs.
    pub fn digests(&self) -> Vec<String> {
        let reduce = match &self.reduce {
            Some(Reducer::Function(function)) => Some(function),
            Some(Reducer::Builtin(_)) | None => None,
        };
        let all = [Some(&self.map), self.combine.as_ref(), reduce, self.finalize.as_ref()];
        all.into_iter().flatten().map(|function| function.digest.clone()).collect()
    }
}
