//! The checks of a job that need no server.

use crate::config::{self, Caps};
use crate::error::Error;
use crate::job::authority::refuse_reserved;
use crate::job::spec::{JobSpec, Limits, OutputMode, ReadMode, Reducer};

impl Limits {
    /// Finds values that cannot be meant.
    ///
    /// # Errors
    /// [`Error::Usage`].
    pub fn validate(&self) -> Result<(), Error> {
        let zero = self.memory_mb == 0
            || self.record_timeout_ms == 0
            || self.task_timeout_ms == Some(0)
            || self.record_output_bytes == 0;
        if zero {
            return Err(Error::Usage(
                "the limits of memory, time and output must be above 0".into(),
            ));
        }
        if self.memory_mb > config::GUEST_MEMORY_MB_MAX {
            return Err(Error::Usage(format!(
                "--memory-mb {} is more than the {} MiB that a function can address",
                self.memory_mb,
                config::GUEST_MEMORY_MB_MAX
            )));
        }
        if self.log_bytes > config::LOG_BYTES_MAX as u64 {
            return Err(Error::Usage(format!(
                "--log-bytes {} is more than {}",
                self.log_bytes,
                config::LOG_BYTES_MAX
            )));
        }
        Ok(())
    }
}

impl JobSpec {
    /// Finds what is wrong with a job before any server is asked.
    ///
    /// # Errors
    /// [`Error::Usage`] for values out of range, [`Error::Refused`] for an output that would eat
    /// the input or Aviary's own collections.
    pub fn validate(&self, aviary_db: &str) -> Result<(), Error> {
        self.validate_without_functions(aviary_db)?;
        if self.reduce.is_none() && (self.combine.is_some() || self.finalize.is_some()) {
            return Err(Error::Usage(
                "--combine and --finalize need --reduce; a map-only job has neither".into(),
            ));
        }
        if self.combine.is_some() && matches!(self.reduce, Some(Reducer::Builtin(_))) {
            return Err(Error::Usage(
                "a built-in reduce combines on the map side by itself; leave --combine out".into(),
            ));
        }
        if self.no_combine && !matches!(self.reduce, Some(Reducer::Function(_))) {
            return Err(Error::Usage("--no-combine needs a --reduce that is a function".into()));
        }
        if self.no_combine && self.combine.is_some() {
            return Err(Error::Usage("--no-combine and --combine exclude each other".into()));
        }
        self.validate_mode()
    }

    /// The part of that for which it need not be known which functions there are.
    ///
    /// # Errors
    /// As [`JobSpec::validate`].
    pub fn validate_without_functions(&self, aviary_db: &str) -> Result<(), Error> {
        check_collection_name(&self.input.db, &self.input.collection)?;
        check_limit(self.input.limit)?;
        self.limits.validate()?;
        Caps::default().check(self).map_err(|over| Error::Usage(over.to_string()))?;
        check_database_name(&self.output.db)?;
        if self.output.mode.has_target() {
            check_collection_name(&self.output.db, &self.output.collection)?;
        } else if self.output.db != aviary_db {
            return Err(Error::Usage(format!(
                "an inline result is kept in the job's own database {aviary_db}, not in {}",
                self.output.db
            )));
        }
        refuse_reserved(self)?;
        Ok(())
    }

    /// What an output mode asks of the rest of the job.
    fn validate_mode(&self) -> Result<(), Error> {
        let (mode, output) = (self.output.mode, &self.output);
        match (mode, &self.reduce) {
            (OutputMode::Reduce, None) => {
                return Err(Error::Usage(
                    "--out reduce:NAME needs --reduce; a map-only job can merge:NAME or \
                     update:NAME"
                        .into(),
                ));
            }
            (OutputMode::Update, Some(_)) => {
                return Err(Error::Usage(
                    "--out update:NAME is for map-only jobs; with a reduce, merge:NAME it is"
                        .into(),
                ));
            }
            (OutputMode::Reduce, Some(Reducer::Builtin(name)))
                if matches!(name.as_str(), "_avg" | "_stats") =>
            {
                return Err(Error::refused(
                    format!("{name} cannot be reduced into a collection"),
                    "a result no longer says how many values it is made of: keep sums and counts \
                     with a reduce of your own, and divide in --finalize or when reading",
                ));
            }
            (OutputMode::Reduce, Some(_)) if self.combine.is_some() || self.no_combine => {
                let which = if self.no_combine { "--no-combine" } else { "--combine" };
                return Err(Error::refused(
                    format!("a job with {which} cannot be reduced into a collection"),
                    "its reduce need not take its own results for values, and would be given one: \
                     use a reduce that combines, or --out merge:NAME",
                ));
            }
            _ => {}
        }
        if !mode.has_target()
            || output.db != self.input.db
            || output.collection != self.input.collection
        {
            return Ok(());
        }
        let name = format!("{}.{}", output.db, output.collection);
        let backfill = matches!(mode, OutputMode::Merge | OutputMode::Update);
        if !backfill || self.reduce.is_some() {
            return Err(Error::refused(
                format!("the output {name} is the input itself"),
                "name another collection; only a map-only job can write back what it read, with \
                 --out update:NAME or merge:NAME",
            ));
        }
        if self.input.read == ReadMode::Committed {
            return Err(Error::refused(
                format!(
                    "the output {name} is the input itself, which --read committed does not \
                         hold still"
                ),
                "leave --read committed out",
            ));
        }
        Ok(())
    }
}

/// Refuses what is no name of a database.
pub(crate) fn check_database_name(db: &str) -> Result<(), Error> {
    if db.is_empty() || db.len() > 63 || db.contains(['/', '\\', '.', ' ', '"', '$', '\0']) {
        return Err(Error::Usage(format!("{db:?} is not a database name")));
    }
    Ok(())
}

/// Refuses a limit that lets nothing through.
///
/// # Errors
/// [`Error::Usage`].
pub(crate) fn check_limit(limit: Option<i64>) -> Result<(), Error> {
    match limit.is_some_and(|limit| limit <= 0) {
        true => Err(Error::Usage("--limit must be at least 1".into())),
        false => Ok(()),
    }
}

fn check_collection_name(db: &str, collection: &str) -> Result<(), Error> {
    check_database_name(db)?;
    let bad_collection = collection.is_empty()
        || collection.contains(['$', '\0'])
        || collection.starts_with('.')
        || db.len() + 1 + collection.len() > 235;
    if bad_collection {
        return Err(Error::Usage(format!("{collection:?} is not a collection name")));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use bson::Document;

    use crate::job::{FunctionRef, Input, OnError, Output};

    pub(crate) fn spec() -> JobSpec {
        let function = FunctionRef { digest: "d".into(), language: "js".into(), name: None };
        JobSpec {
            input: Input {
                db: "shop".into(),
                collection: "orders".into(),
                query: Document::new(),
                sort: None,
                limit: None,
                projection: None,
                collation: None,
                read: ReadMode::Snapshot,
            },
            map: function,
            combine: None,
            reduce: Some(Reducer::Builtin("_sum".into())),
            finalize: None,
            skip_single_values: false,
            scope: Document::new(),
            output: Output {
                mode: OutputMode::Replace,
                db: "shop".into(),
                collection: "totals".into(),
            },
            partitions: 0,
            limits: Limits::default(),
            no_combine: false,
            keep_intermediates: false,
            on_error: OnError::Fail,
        }
    }

    #[test]
    fn a_plain_job_is_accepted() {
        assert!(spec().validate("shop").is_ok());
    }

    #[test]
    fn the_input_is_never_the_output() {
        let mut bad = spec();
        bad.output.collection = "orders".into();
        assert_eq!(bad.validate("shop").unwrap_err().exit_code(), 8);
        bad.output.db = "elsewhere".into();
        assert!(bad.validate("shop").is_ok());
    }

    #[test]
    fn only_a_map_only_job_under_a_snapshot_writes_back_what_it_read() {
        for mode in [OutputMode::Replace, OutputMode::Merge, OutputMode::Reduce, OutputMode::Update]
        {
            let mut job = spec();
            job.output.collection = "orders".into();
            job.output.mode = mode;
            assert!(job.validate("shop").is_err(), "{mode} with a reduce");
            job.reduce = None;
            let backfill = matches!(mode, OutputMode::Merge | OutputMode::Update);
            assert_eq!(job.validate("shop").is_ok(), backfill, "{mode}, map-only");
            job.input.read = ReadMode::Committed;
            assert!(job.validate("shop").is_err(), "{mode}, map-only, committed");
        }
    }

    #[test]
    fn results_that_forget_their_values_are_not_reduced_again() {
        for (name, well) in [("_sum", true), ("_count", true), ("_min", true), ("_max", true)]
            .into_iter()
            .chain([("_avg", false), ("_stats", false)])
        {
            let mut job = spec();
            job.output.mode = OutputMode::Reduce;
            job.reduce = Some(Reducer::Builtin(name.into()));
            assert_eq!(job.validate("shop").is_ok(), well, "{name}");
        }
    }

    #[test]
    fn aviarys_own_collections_are_no_output() {
        for name in ["aviary", "aviary-funcs", "aviary-intermediates", "aviary-out-x", "system.js"]
        {
            let mut bad = spec();
            bad.output.collection = name.into();
            assert_eq!(bad.validate("shop").unwrap_err().exit_code(), 8, "{name}");
        }
    }

    #[test]
    fn bad_numbers_and_names_are_usage_errors() {
        let mut bad = spec();
        bad.partitions = config::PARTITIONS_MAX + 1;
        assert_eq!(bad.validate("shop").unwrap_err().exit_code(), 2);
        let mut bad = spec();
        bad.input.limit = Some(0);
        assert_eq!(bad.validate("shop").unwrap_err().exit_code(), 2);
        let mut bad = spec();
        bad.input.collection = "a$b".into();
        assert_eq!(bad.validate("shop").unwrap_err().exit_code(), 2);
        let mut bad = spec();
        bad.reduce = None;
        bad.finalize = Some(bad.map.clone());
        assert_eq!(bad.validate("shop").unwrap_err().exit_code(), 2);
    }
}
