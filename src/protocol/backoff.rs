//! When to try again what failed for a reason that does not pass by itself: ever more seldom, each thing by itself.
//!
//! Pure: whoever asks says what time it is.

use std::collections::HashMap;
use std::hash::Hash;

use crate::config::{RETRY_BASE_MS, RETRY_MAX_MS};

/// The pause after so many failures in a row, in milliseconds; none before the first.
pub fn pause_ms(failures: u32) -> u64 {
    match failures {
        0 => 0,
        n => RETRY_BASE_MS
            .saturating_mul(1_u64.checked_shl(n - 1).unwrap_or(u64::MAX))
            .min(RETRY_MAX_MS),
    }
}

/// What failed, how often, and when it is due again.
#[derive(Debug, Clone)]
pub struct Backoff<K> {
    rows: HashMap<K, Row>,
    kept_max: usize,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    failures: u32,
    due_ms: u64,
}

impl<K: Hash + Eq + Clone> Backoff<K> {
    /// Remembers so many things at most; of more, those that are due soonest are forgotten first.
    pub fn new(kept_max: usize) -> Self {
        Self { rows: HashMap::new(), kept_max }
    }

    /// Whether it may be tried now.
    pub fn is_due(&self, key: &K, now_ms: u64) -> bool {
        self.rows.get(key).is_none_or(|row| row.due_ms <= now_ms)
    }

    /// What may not be tried now.
    pub fn put_off(&self, now_ms: u64) -> impl Iterator<Item = &K> {
        self.rows.iter().filter(move |(_, row)| row.due_ms > now_ms).map(|(key, _)| key)
    }

    /// Notes a failure, and says after how long it is due again, in milliseconds.
    pub fn failed(&mut self, key: &K, now_ms: u64) -> u64 {
        if self.rows.len() >= self.kept_max && !self.rows.contains_key(key) {
            let mut due: Vec<u64> = self.rows.values().map(|row| row.due_ms).collect();
            let middle = due.len() / 2;
            let (_, median, _) = due.select_nth_unstable(middle);
            let median = *median;
            self.rows.retain(|_, row| row.due_ms > median);
        }
        let row = self.rows.entry(key.clone()).or_insert(Row { failures: 0, due_ms: 0 });
        row.failures = row.failures.saturating_add(1);
        let pause = pause_ms(row.failures);
        row.due_ms = now_ms.saturating_add(pause);
        pause
    }

    /// Notes that it worked.
    pub fn worked(&mut self, key: &K) {
        self.rows.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses: Vec<u64> = (0..5).map(pause_ms).collect();
        assert_eq!(pauses, [0, 1_000, 2_000, 4_000, 8_000]);
        assert_eq!(pause_ms(u32::MAX), RETRY_MAX_MS);
    }

    #[test]
    fn one_failure_holds_up_nothing_else_and_success_forgets_it() {
        let mut backoff = Backoff::new(10);
        assert_eq!(backoff.failed(&"a", 100), 1_000);
        assert!(!backoff.is_due(&"a", 1_099) && backoff.is_due(&"a", 1_100));
        assert!(backoff.is_due(&"b", 0));
        assert_eq!(backoff.failed(&"a", 1_100), 2_000);
        backoff.worked(&"a");
        assert!(backoff.is_due(&"a", 1_100));
        assert_eq!(backoff.failed(&"a", 1_100), 1_000);
    }

    #[test]
    fn no_crowd_is_remembered_whole() {
        let mut backoff = Backoff::new(10);
        for n in 0..1_000_u64 {
            backoff.failed(&n, n);
            assert!(backoff.rows.len() <= 10);
        }
        assert!(!backoff.is_due(&999, 1_000));
    }
}
