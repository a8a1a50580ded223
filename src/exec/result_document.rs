//! What a job takes of its functions' emits, and the documents that results are.

use bson::RawDocumentBuf;

use super::collation::Collated;
use super::combiner::refuse_emit;
use super::function;
use crate::config;
use crate::error::{Error, Result};
use crate::job::{Job, OutputMode, Reducer};
use crate::shuffle::builtin::{Accumulator, Builtin, BuiltinError};
use crate::shuffle::table::{EMIT_BYTES_MAX, ShuffleError};
use crate::value::{Elements, RawVal, close_document, tag};

/// What a job takes of its map.
#[derive(Clone)]
pub(crate) struct Rules {
    pub(crate) mode: OutputMode,
    /// By which the job would have to group text.
    pub(crate) collation: Option<Collated>,
    pub(crate) builtin: Option<Builtin>,
    /// Whether each emit becomes a document.
    pub(crate) map_only: bool,
}

impl Rules {
    pub(crate) fn of(job: &Job) -> Result<Self> {
        let builtin = match &job.spec.reduce {
            Some(Reducer::Builtin(name)) => Some(builtin(name)?),
            _ => None,
        };
        Ok(Self {
            mode: job.spec.output.mode,
            collation: Collated::of(job),
            builtin,
            map_only: job.spec.reduce.is_none(),
        })
    }

    /// Refuses what could become no result, when it is emitted.
    #[inline]
    pub(crate) fn check(&self, key: RawVal<'_>, value: RawVal<'_>) -> Result<()> {
        check_id(key)?;
        if self.mode.adds() && key.is_nullish() {
            return Err(Error::refused(
                format!(
                    "a result has the key null, which servers merge into no collection (--out {})",
                    self.mode
                ),
                "nothing was published: emit another key, or use --out replace:NAME or inline",
            ));
        }
        if let Some(collation) = &self.collation {
            collation.refuse_text(key)?;
        }
        if self.mode == OutputMode::Update && value.tag == tag::DOCUMENT {
            check_update(value.bytes)?;
        }
        if self.mode == OutputMode::Merge && self.map_only && value.tag == tag::DOCUMENT {
            check_merge(value.bytes)?;
        }
        Ok(())
    }

    /// Refuses keys that could be no result's, of sums.
    pub(crate) fn check_key(&self, key: &[u8]) -> Result<()> {
        self.check(function::raw(key)?, RawVal::NULL)
    }

    /// As [`judge`](Self::judge), and gives the document that a map-only job's emit becomes.
    pub(crate) fn judged(&self, key: &[u8], value: &[u8]) -> Result<Option<RawDocumentBuf>> {
        let (key, value) = (function::raw(key)?, function::raw(value)?);
        self.check(key, value)?;
        if let Some(builtin) = self.builtin
            && !matches!(value.tag, tag::DOUBLE | tag::INT32 | tag::INT64)
        {
            let refused = |e: BuiltinError| Error::refused(format!("key {key}: {e}"), "");
            Accumulator::new(builtin).add(value).map_err(refused)?;
        }
        check_size(key, value)?;
        match self.map_only {
            true => document_of_emit(key, value).map(Some),
            false => Ok(None),
        }
    }

    /// All that can be said of an emit by itself.
    pub(crate) fn judge(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let (key, value) = (function::raw(key)?, function::raw(value)?);
        self.check(key, value)?;
        if let Some(builtin) = self.builtin {
            let refused = |e: BuiltinError| Error::refused(e.to_string(), "");
            Accumulator::new(builtin).add(value).map_err(refused)?;
        }
        if self.map_only {
            document_of_emit(key, value)?;
        }
        Ok(())
    }
}

/// Refuses what the shuffle would: what is said of one emit is known while it is known whose it is.
fn check_size(key: RawVal<'_>, value: RawVal<'_>) -> Result<()> {
    let bytes = key.len() + value.len();
    match bytes > EMIT_BYTES_MAX {
        true => Err(refuse_emit(&ShuffleError::TooLarge { key: key.to_string(), bytes })),
        false => Ok(()),
    }
}

/// Refuses names that a document which takes the place of another may not have.
fn check_merge(document: &[u8]) -> Result<()> {
    match name_that(document, |name| name.first() == Some(&b'$'))? {
        None => Ok(()),
        Some(name) => Err(Error::refused(
            format!(
                "--out merge: may replace a document, which servers refuse for one with a field named {name:?}"
            ),
            "rename the field, put it within another one, or use --out replace:",
        )),
    }
}

/// Refuses names whose meaning would have to be guessed: `{"a.b": 1}` may be meant as a path or as a name.
fn check_update(document: &[u8]) -> Result<()> {
    match name_that(document, |name| name.contains(&b'.') || name.first() == Some(&b'$'))? {
        None => Ok(()),
        Some(name) => Err(Error::refused(
            format!(
                "--out update: sets whole fields, and the emitted document has one named {name:?}"
            ),
            "it is not said whether that is a path: emit the field at the top with all that it is to hold \
             (names within it may have dots)",
        )),
    }
}

/// The first of an emitted document's own names that is as asked for.
fn name_that(document: &[u8], is_wanted: impl Fn(&[u8]) -> bool) -> Result<Option<String>> {
    let mut fields = Elements::new(document);
    while let Some((name, _)) = fields.next().map_err(malformed)? {
        if is_wanted(name) {
            return Ok(Some(String::from_utf8_lossy(name).into_owned()));
        }
    }
    Ok(None)
}

fn malformed(error: impl std::fmt::Display) -> Error {
    Error::Internal(format!("an emitted document is malformed: {error}"))
}

/// Refuses keys that cannot be the `_id` of a result, before anything is shuffled.
pub(crate) fn check_id(key: RawVal<'_>) -> Result<()> {
    match key.tag {
        tag::ARRAY | tag::REGEX | tag::UNDEFINED => Err(Error::refused(
            format!("the key {key} is of type {}, which cannot be an _id", key.type_name()),
            "emit it inside a document ({k: …}) or as text",
        )),
        tag::DOCUMENT if begins_with_dollar(key.bytes) => Err(Error::refused(
            format!("the key {key} has a field that begins with $, which cannot be an _id"),
            "rename the field",
        )),
        _ => Ok(()),
    }
}

/// Whether a field's name begins with `$`, at any depth. Those of a reference may: servers take one as an `_id`.
fn begins_with_dollar(document: &[u8]) -> bool {
    fn any(container: &[u8], is_document: bool) -> bool {
        let (mut fields, mut n, mut reference) = (Elements::new(container), 0, false);
        // What is malformed is refused where it is read.
        while let Ok(Some((name, value))) = fields.next() {
            reference |= is_document && n == 0 && name == b"$ref";
            n += 1;
            let allowed = reference && matches!(name, b"$ref" | b"$id" | b"$db");
            let begins = is_document && name.first() == Some(&b'$') && !allowed;
            let nested = match value.tag {
                tag::DOCUMENT => any(value.bytes, true),
                tag::ARRAY => any(value.bytes, false),
                _ => false,
            };
            if begins || nested {
                return true;
            }
        }
        false
    }
    any(document, true)
}

/// A map-only job's result: the emitted document under the emitted key, or `{_id, value}`.
pub(crate) fn document_of_emit(key: RawVal<'_>, value: RawVal<'_>) -> Result<RawDocumentBuf> {
    let mut body = vec![0; 4];
    key.append_element("_id", &mut body);
    if value.tag == tag::DOCUMENT {
        let mut fields = Elements::new(value.bytes);
        while let Some((name, value)) = fields.next().map_err(malformed)? {
            if name == b"_id" {
                continue;
            }
            body.push(value.tag);
            body.extend_from_slice(name);
            body.push(0);
            body.extend_from_slice(value.bytes);
        }
    } else {
        value.append_element("value", &mut body);
    }
    finish_document(body, key)
}

/// A reduced result as MongoDB's own mapReduce writes it: `{_id, value}`.
pub(crate) fn document_of_result(key: RawVal<'_>, value: RawVal<'_>) -> Result<RawDocumentBuf> {
    let mut body = vec![0; 4];
    key.append_element("_id", &mut body);
    value.append_element("value", &mut body);
    finish_document(body, key)
}

fn finish_document(mut body: Vec<u8>, key: RawVal<'_>) -> Result<RawDocumentBuf> {
    close_document(&mut body, 0);
    if body.len() > config::DOCUMENT_BYTES_MAX {
        return Err(Error::refused(
            format!("the result of key {key} has {} bytes", body.len()),
            "MongoDB stores documents of at most 16 MiB",
        ));
    }
    RawDocumentBuf::from_bytes(body)
        .map_err(|e| Error::Internal(format!("a result is malformed: {e}")))
}

pub(crate) fn builtin(name: &str) -> Result<Builtin> {
    name.parse().map_err(|_| {
        Error::refused(
            format!("{name} is no built-in reduce"),
            "use _sum, _count, _min, _max, _avg or _stats",
        )
    })
}
