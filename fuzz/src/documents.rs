//! Documents that the database could hold in place of ours, mutated: requests, tasks, jobs, functions, manifests, blocks. Each is
//! read as a worker or coordinator reads it, checked as these check it, and then used.

use std::collections::BTreeMap;
use std::time::Duration;

use aviary::config::Caps;
use aviary::coordinator::plan;
use aviary::error::Error;
use aviary::exec::prepare::{self, ExecEnv};
use aviary::ids::{JobId, TaskId, Token};
use aviary::job::limits::{FUNCTION_CHUNKS_MAX, RUNS_MAX, is_job_id, within};
use aviary::job::{Job, JobEvent, JobSpec};
use aviary::request::{Asked, Problem, REQUESTS, Request, Wish, job};
use aviary::shuffle::block::{self, Block, BlockError};
use aviary::shuffle::merge::{Merge, MergeLimits};
use aviary::shuffle::reader::{RunSource, SourceError};
use aviary::store::blocks::{BlockName, read_block};
use aviary::store::catalogue::{FunctionName, FunctionRow, StoredFunction};
use aviary::store::input::InputSize;
use aviary::store::manifests::runs_document;
use aviary::store::querying::{QueryTime, runs_script};
use aviary::store::requests::found;
use aviary::store::shape;
use aviary::task::{Task, TaskResult};
use bson::raw::RawDocumentBuf;
use serde::de::DeserializeOwned;

/// Bytes that one document may make its reader hold beside itself: a record as large as there may be and the block
/// that it is put together from.
pub const ALLOCATION_BYTES_MAX: usize = 48 << 20;

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    shape::check(bytes).ok()?;
    bson::deserialize_from_slice(bytes).ok()
}

/// One document; its first byte says what it is taken for.
pub fn run(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 8 {
        0 => task(bytes),
        1 => job_document(bytes),
        2 => function(bytes),
        3 => manifest(bytes),
        4 => {
            if let Some(block) = part(bytes) {
                decode(&block);
            }
        }
        5 => run_of_blocks(bytes),
        7 => request(bytes),
        _ => stored_block(bytes),
    }
}

fn task(bytes: &[u8]) {
    let Some(task) = read::<Task>(bytes) else { return };
    let _ = task.id.short();
    let _ = bson::serialize_to_vec(&task);
    if let Some(result) = &task.result {
        use_manifest(result);
    }
}

fn job_document(bytes: &[u8]) {
    let Some(job) = read::<Job>(bytes) else { return };
    let _ = job.spec.digests();
    let _ = job.reducing_shard(u32::MAX);
    let _ = job.state.after(JobEvent::CancelRequested);
    let _ = bson::serialize_to_vec(&job);
    let caps = Caps::default();
    if caps.check_job(&job).is_err() || job.spec.validate("test").is_err() {
        return;
    }
    // From here on its numbers are believed.
    let _ = ExecEnv::of(&job, &TaskId::map(&job.id, job.plan, 0));
    let _ = prepare::limits(&job.spec.limits);
    let _ = (runs_script(&job.spec.input), caps.task_timeout(&job.spec));
    let _ = QueryTime::of(&job.spec.input, &caps, Some(Duration::from_millis(1)));
    let size = InputSize { documents: u64::MAX, bytes: u64::MAX };
    let _ = plan::split_count(&job.spec, size, 1, u32::MAX);
    let partitions = plan::partition_count(&job.spec, size, u32::MAX);
    let slots = BTreeMap::from([("s0".to_owned(), u32::MAX), ("s1".to_owned(), 0)]);
    assert_eq!(plan::reduce_on(partitions, &slots).len(), partitions as usize);
}

fn request(bytes: &[u8]) {
    let Ok(row) = RawDocumentBuf::from_bytes(bytes.to_vec()) else { return };
    let found = found(REQUESTS, "r".to_owned(), &row);
    if let Some(job) = &found.job {
        let _ = is_job_id(&JobId::from_text(job.as_str()));
    }
    let asked = match found.asked {
        Ok(asked) => asked,
        Err(malformed) => {
            let _ =
                Problem::of(&Error::Usage(malformed.why), malformed.field.as_deref()).document();
            return;
        }
    };
    match asked.sorted() {
        Err(error) => {
            let _ = Problem::of(&error, None).document();
        }
        Ok(Request { wish: Wish::Run(mut asked), .. }) => drafted(&mut asked),
        Ok(_) => {}
    }
}

fn drafted(asked: &mut Asked) {
    if job::translated(asked).is_err() {
        return;
    }
    match job::drafted("test", &JobId::from_text("j"), asked) {
        Err(fault) => {
            let _ = Problem::of(&fault.error, fault.field.as_deref()).document();
        }
        Ok(spec) => {
            let _ = (Caps::default().check(&spec), runs_script(&spec.input));
            let _ = bson::serialize_to_vec(&spec);
        }
    }
}

fn function(bytes: &[u8]) {
    let _ = (read::<FunctionName>(bytes), read::<FunctionRow>(bytes));
    let Some(function) = read::<StoredFunction>(bytes) else { return };
    let _ = function.is_intact();
    let chunks = u64::try_from(function.chunks.unwrap_or(0)).unwrap_or(u64::MAX);
    if within("chunks", chunks, FUNCTION_CHUNKS_MAX).is_ok() {
        assert!((0..chunks).count() <= 8);
    }
}

fn manifest(bytes: &[u8]) {
    if let Some(spec) = read::<JobSpec>(bytes) {
        let _ = spec.validate("test");
    }
    if let Some(result) = read::<TaskResult>(bytes) {
        let _ = bson::serialize_to_vec(&result);
        use_manifest(&result);
    }
}

fn use_manifest(result: &TaskResult) {
    let runs: u64 = result.parts.iter().map(|part| part.runs.len() as u64).sum();
    if within("runs", runs, RUNS_MAX).is_err() {
        return;
    }
    for part in &result.parts {
        let name = BlockName {
            shard: "s0".into(),
            job: JobId::from_text("j"),
            partition: part.p,
            n: part.apart,
            token: Token::from_text("t"),
            run: 0,
            seq: u32::MAX,
        };
        let _ = (name.id(), runs_document(&name, &part.runs));
    }
}

/// A block out of a short head and its data.
fn part(bytes: &[u8]) -> Option<Block> {
    let (head, data) = bytes.split_at_checked(8)?;
    let number = |at: usize| u32::from(u16::from_le_bytes([head[at], head[at + 1]]));
    // The numbers beside the data are anything up to the largest there are.
    let wide = u32::from(head[7]) << 16;
    let (seq, records, raw_bytes) = (number(0), number(2), number(4) | wide);
    Some(sealed(Block { seq, records, raw_bytes, crc32: 0, codec: head[6], data: data.to_vec() }))
}

/// With the right checksum, so that more than the checksum is tried.
fn sealed(mut block: Block) -> Block {
    if let Err(BlockError::Checksum { found, .. }) = block::decode(block.parts()) {
        block.crc32 = found;
    }
    block
}

fn decode(block: &Block) {
    if let Ok(decoded) = block::decode(block.parts()) {
        let _ = decoded.records().count();
        let _ = decoded.fragment();
    }
}

/// Some blocks, each after its length, as a reduce task merges them; a zero ends a run.
fn run_of_blocks(bytes: &[u8]) {
    struct Given(std::vec::IntoIter<Block>);
    impl RunSource for Given {
        fn next_block(&mut self) -> Result<Option<Block>, SourceError> {
            Ok(self.0.next())
        }
    }
    let (mut runs, mut open, mut rest) = (Vec::new(), Vec::new(), bytes);
    while let Some((len, after)) = rest.split_first_chunk::<2>() {
        let len = usize::from(u16::from_le_bytes(*len));
        let (one, after) = after.split_at(len.min(after.len()));
        rest = after;
        match part(one) {
            Some(mut block) => {
                // Of the right number, or the first that is not would be the last.
                block.seq = open.len() as u32;
                block.crc32 = 0;
                open.push(sealed(block));
            }
            None => runs.push(std::mem::take(&mut open)),
        }
        if runs.len() > 8 {
            break;
        }
    }
    runs.push(open);
    let sources = runs
        .into_iter()
        .map(|blocks| -> Box<dyn RunSource + Send> { Box::new(Given(blocks.into_iter())) })
        .collect();
    let Ok(mut merge) = Merge::new(sources, &MergeLimits::default()) else { return };
    while let Ok(true) = merge.next_group() {
        let _ = merge.key().to_string();
        while let Ok(Some(value)) = merge.next_value() {
            let _ = value.to_string();
        }
    }
}

fn stored_block(bytes: &[u8]) {
    let Ok(raw) = bson::RawDocument::from_bytes(bytes) else { return };
    let Some(block) = read_block(raw, 0) else { return };
    decode(&sealed(block));
}
