//! Reducing results once more, each with the value that a collection holds for its key already.

use std::collections::HashMap;

use bson::{RawDocument, RawDocumentBuf};

use super::function::Guest;
use super::log_buffer::{Lines, LogSink};
use super::prepare::Loaded;
use super::reducer::{How, OversizePolicy, Pairs, Reducer};
use super::result_document::document_of_result;
use crate::error::{Error, Result};
use crate::shuffle::builtin::Builtin;
use crate::value::key;
use crate::value::{Elements, RawVal, RawValBuf};

const NAME: &str = "publish";

/// A job's reduce and finalize, ready to be used on its results.
pub struct OnceMore {
    reducer: Reducer,
}

impl OnceMore {
    /// With a built-in reduce. Counts are added: each result is a count.
    ///
    /// # Errors
    /// [`Error::Refused`] for a name that is no built-in, [`Error::Function`] when finalize fails at its start.
    pub fn builtin(name: &str, finalize: Option<Loaded>) -> Result<Self> {
        let builtin = match super::result_document::builtin(name)? {
            Builtin::Count => Builtin::Sum,
            other => other,
        };
        Self::new(How::Builtin(builtin), finalize)
    }

    /// With a function.
    ///
    /// # Errors
    /// [`Error::Function`] when one of them fails at its start.
    pub fn function(reduce: Loaded, finalize: Option<Loaded>) -> Result<Self> {
        let reduce = start(reduce)?;
        if reduce.streams() {
            return Err(refuse_streaming());
        }
        Self::new(How::Function(Box::new(reduce)), finalize)
    }

    fn new(how: How, finalize: Option<Loaded>) -> Result<Self> {
        let finalize = finalize.map(start).transpose()?;
        Ok(Self { reducer: Reducer::new(how, OversizePolicy::Reduce, finalize) })
    }

    /// The results `{_id, value}` as a collection shall have them that holds `known`, by encoded key.
    ///
    /// # Errors
    /// [`Error::Function`], [`Error::Refused`] when a value cannot be reduced.
    pub fn batch(
        &mut self,
        results: &[RawDocumentBuf],
        known: &HashMap<Vec<u8>, RawDocumentBuf>,
    ) -> Result<Vec<RawDocumentBuf>> {
        let mut whole = Vec::with_capacity(results.len());
        let mut out = |key: RawVal<'_>, value: RawVal<'_>| {
            whole.push(document_of_result(key, value)?);
            Ok(())
        };
        let mut alone = Vec::new();
        for result in results {
            let (key, value) = (value_of(result, "_id")?, value_of(result, "value")?);
            let encoded = encoded(key)?;
            let Some(old) = known.get(&encoded) else {
                alone.push(result.clone());
                continue;
            };
            // The document stays, and with it the type of its _id.
            let key = value_of(old, "_id")?;
            // A document of another making has no value; the servers reduce null in its place.
            let old = field_of(old, "value")?.unwrap_or(RawVal::NULL);
            let mut values = [old, value].into_iter();
            let next =
                |slot: &mut RawValBuf| Ok(values.next().map(|value| slot.set(value)).is_some());
            self.reducer.group(&RawValBuf::from(key), &encoded, false, next, &mut out)?;
        }
        self.reducer.finish(&mut out)?;
        whole.extend(alone);
        Ok(whole)
    }
}

/// A reduce that streams would be given its own results.
pub(crate) fn refuse_streaming() -> Error {
    Error::refused(
        "a reduce that streams cannot be reduced into a collection",
        "it is not associative, and would be given its own results: use --out merge:NAME, or a reduce that \
         combines",
    )
}

/// An instance whose lines nobody reads: the functions have run before, and there is no task to log for.
fn start(loaded: Loaded) -> Result<Guest<Pairs>> {
    let lines = Lines::new(NAME, 0);
    let tap = LogSink::kept(loaded.stage, &lines);
    Guest::start(loaded, Pairs::new(tap))
}

/// A result's key as it is compared.
///
/// # Errors
/// [`Error::Refused`] for a key that has no place in the order.
pub fn encoded(key: RawVal<'_>) -> Result<Vec<u8>> {
    let mut encoded = Vec::new();
    key::encode(key, &mut encoded)
        .map_err(|e| Error::refused(format!("the key {key} cannot be compared: {e}"), ""))?;
    Ok(encoded)
}

/// A field's type and bytes.
///
/// # Errors
/// [`Error::Internal`] when the document has no such field: results always do.
pub fn value_of<'a>(document: &'a RawDocument, field: &str) -> Result<RawVal<'a>> {
    let found = field_of(document, field)?;
    found.ok_or_else(|| Error::Internal(format!("a result is malformed: it has no {field}")))
}

/// The same of a field that need not be there. Not by the library, which gives no text that is not UTF-8, and nothing
/// that comes after it.
pub(crate) fn field_of<'a>(document: &'a RawDocument, field: &str) -> Result<Option<RawVal<'a>>> {
    let malformed = |why: String| Error::Internal(format!("a document is malformed: {why}"));
    let mut elements = Elements::new(document.as_bytes());
    while let Some((name, value)) = elements.next().map_err(|e| malformed(e.to_string()))? {
        if name == field.as_bytes() {
            return Ok(Some(value));
        }
    }
    Ok(None)
}
