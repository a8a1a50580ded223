//! Jobs with a collation, of their own or of the collection that they read. Documents are matched and sorted under it,
//! by the servers; keys are grouped by their bytes. So a key that holds text is refused, instead of being grouped
//! otherwise than asked.
//!
//! Grouping by collation would take the sort keys that the servers' own library makes of text. Servers give them for text
//! that is stored, not for what a function emits, and another library's agree in most texts, but not in all. A group
//! that is now and then another one is worse than a refusal.

use bson::{RawBsonRef, RawDocument};

use crate::error::{Error, Result};
use crate::job::{Input, Job};
use crate::value::{RawVal, tag};

/// Where the collation comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collated {
    /// The job asks for it.
    ByJob,
    /// The collection that is read has it.
    ByInput,
}

impl Collated {
    /// Whether texts that differ may be the same to a job.
    pub(crate) fn of(job: &Job) -> Option<Self> {
        Self::of_input(&job.spec.input, job.input_collation.is_some())
    }

    /// The same by what is read, and whether that collection has a collation.
    pub fn of_input(input: &Input, has_one: bool) -> Option<Self> {
        if input.collation.is_some() {
            return input.is_collated().then_some(Self::ByJob);
        }
        has_one.then_some(Self::ByInput)
    }

    /// Refuses a key that the collation might make one with another.
    ///
    /// # Errors
    /// [`Error::Refused`] naming the key.
    pub(crate) fn refuse_text(self, key: RawVal<'_>) -> Result<()> {
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
        let whose = match self {
            Self::ByJob => "the job has a collation",
            Self::ByInput => "the input has a collation of its own, by which servers group",
        };
        Err(Error::refused(
            format!("the key {key} holds text, and {whose}"),
            "text is grouped by its bytes only: emit a key that equal texts share (this.name.toLowerCase()) and give \
             --collation '{\"locale\": \"simple\"}', or collation: {locale: \"simple\"} in a command, which says that bytes are what counts, in --query and --sort too",
        ))
    }
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
