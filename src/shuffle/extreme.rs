//! Which of two values is the smaller or the larger, without encoding them where that is possible.

use std::cmp::Ordering;

use super::builtin::Builtin;
use crate::value::key::{self, KeyError};
use crate::value::{RawVal, string_payload, tag};

/// Integers up to this magnitude are doubles as they are.
const EXACT_INTEGER_MAX: u64 = 1 << 53;

/// Whether `_min` or `_max` takes `value` in place of `best`.
///
/// Equal values of different types (1 and 1.0) are told apart by their bytes, so that the result
/// does not depend on which came first.
#[inline]
pub(crate) fn is_better(
    builtin: Builtin,
    best: RawVal<'_>,
    value: RawVal<'_>,
    scratch: &mut Vec<u8>,
) -> Result<bool, KeyError> {
    let order = match compare_alike(value, best) {
        Some(order) => order,
        None => compare_encoded(value, best, scratch)?,
    };
    let order = order.then_with(|| (best.tag, best.bytes).cmp(&(value.tag, value.bytes)));
    Ok(match builtin {
        Builtin::Min => order.is_lt(),
        _ => order.is_gt(),
    })
}

/// Compares values of the same simple type, and integers and doubles with each other.
#[inline]
fn compare_alike(a: RawVal<'_>, b: RawVal<'_>) -> Option<Ordering> {
    match (a.tag, b.tag) {
        (tag::INT32 | tag::INT64, tag::INT32 | tag::INT64) => {
            Some(a.as_integer()?.0.cmp(&b.as_integer()?.0))
        }
        (tag::INT32 | tag::INT64 | tag::DOUBLE, tag::INT32 | tag::INT64 | tag::DOUBLE) => {
            // NaN has its place in the order, which the encoding knows.
            exact_f64(a)?.partial_cmp(&exact_f64(b)?)
        }
        (tag::STRING, tag::STRING) => Some(string_payload(a.bytes)?.cmp(string_payload(b.bytes)?)),
        (tag::DATE, tag::DATE) => {
            let millis = |value: RawVal<'_>| Some(i64::from_le_bytes(*value.bytes.as_array()?));
            Some(millis(a)?.cmp(&millis(b)?))
        }
        (tag::OBJECT_ID, tag::OBJECT_ID) => Some(a.bytes.cmp(b.bytes)),
        _ => None,
    }
}

/// The number as a double, unless that would round it.
#[inline]
fn exact_f64(value: RawVal<'_>) -> Option<f64> {
    match value.as_integer() {
        Some((number, _)) => (number.unsigned_abs() <= EXACT_INTEGER_MAX).then_some(number as f64),
        None => value.as_f64(),
    }
}

fn compare_encoded(
    a: RawVal<'_>,
    b: RawVal<'_>,
    scratch: &mut Vec<u8>,
) -> Result<Ordering, KeyError> {
    scratch.clear();
    key::encode(a, scratch)?;
    let middle = scratch.len();
    key::encode(b, scratch)?;
    let (a, b) = scratch.split_at_checked(middle).unwrap_or_default();
    Ok(a.cmp(b))
}

#[cfg(test)]
mod tests {
    use bson::Bson;

    use super::*;
    use crate::value::RawValBuf;

    #[test]
    fn the_short_cut_agrees_with_the_encodings() {
        let mut values: Vec<Bson> = vec![
            "".into(),
            "a".into(),
            "a\0".into(),
            "b".into(),
            Bson::DateTime(bson::DateTime::from_millis(-1)),
            Bson::DateTime(bson::DateTime::from_millis(1)),
            Bson::ObjectId(bson::oid::ObjectId::from_bytes([1; 12])),
            Bson::ObjectId(bson::oid::ObjectId::from_bytes([2; 12])),
        ];
        for number in [0, 1, -1, i64::MAX, i64::MIN, 1 << 53, (1 << 53) + 1, -(1 << 53) - 1] {
            values.push(Bson::Int64(number));
            values.push(Bson::Double(number as f64));
        }
        values.extend([0.5, -0.0, f64::NAN, f64::INFINITY, f64::MIN].map(Bson::Double));
        values.extend([-2, 0, 1].map(Bson::Int32));
        let raw: Vec<RawValBuf> =
            values.iter().map(|value| RawValBuf::from_bson(value).unwrap()).collect();
        let mut short_cuts = 0;
        for a in &raw {
            for b in &raw {
                let (a, b) = (a.as_raw(), b.as_raw());
                if let Some(order) = compare_alike(a, b) {
                    assert_eq!(order, compare_encoded(a, b, &mut Vec::new()).unwrap(), "{a} {b}");
                    short_cuts += 1;
                }
            }
        }
        assert!(short_cuts > raw.len());
    }
}
