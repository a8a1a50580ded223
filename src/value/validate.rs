//! What is refused where a value comes in: whatever is not BSON, whole, in order and not too deep.

use super::{
    Elements, NESTING_DEPTH_MAX, ValueError, code_and_scope, string_payload, tag, value_len,
};

pub(super) fn validate(tag: u8, bytes: &[u8], depth: usize) -> Result<(), ValueError> {
    let len = value_len(tag, bytes)?;
    if len != bytes.len() {
        return Err(ValueError::Trailing { tag, extra_bytes: bytes.len().saturating_sub(len) });
    }
    match tag {
        tag::STRING | tag::SYMBOL | tag::CODE => check_string(tag, bytes),
        tag::DOCUMENT | tag::ARRAY => validate_document(bytes, depth + 1),
        tag::BOOL if !matches!(bytes, [0 | 1]) => {
            Err(ValueError::Malformed { tag, what: "a bool is 0 or 1" })
        }
        tag::REGEX => check_utf8(tag, bytes),
        tag::DB_POINTER => {
            check_string(tag, bytes.get(..bytes.len().saturating_sub(12)).unwrap_or_default())
        }
        tag::CODE_WITH_SCOPE => {
            let (code, scope) = code_and_scope(bytes)
                .ok_or(ValueError::Malformed { tag, what: "its lengths do not add up" })?;
            check_string(tag, code)?;
            validate(tag::DOCUMENT, scope, depth)
        }
        tag::BINARY if !old_binary_is_sound(bytes) => {
            Err(ValueError::Malformed { tag, what: "the inner length of subtype 2 does not fit" })
        }
        _ => Ok(()),
    }
}

fn validate_document(bytes: &[u8], depth: usize) -> Result<(), ValueError> {
    if depth > NESTING_DEPTH_MAX {
        return Err(ValueError::TooDeep);
    }
    let mut elements = Elements::new(bytes);
    while let Some((name, value)) = elements.next()? {
        check_utf8(tag::DOCUMENT, name)?;
        validate(value.tag, value.bytes, depth)?;
    }
    Ok(())
}

/// Subtype 2 repeats its length inside; other subtypes have no structure.
fn old_binary_is_sound(bytes: &[u8]) -> bool {
    match bytes {
        [_, _, _, _, 2, inner @ ..] => inner
            .split_first_chunk::<4>()
            .is_some_and(|(len, data)| usize::try_from(u32::from_le_bytes(*len)) == Ok(data.len())),
        _ => true,
    }
}

fn check_utf8(tag: u8, bytes: &[u8]) -> Result<(), ValueError> {
    match std::str::from_utf8(bytes) {
        Ok(_) => Ok(()),
        Err(_) => Err(ValueError::NotUtf8 { tag }),
    }
}

fn check_string(tag: u8, bytes: &[u8]) -> Result<(), ValueError> {
    let text = string_payload(bytes)
        .ok_or(ValueError::Malformed { tag, what: "the string's length or final NUL is wrong" })?;
    check_utf8(tag, text)
}
