//! From extended JSON to BSON.
//!
//! Version 2 is read in both of its forms, and what older tools wrote: `{"$binary": TEXT, "$type": "00"}`, dates as
//! milliseconds or with an offset without a colon, numbers that are no text in `$numberLong`.

use std::collections::HashSet;

use bson::RawDocumentBuf;
use bson::oid::ObjectId;

use super::json::{Json, parse};
use super::{FIELDS, is_wrapper};
use crate::value::{close_document, tag};

/// What the text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// Documents of a collection. A name may be there twice, and `{"$regex": …, "$options": …}` is a regular expression
    /// as older tools wrote it.
    Data,
    /// A query, an order, parameters: `$regex` is an operator, and a name that is there twice is a slip.
    Query,
}

/// Reads one document.
///
/// # Errors
/// What is wrong, as a fragment.
pub fn document(text: &str, of: Of) -> Result<RawDocumentBuf, String> {
    let Json::Object(fields) = parse(text)? else {
        return Err("it must be an object, like {\"_id\": 1}".into());
    };
    let mut body = Vec::with_capacity(text.len());
    let element = Element { name: "", within: None, of };
    let kind = element.object(fields, &mut body)?;
    if kind != tag::DOCUMENT {
        return Err("it is a value in extended JSON, where a document was expected".into());
    }
    RawDocumentBuf::from_bytes(body).map_err(|e| e.to_string())
}

/// Appends a value's bytes and returns its type.
struct Element<'a> {
    /// The field's name, for messages.
    name: &'a str,
    /// What it is a field of.
    within: Option<&'a Element<'a>>,
    of: Of,
}

impl Element<'_> {
    fn bad(&self, why: &str) -> String {
        match self.path() {
            path if path.is_empty() => why.to_owned(),
            path => format!("{path}: {why}"),
        }
    }

    /// Where the field is, with dots.
    fn path(&self) -> String {
        match self.within.map(Element::path) {
            Some(path) if !path.is_empty() => format!("{path}.{}", self.name),
            _ => self.name.to_owned(),
        }
    }

    fn value(&self, value: Json, out: &mut Vec<u8>) -> Result<u8, String> {
        Ok(match value {
            Json::Null => tag::NULL,
            Json::Bool(is) => {
                out.push(u8::from(is));
                tag::BOOL
            }
            Json::Number(text) => self.number(&text, out)?,
            Json::String(text) => {
                push_text(&text, out);
                tag::STRING
            }
            Json::Array(items) => {
                let start = begin(out);
                for (index, item) in items.into_iter().enumerate() {
                    self.field(&index.to_string(), item, out)?;
                }
                close_document(out, start);
                tag::ARRAY
            }
            Json::Object(fields) => self.object(fields, out)?,
        })
    }

    fn field(&self, name: &str, value: Json, out: &mut Vec<u8>) -> Result<(), String> {
        if name.contains('\0') {
            return Err(self.bad("a field's name must not hold a zero byte"));
        }
        let at = out.len();
        out.push(0);
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        let kind = Element { name, within: Some(self), of: self.of }.value(value, out)?;
        if let Some(slot) = out.get_mut(at) {
            *slot = kind;
        }
        Ok(())
    }

    fn number(&self, text: &str, out: &mut Vec<u8>) -> Result<u8, String> {
        if let Ok(number) = text.parse::<i64>()
            && text != "-0"
        {
            return Ok(match i32::try_from(number) {
                Ok(small) => {
                    out.extend_from_slice(&small.to_le_bytes());
                    tag::INT32
                }
                Err(_) => {
                    out.extend_from_slice(&number.to_le_bytes());
                    tag::INT64
                }
            });
        }
        let number: f64 = text.parse().map_err(|_| self.bad(&format!("{text} is no number")))?;
        if number.is_infinite() {
            return Err(self.bad(&format!("{text} is beyond what a double holds")));
        }
        out.extend_from_slice(&number.to_le_bytes());
        Ok(tag::DOUBLE)
    }

    /// A document, or the value that it stands for.
    fn object(&self, fields: Vec<(String, Json)>, out: &mut Vec<u8>) -> Result<u8, String> {
        let has = |name: &str| fields.iter().any(|(other, _)| other == name);
        let is_old_regex = self.of == Of::Data
            && fields.len() == 2
            && has("$regex")
            && has("$options")
            && fields.iter().all(|(_, value)| matches!(value, Json::String(_)));
        if let Some((name, _)) = fields.iter().find(|(name, _)| is_wrapper(name)) {
            let wrapper = name.clone();
            return self.wrapped(&wrapper, fields, out);
        }
        if is_old_regex {
            let [pattern, options] = ["$regex", "$options"].map(|name| text_of(&fields, name));
            return self.regex(pattern, options, out);
        }
        self.plain(fields, out)?;
        Ok(tag::DOCUMENT)
    }

    fn plain(&self, fields: Vec<(String, Json)>, out: &mut Vec<u8>) -> Result<(), String> {
        if self.of == Of::Query {
            let mut seen = HashSet::with_capacity(fields.len());
            if let Some((twice, _)) = fields.iter().find(|(name, _)| !seen.insert(name.as_str())) {
                return Err(self.bad(&format!("the field {twice} is there twice")));
            }
        }
        let start = begin(out);
        for (name, value) in fields {
            self.field(&name, value, out)?;
        }
        close_document(out, start);
        Ok(())
    }

    fn wrapped(
        &self,
        wrapper: &str,
        fields: Vec<(String, Json)>,
        out: &mut Vec<u8>,
    ) -> Result<u8, String> {
        let bad = || {
            self.bad(&format!(
                "an object with the field {wrapper} is not extended JSON as it should be; a document whose own field \
                 has that name is written {{\"{FIELDS}\": [[\"{wrapper}\", …]]}}"
            ))
        };
        let mut fields = fields.into_iter();
        let first = fields.next().ok_or_else(bad)?;
        let second = fields.next();
        if fields.next().is_some() {
            return Err(bad());
        }
        let Some(second) = second else {
            return self.one(first, out).map_err(|why| why.unwrap_or_else(bad));
        };
        let mut pair = [first, second];
        let mut take = |name: &str| {
            let found = pair.iter_mut().find(|(other, _)| other == name)?;
            Some(std::mem::replace(&mut found.1, Json::Null))
        };
        match wrapper {
            "$code" | "$scope" => {
                let (Some(Json::String(code)), Some(Json::Object(scope))) =
                    (take("$code"), take("$scope"))
                else {
                    return Err(bad());
                };
                let start = begin(out);
                push_text(&code, out);
                if self.object(scope, out)? != tag::DOCUMENT {
                    return Err(bad());
                }
                let length = u32::try_from(out.len() - start).map_err(|_| bad())?;
                if let Some(slot) = out.get_mut(start..start + 4) {
                    slot.copy_from_slice(&length.to_le_bytes());
                }
                Ok(tag::CODE_WITH_SCOPE)
            }
            "$binary" => {
                let (Some(Json::String(data)), Some(kind)) = (take("$binary"), take("$type"))
                else {
                    return Err(bad());
                };
                let kind = match kind {
                    Json::String(text) => u8::from_str_radix(&text, 16).ok(),
                    Json::Number(text) => text.parse().ok(),
                    _ => None,
                };
                self.binary(&data, kind.ok_or_else(bad)?, out)
            }
            _ => Err(bad()),
        }
    }

    /// The value that an object of one field stands for. An error without words is told by the caller.
    fn one(&self, (name, value): (String, Json), out: &mut Vec<u8>) -> Result<u8, Option<String>> {
        match (name.as_str(), value) {
            ("$oid", Json::String(text)) => {
                let id = ObjectId::parse_str(&text).map_err(|_| {
                    self.bad(&format!("{text:?} is no ObjectId, which has 24 hexadecimal digits"))
                })?;
                out.extend_from_slice(&id.bytes());
                Ok(tag::OBJECT_ID)
            }
            ("$numberInt", Json::String(text) | Json::Number(text)) => {
                out.extend_from_slice(&self.parsed::<i32>(&text, "32-bit integer")?.to_le_bytes());
                Ok(tag::INT32)
            }
            ("$numberLong", Json::String(text) | Json::Number(text)) => {
                out.extend_from_slice(&self.parsed::<i64>(&text, "64-bit integer")?.to_le_bytes());
                Ok(tag::INT64)
            }
            ("$numberDouble", Json::String(text) | Json::Number(text)) => {
                let number = match text.as_str() {
                    "Infinity" => f64::INFINITY,
                    "-Infinity" => f64::NEG_INFINITY,
                    "NaN" => f64::NAN,
                    other => self.parsed::<f64>(other, "double")?,
                };
                out.extend_from_slice(&number.to_le_bytes());
                Ok(tag::DOUBLE)
            }
            ("$numberDecimal", Json::String(text) | Json::Number(text)) => {
                let number: bson::Decimal128 = self.parsed(&text, "decimal of 34 digits")?;
                out.extend_from_slice(&number.bytes());
                Ok(tag::DECIMAL128)
            }
            ("$date", value) => {
                out.extend_from_slice(&self.date(value)?.to_le_bytes());
                Ok(tag::DATE)
            }
            ("$symbol", Json::String(text)) => {
                push_text(&text, out);
                Ok(tag::SYMBOL)
            }
            ("$code", Json::String(text)) => {
                push_text(&text, out);
                Ok(tag::CODE)
            }
            ("$undefined", Json::Bool(true)) => Ok(tag::UNDEFINED),
            ("$minKey", Json::Number(one)) if one == "1" => Ok(tag::MIN_KEY),
            ("$maxKey", Json::Number(one)) if one == "1" => Ok(tag::MAX_KEY),
            ("$uuid", Json::String(text)) => {
                const UUID: u8 = 4;
                let digits: String = text.chars().filter(|letter| *letter != '-').collect();
                let number = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32);
                let number = number.ok_or_else(|| self.bad(&format!("{text:?} is no UUID")))?;
                out.extend_from_slice(&16_u32.to_le_bytes());
                out.push(UUID);
                out.extend_from_slice(&number.to_be_bytes());
                Ok(tag::BINARY)
            }
            ("$binary", Json::Object(fields)) if fields.len() == 2 => {
                let (data, kind) = (text_of(&fields, "base64"), text_of(&fields, "subType"));
                let kind = kind.and_then(|kind| u8::from_str_radix(kind, 16).ok());
                match (data, kind) {
                    (Some(data), Some(kind)) => Ok(self.binary(data, kind, out)?),
                    _ => Err(None),
                }
            }
            ("$regularExpression", Json::Object(fields)) if fields.len() == 2 => {
                Ok(self.regex(text_of(&fields, "pattern"), text_of(&fields, "options"), out)?)
            }
            ("$timestamp", Json::Object(fields)) if fields.len() == 2 => {
                let part = |name: &str| match fields.iter().find(|(other, _)| other == name) {
                    Some((_, Json::Number(text))) => text.parse::<u32>().ok(),
                    _ => None,
                };
                let (time, increment) = (part("t").ok_or(None)?, part("i").ok_or(None)?);
                out.extend_from_slice(&increment.to_le_bytes());
                out.extend_from_slice(&time.to_le_bytes());
                Ok(tag::TIMESTAMP)
            }
            ("$dbPointer", Json::Object(fields)) if fields.len() == 2 => {
                let namespace = text_of(&fields, "$ref").ok_or(None)?;
                let id = match fields.iter().find(|(name, _)| name == "$id") {
                    Some((_, Json::Object(id))) => text_of(id, "$oid"),
                    _ => None,
                };
                let id = id.and_then(|id| ObjectId::parse_str(id).ok()).ok_or(None)?;
                push_text(namespace, out);
                out.extend_from_slice(&id.bytes());
                Ok(tag::DB_POINTER)
            }
            (FIELDS, Json::Array(pairs)) => {
                let start = begin(out);
                for pair in pairs {
                    let Json::Array(pair) = pair else { return Err(None) };
                    let Ok::<[Json; 2], _>([Json::String(name), value]) = pair.try_into() else {
                        return Err(None);
                    };
                    self.field(&name, value, out)?;
                }
                close_document(out, start);
                Ok(tag::DOCUMENT)
            }
            _ => Err(None),
        }
    }

    fn parsed<T: std::str::FromStr>(&self, text: &str, what: &str) -> Result<T, String> {
        text.parse().map_err(|_| self.bad(&format!("{text:?} is no {what}")))
    }

    /// Milliseconds since 1970.
    fn date(&self, value: Json) -> Result<i64, Option<String>> {
        match value {
            Json::Number(text) => Ok(self.parsed(&text, "number of milliseconds")?),
            Json::Object(fields) => match fields.as_slice() {
                [(name, Json::String(text) | Json::Number(text))] if name == "$numberLong" => {
                    Ok(self.parsed(text, "64-bit integer")?)
                }
                _ => Err(None),
            },
            Json::String(text) => {
                // The one reads what older tools wrote, the other the last day of 9999.
                if let Ok(stamp) = text.parse::<jiff::Timestamp>() {
                    // Towards the past, as a clock is read.
                    let millis = stamp.as_nanosecond().div_euclid(1_000_000);
                    return i64::try_from(millis).map_err(|_| None);
                }
                let date = bson::DateTime::parse_rfc3339_str(&text).map_err(|_| {
                    self.bad(&format!(
                        "{text:?} is no date, like 2026-11-30T12:00:00Z or 2026-11-30T13:00:00+01:00"
                    ))
                })?;
                Ok(date.timestamp_millis())
            }
            _ => Err(None),
        }
    }

    fn regex(
        &self,
        pattern: Option<&str>,
        options: Option<&str>,
        out: &mut Vec<u8>,
    ) -> Result<u8, String> {
        let (Some(pattern), Some(options)) = (pattern, options) else {
            return Err(
                self.bad("a regular expression has a pattern and options, both of them text")
            );
        };
        let mut options: Vec<char> = options.chars().collect();
        // As servers store them.
        options.sort_unstable();
        let options: String = options.into_iter().collect();
        if pattern.contains('\0') || options.contains('\0') {
            return Err(self.bad("a regular expression must not hold a zero byte"));
        }
        for part in [pattern, &options] {
            out.extend_from_slice(part.as_bytes());
            out.push(0);
        }
        Ok(tag::REGEX)
    }

    fn binary(&self, text: &str, kind: u8, out: &mut Vec<u8>) -> Result<u8, String> {
        const OLD: u8 = 2;
        let data = base64(text)
            .ok_or_else(|| self.bad("the data of $binary are not base64, like AQID or AQ=="))?;
        let long = || self.bad("the data of $binary are too long");
        let length = u32::try_from(data.len()).map_err(|_| long())?;
        if kind == OLD {
            out.extend_from_slice(&length.checked_add(4).ok_or_else(long)?.to_le_bytes());
            out.push(kind);
        }
        out.extend_from_slice(&length.to_le_bytes());
        if kind != OLD {
            out.push(kind);
        }
        out.extend_from_slice(&data);
        Ok(tag::BINARY)
    }
}

fn begin(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    start
}

fn push_text(text: &str, out: &mut Vec<u8>) {
    let length = u32::try_from(text.len() + 1).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    out.push(0);
}

fn text_of<'a>(fields: &'a [(String, Json)], name: &str) -> Option<&'a str> {
    match fields.iter().find(|(other, _)| other == name) {
        Some((_, Json::String(text))) => Some(text),
        _ => None,
    }
}

/// The bytes that base64 stands for, in either alphabet, with or without the signs that fill it up.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let mut data = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut word, mut bits) = (0_u32, 0);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        word = (word << 6 | u32::from(value)) & 0xFFFF;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            data.push(u8::try_from(word >> bits & 0xFF).ok()?);
        }
    }
    // One digit of four says nothing.
    (digits.len() % 4 != 1 && text.len() - digits.len() <= 2).then_some(data)
}
