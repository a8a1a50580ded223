//! `aviary workers`.

use serde_json::json;

use super::args::{Format, Global};
use super::output;
use crate::config;
use crate::error::Result;
use crate::store::workers::WorkerRow;

pub(super) async fn run(global: &Global) -> Result<()> {
    let store = global.store("aviary-workers").await?;
    let listed = store.workers().await?;
    output::tell_unreadable(global, &listed.unreadable);
    let mut workers = listed.rows;
    if global.format() != Format::Json {
        workers.retain(|worker| worker.silent_ms <= config::WORKER_LISTED_MS);
    }
    if workers.is_empty() && listed.unreadable.is_empty() {
        output::hint_at_db(global, &store, "no workers");
    }
    let state = |w: &WorkerRow| if w.is_alive() { "alive" } else { "gone" };
    // What one that is gone has said last is not so any more.
    let busy = |w: &WorkerRow| if w.is_alive() { w.busy.to_string() } else { "-".to_owned() };
    output::print_rows(
        global.format(),
        &workers,
        |w| w.name().to_owned(),
        |w| {
            json!({
                "id": w.name(),
                "state": state(w),
                "shard": w.shard,
                "host": w.host,
                "pid": w.pid,
                "slots": w.slots,
                "busy": w.busy,
                "memory_mb": w.memory_mb,
                "can": w.can.clone().map(|can| output::ejson(&can.into())),
                "version": w.version,
                "started": output::date(Some(w.started)),
                "seen": output::date(Some(w.seen)),
            })
        },
        &["worker", "state", "shard", "slots", "busy", "silent", "version"],
        |w| {
            vec![
                w.name().to_owned(),
                state(w).to_owned(),
                w.shard.clone(),
                w.slots.to_string(),
                busy(w),
                format!("{}s", w.silent_ms / 1_000),
                w.version.clone(),
            ]
        },
    )
}
