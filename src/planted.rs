//! Faults that are planted to test the tests.
//!
//! With the feature `mutants`, `AVIARY_MUTANT` names one fault of [`ALL`], and the program has it. Without the
//! feature, which no release has, nothing is ever planted. `.ci/mutants` plants each in turn and says which test
//! notices.

/// Every fault that can be planted, and the rule that it breaks.
pub const ALL: [(&str, &str); 17] = [
    ("commit-unfenced", "a commit names the token"),
    ("renewal-unfenced", "a renewal names the token"),
    (
        "failure-unfenced",
        "a failure names the token, and who believes that results are gone checks it",
    ),
    ("record-unfenced", "the mark that values are completed names the token"),
    ("client-clock", "the server's clock decides who may claim"),
    ("blocks-uncommitted", "reducers read only blocks that a committed manifest names"),
    ("maps-incomplete", "nothing is reduced before every map task has committed"),
    ("counters-early", "an attempt that did not commit never counts"),
    ("turn-ignored", "at most one job publishes into a target at a time"),
    ("turn-early", "a turn is released only once its job is cleaned up after"),
    ("begin-unmarked", "the step that changes the target is announced before it is taken"),
    ("count-unmarked", "results are counted before a TTL index can thin them, and not again"),
    ("claim-unconfirmed", "a map task's claim is durable before its first result"),
    ("unfit-fails", "a worker that cannot do a task leaves it to others"),
    ("tombstone-dropped", "a removed job is remembered for as long as its workers may wake up"),
    ("lock-fatal", "a lock that somebody else holds passes"),
    ("validator-late", "what the target refuses is found out before anything is merged"),
];

/// Whether this fault is planted.
#[cfg(feature = "mutants")]
pub fn planted(name: &str) -> bool {
    static NAME: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    debug_assert!(ALL.iter().any(|(known, _)| *known == name), "{name} is in no list");
    NAME.get_or_init(|| std::env::var("AVIARY_MUTANT").ok()).as_deref() == Some(name)
}

/// Whether this fault is planted: never.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn planted(_name: &str) -> bool {
    false
}
