//! How long one attempt may compute.

use std::time::{Duration, Instant};

use crate::error::{Error, FunctionError};

/// When an attempt must have ended, and how long it had.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    at: Instant,
    limit: Duration,
}

impl Deadline {
    /// So long from now; none for 0 ms, and for a time that no clock reaches.
    pub fn after_ms(limit_ms: u64) -> Option<Self> {
        let limit = Duration::from_millis(limit_ms);
        let at = Instant::now().checked_add(limit).filter(|_| limit_ms > 0)?;
        Some(Self { at, limit })
    }

    /// What is left of it.
    pub fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// The error of an attempt that has gone past it, with what it was doing then.
    pub fn error(&self, stage: &str, function: Option<String>, record: Option<String>) -> Error {
        Error::TaskTimeout(Box::new(FunctionError {
            stage: stage.to_owned(),
            function,
            what: "used up its task's time",
            record,
            message: format!(
                "one attempt may take {} ms in all; raise --task-timeout if that is expected",
                self.limit.as_millis()
            ),
            stack: String::new(),
            deterministic: false,
        }))
    }
}
