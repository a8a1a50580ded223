//! How failed calls are repeated, and how long an answer is waited for: the one place that says so.
//!
//! Only what can be repeated is: reads, and writes whose filter or `_id` makes a second try harmless.
//! Daemons' loops need no retry here, since they look again anyway.
//!
//! Writes of a command whose outcome is unknown are repeated until it is known. A write may take effect although
//! the reply says otherwise or never comes: the connection breaks, or the primary steps down before a majority has
//! the write. A command that then reports a failure makes the user do the same again.

use std::time::{Duration, Instant};

use mongodb::error::Error as DriverError;

use super::error::{classify, is_overload};
use crate::config::OUTCOME_SOUGHT;
use crate::error::{Error, Result, StoreError, StoreErrorKind};

/// How often, and how far apart, something is tried again.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Tries at most.
    pub tries_max: u32,
    /// The pause after the first try; it doubles with each.
    pub pause: Duration,
    /// No pause is longer.
    pub pause_max: Duration,
}

/// For the holder of a lease, who also checks it before each try: through a failover.
pub const HOLDER: Policy = Policy {
    tries_max: 60,
    pause: Duration::from_millis(50),
    pause_max: Duration::from_millis(500),
};

/// For the end of an attempt, which nobody else writes down: through a failover.
pub const FAREWELL: Policy = Policy {
    tries_max: 40,
    pause: Duration::from_millis(250),
    pause_max: Duration::from_millis(250),
};

/// How long a daemon waits for an answer to something small before it goes on without.
pub const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Repeats what failed for a reason that passes.
///
/// # Errors
/// The last try's.
pub async fn while_transient<T, F, W>(policy: Policy, call: F) -> Result<T>
where
    F: Fn() -> W,
    W: Future<Output = Result<T>>,
{
    let mut pause = policy.pause;
    for _ in 1..policy.tries_max {
        match call().await {
            Err(error) if error.is_transient() => {
                tracing::debug!(%error, "trying again");
                let pause_now = patience(&error, pause);
                tokio::time::sleep(pause_now.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
                pause = (pause * 2).min(policy.pause_max);
            }
            outcome => return outcome,
        }
    }
    call().await
}

/// Runs a write that may be repeated, once more when what it failed for passes.
///
/// This is for farewells, which nobody tries again later: the connection that a process has kept does not
/// know that the router at its other end was restarted since, and the next one does.
pub(crate) async fn twice<T, F, W>(write: F) -> std::result::Result<T, DriverError>
where
    F: Fn() -> W,
    W: Future<Output = std::result::Result<T, DriverError>>,
{
    match write().await {
        Err(error) if classify(&error).kind == StoreErrorKind::Transient => write().await,
        outcome => outcome,
    }
}

/// Waits for an answer no longer than `limit`.
///
/// The call itself goes on in the background until it ends: dropping a driver's future half-way may harm
/// the driver, and the driver has no time limit of its own. So whatever is called here must be harmless when
/// it takes effect late: a read, or a write behind a fence.
///
/// # Errors
/// The call's own, or [`Error::Store`] of the transient kind when there is no answer in time.
pub async fn within<T: Send + 'static>(
    limit: Duration,
    action: &str,
    call: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match tokio::time::timeout(limit, tokio::spawn(call)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => {
            Err(Error::Internal(format!("panicked while trying to {action}: {error}")))
        }
        Err(_) => Err(Error::Store {
            action: action.to_owned(),
            source: StoreError {
                message: format!("no answer within {} s", limit.as_secs()),
                code: None,
                kind: StoreErrorKind::Transient,
            },
        }),
    }
}

/// Repeats an idempotent operation while it fails for what passes, for as long as [`OUTCOME_SOUGHT`]. The operation
/// is told whether an earlier try may have taken effect.
///
/// # Errors
/// The first error that does not pass, or the last one.
pub async fn until_known<T>(operation: impl AsyncFn(bool) -> Result<T>) -> Result<T> {
    let began = Instant::now();
    let mut again = false;
    loop {
        match operation(again).await {
            Err(error) if error.is_transient() && began.elapsed() < OUTCOME_SOUGHT => {
                tracing::debug!(%error, "the outcome is unknown; trying again");
                again = true;
                tokio::time::sleep(patience(&error, pause(began.elapsed()))).await;
            }
            outcome => return outcome,
        }
    }
}

/// The pause after an error: a server that has more to do than it can is given some time.
pub(super) fn patience(error: &Error, pause: Duration) -> Duration {
    const OVERLOADED: Duration = Duration::from_secs(1);
    if is_overload(error) { pause.max(OVERLOADED) } else { pause }
}

/// A part of the time that has passed: most trouble is over at once, and an election takes seconds.
fn pause(passed: Duration) -> Duration {
    const PART: u32 = 4;
    const SHORTEST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(2);
    (passed / PART).clamp(SHORTEST, LONGEST)
}
