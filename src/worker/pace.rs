//! How much a function is given in one call: as much as it can take while deadlines stay per record.

use std::time::Duration;

use crate::config;

/// The size of the next call.
#[derive(Debug)]
pub struct Pace {
    bytes_target: usize,
}

impl Pace {
    /// Begins small: the first records show how long one takes.
    pub fn new() -> Self {
        Self { bytes_target: config::CALL_BYTES_FIRST }
    }

    /// Bytes after which a call is made.
    pub fn bytes_target(&self) -> usize {
        self.bytes_target
    }

    /// Learns from a call.
    pub fn took(&mut self, time: Duration) {
        let ms = time.as_millis();
        if ms > config::CALL_TARGET_MS {
            self.bytes_target = (self.bytes_target / 2).max(1);
        } else if ms < config::CALL_TARGET_MS / 4 {
            self.bytes_target = (self.bytes_target * 2).min(config::CALL_BYTES_TARGET);
        }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_grow_while_they_are_quick_and_shrink_to_one_record() {
        let mut pace = Pace::new();
        for _ in 0..40 {
            pace.took(Duration::ZERO);
        }
        assert_eq!(pace.bytes_target(), config::CALL_BYTES_TARGET);
        for _ in 0..40 {
            pace.took(Duration::from_secs(1));
        }
        assert_eq!(pace.bytes_target(), 1);
    }
}
