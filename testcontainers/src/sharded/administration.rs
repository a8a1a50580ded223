//! Placing data on shards, by the commands an operator would give to a mongos.

use mongodb::bson::{Bson, Document, doc};

use super::ShardedCluster;
use crate::error::Result;

/// A range of a sharded collection, `min` included, `max` not.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// The first shard key in it.
    pub min: Document,
    /// The first shard key after it.
    pub max: Document,
    /// The shard that owns it.
    pub shard: String,
}

impl ShardedCluster {
    /// Makes a database whose unsharded collections are on `primary`.
    ///
    /// # Errors
    ///
    /// When it is refused, as for a database that exists on another shard.
    pub async fn enable_sharding(&self, db: &str, primary: &str) -> Result<()> {
        let command = doc! { "enableSharding": db, "primaryShard": primary };
        self.run_admin(command).await.map(|_| ())
    }

    /// Shards a collection (`db.collection`). A hashed one can begin with several chunks, spread
    /// over the shards.
    ///
    /// # Errors
    ///
    /// When it is refused.
    pub async fn shard_collection(
        &self,
        namespace: &str,
        key: Document,
        chunks: Option<i32>,
    ) -> Result<()> {
        let mut command = doc! { "shardCollection": namespace, "key": key };
        if let Some(chunks) = chunks {
            command.insert("numInitialChunks", chunks);
        }
        self.run_admin(command).await.map(|_| ())
    }

    /// Splits the chunk that holds `at` in two; the second begins with `at`.
    ///
    /// # Errors
    ///
    /// When it is refused, as when a chunk begins there already.
    pub async fn split(&self, namespace: &str, at: Document) -> Result<()> {
        self.run_admin(doc! { "split": namespace, "middle": at }).await.map(|_| ())
    }

    /// Moves the chunk that begins with `min` to the shard `to`; with `wait_for_delete`, what it
    /// leaves behind is deleted before this returns.
    ///
    /// # Errors
    ///
    /// When it is refused, or when another migration is under way.
    pub async fn move_range(
        &self,
        namespace: &str,
        min: Document,
        to: &str,
        wait_for_delete: bool,
    ) -> Result<()> {
        let command = doc! {
            "moveRange": namespace,
            "min": min,
            "toShard": to,
            "waitForDelete": wait_for_delete,
        };
        self.run_admin(command).await.map(|_| ())
    }

    /// Makes a shard part of a zone.
    ///
    /// # Errors
    ///
    /// When it is refused.
    pub async fn add_shard_to_zone(&self, shard: &str, zone: &str) -> Result<()> {
        self.run_admin(doc! { "addShardToZone": shard, "zone": zone }).await.map(|_| ())
    }

    /// Assigns the range from `min` up to `max` to a zone, or to none. The balancer does the moving.
    ///
    /// # Errors
    ///
    /// When it is refused.
    pub async fn set_zone(
        &self,
        namespace: &str,
        min: Document,
        max: Document,
        zone: Option<&str>,
    ) -> Result<()> {
        let zone = zone.map_or(Bson::Null, Bson::from);
        let command =
            doc! { "updateZoneKeyRange": namespace, "min": min, "max": max, "zone": zone };
        self.run_admin(command).await.map(|_| ())
    }

    /// Begins or goes on with the removal of a shard, and says how far it is: `started`,
    /// `ongoing` or `completed`.
    ///
    /// # Errors
    ///
    /// When it is refused.
    pub async fn remove_shard(&self, shard: &str) -> Result<String> {
        let reply = self.run_admin(doc! { "removeShard": shard }).await?;
        Ok(reply.get_str("state").unwrap_or_default().to_owned())
    }

    /// Lets chunks be moved without being asked for.
    ///
    /// # Errors
    ///
    /// When it is refused.
    pub async fn start_balancer(&self) -> Result<()> {
        self.run_admin(doc! { "balancerStart": 1 }).await.map(|_| ())
    }

    /// Lets no chunk be moved unless asked for; waits for a move that is under way.
    ///
    /// # Errors
    ///
    /// When it is refused.
    pub async fn stop_balancer(&self) -> Result<()> {
        self.run_admin(doc! { "balancerStop": 1 }).await.map(|_| ())
    }

    /// The chunks of a sharded collection, in the order of its key. None for one that is not.
    ///
    /// # Errors
    ///
    /// When the config servers cannot be asked.
    pub async fn chunks(&self, namespace: &str) -> Result<Vec<Chunk>> {
        let of_namespace = doc! { "find": "collections", "filter": { "_id": namespace } };
        let collections = documents(&self.run_on("config", of_namespace).await?);
        let Some(uuid) = collections.first().and_then(|found| found.get("uuid")) else {
            return Ok(Vec::new());
        };
        let command = doc! {
            "find": "chunks",
            "filter": { "uuid": uuid.clone() },
            "sort": { "min": 1 },
            "batchSize": i32::MAX,
        };
        let found = documents(&self.run_on("config", command).await?);
        Ok(found.iter().filter_map(Chunk::parse).collect())
    }
}

impl Chunk {
    fn parse(found: &Document) -> Option<Self> {
        Some(Self {
            min: found.get_document("min").ok()?.clone(),
            max: found.get_document("max").ok()?.clone(),
            shard: found.get_str("shard").ok()?.to_owned(),
        })
    }
}

fn documents(reply: &Document) -> Vec<Document> {
    let batch = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    let batch = batch.map(Vec::as_slice).unwrap_or_default();
    batch.iter().filter_map(Bson::as_document).cloned().collect()
}
