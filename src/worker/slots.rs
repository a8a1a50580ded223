//! Slots, for how long tasks hold them, and how many tasks are worth claiming ahead.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::store::charge::Charge;

/// Tasks claimed ahead at most.
const AHEAD_MAX: usize = 64;
/// Tasks are claimed ahead for so long: what they wait for costs others nothing that they would notice.
const AHEAD: Duration = Duration::from_millis(60);
/// A task counts for so much of the mean.
const PART: f64 = 0.2;

/// The slots of a worker.
#[derive(Clone)]
pub(super) struct Slots {
    all: usize,
    free: Arc<Semaphore>,
    /// Microseconds that tasks hold a slot, in the mean of late. 0 as long as none has ended.
    mean_us: Arc<AtomicU64>,
}

/// A slot that a task holds while it computes. The commit needs none.
pub(super) struct Slot {
    held: Mutex<Option<(OwnedSemaphorePermit, Option<Charge>)>>,
    since: Instant,
    mean_us: Arc<AtomicU64>,
}

impl Slots {
    pub(super) fn new(all: usize) -> Self {
        Self { all, free: Arc::new(Semaphore::new(all)), mean_us: Arc::default() }
    }

    pub(super) fn free(&self) -> usize {
        self.free.available_permits()
    }

    pub(super) fn busy(&self) -> usize {
        self.all.saturating_sub(self.free())
    }

    /// Takes a slot, if one is free.
    pub(super) fn take(&self) -> Option<Arc<Slot>> {
        let permit = self.free.clone().try_acquire_owned().ok()?;
        Some(Arc::new(Slot {
            held: Mutex::new(Some((permit, None))),
            since: Instant::now(),
            mean_us: self.mean_us.clone(),
        }))
    }

    /// Waits until a slot is free.
    pub(super) async fn wait(&self) {
        // Nobody closes it.
        let _ = self.free.acquire().await;
    }

    /// How many tasks to have beside those that run: as many as will be begun soon, if they are like those before.
    pub(super) fn ahead(&self) -> usize {
        ahead(self.all, self.mean_us.load(Ordering::Relaxed))
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
        let slots = Slots::new(1);
        let slot = slots.take().expect("one is free");
        assert!(slots.take().is_none());
        assert_eq!((slots.free(), slots.busy()), (0, 1));
        slot.free();
        slot.free();
        assert_eq!((slots.free(), slots.busy()), (1, 0));
        assert!(slots.mean_us.load(Ordering::Relaxed) > 0);
    }
}
