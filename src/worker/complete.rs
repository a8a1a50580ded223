//! Completing results that are to be reduced into a collection: each gets the value that it is to have
//! there.
//!
//! As on MongoDB's own servers, a result whose key the target knows becomes
//! `finalize(reduce(key, [the target's value, the result]))`, and any other result stays what it is.
//! Nothing is written but a collection that belongs to this attempt. It has the target's own options, so that
//! a value which the target's validator refuses is found out before anything is merged.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bson::{Bson, RawDocumentBuf};

use super::attempt::Attempt;
use crate::config;
use crate::error::{Error, Result};
use crate::exec::prepare::{self, ExecEnv};
use crate::exec::rereduce::{OnceMore, encoded, value_of};
use crate::job::target::options_for;
use crate::job::{Job, Output, Reducer};
use crate::store::Store;
use crate::store::output::TargetTemplate;
use crate::wasm::{Host, Stage};

/// A collection that holds a job's results as its target is to have them.
pub(super) struct Whole {
    /// Its name, which nobody but the publisher knows.
    pub(super) name: String,
    /// Its identity.
    pub(super) uuid: Bson,
}

/// Bytes of the target's documents that are held at once.
const KNOWN_BYTES_MAX: usize = 32 << 20;

/// Writes the completed results beside the staged ones.
///
/// # Errors
/// [`Error::Function`], [`Error::Refused`] when a value cannot be reduced or the target would not take it,
/// [`Error::LeaseLost`], [`Error::Store`].
pub(super) async fn complete(attempt: &Arc<Attempt>, staged: &str) -> Result<Whole> {
    let (store, job) = (&attempt.store, &attempt.job);
    let output = &job.spec.output;
    let name = format!("{staged}-whole");
    // Left over from when this publisher could not reach the database.
    store.drop_collection(&output.db, &name).await?;
    store.create_hidden(&output.db, &name, &like_target(store, output).await?).await?;
    let described = store.describe(&output.db, &name).await?;
    let uuid = described.and_then(|described| described.uuid).ok_or_else(|| {
        Error::Internal(format!("{}.{name} is gone as soon as it was created", output.db))
    })?;
    let mut reducer = Some(functions(store, &attempt.host, job).await?);
    let mut batches = store.raw_documents(&output.db, staged).await?;
    while let Some(results) = batches.next(config::WRITE_BATCH_BYTES).await? {
        let mut left: HashMap<Vec<u8>, RawDocumentBuf> = HashMap::with_capacity(results.len());
        let mut ids = Vec::with_capacity(results.len());
        for result in results {
            let id = value_of(&result, "_id")?;
            ids.push(
                id.to_bson().map_err(|e| Error::Internal(format!("a key is malformed: {e}")))?,
            );
            left.insert(encoded(id)?, result);
        }
        let mut known = store.documents_of_ids(&output.db, &output.collection, ids).await?;
        while let Some(documents) = known.next(KNOWN_BYTES_MAX).await? {
            attempt.check()?;
            let mut pairs = HashMap::with_capacity(documents.len());
            let mut these = Vec::with_capacity(documents.len());
            for document in documents {
                let key = encoded(value_of(&document, "_id")?)?;
                // Under a key that two documents share, the first one is what reduce is given.
                if let Some(result) = left.remove(&key) {
                    these.push(result);
                    pairs.insert(key, document);
                }
            }
            let mut worker = reducer.take().ok_or_else(|| Error::Internal("no reducer".into()))?;
            let computing = tokio::task::spawn_blocking(move || {
                let whole = worker.batch(&these, &pairs);
                (worker, whole)
            });
            let (worker, whole) =
                computing.await.map_err(|e| Error::Internal(format!("reducing panicked: {e}")))?;
            reducer = Some(worker);
            write(attempt, &name, whole?).await?;
        }
        // What the target does not know stays what it is.
        write(attempt, &name, left.into_values().collect()).await?;
    }
    Ok(Whole { name, uuid })
}

async fn write(attempt: &Arc<Attempt>, name: &str, whole: Vec<RawDocumentBuf>) -> Result<()> {
    if whole.is_empty() {
        return Ok(());
    }
    attempt.check()?;
    attempt.store.insert_output(&attempt.job.spec.output, name, &whole, true).await?;
    let written = i64::try_from(whole.len()).unwrap_or(i64::MAX);
    attempt.progress.fetch_add(written, Ordering::Relaxed);
    Ok(())
}

/// The target's options: its validator, above all.
async fn like_target(store: &Store, output: &Output) -> Result<TargetTemplate> {
    if crate::planted::planted("validator-late") {
        return Ok(TargetTemplate::default());
    }
    let target = store.describe(&output.db, &output.collection).await?;
    let options = match target {
        Some(target) => options_for(output, &target.options)?,
        None => bson::Document::new(),
    };
    Ok(TargetTemplate { options, ..TargetTemplate::default() })
}

/// The job's reduce and finalize. A reduced result is a raw value like any other, so a count of counts
/// is a sum.
async fn functions(store: &Store, host: &Host, job: &Job) -> Result<OnceMore> {
    let task = crate::ids::TaskId::publish(&job.id, job.plan);
    let around = ExecEnv::of(job, &task)?;
    let finalize = match &job.spec.finalize {
        Some(function) => {
            Some(prepare::load(store, host, function, Stage::Finalize, &around).await?)
        }
        None => None,
    };
    match &job.spec.reduce {
        Some(Reducer::Builtin(name)) => OnceMore::builtin(name, finalize),
        Some(Reducer::Function(function)) => {
            let reduce = prepare::load(store, host, function, Stage::Reduce, &around).await?;
            OnceMore::function(reduce, finalize)
        }
        None => Err(Error::Internal("a job without reduce cannot reduce into a collection".into())),
    }
}
