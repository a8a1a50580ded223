//! Manifests that are too large for their task's document: for each partition a document among its blocks,
//! `JOB/pPARTITION/TASK/TOKEN/runs`, that holds the number of blocks in each run.
//!
//! It has the form of a block, with the numbers as data (u32 LE), so that damage shows.

use bson::{RawDocumentBuf, doc};

use super::error::Action;
use super::tasks::MapRuns;
use super::{INTERMEDIATES, Store};
use crate::error::{Error, Result};
use crate::shuffle::block::{BLOCK_DATA_BYTES_MAX, Block, CODEC_STORED};
use crate::store::blocks::{BlockName, block_document, read_block};
use crate::task::Task;

/// Most runs that such a document holds.
pub const RUNS_MAX: usize = BLOCK_DATA_BYTES_MAX / 4;

fn id(name: &BlockName) -> String {
    format!("{}/runs", name.attempt())
}

/// The document for the runs that an attempt wrote for a partition; `name` is that of any of their blocks.
/// `None` when they are more than [`RUNS_MAX`].
pub fn runs_document(name: &BlockName, runs: &[u32]) -> Option<RawDocumentBuf> {
    let data: Vec<u8> = runs.iter().flat_map(|blocks| blocks.to_le_bytes()).collect();
    let bytes = u32::try_from(data.len()).ok()?;
    let mut block =
        Block { seq: 0, records: bytes / 4, raw_bytes: bytes, crc32: 0, codec: CODEC_STORED, data };
    block.crc32 = block.parts().checksum();
    (runs.len() <= RUNS_MAX).then(|| block_document(id(name), name, &block))
}

impl Store {
    /// Reads the runs that `of` wrote for a reduce task's partition: `count` of them, says its manifest.
    ///
    /// # Errors
    /// [`Error::BlockMissing`] when their document is not there or damaged, [`Error::Store`].
    pub(super) async fn runs_apart(
        &self,
        reduce: &Task,
        of: &MapRuns,
        count: u32,
    ) -> Result<Vec<u32>> {
        let name = BlockName {
            shard: reduce.shard.clone(),
            job: reduce.job.clone(),
            partition: reduce.n,
            n: of.n,
            token: of.token.clone(),
            run: 0,
            seq: 0,
        };
        let found = self
            .near(&name.shard)
            .collection::<RawDocumentBuf>(INTERMEDIATES)
            .find_one(doc! { "_id": id(&name), "shard": &name.shard })
            .await
            .action("read a manifest")?;
        let lost = |damage: Option<&str>| Error::BlockMissing {
            block: id(&name),
            damage: damage.map(str::to_owned),
            task: of.task.clone(),
            shard: of.shard.clone(),
            token: of.token.clone(),
        };
        let found = found.ok_or_else(|| lost(None))?;
        let block = read_block(&found, 0).ok_or_else(|| lost(Some("its document is malformed")))?;
        if block.parts().checksum() != block.crc32 {
            return Err(lost(Some("its checksum is another")));
        }
        let (numbers, rest) = block.data.as_chunks::<4>();
        if numbers.len() != count as usize || !rest.is_empty() {
            return Err(lost(Some("it names another number of runs")));
        }
        Ok(numbers.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect())
    }
}
