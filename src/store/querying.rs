//! A job's query at work in a server: how long it may take, and how it is ended.
//!
//! A query may be anything that MongoDB takes, JavaScript that never returns among it. Whatever it is, it has a time limit
//! in the server, names the attempt that it is for, and ends with that attempt: its session is killed, which a user may
//! do with its own without any privilege, and which reaches what has no cursor yet.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bson::{Bson, Document, doc};
use mongodb::Client;
use tokio::task::JoinHandle;

use crate::config::Caps;
use crate::error::{Error, StoreError};
use crate::job::Input;

/// Time that a server may take to say something of an input without reading it.
pub(super) const LOOK_MAX: Duration = Duration::from_secs(60);
/// Time that a server may take to draw a sample of an input.
pub(super) const SAMPLE_MAX: Duration = Duration::from_secs(3_600);
/// For reads of what jobs have made: they take as long as they take. Said, because otherwise a server's
/// `defaultMaxTimeMS` holds, which MongoDB has since 8.0 and which is meant for people's queries.
pub(super) const UNLIMITED: Duration = Duration::ZERO;
/// `MaxTimeMSExpired`.
const TIME_EXPIRED: i32 = 50;
/// What a server says, too, when the time of a query is over in the middle of a script: `JSInterpreterFailure`,
/// `ExceededTimeLimit`, `Interrupted`.
const SCRIPT_ENDED: [i32; 3] = [139, 262, 11_601];

/// Names of operators that run JavaScript in the server.
const SCRIPTS: [&str; 3] = ["$where", "$function", "$accumulator"];

/// How long a server may take for one piece of a query, and what says so.
#[derive(Debug, Clone, Copy)]
pub struct QueryTime {
    limit: Duration,
    set_by: &'static str,
}

impl QueryTime {
    /// What a fleet's caps give to a job's query, and no more than its attempt has left.
    pub fn of(input: &Input, caps: &Caps, left: Option<Duration>) -> Self {
        let (ms, set_by) = match runs_script(input) {
            true => (caps.script_time_ms.min(caps.query_time_ms), "--cap-script-time"),
            false => (caps.query_time_ms, "--cap-query-time"),
        };
        let limit = Duration::from_millis(ms);
        match left {
            Some(left) if left < limit => Self { limit: left, set_by: "--task-timeout" },
            _ => Self { limit, set_by },
        }
    }

    /// As a server is told; it takes none for no limit.
    pub(super) fn left(&self) -> Duration {
        /// Servers count in 31 bits.
        const MOST: Duration = Duration::from_millis(i32::MAX as u64);
        self.limit.clamp(Duration::from_millis(1), MOST)
    }
}

/// Whether a query or projection runs JavaScript in the server.
pub fn runs_script(input: &Input) -> bool {
    names_script(&input.query) || input.projection.as_ref().is_some_and(names_script)
}

fn names_script(document: &Document) -> bool {
    document.iter().any(|(name, value)| SCRIPTS.contains(&name.as_str()) || holds_script(value))
}

fn holds_script(value: &Bson) -> bool {
    match value {
        Bson::Document(inner) => names_script(inner),
        Bson::Array(values) => values.iter().any(holds_script),
        _ => false,
    }
}

/// A query that has used up its time is the user's or the operator's to solve, so the error says how.
pub(super) fn explain_time(error: Error, time: &QueryTime, took: Duration) -> Error {
    let is_over = match &error {
        Error::Store { source: StoreError { code: Some(code), .. }, .. } => {
            *code == TIME_EXPIRED || (SCRIPT_ENDED.contains(code) && took >= time.left())
        }
        _ => false,
    };
    if !is_over {
        return error;
    }
    Error::refused(
        format!(
            "the server took more than {} ms for one piece of the query, which is all that {} gives",
            time.left().as_millis(),
            time.set_by
        ),
        "narrow --query, say it without JavaScript, or have more time given",
    )
}

/// The session that a reading is at work in.
#[derive(Debug, Clone, Default)]
pub(super) struct AtWork(Arc<Mutex<Option<(Client, Document)>>>);

impl AtWork {
    /// Notes the session that comes next.
    pub(super) fn note(&self, client: &Client, session: &Document) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((client.clone(), session.clone()));
    }

    fn now(&self) -> Option<(Client, Document)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends what the server is at, and waits until the reading has ended with it.
    pub(super) async fn end(self, mut reading: JoinHandle<()>) {
        /// What begins just now is met the next time.
        const AGAIN: Duration = Duration::from_millis(500);
        const TIMES: u32 = 120;
        for _ in 0..TIMES {
            if let Some((client, session)) = self.now() {
                let kill = doc! { "killSessions": [session] };
                if let Err(error) = client.database("admin").run_command(kill).await {
                    tracing::debug!(%error, "could not end a query");
                }
            }
            if tokio::time::timeout(AGAIN, &mut reading).await.is_ok() {
                return;
            }
        }
        tracing::warn!(
            "a query that nobody wants any more could not be ended; its time limit will end it"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_found_wherever_they_are() {
        let plain =
            doc! { "a": { "$in": ["$where", { "where": 1 }] }, "$expr": { "$eq": ["$a", 1] } };
        assert!(!names_script(&plain));
        for query in [
            doc! { "$where": "true" },
            doc! { "$or": [{ "a": 1 }, { "$and": [{ "$where": "true" }] }] },
            doc! { "$expr": { "$eq": [1, { "$function": {} }] } },
        ] {
            assert!(names_script(&query), "{query}");
        }
    }

    #[test]
    fn a_server_is_never_told_that_there_is_no_limit() {
        let time = |limit| QueryTime { limit, set_by: "" }.left();
        assert_eq!(time(Duration::ZERO), Duration::from_millis(1));
        assert_eq!(time(Duration::MAX), Duration::from_millis(2_147_483_647));
    }
}
