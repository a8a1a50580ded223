//! How much a function is given in one call: as much as it can take while deadlines stay per record.

use std::time::Duration;

use crate::config;

/// The size of the next call.
#[derive(Debug)]
pub struct Pace {
    bytes_target: usize,
    bytes_max: usize,
}

impl Pace {
    /// Begins with one record, which shows how long one takes.
    pub fn new() -> Self {
        Self { bytes_target: 1, bytes_max: config::CALL_BYTES_TARGET }
    }

    /// Stays at one record a call, so that its deadline is exactly the record's.
    pub fn careful() -> Self {
        Self { bytes_target: 1, bytes_max: 1 }
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
            self.bytes_target = (self.bytes_target * 2).min(self.bytes_max);
        }
    }

    /// Learns from a call that was too much at once, where none of its records was.
    pub fn shrink(&mut self) {
        self.bytes_target = (self.bytes_target / 2).max(1);
        self.bytes_max = self.bytes_target;
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
        assert_eq!(pace.bytes_target(), 1);
        for _ in 0..40 {
            pace.took(Duration::ZERO);
        }
        assert_eq!(pace.bytes_target(), config::CALL_BYTES_TARGET);
        for _ in 0..40 {
            pace.took(Duration::from_secs(1));
        }
        assert_eq!(pace.bytes_target(), 1);
        let mut shrunk = Pace::new();
        (0..40).for_each(|_| shrunk.took(Duration::ZERO));
        shrunk.shrink();
        shrunk.took(Duration::ZERO);
        assert_eq!(shrunk.bytes_target(), config::CALL_BYTES_TARGET / 2);
        let mut careful = Pace::careful();
        careful.took(Duration::ZERO);
        assert_eq!(careful.bytes_target(), 1);
    }
}
