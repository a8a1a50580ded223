//! Caps on every number of a job that sizes memory or time, in one place.
//!
//! A job is checked when it is submitted, and again whenever a daemon reads its document: whoever may write to the
//! database can write what no `aviary submit` would. The constants are what this version allows at all; a fleet's
//! operator lowers them with the daemons' `--cap-…` flags ([`Caps`]).

use std::fmt;

use super::document::Job;
use super::spec::JobSpec;
use crate::config::{self, Caps};
use crate::error::Error;
use crate::ids::JobId;

/// Plans of one job. Each is begun by a coordinator whose predecessor died while it planned.
pub const PLANS_MAX: u64 = 1_000_000;
/// Elements that a document of a job, a task or a function may have, those of documents in it among them: each takes
/// some hundred bytes in memory, however few it takes where it is stored.
pub const DOCUMENT_ELEMENTS_MAX: usize = 400_000;
/// Documents that hold one function's bytes.
pub const FUNCTION_CHUNKS_MAX: u64 =
    config::FUNCTION_BYTES_MAX.div_ceil(config::FUNCTION_CHUNK_BYTES) as u64;
/// Runs that one reduce task merges.
pub const RUNS_MAX: u64 = 2_000_000;
/// Slots that one worker is believed to have.
pub const SLOTS_MAX: u32 = 256;
/// Slots that all workers of a shard are believed to have.
pub const FLEET_SLOTS_MAX: u32 = 65_536;

/// A number that is beyond its cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over {
    /// Where it stands in the job's document.
    pub field: &'static str,
    /// The flag of `aviary submit` for it; empty for what nobody asks for.
    pub asked_by: &'static str,
    /// The number.
    pub value: u64,
    /// The cap.
    pub cap: u64,
    /// The daemons' flag that lowers the cap; empty for what this version allows at all.
    pub capped_by: &'static str,
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, asked_by, value, cap, capped_by } = self;
        if !asked_by.is_empty() {
            write!(f, "{asked_by}: ")?;
        }
        write!(f, "{field} is {value}, more than ")?;
        match capped_by.is_empty() {
            true => write!(f, "the {cap} that this version allows"),
            false => write!(f, "the {cap} that this fleet allows ({capped_by})"),
        }
    }
}

impl From<Over> for Error {
    fn from(over: Over) -> Self {
        Error::refused(over.to_string(), "ask for less and submit the job again")
    }
}

impl Caps {
    /// Finds the first number of a spec that is beyond its cap.
    ///
    /// # Errors
    /// That number.
    pub fn check(&self, spec: &JobSpec) -> Result<(), Over> {
        let limits = &spec.limits;
        let most = Self::default();
        let rows = [
            (
                "spec.partitions",
                "--partitions",
                "--cap-partitions",
                u64::from(spec.partitions),
                self.partitions,
                most.partitions,
            ),
            (
                "spec.limits.memory_mb",
                "--memory-mb",
                "--cap-memory-mb",
                limits.memory_mb,
                self.memory_mb,
                most.memory_mb,
            ),
            (
                "spec.limits.record_timeout_ms",
                "--record-timeout",
                "--cap-record-timeout",
                limits.record_timeout_ms,
                self.record_timeout_ms,
                most.record_timeout_ms,
            ),
            (
                "spec.limits.task_timeout_ms",
                "--task-timeout",
                "--cap-task-timeout",
                limits.task_timeout_ms.unwrap_or(0),
                self.task_timeout_ms,
                most.task_timeout_ms,
            ),
            (
                "spec.limits.record_output_bytes",
                "--record-output",
                "--cap-record-output",
                limits.record_output_bytes,
                self.record_output_bytes,
                most.record_output_bytes,
            ),
            (
                "spec.limits.log_bytes",
                "--log-bytes",
                "--cap-log-bytes",
                limits.log_bytes,
                self.log_bytes,
                most.log_bytes,
            ),
        ];
        for (field, asked_by, flag, value, cap, most) in rows {
            // Whatever a fleet says, no more than this version can bear.
            let lowered = cap < most;
            let (cap, capped_by) = if lowered { (cap, flag) } else { (most, "") };
            if value > cap {
                return Err(Over { field, asked_by, value, cap, capped_by });
            }
        }
        Ok(())
    }

    /// Checks a job as it was read: what it asks for, and what it says of its plan.
    ///
    /// # Errors
    /// [`Error::Refused`] naming the field, its value and the cap.
    pub fn check_job(&self, job: &Job) -> Result<(), Error> {
        self.check(&job.spec)?;
        let partitions = u64::from(config::PARTITIONS_MAX);
        let plans = u64::try_from(job.plan).unwrap_or(u64::MAX);
        for (field, value, cap) in [
            ("plan", plans, PLANS_MAX),
            ("map_tasks", u64::from(job.map_tasks), u64::from(config::SPLITS_MAX)),
            ("reduce_tasks", u64::from(job.reduce_tasks), partitions),
            ("reduce_on", job.reduce_on.len() as u64, partitions),
        ] {
            within(field, value, cap)?;
        }
        Ok(())
    }

    /// How long an attempt may take at most, in milliseconds.
    pub fn task_timeout(&self, spec: &JobSpec) -> u64 {
        spec.limits.task_timeout_ms.unwrap_or(u64::MAX).min(self.task_timeout_ms)
    }
}

/// Checks a number that nobody asks for, and that no fleet can cap.
///
/// # Errors
/// The number.
pub fn within(field: &'static str, value: u64, cap: u64) -> Result<(), Over> {
    if value <= cap {
        return Ok(());
    }
    Err(Over { field, asked_by: "", value, cap, capped_by: "" })
}

/// Whether this can be a job's id. Names of collections and ranges of blocks are made of it, so that one of another
/// form could stand for what is another job's.
pub fn is_job_id(id: &JobId) -> bool {
    id.as_str().len() == JOB_ID_LEN
        && id.as_str().bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Characters of a job's id.
pub const JOB_ID_LEN: usize = 24;

#[cfg(test)]
mod tests {
    use super::super::validate::tests::spec;
    use super::*;

    #[test]
    fn a_cap_is_named_by_what_set_it() {
        let mut job = spec();
        job.partitions = 2_000;
        let over = Caps::default().check(&job).unwrap_err().to_string();
        assert_eq!(
            over,
            "--partitions: spec.partitions is 2000, more than the 1024 that this version allows"
        );
        let caps = Caps { partitions: 10, ..Caps::default() };
        let over = caps.check(&job).unwrap_err().to_string();
        assert!(
            over.ends_with("more than the 10 that this fleet allows (--cap-partitions)"),
            "{over}"
        );
        // What a fleet allows, this version may not.
        let caps = Caps { partitions: 100_000, ..Caps::default() };
        assert!(caps.check(&job).unwrap_err().to_string().contains("1024"));
    }

    #[test]
    fn the_caps_hold_what_is_written_by_default() {
        let mut job = spec();
        job.limits = super::super::Limits::default();
        assert_eq!(Caps::default().check(&job), Ok(()));
        assert_eq!(Caps::default().task_timeout(&job), config::TASK_TIMEOUT_MS_MAX);
    }
}
