//! Reducing doubles the way a known function of a user's does, without calling it.
//!
//! The JavaScript guest recognizes functions that only add their values up, or find the least or the largest. Such a
//! function does with doubles what the processor does with them, one after the other, so [`Fold::join`], from the first
//! value on and in order, gives the same bits. It gives nothing where that is not plain to see: for values of other types,
//! infinities, NaN, and zeros with a sign. Then the function is called, with what was joined so far as its first value.

use crate::value::RawVal;

/// What a function makes of its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fold {
    /// Their sum.
    Sum,
    /// The least of them.
    Min,
    /// The largest of them.
    Max,
}

impl Fold {
    /// What the function makes of a value behind those that were joined, if any. `None` if it must be called to know.
    #[must_use]
    #[inline]
    pub fn join(self, before: Option<f64>, value: RawVal<'_>) -> Option<f64> {
        let number = value.as_f64().filter(|number| is_plain(*number))?;
        let joined = match (self, before) {
            (_, None) => number,
            (Self::Sum, Some(before)) => before + number,
            (Self::Min, Some(before)) => before.min(number),
            (Self::Max, Some(before)) => before.max(number),
        };
        joined.is_finite().then_some(joined)
    }
}

/// Whether a number is finite and no negative zero.
#[inline]
fn is_plain(number: f64) -> bool {
    number.is_finite() && (number != 0.0 || number.is_sign_positive())
}

#[cfg(test)]
mod tests {
    use bson::Bson;

    use super::*;
    use crate::value::RawValBuf;

    fn joined(fold: Fold, values: &[f64]) -> Option<f64> {
        let mut before = None;
        for value in values {
            let value = RawValBuf::from_bson(&Bson::from(*value)).unwrap();
            before = Some(fold.join(before, value.as_raw())?);
        }
        before
    }

    #[test]
    fn doubles_are_joined_in_order() {
        let values = [0.1, 0.2, 0.3, 1e16, -1e16, 7.0];
        let in_order = values.iter().copied().reduce(|a, b| a + b);
        assert_eq!(joined(Fold::Sum, &values), in_order);
        assert_ne!(in_order, values.iter().rev().copied().reduce(|a, b| a + b));
        assert_eq!(joined(Fold::Min, &values), Some(-1e16));
        assert_eq!(joined(Fold::Max, &values), Some(1e16));
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_function() {
        for fold in [Fold::Sum, Fold::Min, Fold::Max] {
            for odd in [f64::NAN, f64::INFINITY, -f64::INFINITY, -0.0] {
                assert_eq!(joined(fold, &[odd]), None);
                assert_eq!(joined(fold, &[1.0, odd]), None);
            }
            for other in [Bson::from(1), Bson::from(1_i64), Bson::from("1"), Bson::Null] {
                let value = RawValBuf::from_bson(&other).unwrap();
                assert_eq!(fold.join(None, value.as_raw()), None, "{other}");
            }
        }
        assert_eq!(joined(Fold::Sum, &[f64::MAX, f64::MAX]), None);
    }
}
