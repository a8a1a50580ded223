//! The lines that an attempt's functions log, written into the database in batches.
//!
//! Lines are for people: when they cannot be written, the task goes on without them.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::attempt::Attempt;
use crate::config;
use crate::store::logs::{LogBatch, LogLine};

/// Writes an attempt's lines every now and then until `ended`, and then the rest.
pub(super) async fn write(attempt: Arc<Attempt>, ended: CancellationToken) {
    let mut n = 0;
    loop {
        let over = tokio::select! {
            () = ended.cancelled() => true,
            () = attempt.lines.many() => false,
            () = tokio::time::sleep(config::LOG_PAUSE) => false,
        };
        let lines = attempt.lines.batch();
        let dropped = if over { attempt.lines.dropped() } else { 0 };
        if !lines.is_empty() || dropped > 0 {
            write_one(&attempt, n, lines, dropped).await;
            n += 1;
        }
        if over {
            return;
        }
    }
}

async fn write_one(attempt: &Attempt, n: i32, lines: Vec<LogLine>, dropped: i64) {
    // Without the lease, the job may already be finished or deleted.
    if attempt.lease.check().is_err() {
        return;
    }
    let task = &attempt.task;
    let batch = LogBatch {
        id: LogBatch::name(&task.id, task.epoch, &attempt.lease.token, n),
        kind: LogBatch::KIND.to_owned(),
        shard: task.shard.clone(),
        job: task.job.clone(),
        plan: task.plan,
        task: task.id.clone(),
        attempt: task.epoch,
        worker: task.worker.clone(),
        lines,
        dropped,
    };
    if let Err(error) = attempt.store.insert_log(&batch).await {
        tracing::warn!(task = %task.id, %error, lines = batch.lines.len(), "log lines are lost");
    }
}

/// How long the end of an attempt waits for its last lines to be written.
pub(super) const LAST_LINES_MAX: Duration = Duration::from_secs(5);
