//! Completing results that are to be reduced into a collection: each gets the value that it shall have
//! there.
//!
//! As on MongoDB's own servers, a result whose key the target knows becomes
//! `finalize(reduce(key, [the target's value, the result]))`, and any other result stays what it is.
//! Nothing is written but a collection of the publisher's own.

use std::collections::HashMap;

use bson::{Bson, RawDocumentBuf, doc};

use crate::config;
use crate::error::{Error, Result};
use crate::ids::TaskId;
use crate::job::{Job, Reducer};
use crate::store::Store;
use crate::wasm::{Host, Stage};
use crate::worker::loader::{self, Surroundings};
use crate::worker::once_more::{OnceMore, encoded, value_of};

/// A collection that holds a job's results as its target shall have them.
pub(super) struct Whole {
    /// Its name, which nobody but the publisher knows.
    pub(super) name: String,
    /// Its identity.
    pub(super) uuid: Bson,
}

/// Writes the completed results beside the staged ones.
///
/// # Errors
/// [`Error::Function`], [`Error::Refused`] when a value cannot be reduced, [`Error::Store`].
pub(super) async fn complete(store: &Store, host: &Host, job: &Job, staged: &str) -> Result<Whole> {
    let output = &job.spec.output;
    let name = format!("{staged}-whole");
    // Left over from when this publisher could not reach the database.
    store.drop_collection(&output.db, &name).await?;
    store.create_hidden(&output.db, &name, &Default::default()).await?;
    let mut once_more = Some(functions(store, host, job).await?);
    let mut batches = store.raw_documents(&output.db, staged, config::WRITE_BATCH_BYTES).await?;
    while let Some(results) = batches.next().await? {
        let known = known(store, job, &results).await?;
        let mut worker = once_more.take().ok_or_else(|| Error::Internal("no reducer".into()))?;
        let computing = tokio::task::spawn_blocking(move || {
            let whole = worker.batch(&results, &known);
            (worker, whole)
        });
        let (worker, whole) =
            computing.await.map_err(|e| Error::Internal(format!("reducing panicked: {e}")))?;
        once_more = Some(worker);
        store.insert_output(&output.db, &name, &whole?, true).await?;
    }
    let described = store.describe(&output.db, &name).await?;
    let uuid = described.and_then(|described| described.uuid).ok_or_else(|| {
        Error::refused(format!("{}.{name} is gone", output.db), "somebody dropped it; submit again")
    })?;
    Ok(Whole { name, uuid })
}

/// Makes sure that the job's reduce can be given its own results.
///
/// # Errors
/// [`Error::Refused`] when it streams, [`Error::Function`] when it fails at its start, [`Error::Store`].
pub(super) async fn check(store: &Store, host: &Host, job: &Job) -> Result<()> {
    functions(store, host, job).await.map(|_| ())
}

/// The job's reduce and finalize. A reduced result is a raw value like any other, so a count of counts
/// is a sum.
async fn functions(store: &Store, host: &Host, job: &Job) -> Result<OnceMore> {
    let task = TaskId::from_text(format!("{}/publish", job.id));
    let around = Surroundings::of(job, &task)?;
    let finalize = match &job.spec.finalize {
        Some(function) => {
            Some(loader::load(store, host, function, Stage::Finalize, &around).await?)
        }
        None => None,
    };
    match &job.spec.reduce {
        Some(Reducer::Builtin(name)) => OnceMore::builtin(name, finalize),
        Some(Reducer::Function(function)) => {
            let reduce = loader::load(store, host, function, Stage::Reduce, &around).await?;
            OnceMore::function(reduce, finalize)
        }
        None => Err(Error::Internal("a job without reduce cannot reduce into a collection".into())),
    }
}

/// The target's documents of the same keys, by encoded key.
async fn known(
    store: &Store,
    job: &Job,
    results: &[RawDocumentBuf],
) -> Result<HashMap<Vec<u8>, RawDocumentBuf>> {
    let output = &job.spec.output;
    let mut ids = Vec::with_capacity(results.len());
    for result in results {
        let id = value_of(result, "_id")?;
        ids.push(id.to_bson().map_err(|e| Error::Internal(format!("a key is malformed: {e}")))?);
    }
    let query = doc! { "_id": { "$in": ids } };
    let mut known = HashMap::new();
    for found in store.find_raw(&output.db, &output.collection, query).await? {
        known.insert(encoded(value_of(&found, "_id")?)?, found);
    }
    Ok(known)
}
