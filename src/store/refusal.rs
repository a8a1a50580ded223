//! What a collection refuses: which result, and why, in words that name nothing internal.

use bson::{Bson, Document, RawDocumentBuf};
use mongodb::error::{Error as DriverError, ErrorKind, InsertManyError};

use super::error::classify;
use crate::error::StoreErrorKind;
use crate::job::Output;
use crate::value::extjson::{self, Form};

/// `DocumentValidationFailure`, `ImmutableField`, `BSONObjectTooLarge`, and the same of what an update makes: the
/// document itself is at fault.
const AT_FAULT: [i32; 4] = [121, 66, 10334, 17419];
/// Of an insert, `BadValue` too.
const BAD_VALUE: i32 = 2;

/// Characters of a key that are shown.
const KEY_CHARS_MAX: usize = 200;
/// Characters of the server's words.
const MESSAGE_CHARS_MAX: usize = 500;
/// Characters of the details that a validator gives.
const DETAILS_CHARS_MAX: usize = 1_000;

/// Whether a merge failed for what it was to merge.
pub(super) fn of_merge(error: &DriverError) -> bool {
    let error = classify(error);
    error.kind == StoreErrorKind::DuplicateKey
        || error.code.is_some_and(|code| AT_FAULT.contains(&code))
}

/// Whether an insert failed for what it was to insert, other than an `_id` that is there already.
pub(super) fn of_insert(error: &DriverError) -> bool {
    classify(error).code.is_some_and(|code| AT_FAULT.contains(&code) || code == BAD_VALUE)
}

/// The document that an insert of several failed for.
pub(super) fn refused<'a>(
    error: &DriverError,
    docs: &'a [RawDocumentBuf],
) -> Option<&'a RawDocumentBuf> {
    let ErrorKind::InsertMany(InsertManyError { write_errors: Some(errors), .. }) = &*error.kind
    else {
        return None;
    };
    let code = classify(error).code;
    let decisive = errors.iter().find(|error| Some(error.code) == code)?;
    docs.get(decisive.index)
}

/// A result's `_id`, for a person.
pub(super) fn id_of(doc: &RawDocumentBuf) -> String {
    let id = doc.get("_id").ok().flatten().and_then(|id| Bson::try_from(id).ok());
    id.as_ref().map_or_else(|| "?".to_owned(), shown)
}

/// A value in one line, cut off where it is long.
pub(super) fn shown(value: &Bson) -> String {
    cut(&extjson::of_bson(value, Form::Relaxed).to_string(), KEY_CHARS_MAX)
}

/// What the server says, with the details that a validator gives. Where it names a job's own collection, the
/// target is meant.
pub(super) fn words(error: &DriverError, output: &Output, internal: &str) -> String {
    let Output { db, collection, .. } = output;
    let said = classify(error).message;
    let said = said.replace(&format!("{db}.{internal}"), &format!("{db}.{collection}"));
    // A merge wraps the reason in what it was doing.
    let said = said
        .strip_prefix("PlanExecutor error during aggregation :: caused by :: ")
        .unwrap_or(&said);
    let mut words = cut(said, MESSAGE_CHARS_MAX);
    if let Some(details) = details(error) {
        let details = extjson::of_bson(&Bson::Document(details), Form::Query).to_string();
        words.push_str(": ");
        words.push_str(&cut(&details, DETAILS_CHARS_MAX));
    }
    words
}

/// Why a validator refuses a document.
fn details(error: &DriverError) -> Option<Document> {
    let info = match &*error.kind {
        ErrorKind::InsertMany(many) => {
            let code = classify(error).code;
            let mut errors = many.write_errors.iter().flatten();
            errors.find(|error| Some(error.code) == code)?.details.clone()?
        }
        _ => {
            let reply = Document::try_from(error.server_response()?.as_ref()).ok()?;
            reply.get_document("errInfo").ok()?.clone()
        }
    };
    // The document's _id is told already.
    let inner = info.get_document("details").cloned();
    Some(inner.unwrap_or(info)).filter(|details| !details.is_empty())
}

fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}
