//! From an input's size, its chunks and a sample of its keys to splits. Pure.

use std::collections::BTreeMap;

use bson::{Bson, Document};

use crate::config;
use crate::job::{Input, Job, JobSpec, ReadMode};
use crate::store::input::InputSize;
use crate::store::natural::NaturalCuts;
use crate::store::topology::{Chunk, Placement};
use crate::task::{Range, Split, goes_down};
use crate::value::{RawValBuf, key};

/// What one map task reads, and on which shard.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// The shard that owned all of it at the job's snapshot.
    pub shard: String,
    /// What to read.
    pub split: Split,
}

/// How many splits of about `split_bytes` an input of this size is cut into; more, and smaller
/// ones, when there would be too few for `slots` workers' slots to end at about the same time.
///
/// A job with a sort or a limit reads one split: only one reader can know which documents come
/// first.
pub fn split_count(spec: &JobSpec, size: InputSize, split_bytes: u64, slots: u32) -> u32 {
    if spec.input.has_one_reader() {
        return 1;
    }
    let by_size = size.bytes.div_ceil(split_bytes.max(1));
    let balanced = u64::from(slots) * config::SPLITS_PER_SLOT;
    let wanted = by_size.max(balanced.min(size.bytes / config::SPLIT_BYTES_MIN)).max(1);
    let most = size.documents.clamp(1, u64::from(config::SPLITS_MAX));
    u32::try_from(wanted.min(most)).unwrap_or(config::SPLITS_MAX)
}

/// How many keys to sample for that many splits; none for one.
pub fn sample_count(splits: u32) -> u64 {
    if splits <= 1 {
        return 0;
    }
    (u64::from(splits) * config::SAMPLES_PER_SPLIT).min(config::SAMPLES_MAX)
}

/// The fields whose values are to be sampled so that an input can be cut: those of the key that its
/// ranges go by, up to the first that is hashed, whose values are spread evenly anyway.
pub fn sampled_fields(placement: &Placement) -> Vec<String> {
    pattern(placement)
        .into_iter()
        .take_while(|(_, direction)| direction.as_str().is_none())
        .map(|(field, _)| field)
        .collect()
}

/// Cuts an input into about `count` pieces of about the same size, each of documents that one shard
/// owned. Adjacent ranges share their bound and the outer bounds are open, so every document is in
/// exactly one piece, sampled or not.
///
/// `samples` are rows of values of [`sampled_fields`], in the server's own order of them: that of an
/// `_id` depends on the collection's collation, that of a shard key never does.
pub fn cut(placement: &Placement, samples: Vec<Vec<Bson>>, count: u32) -> Vec<Piece> {
    let pattern = pattern(placement);
    let mut candidates = candidates(&pattern, samples, count);
    if matches!(placement, Placement::Chunks { .. }) {
        candidates.sort_by(|a, b| a.encoded.cmp(&b.encoded));
    }
    let (chunks, by, index) = match placement {
        Placement::One(shard) => (
            vec![Chunk { min: Document::new(), max: Document::new(), shard: shard.clone() }],
            pattern,
            None,
        ),
        Placement::Chunks { chunks, index, .. } => {
            (chunks.clone(), index.keys.clone(), Some(index.name.clone()))
        }
    };
    let per_piece = candidates.len() as f64 / f64::from(count.max(1));
    let mut groups = Groups { by, index, per_piece, open: BTreeMap::new(), done: Vec::new() };
    let mut rest = candidates.as_slice();
    for chunk in &chunks {
        let max = open(&chunk.max, &Bson::MaxKey);
        let inside = match max.as_ref().and_then(encoded) {
            Some(end) => rest.partition_point(|candidate| candidate.encoded < end),
            None => rest.len(),
        };
        let (these, others) = rest.split_at_checked(inside).unwrap_or((rest, &[]));
        rest = others;
        let ranges = cut_chunk(open(&chunk.min, &Bson::MinKey), max, these, per_piece);
        let weight = these.len() as f64 / ranges.len().max(1) as f64;
        for range in ranges {
            groups.add(&chunk.shard, range, weight);
        }
    }
    groups.finish()
}

/// Whether one task does the whole job: it reduces what it maps, without a barrier between, and writes the results.
///
/// Not without a snapshot, under which alone a task that is tried again writes the same results.
pub fn fits_one_task(
    spec: &JobSpec,
    partitions: u32,
    pieces: usize,
    size: InputSize,
    bytes_max: u64,
) -> bool {
    spec.reduce.is_some()
        && spec.input.read == ReadMode::Snapshot
        && !spec.keep_intermediates
        && (partitions, pieces) == (1, 1)
        && size.bytes < bytes_max
}

/// Whether an input that is in one place may be read in the order in which one member keeps it.
///
/// If that member goes away, everything is mapped again, so not where that would take very long; and not where map
/// tasks write results themselves, since those of a plan that was lost would stay. Nor where splits are small: each costs
/// the server two cursors.
pub fn may_be_natural(
    job: &Job,
    partitions: u32,
    size: InputSize,
    splits: u32,
    split_bytes_min: u64,
) -> bool {
    job.spec.input.read == ReadMode::Snapshot
        && !job.by_index
        && partitions > 0
        && splits > 1
        && size.bytes / u64::from(splits) >= split_bytes_min
        && size.bytes <= config::NATURAL_BYTES_MAX
}

/// Cuts a member's own order of an input into about `count` pieces of about the same size.
pub fn cut_natural(shard: &str, cuts: &NaturalCuts, count: u32) -> Vec<Piece> {
    let count = count.max(1) as usize;
    let mut pieces = Vec::with_capacity(count);
    let mut after = None;
    for n in 1..count {
        let last = cuts.records.get(n * cuts.records.len() / count).copied();
        if last.is_none() || last == after {
            continue;
        }
        pieces.push(Split::natural(&cuts.member, after, last));
        after = last;
    }
    pieces.push(Split::natural(&cuts.member, after, None));
    pieces.into_iter().map(|split| Piece { shard: shard.to_owned(), split }).collect()
}

/// All of the input, to be read in one order.
pub fn whole(placement: &Placement) -> Piece {
    let shard = match placement {
        Placement::One(shard) => Some(shard.clone()),
        Placement::Chunks { chunks, .. } => chunks.first().map(|chunk| chunk.shard.clone()),
    };
    let of_all_shards = matches!(placement, Placement::Chunks { .. });
    Piece { shard: shard.unwrap_or_default(), split: Split { of_all_shards, ..Split::default() } }
}

/// Whether these pieces can only be read as a query would not: text in their bounds compares byte by byte,
/// as the shard key's index does, but text in the query as the collection's own collation has it, and the server reads
/// by one of them at a time.
pub fn is_torn(placement: &Placement, pieces: &[Piece], input: &Input) -> bool {
    let collated = matches!(placement, Placement::Chunks { index, .. } if index.collated);
    let ranges = pieces.iter().flat_map(|piece| &piece.split.ranges);
    let mut bounds = ranges.flat_map(|range| [&range.min, &range.max]).flatten();
    let is_text = |value: &Bson| {
        matches!(value, Bson::String(_) | Bson::Symbol(_) | Bson::Document(_) | Bson::Array(_))
    };
    collated && input.compares() && bounds.any(|bound| bound.values().any(is_text))
}

/// A key at which an input may be cut.
#[derive(Debug, Clone)]
struct Candidate {
    encoded: Vec<u8>,
    key: Document,
}

/// Where the input may be cut, each place as often as it was met.
fn candidates(pattern: &Document, samples: Vec<Vec<Bson>>, count: u32) -> Vec<Candidate> {
    let hashed_first =
        pattern.values().next().is_some_and(|direction| direction.as_str().is_some());
    let rows = if hashed_first { evenly(sample_count(count)) } else { samples };
    rows.into_iter()
        .filter_map(|row| {
            // Where a sample says nothing of a field, any value of it may follow.
            let values = row.into_iter().chain(std::iter::repeat(Bson::MinKey));
            let key: Document = pattern.keys().cloned().zip(values).collect();
            // A key that cannot be compared here cannot be a bound; the keys around it can.
            Some(Candidate { encoded: encoded(&key)?, key })
        })
        .collect()
}

/// Hashes are spread evenly over all 64-bit integers.
fn evenly(count: u64) -> Vec<Vec<Bson>> {
    let step = (u64::MAX / count.max(1)).max(1);
    (0..count).map(|n| vec![Bson::Int64((n * step + step / 2) as i64 ^ i64::MIN)]).collect()
}

/// Cuts one chunk at the quantiles of the sample inside of it.
fn cut_chunk(
    min: Option<Document>,
    max: Option<Document>,
    inside: &[Candidate],
    per_piece: f64,
) -> Vec<Range> {
    let pieces = (inside.len() as f64 / per_piece.max(f64::MIN_POSITIVE)).round().max(1.0);
    let pieces = (pieces as usize).min(inside.len() + 1);
    let mut ranges = Vec::with_capacity(pieces);
    let mut last = min.as_ref().and_then(encoded);
    let mut min = min;
    for n in 1..pieces {
        let Some(candidate) = inside.get(n * inside.len() / pieces) else { continue };
        if last.as_ref() == Some(&candidate.encoded) {
            continue;
        }
        last = Some(candidate.encoded.clone());
        let bound = candidate.key.clone();
        ranges.push(Range { min: min.replace(bound.clone()), max: Some(bound) });
    }
    ranges.push(Range { min, max });
    ranges
}

/// Small ranges of one shard on their way to become one piece together.
struct Groups {
    by: Document,
    index: Option<String>,
    per_piece: f64,
    open: BTreeMap<String, (Vec<Range>, f64)>,
    done: Vec<Piece>,
}

impl Groups {
    fn add(&mut self, shard: &str, range: Range, weight: f64) {
        let (ranges, total) = self.open.entry(shard.to_owned()).or_default();
        if !ranges.is_empty()
            && (*total + weight / 2.0 > self.per_piece || ranges.len() >= config::RANGES_MAX)
        {
            let full = std::mem::take(ranges);
            *total = 0.0;
            self.done.push(piece(shard, &self.by, self.index.as_deref(), full));
        }
        *total += weight;
        match ranges.last_mut() {
            Some(last) if last.max.is_some() && last.max == range.min => last.max = range.max,
            _ => ranges.push(range),
        }
    }

    /// The pieces, those of all shards in turn.
    fn finish(mut self) -> Vec<Piece> {
        for (shard, (ranges, _)) in self.open {
            self.done.push(piece(&shard, &self.by, self.index.as_deref(), ranges));
        }
        let mut turns: BTreeMap<String, usize> = BTreeMap::new();
        let mut ordered: Vec<(usize, Piece)> = self
            .done
            .into_iter()
            .map(|piece| {
                let turn = turns.entry(piece.shard.clone()).or_default();
                *turn += 1;
                (*turn, piece)
            })
            .collect();
        ordered.sort_by_key(|(turn, _)| *turn);
        ordered.into_iter().map(|(_, piece)| piece).collect()
    }
}

fn piece(shard: &str, by: &Document, index: Option<&str>, ranges: Vec<Range>) -> Piece {
    let all = ranges.iter().any(|range| range.min.is_none() && range.max.is_none());
    let split = if all {
        Split::default()
    } else {
        let ranges = ranges.into_iter().map(|range| Range {
            min: range.min.map(|bound| extended(bound, by)),
            max: range.max.map(|bound| extended(bound, by)),
        });
        let index = index.map(str::to_owned);
        Split { by: by.clone(), index, ranges: ranges.collect(), ..Split::default() }
    };
    Piece { shard: shard.to_owned(), split }
}

/// A bound in an index that has more fields than the bound: before all entries that begin with it, which in
/// a field that goes down is before the greatest value.
fn extended(mut bound: Document, by: &Document) -> Document {
    for (field, direction) in by {
        if !bound.contains_key(field) {
            bound.insert(field, if goes_down(direction) { Bson::MaxKey } else { Bson::MinKey });
        }
    }
    bound
}

/// A chunk's bound, or nothing when it is the end of all keys.
fn open(bound: &Document, end: &Bson) -> Option<Document> {
    (!bound.values().all(|value| value == end)).then(|| bound.clone())
}

/// The pattern of the key that an input's ranges go by.
fn pattern(placement: &Placement) -> Document {
    match placement {
        Placement::One(_) => bson::doc! { "_id": 1 },
        Placement::Chunks { key, .. } => key.clone(),
    }
}

/// Which shard reduces each partition: as many on each as its workers have slots for.
pub fn reduce_on(partitions: u32, slots: &BTreeMap<String, u32>) -> Vec<String> {
    let mut given: BTreeMap<&str, u32> = BTreeMap::new();
    (0..partitions)
        .filter_map(|_| {
            let next = slots.iter().min_by(|(a, slots_a), (b, slots_b)| {
                let load = |shard: &String, slots: u32| {
                    let given = given.get(shard.as_str()).copied().unwrap_or(0);
                    f64::from(given + 1) / f64::from(slots.max(1))
                };
                load(a, **slots_a).total_cmp(&load(b, **slots_b))
            });
            let (shard, _) = next?;
            *given.entry(shard).or_default() += 1;
            Some(shard.clone())
        })
        .collect()
}

/// How many partitions the shuffle has when the job names no number.
///
/// A map-only job has none as long as its tasks always read the same: they write results themselves, and again
/// if they are tried again. Without a snapshot one may read another document the next time, and what it had
/// written before would stay; so its emits go through blocks, which count only once their task commits.
pub fn partition_count(spec: &JobSpec, size: InputSize, slots: u32) -> u32 {
    if spec.reduce.is_none() && spec.input.read == ReadMode::Snapshot {
        return 0;
    }
    if spec.partitions > 0 {
        return spec.partitions;
    }
    if size.bytes < config::ONE_TASK_BYTES_MAX {
        return 1;
    }
    let by_size = size.bytes.div_ceil(config::PARTITION_BYTES_TARGET);
    u32::try_from(by_size).unwrap_or(u32::MAX).max(slots).clamp(1, config::PARTITIONS_AUTO_MAX)
}

/// Bytes in the order of the key: those of the document of its values.
fn encoded(key: &Document) -> Option<Vec<u8>> {
    let raw = RawValBuf::from_bson(&Bson::Document(key.clone())).ok()?;
    let mut out = Vec::new();
    key::encode(raw.as_raw(), &mut out).ok()?;
    Some(out)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
