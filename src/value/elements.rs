//! Where values end, and what they consist of.

use super::{RawVal, ValueError, tag};

/// The text of a BSON string (length, text, NUL), when it fills `bytes` exactly.
#[inline]
pub(crate) fn string_payload(bytes: &[u8]) -> Option<&[u8]> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (nul, text) = rest.split_last()?;
    let fits = usize::try_from(u32::from_le_bytes(*len)) == Ok(rest.len());
    (fits && *nul == 0).then_some(text)
}

/// The parts of a code with scope: the code as a BSON string, and the scope's document.
pub(crate) fn code_and_scope(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, rest) = bytes.split_first_chunk::<4>()?;
    let (len, _) = rest.split_first_chunk::<4>()?;
    let code_len = usize::try_from(u32::from_le_bytes(*len)).ok()?.checked_add(4)?;
    rest.split_at_checked(code_len)
}

/// The two C strings of a regex: pattern and options.
pub(crate) fn regex_parts(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (pattern, rest) = split_cstring(bytes)?;
    let (options, rest) = split_cstring(rest)?;
    rest.is_empty().then_some((pattern, options))
}

fn split_cstring(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

/// Length of the value of type `tag` at the head of `bytes`; nested values are not looked at.
pub(crate) fn value_len(tag: u8, bytes: &[u8]) -> Result<usize, ValueError> {
    let truncated = || ValueError::Truncated { tag };
    let length_field = || -> Result<usize, ValueError> {
        let (len, _) = bytes.split_first_chunk::<4>().ok_or_else(truncated)?;
        // A negative length is a huge unsigned one, and so is found to be too long below.
        usize::try_from(u32::from_le_bytes(*len)).map_err(|_| truncated())
    };
    let len = match tag {
        tag::UNDEFINED | tag::NULL | tag::MIN_KEY | tag::MAX_KEY => 0,
        tag::BOOL => 1,
        tag::INT32 => 4,
        tag::DOUBLE | tag::DATE | tag::TIMESTAMP | tag::INT64 => 8,
        tag::OBJECT_ID => 12,
        tag::DECIMAL128 => 16,
        tag::STRING | tag::SYMBOL | tag::CODE => length_field()?.saturating_add(4),
        tag::DB_POINTER => length_field()?.saturating_add(16),
        tag::BINARY => length_field()?.saturating_add(5),
        tag::DOCUMENT | tag::ARRAY => at_least(tag, length_field()?, 5)?,
        tag::CODE_WITH_SCOPE => at_least(tag, length_field()?, 14)?,
        tag::REGEX => {
            let (pattern, rest) = split_cstring(bytes).ok_or_else(truncated)?;
            let (options, _) = split_cstring(rest).ok_or_else(truncated)?;
            pattern.len() + options.len() + 2
        }
        _ => return Err(ValueError::UnknownTag { tag }),
    };
    if len > bytes.len() {
        return Err(truncated());
    }
    Ok(len)
}

fn at_least(tag: u8, len: usize, least: usize) -> Result<usize, ValueError> {
    if len < least {
        return Err(ValueError::Malformed {
            tag,
            what: "its length is smaller than an empty one's",
        });
    }
    Ok(len)
}

/// The elements of a document or array, in order.
pub(crate) struct Elements<'a> {
    rest: &'a [u8],
    sound: bool,
}

impl<'a> Elements<'a> {
    /// `bytes` is a whole document, with its length and its final NUL.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        match bytes.split_first_chunk::<4>() {
            Some((len, rest)) => {
                Self { rest, sound: usize::try_from(u32::from_le_bytes(*len)) == Ok(bytes.len()) }
            }
            None => Self { rest: &[], sound: false },
        }
    }

    /// The next element's name and value; none at the document's end.
    pub(crate) fn next(&mut self) -> Result<Option<(&'a [u8], RawVal<'a>)>, ValueError> {
        let malformed = |what| ValueError::Malformed { tag: tag::DOCUMENT, what };
        if !self.sound {
            return Err(malformed("its length is not that of its bytes"));
        }
        let (&tag, rest) =
            self.rest.split_first().ok_or_else(|| malformed("the final NUL is missing"))?;
        if tag == 0 {
            return if rest.is_empty() {
                Ok(None)
            } else {
                Err(malformed("it ends before its length says"))
            };
        }
        let (name, rest) =
            split_cstring(rest).ok_or_else(|| malformed("a field's name has no end"))?;
        let len = value_len(tag, rest)?;
        let (bytes, rest) = rest.split_at_checked(len).ok_or(ValueError::Truncated { tag })?;
        self.rest = rest;
        Ok(Some((name, RawVal { tag, bytes })))
    }
}
