//! Expressions of the lease protocol's updates, and the clock they share: the server's.

use bson::{Document, doc};

use crate::config::{self, Settings};

/// An expression: how many attempts have lost their lease.
pub(super) fn lost() -> Document {
    doc! { "$ifNull": ["$lost", 0] }
}

/// An expression: what a task or a job waits for, since when, and how often that was met in a row.
pub(in crate::store) fn waiting_for(why: &str) -> Document {
    doc! {
        "why": { "$literal": why },
        "since": { "$ifNull": ["$waiting.since", "$$NOW"] },
        "times": { "$add": [met(), 1_i64] },
    }
}

/// An expression: how often the task was handed back in a row because something was in the way.
pub(super) fn met() -> Document {
    doc! { "$ifNull": ["$waiting.times", 0_i64] }
}

/// An expression: the history with the current attempt appended.
pub(super) fn closed_attempt(outcome: &str, error: Option<&str>) -> Document {
    let mut entry = doc! {
        "epoch": "$epoch",
        "worker": "$worker",
        "began": "$leased",
        "ended": "$$NOW",
        "outcome": { "$literal": outcome },
    };
    if let Some(error) = error {
        const MESSAGE_CHARS_MAX: usize = 300;
        let short: String = error.chars().take(MESSAGE_CHARS_MAX).collect();
        entry.insert("error", doc! { "$literal": short });
    }
    doc! { "$slice": [
        { "$concatArrays": [{ "$ifNull": ["$history", []] }, [entry]] },
        -config::HISTORY_MAX,
    ] }
}

/// An expression: how many attempts have failed, together with the one that just did.
pub(super) fn failures() -> Document {
    doc! { "$subtract": ["$attempts", lost()] }
}

/// An expression: milliseconds to wait, doubling with every failure, between half and all of it.
pub(super) fn backoff_ms() -> Document {
    doc! { "$toLong": { "$multiply": [
        { "$min": [
            config::BACKOFF_MAX_MS,
            { "$multiply": [config::BACKOFF_BASE_MS, { "$pow": [2, { "$subtract": [failures(), 1] }] }] },
        ] },
        { "$add": [0.5, { "$multiply": [0.5, { "$rand": {} }] }] },
    ] } }
}

pub(in crate::store) fn ttl(settings: &Settings) -> i64 {
    i64::try_from(settings.lease_ttl_ms).unwrap_or(i64::MAX)
}
