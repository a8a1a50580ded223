//! A lease as its holder sees it: a token, and a window in which it may be trusted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config::Settings;
use crate::error::{Error, Result};
use crate::ids::{TaskId, Token};

/// One claim of one task.
///
/// Shared between the renewer, which extends the window, and the work, which asks
/// [`check`](Lease::check) before every write.
#[derive(Debug)]
pub struct Lease {
    /// The task.
    pub task: TaskId,
    /// The shard the task's document lives on.
    pub shard: String,
    /// The fence.
    pub token: Token,
    /// How long the server keeps it without a renewal, in milliseconds.
    pub ttl_ms: u64,
    origin: Instant,
    /// Milliseconds after `origin` at which trust ends.
    trusted_until_ms: AtomicU64,
    lost: AtomicBool,
    window: Duration,
}

impl Lease {
    /// A lease whose claim was *sent* at `sent`: the server counts its time to live from some later
    /// moment, so counting from `sent` can only end trust early.
    pub fn new(
        task: TaskId,
        shard: &str,
        token: Token,
        sent: Instant,
        settings: &Settings,
    ) -> Self {
        let window =
            Duration::from_millis(settings.lease_ttl_ms.saturating_sub(settings.lease_margin_ms));
        Self {
            task,
            shard: shard.to_owned(),
            token,
            ttl_ms: settings.lease_ttl_ms,
            origin: sent,
            trusted_until_ms: AtomicU64::new(millis(window)),
            lost: AtomicBool::new(false),
            window,
        }
    }

    /// Extends trust after a renewal that was sent at `sent` and matched.
    pub fn extend(&self, sent: Instant) {
        let until = sent.saturating_duration_since(self.origin) + self.window;
        self.trusted_until_ms.fetch_max(millis(until), Ordering::AcqRel);
    }

    /// Marks the lease as somebody else's.
    pub fn lose(&self) {
        self.lost.store(true, Ordering::Release);
    }

    /// Whether the holder may still write.
    pub fn is_trusted(&self) -> bool {
        !self.lost.load(Ordering::Acquire)
            && millis(self.origin.elapsed()) < self.trusted_until_ms.load(Ordering::Acquire)
    }

    /// Fails once the holder may no longer write.
    ///
    /// # Errors
    /// [`Error::LeaseLost`].
    pub fn check(&self) -> Result<()> {
        if self.is_trusted() { Ok(()) } else { Err(Error::LeaseLost(self.task.to_string())) }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(ttl_ms: u64, margin_ms: u64, sent: Instant) -> Lease {
        let settings =
            Settings { lease_ttl_ms: ttl_ms, lease_margin_ms: margin_ms, ..Settings::default() };
        Lease::new(TaskId::from_text("j/map/1.00000"), "rs", Token::generate(), sent, &settings)
    }

    #[test]
    fn trust_ends_before_the_server_gives_the_task_away() {
        let earlier = Instant::now().checked_sub(Duration::from_secs(120)).unwrap();
        // Claimed two minutes ago for a second more, with two seconds of margin: over.
        assert!(!lease(121_000, 2_000, earlier).is_trusted());
        // With an hour more it is not.
        assert!(lease(3_721_000, 2_000, earlier).is_trusted());
    }

    #[test]
    fn a_renewal_extends_and_a_loss_is_final() {
        let earlier = Instant::now().checked_sub(Duration::from_secs(120)).unwrap();
        let lease = lease(121_000, 2_000, earlier);
        assert!(lease.check().is_err());
        lease.extend(Instant::now());
        assert!(lease.check().is_ok());
        lease.extend(earlier);
        assert!(lease.check().is_ok(), "an older renewal must not shorten the window");
        lease.lose();
        assert!(lease.check().is_err());
    }
}
