//! Documents that this version cannot read are passed over, one by one.
//!
//! Old and new versions of Aviary work in one database, for the length of an upgrade at least. A document that a newer
//! one wrote must not stop what an older one can do: it is skipped with a warning, and left alone.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bson::Bson;
use bson::raw::RawDocumentBuf;
use futures_util::{Stream, TryStreamExt};
use serde::de::DeserializeOwned;

use super::error::Action;
use super::{Store, shape};
use crate::error::{Error, Result};
use crate::ids::{JobId, TaskId};

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
    let decoded = shape::check(raw.as_bytes()).and_then(|()| {
        bson::deserialize_from_slice(raw.as_bytes()).map_err(|error| error.to_string())
    });
    decoded.map_err(|error| {
        let id = match raw.get("_id").ok().flatten().map(Bson::try_from) {
            Some(Ok(Bson::String(id))) => id,
            Some(Ok(id)) => id.to_string(),
            _ => "?".to_owned(),
        };
        let why: String = error.chars().take(WHY_CHARS_MAX).collect();
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
    let mut cursor = std::pin::pin!(cursor);
    let mut listed = Listed { rows: Vec::new(), unreadable: Vec::new() };
    // One by one: what cannot be read should not be held either.
    while let Some(raw) = cursor.try_next().await.action(action)? {
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

/// What a worker does not claim for now: jobs that it cannot read or serve, and tasks that cannot be claimed or read.
///
/// A task that is not as it should be says nothing of its job: it may be somebody else's who wants the job to rest.
#[derive(Debug, Default)]
pub(super) struct Avoided {
    jobs: Names,
    tasks: Names,
}

#[derive(Debug, Default)]
struct Names(Mutex<HashMap<String, Instant>>);

impl Names {
    /// After this long the worker tries again: the document may have been mended.
    const FOR: Duration = Duration::from_secs(60);
    /// More are forgotten; what was is tried again and found out again.
    const KEPT_MAX: usize = 10_000;

    fn insert(&self, name: &str) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() >= Self::KEPT_MAX {
            names.clear();
        }
        names.insert(name.to_owned(), Instant::now());
    }

    fn contains(&self, name: &str) -> bool {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.get(name).is_some_and(|since| since.elapsed() < Self::FOR)
    }

    /// Those that begin so, no more than `most` of them.
    fn of(&self, prefix: &str, most: usize) -> Vec<String> {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        names.retain(|_, since| since.elapsed() < Self::FOR);
        names.keys().filter(|name| name.starts_with(prefix)).take(most).cloned().collect()
    }
}

impl Store {
    /// Leaves a job's tasks to other workers for a while.
    pub(super) fn avoid_job(&self, job: &JobId) {
        self.avoided.jobs.insert(job.as_str());
    }

    /// Leaves a task alone for a while.
    pub(super) fn avoid_task(&self, task: &TaskId) {
        self.avoided.tasks.insert(task.as_str());
    }

    /// Whether a job's tasks are left to other workers now.
    pub(super) fn avoids(&self, job: &JobId) -> bool {
        self.avoided.jobs.contains(job.as_str())
    }

    /// Tasks of a job that are left alone now.
    pub(super) fn avoided_tasks(&self, job: &JobId) -> Vec<String> {
        const NAMED_MAX: usize = 1_000;
        self.avoided.tasks.of(&format!("{job}/"), NAMED_MAX)
    }
}
