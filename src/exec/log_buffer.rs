//! The lines that functions log: kept in memory within limits, written into the database in batches.
//!
//! A guest may print without end, and neither the database nor a neighbour should feel it. So one attempt
//! keeps so many lines and so many bytes; what comes after is counted and dropped. Lines are for
//! people: when they cannot be written, the task goes on without them.

use std::sync::{Arc, Mutex, PoisonError};

use bson::DateTime;
use tokio::sync::Notify;

use super::function;
use crate::config;
use crate::store::logs::LogLine;
use crate::terminal::tell;
use crate::wasm::{Level, Stage};

/// Where the lines of one stage go.
#[derive(Debug, Clone)]
pub struct LogSink {
    stage: Stage,
    /// None for standard error.
    kept: Option<Arc<Lines>>,
}

/// The lines of one attempt.
#[derive(Debug)]
pub struct Lines {
    task: String,
    bytes_max: usize,
    state: Mutex<State>,
    /// Rung when enough has come together for a batch.
    many: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<LogLine>,
    waiting_bytes: usize,
    kept: usize,
    kept_bytes: usize,
    dropped: i64,
    told_of_counters: bool,
}

impl LogSink {
    /// To standard error, for trials.
    pub fn printed(stage: Stage) -> Self {
        Self { stage, kept: None }
    }

    /// Among the lines of an attempt.
    pub fn kept(stage: Stage, lines: &Arc<Lines>) -> Self {
        Self { stage, kept: Some(lines.clone()) }
    }

    /// The stage whose lines these are.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Takes one line.
    pub fn line(&self, level: Level, text: &str) {
        match &self.kept {
            None => tell!("{text}"),
            Some(lines) => lines.take(self.stage, level, text),
        }
    }

    /// Says, once an attempt, that a counter is not kept because there are too many names.
    pub fn counter_refused(&self, name: &str) {
        let text = format!(
            "counter {name} is not kept: the functions of one task may name {} counters",
            config::USER_COUNTERS_MAX
        );
        match &self.kept {
            None => tracing::warn!("{text}"),
            Some(lines) => {
                if !std::mem::replace(&mut lines.lock().told_of_counters, true) {
                    lines.take(self.stage, Level::Warn, &text);
                }
            }
        }
    }
}

impl Lines {
    /// Nothing yet, of at most so many bytes.
    pub fn new(task: &str, bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            task: task.to_owned(),
            bytes_max: bytes_max.min(config::LOG_BYTES_MAX),
            state: Mutex::default(),
            many: Notify::new(),
        })
    }

    fn take(&self, stage: Stage, level: Level, text: &str) {
        let mut state = self.lock();
        let fits = state.kept < config::LOG_LINES_MAX
            && state.kept_bytes + text.len() < self.bytes_max
            // A shorter line after one that was dropped would leave a gap that nobody sees.
            && state.dropped == 0;
        if !fits {
            state.dropped += 1;
            return;
        }
        state.kept += 1;
        // The end of a line counts as well.
        state.kept_bytes += text.len() + 1;
        state.waiting_bytes += text.len() + 1;
        state.waiting.push(LogLine {
            at: DateTime::now(),
            level: level.name().to_owned(),
            stage: stage.name().to_owned(),
            text: text.to_owned(),
        });
        let many = state.waiting_bytes >= config::LOG_BATCH_BYTES;
        drop(state);
        if many {
            self.many.notify_one();
        }
        function::log(&self.task, level, text);
    }

    /// Waits until enough has come together for a batch.
    pub async fn many(&self) {
        self.many.notified().await;
    }

    /// How many lines were dropped so far, beyond the limits.
    pub fn dropped(&self) -> i64 {
        self.lock().dropped
    }

    /// Takes out what waits.
    pub fn batch(&self) -> Vec<LogLine> {
        let mut state = self.lock();
        state.waiting_bytes = 0;
        std::mem::take(&mut state.waiting)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kept_up_to_the_limits_and_then_counted() {
        let lines = Lines::new("t", 1 << 20);
        let tap = LogSink::kept(Stage::Map, &lines);
        for n in 0..config::LOG_LINES_MAX + 7 {
            tap.line(Level::Info, &n.to_string());
        }
        assert_eq!(lines.batch().len(), config::LOG_LINES_MAX);
        assert_eq!(lines.lock().dropped, 7);
        // Taking lines out makes no room for others.
        tap.line(Level::Info, "late");
        assert!(lines.batch().is_empty());
        assert_eq!(lines.lock().dropped, 8);
    }

    #[test]
    fn bytes_are_limited_and_nothing_is_kept_after_the_first_that_was_dropped() {
        let lines = Lines::new("t", 20);
        let tap = LogSink::kept(Stage::Reduce, &lines);
        for text in ["123456789", "123456789", "x"] {
            tap.line(Level::Warn, text);
        }
        let kept = lines.batch();
        assert_eq!(kept.len(), 2);
        assert_eq!((kept[0].stage.as_str(), kept[0].level.as_str()), ("reduce", "warn"));
        let none = Lines::new("t", 0);
        LogSink::kept(Stage::Map, &none).line(Level::Info, "");
        assert!(none.batch().is_empty());
    }

    #[test]
    fn counters_beyond_the_limit_are_told_of_once() {
        let lines = Lines::new("t", 1 << 20);
        let tap = LogSink::kept(Stage::Map, &lines);
        tap.counter_refused("a");
        tap.counter_refused("b");
        let kept = lines.batch();
        assert_eq!(kept.len(), 1);
        assert!(kept[0].text.contains("counter a is not kept"));
    }
}
