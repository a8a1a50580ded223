//! Which shard owned which chunk of a collection, at a time.

use bson::{Bson, Document, Timestamp, doc};
use futures_util::TryStreamExt;

use super::{chunks_of, config, needs_config};
use crate::error::{Error, Result};
use crate::store::Store;
use crate::store::error::Action;
use crate::value::{RawValBuf, key};

/// A range of a sharded collection and who owned it.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// The first shard key, included.
    pub min: Document,
    /// The first shard key beyond.
    pub max: Document,
    /// The shard that owned it at the time asked for.
    pub shard: String,
}

/// Where an input's documents were at some time.
#[derive(Debug, Clone, PartialEq)]
pub enum Placement {
    /// All on one shard: on a replica set, or in a collection that is not sharded.
    One(String),
    /// In chunks, in the order of their ranges.
    Chunks {
        /// The shard key's pattern.
        key: Document,
        /// The index that the ranges are read by.
        index: Box<ShardKeyIndex>,
        /// All of them.
        chunks: Vec<Chunk>,
    },
}

/// An index along a shard key. It compares text byte by byte, as the chunks' bounds do.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardKeyIndex {
    /// Its fields: those of the shard key, perhaps followed by others.
    pub keys: Document,
    /// Its name: an index with a collation may have the same fields.
    pub name: String,
    /// Whether the collection has a collation, by which queries compare text otherwise than this index.
    pub collated: bool,
}

impl Store {
    /// Where a collection's documents were at `time` (now, without one).
    ///
    /// `None` means that the cluster does not tell who owned each range then: chunks were merged since, or
    /// changed while they were listed. A later time is needed.
    ///
    /// # Errors
    /// [`Error::Refused`] when no index can be read along the shard key, [`Error::Store`].
    pub async fn placement(
        &self,
        db: &str,
        collection: &str,
        time: Option<Timestamp>,
    ) -> Result<Option<Placement>> {
        if !self.is_sharded() {
            return Ok(Some(Placement::One(self.home().to_owned())));
        }
        let namespace = format!("{db}.{collection}");
        let Some(entry) = self.tracked_collection(&namespace).await? else {
            return Ok(Some(Placement::One(self.primary_shard(db).await?)));
        };
        let Some(chunks) = self.chunks(&entry, time).await? else { return Ok(None) };
        if let Some(shard) = sole_owner(&entry, &chunks) {
            return Ok(Some(Placement::One(shard)));
        }
        let pattern = entry.get_document("key").cloned().unwrap_or_default();
        let index = Box::new(self.index_along(db, collection, &pattern).await?);
        Ok(Some(Placement::Chunks { key: pattern, index, chunks }))
    }

    /// The chunks of a collection with their owners at `time`.
    async fn chunks(
        &self,
        entry: &Document,
        time: Option<Timestamp>,
    ) -> Result<Option<Vec<Chunk>>> {
        let mut rows = config(self.client(), "chunks")
            .find(chunks_of(entry))
            .sort(doc! { "min": 1 })
            .await
            .action("read the chunks")
            .map_err(needs_config)?;
        let mut chunks = Vec::new();
        while let Some(row) = rows.try_next().await.action("read the chunks")? {
            let bound = |name: &str| row.get_document(name).cloned().unwrap_or_default();
            let Some(shard) = owner_at(&row, time) else { return Ok(None) };
            chunks.push(Chunk { min: bound("min"), max: bound("max"), shard });
        }
        Ok(cover_every_key(&chunks).then_some(chunks))
    }

    /// An index whose fields begin with the shard key's: ranges of the one are ranges of the other.
    async fn index_along(
        &self,
        db: &str,
        collection: &str,
        pattern: &Document,
    ) -> Result<ShardKeyIndex> {
        let indexes: Vec<Document> = self
            .other_db(db)
            .run_cursor_command(doc! { "listIndexes": collection })
            .await
            .action("list the input's indexes")
            .map_err(|e| self.explain(e))?
            .try_collect()
            .await
            .action("list the input's indexes")?;
        let begins = |keys: &Document| {
            keys.len() >= pattern.len()
                && keys.iter().zip(pattern).all(|(a, b)| a.0 == b.0 && same(a.1, b.1))
        };
        let is_by_id = |index: &&Document| index.get_str("name").is_ok_and(|name| name == "_id_");
        let collated =
            indexes.iter().find(is_by_id).is_some_and(|index| index.contains_key("collation"));
        indexes
            .into_iter()
            // An index that leaves documents out cannot be read instead of the collection, and one with a
            // collation is in another order than chunks are.
            .filter(|index| {
                !index.get_bool("sparse").unwrap_or(false)
                    && !index.contains_key("partialFilterExpression")
                    && !index.get_bool("hidden").unwrap_or(false)
                    && !index.contains_key("collation")
            })
            .filter_map(|index| {
                let keys = index.get_document("key").ok()?.clone();
                Some(ShardKeyIndex { keys, name: index.get_str("name").ok()?.to_owned(), collated })
            })
            .filter(|index| begins(&index.keys))
            .min_by_key(|index| index.keys.len())
            .ok_or_else(|| {
                Error::refused(
                    format!("no index of {db}.{collection} begins with its shard key {pattern}"),
                    "create one: a cluster needs it too",
                )
            })
    }
}

/// Whether a cluster keeps a book of a collection that is not sharded. What its description says of a key and of chunks
/// is for the cluster itself.
pub(super) fn is_in_one_piece(entry: &Document) -> bool {
    entry.get_bool("unsplittable").unwrap_or(false)
}

/// The shard that had all of a collection that is not sharded.
fn sole_owner(entry: &Document, chunks: &[Chunk]) -> Option<String> {
    match chunks {
        [all] if is_in_one_piece(entry) => Some(all.shard.clone()),
        _ => None,
    }
}

/// Who owned a chunk at `time`, from its history, newest first.
fn owner_at(chunk: &Document, time: Option<Timestamp>) -> Option<String> {
    let now = chunk.get_str("shard").ok().map(str::to_owned);
    let (Some(time), Ok(history)) = (time, chunk.get_array("history")) else { return now };
    if history.is_empty() {
        return now;
    }
    history.iter().filter_map(Bson::as_document).find_map(|entry| {
        let since = entry.get_timestamp("validAfter").ok()?;
        let shard = entry.get_str("shard").ok()?;
        ((since.time, since.increment) <= (time.time, time.increment)).then(|| shard.to_owned())
    })
}

/// Whether each chunk begins where the one before it ends, and all of them together hold every key.
///
/// A list that is long comes in several replies. What is split or merged between two of them is in both or in
/// neither, and a collection that is dropped has no chunks.
fn cover_every_key(chunks: &[Chunk]) -> bool {
    let all = |bound: &Document, end: &Bson| bound.values().all(|value| value == end);
    let begins = chunks.first().is_some_and(|chunk| all(&chunk.min, &Bson::MinKey));
    let ends = chunks.last().is_some_and(|chunk| all(&chunk.max, &Bson::MaxKey));
    let mut neighbours = chunks.iter().zip(chunks.iter().skip(1));
    begins && ends && neighbours.all(|(one, next)| is_one_key(&one.max, &next.min))
}

/// Whether two bounds are one to the server, for which `1` and `1.0` are equal, and NaN is too.
fn is_one_key(a: &Document, b: &Document) -> bool {
    let encoded = |bound: &Document| {
        let raw = RawValBuf::from_bson(&Bson::Document(bound.clone())).ok()?;
        let mut out = Vec::new();
        key::encode(raw.as_raw(), &mut out).ok()?;
        Some(out)
    };
    let one = encoded(a);
    a == b || one.is_some() && one == encoded(b)
}

fn same(a: &Bson, b: &Bson) -> bool {
    let number = |value: &Bson| match value {
        Bson::Int32(n) => Some(f64::from(*n)),
        Bson::Double(n) => Some(*n),
        #[expect(clippy::cast_precision_loss, reason = "a direction is 1 or -1")]
        Bson::Int64(n) => Some(*n as f64),
        _ => None,
    };
    a == b || number(a).is_some() && number(a) == number(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: u32) -> Option<Timestamp> {
        Some(Timestamp { time, increment: 1 })
    }

    /// Chunks of `{k: 1}` from each bound to the other.
    fn chunks(bounds: &[(Bson, Bson)]) -> Vec<Chunk> {
        let chunk = |(min, max): &(Bson, Bson)| Chunk {
            min: doc! { "k": min },
            max: doc! { "k": max },
            shard: "a".into(),
        };
        bounds.iter().map(chunk).collect()
    }

    #[test]
    fn a_list_of_chunks_that_changed_while_it_was_read_is_noticed() {
        use Bson::{Double, Int32, Int64, MaxKey, MinKey};
        let covers = |bounds: &[(Bson, Bson)]| cover_every_key(&chunks(bounds));
        assert!(covers(&[(MinKey, MaxKey)]));
        assert!(covers(&[(MinKey, Int32(1)), (Double(1.0), Int64(5)), (Int64(5), MaxKey)]));
        assert!(covers(&[(MinKey, Double(f64::NAN)), (Double(f64::NAN), MaxKey)]));
        // Dropped; split after its lower part was listed; merged before its upper part was.
        assert!(!covers(&[]));
        assert!(!covers(&[(MinKey, Int32(5)), (Int32(3), Int32(5)), (Int32(5), MaxKey)]));
        assert!(!covers(&[(MinKey, Int32(3)), (Int32(5), MaxKey)]));
        assert!(!covers(&[(MinKey, Int32(3))]));
        assert!(!covers(&[(Int32(3), MaxKey)]));
    }

    #[test]
    fn a_collection_on_a_shard_of_its_own_is_not_sharded() {
        use Bson::{Int32, MaxKey, MinKey};
        // Whatever its collation is: nothing is read by that key.
        let entry = doc! {
            "_id": "d.c", "key": { "_id": 1 }, "unsplittable": true, "unique": false,
            "defaultCollation": { "locale": "fr" },
        };
        let all = chunks(&[(MinKey, MaxKey)]);
        assert_eq!(sole_owner(&entry, &all).as_deref(), Some("a"));
        for sharded in [doc! { "key": { "_id": 1 } }, doc! { "unsplittable": false }] {
            assert_eq!(sole_owner(&sharded, &all), None);
        }
        let two = chunks(&[(MinKey, Int32(1)), (Int32(1), MaxKey)]);
        assert_eq!(sole_owner(&entry, &two), None);
    }

    /// Servers merge by themselves what is older than their history, and keep the time of the youngest part.
    #[test]
    fn a_chunk_that_was_merged_is_known_since_its_youngest_part() {
        let since = |time| Bson::Timestamp(Timestamp { time, increment: 1 });
        let youngest = doc! { "validAfter": since(20), "shard": "a" };
        let chunk = doc! { "shard": "a", "onCurrentShardSince": since(20), "history": [youngest] };
        assert_eq!(owner_at(&chunk, at(21)).as_deref(), Some("a"));
        assert_eq!(owner_at(&chunk, at(19)), None);
    }

    #[test]
    fn the_owner_at_a_time_is_the_newest_that_is_not_later() {
        let since = |time| Bson::Timestamp(Timestamp { time, increment: 1 });
        let chunk = doc! { "shard": "c", "history": [
            { "validAfter": since(30), "shard": "c" },
            { "validAfter": since(20), "shard": "b" },
            { "validAfter": since(10), "shard": "a" },
        ] };
        let owner = |time| owner_at(&chunk, time);
        assert_eq!(owner(None).as_deref(), Some("c"));
        assert_eq!(owner(at(31)).as_deref(), Some("c"));
        assert_eq!(owner(at(30)).as_deref(), Some("c"));
        assert_eq!(owner(at(29)).as_deref(), Some("b"));
        assert_eq!(owner(at(10)).as_deref(), Some("a"));
        assert_eq!(owner(at(9)), None);
    }
}
