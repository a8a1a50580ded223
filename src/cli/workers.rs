//! `aviary workers`.

use serde_json::json;

use super::args::Global;
use super::output;
use crate::config;
use crate::error::Result;
use crate::store::workers::WorkerRow;

pub(super) async fn run(global: &Global) -> Result<()> {
    let store = global.store("aviary-workers").await?;
    let listed = store.workers().await?;
    output::tell_unreadable(global, &listed.unreadable);
    let workers = listed.rows;
    if workers.is_empty() && listed.unreadable.is_empty() {
        output::hint_at_db(global, &store, "no workers");
    }
    let state = |w: &WorkerRow| if w.silent_ms > config::WORKER_GONE_MS { "gone" } else { "alive" };
    output::print_rows(
        global.format(),
        &workers,
        |w| w.id.trim_start_matches("worker/").to_owned(),
        |w| {
            json!({
                "id": w.id.trim_start_matches("worker/"),
                "state": state(w),
                "shard": w.shard,
                "host": w.host,
                "pid": w.pid,
                "slots": w.slots,
                "busy": w.busy,
                "version": w.version,
                "started": output::date(Some(w.started)),
                "seen": output::date(Some(w.seen)),
            })
        },
        &["worker", "state", "shard", "slots", "busy", "silent", "version"],
        |w| {
            vec![
                w.id.trim_start_matches("worker/").to_owned(),
                state(w).to_owned(),
                w.shard.clone(),
                w.slots.to_string(),
                w.busy.to_string(),
                format!("{}s", w.silent_ms / 1_000),
                w.version.clone(),
            ]
        },
    )
}
