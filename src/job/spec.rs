//! What a job asks for, and the checks that need no server.

use std::fmt;
use std::str::FromStr;

use bson::{Bson, Document};
use serde::{Deserialize, Serialize};

use super::authority::refuse_reserved;
use super::on_error::OnError;
use crate::config::{self, Caps};
use crate::error::Error;

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

impl Limits {
    /// Finds values that cannot be meant.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn validate(&self) -> Result<(), Error> {
        let zero = self.memory_mb == 0
            || self.record_timeout_ms == 0
            || self.task_timeout_ms == Some(0)
            || self.record_output_bytes == 0;
        if zero {
            return Err(Error::Usage(
                "the limits of memory, time and output must be above 0".into(),
            ));
        }
        if self.memory_mb > config::GUEST_MEMORY_MB_MAX {
            return Err(Error::Usage(format!(
                "--memory-mb {} is more than the {} MiB that a function can address",
                self.memory_mb,
                config::GUEST_MEMORY_MB_MAX
            )));
        }
        if self.log_bytes > config::LOG_BYTES_MAX as u64 {
            return Err(Error::Usage(format!(
                "--log-bytes {} is more than {}",
                self.log_bytes,
                config::LOG_BYTES_MAX
            )));
        }
        Ok(())
    }
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

    /// Finds what is wrong with a job before any server is asked.
    ///
    /// # Errors
    /// [`Error::Usage`] for values out of range, [`Error::Refused`] for an output that would eat
    /// the input or Aviary's own collections.
    pub fn validate(&self, aviary_db: &str) -> Result<(), Error> {
        self.validate_without_functions(aviary_db)?;
        if self.reduce.is_none() && (self.combine.is_some() || self.finalize.is_some()) {
            return Err(Error::Usage(
                "--combine and --finalize need --reduce; a map-only job has neither".into(),
            ));
        }
        if self.combine.is_some() && matches!(self.reduce, Some(Reducer::Builtin(_))) {
            return Err(Error::Usage(
                "a built-in reduce combines on the map side by itself; leave --combine out".into(),
            ));
        }
        if self.no_combine && !matches!(self.reduce, Some(Reducer::Function(_))) {
            return Err(Error::Usage("--no-combine needs a --reduce that is a function".into()));
        }
        if self.no_combine && self.combine.is_some() {
            return Err(Error::Usage("--no-combine and --combine exclude each other".into()));
        }
        self.validate_mode()
    }

    /// The part of that for which it need not be known which functions there are.
    ///
    /// # Errors
    /// As [`JobSpec::validate`].
    pub fn validate_without_functions(&self, aviary_db: &str) -> Result<(), Error> {
        check_collection_name(&self.input.db, &self.input.collection)?;
        check_limit(self.input.limit)?;
        self.limits.validate()?;
        Caps::default().check(self).map_err(|over| Error::Usage(over.to_string()))?;
        check_database_name(&self.output.db)?;
        if self.output.mode.has_target() {
            check_collection_name(&self.output.db, &self.output.collection)?;
        } else if self.output.db != aviary_db {
            return Err(Error::Usage(format!(
                "an inline result is kept in the job's own database {aviary_db}, not in {}",
                self.output.db
            )));
        }
        refuse_reserved(self)?;
        Ok(())
    }

    /// What an output mode asks of the rest of the job.
    fn validate_mode(&self) -> Result<(), Error> {
        let (mode, output) = (self.output.mode, &self.output);
        match (mode, &self.reduce) {
            (OutputMode::Reduce, None) => {
                return Err(Error::Usage(
                    "--out reduce:NAME needs --reduce; a map-only job can merge:NAME or \
                     update:NAME"
                        .into(),
                ));
            }
            (OutputMode::Update, Some(_)) => {
                return Err(Error::Usage(
                    "--out update:NAME is for map-only jobs; with a reduce, merge:NAME it is"
                        .into(),
                ));
            }
            (OutputMode::Reduce, Some(Reducer::Builtin(name)))
                if matches!(name.as_str(), "_avg" | "_stats") =>
            {
                return Err(Error::refused(
                    format!("{name} cannot be reduced into a collection"),
                    "a result no longer says how many values it is made of: keep sums and counts \
                     with a reduce of your own, and divide in --finalize or when reading",
                ));
            }
            (OutputMode::Reduce, Some(_)) if self.combine.is_some() || self.no_combine => {
                let which = if self.no_combine { "--no-combine" } else { "--combine" };
                return Err(Error::refused(
                    format!("a job with {which} cannot be reduced into a collection"),
                    "its reduce need not take its own results for values, and would be given one: \
                     use a reduce that combines, or --out merge:NAME",
                ));
            }
            _ => {}
        }
        if !mode.has_target()
            || output.db != self.input.db
            || output.collection != self.input.collection
        {
            return Ok(());
        }
        let name = format!("{}.{}", output.db, output.collection);
        let backfill = matches!(mode, OutputMode::Merge | OutputMode::Update);
        if !backfill || self.reduce.is_some() {
            return Err(Error::refused(
                format!("the output {name} is the input itself"),
                "name another collection; only a map-only job can write back what it read, with \
                 --out update:NAME or merge:NAME",
            ));
        }
        if self.input.read == ReadMode::Committed {
            return Err(Error::refused(
                format!(
                    "the output {name} is the input itself, which --read committed does not \
                         hold still"
                ),
                "leave --read committed out",
            ));
        }
        Ok(())
    }
}

/// Refuses what is no name of a database.
pub(crate) fn check_database_name(db: &str) -> Result<(), Error> {
    if db.is_empty() || db.len() > 63 || db.contains(['/', '\\', '.', ' ', '"', '$', '\0']) {
        return Err(Error::Usage(format!("{db:?} is not a database name")));
    }
    Ok(())
}

/// Refuses a limit that lets nothing through.
///
/// # Errors
/// [`Error::Usage`].
pub(crate) fn check_limit(limit: Option<i64>) -> Result<(), Error> {
    match limit.is_some_and(|limit| limit <= 0) {
        true => Err(Error::Usage("--limit must be at least 1".into())),
        false => Ok(()),
    }
}

fn check_collection_name(db: &str, collection: &str) -> Result<(), Error> {
    check_database_name(db)?;
    let bad_collection = collection.is_empty()
        || collection.contains(['$', '\0'])
        || collection.starts_with('.')
        || db.len() + 1 + collection.len() > 235;
    if bad_collection {
        return Err(Error::Usage(format!("{collection:?} is not a collection name")));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn spec() -> JobSpec {
        let function = FunctionRef { digest: "d".into(), language: "js".into(), name: None };
        JobSpec {
            input: Input {
                db: "shop".into(),
                collection: "orders".into(),
                query: Document::new(),
                sort: None,
                limit: None,
                projection: None,
                collation: None,
                read: ReadMode::Snapshot,
            },
            map: function,
            combine: None,
            reduce: Some(Reducer::Builtin("_sum".into())),
            finalize: None,
            skip_single_values: false,
            scope: Document::new(),
            output: Output {
                mode: OutputMode::Replace,
                db: "shop".into(),
                collection: "totals".into(),
            },
            partitions: 0,
            limits: Limits::default(),
            no_combine: false,
            keep_intermediates: false,
            on_error: OnError::Fail,
        }
    }

    #[test]
    fn a_plain_job_is_accepted() {
        assert!(spec().validate("shop").is_ok());
    }

    #[test]
    fn the_input_is_never_the_output() {
        let mut bad = spec();
        bad.output.collection = "orders".into();
        assert_eq!(bad.validate("shop").unwrap_err().exit_code(), 8);
        bad.output.db = "elsewhere".into();
        assert!(bad.validate("shop").is_ok());
    }

    #[test]
    fn only_a_map_only_job_under_a_snapshot_writes_back_what_it_read() {
        for mode in [OutputMode::Replace, OutputMode::Merge, OutputMode::Reduce, OutputMode::Update]
        {
            let mut job = spec();
            job.output.collection = "orders".into();
            job.output.mode = mode;
            assert!(job.validate("shop").is_err(), "{mode} with a reduce");
            job.reduce = None;
            let backfill = matches!(mode, OutputMode::Merge | OutputMode::Update);
            assert_eq!(job.validate("shop").is_ok(), backfill, "{mode}, map-only");
            job.input.read = ReadMode::Committed;
            assert!(job.validate("shop").is_err(), "{mode}, map-only, committed");
        }
    }

    #[test]
    fn results_that_forget_their_values_are_not_reduced_again() {
        for (name, well) in [("_sum", true), ("_count", true), ("_min", true), ("_max", true)]
            .into_iter()
            .chain([("_avg", false), ("_stats", false)])
        {
            let mut job = spec();
            job.output.mode = OutputMode::Reduce;
            job.reduce = Some(Reducer::Builtin(name.into()));
            assert_eq!(job.validate("shop").is_ok(), well, "{name}");
        }
    }

    #[test]
    fn aviarys_own_collections_are_no_output() {
        for name in ["aviary", "aviary-funcs", "aviary-intermediates", "aviary-out-x", "system.js"]
        {
            let mut bad = spec();
            bad.output.collection = name.into();
            assert_eq!(bad.validate("shop").unwrap_err().exit_code(), 8, "{name}");
        }
    }

    #[test]
    fn bad_numbers_and_names_are_usage_errors() {
        let mut bad = spec();
        bad.partitions = config::PARTITIONS_MAX + 1;
        assert_eq!(bad.validate("shop").unwrap_err().exit_code(), 2);
        let mut bad = spec();
        bad.input.limit = Some(0);
        assert_eq!(bad.validate("shop").unwrap_err().exit_code(), 2);
        let mut bad = spec();
        bad.input.collection = "a$b".into();
        assert_eq!(bad.validate("shop").unwrap_err().exit_code(), 2);
        let mut bad = spec();
        bad.reduce = None;
        bad.finalize = Some(bad.map.clone());
        assert_eq!(bad.validate("shop").unwrap_err().exit_code(), 2);
    }
}
