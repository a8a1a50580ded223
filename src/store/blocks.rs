//! Blocks of the shuffle as documents: `JOB/pPARTITION/TASK/TOKEN/RUN.SEQ`.
//!
//! The token makes a block its attempt's own, so a zombie can never write over a block that a
//! manifest names; the job in front makes one range of all a job's blocks.

use std::collections::BTreeSet;

use bson::spec::BinarySubtype;
use bson::{RawDocumentBuf, doc, rawdoc};
use mongodb::Collection;

use super::error::{Action, only_existing_ids};
use super::{INTERMEDIATES, Store};
use crate::config;
use crate::error::{Error, Result};
use crate::ids::{JobId, TaskId, Token};
use crate::job::limits::{JOB_ID_LEN, is_job_id};
use crate::shuffle::block::{BLOCK_DATA_BYTES_MAX, Block};

/// A block's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockName {
    /// The shard that the block is addressed to: the one that reduces its partition.
    pub shard: String,
    /// The job.
    pub job: JobId,
    /// The partition it belongs to.
    pub partition: u32,
    /// The number of the map task that wrote it.
    pub n: u32,
    /// The attempt that wrote it.
    pub token: Token,
    /// The run within the attempt and partition.
    pub run: u32,
    /// The block within the run.
    pub seq: u32,
}

impl BlockName {
    /// The block's `_id`.
    pub fn id(&self) -> String {
        format!("{}/{:04}.{:05}", self.attempt(), self.run, self.seq)
    }

    /// What the `_id`s of all that the attempt wrote for the partition begin with.
    pub(super) fn attempt(&self) -> String {
        format!("{}/p{:04}/{:05}/{}", self.job, self.partition, self.n, self.token)
    }
}

impl Store {
    fn intermediates(&self) -> Collection<RawDocumentBuf> {
        self.database().collection(INTERMEDIATES)
    }

    /// A block as a document.
    ///
    /// # Errors
    /// [`Error::Internal`] when it does not fit into a document.
    pub fn block_document(name: &BlockName, block: &Block) -> RawDocumentBuf {
        block_document(name.id(), name, block)
    }

    /// Writes blocks with `w: majority`.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn insert_blocks(&self, blocks: &[RawDocumentBuf]) -> Result<()> {
        match self.intermediates().insert_many(blocks).ordered(false).await {
            Ok(_) => Ok(()),
            // The name holds the attempt's token, so only this very write can have been here.
            Err(e) if only_existing_ids(&e) => Ok(()),
            Err(e) => Err(e).action("write blocks of the shuffle"),
        }
    }

    /// Reads one block that a committed manifest names; `task` on `shard` is the one that wrote it.
    ///
    /// # Errors
    /// [`Error::BlockMissing`] when it is not there or its document is damaged, [`Error::Store`].
    pub async fn block(&self, name: &BlockName, task: &TaskId, shard: &str) -> Result<Block> {
        let found = self
            .near(&name.shard)
            .collection::<RawDocumentBuf>(INTERMEDIATES)
            .find_one(doc! { "_id": name.id(), "shard": &name.shard })
            .await
            .action("read a block of the shuffle")?;
        let lost = |damage: Option<&str>| Error::BlockMissing {
            block: name.id(),
            damage: damage.map(str::to_owned),
            task: task.clone(),
            shard: shard.to_owned(),
            token: name.token.clone(),
        };
        let found = found.ok_or_else(|| lost(None))?;
        read_block(&found, name.seq).ok_or_else(|| lost(Some("its document is malformed")))
    }

    /// Removes every block of a job.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn delete_blocks(&self, job: &JobId) -> Result<u64> {
        let outcome = self
            .intermediates()
            .delete_many(doc! { "shard": self.every_shard(), "_id": job_range(job) })
            .await
            .action("remove blocks of the shuffle")?;
        Ok(outcome.deleted_count)
    }

    /// Some jobs that own blocks now, in order: on each shard those after this one.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn jobs_with_blocks(&self, after: &str) -> Result<Vec<JobId>> {
        let mut jobs = BTreeSet::new();
        for shard in self.known_shards() {
            // '0' follows '/': the first name beyond the job's range.
            let mut after = if after.is_empty() { String::new() } else { format!("{after}0") };
            let mut count = 0;
            // One index seek a job: from each job's first block to beyond its last.
            while count < config::SWEPT_MAX
                && let Some(job) = self.next_job_with_blocks(&shard, &after).await?
            {
                count += 1;
                // What is no job's is passed over together with all that begins like it.
                let id = JobId::from_text(job);
                if is_job_id(&id) {
                    after = format!("{id}0");
                    jobs.insert(id.to_string());
                } else {
                    let begin: String = id.as_str().chars().take(JOB_ID_LEN).collect();
                    let is_whole = begin.len() == id.as_str().len();
                    after =
                        if is_whole { format!("{begin}0") } else { format!("{begin}\u{10ffff}") };
                }
            }
        }
        // Where several shards have many, only the first of all are known to be all that there are up to the last.
        Ok(jobs.into_iter().take(config::SWEPT_MAX).map(JobId::from_text).collect())
    }

    async fn next_job_with_blocks(&self, shard: &str, after: &str) -> Result<Option<String>> {
        let next = self
            .intermediates()
            .clone_with_type::<bson::Document>()
            .find_one(doc! { "shard": shard, "_id": { "$gt": after } })
            .projection(doc! { "_id": 1 })
            .sort(doc! { "_id": 1 })
            .await
            .action("look for blocks")?;
        let id = next.as_ref().and_then(|row| row.get_str("_id").ok());
        Ok(id.map(|id| id.split('/').next().unwrap_or(id).to_owned()))
    }
}

#[cfg(feature = "mutants")]
impl Store {
    /// Every run of a partition that anybody has written, committed or not: a fault, for the tests to find.
    pub(super) async fn every_run(
        &self,
        task: &crate::task::Task,
    ) -> Result<Vec<super::tasks::MapRuns>> {
        use futures_util::TryStreamExt;
        use std::collections::BTreeMap;
        let prefix = format!("{}/p{:04}/", task.job, task.n);
        let mut found = self
            .intermediates()
            .clone_with_type::<bson::Document>()
            .find(doc! { "shard": &task.shard, "_id": { "$regex": format!("^{prefix}") } })
            .projection(doc! { "_id": 1 })
            .await
            .action("look for blocks")?;
        let mut blocks: BTreeMap<(u32, String, u32), u32> = BTreeMap::new();
        while let Some(row) = found.try_next().await.action("look for blocks")? {
            let id = row.get_str("_id").unwrap_or_default();
            let parts: Vec<&str> = id.split('/').collect();
            let [_, _, n, token, place] = parts.as_slice() else { continue };
            let run = place.split('.').next().unwrap_or_default();
            let (Ok(n), Ok(run)) = (n.parse(), run.parse()) else { continue };
            *blocks.entry((n, (*token).to_owned(), run)).or_default() += 1;
        }
        let mut runs: BTreeMap<(u32, String), Vec<u32>> = BTreeMap::new();
        for ((n, token, _), count) in blocks {
            runs.entry((n, token)).or_default().push(count);
        }
        Ok(runs
            .into_iter()
            .map(|((n, token), runs)| super::tasks::MapRuns {
                task: TaskId::map(&task.job, task.plan, n),
                shard: task.shard.clone(),
                n,
                token: Token::from_text(token),
                runs,
                blocks: super::tasks::Blocks::Apart,
            })
            .collect())
    }
}

fn job_range(job: &JobId) -> bson::Document {
    doc! { "$gte": format!("{job}/"), "$lt": format!("{job}0") }
}

pub(super) fn block_document(id: String, name: &BlockName, block: &Block) -> RawDocumentBuf {
    rawdoc! {
        "_id": id,
        "shard": name.shard.as_str(),
        "job": name.job.as_str(),
        "records": i64::from(block.records),
        "raw_bytes": i64::from(block.raw_bytes),
        "crc32": i64::from(block.crc32),
        "codec": i32::from(block.codec),
        "data": bson::raw::RawBsonRef::Binary(bson::raw::RawBinaryRef { subtype: BinarySubtype::Generic, bytes: &block.data }),
    }
}

/// A block out of its document; nothing if that is not one. Whether it is intact is for its reader to check.
pub fn read_block(raw: &bson::RawDocument, seq: u32) -> Option<Block> {
    let int = |name: &str| match raw.get(name).ok()?? {
        bson::RawBsonRef::Int64(n) => Some(n),
        bson::RawBsonRef::Int32(n) => Some(i64::from(n)),
        _ => None,
    };
    let data = raw.get_binary("data").ok()?.bytes;
    if data.len() > BLOCK_DATA_BYTES_MAX {
        return None;
    }
    let data = data.to_vec();
    Some(Block {
        seq,
        records: u32::try_from(int("records")?).ok()?,
        raw_bytes: u32::try_from(int("raw_bytes")?).ok()?,
        crc32: u32::try_from(int("crc32")?).ok()?,
        codec: u8::try_from(int("codec")?).ok()?,
        data,
    })
}
