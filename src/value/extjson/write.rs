//! From BSON to extended JSON.

use std::collections::HashSet;

use bson::Bson;
use bson::spec::BinarySubtype;
use serde_json::{Map, Value, json};

use super::{FIELDS, is_wrapper};
use crate::value::{Elements, RawVal, RawValBuf, code_and_scope, regex_parts, string_payload, tag};

/// Which of the forms to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Every type is kept.
    Canonical,
    /// Numbers are JSON's, and so are dates from 1970 to 9999, as text.
    Relaxed,
    /// Relaxed, for a query or an order: `$regex` with `$options` is an operator there, no value of another age.
    Query,
}

/// The value as JSON. Text that is not UTF-8 is shown with `U+FFFD` in it.
pub fn json(value: RawVal<'_>, form: Form) -> Value {
    // What is not BSON cannot come from a server or a function.
    shown(value, form).unwrap_or(Value::Null)
}

/// The same of a value of the `bson` library.
pub fn of_bson(value: &Bson, form: Form) -> Value {
    match RawValBuf::encode(value) {
        Ok(raw) => json(raw.as_raw(), form),
        // Such as a name with a zero byte in it, which no BSON holds.
        Err(_) => value.clone().into_relaxed_extjson(),
    }
}

/// The value in relaxed form as one line of text.
pub fn display(value: RawVal<'_>) -> Option<String> {
    shown(value, Form::Relaxed).map(|json| json.to_string())
}

fn shown(value: RawVal<'_>, form: Form) -> Option<Value> {
    let bytes = value.bytes;
    let canonical = form == Form::Canonical;
    Some(match value.tag {
        tag::DOUBLE => double(value.as_f64()?, canonical),
        tag::STRING => Value::String(text(string_payload(bytes)?)),
        tag::DOCUMENT => document(bytes, form)?,
        tag::ARRAY => {
            let mut elements = Elements::new(bytes);
            let mut items = Vec::new();
            while let Some((_, element)) = elements.next().ok()? {
                items.push(shown(element, form)?);
            }
            Value::Array(items)
        }
        tag::BINARY => binary(bytes)?,
        tag::UNDEFINED => json!({ "$undefined": true }),
        tag::OBJECT_ID => object_id(bytes)?,
        tag::BOOL => Value::Bool(bytes.first() == Some(&1)),
        tag::DATE => date(i64::from_le_bytes(*bytes.as_array()?), canonical),
        tag::NULL => Value::Null,
        tag::REGEX => {
            let (pattern, options) = regex_parts(bytes)?;
            // Sorted, as the specification has it; a server may hold them in any order.
            let mut options: Vec<char> = text(options).chars().collect();
            options.sort_unstable();
            let options: String = options.into_iter().collect();
            json!({ "$regularExpression": { "pattern": text(pattern), "options": options } })
        }
        tag::DB_POINTER => {
            let (namespace, id) = bytes.split_at_checked(bytes.len().checked_sub(12)?)?;
            let namespace = text(string_payload(namespace)?);
            json!({ "$dbPointer": { "$ref": namespace, "$id": object_id(id)? } })
        }
        tag::CODE => json!({ "$code": text(string_payload(bytes)?) }),
        tag::SYMBOL => json!({ "$symbol": text(string_payload(bytes)?) }),
        tag::CODE_WITH_SCOPE => {
            let (code, scope) = code_and_scope(bytes)?;
            json!({ "$code": text(string_payload(code)?), "$scope": document(scope, form)? })
        }
        tag::INT32 => integer("$numberInt", value.as_i32()?.into(), canonical),
        tag::INT64 => integer("$numberLong", value.as_i64()?, canonical),
        tag::TIMESTAMP => {
            let stamp = u64::from_le_bytes(*bytes.as_array()?);
            json!({ "$timestamp": { "t": stamp >> 32, "i": stamp & u64::from(u32::MAX) } })
        }
        tag::DECIMAL128 => {
            let number = bson::Decimal128::from_bytes(*bytes.as_array()?);
            json!({ "$numberDecimal": number.to_string() })
        }
        tag::MIN_KEY => json!({ "$minKey": 1 }),
        tag::MAX_KEY => json!({ "$maxKey": 1 }),
        _ => return None,
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn document(bytes: &[u8], form: Form) -> Option<Value> {
    let mut elements = Elements::new(bytes);
    let mut fields = Vec::new();
    while let Some((name, element)) = elements.next().ok()? {
        fields.push((text(name), shown(element, form)?));
    }
    if is_misleading(&fields, form) {
        let fields: Vec<Value> =
            fields.into_iter().map(|(name, value)| json!([name, value])).collect();
        return Some(json!({ FIELDS: fields }));
    }
    Some(Value::Object(fields.into_iter().collect::<Map<_, _>>()))
}

/// Whether fields written as they are would be read back as something else.
fn is_misleading(fields: &[(String, Value)], form: Form) -> bool {
    if fields.iter().any(|(name, _)| name.starts_with('$') && is_wrapper(name)) {
        return true;
    }
    // What older tools wrote for a regular expression.
    let is_old = |name: &str| fields.iter().any(|(other, _)| other == name);
    if form != Form::Query && fields.len() == 2 && is_old("$regex") && is_old("$options") {
        return true;
    }
    match fields {
        [] | [_] => false,
        [(one, _), (other, _)] => one == other,
        many => {
            let mut seen = HashSet::with_capacity(many.len());
            !many.iter().all(|(name, _)| seen.insert(name.as_str()))
        }
    }
}

fn double(number: f64, canonical: bool) -> Value {
    let relaxed = serde_json::Number::from_f64(number).filter(|_| !canonical);
    match relaxed {
        Some(number) => Value::Number(number),
        None => {
            let text = match number {
                n if n.is_nan() => "NaN".to_owned(),
                n if n.is_infinite() && n > 0.0 => "Infinity".to_owned(),
                n if n.is_infinite() => "-Infinity".to_owned(),
                n => format!("{n:?}"),
            };
            json!({ "$numberDouble": text })
        }
    }
}

fn integer(name: &str, number: i64, canonical: bool) -> Value {
    if canonical { json!({ name: number.to_string() }) } else { number.into() }
}

fn object_id(bytes: &[u8]) -> Option<Value> {
    let id = bson::oid::ObjectId::from_bytes(*bytes.as_array()?);
    Some(json!({ "$oid": id.to_hex() }))
}

fn binary(bytes: &[u8]) -> Option<Value> {
    let (_, rest) = bytes.split_first_chunk::<4>()?;
    let (subtype, mut data) = rest.split_first()?;
    if *subtype == u8::from(BinarySubtype::BinaryOld) {
        // Its data begin with their length once more.
        data = data.get(4..)?;
    }
    Some(json!({ "$binary": { "base64": base64(data), "subType": format!("{subtype:02x}") } }))
}

/// The specification's dates: text where RFC 3339 and all readers have it, else milliseconds.
fn date(millis: i64, canonical: bool) -> Value {
    const YEAR_10000: i64 = 253_402_300_800_000;
    let (seconds, part) = (millis.div_euclid(1_000), millis.rem_euclid(1_000));
    let written = (!canonical && (0..YEAR_10000).contains(&millis))
        .then(|| bson::DateTime::from_millis(seconds * 1_000).try_to_rfc3339_string().ok())
        .flatten();
    match written {
        // Three digits, or none at all.
        Some(text) if part != 0 => {
            json!({ "$date": format!("{}.{part:03}Z", text.trim_end_matches('Z')) })
        }
        Some(text) => json!({ "$date": text }),
        None => json!({ "$date": { "$numberLong": millis.to_string() } }),
    }
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(data: &[u8]) -> String {
    let mut out = String::with_capacity(data.len().div_ceil(3) * 4);
    for chunk in data.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = (word >> (18 - 6 * place)) & 63;
            let digit = DIGITS.get(digit as usize).copied().unwrap_or(b'=');
            out.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    out
}
