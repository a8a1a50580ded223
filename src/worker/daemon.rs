//! The loop: claim when a slot is free, run, sleep when there is nothing, drain when told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use bson::doc;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::attempt::{self, Context};
use super::spills::Spills;
use crate::config::{self, Settings};
use crate::error::Result;
use crate::ids::WorkerId;
use crate::store::Store;
use crate::store::leases::Claimed;
use crate::store::retry::{self, within};
use crate::store::watch::WakeFor;
use crate::wasm::Host;

/// What a worker is given.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// Tasks run at once.
    pub slots: usize,
    /// Leases and polling.
    pub settings: Settings,
    /// The room for temporary files.
    pub spills: Spills,
}

/// Runs until `stop`, then hands back what it holds and returns.
///
/// # Errors
/// None so far: database errors are waited out.
pub async fn run(
    store: Store,
    host: Host,
    options: WorkerOptions,
    stop: CancellationToken,
) -> Result<()> {
    let id = WorkerId::generate(&crate::telemetry::host_name());
    verify(&store).await;
    let bell = Arc::new(Notify::new());
    if options.settings.watch {
        store.watch(WakeFor::Workers, bell.clone(), stop.child_token());
    }
    let busy = Arc::new(AtomicI32::new(0));
    let pulse = tokio::spawn(report(
        store.clone(),
        id.clone(),
        options.slots,
        host.memory_bytes_max() >> 20,
        busy.clone(),
        stop.child_token(),
    ));
    tracing::info!(worker = %id, slots = options.slots, shard = store.served_name(), "worker started");
    let context = Arc::new(Context {
        store: store.clone(),
        host,
        worker: id.clone(),
        settings: options.settings.clone(),
        stop: stop.clone(),
        specs: attempt::SpecCache::default(),
        spills: options.spills,
    });
    let mut running: JoinSet<()> = JoinSet::new();
    while !stop.is_cancelled() {
        let free = options.slots.saturating_sub(running.len());
        let mut claimed = 0;
        if free > 0 {
            match claim(&context, free).await {
                Ok(tasks) => {
                    claimed = tasks.len();
                    for task in tasks {
                        busy.fetch_add(1, Ordering::AcqRel);
                        let (context, busy) = (context.clone(), busy.clone());
                        running.spawn(async move {
                            attempt::run(&context, task).await;
                            busy.fetch_sub(1, Ordering::AcqRel);
                        });
                    }
                }
                Err(error) => tracing::warn!(%error, "could not claim; trying again"),
            }
        }
        if claimed > 0 && running.len() < options.slots {
            continue;
        }
        let poll = Duration::from_millis(options.settings.poll_ms)
            .mul_f64(0.5 + rand::random::<f64>() / 2.0);
        tokio::select! {
            Some(ended) = running.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "an attempt panicked; its lease will run out");
                    busy.fetch_sub(1, Ordering::AcqRel);
                }
            }
            () = bell.notified(), if running.len() < options.slots => {}
            () = tokio::time::sleep(poll), if running.len() < options.slots => {}
            () = stop.cancelled() => {}
        }
    }
    tracing::info!(worker = %id, tasks = running.len(), "draining");
    while running.join_next().await.is_some() {}
    // The pulse ends with `stop`; a panic in it has been reported.
    let _ = pulse.await;
    // Its document goes away by itself, so a database that is away does not hold the stop up.
    if let Err(error) = store.worker_gone(&id).await {
        tracing::warn!(%error, "could not sign off");
    }
    tracing::info!(worker = %id, "worker stopped");
    Ok(())
}

/// Claims tasks. A claim whose answer is late is one whose lease runs out.
async fn claim(context: &Context, want: usize) -> Result<Vec<Claimed>> {
    let (store, worker) = (context.store.clone(), context.worker.clone());
    let settings = context.settings.clone();
    let claiming = async move { store.claim(&worker, want, &settings).await };
    within(retry::ANSWER_MAX, "claim tasks", claiming).await
}

/// Finds out whether the link to the own shard may be trusted. While it may not, the router serves.
async fn verify(store: &Store) {
    if let Err(error) = store.verify_placement().await {
        tracing::warn!(%error, "could not verify where Aviary's collections are");
    }
}

/// Says every few seconds that the worker is alive.
async fn report(
    store: Store,
    id: WorkerId,
    slots: usize,
    memory_mb: usize,
    busy: Arc<AtomicI32>,
    stop: CancellationToken,
) {
    let slots = i32::try_from(slots).unwrap_or(i32::MAX);
    while !stop.is_cancelled() {
        let facts = doc! {
            "host": crate::telemetry::host_name(),
            "pid": i64::from(std::process::id()),
            "slots": slots,
            "busy": busy.load(Ordering::Acquire),
            "memory_mb": i64::try_from(memory_mb).unwrap_or(i64::MAX),
            "version": env!("CARGO_PKG_VERSION"),
        };
        let (store, id) = (store.clone(), id.clone());
        let reporting = async move {
            // Since the last time, Aviary's collections may have been set up, or moved: what is filed under a
            // shard that is being drained lives on another, where a worker that still asked its own would
            // never find it.
            verify(&store).await;
            // A shard may have been added; a worker that serves them all has to ask for its tasks too.
            store.refresh_shards().await;
            store.worker_alive(&id, facts).await
        };
        if let Err(error) = within(retry::ANSWER_MAX, "report alive", reporting).await {
            tracing::debug!(%error, "could not report alive");
        }
        tokio::select! {
            () = tokio::time::sleep(config::WORKER_REPORTS_EVERY) => {}
            () = stop.cancelled() => {}
        }
    }
}
