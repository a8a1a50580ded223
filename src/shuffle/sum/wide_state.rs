//! What fits no small sum, and sums on their way to another process.

use crate::shuffle::wide::{WIDE_BYTES, WideSum};
use crate::value::decimal::{Decimal, Finite};
use crate::value::{RawValBuf, tag};

use super::{FLAG_NAN, FLAG_NEGATIVE_INFINITY, FLAG_POSITIVE_INFINITY, Kind, NotSummable};

pub(super) const STATE_VERSION: u8 = 1;
/// The subtype of BSON's binary data that is free for users.
pub(crate) const STATE_SUBTYPE: u8 = 0x80;
pub(super) const STATE_HEAD_BYTES: usize = 23;

#[derive(Debug, Clone)]
pub(crate) struct WideState {
    pub(super) kind: Kind,
    pub(super) flags: u8,
    pub(super) binary: WideSum,
    pub(super) decimal: Finite,
}

impl WideState {
    pub(super) fn add_decimal(&mut self, value: Decimal) {
        self.kind = Kind::Decimal;
        match value {
            Decimal::Nan => self.flags |= FLAG_NAN,
            Decimal::Infinity { negative: false } => self.flags |= FLAG_POSITIVE_INFINITY,
            Decimal::Infinity { negative: true } => self.flags |= FLAG_NEGATIVE_INFINITY,
            Decimal::Finite(finite) => self.decimal = self.decimal.plus(finite),
        }
    }

    pub(super) fn add_f64(&mut self, value: f64) {
        self.kind = self.kind.max(Kind::Double);
        if value.is_nan() {
            self.flags |= FLAG_NAN;
        } else if value == f64::INFINITY {
            self.flags |= FLAG_POSITIVE_INFINITY;
        } else if value == f64::NEG_INFINITY {
            self.flags |= FLAG_NEGATIVE_INFINITY;
        } else {
            self.binary.add(value);
        }
    }

    /// NaN or an infinity, once one was added.
    pub(super) fn special(&self) -> Option<f64> {
        match self.flags {
            0 => None,
            FLAG_POSITIVE_INFINITY => Some(f64::INFINITY),
            FLAG_NEGATIVE_INFINITY => Some(f64::NEG_INFINITY),
            _ => Some(f64::NAN),
        }
    }

    pub(super) fn double_total(&self) -> f64 {
        self.special().unwrap_or_else(|| self.binary.round())
    }

    pub(super) fn decimal_total(&self) -> Decimal {
        if let Some(special) = self.special() {
            return Decimal::from_f64(special);
        }
        let mut total = self.decimal;
        let mut rest = self.binary.clone();
        // Two doubles carry more digits than a decimal can keep.
        for _ in 0..2 {
            let part = rest.round();
            match Decimal::from_f64(part) {
                Decimal::Finite(finite) => total = total.plus(finite),
                special => return special,
            }
            rest.add(-part);
        }
        Decimal::Finite(total)
    }

    /// The state as a plain number, when a number says it all.
    pub(super) fn plain_partial(&self) -> Option<RawValBuf> {
        let mut out = RawValBuf::new();
        match (self.special(), self.kind) {
            (Some(special), Kind::Decimal) => set_decimal(&mut out, Decimal::from_f64(special)),
            (Some(special), _) => out.set_f64(special),
            (None, Kind::Decimal) if self.binary == WideSum::ZERO => {
                let encoded = Decimal::Finite(self.decimal).encode();
                if Decimal::decode(encoded) != Decimal::Finite(self.decimal) {
                    return None;
                }
                out.begin(tag::DECIMAL128).extend_from_slice(&encoded);
            }
            _ => return None,
        }
        Some(out)
    }
}

/// Reads the end of a state: a pair of doubles, or limbs.
pub(super) fn read_binary(bytes: &[u8]) -> Result<WideSum, NotSummable> {
    if bytes.len() == WIDE_BYTES {
        return WideSum::from_bytes(bytes).ok_or(NotSummable);
    }
    let ([high, low], []) = bytes.as_chunks::<8>() else {
        return Err(NotSummable);
    };
    let mut binary = WideSum::ZERO;
    for part in [high, low] {
        let part = f64::from_le_bytes(*part);
        if !part.is_finite() {
            return Err(NotSummable);
        }
        binary.add(part);
    }
    Ok(binary)
}

/// Wraps a state in binary data.
pub(crate) fn set_state(state: &[u8], out: &mut RawValBuf) {
    let buffer = out.begin(tag::BINARY);
    let len = u32::try_from(state.len()).unwrap_or(u32::MAX);
    buffer.extend_from_slice(&len.to_le_bytes());
    buffer.push(STATE_SUBTYPE);
    buffer.extend_from_slice(state);
}

pub(super) fn set_decimal(out: &mut RawValBuf, value: Decimal) {
    out.begin(tag::DECIMAL128).extend_from_slice(&value.encode());
}
