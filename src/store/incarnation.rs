//! Which collection bears a name, and since when it has been where the cluster says.
//!
//! A snapshot is read by name, on the shards that the cluster's description of today leads to. Before that description
//! was true there was another collection, or none there, and since MongoDB 7.0 a server that is asked for such a time
//! answers with what it had then, which may be nothing, and without an error. So a time counts only if the description
//! was the same before the time was fixed and after the chunks were read, and is not younger than the time. The chunks'
//! own history does not tell: those of a collection that was resharded or moved begin before it was.

use bson::{Bson, Document, Timestamp, doc};

use super::Store;
use super::error::Action;
use super::topology::{config, needs_config};
use crate::error::Result;

/// A collection as it is now: where one of these differs, another collection bears the name, or it is somewhere else.
#[derive(Debug, Clone, PartialEq)]
pub struct Incarnation {
    /// The collection's identity; `None` without the collection, or without the privilege to ask.
    pub uuid: Option<Bson>,
    /// Since when it has been where the cluster says; `None` on a replica set, where it is nowhere else.
    since: Option<Timestamp>,
    /// Where its database is, if that is where the collection is: the shard and how often it was moved.
    pub database: Option<Document>,
}

impl Incarnation {
    /// Whether what the cluster says of the collection was true at `time`.
    pub fn was_there_at(&self, time: Timestamp) -> bool {
        let of = |time: Timestamp| (time.time, time.increment);
        self.since.is_none_or(|since| of(since) <= of(time))
    }
}

impl Store {
    /// Which collection bears a name now.
    ///
    /// # Errors
    /// [`Error::Refused`](crate::error::Error::Refused) without the privilege to read the cluster's configuration,
    /// [`Error::Store`](crate::error::Error::Store).
    pub async fn incarnation(&self, db: &str, collection: &str) -> Result<Incarnation> {
        if !self.is_sharded() {
            let uuid = self.identity(db, collection).await?;
            return Ok(Incarnation { uuid, since: None, database: None });
        }
        if let Some(entry) = self.tracked_collection(&format!("{db}.{collection}")).await? {
            return Ok(tracked(&entry));
        }
        // It moves with its database, and may keep its identity.
        let database = self.database_place(db).await?;
        let uuid = self.identity(db, collection).await?;
        let version = database.as_ref().and_then(|place| place.get_document("version").ok());
        let since = version.and_then(|version| version.get_timestamp("timestamp").ok());
        Ok(Incarnation { uuid, since, database })
    }

    /// Where the collections of a database are that the cluster keeps no book of: the shard, and the version, which
    /// counts its moves.
    ///
    /// # Errors
    /// As [`incarnation`](Self::incarnation).
    pub async fn database_place(&self, db: &str) -> Result<Option<Document>> {
        let found = config(self.client(), "databases")
            .find_one(doc! { "_id": db })
            .await
            .action(format!("learn where the database {db} is"))
            .map_err(needs_config)?;
        Ok(found.map(|entry| {
            let of = |field: &str| entry.get(field).cloned().unwrap_or(Bson::Null);
            doc! { "primary": of("primary"), "version": of("version") }
        }))
    }
}

/// By the cluster's description of a collection.
fn tracked(entry: &Document) -> Incarnation {
    Incarnation {
        uuid: entry.get("uuid").cloned(),
        since: entry.get_timestamp("timestamp").ok(),
        database: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_before_the_description_does_not_count() {
        let at = |time, increment| Timestamp { time, increment };
        let entry = doc! { "_id": "d.c", "uuid": "u", "timestamp": at(20, 2) };
        let now = tracked(&entry);
        assert!(now.was_there_at(at(20, 2)) && now.was_there_at(at(21, 0)));
        assert!(!now.was_there_at(at(20, 1)) && !now.was_there_at(at(19, 9)));
        // Before MongoDB 5.0's metadata there is none.
        assert!(tracked(&doc! { "_id": "d.c" }).was_there_at(at(1, 1)));
        let moved = doc! { "_id": "d.c", "uuid": "u", "timestamp": at(20, 3) };
        assert_ne!(tracked(&moved), now, "it was moved, and back");
    }
}
