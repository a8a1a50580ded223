//! Merging results into a collection that has content of its own, and reading what it has.

use std::time::Duration;

use bson::{Bson, Document, RawDocumentBuf, doc};
use futures_util::TryStreamExt;
use mongodb::{Collection, Cursor};

use super::Store;
use super::error::{Action, classify};
use crate::config;
use crate::error::{Error, Result, StoreErrorKind};
use crate::job::{Output, OutputMode};

/// The field of a comment by which a merge can be told from other operations.
const MARK: &str = "aviary-publish";

/// Documents on their way, a batch at a time.
pub struct RawBatches {
    cursor: Cursor<RawDocumentBuf>,
    bytes_max: usize,
}

impl RawBatches {
    /// The next batch, or `None` at the end.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn next(&mut self) -> Result<Option<Vec<RawDocumentBuf>>> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while bytes < self.bytes_max && batch.len() < config::WRITE_BATCH_DOCS {
            let Some(doc) = self.cursor.try_next().await.action("read the results")? else { break };
            bytes += doc.as_bytes().len();
            batch.push(doc);
        }
        Ok((!batch.is_empty()).then_some(batch))
    }
}

impl Store {
    /// All documents of a collection, in batches of about so many bytes.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn raw_documents(
        &self,
        db: &str,
        name: &str,
        bytes_max: usize,
    ) -> Result<RawBatches> {
        let collection: Collection<RawDocumentBuf> = self.other_db(db).collection(name);
        let cursor = collection.find(doc! {}).await.action("read the results")?;
        Ok(RawBatches { cursor, bytes_max })
    }

    /// The documents that match, few enough to be held in memory.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn find_raw(
        &self,
        db: &str,
        name: &str,
        query: Document,
    ) -> Result<Vec<RawDocumentBuf>> {
        let collection: Collection<RawDocumentBuf> = self.other_db(db).collection(name);
        collection
            .find(query)
            .await
            .action("read the target")
            .map_err(|e| self.explain(e))?
            .try_collect()
            .await
            .action("read the target")
    }

    /// Has the server merge a collection into a job's target. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] when the target does not take a result, [`Error::Store`].
    pub async fn merge_into(&self, output: &Output, from: &str, job: &str) -> Result<()> {
        // A key that JavaScript has touched may be of another type than the _id it is equal to.
        let fields = doc! { "$mergeObjects": ["$$ROOT", "$$new", { "_id": "$_id" }] };
        let (matched, not_matched): (Bson, _) = match output.mode {
            OutputMode::Update => (vec![doc! { "$replaceWith": fields }].into(), "discard"),
            _ => ("replace".into(), "insert"),
        };
        let merge = doc! { "$merge": {
            "into": { "db": &output.db, "coll": &output.collection },
            "on": "_id",
            "whenMatched": matched,
            "whenNotMatched": not_matched,
        } };
        let command = doc! {
            "aggregate": from,
            "pipeline": [merge],
            "cursor": {},
            "comment": { MARK: job },
            "writeConcern": { "w": "majority" },
        };
        let target = format!("{}.{}", output.db, output.collection);
        let Err(error) = self.other_db(&output.db).run_command(command).await else {
            return Ok(());
        };
        let error = classify(&error);
        /// `DocumentValidationFailure`, `ImmutableField`, `BSONObjectTooLarge`.
        const AT_FAULT: [i32; 3] = [121, 66, 10334];
        if error.kind == StoreErrorKind::DuplicateKey
            || error.code.is_some_and(|code| AT_FAULT.contains(&code))
        {
            return Err(Error::refused(
                format!("{target} does not take a result: {}", error.message),
                "results before it may be merged already; change the function's output, or the \
                 target's validator or unique index, and submit the job again",
            ));
        }
        Err(self.explain(Error::Store { action: format!("merge into {target}"), source: error }))
    }

    /// Ends merges that an earlier publisher of a job has begun, and waits until they have.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn end_merges(&self, job: &str) -> Result<()> {
        const LOOK_EVERY: Duration = Duration::from_millis(100);
        let admin = self.client().database("admin");
        let field = format!("command.comment.{MARK}");
        loop {
            let running = admin
                .aggregate([
                    doc! { "$currentOp": {} },
                    doc! { "$match": { field.as_str(): job } },
                    doc! { "$project": { "opid": 1 } },
                ])
                .await;
            let running: Vec<Document> = match running {
                Ok(cursor) => cursor.try_collect().await.action("look for earlier merges")?,
                Err(error) if classify(&error).kind == StoreErrorKind::Transient => {
                    return Err(error).action("look for earlier merges");
                }
                // Their source has been renamed, which ends them at their next batch.
                Err(error) => {
                    tracing::warn!(%error, "cannot look for earlier merges");
                    return Ok(());
                }
            };
            if running.is_empty() {
                return Ok(());
            }
            for operation in running {
                let id = operation.get("opid").cloned().unwrap_or(Bson::Null);
                // One that ends by itself in the meantime is as good.
                if let Err(error) = admin.run_command(doc! { "killOp": 1, "op": id }).await {
                    tracing::debug!(%error, "an earlier merge was not ended");
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
