//! Storing, finding and removing functions.

use bson::raw::RawDocumentBuf;
use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::Collection;

use super::REMOVING;
use super::documents::{Chunk, FunctionName, StoredFunction, chunk_id};
use crate::config;
use crate::error::{Error, Result, StoreErrorKind};
use crate::job::JobState;
use crate::job::limits::{FUNCTION_CHUNKS_MAX, Over, within};
use crate::store::error::{Action, classify};
use crate::store::readable::{list, read_one};
use crate::store::retry::until_known;
use crate::store::{FUNCTIONS, Store};

impl Store {
    pub(super) fn functions(&self) -> Collection<Document> {
        self.database().collection(FUNCTIONS)
    }

    /// Stores a function unless its content is stored already. `true` when it was new.
    ///
    /// Content that was damaged since is replaced.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn put_function(&self, function: &StoredFunction) -> Result<bool> {
        if let Some(known) = self.function(&function.digest).await?
            && known.is_intact()
            && self.keep_function(&function.digest).await?
        {
            return Ok(false);
        }
        let (whole, chunks) = function.parts();
        for chunk in &chunks {
            self.functions()
                .clone_with_type::<Chunk>()
                .insert_one(chunk)
                .await
                .action("store a part of a function")
                .map_err(|e| self.explain(e))?;
        }
        let written = self
            .functions()
            .clone_with_type::<StoredFunction>()
            .replace_one(doc! { "_id": &whole.digest }, &whole)
            .upsert(true)
            .await;
        match written {
            Ok(outcome) => Ok(outcome.upserted_id.is_some()),
            // Somebody else stored the same at the same time.
            Err(e) if classify(&e).kind == StoreErrorKind::DuplicateKey => Ok(false),
            Err(e) => Err(e).action("store a function").map_err(|e| self.explain(e)),
        }
    }

    /// Takes back that a function is to be removed; `false` when it is gone already.
    async fn keep_function(&self, digest: &str) -> Result<bool> {
        let kept = self
            .functions()
            .update_one(doc! { "_id": digest }, doc! { "$unset": { REMOVING: "" } })
            .await
            .action("keep a function")
            .map_err(|e| self.explain(e))?;
        Ok(kept.matched_count == 1)
    }

    /// Reads a function by its digest, with its bytes. Whether they are the right ones is for the caller
    /// to check ([`StoredFunction::is_intact`]).
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn function(&self, digest: &str) -> Result<Option<StoredFunction>> {
        let found = self
            .functions()
            .clone_with_type::<RawDocumentBuf>()
            .find_one(doc! { "_id": digest, "kind": "function" })
            .await
            .action("read a function")?;
        let found: Option<StoredFunction> = read_one("function", found)?;
        let Some(mut function) = found else { return Ok(None) };
        let chunks = function.chunks.unwrap_or(0);
        let of = |over: Over| {
            Error::refused(
                format!("function {digest}: {over}"),
                "the catalogue was tampered with or damaged: insert the function again",
            )
        };
        within("chunks", u64::try_from(chunks).unwrap_or(u64::MAX), FUNCTION_CHUNKS_MAX)
            .map_err(of)?;
        for n in 0..chunks {
            let found = self
                .functions()
                .clone_with_type::<RawDocumentBuf>()
                .find_one(
                    doc! { "_id": chunk_id(digest, function.writing.as_deref().unwrap_or(""), n) },
                )
                .await
                .action("read a part of a function")?;
            // A part that is missing shows in the digest.
            let Some(chunk) = read_one::<Chunk>("a part of a function", found)? else { break };
            function.content.bytes.extend_from_slice(&chunk.content.bytes);
        }
        let bytes = function.content.bytes.len() as u64;
        within("content", bytes, config::FUNCTION_BYTES_MAX as u64).map_err(of)?;
        Ok(Some(function))
    }

    /// Which of these digests the catalogue does not have, or not for long.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn missing_functions(&self, digests: &[String]) -> Result<Vec<String>> {
        let filter =
            doc! { "kind": "function", "_id": { "$in": digests }, REMOVING: { "$exists": false } };
        let found: Vec<Document> = self
            .functions()
            .find(filter)
            .projection(doc! { "_id": 1 })
            .await
            .action("look up functions")?
            .try_collect()
            .await
            .action("look up functions")?;
        let known: Vec<&str> = found.iter().filter_map(|row| row.get_str("_id").ok()).collect();
        let missing = digests.iter().filter(|digest| !known.contains(&digest.as_str()));
        Ok(missing.cloned().collect())
    }

    /// Keeps functions that a job needs, also those that are marked to go, and returns those that are gone.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn keep_functions(&self, digests: &[String]) -> Result<Vec<String>> {
        let mut gone = Vec::new();
        for digest in self.missing_functions(digests).await? {
            if !self.keep_function(&digest).await? {
                gone.push(digest);
            }
        }
        Ok(gone)
    }

    /// Jobs that have not ended and run this function, and requests for such, by id.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn jobs_using(&self, digest: &str) -> Result<Vec<String>> {
        const SHOWN_MAX: i64 = 10;
        let ended: Vec<&str> =
            JobState::ALL.iter().filter(|s| s.is_terminal()).map(|s| s.as_str()).collect();
        let stages = ["map", "combine", "reduce.function", "finalize"];
        let any: Vec<Document> =
            stages.iter().map(|stage| doc! { format!("spec.{stage}.digest"): digest }).collect();
        let filter = doc! {
            "shard": self.home(), "kind": "job", "state": { "$nin": ended }, "$or": any,
        };
        let jobs: Vec<Document> = self
            .aviary()
            .clone_with_type::<Document>()
            .find(filter)
            .projection(doc! { "_id": 1 })
            .limit(SHOWN_MAX)
            .await
            .action("look for jobs of a function")?
            .try_collect()
            .await
            .action("look for jobs of a function")?;
        let mut using: Vec<String> =
            jobs.iter().filter_map(|job| job.get_str("_id").ok()).map(str::to_owned).collect();
        using.extend(self.requests_using(digest).await?);
        Ok(using)
    }

    /// Removes a function, and the versions of names that lead to it: a name goes back to the version before, or
    /// away with its last one. Refused while a job that has not ended needs the function.
    ///
    /// # Errors
    /// [`Error::Refused`] naming the jobs, [`crate::error::Error::Store`].
    pub async fn remove_function(&self, function: &StoredFunction) -> Result<()> {
        until_known(async |again| self.try_remove(function, again).await).await
    }

    async fn try_remove(&self, function: &StoredFunction, again: bool) -> Result<()> {
        let digest = &function.digest;
        self.refuse_used(digest).await?;
        let action = "remove a function";
        let this = doc! { "_id": digest };
        let marked = self.functions().update_one(this, doc! { "$set": { REMOVING: true } }).await;
        marked.action(action).map_err(|e| self.explain(e))?;
        // A job may have been submitted meanwhile; whoever submits looks after writing, as this does.
        if let Err(used) = self.refuse_used(digest).await {
            self.keep_function(digest).await?;
            return Err(used);
        }
        let still = doc! { "_id": digest, REMOVING: true };
        let gone = self.functions().delete_one(still).await.action(action)?;
        // An earlier try may have removed it; what is left are its names and parts.
        if gone.deleted_count == 0 && !(again && self.function(digest).await?.is_none()) {
            return Err(Error::refused(
                format!("function {digest} was stored again just now, or removed by somebody else"),
                "see aviary functions list",
            ));
        }
        let names = self
            .functions()
            .clone_with_type::<RawDocumentBuf>()
            .find(doc! { "kind": "name", "$or": [{ "digest": digest }, { "earlier.digest": digest }] })
            .await
            .action(action)?;
        for name in list::<FunctionName>("the name", names, action).await?.rows {
            self.forget_version(&name, digest).await?;
        }
        let parts = doc! { "kind": "chunk", "function": digest, "writing": &function.writing };
        self.functions().delete_many(parts).await.action(action)?;
        Ok(())
    }

    async fn refuse_used(&self, digest: &str) -> Result<()> {
        let jobs = self.jobs_using(digest).await?;
        if jobs.is_empty() {
            return Ok(());
        }
        Err(Error::refused(
            format!("function {digest} is needed by {}", jobs.join(", ")),
            "wait for the job to end, or cancel it: aviary cancel JOB",
        ))
    }
}
