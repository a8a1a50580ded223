//! The guest contract, version 1: what a module exports and what it may import.
//!
//! | export | type | meaning |
//! |---|---|---|
//! | `memory` | memory | where host and guest exchange bytes |
//! | `aviary_alloc` | `(len) -> ptr` | room for the next input; may be reused on the next call |
//! | `_initialize` | `() -> ()` | optional, called once, before anything else |
//! | `aviary_abi_v1` | `() -> ()` | names the version, never called; a custom section `aviary_abi` with the single byte 1 does as well |
//! | `map`, `combine`, `reduce`, `finalize` | `(ptr, len) -> ()` | the stages, each optional, one at least |
//! | `reduce_begin`, `reduce_next` | `(ptr, len) -> ()` | the streaming form of `reduce`, all three or none |
//! | `reduce_end` | `() -> ()` | as above |
//! | `aviary_sums` | `(i32) -> ()` | optional: called once with 1 if sums of the values that map emits are all that is wanted, in any order, so it may call `emit_total` |
//! | `aviary_js_load` | `(ptr, len) -> ()` | only the JavaScript guest: takes the sources |
//! | `aviary_js_streams` | `() -> (i32)` | only the JavaScript guest: whether the reduce that it took streams |
//! | `aviary_js_known` | `() -> (i32)` | only the JavaScript guest, optional: whether the reduce or the combine that it took is known to add doubles up in order (1), or to find the least (2) or the largest (3) of them, and does nothing else |
//! | `aviary_js_sums` | `(i32) -> ()` | only the JavaScript guest, optional: tells that sums of the values that map emits are all that is wanted, in any order (1) or in the order of emission (2), so it may call `emit_sum` |
//! | `aviary_js_fast_paths` | `(i32) -> ()` | only the JavaScript guest, never called by a worker: 0 turns its fast paths off, so that tests can compare |
//!
//! Input is concatenated BSON documents: for `map` the documents themselves, for `combine` and
//! `reduce` one `{k, v: [..]}` a key, for `finalize` one `{k, v}` a key. A guest that fails stops
//! its call; nothing that it emitted in that call may be kept.
//!
//! `emit_sum(key, key_len, sum, emits)` stands for so many calls of `emit` with one key, whose values are doubles that add up
//! to `sum` without rounding. It counts as that many emits, and as their bytes. Only a map whose job reduces by `_sum`, by
//! `_count` or by a function that is known to add up may call it; others fail.
//!
//! `emit_total(key, key_len, value, value_len, emits)` is the same for numbers of any type, where the job reduces by `_sum` or
//! `_count`: so many emits with one key, whose values are of the type of `value`, and add up to it without rounding and without
//! overflow.
//!
//! A reduce in the streaming form need not be associative. For each key, `reduce_begin` is given one
//! document `{k}`, then `reduce_next` one document `{v: [..]}` with the next values, as often as there
//! are more, then `reduce_end` is called and may emit once, with the key that was given. The values
//! come in the order of the map tasks' numbers, and those of one task in the order in which it emitted
//! them (or its combine did). Of a module that has `reduce` as well, the streaming form is the reduce.

use std::fmt;

use wasmtime::wasmparser::ValType;

/// The version of the contract that this host speaks.
pub const ABI_VERSION: u32 = 1;
/// The export that names the version of the contract.
pub const EXPORT_ABI: &str = "aviary_abi_v1";
/// What every export that names some version begins with.
pub(crate) const EXPORT_ABI_PREFIX: &str = "aviary_abi_v";
/// The custom section that may name the version instead: its payload is one byte.
pub const SECTION_ABI: &str = "aviary_abi";
/// The exported memory.
pub const EXPORT_MEMORY: &str = "memory";
/// The export that makes room for input.
pub const EXPORT_ALLOC: &str = "aviary_alloc";
/// The optional export called once after instantiation.
pub const EXPORT_INITIALIZE: &str = "_initialize";
/// The export by which the JavaScript guest takes its sources.
pub const EXPORT_JS_LOAD: &str = "aviary_js_load";
/// The export by which any other guest is told the same.
pub const EXPORT_SUMS: &str = "aviary_sums";
/// The export by which the JavaScript guest says whether the reduce that it took streams.
pub const EXPORT_JS_STREAMS: &str = "aviary_js_streams";
/// The export by which the JavaScript guest is told that only sums of what its map emits are wanted.
pub const EXPORT_JS_SUMS: &str = "aviary_js_sums";
/// The export by which the JavaScript guest says whether the reduce or the combine that it took is a known one.
pub const EXPORT_JS_KNOWN: &str = "aviary_js_known";
/// The exports that are a reduce in the streaming form, in the order in which they are called.
pub const EXPORTS_STREAM: [&str; 3] = ["reduce_begin", "reduce_next", "reduce_end"];
/// The import module that holds the contract's functions.
pub const IMPORT_AVIARY: &str = "aviary";
/// The import module that holds the small part of WASI that guests get.
pub const IMPORT_WASI: &str = "wasi_snapshot_preview1";

/// What a reduce does with doubles, where that is known without calling it: it takes them in order, and does nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It adds them up.
    Sum,
    /// It finds the least of them.
    Min,
    /// It finds the largest of them.
    Max,
}

impl Known {
    /// From what the guest says.
    pub(crate) const fn of(answer: i32) -> Option<Self> {
        match answer {
            1 => Some(Self::Sum),
            2 => Some(Self::Min),
            3 => Some(Self::Max),
            _ => None,
        }
    }
}

/// A function that a job calls in a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Documents to pairs.
    Map,
    /// Values of one key to fewer, on the mapping side.
    Combine,
    /// Values of one key to its result.
    Reduce,
    /// A key's result to what is stored.
    Finalize,
}

impl Stage {
    /// Every stage, in the order in which a job runs them.
    pub const ALL: [Self; 4] = [Self::Map, Self::Combine, Self::Reduce, Self::Finalize];

    /// The name of the export, which is also how people call the stage.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Map => "map",
            Self::Combine => "combine",
            Self::Reduce => "reduce",
            Self::Finalize => "finalize",
        }
    }

    /// The stage whose export has this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Map => 1,
            Self::Combine => 2,
            Self::Reduce => 4,
            Self::Finalize => 8,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of stages.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct StageSet(u8);

impl StageSet {
    /// No stage.
    pub const EMPTY: Self = Self(0);

    /// Adds a stage.
    pub const fn insert(&mut self, stage: Stage) {
        self.0 |= stage.bit();
    }

    /// Whether the stage is in the set.
    #[must_use]
    pub const fn contains(self, stage: Stage) -> bool {
        self.0 & stage.bit() != 0
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The stages of the set, in the order in which a job runs them.
    pub fn iter(self) -> impl Iterator<Item = Stage> {
        Stage::ALL.into_iter().filter(move |stage| self.contains(*stage))
    }
}

impl FromIterator<Stage> for StageSet {
    fn from_iter<I: IntoIterator<Item = Stage>>(stages: I) -> Self {
        let mut set = Self::EMPTY;
        for stage in stages {
            set.insert(stage);
        }
        set
    }
}

impl fmt::Debug for StageSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl fmt::Display for StageSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, stage) in self.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{stage}")?;
        }
        Ok(())
    }
}

/// What a guest was doing when it stopped: a stage, or one of the steps before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Instantiation, which runs the module's `start` function.
    Start,
    /// The export `_initialize`.
    Initialize,
    /// Loading JavaScript sources.
    Load,
    /// A stage.
    Stage(Stage),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Initialize => EXPORT_INITIALIZE,
            Self::Load => "load",
            Self::Stage(stage) => stage.name(),
        })
    }
}

/// How much a line of a guest's log matters. A guest gives it as a number, 0 for error to 4 for
/// trace; every other number is taken as info.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// 0: something failed.
    Error,
    /// 1: something is odd. Lines written to standard error are of this level.
    Warn,
    /// 2: worth knowing. Lines written to standard output are of this level.
    Info,
    /// 3: for finding mistakes.
    Debug,
    /// 4: for finding them step by step.
    Trace,
}

impl Level {
    /// The level with this number.
    #[must_use]
    pub const fn from_number(number: i32) -> Self {
        match number {
            0 => Self::Error,
            1 => Self::Warn,
            3 => Self::Debug,
            4 => Self::Trace,
            _ => Self::Info,
        }
    }

    /// The lower-case name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The type of a function that a guest imports or exports.
pub(crate) struct Signature {
    pub(crate) params: &'static [ValType],
    pub(crate) results: &'static [ValType],
}

const I: ValType = ValType::I32;
const L: ValType = ValType::I64;
const F: ValType = ValType::F64;

const fn signature(params: &'static [ValType], results: &'static [ValType]) -> Signature {
    Signature { params, results }
}

/// The functions that a guest may import: module, name, type. Whatever is not here is refused.
pub(crate) const IMPORTS: &[(&str, &str, Signature)] = &[
    (IMPORT_AVIARY, "emit", signature(&[I, I, I, I], &[])),
    (IMPORT_AVIARY, "emit_sum", signature(&[I, I, F, I], &[])),
    (IMPORT_AVIARY, "emit_total", signature(&[I, I, I, I, I], &[])),
    (IMPORT_AVIARY, "count", signature(&[I, I, L], &[])),
    (IMPORT_AVIARY, "log", signature(&[I, I, I], &[])),
    (IMPORT_AVIARY, "fail", signature(&[I, I], &[])),
    (IMPORT_AVIARY, "scope", signature(&[I, I], &[I])),
    (IMPORT_WASI, "args_get", signature(&[I, I], &[I])),
    (IMPORT_WASI, "args_sizes_get", signature(&[I, I], &[I])),
    (IMPORT_WASI, "environ_get", signature(&[I, I], &[I])),
    (IMPORT_WASI, "environ_sizes_get", signature(&[I, I], &[I])),
    (IMPORT_WASI, "clock_res_get", signature(&[I, I], &[I])),
    (IMPORT_WASI, "clock_time_get", signature(&[I, L, I], &[I])),
    (IMPORT_WASI, "fd_close", signature(&[I], &[I])),
    (IMPORT_WASI, "fd_fdstat_get", signature(&[I, I], &[I])),
    (IMPORT_WASI, "fd_fdstat_set_flags", signature(&[I, I], &[I])),
    (IMPORT_WASI, "fd_prestat_get", signature(&[I, I], &[I])),
    (IMPORT_WASI, "fd_prestat_dir_name", signature(&[I, I, I], &[I])),
    (IMPORT_WASI, "fd_read", signature(&[I, I, I, I], &[I])),
    (IMPORT_WASI, "fd_seek", signature(&[I, L, I, I], &[I])),
    (IMPORT_WASI, "fd_write", signature(&[I, I, I, I], &[I])),
    (IMPORT_WASI, "path_open", signature(&[I, I, I, I, I, L, L, I, I], &[I])),
    (IMPORT_WASI, "poll_oneoff", signature(&[I, I, I, I], &[I])),
    (IMPORT_WASI, "proc_exit", signature(&[I], &[])),
    (IMPORT_WASI, "random_get", signature(&[I, I], &[I])),
    (IMPORT_WASI, "sched_yield", signature(&[], &[I])),
];

/// The function exports that have a meaning, with the type each must have.
pub(crate) const EXPORTS: &[(&str, Signature)] = &[
    (EXPORT_ALLOC, signature(&[I], &[I])),
    (EXPORT_INITIALIZE, signature(&[], &[])),
    (EXPORT_ABI, signature(&[], &[])),
    (EXPORT_JS_LOAD, signature(&[I, I], &[])),
    ("map", signature(&[I, I], &[])),
    ("combine", signature(&[I, I], &[])),
    ("reduce", signature(&[I, I], &[])),
    ("finalize", signature(&[I, I], &[])),
    ("reduce_begin", signature(&[I, I], &[])),
    ("reduce_next", signature(&[I, I], &[])),
    ("reduce_end", signature(&[], &[])),
    (EXPORT_JS_STREAMS, signature(&[], &[I])),
    (EXPORT_JS_SUMS, signature(&[I], &[])),
    (EXPORT_SUMS, signature(&[I], &[])),
    (EXPORT_JS_KNOWN, signature(&[], &[I])),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_set_holds_what_was_put_in_and_prints_it_in_order() {
        let set: StageSet = [Stage::Reduce, Stage::Map].into_iter().collect();
        assert!(set.contains(Stage::Map) && set.contains(Stage::Reduce));
        assert!(!set.contains(Stage::Combine) && !set.contains(Stage::Finalize));
        assert_eq!(set.to_string(), "map, reduce");
        assert!(StageSet::EMPTY.is_empty() && !set.is_empty());
    }

    #[test]
    fn names_lead_back_to_their_stage() {
        for stage in Stage::ALL {
            assert_eq!(Stage::from_name(stage.name()), Some(stage));
            assert!(EXPORTS.iter().any(|(name, _)| *name == stage.name()));
        }
        assert_eq!(Stage::from_name("Map"), None);
        for name in EXPORTS_STREAM {
            assert!(EXPORTS.iter().any(|(known, _)| *known == name));
        }
    }
}
