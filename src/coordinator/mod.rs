//! The coordinator: a role, held by a lease, that moves jobs from state to state.
//!
//! Any number of processes may run it; one holds the role. It keeps nothing: each look reads the
//! open jobs and takes every arrow of the state diagram that can be taken. Each arrow is a
//! conditional update that names the epoch of the role, so a coordinator that was superseded and wakes up in
//! the middle can do no harm. It runs no function of a user's and publishes nothing: workers do.
//!
//! Reading order: [`crate::protocol::coordinate`] (what is decided), `reconcile` (doing it), `planning` and
//! [`plan`] (from an input to tasks), [`gc`] (leaving nothing behind).

mod answers;
pub mod gc;
mod intake;
pub mod plan;
mod planning;
mod reconcile;
mod wishes;

pub(crate) use planning::{refuse_missing, refuse_target};
pub(crate) use wishes::{cancelling_stopped, resume};

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::error::Result;
use crate::ids::{Token, WorkerId};
use crate::settings::Live;
use crate::store::Store;
use crate::store::coordinator_role::Role;
use crate::store::retry::{self, within};
use crate::store::watch::WakeFor;
use intake::Intake;
use reconcile::{Held, Looked, Reconciler};

/// Runs until `stop`. Errors of the database are waited out; the role is given back at the end. A `bell` is rung when there
/// may be something to do; without one, a change stream of the database is opened.
///
/// # Errors
/// None so far: database errors are waited out.
pub async fn run(
    store: Store,
    settings: Live,
    bell: Option<Arc<Notify>>,
    stop: CancellationToken,
) -> Result<()> {
    /// How often leftovers of zombies are looked for.
    const SWEEP_EVERY: Duration = Duration::from_secs(30);
    /// How often in a row a look at the jobs may fail before the role is left to others for a while.
    const FAILURES_MAX: u32 = 3;
    /// How often new shards are looked for, and changed settings.
    const LOOK_AROUND_EVERY: Duration = Duration::from_secs(5);
    /// A look that moved nothing on is followed by the next after so many times what it took, so that many changes cost a
    /// few looks. What moves on does so a few times only...
    const PAUSE_SHARE: u32 = 2;
    /// ...but no later than that...
    const PAUSE_MAX: Duration = Duration::from_millis(250);
    /// ...nor than this part of the time that the youngest job has taken so far: its end is noticed late by so much.
    const PAUSE_PART: u32 = 8;
    let id = WorkerId::generate(&crate::telemetry::host_name());
    let token = Token::generate();
    let (is_rung, bell) = (bell.is_some(), bell.unwrap_or_default());
    store.learn_settings(&settings, retry::ANSWER_MAX).await;
    if settings.now().watch && !is_rung {
        store.watch(WakeFor::Coordinator, bell.clone(), None, stop.child_token());
    }
    tracing::info!(coordinator = %id, db = store.db_name(), "coordinator started");
    if let Err(error) = store.refresh_validator().await {
        tracing::warn!(%error, "could not bring the collection's validator up to date; run aviary init");
    }
    let keeper = LeaderLease::start(&store, &id, &token, &settings, &stop);
    let mut intake = Intake::new(store.clone(), settings.clone());
    let mut reconciler = Reconciler::new(store.clone(), settings.clone(), keeper.role.clone());
    let sweeper = Arc::new(tokio::sync::Mutex::new(gc::Sweeper::new(store.clone())));
    let mut swept: Option<Instant> = None;
    let mut looked = Instant::now();
    let mut failures = 0;
    while !stop.is_cancelled() {
        if looked.elapsed() > LOOK_AROUND_EVERY {
            let looking = store.clone();
            let refresh = async move {
                looking.refresh_shards().await;
                Ok(())
            };
            if let Err(error) = within(retry::ANSWER_MAX, "look for new shards", refresh).await {
                tracing::debug!(%error, "could not look for new shards");
            }
            store.learn_settings(&settings, retry::ANSWER_MAX).await;
            looked = Instant::now();
        }
        let (began, mut looked_at) = (Instant::now(), Looked::Many);
        if keeper.role.epoch().is_some() {
            // What cannot be taken in now must not keep the jobs that run from going on.
            if let Err(error) = intake.look().await {
                tracing::warn!(%error, "could not look for requests; trying again");
            }
            match reconciler.look().await {
                Ok(found) => (failures, looked_at) = (0, found),
                Err(error) => {
                    failures += 1;
                    tracing::warn!(%error, failures, "could not tend the jobs; trying again");
                }
            }
            if failures >= FAILURES_MAX {
                // It can hold the role and not use it: another one may be better placed.
                failures = 0;
                keeper.step_aside();
            }
            if swept.is_none_or(|at| at.elapsed() > SWEEP_EVERY) {
                // It may take long, and jobs must not wait for it. While one is under way, no other begins.
                if let Ok(mut sweeping) = sweeper.clone().try_lock_owned() {
                    tokio::spawn(async move { sweeping.sweep().await });
                }
                swept = Some(Instant::now());
            }
        }
        let longest = match looked_at {
            Looked::Moved => Duration::ZERO,
            Looked::Still { youngest } => youngest / PAUSE_PART,
            Looked::Many => PAUSE_MAX,
        };
        let pause = (began.elapsed() * PAUSE_SHARE).min(PAUSE_MAX).min(longest);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => {}
        }
        let poll = Duration::from_millis(settings.now().poll_ms)
            .mul_f64(0.5 + rand::random::<f64>() / 2.0);
        tokio::select! {
            () = bell.notified() => {}
            () = keeper.changed.notified() => {}
            () = tokio::time::sleep(poll) => {}
            () = stop.cancelled() => {}
        }
    }
    keeper.ended().await;
    // The lease runs out by itself, so a database that is away does not hold the stop up.
    let db = store.db_name().to_owned();
    let giving_back = async move { store.release_role(&token).await };
    if let Err(error) = within(retry::ANSWER_MAX, "give the role back", giving_back).await {
        tracing::warn!(%error, "could not give the role back");
    }
    tracing::info!(coordinator = %id, db, "coordinator stopped");
    Ok(())
}

/// The role as far as this process knows.
#[derive(Clone, Default)]
struct Known(Arc<Mutex<Option<Role>>>);

impl Known {
    fn lock(&self) -> MutexGuard<'_, Option<Role>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held for Known {
    fn epoch(&self) -> Option<i64> {
        self.lock().as_ref().filter(|role| role.lease.is_trusted()).map(|role| role.epoch)
    }
}

/// Holds the role in the background, whatever else the process is busy with.
struct LeaderLease {
    role: Known,
    changed: Arc<Notify>,
    aside: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl LeaderLease {
    fn start(
        store: &Store,
        id: &WorkerId,
        token: &Token,
        settings: &Live,
        stop: &CancellationToken,
    ) -> Self {
        let role = Known::default();
        let changed = Arc::new(Notify::new());
        let (store, id, token, settings, stop) =
            (store.clone(), id.clone(), token.clone(), settings.clone(), stop.clone());
        let aside = Arc::new(AtomicBool::new(false));
        let (held, bell, stepping) = (role.clone(), changed.clone(), aside.clone());
        let task = tokio::spawn(async move {
            let mut had = None;
            while !stop.is_cancelled() {
                if stepping.swap(false, Ordering::AcqRel) {
                    // The lease runs out by itself, and nobody who waits for it may be slower than this one.
                    *held.lock() = None;
                    had = None;
                    let aside = Duration::from_millis(settings.now().lease_ttl_ms * 2);
                    tokio::select! {
                        () = tokio::time::sleep(aside) => {}
                        () = stop.cancelled() => {}
                    }
                    continue;
                }
                // The same for what is asked and for how long it may be trusted.
                let settings = settings.now();
                let asking = {
                    let (store, id, token) = (store.clone(), id.clone(), token.clone());
                    async move { ask(&store, &id, &token, &settings).await }
                };
                let mut pause = settings.renew_every();
                match within(retry::ANSWER_MAX, "hold the role of coordinator", asking).await {
                    Ok((now, again)) => {
                        pause = again;
                        let has = now.as_ref().map(|role| role.epoch);
                        *held.lock() = now;
                        if has != had {
                            tracing::info!(coordinator = %id, holds = has.is_some(), "role of coordinator");
                            had = has;
                            bell.notify_one();
                        }
                    }
                    // Trust goes on running out by itself.
                    Err(error) => tracing::warn!(%error, "could not hold the role of coordinator"),
                }
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = stop.cancelled() => {}
                }
            }
        });
        Self { role, changed, aside, task }
    }

    /// Leaves the role to others for a while.
    fn step_aside(&self) {
        *self.role.lock() = None;
        self.aside.store(true, Ordering::Release);
    }

    async fn ended(self) {
        // A panic in the keeper has been reported already.
        let _ = self.task.await;
    }
}

/// Asks for the role, and says when to ask again. Who does not get it asks when the lease of its holder ends, so
/// that a dead one is followed no later than that.
async fn ask(
    store: &Store,
    id: &WorkerId,
    token: &Token,
    settings: &Settings,
) -> Result<(Option<Role>, Duration)> {
    /// The lease has to be over for a moment; whoever comes too early asks again as soon.
    const MOMENT: Duration = Duration::from_millis(10);
    let every = settings.renew_every();
    let held = store.hold_role(id, token, settings).await?;
    if held.is_some() {
        return Ok((held, every));
    }
    let again = match store.role_lasts().await {
        Ok(left) => every.min(left + MOMENT),
        Err(error) => {
            tracing::debug!(%error, "could not learn how long the role is held");
            every
        }
    };
    Ok((None, again))
}
