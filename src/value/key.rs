//! Bytes whose order is MongoDB's order of values.
//!
//! Two keys are one key when the server's comparison says so: 1, NumberLong(1) and 1.0 are, and so
//! are a string and a symbol of the same text. [`encode`] maps a value to bytes such that `memcmp` of two
//! encodings is the server's comparison under the simple collation and equal bytes mean equal
//! values. From there on the shuffle only compares bytes.
//!
//! An encoding is a class byte and a payload:
//!
//! | class, in order | payload |
//! |---|---|
//! | MinKey, undefined, null, MaxKey | nothing |
//! | numbers | see `number.rs` |
//! | string, symbol | the text; nested in another value: escaped |
//! | object | for each field: class, name, NUL, payload; then 0 |
//! | array | for each element: class, payload; then 0 |
//! | binary | length (u32 BE), subtype, bytes |
//! | ObjectId, bool | the bytes |
//! | date, timestamp | u64 BE, the date with its sign bit flipped |
//! | regex | pattern, NUL, options, NUL |
//! | DBPointer | length (u32 BE), namespace, id |
//! | code, code with scope | escaped text; the scope as an object |
//!
//! Where the server disagrees with itself, the order is that of its indexes: its sort stage takes two
//! DBPointers for equal when their ids and the lengths of their namespaces are.
//!
//! Escaping makes text self-delimiting: a NUL becomes `00 FF`, and `00 00` ends the text. A string that
//! is a whole key needs none of it, which makes the most frequent key a plain copy.

use super::number;
use super::{
    Elements, NESTING_DEPTH_MAX, RawVal, ValueError, code_and_scope, regex_parts, string_payload,
    tag,
};

/// Why a value has no encoding. A value that passed [`RawVal::parse`] always has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The value's bytes are not what its type asks for.
    #[error("a key is not a valid value: {0}")]
    Invalid(#[from] ValueError),
    /// The value's bytes are not what its type asks for, found while encoding.
    #[error("a key of type {name} is malformed", name = super::type_name(*.tag))]
    Malformed {
        /// The type byte.
        tag: u8,
    },
}

/// Class bytes. Gaps are left for nothing in particular; zero ends objects and arrays.
mod class {
    pub(super) const MIN_KEY: u8 = 0x01;
    pub(super) const UNDEFINED: u8 = 0x02;
    pub(super) const NULL: u8 = 0x05;
    pub(super) const NUMBER: u8 = 0x0A;
    pub(super) const STRING: u8 = 0x0F;
    pub(super) const OBJECT: u8 = 0x14;
    pub(super) const ARRAY: u8 = 0x19;
    pub(super) const BINARY: u8 = 0x1E;
    pub(super) const OBJECT_ID: u8 = 0x23;
    pub(super) const BOOL: u8 = 0x28;
    pub(super) const DATE: u8 = 0x2D;
    pub(super) const TIMESTAMP: u8 = 0x2F;
    pub(super) const REGEX: u8 = 0x32;
    pub(super) const DB_POINTER: u8 = 0x37;
    pub(super) const CODE: u8 = 0x3C;
    pub(super) const CODE_WITH_SCOPE: u8 = 0x41;
    pub(super) const MAX_KEY: u8 = 0x7F;
}

/// The class byte that begins the encoding of a string or a symbol.
pub(crate) const STRING_CLASS: u8 = class::STRING;

const SIGN_BIT: u64 = 1 << 63;

/// Appends the encoding of `val` to `out`.
///
/// # Errors
/// [`KeyError`] when `val` was not validated and is malformed; `out` then holds a useless rest.
#[inline]
pub fn encode(val: RawVal<'_>, out: &mut Vec<u8>) -> Result<(), KeyError> {
    if matches!(val.tag, tag::STRING | tag::SYMBOL) {
        let text = string_payload(val.bytes).ok_or(KeyError::Malformed { tag: val.tag })?;
        out.reserve(text.len() + 1);
        out.push(class::STRING);
        out.extend_from_slice(text);
        return Ok(());
    }
    out.push(class_of(val.tag)?);
    encode_payload(val, out, 0)
}

fn class_of(tag: u8) -> Result<u8, KeyError> {
    Ok(match tag {
        tag::MIN_KEY => class::MIN_KEY,
        tag::UNDEFINED => class::UNDEFINED,
        tag::NULL => class::NULL,
        tag::INT32 | tag::INT64 | tag::DOUBLE | tag::DECIMAL128 => class::NUMBER,
        tag::STRING | tag::SYMBOL => class::STRING,
        tag::DOCUMENT => class::OBJECT,
        tag::ARRAY => class::ARRAY,
        tag::BINARY => class::BINARY,
        tag::OBJECT_ID => class::OBJECT_ID,
        tag::BOOL => class::BOOL,
        tag::DATE => class::DATE,
        tag::TIMESTAMP => class::TIMESTAMP,
        tag::REGEX => class::REGEX,
        tag::DB_POINTER => class::DB_POINTER,
        tag::CODE => class::CODE,
        tag::CODE_WITH_SCOPE => class::CODE_WITH_SCOPE,
        tag::MAX_KEY => class::MAX_KEY,
        _ => return Err(ValueError::UnknownTag { tag }.into()),
    })
}

/// Appends the self-delimiting payload of a value that is so deep within others.
fn encode_payload(val: RawVal<'_>, out: &mut Vec<u8>, depth: usize) -> Result<(), KeyError> {
    // A block may hold what no function could emit.
    if depth > NESTING_DEPTH_MAX {
        return Err(ValueError::TooDeep.into());
    }
    let malformed = || KeyError::Malformed { tag: val.tag };
    match val.tag {
        tag::INT32 => number::encode_i64(val.as_i32().ok_or_else(malformed)?.into(), out),
        tag::INT64 => number::encode_i64(val.as_i64().ok_or_else(malformed)?, out),
        tag::DOUBLE => number::encode_f64(val.as_f64().ok_or_else(malformed)?, out),
        tag::DECIMAL128 => {
            number::encode_decimal(*val.bytes.as_array().ok_or_else(malformed)?, out);
        }
        tag::STRING | tag::SYMBOL | tag::CODE => {
            escape(string_payload(val.bytes).ok_or_else(malformed)?, out);
        }
        tag::DOCUMENT => encode_object(val.bytes, out, depth)?,
        tag::ARRAY => {
            let mut elements = Elements::new(val.bytes);
            while let Some((_, element)) = elements.next()? {
                out.push(class_of(element.tag)?);
                encode_payload(element, out, depth + 1)?;
            }
            out.push(0);
        }
        tag::BINARY => {
            let (len, rest) = val.bytes.split_first_chunk::<4>().ok_or_else(malformed)?;
            out.extend(len.iter().rev());
            out.extend_from_slice(rest);
        }
        tag::OBJECT_ID | tag::BOOL => out.extend_from_slice(val.bytes),
        tag::DATE => {
            let millis = u64::from_le_bytes(*val.bytes.as_array().ok_or_else(malformed)?);
            out.extend_from_slice(&(millis ^ SIGN_BIT).to_be_bytes());
        }
        tag::TIMESTAMP => {
            let stamp = u64::from_le_bytes(*val.bytes.as_array().ok_or_else(malformed)?);
            out.extend_from_slice(&stamp.to_be_bytes());
        }
        tag::REGEX => {
            regex_parts(val.bytes).ok_or_else(malformed)?;
            out.extend_from_slice(val.bytes);
        }
        tag::DB_POINTER => {
            let (len, rest) = val.bytes.split_first_chunk::<4>().ok_or_else(malformed)?;
            out.extend(len.iter().rev());
            out.extend_from_slice(rest);
        }
        tag::CODE_WITH_SCOPE => {
            let (code, scope) = code_and_scope(val.bytes).ok_or_else(malformed)?;
            escape(string_payload(code).ok_or_else(malformed)?, out);
            encode_object(scope, out, depth)?;
        }
        _ => {}
    }
    Ok(())
}

/// The server compares the fields of two objects by class, then name, then value, and an object that is
/// the beginning of another comes first.
fn encode_object(bytes: &[u8], out: &mut Vec<u8>, depth: usize) -> Result<(), KeyError> {
    let mut elements = Elements::new(bytes);
    while let Some((name, element)) = elements.next()? {
        out.push(class_of(element.tag)?);
        out.extend_from_slice(name);
        out.push(0);
        encode_payload(element, out, depth + 1)?;
    }
    out.push(0);
    Ok(())
}

fn escape(text: &[u8], out: &mut Vec<u8>) {
    let mut parts = text.split(|&byte| byte == 0);
    out.extend_from_slice(parts.next().unwrap_or_default());
    for part in parts {
        out.extend_from_slice(&[0x00, 0xFF]);
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&[0x00, 0x00]);
}
