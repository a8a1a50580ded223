//! Slots: which database each free one goes to, for how long tasks hold them, and how many tasks are worth claiming ahead.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::ids::JobId;
use crate::protocol::shares::{Contender, Shares, Ticket};
use crate::store::charge::Charge;

/// Tasks claimed ahead at most.
const AHEAD_MAX: usize = 64;
/// Tasks are claimed ahead for so long: what they wait for costs others nothing that they would notice.
const AHEAD: Duration = Duration::from_millis(60);
/// A task counts for so much of the mean.
const PART: f64 = 0.2;

/// The slots of a worker process, for all databases that it serves. Clones share them.
#[derive(Debug, Clone)]
pub struct Slots(Arc<All>);

#[derive(Debug)]
struct All {
    count: usize,
    turns: Mutex<Turns>,
    /// A slot became free, or a database wants one no longer.
    changed: Notify,
    start: Instant,
}

/// Slots go round among databases as they do among the clients of one.
#[derive(Debug, Default)]
struct Turns {
    shares: Shares,
    /// How many databases are served.
    databases: usize,
    busy: usize,
    wanting: BTreeSet<String>,
}

/// The slots as one database sees them.
pub(super) struct SlotsOf {
    all: Slots,
    db: String,
    /// Microseconds that its tasks hold a slot, in the mean of late. 0 as long as none has ended.
    mean_us: Arc<AtomicU64>,
}

/// A slot that a task holds while it computes. The commit needs none.
pub(super) struct Slot {
    held: Mutex<Option<(Held, Option<Charge>)>>,
    since: Instant,
    mean_us: Arc<AtomicU64>,
}

/// Gives the slot back when it is dropped.
struct Held {
    all: Slots,
    ticket: Ticket,
}

impl Slots {
    /// So many.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self(Arc::new(All {
            count,
            turns: Mutex::default(),
            changed: Notify::new(),
            start: Instant::now(),
        }))
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.count
    }

    /// How many tasks hold one.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.lock().busy
    }

    pub(super) fn of_database(&self, db: &str) -> SlotsOf {
        self.lock().databases += 1;
        SlotsOf { all: self.clone(), db: db.to_owned(), mean_us: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Turns> {
        self.0.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.0.start.elapsed()
    }
}

impl Turns {
    /// How many of the free slots are this database's now. The others are those of databases whose turn it is.
    fn room(&mut self, db: &str, count: usize, now: Duration) -> usize {
        let free = count.saturating_sub(self.busy);
        if free == 0 || self.wanting.iter().all(|other| other == db) {
            return free;
        }
        let wanting = self.wanting.iter().filter(|other| *other != db).map(String::as_str);
        let contenders: Vec<Contender> =
            wanting.chain([db]).map(|db| contender(db, free)).collect();
        let own = contenders.len() - 1;
        let places = self.shares.assign(&contenders, free, now);
        places.into_iter().filter(|place| *place == own).count()
    }
}

/// A database that may have so many tasks.
fn contender(db: &str, tasks: usize) -> Contender {
    Contender {
        job: JobId::from_text(db),
        client: db.to_owned(),
        priority: 0,
        publishes: false,
        tasks,
    }
}

impl SlotsOf {
    /// Free slots that are this database's turn.
    pub(super) fn free(&self) -> usize {
        let now = self.all.now();
        self.all.lock().room(&self.db, self.all.0.count, now)
    }

    /// Whether other databases are served too, so that slots may become free that none of this one's tasks held.
    pub(super) fn are_shared(&self) -> bool {
        self.all.lock().databases > 1
    }

    /// How many tasks hold a slot, of whatever database.
    pub(super) fn busy(&self) -> usize {
        self.all.busy()
    }

    /// Whether the database may have tasks that slots are wanted for. While it does, its turn is kept for it.
    pub(super) fn want(&self, wants: bool) {
        let mut turns = self.all.lock();
        let changed = match wants {
            true => turns.wanting.insert(self.db.clone()),
            false => turns.wanting.remove(&self.db),
        };
        drop(turns);
        if changed && !wants {
            self.all.0.changed.notify_waiters();
        }
    }

    /// Takes a slot, if one is free and it is this database's turn.
    pub(super) fn take(&self) -> Option<Arc<Slot>> {
        let now = self.all.now();
        let mut turns = self.all.lock();
        if turns.room(&self.db, self.all.0.count, now) == 0 {
            return None;
        }
        turns.busy += 1;
        let ticket = turns.shares.took(&contender(&self.db, 1), now);
        drop(turns);
        Some(Arc::new(Slot {
            held: Mutex::new(Some((Held { all: self.all.clone(), ticket }, None))),
            since: Instant::now(),
            mean_us: self.mean_us.clone(),
        }))
    }

    /// Waits until a slot is free, and it is this database's turn.
    pub(super) async fn wait(&self) {
        loop {
            let changed = self.all.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.free() > 0 {
                return;
            }
            changed.await;
        }
    }

    /// How many tasks to have beside those that run: as many as will be begun soon, if they are like those before.
    pub(super) fn ahead(&self) -> usize {
        ahead(self.all.0.count, self.mean_us.load(Ordering::Relaxed))
    }
}

impl Drop for SlotsOf {
    fn drop(&mut self) {
        self.all.lock().databases -= 1;
        self.want(false);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let now = self.all.now();
        let mut turns = self.all.lock();
        turns.busy = turns.busy.saturating_sub(1);
        turns.shares.ended(self.ticket, now);
        drop(turns);
        self.all.0.changed.notify_waiters();
    }
}

fn ahead(slots: usize, mean_us: u64) -> usize {
    if mean_us == 0 {
        return 0;
    }
    let each = u64::try_from(AHEAD.as_micros()).unwrap_or(u64::MAX) / mean_us;
    usize::try_from(each).unwrap_or(usize::MAX).saturating_mul(slots).min(AHEAD_MAX)
}

impl Slot {
    /// Charges the time until the slot is free.
    pub(super) fn charge(&self, charge: Charge) {
        charge.begin();
        if let Some((_, of_task)) = &mut *self.held.lock().unwrap_or_else(PoisonError::into_inner) {
            *of_task = Some(charge);
        }
    }

    /// Gives the slot to the next task. The second time there is nothing to be given.
    pub(super) fn free(&self) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        if held.is_none() {
            return;
        }
        let us = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        let next = |before: u64| match before {
            0 => Some(us.max(1)),
            before => Some((before as f64 * (1.0 - PART) + us as f64 * PART).max(1.0) as u64),
        };
        // The update always gives a value.
        let _ = self.mean_us.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_tasks_are_claimed_ahead() {
        assert_eq!(ahead(2, 0), 0, "nothing is known");
        assert_eq!(ahead(2, 1_000_000), 0);
        assert_eq!(ahead(2, 61_000), 0);
        assert_eq!(ahead(2, 20_000), 6);
        assert_eq!(ahead(2, 1), AHEAD_MAX);
    }

    #[test]
    fn a_slot_is_freed_once() {
        let all = Slots::new(1);
        let slots = all.of_database("a");
        let slot = slots.take().expect("one is free");
        assert!(slots.take().is_none());
        assert_eq!((slots.free(), all.busy()), (0, 1));
        slot.free();
        slot.free();
        assert_eq!((slots.free(), all.busy()), (1, 0));
        assert!(slots.mean_us.load(Ordering::Relaxed) > 0);
    }

    #[test]
    fn a_database_alone_has_all_slots_and_shares_them_with_one_that_wants_some() {
        let all = Slots::new(4);
        let (a, b) = (all.of_database("a"), all.of_database("b"));
        a.want(true);
        assert_eq!(a.free(), 4);
        b.want(true);
        assert_eq!((a.free(), b.free()), (2, 2));
        let held: Vec<_> = std::iter::from_fn(|| a.take()).collect();
        assert_eq!((held.len(), a.free(), b.free()), (2, 0, 2), "b's turn is kept for it");
        b.want(false);
        assert_eq!(a.free(), 2);
        b.want(true);
        assert_eq!(b.free(), 2);
        drop(b);
        assert_eq!(a.free(), 2, "who is gone wants nothing");
    }

    #[test]
    fn each_database_gets_its_turn() {
        let all = Slots::new(1);
        let of: Vec<SlotsOf> = ["a", "b", "c"].map(|db| all.of_database(db)).into();
        of.iter().for_each(|slots| slots.want(true));
        let mut turns = [0; 3];
        for _ in 0..300 {
            let whose = of.iter().position(|slots| slots.free() > 0).expect("it is someone's turn");
            let slot = of[whose].take().expect("a slot");
            std::thread::sleep(Duration::from_micros(200));
            slot.free();
            turns[whose] += 1;
        }
        assert!(turns.iter().all(|turns| *turns > 0), "{turns:?}");
    }

    #[tokio::test]
    async fn who_waits_is_woken_when_it_is_its_turn() {
        let all = Slots::new(1);
        let (a, b) = (all.of_database("a"), all.of_database("b"));
        let slot = a.take().expect("one is free");
        b.want(true);
        let waiting = tokio::spawn(async move {
            b.wait().await;
            b.take().is_some()
        });
        tokio::task::yield_now().await;
        slot.free();
        assert!(waiting.await.unwrap());
    }
}
