//! Named places at which a process halts when it is told to.
//!
//! Fault tests hurt a process *there* instead of hoping to hit the moment. A process halts at the
//! place named by `AVIARY_HALT_AT` and says so in its log. It goes on when the file named by
//! `AVIARY_HALT_UNTIL` exists, and never without that variable. Unless told to halt, a place costs a
//! comparison. Nothing else in the program knows of it.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

struct Orders {
    place: String,
    until: Option<PathBuf>,
}

static ORDERS: OnceLock<Option<Orders>> = OnceLock::new();

/// How often a halted process looks whether it may go on.
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn orders(place: &str) -> Option<&'static Orders> {
    ORDERS
        .get_or_init(|| {
            let place = std::env::var("AVIARY_HALT_AT").ok().filter(|place| !place.is_empty())?;
            Some(Orders { place, until: std::env::var_os("AVIARY_HALT_UNTIL").map(PathBuf::from) })
        })
        .as_ref()
        .filter(|orders| orders.place == place)
}

impl Orders {
    fn over(&self) -> bool {
        self.until.as_ref().is_some_and(|file| file.exists())
    }
}

/// Waits if this is the place to halt at.
pub async fn point(place: &str) {
    let Some(orders) = orders(place) else { return };
    if !orders.over() {
        tracing::warn!(place, "halted");
    }
    while !orders.over() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The same, on a thread that may block.
pub fn point_blocking(place: &str) {
    let Some(orders) = orders(place) else { return };
    if !orders.over() {
        tracing::warn!(place, "halted");
    }
    while !orders.over() {
        std::thread::sleep(LOOK_EVERY);
    }
}
