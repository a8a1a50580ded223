//! Merging results into a collection that has content of its own, and reading what it has.

use std::time::Duration;

use bson::{Bson, Document, RawDocumentBuf, doc};
use futures_util::TryStreamExt;
use mongodb::options::Hint;
use mongodb::{Collection, Cursor};

use super::Store;
use super::error::{Action, classify, run_write};
use crate::config;
use crate::error::{Error, Result, StoreErrorKind};
use crate::ids::JobId;
use crate::job::{Output, OutputMode};

/// The field of a comment by which a merge can be told from other operations.
const MARK: &str = "aviary-publish";

/// Documents on their way, a batch at a time.
pub struct RawBatches {
    cursor: Cursor<RawDocumentBuf>,
}

impl RawBatches {
    /// The next batch of about so many bytes, or `None` at the end.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn next(&mut self, bytes_max: usize) -> Result<Option<Vec<RawDocumentBuf>>> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while bytes < bytes_max && batch.len() < config::WRITE_BATCH_DOCS {
            let Some(doc) = self.cursor.try_next().await.action("read the results")? else { break };
            bytes += doc.as_bytes().len();
            batch.push(doc);
        }
        Ok((!batch.is_empty()).then_some(batch))
    }
}

/// How far merging has come.
#[derive(Debug, Clone, Default)]
pub struct Merged {
    /// The last key that is merged; none before the first piece.
    last: Option<Bson>,
    /// Results that are merged.
    pub rows: i64,
    /// Whether that was all of them.
    pub is_last: bool,
}

impl Store {
    /// All documents of a collection.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn raw_documents(&self, db: &str, name: &str) -> Result<RawBatches> {
        let collection: Collection<RawDocumentBuf> = self.other_db(db).collection(name);
        let cursor = collection.find(doc! {}).await.action("read the results")?;
        Ok(RawBatches { cursor })
    }

    /// The target's documents of these `_id`s.
    ///
    /// # Errors
    /// [`Error::Refused`] without the privilege to read it, [`Error::Store`].
    pub async fn documents_of_ids(
        &self,
        db: &str,
        name: &str,
        ids: Vec<Bson>,
    ) -> Result<RawBatches> {
        let collection: Collection<RawDocumentBuf> = self.other_db(db).collection(name);
        let cursor = collection
            .find(doc! { "_id": { "$in": ids } })
            .await
            .action("read the target")
            .map_err(|e| self.explain(e))?;
        Ok(RawBatches { cursor })
    }

    /// Makes sure that no result has a key which servers merge into no collection.
    ///
    /// # Errors
    /// [`Error::Refused`] for a null, [`Error::Store`].
    pub async fn refuse_null_key(&self, output: &Output, from: &str) -> Result<()> {
        let results: Collection<RawDocumentBuf> = self.other_db(&output.db).collection(from);
        let null = results.find_one(doc! { "_id": Bson::Null }).await.action("read the results")?;
        if null.is_none() {
            return Ok(());
        }
        Err(Error::refused(
            "a result has the key null, which servers merge into no collection",
            "nothing was published: emit another key, or use --out replace:NAME or inline",
        ))
    }

    /// Has the server merge the next piece of a collection into a job's target. Doing it again changes
    /// nothing.
    ///
    /// Pieces keep each command short, so that a publisher can be stopped and tells how far it is. They are
    /// ranges of `_id` by expressions, which, unlike comparisons in a query, span every type of value.
    ///
    /// # Errors
    /// [`Error::Refused`] when the target does not take a result, [`Error::Store`].
    pub async fn merge_piece(
        &self,
        output: &Output,
        from: &str,
        job: &JobId,
        merged: &Merged,
    ) -> Result<Merged> {
        let rows = i64::try_from(config::MERGE_PIECE_ROWS).unwrap_or(i64::MAX);
        let above = merged.last.as_ref().map(|last| compare("$gt", last));
        let rest = match &above {
            Some(above) => doc! { "$expr": above },
            None => doc! {},
        };
        let last = self
            .other_db(&output.db)
            .collection::<Document>(from)
            .find_one(rest.clone())
            .projection(doc! { "_id": 1 })
            .sort(doc! { "_id": 1 })
            .skip(config::MERGE_PIECE_ROWS - 1)
            .hint(Hint::Keys(doc! { "_id": 1 }))
            .await
            .action("read the results")?
            .and_then(|row| row.get("_id").cloned());
        let range = match (&above, &last) {
            (Some(above), Some(last)) => {
                doc! { "$expr": { "$and": [above, compare("$lte", last)] } }
            }
            (None, Some(last)) => doc! { "$expr": compare("$lte", last) },
            (_, None) => rest,
        };
        self.merge_range(output, from, job, range).await?;
        Ok(match last {
            Some(last) => Merged { last: Some(last), rows: merged.rows + rows, is_last: false },
            None => Merged { is_last: true, ..merged.clone() },
        })
    }

    async fn merge_range(
        &self,
        output: &Output,
        from: &str,
        job: &JobId,
        range: Document,
    ) -> Result<()> {
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
        let mut command = doc! {
            "aggregate": from,
            "pipeline": [doc! { "$match": range.clone() }, merge],
            "cursor": {},
            "comment": { MARK: job },
            "writeConcern": { "w": "majority" },
        };
        if !range.is_empty() {
            command.insert("hint", doc! { "_id": 1 });
        }
        let target = format!("{}.{}", output.db, output.collection);
        let Err(error) = run_write(&self.other_db(&output.db), command).await else {
            return Ok(());
        };
        let error = classify(&error);
        /// `DocumentValidationFailure`, `ImmutableField`, `BSONObjectTooLarge`, and the same of what an update makes.
        const AT_FAULT: [i32; 4] = [121, 66, 10334, 17419];
        if error.kind == StoreErrorKind::DuplicateKey
            || error.code.is_some_and(|code| AT_FAULT.contains(&code))
        {
            return Err(Error::refused(
                format!("{target} does not take a result: {}", error.message),
                format!(
                    "other results may be merged already, so do not submit the job again: change the \
                     target's validator, unique index or document, then run aviary resume {job}; or \
                     leave the target as it is with aviary cancel {job}"
                ),
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

/// An expression that compares the `_id` with a value, whatever the types of both.
fn compare(operator: &str, value: &Bson) -> Document {
    doc! { operator: ["$_id", { "$literal": value.clone() }] }
}
