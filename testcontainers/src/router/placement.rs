//! Where the data of a database and of a collection are, as the config servers last said.

use std::collections::BTreeMap;
use std::sync::Arc;

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, Document, Timestamp, doc};

use super::failure::{Code, Failure, Result};
use super::order::{compare_keys, hash};

/// A database's first shard, which holds its unsharded collections.
#[derive(Debug, Clone)]
pub(super) struct Database {
    pub(super) primary: String,
    pub(super) version: Document,
}

/// One range of a sharded collection, `min` included, `max` not.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    pub(super) min: Document,
    pub(super) max: Document,
    pub(super) shard: String,
    lastmod: Timestamp,
}

/// A sharded collection.
#[derive(Debug, Clone)]
pub(super) struct Sharded {
    pub(super) key: Document,
    pub(super) epoch: ObjectId,
    pub(super) timestamp: Timestamp,
    /// In the order of the key.
    pub(super) chunks: Vec<Chunk>,
}

/// Where a collection is.
#[derive(Debug, Clone)]
pub(super) enum Placement {
    Unsharded,
    Sharded(Arc<Sharded>),
}

impl Database {
    pub(super) fn parse(found: &Document) -> Option<Self> {
        Some(Self {
            primary: found.get_str("primary").ok()?.to_owned(),
            version: found.get_document("version").ok()?.clone(),
        })
    }
}

impl Sharded {
    /// From the documents of `config.collections` and `config.chunks`.
    pub(super) fn parse(collection: &Document, chunks: &[Document]) -> Option<Self> {
        let mut chunks: Vec<Chunk> = chunks.iter().map(Chunk::parse).collect::<Option<_>>()?;
        chunks.sort_by(|left, right| compare_keys(&left.min, &right.min));
        Some(Self {
            key: collection.get_document("key").ok()?.clone(),
            epoch: collection.get_object_id("lastmodEpoch").ok()?,
            timestamp: collection.get_timestamp("timestamp").ok()?,
            chunks,
        })
    }

    /// The shards that own at least one chunk, each with the version it should be at.
    pub(super) fn owners(&self) -> BTreeMap<&str, Document> {
        let mut newest: BTreeMap<&str, Timestamp> = BTreeMap::new();
        for chunk in &self.chunks {
            let version = newest.entry(&chunk.shard).or_insert(chunk.lastmod);
            *version = chunk.lastmod.max(*version);
        }
        let version = |(shard, newest)| {
            (shard, doc! { "e": self.epoch, "t": self.timestamp, "v": Bson::Timestamp(newest) })
        };
        newest.into_iter().map(version).collect()
    }

    /// The chunk a shard key belongs to.
    pub(super) fn chunk_of(&self, key: &Document) -> Result<&Chunk> {
        let after = self.chunks.partition_point(|chunk| compare_keys(&chunk.min, key).is_le());
        after.checked_sub(1).and_then(|index| self.chunks.get(index)).ok_or_else(|| {
            Failure::command(Code::BadValue, format!("no chunk holds the shard key {key}"))
        })
    }

    /// The shard key that `filter` fixes by equality; hashed fields are hashed.
    pub(super) fn key_of(&self, filter: &Document) -> Result<Option<Document>> {
        let mut key = Document::new();
        for (field, kind) in &self.key {
            let Some(value) = equality(filter, field) else {
                return Ok(None);
            };
            let value =
                if kind.as_str() == Some("hashed") { Bson::Int64(hash(&value)?) } else { value };
            key.insert(field, value);
        }
        Ok(Some(key))
    }
}

impl Chunk {
    fn parse(found: &Document) -> Option<Self> {
        Some(Self {
            min: found.get_document("min").ok()?.clone(),
            max: found.get_document("max").ok()?.clone(),
            shard: found.get_str("shard").ok()?.to_owned(),
            lastmod: found.get_timestamp("lastmod").ok()?,
        })
    }
}

/// The version an unsharded collection is asked for with.
pub(super) fn unsharded_version() -> Document {
    let zero = Bson::Timestamp(Timestamp { time: 0, increment: 0 });
    doc! { "e": ObjectId::from_bytes([0; 12]), "t": zero.clone(), "v": zero }
}

/// The value that `filter` demands of `field`, when it demands exactly one.
fn equality(filter: &Document, field: &str) -> Option<Bson> {
    if let Some(value) = filter.get(field) {
        return match value {
            Bson::Document(operators)
                if operators.keys().next().is_some_and(|key| key.starts_with('$')) =>
            {
                operators.get("$eq").cloned()
            }
            Bson::RegularExpression(_) | Bson::Array(_) => None,
            value => Some(value.clone()),
        };
    }
    // A field of a document that is given as a whole.
    if let Some((outer, inner)) = field.split_once('.')
        && let Some(Bson::Document(whole)) = filter.get(outer)
        && let Some(value) = equality(whole, inner)
    {
        return Some(value);
    }
    let parts = filter.get_array("$and").ok()?;
    parts.iter().filter_map(Bson::as_document).find_map(|part| equality(part, field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equality_is_found_wherever_it_stands() {
        let five = Some(Bson::Int32(5));
        assert_eq!(equality(&doc! { "k": 5 }, "k"), five);
        assert_eq!(equality(&doc! { "k": { "$eq": 5 } }, "k"), five);
        assert_eq!(equality(&doc! { "$and": [{ "a": 1 }, { "k": 5 }] }, "k"), five);
        assert_eq!(equality(&doc! { "a.b": 5 }, "a.b"), five);
        assert_eq!(equality(&doc! { "a": { "b": 5 } }, "a.b"), five);
        assert_eq!(equality(&doc! { "k": { "$gt": 5 } }, "k"), None);
        assert_eq!(equality(&doc! { "$or": [{ "k": 5 }] }, "k"), None);
    }
}
