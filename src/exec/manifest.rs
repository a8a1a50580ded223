//! Keeps a map task's manifest small enough for the task's document.
//!
//! A manifest grows with every spill, by a number for each partition, and a task spills as often as its
//! emits fill its memory: one that reads all of a large input, thousands of times. A manifest that would be
//! too large is taken apart: the runs of each partition go into a document of their own among the
//! partition's blocks, written like these before the task commits.

use bson::Binary;
use bson::spec::BinarySubtype;

use super::combiner::{Kept, TakeBlocks};
use crate::error::{Error, Result};
use crate::task::{KeptBlock, PartManifest};

/// Most bytes of a partition in a task's document, without its runs.
const PART_BYTES_MAX: usize = 96;
/// Most bytes of a block in a task's document, without its data: seven fields with their names, and its place.
pub(crate) const KEPT_BYTES_MORE: usize = 128;
/// Most bytes of a run: its type, its place in digits and the end of these, its number of blocks.
const RUN_BYTES_MAX: usize = 20;

/// Takes the manifest apart if it may have more than `bytes_max`.
///
/// # Errors
/// Those of writing, and [`Error::Refused`] when there are more runs than can be named at all.
pub(crate) fn fit(
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

/// Puts blocks into the manifest that are not written by themselves: all that there are, in the order of their runs.
///
/// # Errors
/// [`Error::Internal`] for a block of no part.
pub(crate) fn keep(parts: &mut [PartManifest], kept: Vec<Kept>) -> Result<()> {
    for Kept { partition, run, block } in kept {
        let part = parts.iter_mut().find(|part| part.p == partition);
        let part = part.ok_or_else(|| Error::Internal("a block of no part is kept".into()))?;
        if !part.runs.is_empty() {
            let runs = std::mem::take(&mut part.runs);
            part.apart = u32::try_from(runs.len()).map_err(|_| too_many(part.p))?;
        }
        part.kept.push(KeptBlock {
            run,
            seq: block.seq,
            records: block.records,
            raw_bytes: block.raw_bytes,
            crc32: block.crc32,
            codec: block.codec,
            data: Binary { subtype: BinarySubtype::Generic, bytes: block.data },
        });
    }
    Ok(())
}

/// More bytes than the manifest has in a document.
pub(crate) fn bytes_bound(parts: &[PartManifest]) -> usize {
    let kept = |block: &KeptBlock| KEPT_BYTES_MORE + block.data.bytes.len();
    let part = |part: &PartManifest| {
        PART_BYTES_MAX + part.runs.len() * RUN_BYTES_MAX + part.kept.iter().map(kept).sum::<usize>()
    };
    parts.iter().map(part).sum()
}

/// What is said of a partition that has more runs than a document can name.
pub(crate) fn too_many(partition: u32) -> Error {
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
        fn finish(self: Box<Self>) -> Result<Vec<Kept>> {
            Ok(Vec::new())
        }
    }

    fn part(p: u32, runs: Vec<u32>) -> PartManifest {
        PartManifest { p, runs, records: i64::MAX, bytes: i64::MAX, apart: 0, kept: Vec::new() }
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
    fn kept_blocks_have_no_more_bytes_than_they_are_said_to_have() {
        let block = Block {
            seq: u32::MAX,
            records: u32::MAX,
            raw_bytes: u32::MAX,
            crc32: u32::MAX,
            codec: u8::MAX,
            data: vec![7; 1_000],
        };
        let mut parts = vec![part(1, vec![1, 2]), part(2, vec![1])];
        let of =
            |partition, run, seq| Kept { partition, run, block: Block { seq, ..block.clone() } };
        keep(&mut parts, vec![of(1, 0, 0), of(1, 1, 0), of(1, 1, 1), of(2, 0, 0)]).unwrap();
        assert!(stored_bytes(&parts) <= bytes_bound(&parts) + REST_BYTES);
        assert_eq!((parts[0].apart, parts[0].runs.len(), parts[0].kept.len()), (2, 0, 3));
        assert_eq!((parts[1].apart, parts[1].kept.len()), (1, 1));
        assert!(keep(&mut parts, vec![of(3, 0, 0)]).is_err());
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
