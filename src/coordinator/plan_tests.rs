use bson::doc;
use proptest::prelude::*;

use super::*;
use crate::store::topology::ShardKeyIndex;

fn one() -> Placement {
    Placement::One("rs".into())
}

fn along(keys: Document) -> Box<ShardKeyIndex> {
    Box::new(ShardKeyIndex { keys, name: "along".into(), collated: false })
}

fn ids(ids: impl IntoIterator<Item = Bson>) -> Vec<Vec<Bson>> {
    ids.into_iter().map(|id| vec![id]).collect()
}

/// What a server samples: in order.
fn sampled(mut ids: Vec<i32>) -> Vec<Vec<Bson>> {
    ids.sort_unstable();
    self::ids(ids.into_iter().map(Bson::Int32))
}

/// Chunks between these bounds of `{k: 1}`, on shards in turn.
fn chunks(bounds: &[i32], shards: &[&str]) -> Placement {
    let mut ends = vec![doc! { "k": Bson::MinKey }];
    ends.extend(bounds.iter().map(|bound| doc! { "k": *bound }));
    ends.push(doc! { "k": Bson::MaxKey });
    let chunks = ends.windows(2).zip(shards.iter().cycle()).map(|(ends, shard)| Chunk {
        min: ends[0].clone(),
        max: ends[1].clone(),
        shard: (*shard).to_owned(),
    });
    Placement::Chunks {
        key: doc! { "k": 1 },
        index: along(doc! { "k": 1 }),
        chunks: chunks.collect(),
    }
}

/// How many of the pieces a key is in, and on which shard.
fn owners(pieces: &[Piece], key: i32) -> Vec<&str> {
    let at = |bound: &Option<Document>| {
        bound.as_ref().map(|bound| bound.values().next().unwrap().as_i32().unwrap())
    };
    let holds = |range: &Range| {
        at(&range.min).is_none_or(|min| min <= key) && at(&range.max).is_none_or(|max| key < max)
    };
    let mut owners = Vec::new();
    for piece in pieces {
        if piece.split.ranges.is_empty() {
            owners.push(piece.shard.as_str());
        }
        owners.extend(
            piece.split.ranges.iter().filter(|range| holds(range)).map(|_| piece.shard.as_str()),
        );
    }
    owners
}

proptest! {
    #[test]
    fn splits_cover_everything_once(found in prop::collection::vec(-50..50_i32, 0..200), n in 1_u32..50) {
        let pieces = cut(&one(), sampled(found), n);
        prop_assert!(pieces.len() <= n as usize + 1);
        for key in -60..60 {
            prop_assert_eq!(owners(&pieces, key), ["rs"]);
        }
    }

    #[test]
    fn every_key_is_read_once_and_where_it_was(
        mut bounds in prop::collection::btree_set(-50..50_i32, 0..30),
        found in prop::collection::vec(-50..50_i32, 0..200),
        n in 1_u32..20,
        shards in 1_usize..4,
    ) {
        let bounds: Vec<i32> = std::mem::take(&mut bounds).into_iter().collect();
        let names = &["a", "b", "c"][..shards];
        let placement = chunks(&bounds, names);
        let pieces = cut(&placement, sampled(found), n);
        for key in -60..60 {
            let chunk = bounds.partition_point(|bound| *bound <= key);
            prop_assert_eq!(owners(&pieces, key), [names[chunk % shards]]);
        }
    }
}

#[test]
fn few_large_splits_are_made_smaller_for_balance_but_not_tiny() {
    let spec = crate::job::validate::tests::spec();
    let size = |bytes| InputSize { documents: 1_000_000, bytes };
    let count = |bytes, slots| split_count(&spec, size(bytes), 48 << 20, slots);
    assert_eq!(count(120 << 20, 2), 8);
    assert_eq!(count(120 << 20, 0), 3);
    assert_eq!(count(24 << 20, 2), 3);
    assert_eq!(count(4 << 20, 2), 1);
    assert_eq!(count(0, 2), 1);
    assert_eq!(count(4_800 << 20, 2), 100);
}

#[test]
fn equal_samples_make_no_empty_split() {
    let pieces = cut(&one(), ids([Bson::Int32(1), Bson::Double(1.0), Bson::Int64(1)]), 4);
    assert_eq!(pieces.len(), 2);
    let nan = cut(&one(), ids([Bson::Double(f64::NAN), Bson::Double(f64::NAN)]), 3);
    assert_eq!(nan.len(), 2);
}

#[test]
fn no_sample_means_one_split() {
    let whole = vec![Piece { shard: "rs".into(), split: Split::default() }];
    assert_eq!(cut(&one(), Vec::new(), 7), whole);
}

#[test]
fn small_chunks_of_a_shard_are_read_together_and_large_ones_in_parts() {
    let bounds: Vec<i32> = (1..100).collect();
    let pieces =
        cut(&chunks(&bounds, &["a", "b"]), ids((0..1_000).map(|n| Bson::Int32(n / 10))), 4);
    assert_eq!(pieces.len(), 4);
    assert!(pieces.iter().all(|piece| piece.split.ranges.len() >= 20));
    let shards: Vec<&str> = pieces.iter().map(|piece| piece.shard.as_str()).collect();
    assert_eq!(shards, ["a", "b", "a", "b"]);

    let large = cut(&chunks(&[0], &["a", "b"]), ids((0..1_000).map(Bson::Int32)), 4);
    assert_eq!(large.iter().filter(|piece| piece.shard == "b").count(), 4);
}

#[test]
fn hashes_are_cut_without_a_sample_and_bounds_have_every_field_of_the_index() {
    let placement = Placement::Chunks {
        key: doc! { "h": "hashed" },
        index: along(doc! { "h": "hashed", "x": 1 }),
        chunks: vec![
            Chunk { min: doc! { "h": Bson::MinKey }, max: doc! { "h": 0_i64 }, shard: "a".into() },
            Chunk { min: doc! { "h": 0_i64 }, max: doc! { "h": Bson::MaxKey }, shard: "b".into() },
        ],
    };
    assert!(sampled_fields(&placement).is_empty());
    let pieces = cut(&placement, Vec::new(), 8);
    assert_eq!(pieces.len(), 8);
    let bounds = pieces.iter().flat_map(|piece| &piece.split.ranges).flat_map(|r| [&r.min, &r.max]);
    for bound in bounds.flatten() {
        assert!(bound.get_i64("h").is_ok() && bound.get("x") == Some(&Bson::MinKey), "{bound}");
    }
}

#[test]
fn bounds_are_before_all_that_begins_with_them_in_fields_that_go_down_too() {
    let placement = Placement::Chunks {
        key: doc! { "k": 1 },
        index: along(doc! { "k": 1, "down": -1, "up": 1.0 }),
        chunks: vec![
            Chunk { min: doc! { "k": Bson::MinKey }, max: doc! { "k": 0 }, shard: "a".into() },
            Chunk { min: doc! { "k": 0 }, max: doc! { "k": Bson::MaxKey }, shard: "b".into() },
        ],
    };
    let pieces = cut(&placement, Vec::new(), 1);
    let bound = doc! { "k": 0, "down": Bson::MaxKey, "up": Bson::MinKey };
    assert_eq!(pieces[0].split.ranges, [Range { min: None, max: Some(bound.clone()) }]);
    assert_eq!(pieces[1].split.ranges, [Range { min: Some(bound), max: None }]);
}

#[test]
fn text_in_bounds_and_a_query_need_one_collation() {
    let text = |at: Bson, collated| {
        let chunk = |min: Bson, max: Bson| Chunk {
            min: doc! { "k": min },
            max: doc! { "k": max },
            shard: "a".into(),
        };
        let chunks = vec![chunk(Bson::MinKey, at.clone()), chunk(at, Bson::MaxKey)];
        let chunks = chunks.into_iter().zip(["a", "b"]);
        let chunks = chunks.map(|(chunk, shard)| Chunk { shard: shard.into(), ..chunk });
        let index = Box::new(ShardKeyIndex { collated, ..*along(doc! { "k": 1 }) });
        Placement::Chunks { key: doc! { "k": 1 }, index, chunks: chunks.collect() }
    };
    let all = crate::job::validate::tests::spec().input;
    let some = Input { query: doc! { "name": "x" }, ..all.clone() };
    let torn = |placement: &Placement, input| is_torn(placement, &cut(placement, vec![], 1), input);
    assert!(torn(&text("m".into(), true), &some));
    assert!(!torn(&text("m".into(), true), &all));
    assert!(!torn(&text("m".into(), false), &some));
    assert!(!torn(&text(Bson::Int32(5), true), &some));
}

#[test]
fn partitions_go_where_the_slots_are() {
    let slots = BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), 1)]);
    let on = reduce_on(6, &slots);
    assert_eq!(on.iter().filter(|shard| *shard == "a").count(), 4);
    assert_eq!(on.iter().filter(|shard| *shard == "b").count(), 2);
    assert!(reduce_on(3, &BTreeMap::new()).is_empty());
}
