//! Exact sums of BSON numbers, small where they can be.
//!
//! A sum sits in a table beside millions of others, so the usual cases are inline: an i64, or a
//! pair of doubles whose unrounded sum is the exact sum. What fits neither goes on exactly in a box.
//! Since nothing is rounded before [`Sum::finish`], integers and doubles give the same bytes however
//! the input was split and in whatever order it came. Decimals are exact while the sum has at most
//! 37 digits at its finest exponent, and beyond that rounded at each step.
//!
//! A partial state is a plain number where a number says it all, else binary data of subtype 0x80:
//! `version, kind, flags, decimal coefficient (16), decimal exponent (4)`, then two doubles or the
//! limbs of the wide sum.

mod wide_state;

use super::wide::{WideSum, split_i64};
use crate::value::decimal::{Decimal, Finite};
use crate::value::{RawVal, RawValBuf, tag};

use wide_state::{STATE_HEAD_BYTES, STATE_VERSION, read_binary, set_decimal};
pub(crate) use wide_state::{WideState, set_state};

const FLAG_NAN: u8 = 1;
const FLAG_POSITIVE_INFINITY: u8 = 2;
const FLAG_NEGATIVE_INFINITY: u8 = 4;

/// The widest type added so far, which is the type of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Int32 = 0,
    Int64 = 1,
    Double = 2,
    Decimal = 3,
}

/// An exact sum.
#[derive(Debug, Clone)]
pub(crate) enum Sum {
    /// Only integers; `long` once an int64 was among them.
    Int { sum: i64, long: bool },
    /// Doubles and perhaps integers. `high` is the rounded sum and `low` the exact rest.
    Double { high: f64, low: f64 },
    /// Anything else.
    Wide(Box<WideState>),
}

/// The bytes are no partial state, or the value no number.
#[derive(Debug)]
pub(crate) struct NotSummable;

impl Sum {
    pub(crate) const ZERO: Self = Self::Int { sum: 0, long: false };

    /// Adds an emitted number.
    #[inline]
    pub(crate) fn add(&mut self, value: RawVal<'_>) -> Result<(), NotSummable> {
        match value.tag {
            tag::INT32 => self.add_i64(value.as_i32().ok_or(NotSummable)?.into(), false),
            tag::INT64 => self.add_i64(value.as_i64().ok_or(NotSummable)?, true),
            tag::DOUBLE => self.add_f64(value.as_f64().ok_or(NotSummable)?),
            tag::DECIMAL128 => {
                self.add_decimal(Decimal::decode(*value.bytes.as_array().ok_or(NotSummable)?));
            }
            _ => return Err(NotSummable),
        }
        Ok(())
    }

    #[inline]
    pub(crate) fn add_i64(&mut self, value: i64, is_long: bool) {
        if let Self::Int { sum, long } = self
            && let Some(total) = sum.checked_add(value)
        {
            *sum = total;
            *long |= is_long;
            return;
        }
        self.add_i64_slowly(value, is_long);
    }

    fn add_i64_slowly(&mut self, value: i64, is_long: bool) {
        match self {
            Self::Double { .. } => {
                for part in split_i64(value) {
                    self.add_f64(part);
                }
            }
            Self::Int { .. } | Self::Wide(_) => {
                let kind = if is_long { Kind::Int64 } else { Kind::Int32 };
                self.widen(|state| {
                    state.binary.add_i64(value);
                    state.kind = state.kind.max(kind);
                });
            }
        }
    }

    #[inline]
    pub(crate) fn add_f64(&mut self, value: f64) {
        if let Self::Double { high, low } = self
            && let Some((new_high, new_low)) = add_to_pair(*high, *low, value)
        {
            (*high, *low) = (new_high, new_low);
            return;
        }
        self.add_f64_slowly(value);
    }

    fn add_f64_slowly(&mut self, value: f64) {
        if let Self::Int { sum, .. } = *self {
            let [high, low] = split_i64(sum);
            let Some((high, low)) = add_to_pair(high, 0.0, low) else {
                return self.widen(|state| state.add_f64(value));
            };
            *self = Self::Double { high, low };
            return self.add_f64(value);
        }
        self.widen(|state| state.add_f64(value));
    }

    fn add_decimal(&mut self, value: Decimal) {
        self.widen(|state| state.add_decimal(value));
    }

    /// Lends the wide form, which the sum has from then on.
    #[cold]
    fn widen<T>(&mut self, change: impl FnOnce(&mut WideState) -> T) -> T {
        if let Self::Wide(state) = self {
            return change(state);
        }
        let mut state = Box::new(self.to_wide());
        let result = change(&mut state);
        *self = Self::Wide(state);
        result
    }

    fn to_wide(&self) -> WideState {
        let mut state =
            WideState { kind: self.kind(), flags: 0, binary: WideSum::ZERO, decimal: Finite::ZERO };
        match self {
            Self::Int { sum, .. } => state.binary.add_i64(*sum),
            Self::Double { high, low } => {
                state.binary.add(*high);
                state.binary.add(*low);
            }
            Self::Wide(wide) => return WideState::clone(wide),
        }
        state
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Int { long: false, .. } => Kind::Int32,
            Self::Int { long: true, .. } => Kind::Int64,
            Self::Double { .. } => Kind::Double,
            Self::Wide(state) => state.kind,
        }
    }

    /// Bytes held on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::Wide(_) => size_of::<WideState>(),
            Self::Int { .. } | Self::Double { .. } => 0,
        }
    }

    /// Adds a partial state as written by [`Sum::partial`].
    pub(crate) fn merge(&mut self, partial: RawVal<'_>) -> Result<(), NotSummable> {
        match partial.tag {
            tag::BINARY => self.merge_state(partial.bytes.get(5..).ok_or(NotSummable)?),
            _ => self.add(partial),
        }
    }

    /// Adds the bytes of [`Sum::state_bytes`].
    pub(crate) fn merge_state(&mut self, bytes: &[u8]) -> Result<(), NotSummable> {
        let (head, rest) = bytes.split_first_chunk::<STATE_HEAD_BYTES>().ok_or(NotSummable)?;
        let [STATE_VERSION, kind, flags, decimal @ ..] = head else {
            return Err(NotSummable);
        };
        let kind = match kind {
            0 => Kind::Int32,
            1 => Kind::Int64,
            2 => Kind::Double,
            3 => Kind::Decimal,
            _ => return Err(NotSummable),
        };
        let (coefficient, exponent) = decimal.split_first_chunk::<16>().ok_or(NotSummable)?;
        let exponent = i32::from_le_bytes(*exponent.as_array().ok_or(NotSummable)?);
        let coefficient = i128::from_le_bytes(*coefficient);
        if exponent.unsigned_abs() > 10_000 || coefficient == i128::MIN {
            return Err(NotSummable);
        }
        let binary = read_binary(rest)?;
        self.widen(|state| {
            state.kind = state.kind.max(kind);
            state.flags |= flags & (FLAG_NAN | FLAG_POSITIVE_INFINITY | FLAG_NEGATIVE_INFINITY);
            if kind == Kind::Decimal {
                state.decimal = state.decimal.plus(Finite::from_i128(coefficient, exponent));
            }
            state.binary.merge(&binary);
        });
        self.shrink();
        Ok(())
    }

    /// Goes back to an inline form when that is exact, so that merging does not fill the heap.
    fn shrink(&mut self) {
        let Self::Wide(state) = self else { return };
        if state.flags != 0 {
            return;
        }
        match state.kind {
            Kind::Int32 | Kind::Int64 => {
                if let Some(sum) = state.binary.as_i64() {
                    *self = Self::Int { sum, long: state.kind == Kind::Int64 };
                }
            }
            Kind::Double => {
                if let Some((high, low)) = state.binary.as_pair() {
                    *self = Self::Double { high, low };
                }
            }
            Kind::Decimal => {}
        }
    }

    /// Writes the state: equal sums of equal kinds give equal bytes.
    pub(crate) fn partial(&self, out: &mut RawValBuf) {
        let mut canonical = self.clone();
        canonical.shrink();
        match &canonical {
            Self::Int { sum, long: true } => return out.set_i64(*sum),
            Self::Int { sum, long: false } => {
                if let Ok(sum) = i32::try_from(*sum) {
                    return out.set_i32(sum);
                }
            }
            Self::Double { high, low } if *low == 0.0 => return out.set_f64(*high),
            Self::Double { .. } => {}
            Self::Wide(state) => {
                if let Some(plain) = state.plain_partial() {
                    return out.set(plain.as_raw());
                }
            }
        }
        let mut state = Vec::new();
        canonical.state_bytes(&mut state);
        set_state(&state, out);
    }

    /// Appends the state in its binary form.
    pub(crate) fn state_bytes(&self, out: &mut Vec<u8>) {
        let state = self.to_wide();
        out.extend_from_slice(&[STATE_VERSION, state.kind as u8, state.flags]);
        out.extend_from_slice(&state.decimal.signed().to_le_bytes());
        out.extend_from_slice(&state.decimal.exponent.to_le_bytes());
        match state.binary.as_pair() {
            Some((high, low)) => {
                out.extend_from_slice(&high.to_le_bytes());
                out.extend_from_slice(&low.to_le_bytes());
            }
            None => out.extend(state.binary.to_bytes()),
        }
    }

    /// The sum as a BSON number of the type that the server's `$sum` gives.
    pub(crate) fn finish(&self) -> RawValBuf {
        let mut out = RawValBuf::new();
        match self {
            Self::Int { sum, long } => match i32::try_from(*sum) {
                Ok(sum) if !*long => out.set_i32(sum),
                _ => out.set_i64(*sum),
            },
            Self::Double { high, .. } => out.set_f64(*high),
            Self::Wide(state) => match state.kind {
                Kind::Decimal => set_decimal(&mut out, state.decimal_total()),
                Kind::Double => out.set_f64(state.double_total()),
                Kind::Int32 | Kind::Int64 => match state.binary.as_i64() {
                    Some(sum) => match i32::try_from(sum) {
                        Ok(sum) if state.kind == Kind::Int32 => out.set_i32(sum),
                        _ => out.set_i64(sum),
                    },
                    None => out.set_f64(state.binary.round()),
                },
            },
        }
        out
    }

    /// The average as the server's `$avg` gives it: a double, or a decimal when one was added.
    pub(crate) fn average(&self, count: u64) -> RawValBuf {
        let mut out = RawValBuf::new();
        match self {
            Self::Wide(state) if state.kind == Kind::Decimal => {
                let average = match state.decimal_total() {
                    Decimal::Finite(total) => Decimal::Finite(total.divided_by(count)),
                    other => other,
                };
                set_decimal(&mut out, average);
            }
            _ => out.set_f64(self.to_f64() / count as f64),
        }
        out
    }

    /// The nearest double.
    pub(crate) fn to_f64(&self) -> f64 {
        match self {
            Self::Int { sum, .. } => *sum as f64,
            Self::Double { high, .. } => *high,
            Self::Wide(state) if state.kind == Kind::Decimal => state.decimal_total().to_f64(),
            Self::Wide(state) => state.double_total(),
        }
    }

    /// The sum of doubles as a rounded double and the rounded rest.
    pub(crate) fn to_pair(&self) -> (f64, f64) {
        match self {
            Self::Double { high, low } => (*high, *low),
            _ => {
                let state = self.to_wide();
                let high = state.double_total();
                let mut rest = state.binary;
                if !high.is_finite() {
                    return (high, 0.0);
                }
                rest.add(-high);
                (high, rest.round())
            }
        }
    }
}

/// Adds to a pair without rounding: none when the exact sum is not a pair of doubles, or overflows.
#[inline]
pub(crate) fn add_to_pair(high: f64, low: f64, value: f64) -> Option<(f64, f64)> {
    let (sum, error) = two_sum(high, value);
    let (rest, lost) = two_sum(low, error);
    // A NaN, of which every infinity leaves one here, is not zero either.
    if lost != 0.0 || !sum.is_finite() {
        return None;
    }
    let (high, low) = two_sum(sum, rest);
    high.is_finite().then_some((high, low))
}

/// The rounded sum of two doubles and the exact error of the rounding (Knuth).
#[inline]
pub(crate) fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    let a_part = sum - b_part;
    (sum, (a - a_part) + (b - b_part))
}
