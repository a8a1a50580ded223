//! Named places at which a process stops for good when it is told to.
//!
//! Fault tests kill a process *there* instead of hoping to hit the moment. A process halts at the
//! place named by `AVIARY_HALT_AT`, says so in its log, and never goes on; without that variable a
//! place costs a comparison. Nothing else in the program knows of it.

use std::sync::OnceLock;

static PLACE: OnceLock<Option<String>> = OnceLock::new();

fn wanted(place: &str) -> bool {
    PLACE
        .get_or_init(|| std::env::var("AVIARY_HALT_AT").ok().filter(|place| !place.is_empty()))
        .as_deref()
        == Some(place)
}

/// Waits for ever if this is the place to halt at.
pub async fn point(place: &str) {
    if wanted(place) {
        tracing::warn!(place, "halted");
        std::future::pending::<()>().await;
    }
}

/// The same, on a thread that may block.
pub fn point_blocking(place: &str) {
    if wanted(place) {
        tracing::warn!(place, "halted");
        loop {
            std::thread::park();
        }
    }
}
