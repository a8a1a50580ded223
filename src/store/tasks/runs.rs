//! Where the runs of committed map tasks are: in blocks, or in the tasks' own documents.

use std::collections::BTreeMap;

use bson::doc;
use futures_util::TryStreamExt;

use super::int;
use crate::config;
use crate::error::{Error, Result};
use crate::ids::{JobId, TaskId, Token};
use crate::job::limits::{RUNS_MAX, within};
use crate::planted::planted;
use crate::shuffle::block::Block;
use crate::store::Store;
use crate::store::claims::own_tasks;
use crate::store::error::Action;
use crate::task::{KeptBlock, PartManifest, Task, TaskKind, TaskState};

/// One map task's committed runs for one partition.
#[derive(Debug, Clone)]
pub struct MapRuns {
    /// The map task.
    pub task: TaskId,
    /// The shard its document lives on.
    pub shard: String,
    /// Its number, which orders the runs.
    pub n: u32,
    /// The attempt whose blocks count.
    pub token: Token,
    /// Blocks in each run.
    pub runs: Vec<u32>,
    /// Where the blocks are.
    pub blocks: Blocks,
}

/// Where the blocks of a map task are.
#[derive(Debug, Clone)]
pub enum Blocks {
    /// Documents of their own.
    Apart,
    /// Here, by run and place: they came with the manifest.
    Here(BTreeMap<(u32, u32), Block>),
    /// In the map task's document.
    InTask,
}

impl MapRuns {
    /// Takes what a manifest says of a partition, and its blocks if they came with it, as long as there is room for so
    /// many bytes of them.
    ///
    /// # Errors
    /// [`Error::BlockMissing`] where blocks should have come that are not there.
    pub fn take(&mut self, part: PartManifest, room: &mut usize) -> Result<()> {
        if part.kept.is_empty() {
            self.runs = part.runs;
            return Ok(());
        }
        self.runs = kept_runs(&part).ok_or_else(|| lost_kept(self))?;
        let bytes: usize = part.kept.iter().map(|block| block.data.bytes.len()).sum();
        self.blocks = match room.checked_sub(bytes) {
            Some(less) => {
                *room = less;
                Blocks::Here(part.kept.into_iter().map(kept_block).collect())
            }
            None => Blocks::InTask,
        };
        Ok(())
    }
}

/// A block out of its map task's document, by run and place. Whether it is intact is for its reader to check.
fn kept_block(kept: KeptBlock) -> ((u32, u32), Block) {
    let KeptBlock { run, seq, records, raw_bytes, crc32, codec, data } = kept;
    ((run, seq), Block { seq, records, raw_bytes, crc32, codec, data: data.bytes })
}

/// How many blocks each run has of a part whose blocks lie in the task's document; nothing if some are not there.
fn kept_runs(part: &PartManifest) -> Option<Vec<u32>> {
    let mut runs: Vec<u32> = Vec::new();
    for block in &part.kept {
        match usize::try_from(block.run).ok()? {
            last if last + 1 == runs.len() => *runs.last_mut()? += 1,
            next if next == runs.len() => runs.push(1),
            _ => return None,
        }
        (block.seq + 1 == *runs.last()?).then_some(())?;
    }
    (runs.len() == usize::try_from(part.apart).ok()?).then_some(runs)
}

fn lost_kept(of: &MapRuns) -> Error {
    Error::BlockMissing {
        block: format!("{}/{}", of.task, of.token),
        damage: Some("its task's document does not hold it".into()),
        task: of.task.clone(),
        shard: of.shard.clone(),
        token: of.token.clone(),
    }
}

impl Store {
    /// The committed runs of one partition, in the order of the map tasks.
    ///
    /// # Errors
    /// [`Error::NotYet`] while a map task of the plan is not committed (one whose blocks were lost
    /// runs again), [`Error::BlockMissing`] when runs that are named apart are not there, [`Error::Store`].
    pub async fn manifest(&self, task: &Task, map_tasks: u32) -> Result<Vec<MapRuns>> {
        #[cfg(feature = "mutants")]
        if planted("blocks-uncommitted") {
            return self.every_run(task).await;
        }
        let counts = [i64::from(map_tasks), 0];
        let mut committed = own_tasks(&task.job, task.plan, counts, &[TaskKind::Map]);
        committed.insert("state", TaskState::Done.as_str());
        let mut cursor = self
            .aviary()
            .find(committed)
            .projection(doc! {
                "n": 1,
                "shard": 1,
                "result.token": 1,
                "result.parts": { "$filter": {
                    "input": "$result.parts",
                    "as": "part",
                    "cond": { "$eq": ["$$part.p", i64::from(task.n)] },
                } },
            })
            .await
            .action("read the manifest")?;
        let mut runs = Vec::new();
        let (mut seen, mut count): (u32, u64) = (0, 0);
        let mut room = config::KEPT_READ_BYTES_MAX;
        while let Some(row) = cursor.try_next().await.action("read the manifest")? {
            seen += 1;
            let malformed = || Error::Internal(format!("a map task of {} is malformed", task.job));
            let id = row.get_str("_id").map_err(|_| malformed())?;
            let shard = row.get_str("shard").map_err(|_| malformed())?;
            let n = int(row.get("n")).ok_or_else(malformed)?;
            let result = row.get_document("result").map_err(|_| malformed())?;
            let token = result.get_str("token").map_err(|_| malformed())?;
            let Some(part) = result.get_array("parts").ok().and_then(|parts| parts.first()) else {
                continue;
            };
            let part: PartManifest = bson::deserialize_from_bson(part.clone())
                .map_err(|e| Error::Internal(format!("a manifest is malformed: {e}")))?;
            let (apart, is_kept) = (part.apart, !part.kept.is_empty());
            let mut of = MapRuns {
                task: TaskId::from_text(id),
                shard: shard.to_owned(),
                n,
                token: Token::from_text(token),
                runs: Vec::new(),
                blocks: Blocks::Apart,
            };
            of.take(part, &mut room)?;
            if apart > 0 && !is_kept {
                of.runs = self.runs_apart(task, &of, apart).await?;
            }
            // Each is opened, or at least waits to be.
            count += of.runs.len() as u64;
            within("result.parts.runs", count, RUNS_MAX)?;
            runs.push(of);
        }
        if seen < map_tasks && !planted("maps-incomplete") {
            return Err(Error::NotYet(format!("{seen} of {map_tasks} map tasks are committed")));
        }
        runs.sort_by_key(|run| run.n);
        Ok(runs)
    }

    /// Reads one block out of the document of the map task that wrote it.
    ///
    /// # Errors
    /// [`Error::BlockMissing`] when it is not there, [`Error::Store`].
    pub async fn kept_block(&self, of: &MapRuns, p: u32, run: u32, seq: u32) -> Result<Block> {
        let found = self
            .aviary_at(&of.shard)
            .find_one(doc! { "_id": &of.task, "shard": &of.shard, "result.token": &of.token })
            .projection(doc! { "_id": 0, "result.parts": { "$filter": {
                "input": "$result.parts",
                "as": "part",
                "cond": { "$eq": ["$$part.p", i64::from(p)] },
            } } })
            .await
            .action("read a block of the shuffle")?;
        let part = found.as_ref().and_then(|found| found.get_document("result").ok());
        let part = part.and_then(|result| result.get_array("parts").ok()?.first());
        let part: Option<PartManifest> =
            part.and_then(|part| bson::deserialize_from_bson(part.clone()).ok());
        let mut blocks = part.map(|part| part.kept).unwrap_or_default().into_iter().map(kept_block);
        let block = blocks.find(|(at, _)| *at == (run, seq)).map(|(_, block)| block);
        block.ok_or_else(|| lost_kept(of))
    }

    /// Removes the blocks in the documents of a job's map tasks.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn drop_kept(&self, job: &JobId) -> Result<()> {
        let kept = doc! {
            "job": job,
            "kind": TaskKind::Map.as_str(),
            "result.parts.kept": { "$exists": true },
        };
        let gone = doc! { "$unset": { "result.parts.$[].kept": "" } };
        self.aviary().update_many(kept, gone).await.action("remove blocks of the shuffle")?;
        Ok(())
    }
}
