//! The loop: claim when a slot is free, run, sleep when there is nothing, drain when told to stop.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::doc;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::attempt::{self, Context};
use super::commits::Commits;
use super::slots::{Slots, SlotsOf};
use super::spills::Spills;
use crate::config;
use crate::error::Result;
use crate::ids::WorkerId;
use crate::job::requires;
use crate::settings::Live;
use crate::store::Store;
use crate::store::capabilities::Capabilities;
use crate::store::leases::{Claimed, Want};
use crate::store::retry::{self, within};
use crate::store::watch::WakeFor;
use crate::wasm::Host;

/// A task that was claimed ahead and not begun for so long is handed back: the ones before it take longer than was
/// thought.
const AHEAD_WAITS_MAX: Duration = Duration::from_millis(500);
/// Attempts that have given their slot back and are still being committed, at most.
const COMMITTING_MAX: usize = 64;
/// A worker of several databases whose turn has come may not have noticed it: it looks again after so long.
const LOOKED_AGAIN: Duration = Duration::from_millis(100);
/// What only a report or a warning depends on is not waited for longer.
const QUESTION_MAX: Duration = Duration::from_secs(10);
/// How long a worker that stops waits for a claim that is on its way. What it gets later runs out.
const LAST_CLAIM_MAX: Duration = Duration::from_secs(2);

/// What a worker is given.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// Tasks run at once, those of other databases that the process serves among them.
    pub slots: Slots,
    /// Leases and polling.
    pub settings: Live,
    /// The room for temporary files.
    pub spills: Spills,
    /// What is rung when there may be something to do; without it, a change stream of the database is opened.
    pub bell: Option<Arc<Notify>>,
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
    store.learn_settings(&options.settings, QUESTION_MAX).await;
    let (is_rung, bell) = (options.bell.is_some(), options.bell.unwrap_or_default());
    let (idle, is_idle) = watch::channel(true);
    if options.settings.now().watch && !is_rung {
        store.watch(WakeFor::Workers, bell.clone(), Some(is_idle), stop.child_token());
    }
    let slots = Arc::new(options.slots.of_database(store.db_name()));
    let reporter = Reporter {
        store: store.clone(),
        id: id.clone(),
        memory_mb: host.memory_bytes_max() >> 20,
        slots: options.slots.clone(),
        settings: options.settings.clone(),
    };
    let pulse = tokio::spawn(reporter.run(stop.child_token()));
    let (db, shard) = (store.db_name().to_owned(), store.served_name().to_owned());
    tracing::info!(worker = %id, db, slots = options.slots.count(), shard, "worker started");
    let context = Arc::new(Context {
        store: store.clone(),
        host,
        worker: id.clone(),
        settings: options.settings.clone(),
        stop: stop.clone(),
        specs: attempt::SpecCache::default(),
        commits: Commits::new(store.clone()),
        spills: options.spills,
    });
    let mut running = Work::new(context, slots, idle).until_stopped(&bell).await;
    tracing::info!(worker = %id, db, tasks = running.len(), "draining");
    while running.join_next().await.is_some() {}
    // The pulse ends with `stop`; a panic in it has been reported.
    let _ = pulse.await;
    // Its document goes away by itself, so a database that is away does not hold the stop up.
    if let Err(error) = store.worker_gone(&id).await {
        tracing::warn!(%error, "could not sign off");
    }
    tracing::info!(worker = %id, db, "worker stopped");
    Ok(())
}

/// Tasks that run, that are to run, and that are being claimed.
struct Work {
    context: Arc<Context>,
    slots: Arc<SlotsOf>,
    running: JoinSet<()>,
    /// Claimed ahead, with the time at which they were.
    queue: VecDeque<(Claimed, Instant)>,
    claiming: Option<BoxFuture<'static, Result<Vec<Claimed>>>>,
    /// What the claim on its way asks for.
    asked: usize,
    /// Whether there may be tasks that have not been seen.
    look: bool,
    /// Whether there is a slot to be filled, and nothing to fill it with.
    idle: watch::Sender<bool>,
}

impl Work {
    fn new(context: Arc<Context>, slots: Arc<SlotsOf>, idle: watch::Sender<bool>) -> Self {
        Self {
            context,
            slots,
            running: JoinSet::new(),
            queue: VecDeque::new(),
            claiming: None,
            asked: 0,
            look: true,
            idle,
        }
    }

    /// Claims and runs tasks until the worker is to stop. Returns those that still run.
    async fn until_stopped(mut self, bell: &Notify) -> JoinSet<()> {
        let (stop, slots) = (self.context.stop.clone(), self.slots.clone());
        while !stop.is_cancelled() {
            self.hand_back_late(AHEAD_WAITS_MAX);
            self.begin();
            self.look_for_more();
            let poll = Duration::from_millis(self.context.settings.now().poll_ms)
                .mul_f64(0.5 + rand::random::<f64>() / 2.0);
            slots.want(self.look || self.claiming.is_some() || !self.queue.is_empty());
            let has_room = slots.free() > 0;
            // A slot that another database's task gives back is waited for too.
            let may_look = has_room || slots.are_shared();
            let is_idle = may_look && self.queue.is_empty();
            self.idle.send_if_modified(|before| std::mem::replace(before, is_idle) != is_idle);
            let waits_for_slot = !self.queue.is_empty() || self.look && self.claiming.is_none();
            tokio::select! {
                claimed = claimed(&mut self.claiming) => self.take(claimed),
                Some(ended) = self.running.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "an attempt panicked; its lease will run out");
                    }
                    // Something may be ready that was not before.
                    self.look = true;
                }
                () = slots.wait(), if waits_for_slot && !has_room => {}
                // Between the two looks at it, a slot may have become free.
                () = tokio::time::sleep(LOOKED_AGAIN), if waits_for_slot && slots.are_shared() => {}
                () = tokio::time::sleep(AHEAD_WAITS_MAX), if !self.queue.is_empty() => {}
                () = bell.notified(), if may_look => self.look = true,
                () = tokio::time::sleep(poll), if may_look => self.look = true,
                () = stop.cancelled() => {}
            }
        }
        // A claim on its way may have got something.
        if self.claiming.is_some()
            && let Ok(Ok(claimed)) =
                tokio::time::timeout(LAST_CLAIM_MAX, claimed(&mut self.claiming)).await
        {
            self.queue.extend(claimed.into_iter().map(|task| (task, Instant::now())));
        }
        self.hand_back_late(Duration::ZERO);
        self.running
    }

    /// Begins what has been claimed, as far as there are slots.
    fn begin(&mut self) {
        while self.running.len() < self.slots.busy() + COMMITTING_MAX
            && !self.queue.is_empty()
            && let Some(slot) = self.slots.take()
            && let Some((task, _)) = self.queue.pop_front()
        {
            let context = self.context.clone();
            self.running.spawn(async move { attempt::run(&context, task, slot).await });
        }
    }

    /// Claims more where it is time to.
    fn look_for_more(&mut self) {
        if !self.look || self.claiming.is_some() {
            return;
        }
        let ahead = self.slots.ahead();
        let now = self.slots.free().saturating_sub(self.queue.len());
        // Half of them are left when it is time for more.
        if now == 0 && self.queue.len() * 2 >= ahead {
            return;
        }
        let want = Want { now, ahead: ahead.saturating_sub(self.queue.len()) };
        (self.asked, self.look) = (now, false);
        let (store, worker) = (self.context.store.clone(), self.context.worker.clone());
        let settings = self.context.settings.now();
        let claiming = async move { store.claim(&worker, want, &settings).await };
        // A claim whose answer is late is one whose lease runs out.
        self.claiming = Some(within(retry::ANSWER_MAX, "claim tasks", claiming).boxed());
    }

    fn take(&mut self, claimed: Result<Vec<Claimed>>) {
        self.claiming = None;
        match claimed {
            Ok(tasks) => {
                // There is more where these came from.
                self.look |= !tasks.is_empty() && tasks.len() >= self.asked;
                let now = Instant::now();
                self.queue.extend(tasks.into_iter().map(|task| (task, now)));
            }
            Err(error) => tracing::warn!(%error, "could not claim; trying again"),
        }
    }

    /// Hands back what was claimed so long ago without being begun.
    fn hand_back_late(&mut self, after: Duration) {
        while let Some((task, _)) = self.queue.pop_front_if(|(_, since)| since.elapsed() >= after) {
            let store = self.context.store.clone();
            self.running.spawn(async move { attempt::hand_back(&store, &task.lease).await });
        }
    }
}

/// What a claim that is on its way brings. Never, if none is.
async fn claimed(
    claiming: &mut Option<BoxFuture<'static, Result<Vec<Claimed>>>>,
) -> Result<Vec<Claimed>> {
    match claiming {
        Some(claiming) => claiming.await,
        None => std::future::pending().await,
    }
}

/// Finds out whether the link to the own shard may be trusted. While it may not, the router serves.
async fn verify(store: &Store) {
    if let Err(error) = store.verify_placement().await {
        tracing::warn!(%error, "could not verify where Aviary's collections are");
    }
}

/// Says every few seconds that the worker is alive.
struct Reporter {
    store: Store,
    id: WorkerId,
    slots: Slots,
    memory_mb: usize,
    settings: Live,
}

impl Reporter {
    async fn run(self, stop: CancellationToken) {
        /// What the deployment can do changes seldom, and takes a question to each member: so many reports.
        const ASKED_EVERY: u32 = 120;
        const COMPARED_EVERY: u32 = 12;
        let slots = i32::try_from(self.slots.count()).unwrap_or(i32::MAX);
        let (mut reports, mut can, mut apart) = (0_u32, None::<Capabilities>, false);
        let mut learning: Option<JoinHandle<()>> = None;
        while !stop.is_cancelled() {
            // Of a database that is not set up yet, nobody can tell whether it reads snapshots. It soon will be.
            let is_known = can.as_ref().is_some_and(|can| can.snapshots.is_some());
            if reports.is_multiple_of(ASKED_EVERY) || !is_known && reports.is_power_of_two() {
                can = self.ask().await.or(can);
            }
            if reports.is_multiple_of(COMPARED_EVERY) {
                apart = self.compare_clocks(apart).await;
            }
            reports = reports.wrapping_add(1);
            let mut facts = doc! {
                "host": crate::telemetry::host_name(),
                "pid": i64::from(std::process::id()),
                "slots": slots,
                "busy": i32::try_from(self.slots.busy()).unwrap_or(i32::MAX),
                "memory_mb": i64::try_from(self.memory_mb).unwrap_or(i64::MAX),
                "version": env!("CARGO_PKG_VERSION"),
                "level": requires::level(),
            };
            if let Some(can) = &mut can {
                can.link = self.store.link();
                facts.insert("can", can.document());
            }
            let (store, id) = (self.store.clone(), self.id.clone());
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
            // Reports must not wait for it.
            if learning.as_ref().is_none_or(JoinHandle::is_finished) {
                let (store, settings) = (self.store.clone(), self.settings.clone());
                learning = Some(tokio::spawn(async move {
                    store.learn_settings(&settings, QUESTION_MAX).await
                }));
            }
            tokio::select! {
                () = tokio::time::sleep(config::WORKER_REPORTS_EVERY) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// What the deployment can do, if it says so in time.
    async fn ask(&self) -> Option<Capabilities> {
        let store = self.store.clone();
        let asking = async move { Ok(store.capabilities().await) };
        within(QUESTION_MAX, "ask what the deployment can do", asking).await.ok()
    }

    /// Warns, once, when the router's clock and the own shard's are too far apart. Says whether they are.
    async fn compare_clocks(&self, were_apart: bool) -> bool {
        let store = self.store.clone();
        let asking = async move { store.clocks_apart().await };
        let Ok(Some(told)) = within(QUESTION_MAX, "compare clocks", asking).await else {
            return were_apart;
        };
        // Clocks that differ by more make leases worth less.
        let margin = Duration::from_millis(self.settings.now().lease_margin_ms);
        let are_apart = told.by > margin;
        if are_apart && !were_apart {
            tracing::warn!(
                by_ms = told.by.as_millis(),
                router_is_ahead = told.router_is_ahead,
                "the clocks of the router and of the own shard's server differ by more than leases allow for, so tasks \
                 are taken from workers that still run them; synchronize the servers' clocks (NTP)"
            );
        }
        are_apart
    }
}
