//! What can be told about a job before it runs: that nobody will run it, or that it may take longer than
//! the servers keep its snapshot.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::config;
use crate::error::Result;
use crate::job::{Job, ReadMode};
use crate::store::Store;
use crate::store::workers::WorkerRow;
use crate::terminal::tell;

/// Warns on standard error.
///
/// # Errors
/// [`Error::Store`](crate::error::Error::Store).
pub(super) async fn warn(store: &Store, job: &Job, input_bytes: u64) -> Result<()> {
    let (alive, has_coordinator) = awake(store).await?;
    missing_workers(store, job, &alive).await?;
    missing_memory(store, job, &alive);
    if !has_coordinator {
        tell!("{}", store.missing("coordinator"));
    }
    if job.spec.input.read == ReadMode::Snapshot {
        long_job(store, job, input_bytes, &alive).await?;
    }
    Ok(())
}

/// The workers that are alive, and whether there is a coordinator. Those that serve every database have to wake, where
/// nothing has happened for a while.
async fn awake(store: &Store) -> Result<(Vec<WorkerRow>, bool)> {
    const WAKES_WITHIN: Duration = Duration::from_secs(2);
    const LOOK_EVERY: Duration = Duration::from_millis(50);
    let began = Instant::now();
    loop {
        let workers = store.workers().await?.rows;
        let alive: Vec<WorkerRow> = workers.into_iter().filter(WorkerRow::is_alive).collect();
        let has_coordinator = store.has_coordinator().await?;
        if !alive.is_empty() && has_coordinator || began.elapsed() > WAKES_WITHIN {
            return Ok((alive, has_coordinator));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Workers leave a job to others that asks for more memory than they give, and so may all of them.
fn missing_memory(store: &Store, job: &Job, alive: &[WorkerRow]) {
    let wanted = i64::try_from(job.spec.limits.memory_mb).unwrap_or(i64::MAX);
    let most = alive.iter().map(|worker| worker.memory_mb.unwrap_or(i64::MAX)).max();
    if let Some(most) = most.filter(|most| *most < wanted) {
        tell!(
            "no worker gives a function the {wanted} MiB that the job asks for ({most} MiB at most), so it will \
             wait; start one with: aviary worker -d {} --memory-mb {wanted}",
            store.db_name()
        );
    }
}

/// A job that nobody will run should not look like a slow one.
async fn missing_workers(store: &Store, job: &Job, alive: &[WorkerRow]) -> Result<()> {
    if alive.is_empty() {
        tell!("{}", store.missing("worker"));
        return Ok(());
    }
    let served: BTreeSet<&str> = alive.iter().map(|worker| worker.shard.as_str()).collect();
    if served.contains(store.home()) {
        return Ok(());
    }
    // A shard that has no part of the input is not waited for.
    let holding: Vec<String> = match store.input_by_shard(&job.spec.input).await {
        Ok(by_shard) => by_shard.into_keys().collect(),
        Err(_) => store.shards().await?.into_iter().map(|shard| shard.name).collect(),
    };
    let idle: Vec<&str> =
        holding.iter().map(String::as_str).filter(|shard| !served.contains(shard)).collect();
    if !idle.is_empty() {
        let (which, whose) = match idle.as_slice() {
            [one] => (format!("the shard {one}"), "its"),
            several => (format!("the shards {}", several.join(", ")), "each one's"),
        };
        tell!(
            "no worker serves {which}, and {whose} part of the input will wait; start one there \
             with: aviary worker --shard-uri URI"
        );
    }
    Ok(())
}

/// A job that would fail after an hour because its snapshot is gone should say so at once.
async fn long_job(store: &Store, job: &Job, input_bytes: u64, alive: &[WorkerRow]) -> Result<()> {
    let slots = |serves: &dyn Fn(&WorkerRow) -> bool| -> u64 {
        let slots = |worker: &WorkerRow| u64::try_from(worker.slots).unwrap_or(0);
        alive.iter().filter(|worker| serves(worker)).map(slots).sum()
    };
    let before = store.last_run_of(&job.spec.map.digest).await?;
    let mut expected = expected(input_bytes, slots(&|_| true), before);
    if store.is_sharded() && before.is_none() {
        // What one shard holds, only the workers that serve it will read.
        for (shard, bytes) in store.input_by_shard(&job.spec.input).await? {
            let slots = slots(&|worker| worker.shard == shard || worker.shard == store.home());
            expected = expected.max(self::expected(bytes, slots, None));
        }
    }
    // Asking every member is for nothing when no window could be too short.
    if expected < SURELY_SHORT {
        return Ok(());
    }
    let window = store.history_window().await?;
    if expected > window {
        tell!(
            "this job may take about {}, and the servers keep its snapshot for {} only \
             (minSnapshotHistoryWindowInSeconds); raise that with: aviary init --history-window {}m; \
             or submit with --read committed",
            humantime::format_duration(expected),
            humantime::format_duration(window),
            // Twice as long, in whole minutes.
            (expected.as_secs() * 2).div_ceil(60),
        );
    }
    Ok(())
}

/// No server's history is so short that such a job would outlast it.
const SURELY_SHORT: Duration = Duration::from_secs(1);

/// How long a job over so many bytes may take, in whole seconds: as long as the same function took
/// for a byte before, else at [`config::MAP_BYTES_PER_SECOND`] for each slot.
fn expected(input_bytes: u64, slots: u64, before: Option<(u64, Duration)>) -> Duration {
    let per_second = match before {
        Some((bytes, took)) if bytes > 0 && !took.is_zero() => {
            (bytes as f64 / took.as_secs_f64()).max(1.0)
        }
        _ => (config::MAP_BYTES_PER_SECOND * slots.max(1)) as f64,
    };
    Duration::from_secs((input_bytes as f64 / per_second) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_expected_to_be_as_fast_as_it_was() {
        let minute = Duration::from_secs(60);
        assert_eq!(expected(6_000, 1, Some((1_000, minute))), minute * 6);
        assert_eq!(expected(6_000, 8, Some((1_000, minute))), minute * 6);
    }

    #[test]
    fn an_unknown_function_is_expected_to_be_as_fast_as_there_are_slots() {
        let bytes = config::MAP_BYTES_PER_SECOND * 120;
        assert_eq!(expected(bytes, 1, None), Duration::from_secs(120));
        assert_eq!(expected(bytes, 0, None), Duration::from_secs(120));
        assert_eq!(expected(bytes, 4, None), Duration::from_secs(30));
        assert_eq!(expected(bytes, 1, Some((0, Duration::ZERO))), Duration::from_secs(120));
    }
}
