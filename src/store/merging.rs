//! Merging results into a collection that has content of its own, and reading what it has.

use std::time::Duration;

use bson::{Bson, Document, RawDocumentBuf, doc};
use futures_util::TryStreamExt;
use mongodb::error::Error as DriverError;
use mongodb::options::Hint;
use mongodb::{Collection, Cursor};

use super::Store;
use super::error::{Action, classify, run_write};
use super::querying::UNLIMITED;
use super::refusal;
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

/// A part of the results that one command merges: those whose `_id` is above one and not above another.
#[derive(Debug, Clone, Default)]
pub struct Piece {
    above: Option<Bson>,
    /// Without it, the piece is the last.
    upto: Option<Bson>,
    /// Results in this piece and those before; not counted for the last one.
    pub rows: i64,
}

impl Piece {
    /// Whether nothing comes after it.
    pub fn is_last(&self) -> bool {
        self.upto.is_none()
    }

    fn filter(&self) -> Document {
        let above = self.above.as_ref().map(|above| compare("$gt", above));
        let upto = self.upto.as_ref().map(|upto| compare("$lte", upto));
        match (above, upto) {
            (Some(above), Some(upto)) => doc! { "$expr": { "$and": [above, upto] } },
            (Some(one), None) | (None, Some(one)) => doc! { "$expr": one },
            (None, None) => doc! {},
        }
    }
}

impl Store {
    /// All documents of a collection.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn raw_documents(&self, db: &str, name: &str) -> Result<RawBatches> {
        let collection: Collection<RawDocumentBuf> = self.other_db(db).collection(name);
        let reading = collection.find(doc! {}).max_time(UNLIMITED);
        let cursor = reading.await.action("read the results")?;
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
            .max_time(UNLIMITED)
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
        let null = results.find_one(doc! { "_id": Bson::Null }).max_time(UNLIMITED);
        let null = null.await.action("read the results")?;
        if null.is_none() {
            return Ok(());
        }
        Err(Error::refused(
            "a result has the key null, which servers merge into no collection",
            "nothing was published: emit another key, or use --out replace:NAME or inline",
        ))
    }

    /// The piece of a collection that comes after another, or the first.
    ///
    /// Pieces keep each command short, so that a publisher can be stopped and tells how far it is. They are
    /// ranges of `_id` by expressions, which, unlike comparisons in a query, span every type of value.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn next_piece(
        &self,
        output: &Output,
        from: &str,
        before: Option<&Piece>,
    ) -> Result<Piece> {
        let rows = config::MERGE_PIECE_ROWS;
        let rest =
            Piece { above: before.and_then(|before| before.upto.clone()), ..Piece::default() };
        let upto = self.id_within(output, from, &rest, rows - 1).await?;
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        let rows = before.map_or(0, |before| before.rows).saturating_add(rows);
        Ok(Piece { upto, rows, ..rest })
    }

    /// The `_id` of a piece's result that comes after so many others, if there is one.
    async fn id_within(
        &self,
        output: &Output,
        from: &str,
        piece: &Piece,
        skip: u64,
    ) -> Result<Option<Bson>> {
        let found = self
            .other_db(&output.db)
            .collection::<Document>(from)
            .find_one(piece.filter())
            .projection(doc! { "_id": 1 })
            .sort(doc! { "_id": 1 })
            .skip(skip)
            .hint(Hint::Keys(doc! { "_id": 1 }))
            .max_time(UNLIMITED)
            .await
            .action("read the results")?;
        Ok(found.and_then(|row| row.get("_id").cloned()))
    }

    /// Has the server merge a piece of a collection into a job's target. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] when the target does not take a result, [`Error::Store`].
    pub async fn merge_piece(
        &self,
        output: &Output,
        from: &str,
        job: &JobId,
        piece: &Piece,
    ) -> Result<()> {
        let Err(error) = self.merge_range(output, from, job, piece.filter()).await else {
            return Ok(());
        };
        let target = format!("{}.{}", output.db, output.collection);
        if !refusal::of_merge(&error) {
            return Err(error)
                .action(format!("merge into {target}"))
                .map_err(|error| self.explain(error));
        }
        let (id, error) = match self.refused(output, from, job, piece).await? {
            Some((id, error)) => (refusal::shown(&id), error),
            None => ("?".to_owned(), error),
        };
        Err(Error::refused(
            format!(
                "{target} does not take the result with the _id {id}: {}",
                refusal::words(&error, output, from)
            ),
            "other results may be merged already; the target's validator, its unique index or its document is in \
             the way",
        ))
    }

    /// The first result of a piece that the target does not take, and why; found by merging ever smaller parts.
    /// Nothing when all of them are taken by now.
    async fn refused(
        &self,
        output: &Output,
        from: &str,
        job: &JobId,
        piece: &Piece,
    ) -> Result<Option<(Bson, DriverError)>> {
        let mut part = piece.clone();
        // As many results as the part may have.
        let mut rows = config::MERGE_PIECE_ROWS;
        while rows > 1 {
            let half = rows / 2;
            let Some(middle) = self.id_within(output, from, &part, half - 1).await? else {
                rows = half;
                continue;
            };
            let first = Piece { upto: Some(middle.clone()), ..part.clone() };
            match self.merge_range(output, from, job, first.filter()).await {
                Ok(()) => (part.above, rows) = (Some(middle), rows - half),
                Err(error) if refusal::of_merge(&error) => (part, rows) = (first, half),
                Err(error) => return Err(error).action("look for the result that is not taken"),
            }
        }
        let Some(id) = self.id_within(output, from, &part, 0).await? else { return Ok(None) };
        match self.merge_range(output, from, job, part.filter()).await {
            Err(error) if refusal::of_merge(&error) => Ok(Some((id, error))),
            _ => Ok(None),
        }
    }

    /// How many results of a piece have a document in the target.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn count_matched(&self, output: &Output, from: &str, piece: &Piece) -> Result<i64> {
        const ACTION: &str = "count the documents that are updated";
        let db = self.other_db(&output.db);
        let staged: Collection<RawDocumentBuf> = db.collection(from);
        let target: Collection<Document> = db.collection(&output.collection);
        let cursor = staged
            .find(piece.filter())
            .projection(doc! { "_id": 1 })
            .hint(Hint::Keys(doc! { "_id": 1 }))
            .max_time(UNLIMITED)
            .await
            .action(ACTION)?;
        let (mut batches, mut matched) = (RawBatches { cursor }, 0_u64);
        while let Some(batch) = batches.next(config::WRITE_BATCH_BYTES).await? {
            let id = |doc: &RawDocumentBuf| Bson::try_from(doc.get("_id").ok()??).ok();
            let ids: Vec<Bson> = batch.iter().filter_map(id).collect();
            let these = doc! { "_id": { "$in": ids } };
            matched += target.count_documents(these).max_time(UNLIMITED).await.action(ACTION)?;
        }
        Ok(i64::try_from(matched).unwrap_or(i64::MAX))
    }

    async fn merge_range(
        &self,
        output: &Output,
        from: &str,
        job: &JobId,
        range: Document,
    ) -> std::result::Result<(), DriverError> {
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
            "maxTimeMS": 0,
            "writeConcern": { "w": "majority" },
        };
        if !range.is_empty() {
            command.insert("hint", doc! { "_id": 1 });
        }
        run_write(&self.other_db(&output.db), command).await.map(|_| ())
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
