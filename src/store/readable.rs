//! Documents that this version cannot read are passed over, one by one.
//!
//! Old and new versions of Aviary work in one database, for the length of an upgrade at least. A document that a newer
//! one wrote must not stop what an older one can do: it is skipped with a warning, and left alone.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bson::raw::RawDocumentBuf;
use bson::{Bson, Document};
use futures_util::{Stream, TryStreamExt};
use serde::de::DeserializeOwned;

use super::Store;
use super::error::Action;
use crate::error::{Error, Result};
use crate::ids::TaskId;

/// Rows of a listing, and what is not among them because it cannot be read.
#[derive(Debug)]
pub struct Listed<T> {
    /// What can be read.
    pub rows: Vec<T>,
    /// What cannot: an [`Error::Newer`] for each document.
    pub unreadable: Vec<Error>,
}

/// Decodes one document. `noun` is what it is for people, as in "job".
///
/// # Errors
/// [`Error::Newer`] naming its `_id`, which is also logged, once.
pub(super) fn read<T: DeserializeOwned>(noun: &str, raw: &RawDocumentBuf) -> Result<T> {
    const WHY_CHARS_MAX: usize = 200;
    bson::deserialize_from_slice(raw.as_bytes()).map_err(|error| {
        let id = match raw.get("_id").ok().flatten().map(Bson::try_from) {
            Some(Ok(Bson::String(id))) => id,
            Some(Ok(id)) => id.to_string(),
            _ => "?".to_owned(),
        };
        let why: String = error.to_string().chars().take(WHY_CHARS_MAX).collect();
        let error = Error::Newer { what: format!("{noun} {id}"), why };
        if is_first(&error.to_string()) {
            tracing::warn!(id, "{error}");
        }
        error
    })
}

/// Decodes the document, if there is one.
pub(super) fn read_one<T: DeserializeOwned>(
    noun: &str,
    raw: Option<RawDocumentBuf>,
) -> Result<Option<T>> {
    raw.map(|raw| read(noun, &raw)).transpose()
}

/// Decodes every document of a cursor.
///
/// # Errors
/// [`Error::Store`] when the cursor fails.
pub(super) async fn list<T: DeserializeOwned>(
    noun: &str,
    cursor: impl Stream<Item = mongodb::error::Result<RawDocumentBuf>>,
    action: &str,
) -> Result<Listed<T>> {
    let raws: Vec<RawDocumentBuf> = cursor.try_collect().await.action(action)?;
    let mut listed = Listed { rows: Vec::with_capacity(raws.len()), unreadable: Vec::new() };
    for raw in raws {
        match read(noun, &raw) {
            Ok(row) => listed.rows.push(row),
            Err(error) => listed.unreadable.push(error),
        }
    }
    Ok(listed)
}

/// Whether this is told for the first time: a coordinator meets the same document every second.
fn is_first(text: &str) -> bool {
    const KEPT_MAX: usize = 1_000;
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.len() >= KEPT_MAX {
        said.clear();
    }
    said.insert(text.to_owned())
}

/// Jobs whose tasks a worker does not claim for now, because it cannot read them or the job.
#[derive(Debug, Default)]
pub(super) struct Avoided(Mutex<HashMap<String, Instant>>);

impl Avoided {
    /// After this long the worker tries again: the document may have been mended.
    const FOR: Duration = Duration::from_secs(60);

    fn jobs(&self) -> Vec<String> {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.retain(|_, since| since.elapsed() < Self::FOR);
        jobs.keys().cloned().collect()
    }
}

impl Store {
    /// Leaves the tasks of this one's job to other workers for a while.
    pub fn avoid_job_of(&self, task: &TaskId) {
        let job = task.as_str().split('/').next().unwrap_or_default().to_owned();
        let mut jobs = self.avoided.0.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.insert(job, Instant::now());
    }

    /// Narrows a filter for tasks to jobs that are not avoided.
    pub(super) fn without_avoided(&self, mut filter: Document) -> Document {
        let jobs = self.avoided.jobs();
        if !jobs.is_empty() {
            filter.insert("job", bson::doc! { "$nin": jobs });
        }
        filter
    }
}
