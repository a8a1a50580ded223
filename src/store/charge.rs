//! What a task that was claimed costs its client, from the claim to the end of its time in a slot.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::ids::JobId;
use crate::protocol::shares::{Shares, Ticket};

/// Whom the slots of this process have served.
#[derive(Debug)]
pub(super) struct Accounts {
    shares: Mutex<Shares>,
    start: Instant,
}

impl Default for Accounts {
    fn default() -> Self {
        Self { shares: Mutex::default(), start: Instant::now() }
    }
}

impl Accounts {
    pub(super) fn lock(&self) -> MutexGuard<'_, Shares> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

/// Counts the time of one task for the client whose job it is of. Dropping it ends that.
#[derive(Debug)]
pub struct Charge {
    accounts: Arc<Accounts>,
    ticket: Ticket,
}

impl Charge {
    pub(super) fn claimed(accounts: &Arc<Accounts>, job: &JobId) -> Self {
        let ticket = accounts.lock().claimed(job);
        Self { accounts: accounts.clone(), ticket }
    }

    /// The task takes a slot now.
    pub fn begin(&self) {
        let now = self.accounts.now();
        self.accounts.lock().began(self.ticket, now);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let now = self.accounts.now();
        self.accounts.lock().ended(self.ticket, now);
    }
}
