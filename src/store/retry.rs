//! Writes of a command whose outcome is unknown are repeated until it is known.
//!
//! A write may take effect although the reply says otherwise or never comes: the connection breaks, or the primary
//! steps down before a majority has the write. A command that then reports a failure makes the user do the same
//! again. Daemons do not need this: they meet the state they left at their next look.

use std::time::{Duration, Instant};

use crate::config::OUTCOME_SOUGHT;
use crate::error::Result;

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
                tokio::time::sleep(pause(began.elapsed())).await;
            }
            outcome => return outcome,
        }
    }
}

/// A part of the time that has passed: most trouble is over at once, and an election takes seconds.
fn pause(passed: Duration) -> Duration {
    const PART: u32 = 4;
    const SHORTEST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(2);
    (passed / PART).clamp(SHORTEST, LONGEST)
}
