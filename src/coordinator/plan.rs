//! From an input's size and a sample of its ids to splits. Pure.

use bson::Bson;

use crate::config;
use crate::job::JobSpec;
use crate::shuffle::{key, value::RawValBuf};
use crate::store::input::InputSize;
use crate::task::Split;

/// How many splits of about `split_bytes` an input of this size is cut into; more, and smaller
/// ones, when there would be too few for `slots` workers' slots to end at about the same time.
///
/// A job with a sort or a limit reads one split: only one reader can know which documents come
/// first.
pub fn split_count(spec: &JobSpec, size: InputSize, split_bytes: u64, slots: u32) -> u32 {
    if spec.input.limit.is_some() || spec.input.sort.is_some() {
        return 1;
    }
    let by_size = size.bytes.div_ceil(split_bytes.max(1));
    let balanced = u64::from(slots) * config::SPLITS_PER_SLOT;
    let wanted = by_size.max(balanced.min(size.bytes / config::SPLIT_BYTES_MIN)).max(1);
    let most = size.documents.clamp(1, u64::from(config::SPLITS_MAX));
    u32::try_from(wanted.min(most)).unwrap_or(config::SPLITS_MAX)
}

/// How many ids to sample for that many splits; none for one.
pub fn sample_count(splits: u32) -> u64 {
    if splits <= 1 {
        return 0;
    }
    (u64::from(splits) * config::SAMPLES_PER_SPLIT).min(config::SAMPLES_MAX)
}

/// Cuts at the quantiles of a sample that is in index order. Adjacent splits share their bound and
/// the outer bounds are open, so every id is in exactly one split, sampled or not.
pub fn cut(samples: Vec<Bson>, splits: u32) -> Vec<Split> {
    let mut distinct: Vec<Bson> = Vec::with_capacity(samples.len());
    let mut last: Option<Vec<u8>> = None;
    for id in samples {
        // An id that cannot be compared here cannot be a bound; the ids around it can.
        let Some(encoded) = encoded(&id) else { continue };
        if last.as_ref() != Some(&encoded) {
            distinct.push(id);
            last = Some(encoded);
        }
    }
    let splits = usize::try_from(splits).unwrap_or(1).min(distinct.len() + 1).max(1);
    let mut cuts: Vec<Bson> = Vec::with_capacity(splits);
    let mut previous = None;
    for i in 1..splits {
        let at = i * distinct.len() / splits;
        if previous != Some(at) {
            cuts.extend(distinct.get(at).cloned());
            previous = Some(at);
        }
    }
    let mut min = None;
    let mut all = Vec::with_capacity(cuts.len() + 1);
    for bound in cuts {
        all.push(Split { min: min.replace(bound.clone()), max: Some(bound) });
    }
    all.push(Split { min, max: None });
    all
}

/// How many partitions the shuffle has when the job names no number.
pub fn partition_count(spec: &JobSpec, size: InputSize, slots: u32) -> u32 {
    if spec.reduce.is_none() {
        return 0;
    }
    if spec.partitions > 0 {
        return spec.partitions;
    }
    /// Below this much input a single reducer is done before a second has started.
    const ONE_REDUCER_BYTES: u64 = 8 << 20;
    if size.bytes < ONE_REDUCER_BYTES {
        return 1;
    }
    let by_size = size.bytes.div_ceil(config::PARTITION_BYTES_TARGET);
    u32::try_from(by_size).unwrap_or(u32::MAX).max(slots).clamp(1, config::PARTITIONS_AUTO_MAX)
}

fn encoded(id: &Bson) -> Option<Vec<u8>> {
    let raw = RawValBuf::from_bson(id).ok()?;
    let mut out = Vec::new();
    key::encode(raw.as_raw(), &mut out).ok()?;
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chain_is_complete(splits: &[Split]) {
        assert!(splits.first().unwrap().min.is_none());
        assert!(splits.last().unwrap().max.is_none());
        for pair in splits.windows(2) {
            assert_eq!(pair[0].max, pair[1].min);
            assert!(pair[0].max.is_some());
        }
    }

    proptest! {
        #[test]
        fn splits_cover_everything_once(mut ids in prop::collection::vec(any::<i32>(), 0..200), n in 1_u32..50) {
            ids.sort_unstable();
            let splits = cut(ids.into_iter().map(Bson::Int32).collect(), n);
            prop_assert!(splits.len() <= n as usize);
            chain_is_complete(&splits);
            let bounds: Vec<_> = splits.iter().filter_map(|s| s.min.as_ref()?.as_i32()).collect();
            prop_assert!(bounds.windows(2).all(|w| w[0] < w[1]));
        }
    }

    #[test]
    fn few_large_splits_are_made_smaller_for_balance_but_not_tiny() {
        let spec = crate::job::spec::tests::spec();
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
        let splits = cut(vec![Bson::Int32(1), Bson::Double(1.0), Bson::Int64(1)], 4);
        assert_eq!(splits.len(), 2);
        chain_is_complete(&splits);
        let nan = cut(vec![Bson::Double(f64::NAN), Bson::Double(f64::NAN)], 3);
        assert_eq!(nan.len(), 2);
    }

    #[test]
    fn no_sample_means_one_split() {
        assert_eq!(cut(Vec::new(), 7), vec![Split::default()]);
    }
}
