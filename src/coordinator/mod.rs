//! The coordinator: a role, held by a lease, that moves jobs from state to state.
//!
//! Any number of processes may run it; one holds the role. It keeps nothing: each tick reads the
//! open jobs and takes every arrow of the state diagram that can be taken. Each arrow is a
//! conditional update, so a second coordinator that wakes up in the middle can do no harm.

mod complete;
pub mod plan;
pub mod publish;
pub mod sweep;
mod tick;

pub(crate) use tick::refuse_target;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::error::Result;
use crate::ids::{Token, WorkerId};
use crate::store::Store;
use crate::store::watch::WakeFor;
use crate::wasm::Host;

/// Runs until `stop`. Errors of the database are waited out; the role is given back at the end.
///
/// # Errors
/// None so far: database errors are waited out.
pub async fn run(
    store: Store,
    host: Host,
    settings: Settings,
    stop: CancellationToken,
) -> Result<()> {
    /// How often leftovers of zombies are looked for.
    const SWEEP_EVERY: Duration = Duration::from_secs(30);
    /// How often new shards are looked for.
    const LOOK_FOR_SHARDS_EVERY: Duration = Duration::from_secs(5);
    let id = WorkerId::generate(&crate::telemetry::host_name());
    let token = Token::generate();
    let bell = Arc::new(Notify::new());
    if settings.watch {
        store.watch(WakeFor::Coordinator, bell.clone(), stop.child_token());
    }
    tracing::info!(coordinator = %id, "coordinator started");
    let keeper = Keeper::start(&store, &id, &token, &settings, &stop);
    let mut swept: Option<Instant> = None;
    let mut looked = Instant::now();
    while !stop.is_cancelled() {
        if looked.elapsed() > LOOK_FOR_SHARDS_EVERY {
            store.refresh_shards().await;
            looked = Instant::now();
        }
        if keeper.holds() {
            if let Err(error) = tick::tick(&store, &host, &settings).await {
                tracing::warn!(%error, "the tick failed; trying again");
            }
            if swept.is_none_or(|at| at.elapsed() > SWEEP_EVERY) {
                if let Err(error) = sweep::sweep(&store).await {
                    tracing::warn!(%error, "the sweep failed; trying again");
                }
                swept = Some(Instant::now());
            }
        }
        let poll =
            Duration::from_millis(settings.poll_ms).mul_f64(0.5 + rand::random::<f64>() / 2.0);
        tokio::select! {
            () = bell.notified() => {}
            () = keeper.changed.notified() => {}
            () = tokio::time::sleep(poll) => {}
            () = stop.cancelled() => {}
        }
    }
    keeper.ended().await;
    // The lease runs out by itself, so a database that is away does not hold the stop up.
    if let Err(error) = store.release_role(&token).await {
        tracing::warn!(%error, "could not give the role back");
    }
    tracing::info!(coordinator = %id, "coordinator stopped");
    Ok(())
}

/// Holds the role in the background, whatever a tick is busy with.
struct Keeper {
    lease: Arc<std::sync::Mutex<Option<crate::task::Lease>>>,
    changed: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Keeper {
    fn start(
        store: &Store,
        id: &WorkerId,
        token: &Token,
        settings: &Settings,
        stop: &CancellationToken,
    ) -> Self {
        let lease = Arc::new(std::sync::Mutex::new(None));
        let changed = Arc::new(Notify::new());
        let (store, id, token, settings, stop) =
            (store.clone(), id.clone(), token.clone(), settings.clone(), stop.clone());
        let (held, bell) = (lease.clone(), changed.clone());
        let task = tokio::spawn(async move {
            let mut had = false;
            while !stop.is_cancelled() {
                match store.hold_role(&id, &token, &settings).await {
                    Ok(now) => {
                        let has = now.is_some();
                        if has != had {
                            tracing::info!(coordinator = %id, holds = has, "role of coordinator");
                            had = has;
                        }
                        *lock(&held) = now;
                        bell.notify_one();
                    }
                    // Trust goes on running out by itself.
                    Err(error) => tracing::warn!(%error, "could not hold the role of coordinator"),
                }
                tokio::select! {
                    () = tokio::time::sleep(settings.renew_every()) => {}
                    () = stop.cancelled() => {}
                }
            }
        });
        Self { lease, changed, task }
    }

    fn holds(&self) -> bool {
        lock(&self.lease).as_ref().is_some_and(crate::task::Lease::is_trusted)
    }

    async fn ended(self) {
        // A panic in the keeper has been reported already.
        let _ = self.task.await;
    }
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
