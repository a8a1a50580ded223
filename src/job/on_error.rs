//! What becomes of a record that a function fails on: it ends the job, or is left out and kept.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Error;
use crate::ids::JobId;

/// Most records that a job may leave out, by number or by share, in one task.
pub const SKIPPED_MAX: u64 = 100_000;

/// What happens when a function fails on a document or a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnError {
    /// The job fails.
    #[default]
    Fail,
    /// So many are left out at most; one more ends the job.
    Skip(u64),
    /// Such a share of the documents read is left out at most, in thousandths of a percent.
    SkipShare(u32),
}

impl OnError {
    /// Whether the first record that a function fails on ends the job.
    pub fn is_fail(&self) -> bool {
        *self == OnError::Fail
    }

    /// Why a job ends that has left out too many: how many, of what, and more about them, such as the first.
    pub fn refusal(self, skipped: u64, of: &str, more: &str, job: &JobId) -> Error {
        let records = if skipped == 1 { "record" } else { "records" };
        Error::refused(
            format!(
                "functions failed on {skipped} {records}{of}, more than --on-error {self} allows{more}"
            ),
            format!("aviary failed {job} lists them"),
        )
    }

    /// How many one task may leave out, whatever the others do.
    pub fn in_one_task(self) -> u64 {
        match self {
            OnError::Fail => 0,
            OnError::Skip(most) => most,
            OnError::SkipShare(_) => SKIPPED_MAX,
        }
    }

    /// Whether so many are too many for sure, however many documents there are yet to come.
    pub fn is_exceeded(self, skipped: u64) -> bool {
        match self {
            OnError::Fail | OnError::Skip(_) => skipped > self.in_one_task(),
            OnError::SkipShare(_) => false,
        }
    }

    /// Whether so many are too many, of so many documents in all.
    pub fn is_exceeded_of(self, skipped: u64, documents: u64) -> bool {
        match self {
            OnError::Fail | OnError::Skip(_) => self.is_exceeded(skipped),
            OnError::SkipShare(share) => {
                u128::from(skipped) * u128::from(WHOLE) > u128::from(documents) * u128::from(share)
            }
        }
    }
}

/// A hundred percent.
const WHOLE: u32 = 100_000;

const FORMS: &str = "use fail, skip:N with N from 0 to 100000, or skip:P% with P from 0 to 100 and at most three decimals";

impl FromStr for OnError {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let other = || format!("{text:?} says not what to do on errors; {FORMS}");
        if text == "fail" {
            return Ok(OnError::Fail);
        }
        let most = text.strip_prefix("skip:").ok_or_else(other)?;
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let parsed = match most.strip_suffix('%') {
            None if is_digits(most) => {
                most.parse().ok().filter(|most| *most <= SKIPPED_MAX).map(OnError::Skip)
            }
            None => None,
            Some(share) => {
                let (whole, decimals) = share.split_once('.').unwrap_or((share, "0"));
                let is_number = is_digits(whole) && is_digits(decimals) && decimals.len() <= 3;
                let number = is_number.then(|| format!("{whole}{decimals:0<3}"));
                number
                    .and_then(|number| number.parse().ok())
                    .filter(|share| *share <= WHOLE)
                    .map(OnError::SkipShare)
            }
        };
        match parsed.ok_or_else(other)? {
            OnError::Skip(0) | OnError::SkipShare(0) => Ok(OnError::Fail),
            some => Ok(some),
        }
    }
}

impl fmt::Display for OnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OnError::Fail => f.write_str("fail"),
            OnError::Skip(most) => write!(f, "skip:{most}"),
            OnError::SkipShare(share) => {
                let (whole, decimals) = (share / 1_000, format!("{:03}", share % 1_000));
                match decimals.trim_end_matches('0') {
                    "" => write!(f, "skip:{whole}%"),
                    decimals => write!(f, "skip:{whole}.{decimals}%"),
                }
            }
        }
    }
}

impl Serialize for OnError {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for OnError {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for (text, expected) in [
            ("fail", OnError::Fail),
            ("skip:0", OnError::Fail),
            ("skip:0%", OnError::Fail),
            ("skip:0.000%", OnError::Fail),
            ("skip:1", OnError::Skip(1)),
            ("skip:100000", OnError::Skip(100_000)),
            ("skip:0.001%", OnError::SkipShare(1)),
            ("skip:2.5%", OnError::SkipShare(2_500)),
            ("skip:100%", OnError::SkipShare(100_000)),
        ] {
            let parsed: OnError = text.parse().unwrap();
            assert_eq!(parsed, expected, "{text}");
            assert_eq!(parsed.to_string().parse(), Ok(expected), "{text}");
        }
        assert_eq!(OnError::SkipShare(2_500).to_string(), "skip:2.5%");
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "Fail",
            "skip",
            "skip:",
            "skip:-1",
            "skip:+1",
            "skip:1.5",
            "skip:100001",
            "skip:1e3",
            "skip: 1",
            "skip:%",
            "skip:.5%",
            "skip:1.%",
            "skip:0.0001%",
            "skip:100.001%",
            "skip:-1%",
            "skip:99999999999999999999",
            "skip:99999999999999999999%",
            "skip:１",
        ] {
            let refused = bad.parse::<OnError>().unwrap_err();
            assert!(refused.contains("skip:N"), "{bad}: {refused}");
        }
    }

    #[test]
    fn a_share_is_of_the_documents_read() {
        let half_a_percent = OnError::SkipShare(500);
        assert!(!half_a_percent.is_exceeded_of(5, 1_000));
        assert!(half_a_percent.is_exceeded_of(6, 1_000));
        assert!(!half_a_percent.is_exceeded(1_000));
        assert!(!half_a_percent.is_exceeded_of(0, 0));
        assert!(OnError::Skip(10).is_exceeded(11) && !OnError::Skip(10).is_exceeded(10));
        assert!(OnError::SkipShare(100_000).is_exceeded_of(11, 10));
    }
}
