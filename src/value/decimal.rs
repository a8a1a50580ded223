//! Just enough of IEEE 754 decimal128 (binary integer coding) to compare, add and divide.
//!
//! The `bson` library carries decimals as opaque bytes.

/// Largest coefficient: 34 nines.
pub(crate) const COEFFICIENT_MAX: u128 = 10_u128.pow(34) - 1;
const EXPONENT_BIAS: i32 = 6176;
const EXPONENT_MIN: i32 = -6176;
const EXPONENT_MAX: i32 = 6111;

/// A decimal128, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decimal {
    Nan,
    Infinity { negative: bool },
    Finite(Finite),
}

/// `± coefficient × 10^exponent`. The coefficient may pass 34 digits until it is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Finite {
    pub(crate) negative: bool,
    pub(crate) coefficient: u128,
    pub(crate) exponent: i32,
}

impl Decimal {
    pub(crate) fn decode(bytes: [u8; 16]) -> Self {
        let bits = u128::from_le_bytes(bytes);
        let negative = bits >> 127 == 1;
        if (bits >> 122) & 0x1F == 0x1F {
            return Self::Nan;
        }
        if (bits >> 122) & 0x1F == 0x1E {
            return Self::Infinity { negative };
        }
        let (exponent_bits, coefficient) = if (bits >> 125) & 3 == 3 {
            // This form only writes coefficients past the maximum, which the standard reads as 0.
            ((bits >> 111) & 0x3FFF, 0)
        } else {
            ((bits >> 113) & 0x3FFF, bits & ((1 << 113) - 1))
        };
        Self::Finite(Finite {
            negative,
            coefficient: if coefficient > COEFFICIENT_MAX { 0 } else { coefficient },
            exponent: i32::try_from(exponent_bits).unwrap_or(0) - EXPONENT_BIAS,
        })
    }

    /// Encodes, rounding a finite number half to even into 34 digits and the exponent's range.
    pub(crate) fn encode(self) -> [u8; 16] {
        match self {
            Self::Nan => (0x1F_u128 << 122).to_le_bytes(),
            Self::Infinity { negative } => {
                ((u128::from(negative) << 127) | (0x1E_u128 << 122)).to_le_bytes()
            }
            Self::Finite(finite) => finite.encode(),
        }
    }

    /// The exact-to-34-digits decimal of a double.
    pub(crate) fn from_f64(value: f64) -> Self {
        if value.is_nan() {
            return Self::Nan;
        }
        let negative = value.is_sign_negative();
        if value.is_infinite() {
            return Self::Infinity { negative };
        }
        let text = format!("{:.33e}", value.abs());
        let (digits, exponent) = text.split_once('e').unwrap_or(("0", "0"));
        let coefficient = digits
            .bytes()
            .filter(u8::is_ascii_digit)
            .fold(0_u128, |sum, digit| sum * 10 + u128::from(digit - b'0'));
        let mut finite =
            Finite { negative, coefficient, exponent: exponent.parse::<i32>().unwrap_or(0) - 33 };
        finite.strip_zeros();
        Self::Finite(finite)
    }

    /// The nearest double.
    pub(crate) fn to_f64(self) -> f64 {
        match self {
            Self::Nan => f64::NAN,
            Self::Infinity { negative: false } => f64::INFINITY,
            Self::Infinity { negative: true } => f64::NEG_INFINITY,
            Self::Finite(Finite { negative, coefficient, exponent }) => {
                let sign = if negative { "-" } else { "" };
                // The parser of the standard library rounds correctly and never fails on this form.
                format!("{sign}{coefficient}e{exponent}").parse().unwrap_or(f64::NAN)
            }
        }
    }
}

impl Finite {
    pub(crate) const ZERO: Self = Self { negative: false, coefficient: 0, exponent: 0 };

    pub(crate) fn from_i128(value: i128, exponent: i32) -> Self {
        Self { negative: value < 0, coefficient: value.unsigned_abs(), exponent }
    }

    /// Turns trailing zeros of the coefficient into exponent, but never past exponent 0 upwards:
    /// 100 stays 100 and 1.50 becomes 1.5.
    fn strip_zeros(&mut self) {
        while self.exponent < 0 && self.coefficient != 0 && self.coefficient.is_multiple_of(10) {
            self.coefficient /= 10;
            self.exponent += 1;
        }
        if self.coefficient == 0 {
            self.exponent = 0;
        }
    }

    /// Drops `digits` digits, rounding half to even.
    fn drop_digits(&mut self, digits: u32) {
        let Some(unit) = 10_u128.checked_pow(digits) else {
            self.coefficient = 0;
            return;
        };
        let rest = self.coefficient % unit;
        self.coefficient /= unit;
        let half = unit / 2;
        if rest > half || (rest == half && self.coefficient % 2 == 1) {
            self.coefficient += 1;
        }
    }

    fn encode(mut self) -> [u8; 16] {
        let mut excess = 0;
        let mut probe = self.coefficient;
        while probe > COEFFICIENT_MAX {
            probe /= 10;
            excess += 1;
        }
        let below = u32::try_from(EXPONENT_MIN.saturating_sub(self.exponent)).unwrap_or(0);
        let dropped = below.max(excess);
        if dropped > 0 {
            self.drop_digits(dropped);
            self.exponent = self.exponent.saturating_add_unsigned(dropped);
            // Rounding 99…9 up makes a digit more.
            if self.coefficient > COEFFICIENT_MAX {
                self.drop_digits(1);
                self.exponent += 1;
            }
        }
        while self.exponent > EXPONENT_MAX {
            if self.coefficient == 0 {
                self.exponent = EXPONENT_MAX;
            } else if self.coefficient > COEFFICIENT_MAX / 10 {
                return Decimal::Infinity { negative: self.negative }.encode();
            } else {
                self.coefficient *= 10;
                self.exponent -= 1;
            }
        }
        let biased = u128::try_from(self.exponent + EXPONENT_BIAS).unwrap_or(0);
        ((u128::from(self.negative) << 127) | (biased << 113) | self.coefficient).to_le_bytes()
    }

    pub(crate) fn signed(self) -> i128 {
        let magnitude = i128::try_from(self.coefficient).unwrap_or(i128::MAX);
        if self.negative { -magnitude } else { magnitude }
    }

    /// The sum: exact while it has at most 37 digits at the smaller of both exponents, else rounded
    /// half to even to as many digits as fit.
    pub(crate) fn plus(self, other: Self) -> Self {
        let (mut high, mut low) =
            if self.exponent >= other.exponent { (self, other) } else { (other, self) };
        if high.coefficient == 0 {
            return low;
        }
        // A third of the range is left so that the sum of two cannot overflow.
        const SCALED_MAX: u128 = i128::MAX.unsigned_abs() / 3;
        while high.exponent > low.exponent && high.coefficient <= SCALED_MAX / 10 {
            high.coefficient *= 10;
            high.exponent -= 1;
        }
        for side in [&mut high, &mut low] {
            while side.coefficient > SCALED_MAX {
                side.drop_digits(1);
                side.exponent += 1;
            }
        }
        let target = high.exponent.max(low.exponent);
        for side in [&mut high, &mut low] {
            if side.exponent < target {
                side.drop_digits(target.abs_diff(side.exponent));
                side.exponent = target;
            }
        }
        Self::from_i128(high.signed() + low.signed(), target)
    }

    /// The quotient by a count, rounded half to even to 34 digits.
    pub(crate) fn divided_by(self, count: u64) -> Self {
        let divisor = u128::from(count.max(1));
        let mut quotient = self.coefficient / divisor;
        let mut rest = self.coefficient % divisor;
        let mut exponent = self.exponent;
        // One digit past 34 and a sticky digit are enough to round correctly.
        while rest != 0 && quotient <= COEFFICIENT_MAX {
            rest *= 10;
            quotient = quotient * 10 + rest / divisor;
            rest %= divisor;
            exponent -= 1;
        }
        if rest != 0 && quotient.is_multiple_of(5) {
            // What is cut off lies above a tie or an exact digit: nudge it off the tie.
            quotient += 1;
        }
        Self { negative: self.negative, coefficient: quotient, exponent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        let parsed: bson::Decimal128 =
            text.parse().unwrap_or_else(|_| bson::Decimal128::from_bytes([0; 16]));
        Decimal::decode(parsed.bytes())
    }

    fn text(value: Decimal) -> String {
        bson::Decimal128::from_bytes(value.encode()).to_string()
    }

    #[test]
    fn decoding_and_encoding_agree_with_the_bson_library() {
        for source in [
            "0",
            "-0",
            "1.10",
            "-3.5E+20",
            "1E-6176",
            "9999999999999999999999999999999999E6111",
            "Infinity",
            "-Infinity",
            "NaN",
        ] {
            let value = decimal(source);
            let canonical: bson::Decimal128 =
                source.parse().unwrap_or_else(|_| bson::Decimal128::from_bytes([0; 16]));
            assert_eq!(text(value), canonical.to_string(), "{source}");
        }
    }

    #[test]
    fn sums_keep_the_finer_exponent() {
        let (Decimal::Finite(a), Decimal::Finite(b)) = (decimal("1.10"), decimal("2.2")) else {
            unreachable!("both are finite");
        };
        assert_eq!(text(Decimal::Finite(a.plus(b))), "3.30");
    }

    #[test]
    fn quotients_round_half_to_even() {
        let Decimal::Finite(two) = decimal("2") else {
            unreachable!("finite");
        };
        assert_eq!(
            text(Decimal::Finite(two.divided_by(3))),
            "0.6666666666666666666666666666666667"
        );
    }

    #[test]
    fn doubles_convert_to_34_digits_and_back() {
        assert_eq!(text(Decimal::from_f64(0.5)), "0.5");
        for value in [0.1, 1e300, -5e-324, 123_456.789] {
            assert!(Decimal::from_f64(value).to_f64() == value, "{value}");
        }
    }
}
