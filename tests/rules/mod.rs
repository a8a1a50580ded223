//! The server's order of values, written straight from its rules.

use std::cmp::Ordering;

use bson::{Binary, Bson, DbPointer, Document, spec::BinarySubtype};

/// The class of a value in the order of types.
fn class(value: &Bson) -> u8 {
    match value {
        Bson::MinKey => 0,
        Bson::Undefined => 1,
        Bson::Null => 2,
        Bson::Int32(_) | Bson::Int64(_) | Bson::Double(_) | Bson::Decimal128(_) => 3,
        Bson::String(_) | Bson::Symbol(_) => 4,
        Bson::Document(_) => 5,
        Bson::Array(_) => 6,
        Bson::Binary(_) => 7,
        Bson::ObjectId(_) => 8,
        Bson::Boolean(_) => 9,
        Bson::DateTime(_) => 10,
        Bson::Timestamp(_) => 11,
        Bson::RegularExpression(_) => 12,
        Bson::DbPointer(_) => 13,
        Bson::JavaScriptCode(_) => 14,
        Bson::JavaScriptCodeWithScope(_) => 15,
        Bson::MaxKey => 16,
    }
}

/// The server's comparison, written for clarity and not for speed.
pub fn compare(a: &Bson, b: &Bson) -> Ordering {
    class(a).cmp(&class(b)).then_with(|| match (a, b) {
        (Bson::Document(a), Bson::Document(b)) => compare_documents(a, b),
        (Bson::Array(a), Bson::Array(b)) => {
            let first = a.iter().zip(b).map(|(a, b)| compare(a, b)).find(|order| order.is_ne());
            first.unwrap_or(a.len().cmp(&b.len()))
        }
        (Bson::Binary(a), Bson::Binary(b)) => (stored_len(a), u8::from(a.subtype), &a.bytes)
            .cmp(&(stored_len(b), u8::from(b.subtype), &b.bytes)),
        (Bson::ObjectId(a), Bson::ObjectId(b)) => a.bytes().cmp(&b.bytes()),
        (Bson::Boolean(a), Bson::Boolean(b)) => a.cmp(b),
        (Bson::DateTime(a), Bson::DateTime(b)) => a.timestamp_millis().cmp(&b.timestamp_millis()),
        (Bson::Timestamp(a), Bson::Timestamp(b)) => {
            (a.time, a.increment).cmp(&(b.time, b.increment))
        }
        (Bson::RegularExpression(a), Bson::RegularExpression(b)) => {
            (a.pattern.as_str().as_bytes(), a.options.as_str().as_bytes())
                .cmp(&(b.pattern.as_str().as_bytes(), b.options.as_str().as_bytes()))
        }
        (Bson::DbPointer(a), Bson::DbPointer(b)) => pointer(a).cmp(&pointer(b)),
        (Bson::JavaScriptCode(a), Bson::JavaScriptCode(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Bson::JavaScriptCodeWithScope(a), Bson::JavaScriptCodeWithScope(b)) => a
            .code
            .as_bytes()
            .cmp(b.code.as_bytes())
            .then_with(|| compare_documents(&a.scope, &b.scope)),
        _ => match (text(a), text(b)) {
            (Some(a), Some(b)) => a.as_bytes().cmp(b.as_bytes()),
            _ => compare_numbers(a, b),
        },
    })
}

/// Subtype 2 repeats its length inside.
fn stored_len(binary: &Binary) -> usize {
    binary.bytes.len() + if binary.subtype == BinarySubtype::BinaryOld { 4 } else { 0 }
}

fn pointer(value: &DbPointer) -> (usize, Vec<u8>) {
    let raw = bson::doc! {"": Bson::DbPointer(value.clone())}.to_vec().unwrap();
    (raw.len(), raw)
}

fn text(value: &Bson) -> Option<&str> {
    match value {
        Bson::String(text) | Bson::Symbol(text) => Some(text),
        _ => None,
    }
}

fn compare_documents(a: &Document, b: &Document) -> Ordering {
    for ((a_name, a), (b_name, b)) in a.iter().zip(b) {
        let order = class(a)
            .cmp(&class(b))
            .then_with(|| a_name.as_bytes().cmp(b_name.as_bytes()))
            .then_with(|| compare(a, b));
        if order.is_ne() {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

/// Exact decimal expansion: sign, digits before the point, digits after it.
fn expansion(value: &Bson) -> Option<(bool, String, String)> {
    let (text, exponent) = match value {
        Bson::Int32(number) => (number.to_string(), 0),
        Bson::Int64(number) => (number.to_string(), 0),
        Bson::Double(number) if number.is_finite() => (format!("{number:.1080}"), 0),
        Bson::Decimal128(number) => {
            let text = number.to_string();
            match text.split_once('E') {
                Some((digits, exponent)) => (digits.to_owned(), exponent.parse().unwrap()),
                None => (text, 0),
            }
        }
        _ => return None,
    };
    let negative = text.starts_with('-');
    let text = text.trim_start_matches('-');
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut digits = format!("{whole}{fraction}");
    let mut point = whole.len() as i32 + exponent;
    if point < 0 {
        digits = "0".repeat(point.unsigned_abs() as usize) + &digits;
        point = 0;
    }
    if digits.len() < point as usize {
        digits += &"0".repeat(point as usize - digits.len());
    }
    let (whole, fraction) = digits.split_at(point as usize);
    Some((
        negative,
        whole.trim_start_matches('0').to_owned(),
        fraction.trim_end_matches('0').to_owned(),
    ))
}

fn compare_numbers(a: &Bson, b: &Bson) -> Ordering {
    let special = |value: &Bson| match value {
        Bson::Double(number) if number.is_nan() => -2,
        Bson::Double(number) if number.is_infinite() => number.signum() as i32,
        Bson::Decimal128(number) => match number.to_string().trim_start_matches('-') {
            "NaN" => -2,
            "Infinity" => {
                if number.to_string().starts_with('-') {
                    -1
                } else {
                    1
                }
            }
            _ => 0,
        },
        _ => 0,
    };
    let (a_special, b_special) = (special(a), special(b));
    if a_special != 0 || b_special != 0 {
        return a_special.cmp(&b_special);
    }
    let (Some(a), Some(b)) = (expansion(a), expansion(b)) else {
        return Ordering::Equal;
    };
    let sign = |value: &(bool, String, String)| {
        if value.1.is_empty() && value.2.is_empty() {
            0
        } else if value.0 {
            -1
        } else {
            1
        }
    };
    let magnitude = (a.1.len(), &a.1, &a.2).cmp(&(b.1.len(), &b.1, &b.2));
    sign(&a).cmp(&sign(&b)).then(match sign(&a) {
        0 => Ordering::Equal,
        1 => magnitude,
        _ => magnitude.reverse(),
    })
}
