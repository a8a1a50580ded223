//! Which versions may do a job.
//!
//! Old and new versions share a database for the length of an upgrade at least. A field that an old version does not know
//! is passed over without a word, so a job that depends on one says what it takes to do it: a level, which grows by
//! one with each such feature. Who is of a lower level leaves the job alone. (The levels of storage formats work like that:
//! SQLite's read version and write version, ZFS's feature flags.)

use std::sync::OnceLock;

use serde::{Deserialize, Deserializer, de};

use super::spec::JobSpec;

/// The level of a job whose functions may fail on some records.
const LEAVES_RECORDS_OUT: i32 = 1;

/// The highest level that this version knows.
const KNOWN: i32 = LEAVES_RECORDS_OUT;

/// The level of this process. A test may lower it with `AVIARY_TEST_LEVEL`, to stand for an older version.
pub fn level() -> i32 {
    static LEVEL: OnceLock<i32> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let given = std::env::var("AVIARY_TEST_LEVEL").ok().and_then(|text| text.parse().ok());
        given.map_or(KNOWN, |given: i32| given.min(KNOWN))
    })
}

/// The level that a job takes; 0 is every version's.
pub(super) fn level_of(spec: &JobSpec) -> i32 {
    if spec.on_error.is_fail() { 0 } else { LEAVES_RECORDS_OUT }
}

/// Reads a level, and refuses one that this version does not have.
pub(super) fn understood<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    let required = i32::deserialize(deserializer)?;
    if required > level() {
        return Err(de::Error::custom(format!(
            "it requires level {required}, and this is {}",
            level()
        )));
    }
    Ok(required)
}

#[cfg(test)]
mod tests {
    use bson::{DateTime, doc};

    use super::*;
    use crate::ids::JobId;
    use crate::job::{Job, OnError};

    fn job(on_error: OnError) -> Job {
        let spec = JobSpec { on_error, ..crate::job::validate::tests::spec() };
        Job::new(
            JobId::from_text("0123456789abcdef01234567"),
            "rs0",
            spec,
            DateTime::from_millis(0),
        )
    }

    #[test]
    fn a_job_requires_what_its_features_take_and_a_higher_level_is_refused() {
        let plain = bson::serialize_to_document(&job(OnError::Fail)).unwrap();
        assert!(!plain.contains_key("requires"), "every version may do it: {plain}");
        let skips = bson::serialize_to_document(&job(OnError::Skip(1))).unwrap();
        assert_eq!(skips.get_i32("requires").unwrap(), LEAVES_RECORDS_OUT);
        assert!(bson::deserialize_from_document::<Job>(skips.clone()).is_ok());
        let mut newer = skips;
        newer.extend(doc! { "requires": KNOWN + 1 });
        let refused = bson::deserialize_from_document::<Job>(newer).unwrap_err().to_string();
        assert!(refused.contains("it requires level 2, and this is 1"), "{refused}");
    }
}
