//! Documents that the database could hold in place of ours, mutated: tasks, jobs, functions, blocks. Each is read as a
//! worker or coordinator reads it and then used.

use aviary::ids::TaskId;
use aviary::job::{Job, JobEvent, JobSpec};
use aviary::shuffle::block::{self, BlockError, BlockParts};
use aviary::store::functions::StoredFunction;
use aviary::task::{Task, TaskResult};
use aviary::worker::loader::Surroundings;
use serde::de::DeserializeOwned;

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    bson::deserialize_from_slice(bytes).ok()
}

/// One document; its first byte says what it is taken for.
pub fn run(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 5 {
        0 => {
            let Some(task) = read::<Task>(bytes) else { return };
            let _ = task.id.short();
            let _ = bson::serialize_to_vec(&task);
        }
        1 => {
            let Some(job) = read::<Job>(bytes) else { return };
            let _ = job.spec.validate("test");
            let _ = job.spec.digests();
            let _ = job.reducing_shard(0);
            let _ = job.state.after(JobEvent::CancelRequested);
            let _ = Surroundings::of(&job, &TaskId::map(&job.id, 1, 0));
            let _ = bson::serialize_to_vec(&job);
        }
        2 => {
            let Some(function) = read::<StoredFunction>(bytes) else { return };
            let _ = function.is_intact();
        }
        3 => {
            if let Some(spec) = read::<JobSpec>(bytes) {
                let _ = spec.validate("test");
            }
            if let Some(result) = read::<TaskResult>(bytes) {
                let _ = bson::serialize_to_vec(&result);
            }
        }
        _ => {
            let Some((head, data)) = bytes.split_at_checked(8) else { return };
            let number = |at: usize| u32::from(u16::from_le_bytes([head[at], head[at + 1]]));
            let mut parts = BlockParts {
                seq: number(0),
                records: number(2),
                raw_bytes: number(4),
                crc32: 0,
                codec: head[6],
                data,
            };
            // With the right checksum, so that more than the checksum is tried.
            if let Err(BlockError::Checksum { found, .. }) = block::decode(parts) {
                parts.crc32 = found;
            }
            if let Ok(decoded) = block::decode(parts) {
                let _ = decoded.records().count();
                let _ = decoded.fragment();
            }
        }
    }
}
