//! Order-preserving bytes of numbers of all four types.
//!
//! The server compares numbers by exact value, whatever their types: the double 0.1 lies above the
//! decimal 0.1 because its exact expansion does. Hence the encoding is that of the exact value:
//!
//! | kind byte | value | payload |
//! |---|---|---|
//! | `01` | NaN, below all | |
//! | `80` | zero of either sign | |
//! | `81` | 0 < v < 1 | FFFF − number of leading 00 pairs (u16 BE), pairs |
//! | `81 + n` | 1 ≤ v < 10³⁸ | integer part in n bytes BE, pairs of the fraction |
//! | `92` | v ≥ 10³⁸ | number of pairs of the integer (u16 BE), pairs |
//! | `93` | +infinity | |
//!
//! *Pairs* are the decimal digits two by two, aligned to the decimal point, each plus one, then 0.
//! A negative number is the bitwise complement of all these bytes of its magnitude.

use super::decimal::{Decimal, Finite};

const KIND_NAN: u8 = 0x01;
const KIND_ZERO: u8 = 0x80;
const KIND_FRACTION: u8 = 0x81;
const KIND_HUGE: u8 = 0x92;
const KIND_INFINITY: u8 = 0x93;

/// Digits of the integer part that fit the binary form.
const INTEGER_DIGITS_MAX: i32 = 38;
/// Longest fraction of a double, in bits, that the fixed-point conversion takes.
const FRACTION_BITS_MAX: u32 = 120;
/// Significant decimal digits of the longest double, less the one before the point.
const DOUBLE_DIGITS: usize = 766;

/// Appends the number's encoding, without a class byte.
#[inline]
pub(crate) fn encode_i64(value: i64, out: &mut Vec<u8>) {
    if value == 0 {
        out.push(KIND_ZERO);
        return;
    }
    let sign = if value < 0 { 0xFF } else { 0 };
    put_integer(value.unsigned_abs().into(), sign, out);
    out.push(sign);
}

/// Appends the number's encoding, without a class byte.
pub(crate) fn encode_f64(value: f64, out: &mut Vec<u8>) {
    const TWO_POW_63: f64 = 9_223_372_036_854_775_808.0;
    let magnitude = value.abs();
    if magnitude < TWO_POW_63 && magnitude.trunc() == magnitude {
        #[expect(clippy::cast_possible_truncation, reason = "integral and within the range")]
        return encode_i64(value as i64, out);
    }
    if value.is_nan() {
        return out.push(KIND_NAN);
    }
    let sign = if value < 0.0 { 0xFF } else { 0 };
    if value.is_infinite() {
        return out.push(KIND_INFINITY ^ sign);
    }
    let (mantissa, exponent) = decompose(magnitude);
    if exponent >= 0 || -exponent > FRACTION_BITS_MAX.cast_signed() {
        return encode_long_double(magnitude, sign, out);
    }
    let bits = exponent.unsigned_abs();
    let mantissa = u128::from(mantissa);
    let integer = mantissa >> bits;
    let mask = (1_u128 << bits) - 1;
    let mut fraction = mantissa & mask;
    if integer > 0 {
        put_integer(integer, sign, out);
    } else {
        let mut zero_pairs = 0_u16;
        while (fraction * 100) >> bits == 0 {
            fraction *= 100;
            zero_pairs += 1;
        }
        put_scale(KIND_FRACTION, u16::MAX - zero_pairs, sign, out);
    }
    while fraction != 0 {
        fraction *= 100;
        #[expect(clippy::cast_possible_truncation, reason = "a pair is below 100")]
        out.push(((fraction >> bits) as u8 + 1) ^ sign);
        fraction &= mask;
    }
    out.push(sign);
}

/// Appends the number's encoding, without a class byte.
pub(crate) fn encode_decimal(bytes: [u8; 16], out: &mut Vec<u8>) {
    match Decimal::decode(bytes) {
        Decimal::Nan => out.push(KIND_NAN),
        Decimal::Infinity { negative } => out.push(KIND_INFINITY ^ if negative { 0xFF } else { 0 }),
        Decimal::Finite(Finite { coefficient: 0, .. }) => out.push(KIND_ZERO),
        Decimal::Finite(Finite { negative, coefficient, exponent }) => {
            let sign = if negative { 0xFF } else { 0 };
            if exponent == 0 {
                put_integer(coefficient, sign, out);
                return out.push(sign);
            }
            let digits = coefficient.to_string();
            let point = i32::try_from(digits.len()).unwrap_or(0) + exponent;
            put_digits(digits.as_bytes(), point, sign, out);
        }
    }
}

/// A positive finite double as `mantissa × 2^exponent`, the mantissa odd.
pub(crate) fn decompose(magnitude: f64) -> (u64, i32) {
    let bits = magnitude.to_bits();
    let fraction = bits & ((1 << 52) - 1);
    let biased = i32::try_from((bits >> 52) & 0x7FF).unwrap_or(0);
    let (mantissa, exponent) =
        if biased == 0 { (fraction, -1074) } else { (fraction | (1 << 52), biased - 1075) };
    if mantissa == 0 {
        return (0, 0);
    }
    let zeros = mantissa.trailing_zeros();
    (mantissa >> zeros, exponent + zeros.cast_signed())
}

/// Doubles outside the fixed-point conversion take the exact decimal expansion of the formatter.
#[cold]
fn encode_long_double(magnitude: f64, sign: u8, out: &mut Vec<u8>) {
    let text = format!("{magnitude:.DOUBLE_DIGITS$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or(("0", "0"));
    let digits: Vec<u8> = mantissa.bytes().filter(u8::is_ascii_digit).collect();
    put_digits(&digits, exponent.parse::<i32>().unwrap_or(0) + 1, sign, out);
}

/// Appends kind and bytes of a positive integer part; the fraction's pairs must follow.
#[inline]
fn put_integer(magnitude: u128, sign: u8, out: &mut Vec<u8>) {
    let bytes = magnitude.to_be_bytes();
    let zeros = (magnitude.leading_zeros() / 8) as usize;
    let significant = bytes.get(zeros..).unwrap_or_default();
    #[expect(clippy::cast_possible_truncation, reason = "at most 16 bytes")]
    out.push((KIND_FRACTION + significant.len() as u8) ^ sign);
    out.extend(significant.iter().map(|byte| byte ^ sign));
}

fn put_scale(kind: u8, scale: u16, sign: u8, out: &mut Vec<u8>) {
    let [high, low] = scale.to_be_bytes();
    out.extend_from_slice(&[kind ^ sign, high ^ sign, low ^ sign]);
}

/// Appends `0.digits × 10^point`, the digits in ASCII and the first of them not zero.
fn put_digits(digits: &[u8], point: i32, sign: u8, out: &mut Vec<u8>) {
    let end = digits.iter().rposition(|&digit| digit != b'0').map_or(0, |last| last + 1);
    let digits = digits.get(..end).unwrap_or_default();
    if point > 0 && point <= INTEGER_DIGITS_MAX {
        let whole = point.unsigned_abs() as usize;
        let integer = (0..whole).fold(0_u128, |sum, at| {
            sum * 10 + u128::from(digits.get(at).map_or(0, |digit| digit - b'0'))
        });
        put_integer(integer, sign, out);
        put_pairs(digits.get(whole..).unwrap_or_default().iter().copied(), sign, out);
    } else {
        // An odd distance from the point is made even by a zero in front.
        let pad = (point % 2 != 0).then_some(b'0');
        let pairs = if point > 0 {
            (point + 1) / 2
        } else {
            // Leading zeros before the pad: 0.0x has one, which is the pad itself.
            -point / 2
        };
        let pairs = u16::try_from(pairs).unwrap_or(u16::MAX);
        if point > 0 {
            put_scale(KIND_HUGE, pairs, sign, out);
        } else {
            put_scale(KIND_FRACTION, u16::MAX - pairs, sign, out);
        }
        put_pairs(pad.into_iter().chain(digits.iter().copied()), sign, out);
    }
    out.push(sign);
}

fn put_pairs(digits: impl Iterator<Item = u8>, sign: u8, out: &mut Vec<u8>) {
    let mut digits = digits.map(|digit| digit - b'0');
    while let Some(tens) = digits.next() {
        let ones = digits.next().unwrap_or(0);
        out.push((tens * 10 + ones + 1) ^ sign);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_f64(value: f64) -> Vec<u8> {
        let mut out = Vec::new();
        encode_f64(value, &mut out);
        out
    }

    fn of_decimal(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let value: bson::Decimal128 =
            text.parse().unwrap_or_else(|_| bson::Decimal128::from_bytes([0; 16]));
        encode_decimal(value.bytes(), &mut out);
        out
    }

    #[test]
    fn a_double_equals_its_exact_decimal_only() {
        for value in [0.5, 1e22, 0.0078125, -2.25, 1e-3_f64.trunc() + 1234.0625] {
            assert_eq!(of_f64(value), of_decimal(&format!("{value}")), "{value}");
        }
        assert!(of_f64(0.1) > of_decimal("0.1"));
        assert!(of_f64(0.1) > of_decimal("0.1000000000000000055511151231257827"));
        assert!(of_f64(0.1) < of_decimal("0.1000000000000000055511151231257828"));
    }

    #[test]
    fn both_conversions_of_doubles_agree() {
        for value in [0.1, 0.003, 1.5e-9, 0.75, 123_456.001, 2.0_f64.powi(-60), 1e-10] {
            let mut slow = Vec::new();
            encode_long_double(value, 0, &mut slow);
            assert_eq!(of_f64(value), slow, "{value}");
        }
    }

    #[test]
    fn a_ladder_of_numbers_is_in_order() {
        let ladder = [
            of_f64(f64::NAN),
            of_f64(f64::NEG_INFINITY),
            of_decimal("-1E6144"),
            of_f64(f64::MIN),
            of_decimal("-1E39"),
            of_decimal("-1E38"),
            of_decimal("-99999999999999999999999999999999990000"),
            of_f64(-5.5),
            of_f64(-5.0),
            of_f64(-0.5),
            of_decimal("-0.05"),
            of_f64(-5e-324),
            of_decimal("-1E-6176"),
            of_f64(-0.0),
            of_decimal("1E-6176"),
            of_f64(5e-324),
            of_decimal("0.005"),
            of_decimal("0.01"),
            of_decimal("0.099"),
            of_decimal("0.1"),
            of_f64(0.5),
            of_decimal("0.50001"),
            of_f64(1.0),
            of_decimal("1.0001"),
            of_f64(255.0),
            of_f64(256.0),
            of_f64(9_223_372_036_854_775_807.0),
            of_decimal("9223372036854775808.5"),
            of_f64(1e37),
            of_decimal("1E38"),
            of_decimal("1E39"),
            of_decimal("2E39"),
            of_f64(f64::MAX),
            of_decimal("1E6144"),
            of_f64(f64::INFINITY),
        ];
        for pair in ladder.windows(2) {
            let [low, high] = pair else { unreachable!("windows of two") };
            assert!(low < high, "{low:02x?} {high:02x?}");
        }
    }
}
