//! What an input holds, by shard and in all, and whether the server takes its query.

use std::collections::BTreeMap;

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use mongodb::Collection;
use mongodb::options::ReadConcern;

use super::InputSize;
use crate::error::{Error, Result, StoreErrorKind};
use crate::job::{Input, ReadMode};
use crate::store::Store;
use crate::store::error::Action;
use crate::store::querying::LOOK_MAX;

impl Store {
    /// Makes sure that a job can read this input, and says how large it is.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Refused`] for views and time series, and for capped
    /// collections that cannot be read as the job wants, [`Error::Store`].
    pub async fn inspect_input(&self, input: &Input) -> Result<InputSize> {
        let db = self.other_db(&input.db);
        let name = format!("{}.{}", input.db, input.collection);
        let described: Vec<Document> = db
            .run_cursor_command(doc! {
                "listCollections": 1,
                "filter": { "name": &input.collection },
                "authorizedCollections": true,
                "nameOnly": true,
            })
            .await
            .action(format!("look up {name}"))
            .map_err(|e| self.explain(e))?
            .try_collect()
            .await
            .action(format!("look up {name}"))?;
        let Some(described) = described.first() else {
            return Err(Error::NotFound {
                what: format!("collection {name}"),
                hint: "check the name, and -d or --input-db; names are case-sensitive".into(),
            });
        };
        match described.get_str("type") {
            Ok("view") => {
                return Err(Error::refused(
                    format!("{name} is a view"),
                    "a view cannot be split or read at one cluster time: name the collection under \
                     it and put the view's filter into --query",
                ));
            }
            Ok("timeseries") => {
                return Err(Error::refused(
                    format!("{name} is a time series collection"),
                    "its documents cannot be read at one cluster time: copy what you need into a \
                     plain collection first",
                ));
            }
            _ => {}
        }
        let collection: Collection<Document> = db.collection(&input.collection);
        // One row for each shard that has a part of it.
        let stats: Vec<Document> = collection
            .aggregate(vec![
                doc! { "$collStats": { "storageStats": {} } },
                doc! { "$project": {
                    "size": "$storageStats.size",
                    "count": "$storageStats.count",
                    "capped": "$storageStats.capped",
                } },
            ])
            .max_time(LOOK_MAX)
            .read_concern(ReadConcern::local())
            .await
            .action(format!("measure {name}"))
            .map_err(|e| self.explain(e))?
            .try_collect()
            .await
            .action(format!("measure {name}"))?;
        if stats.iter().any(|row| row.get_bool("capped").unwrap_or(false))
            && input.read == ReadMode::Snapshot
            && !self.reads_capped_snapshots()
        {
            return Err(Error::refused(
                format!(
                    "{name} is a capped collection, which this server cannot read at one cluster time"
                ),
                "submit the job with --read committed",
            ));
        }
        let sum = |field: &str| stats.iter().map(|row| number(row.get(field))).sum();
        Ok(InputSize { documents: sum("count"), bytes: sum("size") })
    }

    /// The bytes of an input on each shard, as the servers estimate them.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn input_by_shard(&self, input: &Input) -> Result<BTreeMap<String, u64>> {
        const ACTION: &str = "measure the input on each shard";
        let collection: Collection<Document> =
            self.other_db(&input.db).collection(&input.collection);
        let rows: Vec<Document> = collection
            .aggregate(vec![
                doc! { "$collStats": { "storageStats": {} } },
                doc! { "$project": { "shard": 1, "size": "$storageStats.size" } },
            ])
            .max_time(LOOK_MAX)
            .read_concern(ReadConcern::local())
            .await
            .action(ACTION)
            .map_err(|e| self.explain(e))?
            .try_collect()
            .await
            .action(ACTION)?;
        let of_shard = |row: &Document| {
            let shard = row.get_str("shard").unwrap_or_else(|_| self.home()).to_owned();
            (shard, number(row.get("size")))
        };
        Ok(rows.iter().map(of_shard).collect())
    }

    /// Has the server look at query, order and projection without running them.
    ///
    /// # Errors
    /// [`Error::Usage`] with the server's words when it does not understand them, or when they do
    /// not go with reading by ranges of `_id`; [`Error::Store`].
    pub async fn check_query(&self, input: &Input) -> Result<()> {
        let mut find = doc! { "find": &input.collection, "filter": input.query.clone() };
        find.extend(input.sort.clone().map(|sort| ("sort".to_owned(), Bson::Document(sort))));
        find.extend(input.projection.clone().map(|p| ("projection".to_owned(), Bson::Document(p))));
        find.extend(input.collation.clone().map(|c| ("collation".to_owned(), Bson::Document(c))));
        if !input.has_one_reader() {
            // A small input is read as a whole, but a job should not fail because it has grown.
            find.insert("hint", doc! { "_id": 1 });
        }
        let most = i64::try_from(LOOK_MAX.as_millis()).unwrap_or(i64::MAX);
        // An explanation repeats the query more than once, and must fit a document: a large query is looked at by asking
        // for nothing that it finds.
        if doc_bytes(&find) > EXPLAINED_BYTES_MAX {
            find.extend(doc! { "limit": 1, "singleBatch": true, "maxTimeMS": most });
            find.insert("filter", doc! { "$and": [input.query.clone(), { "$alwaysFalse": 1 }] });
            let looked = self.other_db(&input.db).run_command(find).await;
            return accepted(looked.action("check the query").map_err(|e| self.explain(e)));
        }
        let explain = doc! { "explain": find, "verbosity": "queryPlanner", "maxTimeMS": most };
        let explained = self.other_db(&input.db).run_command(explain).await;
        accepted(explained.action("check the query").map_err(|e| self.explain(e)))
    }
}

/// What the server's answer to a query says of it.
fn accepted(answer: Result<Document>) -> Result<()> {
    /// `BadValue`, `FailedToParse` and the like are numbered per message; these say that the
    /// question is fine and the answer has to wait, or that this user may not ask.
    const NOT_THE_QUERY: [StoreErrorKind; 2] =
        [StoreErrorKind::Transient, StoreErrorKind::Unauthorized];
    match answer {
        Err(Error::Store { source, .. }) if !NOT_THE_QUERY.contains(&source.kind) => {
            Err(Error::Usage(format!(
                "the server does not accept --query, --sort, --projection or --collation: {}",
                source.message
            )))
        }
        answer => answer.map(|_| ()),
    }
}

fn number(value: Option<&Bson>) -> u64 {
    match value {
        Some(Bson::Int32(n)) => u64::try_from(*n).unwrap_or(0),
        Some(Bson::Int64(n)) => u64::try_from(*n).unwrap_or(0),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an estimate, and the cast saturates"
        )]
        Some(Bson::Double(n)) => *n as u64,
        _ => 0,
    }
}

/// A query of more bytes is not explained.
const EXPLAINED_BYTES_MAX: usize = 1 << 20;

fn doc_bytes(document: &Document) -> usize {
    document.to_vec().map_or(usize::MAX, |bytes| bytes.len())
}
