//! An exact sum of doubles: a fixed-point number wide enough for every double.
//!
//! Sums of doubles depend on their order, unless nothing is rounded before the end. A retried or
//! differently spilled task must give the same bytes, so a sum that no longer fits two doubles
//! exactly (see `sum.rs`) goes on in this form: 2240 bits of two's complement whose lowest bit is worth
//! 2⁻¹⁰⁷⁴. The headroom takes 2¹⁰⁰ additions of the largest double.

use crate::value::number::decompose;

const LIMBS: usize = 35;
/// Length of the stored form.
pub(crate) const WIDE_BYTES: usize = LIMBS * 8;

/// The exact sum, lowest limb first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WideSum {
    limbs: [u64; LIMBS],
}

impl WideSum {
    pub(crate) const ZERO: Self = Self { limbs: [0; LIMBS] };

    /// Adds a finite double; nothing else is given.
    pub(crate) fn add(&mut self, value: f64) {
        let (mantissa, exponent) = decompose(value.abs());
        let position = (exponent + 1074).unsigned_abs();
        let shifted = u128::from(mantissa) << (position % 64);
        #[expect(clippy::cast_possible_truncation, reason = "the halves are what is wanted")]
        let parts = [shifted as u64, (shifted >> 64) as u64];
        let mut carry = false;
        let mut parts = parts.into_iter();
        for limb in self.limbs.iter_mut().skip((position / 64) as usize) {
            let part = match parts.next() {
                Some(part) => part,
                None if carry => 0,
                None => break,
            };
            (*limb, carry) = if value < 0.0 {
                limb.borrowing_sub_stable(part, carry)
            } else {
                limb.carrying_add_stable(part, carry)
            };
        }
    }

    /// Adds an integer.
    pub(crate) fn add_i64(&mut self, value: i64) {
        let [high, low] = split_i64(value);
        self.add(high);
        self.add(low);
    }

    /// Adds another exact sum.
    pub(crate) fn merge(&mut self, other: &Self) {
        let mut carry = false;
        for (limb, part) in self.limbs.iter_mut().zip(other.limbs) {
            (*limb, carry) = limb.carrying_add_stable(part, carry);
        }
    }

    fn is_negative(&self) -> bool {
        self.limbs.last().is_some_and(|limb| limb >> 63 == 1)
    }

    /// The nearest double, ties to even; infinite when past the largest.
    pub(crate) fn round(&self) -> f64 {
        let negative = self.is_negative();
        let mut limbs = self.limbs;
        if negative {
            let mut carry = true;
            for limb in &mut limbs {
                (*limb, carry) = (!*limb).carrying_add_stable(0, carry);
            }
        }
        let Some(top) = limbs.iter().rposition(|&limb| limb != 0) else {
            return 0.0;
        };
        let limb = |at: usize| limbs.get(at).copied().unwrap_or(0);
        let top_bit = top as u32 * 64 + (63 - limb(top).leading_zeros());
        // Up to 53 bits from the bottom are a double as they are.
        let drop = top_bit.saturating_sub(52);
        let (word, shift) = ((drop / 64) as usize, drop % 64);
        let window = (u128::from(limb(word + 1)) << 64) | u128::from(limb(word));
        let mut mantissa = (window >> shift) as u64 & ((1 << 53) - 1);
        if drop > 0 {
            let bit = drop - 1;
            let (word, shift) = ((bit / 64) as usize, bit % 64);
            let half = (limb(word) >> shift) & 1 == 1;
            let below = limb(word) & ((1 << shift) - 1) != 0
                || limbs.iter().take(word).any(|&limb| limb != 0);
            if half && (below || mantissa & 1 == 1) {
                mantissa += 1;
            }
        }
        let magnitude = mantissa as f64 * power_of_two(drop.cast_signed() - 1074);
        if negative { -magnitude } else { magnitude }
    }

    /// The sum as the nearest double and the exact rest, when such a pair exists.
    pub(crate) fn as_pair(&self) -> Option<(f64, f64)> {
        let high = self.round();
        if !high.is_finite() {
            return None;
        }
        let mut rest = self.clone();
        rest.add(-high);
        let low = rest.round();
        rest.add(-low);
        (rest == Self::ZERO).then_some((high, low))
    }

    /// The sum as an integer, when it is one that fits.
    pub(crate) fn as_i64(&self) -> Option<i64> {
        let (high, low) = self.as_pair()?;
        if high.abs() > 1e19 || high.trunc() != high || low.trunc() != low {
            return None;
        }
        i64::try_from(high as i128 + low as i128).ok()
    }

    pub(crate) fn to_bytes(&self) -> impl Iterator<Item = u8> + '_ {
        self.limbs.iter().flat_map(|limb| limb.to_le_bytes())
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != WIDE_BYTES {
            return None;
        }
        let mut sum = Self::ZERO;
        let (words, _) = bytes.as_chunks::<8>();
        for (limb, word) in sum.limbs.iter_mut().zip(words) {
            *limb = u64::from_le_bytes(*word);
        }
        Some(sum)
    }
}

/// An integer as two doubles without rounding.
pub(crate) fn split_i64(value: i64) -> [f64; 2] {
    let low = value & 0xFFFF_FFFF;
    [(value - low) as f64, low as f64]
}

/// `2^exponent`, for exponents from -1074; infinite past 1023.
fn power_of_two(exponent: i32) -> f64 {
    match exponent {
        1024.. => f64::INFINITY,
        -1022..=1023 => f64::from_bits(u64::from((exponent + 1023).unsigned_abs()) << 52),
        _ => f64::from_bits(1 << (exponent + 1074).clamp(0, 51)),
    }
}

/// Addition and subtraction with a carry in and out.
trait Carry: Sized {
    fn carrying_add_stable(self, other: Self, carry: bool) -> (Self, bool);
    fn borrowing_sub_stable(self, other: Self, borrow: bool) -> (Self, bool);
}

impl Carry for u64 {
    fn carrying_add_stable(self, other: Self, carry: bool) -> (Self, bool) {
        let (sum, first) = self.overflowing_add(other);
        let (sum, second) = sum.overflowing_add(carry.into());
        (sum, first || second)
    }

    fn borrowing_sub_stable(self, other: Self, borrow: bool) -> (Self, bool) {
        let (rest, first) = self.overflowing_sub(other);
        let (rest, second) = rest.overflowing_sub(borrow.into());
        (rest, first || second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn finite() -> impl Strategy<Value = f64> {
        any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |value| value.is_finite())
    }

    proptest! {
        #[test]
        fn one_double_survives(value in finite()) {
            let mut sum = WideSum::ZERO;
            sum.add(value);
            prop_assert!(sum.round() == value);
        }

        #[test]
        fn two_doubles_round_as_the_processor_does(a in finite(), b in finite()) {
            let mut sum = WideSum::ZERO;
            sum.add(a);
            sum.add(b);
            prop_assert!(sum.round() == a + b);
            sum.add(-a);
            sum.add(-b);
            prop_assert!(sum == WideSum::ZERO);
        }

        #[test]
        fn integers_come_back(value in any::<i64>(), other in finite()) {
            let mut sum = WideSum::ZERO;
            sum.add(other);
            sum.add_i64(value);
            sum.add(-other);
            prop_assert_eq!(sum.as_i64(), Some(value));
        }
    }

    #[test]
    fn overflow_on_the_way_is_forgiven() {
        let mut sum = WideSum::ZERO;
        sum.add(f64::MAX);
        sum.add(f64::MAX);
        assert!(sum.round() == f64::INFINITY);
        sum.add(-f64::MAX);
        assert!(sum.round() == f64::MAX);
    }
}
