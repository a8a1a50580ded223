//! Between what a request says and what a job is: the parts that both have.

use super::document::{Asked, InputWish, LimitsWish, OutWish, usage};
use crate::config;
use crate::error::Result;
use crate::job::{Input, JobSpec, Limits, Output, OutputMode};

impl InputWish {
    /// The input, in the database `home` unless it names another.
    pub fn input(self, home: &str) -> Input {
        Input {
            db: self.db.unwrap_or_else(|| home.to_owned()),
            collection: self.collection,
            query: self.query,
            sort: self.sort,
            limit: self.limit,
            projection: self.projection,
            collation: self.collation,
            read: self.read,
        }
    }
}

impl OutWish {
    /// Mode, database if one is named, and collection; an inline result has none.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::error::Error::Usage) unless there is one mode.
    pub fn target(&self) -> Result<(OutputMode, Option<&str>, Option<&str>)> {
        let modes = [
            (OutputMode::Replace, self.replace.as_deref()),
            (OutputMode::Merge, self.merge.as_deref()),
            (OutputMode::Reduce, self.reduce.as_deref()),
            (OutputMode::Update, self.update.as_deref()),
        ];
        let named: Vec<_> =
            modes.into_iter().filter_map(|(mode, name)| name.map(|name| (mode, name))).collect();
        match (named.as_slice(), self.inline) {
            ([], Some(1)) => Ok((OutputMode::Inline, self.db.as_deref(), None)),
            ([], Some(_)) => Err(usage("out.inline", "can only be 1")),
            ([(mode, name)], None) => Ok((*mode, self.db.as_deref(), Some(name))),
            _ => Err(usage("out", "has one of replace, merge, reduce, update or inline")),
        }
    }
}

impl LimitsWish {
    /// The limits, those of `aviary submit` where nothing else is asked for.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::error::Error::Usage) for numbers below 0.
    pub fn limits(&self) -> Result<Limits> {
        let given = |field: &str, value: Option<i64>| {
            value
                .map(|n| {
                    u64::try_from(n).map_err(|_| usage(&format!("limits.{field}"), "is below 0"))
                })
                .transpose()
        };
        let task_timeout_ms = given("taskTimeoutMs", self.task_timeout_ms)?;
        let defaults = Limits::default();
        Ok(Limits {
            memory_mb: given("memoryMb", self.memory_mb)?.unwrap_or(defaults.memory_mb),
            record_timeout_ms: given("recordTimeoutMs", self.record_timeout_ms)?
                .unwrap_or(defaults.record_timeout_ms),
            task_timeout_ms,
            record_output_bytes: given("recordOutputBytes", self.record_output_bytes)?
                .unwrap_or(defaults.record_output_bytes),
            log_bytes: given("logBytes", self.log_bytes)?.unwrap_or(defaults.log_bytes),
        })
    }
}

impl From<&Limits> for LimitsWish {
    fn from(limits: &Limits) -> Self {
        let number = |n: u64| Some(i64::try_from(n).unwrap_or(i64::MAX));
        Self {
            memory_mb: number(limits.memory_mb),
            record_timeout_ms: number(limits.record_timeout_ms),
            task_timeout_ms: limits.task_timeout_ms.and_then(number),
            record_output_bytes: number(limits.record_output_bytes),
            log_bytes: number(limits.log_bytes),
        }
    }
}

impl From<&Input> for InputWish {
    fn from(input: &Input) -> Self {
        let input = input.clone();
        Self {
            db: Some(input.db),
            collection: input.collection,
            query: input.query,
            sort: input.sort,
            limit: input.limit,
            projection: input.projection,
            collation: input.collation,
            read: input.read,
        }
    }
}

impl From<&Output> for OutWish {
    fn from(output: &Output) -> Self {
        let mut wish = Self::default();
        let name = Some(output.collection.clone());
        match output.mode {
            OutputMode::Replace => wish.replace = name,
            OutputMode::Merge => wish.merge = name,
            OutputMode::Reduce => wish.reduce = name,
            OutputMode::Update => wish.update = name,
            OutputMode::Inline => wish.inline = Some(1),
        }
        wish.db = output.mode.has_target().then(|| output.db.clone());
        wish
    }
}

/// The number of partitions that a request asks for.
///
/// # Errors
/// [`Error::Usage`](crate::error::Error::Usage).
pub fn partitions(asked: i64) -> Result<u32> {
    let most = config::PARTITIONS_MAX;
    u32::try_from(asked)
        .ok()
        .filter(|partitions| *partitions <= most)
        .ok_or_else(|| usage("partitions", &format!("is {asked}; 1 to {most} can be had")))
}

/// A job's request, as `aviary submit` writes it; functions and names are added by the caller.
pub fn of_job(id: String, spec: &JobSpec) -> Asked {
    Asked {
        input: Some(InputWish::from(&spec.input)),
        out: Some(OutWish::from(&spec.output)),
        scope: spec.scope.clone(),
        partitions: i64::from(spec.partitions),
        limits: Some(LimitsWish::from(&spec.limits)),
        skip_single_values: spec.skip_single_values,
        no_combine: spec.no_combine,
        keep_intermediates: spec.keep_intermediates,
        on_error: spec.on_error,
        ..Asked::new(id)
    }
}
