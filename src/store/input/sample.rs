//! Samples of an input: keys to cut it at, and documents to try functions on.

use bson::{Bson, Document, RawDocumentBuf, doc};
use futures_util::TryStreamExt;
use mongodb::Collection;
use mongodb::error::ErrorKind;
use mongodb::options::ReadConcern;

use super::InputSize;
use super::options::find_options;
use crate::config::Caps;
use crate::error::{Error, Result};
use crate::job::Input;
use crate::store::Store;
use crate::store::error::Action;
use crate::store::querying::{QueryTime, SAMPLE_MAX};

impl Store {
    /// Samples the values of some fields; a field that a document lacks is null. The rows are in the
    /// server's order of them. There are none when the server cannot draw any.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn sample(
        &self,
        input: &Input,
        fields: &[String],
        samples: u64,
    ) -> Result<Vec<Vec<Bson>>> {
        /// Random cursors meet documents again and again where there are few of them, and give up.
        const NO_FRESH_DOCUMENT: i32 = 28_799;
        const TRIES: u32 = 5;
        for _ in 0..TRIES {
            match self.draw(input, fields, samples).await {
                Err(Error::Store { source, .. }) if source.code == Some(NO_FRESH_DOCUMENT) => {
                    tracing::debug!(error = source.message, "sampling again");
                }
                outcome => return outcome,
            }
        }
        tracing::warn!("the input cannot be sampled; it is split along its chunks only");
        Ok(Vec::new())
    }

    async fn draw(&self, input: &Input, fields: &[String], samples: u64) -> Result<Vec<Vec<Bson>>> {
        let collection: Collection<Document> =
            self.other_db(&input.db).collection(&input.collection);
        let samples = i64::try_from(samples).unwrap_or(i64::MAX);
        let order: Document = fields.iter().map(|field| (field.clone(), Bson::Int32(1))).collect();
        let values: Vec<Bson> = fields
            .iter()
            .map(|field| doc! { "$ifNull": [format!("${field}"), Bson::Null] }.into())
            .collect();
        let drawn: mongodb::error::Result<Vec<Document>> = collection
            .aggregate(vec![
                doc! { "$sample": { "size": samples } },
                doc! { "$sort": order },
                doc! { "$project": { "_id": 0, "values": values } },
            ])
            .allow_disk_use(true)
            .max_time(SAMPLE_MAX)
            .read_concern(ReadConcern::local())
            .await
            .action("sample the input")
            .map_err(|e| self.explain(e))?
            .try_collect()
            .await;
        let rows = match drawn {
            // Text that is not UTF-8 is no value that a split could end at.
            Err(error)
                if matches!(
                    *error.kind,
                    ErrorKind::Bson(_) | ErrorKind::BsonDeserialization(_)
                ) =>
            {
                return Ok(Vec::new());
            }
            drawn => drawn.action("sample the input")?,
        };
        Ok(rows.into_iter().filter_map(|row| row.get_array("values").ok().cloned()).collect())
    }

    /// Reads up to `limit` matching documents, for trying functions out.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn sample_documents(&self, input: &Input, limit: i64) -> Result<Vec<RawDocumentBuf>> {
        let collection: Collection<RawDocumentBuf> =
            self.other_db(&input.db).collection(&input.collection);
        let mut options = find_options(input, InputSize::default())?;
        options.limit = Some(input.limit.map_or(limit, |asked| asked.min(limit)));
        options.max_time = Some(QueryTime::of(input, &Caps::default(), None).left());
        collection
            .find(input.query.clone())
            .with_options(options)
            .await
            .action("read the input")
            .map_err(|e| self.explain(e))?
            .try_collect()
            .await
            .action("read the input")
    }
}
