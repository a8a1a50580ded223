//! Keeps a map task's manifest small enough for the task's document.
//!
//! A manifest grows with every spill, by a number for each partition, and a task spills as often as its
//! emits fill its memory: one that reads all of a large input, thousands of times. A manifest that would be
//! too large is taken apart: the runs of each partition go into a document of their own among the
//! partition's blocks, written like these before the task commits.

use super::combiner::TakeBlocks;
use crate::error::{Error, Result};
use crate::task::PartManifest;

/// Most bytes of a partition in a task's document, without its runs.
const PART_BYTES_MAX: usize = 96;
/// Most bytes of a run: its type, its place in digits and the end of these, its number of blocks.
const RUN_BYTES_MAX: usize = 20;

/// Takes the manifest apart if it may have more than `bytes_max`.
///
/// # Errors
/// Those of writing, and [`Error::Refused`] when there are more runs than can be named at all.
pub(super) fn fit(
    parts: &mut [PartManifest],
    bytes_max: usize,
    blocks: &mut dyn TakeBlocks,
) -> Result<()> {
    if bytes_bound(parts) <= bytes_max {
        return Ok(());
    }
    for part in parts.iter_mut() {
        let runs = std::mem::take(&mut part.runs);
        part.apart = u32::try_from(runs.len()).map_err(|_| too_many(part.p))?;
        blocks.take_runs(part.p, &runs)?;
    }
    Ok(())
}

/// More bytes than the manifest has in a document.
pub(super) fn bytes_bound(parts: &[PartManifest]) -> usize {
    parts.iter().map(|part| PART_BYTES_MAX + part.runs.len() * RUN_BYTES_MAX).sum()
}

/// What is said of a partition that has more runs than a document can name.
pub(super) fn too_many(partition: u32) -> Error {
    Error::refused(
        format!(
            "a map task has spilled too often: nothing can name its runs of partition {partition}"
        ),
        "emit less, give a combine, or read the input in more tasks (without --sort and --limit)",
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{MANIFEST_BYTES_MAX, PARTITIONS_MAX};
    use crate::ids::Token;
    use crate::shuffle::block::Block;
    use crate::task::TaskResult;

    #[derive(Default)]
    struct Taken(Vec<(u32, Vec<u32>)>);

    impl TakeBlocks for Taken {
        fn take(&mut self, _: u32, _: u32, _: &Block) -> Result<()> {
            Ok(())
        }
        fn take_runs(&mut self, partition: u32, runs: &[u32]) -> Result<()> {
            self.0.push((partition, runs.to_vec()));
            Ok(())
        }
        fn finish(self: Box<Self>) -> Result<()> {
            Ok(())
        }
    }

    fn part(p: u32, runs: Vec<u32>) -> PartManifest {
        PartManifest { p, runs, records: i64::MAX, bytes: i64::MAX, apart: 0 }
    }

    fn stored_bytes(parts: &[PartManifest]) -> usize {
        let result = TaskResult {
            token: Token::generate(),
            parts: parts.to_vec(),
            counters: bson::Document::new(),
        };
        bson::serialize_to_vec(&result).unwrap().len()
    }

    /// What a result has besides its manifest.
    const REST_BYTES: usize = 100;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn a_manifest_never_has_more_bytes_than_its_limit(
            runs in prop::collection::vec(prop::collection::vec(any::<u32>(), 1..300), 1..40),
            bytes_max in 4_000..40_000_usize,
        ) {
            let whole: Vec<PartManifest> = (0..).zip(&runs).map(|(p, runs)| part(p, runs.clone())).collect();
            let (mut parts, mut taken) = (whole.clone(), Taken::default());
            fit(&mut parts, bytes_max, &mut taken).unwrap();
            prop_assert!(stored_bytes(&parts) <= bytes_max + REST_BYTES);
            // Nothing is lost: a part is either as it was, or its runs are elsewhere.
            if taken.0.is_empty() {
                prop_assert_eq!(parts, whole);
            } else {
                for ((part, whole), (p, runs)) in parts.iter().zip(&whole).zip(&taken.0) {
                    prop_assert!(part.runs.is_empty() && part.p == *p && &whole.runs == runs);
                    prop_assert_eq!(part.apart as usize, runs.len());
                    prop_assert_eq!((part.records, part.bytes), (whole.records, whole.bytes));
                }
            }
        }
    }

    #[test]
    fn the_largest_manifest_fits_a_document() {
        let spills =
            |count| (0..PARTITIONS_MAX).map(|p| part(p, vec![1; count])).collect::<Vec<_>>();
        let mut parts = spills(2_000);
        assert!(stored_bytes(&parts) > crate::config::DOCUMENT_BYTES_MAX, "it would not fit");
        fit(&mut parts, MANIFEST_BYTES_MAX, &mut Taken::default()).unwrap();
        assert!(stored_bytes(&parts) < MANIFEST_BYTES_MAX / 16);
        // A usual one stays where it is.
        let (mut parts, mut taken) = (spills(20), Taken::default());
        fit(&mut parts, MANIFEST_BYTES_MAX, &mut taken).unwrap();
        assert!(taken.0.is_empty() && parts == spills(20));
    }
}
