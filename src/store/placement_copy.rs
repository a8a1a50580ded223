//! A collection sharded as another one is, before anything is written to it.

use std::collections::BTreeMap;

use bson::{Document, doc};

use super::Store;
use super::zones::needs_manager;
use crate::error::Result;

impl Store {
    /// Shards a collection that is still empty by `key`, one of `{_id: 1}` and `{_id: "hashed"}`, and
    /// spreads it over the shards as `model` in the same database is.
    ///
    /// # Errors
    /// [`Error::Refused`](crate::error::Error::Refused) naming the missing privilege, [`Error::Store`](crate::error::Error::Store).
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

#[cfg(test)]
mod tests {
    use bson::Bson;

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
