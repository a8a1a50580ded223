//! `aviary init` on a sharded cluster: Aviary's collections are sharded by `{shard: 1, _id: 1}`, and what is
//! filed under a shard's name is pinned to that shard.
//!
//! Each shard has a zone, which holds its range of both collections; the balancer leaves them alone. Another
//! shard is in the zone too, where nothing is put: a cluster does not let a shard go that is alone in a
//! zone with ranges. Jobs and the coordinator's role are filed under [`HOME`](super::topology::HOME), which is
//! pinned to one of the shards too. Every step looks first, so all of it can be repeated: after a shard
//! was added, and while one is being drained, when what it holds is moved away.

use std::collections::BTreeMap;
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

    /// Shards a collection that is still empty by `key`, one of `{_id: 1}` and `{_id: "hashed"}`, and
    /// spreads it over the shards as `model` in the same database is.
    ///
    /// # Errors
    /// [`Error::Refused`] naming the missing privilege, [`Error::Store`].
    pub(super) async fn shard_like(
        &self,
        db: &str,
        collection: &str,
        key: &Document,
        model: &str,
    ) -> Result<()> {
        /// Moving more empty ranges than these would take longer than the balancer's moving full ones.
        const PLACES_MAX: usize = 64;
        let namespace = format!("{db}.{collection}");
        if self.sharded_collection(&namespace).await?.is_none() {
            let simple = doc! { "locale": "simple" };
            let command = doc! { "shardCollection": &namespace, "key": key, "collation": simple };
            let action = "shard the results like their target";
            self.admin(command, action).await.map_err(needs_manager)?;
        }
        if key.values().any(|direction| direction.as_str().is_some()) {
            // The server spreads an empty hashed collection over all shards by itself.
            return Ok(());
        }
        let Some(entry) = self.sharded_collection(&format!("{db}.{model}")).await? else {
            return Ok(());
        };
        let chunks = self.chunks_where(&entry, doc! {}).await?;
        for Place { min, max, shard } in places_like(&chunks, PLACES_MAX) {
            // Whoever was here before may have died in the middle of it.
            self.put_range(&namespace, &min, &max, &shard).await?;
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
    async fn put_range(
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

    async fn chunks_where(&self, entry: &Document, condition: Document) -> Result<Vec<Document>> {
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
    async fn admin(&self, command: Document, action: &str) -> Result<Document> {
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

/// A range and the shard that it is to be on.
#[derive(Debug, PartialEq)]
struct Place {
    min: Document,
    max: Document,
    shard: String,
}

/// Where ranges have to be for a collection to be spread as one with these chunks is, in at most `most`
/// ranges.
///
/// Neighbours on one shard make one range. If that still leaves too many, each range has the place of several
/// chunks, and shards take turns so that each has its part of them.
fn places_like(chunks: &[Document], most: usize) -> Vec<Place> {
    let mut places: Vec<(Place, i64)> = Vec::new();
    for chunk in chunks {
        let bound = |name: &str| chunk.get_document(name).cloned().unwrap_or_default();
        let shard = chunk.get_str("shard").unwrap_or_default().to_owned();
        match places.last_mut() {
            Some((last, count)) if last.shard == shard => {
                last.max = bound("max");
                *count += 1;
            }
            _ => places.push((Place { min: bound("min"), max: bound("max"), shard }, 1)),
        }
    }
    if places.len() <= most {
        return places.into_iter().map(|(place, _)| place).collect();
    }
    // How far each shard is behind its part of the chunks so far.
    let mut behind: BTreeMap<String, i64> = BTreeMap::new();
    let per_range = places.len().div_ceil(most.max(1));
    let mut groups = Vec::new();
    for group in places.chunks(per_range) {
        for (place, count) in group {
            *behind.entry(place.shard.clone()).or_default() += count;
        }
        let (Some((first, _)), Some((last, _))) = (group.first(), group.last()) else { continue };
        let Some((shard, owed)) = behind.iter_mut().max_by_key(|(_, owed)| **owed) else {
            continue;
        };
        let held: i64 = group.iter().map(|(_, count)| count).sum();
        *owed -= held;
        groups.push(Place { min: first.min.clone(), max: last.max.clone(), shard: shard.clone() });
    }
    groups
}

fn zone_of(shard: &str) -> String {
    format!("aviary-{shard}")
}

fn needs_manager(error: Error) -> Error {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// So many chunks of `{_id: 1}`, on shards as `shard` says.
    fn chunks(count: i32, shard: impl Fn(i32) -> &'static str) -> Vec<Document> {
        let at = |n: i32| match n {
            0 => Bson::MinKey,
            n if n == count => Bson::MaxKey,
            n => Bson::Int32(n),
        };
        let chunk =
            |n| doc! { "min": { "_id": at(n) }, "max": { "_id": at(n + 1) }, "shard": shard(n) };
        (0..count).map(chunk).collect()
    }

    fn on(places: &[Place], shard: &str) -> usize {
        places.iter().filter(|place| place.shard == shard).count()
    }

    #[test]
    fn a_copy_is_spread_over_all_of_the_key_as_its_model_is() {
        let few = places_like(&chunks(100, |n| if n < 70 { "a" } else { "b" }), 64);
        let range = |min: Bson, max: Bson, shard: &str| Place {
            min: doc! { "_id": min },
            max: doc! { "_id": max },
            shard: shard.into(),
        };
        let expected =
            [range(Bson::MinKey, Bson::Int32(70), "a"), range(Bson::Int32(70), Bson::MaxKey, "b")];
        assert_eq!(few, expected);

        let many = places_like(&chunks(6_400, |n| if n % 4 == 0 { "a" } else { "b" }), 64);
        assert!(many.len() <= 64 && many.len() > 32, "{}", many.len());
        assert_eq!(many[0].min, doc! { "_id": Bson::MinKey });
        assert_eq!(many[many.len() - 1].max, doc! { "_id": Bson::MaxKey });
        assert!(many.windows(2).all(|two| two[0].max == two[1].min));
        let a = on(&many, "a") * 4;
        assert!(a.abs_diff(many.len()) <= 8, "a quarter is on a: {a} of {}", many.len());
    }
}
