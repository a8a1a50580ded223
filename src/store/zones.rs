//! `aviary init` on a sharded cluster: Aviary's collections are sharded by `{shard: 1, _id: 1}`, and what is
//! filed under a shard's name is pinned to that shard.
//!
//! Each shard has a zone, which holds its range of both collections; the balancer leaves them alone. Another
//! shard is in the zone too, where nothing is put: a cluster does not let a shard go that is alone in a
//! zone with ranges. Jobs and the coordinator's role are filed under [`HOME`](super::topology::HOME), which is
//! pinned to one of the shards too. Every step looks first, so all of it can be repeated: after a shard
//! was added, and while one is being drained, when what it holds is moved away.

use std::time::Duration;

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;

use super::error::{Action, classify};
use super::links::is_unauthorized;
use super::topology::{Shard, chunks_of, config, range_of};
use super::{AVIARY, INTERMEDIATES, Store};
use crate::error::{Error, Result, StoreErrorKind};

/// The server's code for a command that it does not know.
const COMMAND_NOT_FOUND: i32 = 59;
/// Somebody else is changing the same collection.
const CONFLICTING_OPERATION: i32 = 117;
/// The collection is sharded already.
const ALREADY_INITIALIZED: i32 = 23;

impl Store {
    /// Shards and pins Aviary's collections, which exist.
    ///
    /// # Errors
    /// [`Error::Refused`] naming the missing privilege, [`Error::Store`].
    pub(super) async fn pin(&self) -> Result<()> {
        let shards = self.shards().await?;
        let (leaving, staying): (Vec<Shard>, Vec<Shard>) =
            shards.into_iter().partition(|shard| shard.draining);
        let home = self.home_shard(&staying).await?;
        self.make_zones(&staying).await?;
        for collection in [AVIARY, INTERMEDIATES] {
            let namespace = format!("{}.{collection}", self.db_name());
            for shard in &staying {
                self.assign_zone(&namespace, &shard.name, &shard.name).await?;
            }
            self.assign_zone(&namespace, self.home(), &home).await?;
            self.shard_collection(collection).await?;
            self.leave_to_us(&namespace).await?;
            for shard in &staying {
                self.put(&namespace, &shard.name, &shard.name).await?;
            }
            self.put(&namespace, self.home(), &home).await?;
            for shard in &leaving {
                self.clear(&namespace, &shard.name, &home).await?;
            }
        }
        Ok(())
    }

    /// Whether everything is where it belongs.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub(super) async fn is_pinned(&self) -> Result<bool> {
        for shard in self.shards().await?.iter().filter(|shard| !shard.draining) {
            if !self.is_placed(&shard.name).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The shard that jobs are pinned to: the database's own while it stays, else any.
    async fn home_shard(&self, staying: &[Shard]) -> Result<String> {
        let primary = self.primary_shard(self.db_name()).await?;
        let stays = staying.iter().find(|shard| shard.name == primary);
        stays
            .or(staying.first())
            .map(|shard| shard.name.clone())
            .ok_or_else(|| Error::refused("the cluster has no shard that stays", "add one"))
    }

    /// Gives each shard its zone, with the next shard as the one that may take its place.
    async fn make_zones(&self, staying: &[Shard]) -> Result<()> {
        let next = staying.iter().cycle().skip(1);
        for (shard, stand_in) in staying.iter().zip(next) {
            let zone = zone_of(&shard.name);
            for member in [&shard.name, &stand_in.name] {
                let there = config(self.client(), "shards")
                    .find_one(doc! { "_id": member, "tags": &zone })
                    .await
                    .action("read the zones")?;
                if there.is_none() {
                    let command = doc! { "addShardToZone": member, "zone": &zone };
                    if !self.zoned(command, "make a zone for each shard").await? {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Runs a command about zones; `false`, with a warning, when that is not permitted.
    async fn zoned(&self, command: Document, action: &str) -> Result<bool> {
        match self.admin(command, action).await {
            Err(Error::Store { source, .. }) if source.kind == StoreErrorKind::Unauthorized => {
                tracing::warn!("not permitted to make zones; the balancer is kept away instead");
                Ok(false)
            }
            outcome => outcome.map(|_| true),
        }
    }

    /// Puts what is filed under `label` into the zone of `shard`. Without the privilege for zones, the
    /// range is only moved there.
    async fn assign_zone(&self, namespace: &str, label: &str, shard: &str) -> Result<()> {
        let zone = zone_of(shard);
        let (min, max) = range_of(label);
        let tagged = config(self.client(), "tags")
            .find_one(doc! { "ns": namespace, "min": &min })
            .await
            .action("read the zones")?;
        if tagged.as_ref().and_then(|tag| tag.get_str("tag").ok()) == Some(&zone) {
            return Ok(());
        }
        let mut steps = Vec::new();
        if tagged.is_some() {
            // Zones do not overlap: what was another's has to be given up first.
            steps.push(doc! { "updateZoneKeyRange": namespace, "min": &min, "max": &max, "zone": Bson::Null });
        }
        steps.push(doc! { "updateZoneKeyRange": namespace, "min": min, "max": max, "zone": &zone });
        for step in steps {
            if !self.zoned(step, &format!("pin {namespace} to its shards")).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn shard_collection(&self, collection: &str) -> Result<()> {
        let namespace = &format!("{}.{collection}", self.db_name());
        if self.sharded_collection(namespace).await?.is_some() {
            return Ok(());
        }
        let action = format!("shard {namespace}");
        let database = doc! { "enableSharding": self.db_name() };
        self.admin(database, &action).await.map_err(needs_manager)?;
        let index = mongodb::IndexModel::builder().keys(doc! { "shard": 1, "_id": 1 }).build();
        // A worker may have reported before, and what is in a collection has to be found by its key.
        self.database()
            .collection::<Document>(collection)
            .create_index(index)
            .await
            .action(&action)?;
        let command = doc! { "shardCollection": namespace, "key": { "shard": 1, "_id": 1 } };
        match self.admin(command, &action).await {
            Err(Error::Store { source, .. }) if source.code == Some(ALREADY_INITIALIZED) => Ok(()),
            outcome => outcome.map(|_| ()).map_err(needs_manager),
        }
    }

    /// Keeps the balancer off a collection. Where nobody may write to the configuration, as on Atlas, a command does it
    /// from MongoDB 8.0 on; where neither is to be had, zones hold the ranges.
    async fn leave_to_us(&self, namespace: &str) -> Result<()> {
        let found = self.sharded_collection(namespace).await?.unwrap_or_default();
        if found.get_bool("noBalance").unwrap_or(false) {
            return Ok(());
        }
        let action = format!("keep the balancer off {namespace}");
        let written = config(self.client(), "collections")
            .update_one(doc! { "_id": namespace }, doc! { "$set": { "noBalance": true } })
            .await
            .action(&action);
        let refused = match written {
            Err(error @ Error::Store { .. }) if is_unauthorized(&error) => error,
            outcome => return outcome.map(|_| ()),
        };
        let command = doc! { "configureCollectionBalancing": namespace, "enableBalancing": false };
        match self.admin(command, &action).await {
            Err(error) if error.is_transient() => Err(error),
            Err(error) => {
                let zones = self.is_zoned(namespace).await?;
                let then = if zones {
                    "zones hold the ranges"
                } else {
                    "what it moves is put back by the next aviary init, and workers use the router meanwhile: grant \
                     update on config.collections, or moveChunk, which configureCollectionBalancing takes from MongoDB \
                     8.0 on, or the actions for zones (on Atlas, in a custom role)"
                };
                tracing::warn!(%refused, %error, "not permitted to keep the balancer off {namespace}; {then}");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }

    /// Moves what is filed under `label` to `shard`, unless it is there.
    async fn put(&self, namespace: &str, label: &str, shard: &str) -> Result<()> {
        let (min, max) = range_of(label);
        self.put_range(namespace, &min, &max, shard).await
    }

    /// Moves a range to `shard`, unless it is there.
    pub(super) async fn put_range(
        &self,
        namespace: &str,
        min: &Document,
        max: &Document,
        shard: &str,
    ) -> Result<()> {
        let Some(entry) = self.sharded_collection(namespace).await? else { return Ok(()) };
        let overlapping = doc! { "min": { "$lt": max }, "max": { "$gt": min } };
        let chunks = self.chunks_where(&entry, overlapping).await?;
        let elsewhere = chunks.iter().any(|chunk| chunk.get_str("shard").ok() != Some(shard));
        if elsewhere {
            self.move_range(namespace, min, max, shard).await?;
        }
        Ok(())
    }

    /// Takes a shard that is being drained out of its zone, and moves what it holds to `to`.
    async fn clear(&self, namespace: &str, shard: &str, to: &str) -> Result<()> {
        let zone = zone_of(shard);
        let tags: Vec<Document> = config(self.client(), "tags")
            .find(doc! { "ns": namespace, "tag": &zone })
            .await
            .action("read the zones")?
            .try_collect()
            .await
            .action("read the zones")?;
        let action = format!("move {namespace} off the shard {shard}");
        for tag in tags {
            let bound = |name: &str| tag.get_document(name).cloned().unwrap_or_default();
            let command = doc! {
                "updateZoneKeyRange": namespace,
                "min": bound("min"),
                "max": bound("max"),
                "zone": Bson::Null,
            };
            self.admin(command, &action).await.map_err(needs_manager)?;
        }
        let Some(entry) = self.sharded_collection(namespace).await? else { return Ok(()) };
        for chunk in self.chunks_where(&entry, doc! { "shard": shard }).await? {
            let bound = |name: &str| chunk.get_document(name).cloned().unwrap_or_default();
            self.move_range(namespace, &bound("min"), &bound("max"), to).await?;
        }
        Ok(())
    }

    pub(super) async fn chunks_where(
        &self,
        entry: &Document,
        condition: Document,
    ) -> Result<Vec<Document>> {
        let mut filter = chunks_of(entry);
        filter.extend(condition);
        config(self.client(), "chunks")
            .find(filter)
            .sort(doc! { "min": 1 })
            .await
            .action("read the chunks")?
            .try_collect()
            .await
            .action("read the chunks")
    }

    async fn move_range(
        &self,
        namespace: &str,
        min: &Document,
        max: &Document,
        to: &str,
    ) -> Result<()> {
        let action = format!("move a range of {namespace} to the shard {to}");
        // What stays behind for a while by default looks to a worker with a link of its own like its tasks.
        let command = doc! {
            "moveRange": namespace,
            "min": min,
            "max": max,
            "toShard": to,
            "waitForDelete": true,
        };
        match self.admin(command, &action).await {
            // Before MongoDB 6.0 a range has to be a chunk before it can be moved.
            Err(Error::Store { source, .. }) if source.code == Some(COMMAND_NOT_FOUND) => {}
            outcome => return outcome.map(|_| ()).map_err(needs_manager),
        }
        for middle in [min, max] {
            // A bound where the collection is cut already is no error to us.
            let cut = self.admin(doc! { "split": namespace, "middle": middle }, &action).await;
            if let Err(error) = cut {
                tracing::debug!(%error, "could not split; there may be a chunk's bound already");
            }
        }
        let command =
            doc! { "moveChunk": namespace, "bounds": [min, max], "to": to, "_waitForDelete": true };
        self.admin(command, &action).await.map(|_| ()).map_err(needs_manager)
    }

    /// Runs a command that changes the cluster, waiting for others who do so too.
    pub(super) async fn admin(&self, command: Document, action: &str) -> Result<Document> {
        const TRIES_MAX: u32 = 50;
        const PAUSE: Duration = Duration::from_millis(200);
        let admin = self.client().database("admin");
        let mut tries = 0;
        loop {
            tries += 1;
            match admin.run_command(command.clone()).await {
                Err(error) if tries < TRIES_MAX => {
                    let known = classify(&error);
                    let waits = known.kind == StoreErrorKind::Transient
                        || known.code == Some(CONFLICTING_OPERATION);
                    if !waits {
                        return Err(error).action(action);
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                outcome => return outcome.action(action),
            }
        }
    }
}

fn zone_of(shard: &str) -> String {
    format!("aviary-{shard}")
}

pub(super) fn needs_manager(error: Error) -> Error {
    match error {
        Error::Store { action, source } if source.kind == StoreErrorKind::Unauthorized => {
            Error::refused(
                format!("not permitted to {action}: {}", source.message),
                "let a user run aviary init once who has readWrite and dbAdmin on Aviary's database and clusterManager \
                 on admin; on Atlas, one with the role Atlas admin",
            )
        }
        other => other,
    }
}
