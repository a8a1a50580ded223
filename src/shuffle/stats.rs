//! The state behind `_stats`: sums of numbers and of their squares, and the extremes, as doubles.
//!
//! Squares are added without rounding (a product of two doubles is a sum of two doubles), so the
//! standard deviation does not lose its digits to cancellation, and nothing depends on the order.

use super::sum::{Sum, set_state};
use crate::value::decimal::Decimal;
use crate::value::{RawVal, RawValBuf, close_document, tag};

/// Numbers seen so far.
#[derive(Debug, Clone)]
pub(crate) struct Stats {
    count: u64,
    min: f64,
    max: f64,
    sum: Sum,
    squares: Sum,
}

/// The bytes are no partial state, or the value no number.
#[derive(Debug)]
pub(crate) struct NotCountable;

impl Stats {
    pub(crate) fn new() -> Self {
        Self {
            count: 0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            sum: Sum::Double { high: 0.0, low: 0.0 },
            squares: Sum::Double { high: 0.0, low: 0.0 },
        }
    }

    pub(crate) fn add(&mut self, value: RawVal<'_>) -> Result<(), NotCountable> {
        let number = match value.tag {
            tag::INT32 => value.as_i32().map(f64::from),
            tag::INT64 => value.as_i64().map(|number| number as f64),
            tag::DOUBLE => value.as_f64(),
            tag::DECIMAL128 => value.bytes.as_array().map(|bytes| Decimal::decode(*bytes).to_f64()),
            _ => None,
        }
        .ok_or(NotCountable)?;
        self.count = self.count.saturating_add(1);
        self.see_extremes(number, number);
        self.sum.add_f64(number);
        let (square, error) = square(number);
        self.squares.add_f64(square);
        self.squares.add_f64(error);
        Ok(())
    }

    /// A NaN among the numbers makes both extremes NaN, wherever it came.
    fn see_extremes(&mut self, min: f64, max: f64) {
        let either_is_nan = self.min.is_nan() || min.is_nan();
        self.min = if either_is_nan { f64::NAN } else { self.min.min(min) };
        self.max = if either_is_nan { f64::NAN } else { self.max.max(max) };
        // Zeros of both signs are equal, so which one is seen first must not matter.
        self.min += 0.0;
        self.max += 0.0;
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        size_of::<Self>() + self.sum.heap_bytes() + self.squares.heap_bytes()
    }

    pub(crate) fn partial(&self, out: &mut RawValBuf) {
        let mut sum = Vec::new();
        self.sum.state_bytes(&mut sum);
        let mut state = Vec::new();
        state.extend_from_slice(&self.count.to_le_bytes());
        state.extend_from_slice(&self.min.to_le_bytes());
        state.extend_from_slice(&self.max.to_le_bytes());
        state.extend_from_slice(&u32::try_from(sum.len()).unwrap_or(u32::MAX).to_le_bytes());
        state.extend_from_slice(&sum);
        self.squares.state_bytes(&mut state);
        set_state(&state, out);
    }

    pub(crate) fn merge(&mut self, partial: RawVal<'_>) -> Result<(), NotCountable> {
        if partial.tag != tag::BINARY {
            return Err(NotCountable);
        }
        self.merge_state(partial.bytes.get(5..).unwrap_or_default()).ok_or(NotCountable)
    }

    fn merge_state(&mut self, bytes: &[u8]) -> Option<()> {
        let (count, rest) = bytes.split_first_chunk::<8>()?;
        let (min, rest) = rest.split_first_chunk::<8>()?;
        let (max, rest) = rest.split_first_chunk::<8>()?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
        let (sum, squares) = rest.split_at_checked(len)?;
        self.sum.merge_state(sum).ok()?;
        self.squares.merge_state(squares).ok()?;
        self.count = self.count.saturating_add(u64::from_le_bytes(*count));
        self.see_extremes(f64::from_le_bytes(*min), f64::from_le_bytes(*max));
        Some(())
    }

    pub(crate) fn finish(&self) -> RawValBuf {
        let (sum, squares) = (self.sum.to_f64(), self.squares.to_f64());
        let count = self.count as f64;
        let fields = [
            ("min", self.min),
            ("max", self.max),
            ("sumsqr", squares),
            ("avg", sum / count),
            ("stdDev", self.deviation()),
        ];
        let mut out = RawValBuf::new();
        let buffer = out.begin(tag::DOCUMENT);
        buffer.extend_from_slice(&[0; 4]);
        append_f64("sum", sum, buffer);
        let count = i64::try_from(self.count).unwrap_or(i64::MAX).to_le_bytes();
        RawVal { tag: tag::INT64, bytes: &count }.append_element("count", buffer);
        for (name, value) in fields {
            append_f64(name, value, buffer);
        }
        // The document begins after the type byte.
        close_document(buffer, 1);
        out
    }

    /// The standard deviation of the population: `sqrt(n·Σx² − (Σx)²) / n` in double-double.
    fn deviation(&self) -> f64 {
        let count = self.count as f64;
        let (sum, sum_rest) = self.sum.to_pair();
        let (squares, squares_rest) = self.squares.to_pair();
        let (scaled, scaled_error) = product(squares, count);
        let (square, square_error) = product(sum, sum);
        let rest = (scaled_error - square_error) + (squares_rest * count - 2.0 * sum * sum_rest);
        let variance = (scaled - square) + rest;
        if variance.is_nan() {
            return f64::NAN;
        }
        variance.max(0.0).sqrt() / count
    }
}

fn append_f64(name: &str, value: f64, document: &mut Vec<u8>) {
    RawVal { tag: tag::DOUBLE, bytes: &value.to_le_bytes() }.append_element(name, document);
}

fn square(value: f64) -> (f64, f64) {
    product(value, value)
}

/// The rounded product and the exact error of the rounding (Dekker); the error is 0 where it would
/// overflow or be lost below the smallest double.
fn product(a: f64, b: f64) -> (f64, f64) {
    const SPLITTER: f64 = 134_217_729.0;
    let product = a * b;
    if !(1e-200..1e290).contains(&product.abs()) || a.abs() > 1e290 || b.abs() > 1e290 {
        return (product, 0.0);
    }
    let split = |x: f64| {
        let scaled = SPLITTER * x;
        let high = scaled - (scaled - x);
        (high, x - high)
    };
    let ((a_high, a_low), (b_high, b_low)) = (split(a), split(b));
    let error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low;
    (product, error)
}
