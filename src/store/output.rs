//! The output: a job's hidden collection, and the steps of publishing it.
//!
//! What makes each step safe to repeat is told in [`crate::protocol::publish`].

use bson::{Bson, Document, RawDocumentBuf, doc};
use futures_util::TryStreamExt;
use mongodb::Collection;

use super::Store;
use super::error::{Action, classify, only_existing_ids, run_write};
use super::querying::UNLIMITED;
use super::refusal;
use crate::error::{Error, Result, StoreErrorKind};
use crate::job::spec::HIDDEN_PREFIX;
use crate::job::{Output, OutputMode, target};

/// A collection as `listCollections` describes it.
#[derive(Debug, Clone)]
pub struct Described {
    /// Its identity, which a rename keeps.
    pub uuid: Option<Bson>,
    /// `collection`, `view` or `timeseries`.
    pub kind: String,
    /// Its options.
    pub options: Document,
    /// Its shard key, if it is sharded.
    pub shard_key: Option<Document>,
    /// Whether ranges of it are assigned to zones.
    pub zoned: bool,
}

/// What the hidden collection of a job gets of its target.
#[derive(Debug, Clone, Default)]
pub struct TargetTemplate {
    /// The options to create it with ([`options_for`](crate::job::target::options_for)).
    pub options: Document,
    /// The target's shard key, if it is sharded.
    pub shard_key: Option<Document>,
    /// The target's name, whose chunks are where the new ones should be.
    pub collection: String,
}

impl Store {
    /// Describes a collection, or `None` when there is none of that name.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn describe(&self, db: &str, name: &str) -> Result<Option<Described>> {
        let listed = self.listed(db, name).await;
        let listed = listed.action(format!("look up {db}.{name}")).map_err(|e| self.explain(e))?;
        let Some(row) = listed else { return Ok(None) };
        let entry = match self.is_sharded() {
            true => self.sharded_collection(&format!("{db}.{name}")).await?,
            false => None,
        };
        let shard_key = shard_key(entry);
        let zoned = shard_key.is_some() && self.is_zoned(&format!("{db}.{name}")).await?;
        Ok(Some(Described {
            shard_key,
            zoned,
            uuid: row.get_document("info").ok().and_then(|info| info.get("uuid").cloned()),
            kind: row.get_str("type").unwrap_or("collection").to_owned(),
            options: row.get_document("options").cloned().unwrap_or_default(),
        }))
    }

    /// The identity of a collection, which a rename keeps; `None` without the collection, or without the
    /// privilege to ask.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn identity(&self, db: &str, name: &str) -> Result<Option<Bson>> {
        let row = match self.listed(db, name).await {
            Err(e) if classify(&e).kind == StoreErrorKind::Unauthorized => return Ok(None),
            listed => listed.action(format!("look up {db}.{name}"))?,
        };
        Ok(row.and_then(|row| row.get_document("info").ok()?.get("uuid").cloned()))
    }

    /// The collation that a collection has by itself; `None` for the simple one, and without the privilege to ask.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn collation_of(&self, db: &str, name: &str) -> Result<Option<Document>> {
        let row = match self.listed(db, name).await {
            Err(e) if classify(&e).kind == StoreErrorKind::Unauthorized => return Ok(None),
            listed => listed.action(format!("look up {db}.{name}"))?,
        };
        let collation = row.and_then(|row| {
            row.get_document("options").ok()?.get_document("collation").ok().cloned()
        });
        Ok(collation.filter(|collation| !matches!(collation.get_str("locale"), Ok("simple"))))
    }

    /// What the server lists of one collection.
    async fn listed(&self, db: &str, name: &str) -> mongodb::error::Result<Option<Document>> {
        let list = doc! { "listCollections": 1, "filter": { "name": name } };
        self.other_db(db).run_cursor_command(list).await?.try_next().await
    }

    /// Creates a job's hidden collection with what is to outlive the target's replacement, and sharded like
    /// the target.
    ///
    /// # Errors
    /// [`Error::Refused`] without the privilege to shard it, [`Error::Store`].
    pub async fn create_hidden(&self, db: &str, name: &str, like: &TargetTemplate) -> Result<()> {
        let mut create = doc! { "create": name, "writeConcern": { "w": "majority" } };
        create.extend(like.options.clone());
        match run_write(&self.other_db(db), create).await {
            Ok(_) => {}
            Err(e) if classify(&e).kind == StoreErrorKind::NamespaceExists => {}
            Err(e) => {
                return Err(e)
                    .action(format!("create a collection in {db}"))
                    .map_err(|e| self.explain(e));
            }
        }
        match &like.shard_key {
            Some(key) => self.shard_like(db, name, key, &like.collection).await,
            None => Ok(()),
        }
    }

    /// Gives the collection of a job's results what was changed of the target's options since it was created;
    /// to be done before it takes the target's place.
    ///
    /// # Errors
    /// [`Error::Refused`] when it is too late for a change, [`Error::Store`].
    pub async fn catch_up(&self, output: &Output, results: &str) -> Result<()> {
        let options = async |name: &str| {
            let row = self.listed(&output.db, name).await;
            let row = row.action(format!("look up {}.{name}", output.db))?;
            Ok::<_, Error>(row.and_then(|row| row.get_document("options").ok().cloned()))
        };
        let (has, now) = (options(results).await?, options(&output.collection).await?);
        let (Some(has), Some(now)) = (has, now) else { return Ok(()) };
        if output.mode == OutputMode::Replace && self.is_sharded() {
            let key = async |name: &str| {
                let entry = self.sharded_collection(&format!("{}.{name}", output.db)).await?;
                Ok::<_, Error>(shard_key(entry))
            };
            if key(results).await? != key(&output.collection).await? {
                return Err(Error::refused(
                    format!(
                        "the shard key of the output {}.{} was changed while the job ran",
                        output.db, output.collection
                    ),
                    "nothing was published; submit the job again",
                ));
            }
        }
        let changes = target::catch_up(output, &has, &now)?;
        if changes.is_empty() {
            return Ok(());
        }
        let mut change = doc! { "collMod": results, "writeConcern": { "w": "majority" } };
        change.extend(changes);
        match run_write(&self.other_db(&output.db), change).await {
            Ok(_) => Ok(()),
            // Another publisher has moved them on, and sees to it.
            Err(e) if classify(&e).kind == StoreErrorKind::NamespaceNotFound => Ok(()),
            Err(e) => {
                Err(e).action("give the results the target's options").map_err(|e| self.explain(e))
            }
        }
    }

    /// Writes results with `w: majority` to a collection of a job's own.
    ///
    /// With `again` set, documents that exist already are taken for the work of an earlier attempt
    /// of the same task, which wrote the same bytes. Without, one is an error: two results have the
    /// same `_id`.
    ///
    /// # Errors
    /// [`Error::Refused`] naming the duplicate or invalid document, [`Error::Store`].
    pub async fn insert_output(
        &self,
        output: &Output,
        name: &str,
        docs: &[RawDocumentBuf],
        again: bool,
    ) -> Result<()> {
        let target: Collection<RawDocumentBuf> = self.other_db(&output.db).collection(name);
        let error = match target.insert_many(docs).ordered(false).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let refused = refusal::refused(&error, docs);
        let is_there = classify(&error).kind == StoreErrorKind::DuplicateKey;
        if is_there && let Some(doc) = refused {
            // What the target's collation makes one, no later attempt makes two.
            self.refuse_equal(output, name, doc).await?;
        }
        if again && only_existing_ids(&error) {
            return Ok(());
        }
        let id = refused.map_or_else(|| "?".to_owned(), refusal::id_of);
        if is_there {
            return Err(Error::refused(
                format!("two results have the same key, and so the same _id: {id}"),
                "a map-only job must emit each key once (did you forget --reduce?)",
            ));
        }
        if refusal::of_insert(&error) {
            let Output { db, collection, mode } = output;
            let whose = match mode.has_target() {
                true => format!("{db}.{collection}"),
                false => "the server".to_owned(),
            };
            return Err(Error::refused(
                format!(
                    "{whose} does not take the result with the _id {id}: {}",
                    refusal::words(&error, output, name)
                ),
                "change the function's output, or the target's validator",
            ));
        }
        Err(error).action("write results")
    }

    /// Refuses a result that is not there itself, but one that is equal to it under the collection's collation.
    async fn refuse_equal(&self, output: &Output, name: &str, doc: &RawDocumentBuf) -> Result<()> {
        let Some(collation) = self.collation_of(&output.db, name).await? else { return Ok(()) };
        let Ok(Some(id)) = doc.get("_id") else { return Ok(()) };
        let results: Collection<RawDocumentBuf> = self.other_db(&output.db).collection(name);
        let found = results
            .find_one(doc! { "_id": Bson::try_from(id).unwrap_or(Bson::Null) })
            .max_time(UNLIMITED);
        let Some(found) = found.await.action("look for an equal result")? else { return Ok(()) };
        if found.get("_id").ok().flatten() == Some(id) {
            return Ok(());
        }
        let Output { db, collection, .. } = output;
        Err(Error::refused(
            format!(
                "the results with the _id {} and {} are one under the collation of {db}.{collection}, {}",
                refusal::id_of(&found),
                refusal::id_of(doc),
                refusal::shown(&Bson::Document(collation))
            ),
            "nothing was published: emit keys that stay different there, or name a collection without a collation",
        ))
    }

    /// Counts a collection's documents exactly.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn count_exactly(&self, db: &str, name: &str) -> Result<u64> {
        self.other_db(db)
            .collection::<Document>(name)
            .count_documents(doc! {})
            .hint(mongodb::options::Hint::Keys(doc! { "_id": 1 }))
            .max_time(UNLIMITED)
            .await
            .action("count the results")
    }

    /// Gives `to` every index of a job's target that it does not have.
    ///
    /// # Errors
    /// [`Error::Refused`] when the results cannot carry one (a unique index, say), [`Error::Store`].
    pub async fn copy_indexes(&self, output: &Output, to: &str) -> Result<()> {
        let Output { db, collection: from, .. } = output;
        let database = self.other_db(db);
        let listed = database.run_cursor_command(doc! { "listIndexes": from }).await;
        let cursor = match listed {
            Ok(cursor) => cursor,
            Err(e) if classify(&e).kind == StoreErrorKind::NamespaceNotFound => return Ok(()),
            Err(e) => return Err(e).action("read the target's indexes"),
        };
        let indexes: Vec<Document> =
            cursor.try_collect().await.action("read the target's indexes")?;
        let wanted: Vec<Bson> = indexes
            .into_iter()
            .filter(|index| index.get_str("name").is_ok_and(|name| name != "_id_"))
            .map(|mut index| {
                index.remove("ns");
                // Each server has a version that it makes by itself, and some services take no other.
                index.remove("v");
                // An index without a collation would otherwise inherit the collection's own.
                if !index.contains_key("collation") {
                    index.insert("collation", doc! { "locale": "simple" });
                }
                Bson::Document(index)
            })
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        // By default the server waits for every member that votes, so one that is down would hold up the job.
        let build = doc! {
            "createIndexes": to,
            "indexes": wanted,
            "commitQuorum": "majority",
            "writeConcern": { "w": "majority" },
        };
        let built = run_write(&database, build).await;
        match built {
            Ok(_) => Ok(()),
            Err(e) if classify(&e).kind == StoreErrorKind::DuplicateKey => Err(Error::refused(
                format!(
                    "the results break a unique index of {db}.{from}: {}",
                    refusal::words(&e, output, to)
                ),
                "drop that index or choose another output",
            )),
            Err(e) => Err(e).action("build the target's indexes"),
        }
    }

    /// Renames a collection within one database. `false` when `from` does not exist.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn rename(&self, db: &str, from: &str, to: &str, drop_target: bool) -> Result<bool> {
        let command = doc! {
            "renameCollection": format!("{db}.{from}"),
            "to": format!("{db}.{to}"),
            "dropTarget": drop_target,
            "writeConcern": { "w": "majority" },
        };
        match run_write(&self.client().database("admin"), command).await {
            Ok(_) => Ok(true),
            Err(e) if classify(&e).kind == StoreErrorKind::NamespaceNotFound => Ok(false),
            Err(e) => Err(e).action(format!("put {db}.{to} in place")).map_err(|e| self.explain(e)),
        }
    }

    /// Drops a collection; it need not exist.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn drop_collection(&self, db: &str, name: &str) -> Result<()> {
        self.other_db(db).collection::<Document>(name).drop().await.action("drop a collection")
    }

    /// The name a collection bears now, found by its identity.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn name_of(&self, db: &str, uuid: &Bson) -> Result<Option<String>> {
        let found: Vec<Document> = self
            .other_db(db)
            .run_cursor_command(doc! { "listCollections": 1, "filter": { "info.uuid": uuid } })
            .await
            .action("look for the results")?
            .try_collect()
            .await
            .action("look for the results")?;
        Ok(found.first().and_then(|row| row.get_str("name").ok()).map(str::to_owned))
    }

    /// Names of collections in `db` that belong to some job's output in the making.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn hidden_collections(&self, db: &str) -> Result<Vec<String>> {
        self.other_db(db)
            .list_collection_names()
            .filter(doc! { "name": { "$regex": format!("^{HIDDEN_PREFIX}") } })
            .await
            .action("list collections")
    }

    /// Reads results in the order of their `_id`.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn results(
        &self,
        db: &str,
        name: &str,
        sort: Document,
        limit: i64,
        mut each: impl FnMut(RawDocumentBuf) -> Result<()>,
    ) -> Result<()> {
        let mut cursor = self
            .other_db(db)
            .collection::<RawDocumentBuf>(name)
            .find(doc! {})
            .sort(sort)
            .limit(limit)
            .allow_disk_use(true)
            .max_time(UNLIMITED)
            .await
            .action("read the results")
            .map_err(|e| self.explain(e))?;
        while let Some(doc) = cursor.try_next().await.action("read the results")? {
            each(doc)?;
        }
        Ok(())
    }
}

/// The shard key of a collection that the cluster's configuration says this of.
fn shard_key(entry: Option<Document>) -> Option<Document> {
    entry.and_then(|entry| entry.get_document("key").ok().cloned())
}
