//! What a request says, as its author writes it.

use bson::{Binary, Bson, Document};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, Result};
use crate::job::{OnError, ReadMode};

/// The only version of requests so far.
pub const VERSION: i64 = 1;
/// Bytes of a request's `_id`, of `client` and of `tag`.
pub const NAME_BYTES_MAX: usize = 128;

/// A request as it lies in the database, the coordinator's answer left out.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Asked {
    /// The key by which asking twice is asking once.
    #[serde(rename = "_id")]
    pub id: String,
    /// The version of requests: 1.
    #[serde(deserialize_with = "whole")]
    pub v: i64,
    /// The documents to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<InputWish>,
    /// The map function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<FunctionWish>,
    /// The combine function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub combine: Option<FunctionWish>,
    /// The reduce function, or the name of a built-in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reduce: Option<ReduceWish>,
    /// The finalize function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finalize: Option<FunctionWish>,
    /// Where results go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out: Option<OutWish>,
    /// Parameters every function can read.
    #[serde(
        default,
        deserialize_with = "crate::exact::document",
        skip_serializing_if = "Document::is_empty"
    )]
    pub scope: Document,
    /// Partitions of the shuffle; by size, without it.
    #[serde(default, deserialize_with = "whole", skip_serializing_if = "is_zero")]
    pub partitions: i64,
    /// What each function may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsWish>,
    /// Whether a key's only value is its result.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skip_single_values: bool,
    /// Whether all values of a key reach the reduce in one call.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_combine: bool,
    /// Whether the blocks of the shuffle are kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep_intermediates: bool,
    /// What becomes of records that a function fails on: `fail`, `skip:N` or `skip:P%`.
    #[serde(default, skip_serializing_if = "OnError::is_fail")]
    pub on_error: OnError,
    /// Jobs with a higher number go first.
    #[serde(default, deserialize_with = "whole", skip_serializing_if = "is_zero")]
    pub priority: i64,
    /// Who asks. A tenant's collection says so itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// A label for finding jobs again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// A whole job as MongoDB's `mapReduce` command.
    #[serde(
        default,
        deserialize_with = "crate::exact::maybe",
        skip_serializing_if = "Option::is_none"
    )]
    pub command: Option<Document>,
    /// A job that is to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<String>,
    /// A stopped job that is to go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<String>,
}

/// The documents to read.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InputWish {
    /// The collection.
    pub collection: String,
    /// Its database; the request's own, without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub db: Option<String>,
    /// Only documents that match.
    #[serde(
        default,
        deserialize_with = "crate::exact::document",
        skip_serializing_if = "Document::is_empty"
    )]
    pub query: Document,
    /// The order in which `limit` counts.
    #[serde(
        default,
        deserialize_with = "crate::exact::maybe",
        skip_serializing_if = "Option::is_none"
    )]
    pub sort: Option<Document>,
    /// At most this many documents.
    #[serde(default, deserialize_with = "maybe_whole", skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
    /// Only these fields of each document.
    #[serde(
        default,
        deserialize_with = "crate::exact::maybe",
        skip_serializing_if = "Option::is_none"
    )]
    pub projection: Option<Document>,
    /// How strings compare.
    #[serde(
        default,
        deserialize_with = "crate::exact::maybe",
        skip_serializing_if = "Option::is_none"
    )]
    pub collation: Option<Document>,
    /// `snapshot` or `committed`.
    #[serde(default, skip_serializing_if = "is_snapshot")]
    pub read: ReadMode,
}

/// A function: in the catalogue, or in the request itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FunctionWish {
    /// The text of a JavaScript function.
    #[serde(default, deserialize_with = "script", skip_serializing_if = "Option::is_none")]
    pub js: Option<String>,
    /// A WebAssembly module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wasm: Option<Binary>,
    /// A name in the catalogue, as in `clicks` or `clicks@2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A digest in the catalogue, or of another function of the same request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// With `js` or `wasm`: the file that it came from, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// With `wasm`: what the module was compiled from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built: Option<Built>,
}

/// What a module was compiled from; for people, who want to know what ran.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Built {
    /// The language.
    pub language: String,
    /// The compiler and its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toolchain: Option<String>,
    /// The files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceWish>,
}

/// A file that a module was compiled from.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceWish {
    /// Its name, without its directory.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// A reduce function, or the name of a built-in.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ReduceWish {
    /// `_sum`, `_count`, …
    Builtin(String),
    /// As any function.
    Function(Box<FunctionWish>),
}

/// Where results go: one of the modes with the collection's name, or inline.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutWish {
    /// They become the collection's content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace: Option<String>,
    /// They are added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merge: Option<String>,
    /// They are reduced with what is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reduce: Option<String>,
    /// Their fields are set in what is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<String>,
    /// They stay with the job: 1.
    #[serde(default, deserialize_with = "maybe_whole", skip_serializing_if = "Option::is_none")]
    pub inline: Option<i64>,
    /// The collection's database; the request's own, without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub db: Option<String>,
}

/// What each function may use; what is left out is as for `aviary submit`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitsWish {
    /// Memory of one function, in MiB.
    #[serde(default, deserialize_with = "maybe_whole", skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<i64>,
    /// Time one record may take, in milliseconds.
    #[serde(default, deserialize_with = "maybe_whole", skip_serializing_if = "Option::is_none")]
    pub record_timeout_ms: Option<i64>,
    /// Time one attempt at a task may take, in milliseconds.
    #[serde(default, deserialize_with = "maybe_whole", skip_serializing_if = "Option::is_none")]
    pub task_timeout_ms: Option<i64>,
    /// What one record may emit, in bytes.
    #[serde(default, deserialize_with = "maybe_whole", skip_serializing_if = "Option::is_none")]
    pub record_output_bytes: Option<i64>,
    /// What the functions of one attempt may log, in bytes.
    #[serde(default, deserialize_with = "maybe_whole", skip_serializing_if = "Option::is_none")]
    pub log_bytes: Option<i64>,
}

/// A request, sorted by what it wants.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its `_id`.
    pub id: String,
    /// What it wants.
    pub wish: Wish,
}

/// What a request wants.
#[derive(Debug, Clone)]
pub enum Wish {
    /// A new job.
    Run(Box<Asked>),
    /// The end of a job.
    Cancel(String),
    /// That a stopped job goes on.
    Resume(String),
}

impl Asked {
    /// An empty request.
    pub fn new(id: String) -> Self {
        Self {
            id,
            v: VERSION,
            input: None,
            map: None,
            combine: None,
            reduce: None,
            finalize: None,
            out: None,
            scope: Document::new(),
            partitions: 0,
            limits: None,
            skip_single_values: false,
            no_combine: false,
            keep_intermediates: false,
            on_error: OnError::Fail,
            priority: 0,
            client: None,
            tag: None,
            command: None,
            cancel: None,
            resume: None,
        }
    }

    /// Tells what is wanted.
    ///
    /// # Errors
    /// [`Error::Usage`] with the field's name first.
    pub fn sorted(self) -> Result<Request> {
        if self.v != VERSION {
            return Err(usage("v", &format!("is {}; this version of Aviary knows 1", self.v)));
        }
        for (field, text) in
            [("_id", Some(&self.id)), ("client", self.client.as_ref()), ("tag", self.tag.as_ref())]
        {
            if text.is_some_and(|text| text.len() > NAME_BYTES_MAX) {
                return Err(usage(field, &format!("is longer than {NAME_BYTES_MAX} bytes")));
            }
        }
        if self.id.is_empty() {
            return Err(usage("_id", "is empty"));
        }
        let wishes = [
            ("input", self.input.is_some()),
            ("command", self.command.is_some()),
            ("cancel", self.cancel.is_some()),
            ("resume", self.resume.is_some()),
        ];
        let given: Vec<&str> =
            wishes.iter().filter(|(_, is)| *is).map(|(field, _)| *field).collect();
        let id = self.id.clone();
        let wish = match (given.as_slice(), &self.cancel, &self.resume) {
            (["cancel"], Some(job), _) if self.is_alone() => Wish::Cancel(job.clone()),
            (["resume"], _, Some(job)) if self.is_alone() => Wish::Resume(job.clone()),
            (["command"], ..) if self.has_functions() => {
                return Err(usage("command", "says what a job is; leave map, reduce and out away"));
            }
            (["command"] | ["input"], ..) => Wish::Run(Box::new(self)),
            ([], ..) => {
                return Err(usage(
                    "input",
                    "is missing: a request has input, command, cancel or resume",
                ));
            }
            ([one], ..) => return Err(usage(one, "goes with no other field than _id and v")),
            ([first, second, ..], ..) => {
                return Err(usage(first, &format!("does not go with {second}; ask for one thing")));
            }
        };
        Ok(Request { id, wish })
    }

    fn has_functions(&self) -> bool {
        self.map.is_some()
            || self.combine.is_some()
            || self.reduce.is_some()
            || self.finalize.is_some()
            || self.out.is_some()
            || !self.scope.is_empty()
    }

    fn is_alone(&self) -> bool {
        !self.has_functions()
            && self.limits.is_none()
            && self.on_error.is_fail()
            && self.partitions == 0
            && self.priority == 0
            && self.client.is_none()
            && self.tag.is_none()
    }
}

/// A refusal that begins with a field's name.
pub fn usage(field: &str, why: &str) -> Error {
    Error::Usage(format!("{field} {why}"))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_snapshot(mode: &ReadMode) -> bool {
    *mode == ReadMode::Snapshot
}

/// A whole number of any type: a shell's are doubles.
fn whole<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<i64, D::Error> {
    use serde::de::Error as _;
    match Bson::deserialize(from)? {
        Bson::Int32(n) => Ok(i64::from(n)),
        Bson::Int64(n) => Ok(n),
        #[expect(clippy::cast_possible_truncation, reason = "whole numbers of this size are exact")]
        Bson::Double(n) if n.fract() == 0.0 && n.abs() < 9e15 => Ok(n as i64),
        other => Err(D::Error::custom(format!("{other} is not a whole number"))),
    }
}

fn maybe_whole<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<i64>, D::Error> {
    whole(from).map(Some)
}

/// A function's text, as a string or as code.
fn script<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Option<String>, D::Error> {
    use serde::de::Error as _;
    match Bson::deserialize(from)? {
        Bson::String(text) | Bson::JavaScriptCode(text) => Ok(Some(text)),
        other => Err(D::Error::custom(format!(
            "{:?} is not the text of a function",
            other.element_type()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;
    use crate::job::OutputMode;
    use crate::request::convert::{of_job, partitions};

    fn asked(document: Document) -> Result<Request> {
        let asked: Asked =
            bson::deserialize_from_document(document).map_err(|e| Error::Usage(e.to_string()))?;
        asked.sorted()
    }

    #[test]
    fn a_shells_numbers_are_whole() {
        let request = asked(doc! {
            "_id": "a", "v": 1.0, "priority": 3.0,
            "input": { "collection": "orders", "limit": 5.0 }, "map": { "js": "x" },
        });
        let Ok(Request { wish: Wish::Run(run), .. }) = request else { panic!("{request:?}") };
        assert_eq!(run.priority, 3);
        assert_eq!(run.input.unwrap().limit, Some(5));
        assert!(asked(doc! { "_id": "a", "v": 1.5, "cancel": "x" }).is_err());
    }

    #[test]
    fn a_request_wants_one_thing() {
        let input = doc! { "collection": "orders" };
        for (bad, word) in [
            (doc! { "_id": "a", "v": 1 }, "input"),
            (doc! { "_id": "a", "v": 2, "cancel": "x" }, "v is 2"),
            (doc! { "_id": "", "v": 1, "cancel": "x" }, "_id"),
            (doc! { "_id": "x".repeat(200), "v": 1, "cancel": "x" }, "_id"),
            (doc! { "_id": "a", "v": 1, "cancel": "x", "resume": "x" }, "one thing"),
            (doc! { "_id": "a", "v": 1, "cancel": "x", "priority": 1 }, "no other field"),
            (doc! { "_id": "a", "v": 1, "cancel": "x", "input": input.clone() }, "one thing"),
            (doc! { "_id": "a", "v": 1, "command": {}, "map": { "js": "x" } }, "command"),
            (doc! { "_id": "a", "v": 1, "input": input, "typo": 1 }, "typo"),
        ] {
            let error = asked(bad.clone()).unwrap_err();
            assert!(error.to_string().contains(word), "{bad}: {error}");
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[test]
    fn a_job_asks_for_itself() {
        let mut spec = crate::job::validate::tests::spec();
        spec.input.limit = Some(7);
        spec.partitions = 3;
        let asked = of_job("a".into(), &spec);
        let document = bson::serialize_to_document(&asked).unwrap();
        let back: Asked = bson::deserialize_from_document(document).unwrap();
        let input = back.input.unwrap().input("home");
        assert_eq!((input.db.as_str(), input.limit), ("shop", Some(7)));
        let out = back.out.unwrap();
        assert_eq!(out.target().unwrap(), (OutputMode::Replace, Some("shop"), Some("totals")));
        assert_eq!(back.limits.unwrap().limits().unwrap(), spec.limits);
        assert_eq!(partitions(back.partitions).unwrap(), 3);
    }

    #[test]
    fn an_output_has_one_mode() {
        for bad in [
            OutWish::default(),
            OutWish { inline: Some(2), ..OutWish::default() },
            OutWish { inline: Some(1), merge: Some("a".into()), ..OutWish::default() },
            OutWish { replace: Some("a".into()), merge: Some("a".into()), ..OutWish::default() },
        ] {
            assert!(bad.target().is_err());
        }
    }
}
