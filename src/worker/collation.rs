//! Jobs with a collation. Documents are matched and sorted under it, by the servers; keys are grouped by
//! their bytes. So a key that holds text is refused, instead of being grouped otherwise than asked.

use bson::{RawBsonRef, RawDocument};

use crate::error::{Error, Result};
use crate::shuffle::value::{RawVal, tag};

/// Refuses a key that the collation might make one with another.
///
/// # Errors
/// [`Error::Refused`] naming the key.
pub(super) fn refuse_text(key: RawVal<'_>) -> Result<()> {
    let holds_text = match key.tag {
        tag::STRING | tag::SYMBOL => true,
        tag::DOCUMENT | tag::ARRAY => {
            RawDocument::from_bytes(key.bytes).is_ok_and(document_holds_text)
        }
        _ => false,
    };
    if !holds_text {
        return Ok(());
    }
    Err(Error::refused(
        format!("the key {key} holds text, and the job has a collation"),
        "text is grouped by its bytes only: emit a key that equal texts share \
         (this.name.toLowerCase()) and put the collation's work into --query, or leave it out",
    ))
}

fn document_holds_text(document: &RawDocument) -> bool {
    document.iter().any(|field| field.is_ok_and(|(_, value)| value_holds_text(value)))
}

fn value_holds_text(value: RawBsonRef<'_>) -> bool {
    match value {
        RawBsonRef::String(_) | RawBsonRef::Symbol(_) => true,
        RawBsonRef::Document(inner) => document_holds_text(inner),
        RawBsonRef::Array(inner) => {
            inner.into_iter().any(|value| value.is_ok_and(value_holds_text))
        }
        _ => false,
    }
}
