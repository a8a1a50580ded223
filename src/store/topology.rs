//! The deployment's shape: a replica set, or a cluster of shards, as its config servers describe it.
//!
//! `aviary` and `aviary-intermediates` are sharded by `{shard: 1, _id: 1}`, so a document's field
//! `shard` says where it lives. Jobs, the coordinator's role and the clock bear a name of their own,
//! [`HOME`], so that they stay where they are when shards come and go. On a replica set everything
//! bears the set's name.

mod placement;

use std::sync::{PoisonError, RwLock};

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use mongodb::options::ReadConcern;
use mongodb::{Client, Collection};

use super::error::Action;
use super::{AVIARY, INTERMEDIATES, Store};
use crate::error::{Error, Result, StoreErrorKind};

use placement::is_in_one_piece;
pub use placement::{Chunk, Placement, ShardKeyIndex};

/// What jobs and the coordinator's role are filed under in a sharded cluster.
pub const HOME: &str = "home";

/// A shard of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its name.
    pub name: String,
    /// Its replica set and members, `set/host:port,…`.
    pub host: String,
    /// Whether it is being removed.
    pub draining: bool,
}

/// What a store knows of its deployment.
#[derive(Debug)]
pub(super) struct Topology {
    pub(super) sharded: bool,
    pub(super) home: String,
    known: RwLock<Vec<String>>,
}

impl Topology {
    pub(super) fn of_set(name: String) -> Self {
        Self { sharded: false, home: name.clone(), known: RwLock::new(vec![name]) }
    }

    pub(super) async fn of_cluster(client: &Client) -> Result<Self> {
        let shards = read_shards(client).await?;
        let topology =
            Self { sharded: true, home: HOME.to_owned(), known: RwLock::new(Vec::new()) };
        topology.learn(&shards);
        Ok(topology)
    }

    fn learn(&self, shards: &[Shard]) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        // A shard that has gone may still be named by documents, which live elsewhere now.
        for shard in shards {
            if !known.contains(&shard.name) {
                tracing::info!(shard = shard.name, "learnt of a shard");
                known.push(shard.name.clone());
            }
        }
    }

    fn known(&self) -> Vec<String> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Store {
    /// Whether the deployment is a sharded cluster.
    pub fn is_sharded(&self) -> bool {
        self.topology.sharded
    }

    /// What jobs and the coordinator's role are filed under.
    pub fn home(&self) -> &str {
        &self.topology.home
    }

    /// Every shard that has been heard of.
    pub(super) fn known_shards(&self) -> Vec<String> {
        self.topology.known()
    }

    /// A condition on the field `shard` that holds for every shard, and for what is filed under
    /// [`home`](Self::home).
    pub(super) fn every_shard(&self) -> Bson {
        let mut every = self.known_shards();
        if !every.iter().any(|shard| shard == self.home()) {
            every.push(self.home().to_owned());
        }
        one_of(every)
    }

    /// The shards there are now; on a replica set, the set.
    ///
    /// # Errors
    /// [`Error::Refused`] without the privilege to read the cluster's configuration, [`Error::Store`].
    pub async fn shards(&self) -> Result<Vec<Shard>> {
        if !self.is_sharded() {
            let name = self.home().to_owned();
            return Ok(vec![Shard { host: name.clone(), name, draining: false }]);
        }
        let shards = read_shards(self.client()).await?;
        self.topology.learn(&shards);
        Ok(shards)
    }

    /// Learns of shards that were added since the last time; to be called every few seconds by what runs for long.
    pub async fn refresh_shards(&self) {
        if self.is_sharded()
            && let Err(error) = self.shards().await
        {
            tracing::warn!(%error, "could not look for new shards");
        }
    }

    /// The cluster's description of a sharded collection, or `None`.
    pub(super) async fn sharded_collection(&self, namespace: &str) -> Result<Option<Document>> {
        let entry = self.tracked_collection(namespace).await?;
        Ok(entry.filter(|entry| !is_in_one_piece(entry)))
    }

    /// The cluster's description of a collection that it keeps a book of, or `None`. From MongoDB 8.0 on these are not
    /// only sharded ones, but also those that were put on a shard of their own.
    pub(super) async fn tracked_collection(&self, namespace: &str) -> Result<Option<Document>> {
        config(self.client(), "collections")
            .find_one(doc! { "_id": namespace, "dropped": { "$ne": true } })
            .await
            .action(format!("learn how {namespace} is sharded"))
            .map_err(needs_config)
    }

    /// Whether ranges of a collection are assigned to zones.
    pub(super) async fn is_zoned(&self, namespace: &str) -> Result<bool> {
        let found = config(self.client(), "tags")
            .find_one(doc! { "ns": namespace })
            .await
            .action(format!("learn whether {namespace} has zones"))
            .map_err(needs_config)?;
        Ok(found.is_some())
    }

    /// The shard that holds the collections of a database that are not sharded.
    pub(super) async fn primary_shard(&self, db: &str) -> Result<String> {
        self.database_place(db)
            .await?
            .as_ref()
            .and_then(|entry| entry.get_str("primary").ok())
            .map(str::to_owned)
            .ok_or_else(|| Error::NotFound { what: format!("database {db}"), hint: String::new() })
    }

    /// Whether everything that Aviary files under `shard` lives on that shard.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) async fn is_placed(&self, shard: &str) -> Result<bool> {
        for name in [AVIARY, INTERMEDIATES] {
            let namespace = format!("{}.{name}", self.db_name());
            let Some(entry) = self.sharded_collection(&namespace).await? else { return Ok(false) };
            let (low, high) = range_of(shard);
            let mut elsewhere = chunks_of(&entry);
            elsewhere.extend(doc! {
                "min": { "$lt": high },
                "max": { "$gt": low },
                "shard": { "$ne": shard },
            });
            let found = config(self.client(), "chunks")
                .find_one(elsewhere)
                .await
                .action("verify where Aviary's collections are")
                .map_err(needs_config)?;
            if found.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The range of shard keys that is filed under a shard.
pub(super) fn range_of(shard: &str) -> (Document, Document) {
    (doc! { "shard": shard, "_id": Bson::MinKey }, doc! { "shard": shard, "_id": Bson::MaxKey })
}

/// A condition that holds for each of these values.
pub(super) fn one_of(values: Vec<String>) -> Bson {
    match <[String; 1]>::try_from(values) {
        Ok([one]) => Bson::String(one),
        Err(several) => doc! { "$in": several }.into(),
    }
}

/// The filter for a collection's chunks: by identity, or before MongoDB 5.0's metadata by name.
pub(super) fn chunks_of(entry: &Document) -> Document {
    match (entry.contains_key("timestamp"), entry.get("uuid"), entry.get("_id")) {
        (true, Some(uuid), _) => doc! { "uuid": uuid },
        (_, _, name) => doc! { "ns": name.cloned().unwrap_or(Bson::Null) },
    }
}

async fn read_shards(client: &Client) -> Result<Vec<Shard>> {
    let rows: Vec<Document> = config(client, "shards")
        .find(doc! {})
        .sort(doc! { "_id": 1 })
        .await
        .action("list the shards")
        .map_err(needs_config)?
        .try_collect()
        .await
        .action("list the shards")
        .map_err(needs_config)?;
    Ok(rows
        .into_iter()
        .map(|row| Shard {
            name: row.get_str("_id").unwrap_or_default().to_owned(),
            host: row.get_str("host").unwrap_or_default().to_owned(),
            draining: row.get_bool("draining").unwrap_or(false),
        })
        .collect())
}

/// A collection of the cluster's configuration, read as a majority knows it.
pub(super) fn config(client: &Client, name: &str) -> Collection<Document> {
    let options = mongodb::options::CollectionOptions::builder()
        .read_concern(ReadConcern::majority())
        .build();
    client.database("config").collection_with_options(name, options)
}

pub(super) fn needs_config(error: Error) -> Error {
    match error {
        Error::Store { action, source } if source.kind == StoreErrorKind::Unauthorized => {
            Error::refused(
                format!("not permitted to {action}: {}", source.message),
                "grant the user the role clusterMonitor on admin, and read on config, or aviary-fleet of deploy/roles.js; on \
                 Atlas, Atlas admin has both",
            )
        }
        other => other,
    }
}
