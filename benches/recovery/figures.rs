//! Figures and verdicts, as they are printed.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds by the machine's clock, which is the servers' too.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Processors and how busy they are.
pub fn machine() -> String {
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = load.split_whitespace().take(3).collect();
    format!("{cpus} processors, load average {}", load.join(" "))
}

/// Measured milliseconds.
#[derive(Debug, Default, Clone)]
pub struct Times(Vec<i64>);

impl Times {
    pub fn of(mut times: Vec<i64>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The smallest value that so many hundredths of all do not exceed.
    pub fn percentile(&self, hundredths: usize) -> i64 {
        let rank = (self.0.len() * hundredths).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or_default()
    }

    pub fn max(&self) -> i64 {
        self.percentile(100)
    }

    /// One line of a table.
    pub fn print(&self, what: &str) {
        let [p50, p90, p99, max] = [50, 90, 99, 100].map(|p| self.percentile(p));
        println!(
            "  {what:<58} n {:>3}  p50 {p50:>6}  p90 {p90:>6}  p99 {p99:>6}  max {max:>6} ms",
            self.count()
        );
    }
}

/// Prints whether a promise was kept, and says so.
pub fn verdict(promise: &str, measured_ms: i64, at_most_ms: i64) -> bool {
    let kept = measured_ms <= at_most_ms;
    let word = if kept { "kept" } else { "BROKEN" };
    println!("  {word}: {promise}: {measured_ms} ms, at most {at_most_ms} ms");
    kept
}
