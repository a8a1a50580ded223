//! A task's counters: ours, and those its functions name.
//!
//! They are stored by the commit itself, so an attempt that did not commit never counts.

use std::collections::BTreeMap;

use bson::Document;

use crate::config;

/// The counters every job has.
pub const BUILT_IN: [&str; 4] = ["input", "emit", "reduce", "output"];

/// What a job counts besides whose results update documents: those that were there.
pub const UPDATED: &str = "updated";

/// And those that were not, so that their results are nowhere.
pub const UNMATCHED: &str = "unmatched";

/// What a job counts whose functions may fail on some records: those that were left out.
pub const SKIPPED: &str = "skipped";

/// Those that only some jobs have.
pub const AT_TIMES: [&str; 3] = [UPDATED, UNMATCHED, SKIPPED];

/// What one attempt has done so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Documents read.
    pub input: i64,
    /// Pairs emitted by map.
    pub emit: i64,
    /// Distinct keys reduced.
    pub reduce: i64,
    /// Documents written to the output.
    pub output: i64,
    /// Documents and keys that a function failed on, and that were left out.
    pub skipped: i64,
    /// The functions' own.
    pub user: BTreeMap<String, i64>,
}

impl Counters {
    /// Adds to a function's own counter. `false` when there are too many names already.
    pub fn count(&mut self, name: &str, delta: i64) -> bool {
        if let Some(value) = self.user.get_mut(name) {
            *value = value.saturating_add(delta);
            return true;
        }
        if self.user.len() >= config::USER_COUNTERS_MAX {
            return false;
        }
        self.user.insert(name.to_owned(), delta);
        true
    }

    /// Adds what another stage of the same attempt has counted; `refused` is told of names that there is no room for.
    pub fn add(&mut self, other: Counters, mut refused: impl FnMut(&str)) {
        let Counters { input, emit, reduce, output, skipped, user } = other;
        self.input += input;
        self.emit += emit;
        self.reduce += reduce;
        self.output += output;
        self.skipped += skipped;
        for (name, value) in user {
            if !self.count(&name, value) {
                refused(&name);
            }
        }
    }

    /// The counters as they stand in the task document. A function's own counter that is named like
    /// one of ours, or that could not be a field name, is set apart by `user_`, and each such character becomes an
    /// underscore.
    pub fn to_document(&self) -> Document {
        let mut doc = Document::new();
        for (name, value) in BUILT_IN.iter().zip([self.input, self.emit, self.reduce, self.output])
        {
            if value != 0 {
                doc.insert(*name, value);
            }
        }
        if self.skipped != 0 {
            doc.insert(SKIPPED, self.skipped);
        }
        for (name, value) in &self.user {
            let safe = name.replace(['$', '.', '\0'], "_");
            let safe = if BUILT_IN.contains(&safe.as_str())
                || AT_TIMES.contains(&safe.as_str())
                || safe.is_empty()
            {
                format!("user_{safe}")
            } else {
                safe
            };
            // Two names may have become one.
            let sum = doc.get_i64(&safe).unwrap_or(0).saturating_add(*value);
            doc.insert(safe, sum);
        }
        doc
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_functions_counter_cannot_pose_as_ours() {
        let mut counters = Counters { input: 3, ..Counters::default() };
        assert!(counters.count("input", 7));
        assert!(counters.count("a.b$c", 1));
        assert!(counters.count("a_b_c", 2));
        let doc = counters.to_document();
        assert_eq!(doc.get_i64("input").unwrap(), 3);
        assert_eq!(doc.get_i64("user_input").unwrap(), 7);
        assert_eq!(doc.get_i64("a_b_c").unwrap(), 3, "names that become one are added up");
    }

    #[test]
    fn names_are_limited() {
        let mut counters = Counters::default();
        for n in 0..config::USER_COUNTERS_MAX {
            assert!(counters.count(&n.to_string(), 1));
        }
        assert!(!counters.count("one more", 1));
        assert!(counters.count("0", 1));
    }
}
