//! The reductions that need no guest code: `_sum _count _min _max _avg _stats`.
//!
//! Each has a state that takes emitted values, writes itself as a BSON value (a *partial*), merges
//! partials of other tasks, and ends as a result. Results of `_count`, `_min`, `_max`, and of `_sum`,
//! `_avg` and `_stats` over integers and doubles, do not depend on how the input was split or
//! ordered; decimals beyond 37 digits may differ in the last one.

use std::fmt;
use std::str::FromStr;

use super::extreme;
use super::stats::Stats;
use super::sum::{Sum, set_state};
use crate::value::key;
use crate::value::{RawVal, RawValBuf, tag, type_name};

/// A reduction that the worker runs natively.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Builtin {
    /// Sum of numbers, of the type that the server's `$sum` gives.
    Sum,
    /// How many values were emitted, as an int64.
    Count,
    /// Smallest value in the server's order of all types; null and undefined are passed over.
    Min,
    /// Largest value in the server's order of all types; null and undefined are passed over.
    Max,
    /// Average of numbers, of the type that the server's `$avg` gives.
    Avg,
    /// `{sum, count, min, max, sumsqr, avg, stdDev}` of numbers, in doubles.
    Stats,
}

impl Builtin {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 6] =
        [Self::Sum, Self::Count, Self::Min, Self::Max, Self::Avg, Self::Stats];

    /// The name that a job calls it by.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sum => "_sum",
            Self::Count => "_count",
            Self::Min => "_min",
            Self::Max => "_max",
            Self::Avg => "_avg",
            Self::Stats => "_stats",
        }
    }
}

impl fmt::Display for Builtin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Builtin {
    type Err = BuiltinError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|builtin| builtin.name() == name)
            .ok_or_else(|| BuiltinError::Unknown { name: name.to_owned() })
    }
}

/// Why a built-in reduction refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuiltinError {
    /// There is no such built-in.
    #[error("there is no built-in {name}; there are _sum, _count, _min, _max, _avg and _stats")]
    Unknown {
        /// The name asked for.
        name: String,
    },
    /// A value that is not a number was emitted.
    #[error("{builtin} takes numbers, but a value of type {found} was emitted: {shown}")]
    NotANumber {
        /// The reduction.
        builtin: Builtin,
        /// The value's type.
        found: &'static str,
        /// The value, shortened.
        shown: String,
    },
    /// The bytes do not hold a partial state of this reduction.
    #[error("a partial result of {builtin} is malformed (type {found})")]
    BadPartial {
        /// The reduction.
        builtin: Builtin,
        /// The type of the value that should be a partial.
        found: &'static str,
    },
    /// The value cannot be ordered since it is not valid BSON.
    #[error("a value given to {builtin} cannot be compared: {source}")]
    Incomparable {
        /// The reduction.
        builtin: Builtin,
        /// What is wrong with the value.
        source: key::KeyError,
    },
}

/// The state of one reduction over the values of one key.
#[derive(Debug, Clone)]
pub struct Accumulator {
    state: State,
}

/// What an [`Accumulator`] is made of; tables keep small ones in another form.
#[derive(Debug, Clone)]
pub(crate) enum State {
    Sum(Sum),
    Count(u64),
    Extreme(Builtin, Option<RawValBuf>),
    Avg(Average),
    Stats(Box<Stats>),
}

/// Count and sum.
#[derive(Debug, Clone)]
pub(crate) struct Average {
    count: u64,
    sum: Sum,
}

impl Accumulator {
    /// The state before the first value.
    #[must_use]
    #[inline]
    pub fn new(builtin: Builtin) -> Self {
        let state = match builtin {
            Builtin::Sum => State::Sum(Sum::ZERO),
            Builtin::Count => State::Count(0),
            Builtin::Min | Builtin::Max => State::Extreme(builtin, None),
            Builtin::Avg => State::Avg(Average { count: 0, sum: Sum::ZERO }),
            Builtin::Stats => State::Stats(Box::new(Stats::new())),
        };
        Self { state }
    }

    pub(crate) fn of_sum(sum: Sum) -> Self {
        Self { state: State::Sum(sum) }
    }

    pub(crate) fn of_count(count: u64) -> Self {
        Self { state: State::Count(count) }
    }

    pub(crate) fn of_extreme(builtin: Builtin, value: RawValBuf) -> Self {
        Self { state: State::Extreme(builtin, Some(value)) }
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Which reduction this is.
    #[must_use]
    pub fn builtin(&self) -> Builtin {
        match &self.state {
            State::Sum(_) => Builtin::Sum,
            State::Count(_) => Builtin::Count,
            State::Extreme(builtin, _) => *builtin,
            State::Avg(_) => Builtin::Avg,
            State::Stats(_) => Builtin::Stats,
        }
    }

    /// Takes an emitted value.
    ///
    /// # Errors
    /// [`BuiltinError::NotANumber`] from `_sum`, `_avg` and `_stats`.
    #[inline]
    pub fn add(&mut self, value: RawVal<'_>) -> Result<(), BuiltinError> {
        self.add_with(value, &mut Vec::new())
    }

    /// As [`Accumulator::add`]; `scratch` is for comparing and is overwritten.
    #[inline]
    pub(crate) fn add_with(
        &mut self,
        value: RawVal<'_>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), BuiltinError> {
        let taken = match &mut self.state {
            State::Sum(sum) => sum.add(value).is_ok(),
            State::Count(count) => {
                *count = count.saturating_add(1);
                true
            }
            State::Extreme(builtin, extreme) => return see(*builtin, extreme, value, scratch),
            State::Avg(average) => {
                let is_taken = average.sum.add(value).is_ok();
                average.count = average.count.saturating_add(u64::from(is_taken));
                is_taken
            }
            State::Stats(stats) => stats.add(value).is_ok(),
        };
        if taken {
            return Ok(());
        }
        Err(self.not_a_number(value))
    }

    #[cold]
    fn not_a_number(&self, value: RawVal<'_>) -> BuiltinError {
        BuiltinError::NotANumber {
            builtin: self.builtin(),
            found: type_name(value.tag),
            shown: value.to_string(),
        }
    }

    /// Takes what [`Accumulator::partial`] of another state wrote.
    ///
    /// # Errors
    /// [`BuiltinError::BadPartial`] when the value is none. The state is then of no more use.
    pub fn merge(&mut self, partial: RawVal<'_>) -> Result<(), BuiltinError> {
        self.merge_with(partial, &mut Vec::new())
    }

    /// As [`Accumulator::merge`]; `scratch` is for comparing and is overwritten.
    pub(crate) fn merge_with(
        &mut self,
        partial: RawVal<'_>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), BuiltinError> {
        let merged = match &mut self.state {
            State::Sum(sum) => sum.merge(partial).is_ok(),
            State::Count(count) => match partial.as_i64().and_then(|more| u64::try_from(more).ok())
            {
                Some(more) => {
                    *count = count.saturating_add(more);
                    true
                }
                None => false,
            },
            State::Extreme(builtin, extreme) => return see(*builtin, extreme, partial, scratch),
            State::Avg(average) => average.merge(partial).is_some(),
            State::Stats(stats) => stats.merge(partial).is_ok(),
        };
        if merged {
            return Ok(());
        }
        Err(BuiltinError::BadPartial { builtin: self.builtin(), found: type_name(partial.tag) })
    }

    /// Writes the state as a BSON value. Equal states give equal bytes.
    ///
    /// The extreme of no values is written as null, which changes nothing where it is merged.
    pub fn partial(&self, out: &mut RawValBuf) {
        match &self.state {
            State::Sum(sum) => sum.partial(out),
            State::Count(count) => out.set_i64(i64::try_from(*count).unwrap_or(i64::MAX)),
            State::Extreme(_, extreme) => {
                out.set(extreme.as_ref().map_or(RawVal::NULL, RawValBuf::as_raw));
            }
            State::Avg(average) => average.partial(out),
            State::Stats(stats) => stats.partial(out),
        }
    }

    /// The result.
    #[must_use]
    pub fn finish(&self) -> RawValBuf {
        match &self.state {
            State::Sum(sum) => sum.finish(),
            State::Avg(average) if average.count == 0 => RawValBuf::new(),
            State::Avg(average) => average.sum.average(average.count),
            State::Stats(stats) => stats.finish(),
            State::Count(_) | State::Extreme(..) => {
                let mut out = RawValBuf::new();
                self.partial(&mut out);
                out
            }
        }
    }

    /// Bytes that the state holds on the heap, besides its own size.
    #[must_use]
    #[inline]
    pub fn heap_bytes(&self) -> usize {
        match &self.state {
            State::Sum(sum) => sum.heap_bytes(),
            State::Count(_) | State::Extreme(_, None) => 0,
            State::Extreme(_, Some(value)) => value.capacity(),
            State::Avg(average) => average.sum.heap_bytes(),
            State::Stats(stats) => stats.heap_bytes(),
        }
    }
}

/// Keeps the smaller or larger of two values. As for `$min` and `$max`, null is no value: of nothing else, the result
/// is null.
fn see(
    builtin: Builtin,
    best: &mut Option<RawValBuf>,
    value: RawVal<'_>,
    scratch: &mut Vec<u8>,
) -> Result<(), BuiltinError> {
    if value.is_nullish() {
        return Ok(());
    }
    let incomparable = |source| BuiltinError::Incomparable { builtin, source };
    match best {
        Some(best) => {
            if extreme::is_better(builtin, best.as_raw(), value, scratch).map_err(incomparable)? {
                best.set(value);
            }
        }
        None => {
            // What cannot be compared is refused now, since the next value would meet it.
            scratch.clear();
            key::encode(value, scratch).map_err(incomparable)?;
            *best = Some(value.into());
        }
    }
    Ok(())
}

impl Average {
    fn partial(&self, out: &mut RawValBuf) {
        let mut state = self.count.to_le_bytes().to_vec();
        self.sum.state_bytes(&mut state);
        set_state(&state, out);
    }

    fn merge(&mut self, partial: RawVal<'_>) -> Option<()> {
        if partial.tag != tag::BINARY {
            return None;
        }
        let (count, sum) = partial.bytes.get(5..)?.split_first_chunk::<8>()?;
        self.sum.merge_state(sum).ok()?;
        self.count = self.count.saturating_add(u64::from_le_bytes(*count));
        Some(())
    }
}
