//! One BSON value as it travels: a type byte and the value's bytes.
//!
//! A guest emits values in this form, tables and blocks store them in this form, and nothing is
//! decoded into a tree on the way. [`RawVal::parse`] is the gate: what has passed it is
//! well-formed, so the rest of the shuffle may walk it without looking for malice again.

pub(crate) mod decimal;
pub mod extjson;
pub mod key;
pub(crate) mod number;

use std::fmt;

use bson::Bson;

pub use crate::config::NESTING_DEPTH_MAX;

/// Longest text that a value is shown as in an error message, in characters.
pub const DISPLAY_CHARS_MAX: usize = 80;

/// The type bytes of BSON.
pub mod tag {
    /// 64-bit binary floating point.
    pub const DOUBLE: u8 = 0x01;
    /// UTF-8 string.
    pub const STRING: u8 = 0x02;
    /// Embedded document.
    pub const DOCUMENT: u8 = 0x03;
    /// Array.
    pub const ARRAY: u8 = 0x04;
    /// Binary data.
    pub const BINARY: u8 = 0x05;
    /// Undefined (deprecated).
    pub const UNDEFINED: u8 = 0x06;
    /// ObjectId.
    pub const OBJECT_ID: u8 = 0x07;
    /// Boolean.
    pub const BOOL: u8 = 0x08;
    /// UTC date, in milliseconds since 1970.
    pub const DATE: u8 = 0x09;
    /// Null.
    pub const NULL: u8 = 0x0A;
    /// Regular expression.
    pub const REGEX: u8 = 0x0B;
    /// DBPointer (deprecated).
    pub const DB_POINTER: u8 = 0x0C;
    /// JavaScript code.
    pub const CODE: u8 = 0x0D;
    /// Symbol (deprecated).
    pub const SYMBOL: u8 = 0x0E;
    /// JavaScript code with a scope.
    pub const CODE_WITH_SCOPE: u8 = 0x0F;
    /// 32-bit integer.
    pub const INT32: u8 = 0x10;
    /// Timestamp of the replication log.
    pub const TIMESTAMP: u8 = 0x11;
    /// 64-bit integer.
    pub const INT64: u8 = 0x12;
    /// 128-bit decimal floating point.
    pub const DECIMAL128: u8 = 0x13;
    /// MaxKey.
    pub const MAX_KEY: u8 = 0x7F;
    /// MinKey.
    pub const MIN_KEY: u8 = 0xFF;
}

/// Why bytes are not a BSON value. The messages fit "failed to read a value: …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// There was not even a type byte.
    #[error("a value needs a type byte, found nothing")]
    Empty,
    /// BSON has no such type.
    #[error("0x{tag:02x} is not a BSON type")]
    UnknownTag {
        /// The type byte.
        tag: u8,
    },
    /// The bytes end before the value does.
    #[error("a value of type {name} is cut short", name = type_name(*.tag))]
    Truncated {
        /// The type byte.
        tag: u8,
    },
    /// The bytes go on after the value's end.
    #[error("a value of type {name} is followed by {extra_bytes} stray bytes", name = type_name(*.tag))]
    Trailing {
        /// The type byte.
        tag: u8,
        /// How many bytes are left over.
        extra_bytes: usize,
    },
    /// A length, a terminator or a flag inside the value is impossible.
    #[error("a value of type {name} is malformed: {what}", name = type_name(*.tag))]
    Malformed {
        /// The type byte.
        tag: u8,
        /// What is wrong.
        what: &'static str,
    },
    /// Text or a field's name is not UTF-8.
    #[error("a value of type {name} holds text that is not UTF-8", name = type_name(*.tag))]
    NotUtf8 {
        /// The type byte.
        tag: u8,
    },
    /// Documents are nested deeper than [`NESTING_DEPTH_MAX`].
    #[error("a value is nested deeper than {NESTING_DEPTH_MAX} levels")]
    TooDeep,
    /// The `bson` library would not convert the value.
    #[error("a value does not convert: {reason}")]
    Convert {
        /// The library's message.
        reason: String,
    },
}

/// One BSON value, borrowed: exactly as in an element of a document, without the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawVal<'a> {
    /// The type byte, see [`tag`].
    pub tag: u8,
    /// The value's bytes.
    pub bytes: &'a [u8],
}

impl<'a> RawVal<'a> {
    /// The null value.
    pub const NULL: RawVal<'static> = RawVal { tag: tag::NULL, bytes: &[] };

    /// Reads `type byte || value bytes` and checks every length, string and nested document.
    ///
    /// # Errors
    /// [`ValueError`] says what is wrong; no input makes it panic.
    pub fn parse(raw: &'a [u8]) -> Result<Self, ValueError> {
        let (&tag, bytes) = raw.split_first().ok_or(ValueError::Empty)?;
        let value = Self { tag, bytes };
        value.validate()?;
        Ok(value)
    }

    /// Checks a value that was put together from a type byte and bytes kept apart.
    ///
    /// # Errors
    /// As [`RawVal::parse`].
    pub fn validate(self) -> Result<(), ValueError> {
        validate(self.tag, self.bytes, 0)
    }

    /// The name of the value's type, as the server writes it in `$type`.
    #[must_use]
    pub fn type_name(self) -> &'static str {
        type_name(self.tag)
    }

    /// Whether it is null, or undefined, which servers take for the same.
    #[must_use]
    #[inline]
    pub fn is_nullish(self) -> bool {
        matches!(self.tag, tag::NULL | tag::UNDEFINED)
    }

    /// Length of `type byte || value bytes`.
    #[must_use]
    #[inline]
    pub fn len(self) -> usize {
        self.bytes.len() + 1
    }

    /// Always false: even null has its type byte.
    #[must_use]
    #[inline]
    pub fn is_empty(self) -> bool {
        false
    }

    /// Decodes the value.
    ///
    /// # Errors
    /// [`ValueError::Convert`] when the bytes were not validated and are not BSON.
    pub fn to_bson(self) -> Result<Bson, ValueError> {
        let mut raw = Vec::with_capacity(self.bytes.len() + 7);
        raw.extend_from_slice(&[0; 4]);
        self.append_element("", &mut raw);
        close_document(&mut raw, 0);
        let mut document = bson::Document::from_reader(raw.as_slice())
            .map_err(|error| ValueError::Convert { reason: error.to_string() })?;
        document.remove("").ok_or(ValueError::Empty)
    }

    /// Appends the value as an element called `name` to the body of a BSON document.
    ///
    /// A document is its length (4 bytes), its elements and a NUL; see [`close_document`]. The
    /// name must not hold a NUL.
    pub fn append_element(self, name: &str, document: &mut Vec<u8>) {
        document.push(self.tag);
        document.extend_from_slice(name.as_bytes());
        document.push(0);
        document.extend_from_slice(self.bytes);
    }

    /// Appends `type byte || value bytes`, which [`RawVal::parse`] reads back.
    #[inline]
    pub fn append_to(self, out: &mut Vec<u8>) {
        out.push(self.tag);
        out.extend_from_slice(self.bytes);
    }

    /// The number in an int32, else none.
    #[must_use]
    #[inline]
    pub fn as_i32(self) -> Option<i32> {
        (self.tag == tag::INT32).then_some(())?;
        Some(i32::from_le_bytes(*self.bytes.as_array()?))
    }

    /// The number in an int64, else none.
    #[must_use]
    #[inline]
    pub fn as_i64(self) -> Option<i64> {
        (self.tag == tag::INT64).then_some(())?;
        Some(i64::from_le_bytes(*self.bytes.as_array()?))
    }

    /// The number in an integer and whether it is an int64, else none.
    #[inline]
    pub(crate) fn as_integer(self) -> Option<(i64, bool)> {
        match self.tag {
            tag::INT32 => Some((i32::from_le_bytes(*self.bytes.as_array()?).into(), false)),
            tag::INT64 => Some((i64::from_le_bytes(*self.bytes.as_array()?), true)),
            _ => None,
        }
    }

    /// The number in a double, else none.
    #[must_use]
    #[inline]
    pub fn as_f64(self) -> Option<f64> {
        (self.tag == tag::DOUBLE).then_some(())?;
        Some(f64::from_le_bytes(*self.bytes.as_array()?))
    }
}

/// Ends the document that begins at `start` of `buffer` with four bytes kept for its length.
///
/// Does nothing when there are no such four bytes.
pub fn close_document(buffer: &mut Vec<u8>, start: usize) {
    buffer.push(0);
    let len = u32::try_from(buffer.len().saturating_sub(start)).unwrap_or(u32::MAX);
    if let Some(slot) = buffer.get_mut(start..start.saturating_add(4)) {
        slot.copy_from_slice(&len.to_le_bytes());
    }
}

impl fmt::Display for RawVal<'_> {
    /// Relaxed extended JSON, shortened to [`DISPLAY_CHARS_MAX`] characters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A key may be megabytes of text: decode no more of it than can be shown.
        if matches!(self.tag, tag::STRING | tag::SYMBOL | tag::CODE)
            && let Some(text) = string_payload(self.bytes)
        {
            let head = text.get(..DISPLAY_CHARS_MAX * 4).unwrap_or(text);
            let shown = format!("{:?}", String::from_utf8_lossy(head));
            return write_short(f, &shown);
        }
        // As people write it, which for a key that is a whole number is without a fraction.
        if let Some(number) = self.as_f64() {
            return write!(f, "{number}");
        }
        // What was never checked may be nested deeper than anything can be shown.
        let is_sound = matches!(self.validate(), Ok(()) | Err(ValueError::NotUtf8 { .. }));
        match is_sound.then(|| crate::value::extjson::display(*self)).flatten() {
            Some(text) => write_short(f, &text),
            None => write!(f, "<{} of {} bytes>", self.type_name(), self.bytes.len()),
        }
    }
}

fn write_short(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    match text.char_indices().nth(DISPLAY_CHARS_MAX) {
        None => f.write_str(text),
        Some(_) => {
            for c in text.chars().take(DISPLAY_CHARS_MAX - 1) {
                write!(f, "{c}")?;
            }
            f.write_str("…")
        }
    }
}

/// One BSON value that owns its bytes, kept as `type byte || value bytes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawValBuf {
    raw: Vec<u8>,
}

impl Default for RawValBuf {
    fn default() -> Self {
        Self { raw: vec![tag::NULL] }
    }
}

impl RawValBuf {
    /// Null, with room to be overwritten.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over `type byte || value bytes` after the checks of [`RawVal::parse`].
    ///
    /// # Errors
    /// As [`RawVal::parse`].
    pub fn from_vec(raw: Vec<u8>) -> Result<Self, ValueError> {
        RawVal::parse(&raw)?;
        Ok(Self { raw })
    }

    /// Encodes a value of the `bson` library.
    ///
    /// # Errors
    /// [`ValueError::Convert`] when the library refuses, as for a regex that holds a NUL.
    pub fn from_bson(value: &Bson) -> Result<Self, ValueError> {
        let encoded = Self::encode(value)?;
        encoded.as_raw().validate()?;
        Ok(encoded)
    }

    /// The same without the checks of [`RawVal::parse`], for what is deeper than a function may emit.
    ///
    /// # Errors
    /// As [`RawValBuf::from_bson`].
    pub fn encode(value: &Bson) -> Result<Self, ValueError> {
        let mut document = bson::Document::new();
        document.insert("", value.clone());
        let raw =
            document.to_vec().map_err(|error| ValueError::Convert { reason: error.to_string() })?;
        // Length, then the element: type, empty name, value; then the final NUL.
        let mut element = Vec::with_capacity(raw.len());
        element.extend(raw.get(4..5).unwrap_or_default());
        element.extend(raw.get(6..raw.len().saturating_sub(1)).unwrap_or_default());
        Ok(Self { raw: element })
    }

    /// Borrows the value.
    #[must_use]
    #[inline]
    pub fn as_raw(&self) -> RawVal<'_> {
        match self.raw.split_first() {
            Some((&tag, bytes)) => RawVal { tag, bytes },
            None => RawVal::NULL,
        }
    }

    /// Overwrites the value and keeps the allocation.
    pub fn set(&mut self, value: RawVal<'_>) {
        self.begin(value.tag).extend_from_slice(value.bytes);
    }

    /// Bytes that the value holds on the heap.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.raw.capacity()
    }

    /// Empties the value, sets its type and hands out the buffer for the bytes.
    #[inline]
    pub(crate) fn begin(&mut self, tag: u8) -> &mut Vec<u8> {
        self.raw.clear();
        self.raw.push(tag);
        &mut self.raw
    }

    #[inline]
    pub(crate) fn set_i32(&mut self, value: i32) {
        self.begin(tag::INT32).extend_from_slice(&value.to_le_bytes());
    }

    #[inline]
    pub(crate) fn set_i64(&mut self, value: i64) {
        self.begin(tag::INT64).extend_from_slice(&value.to_le_bytes());
    }

    #[inline]
    pub(crate) fn set_f64(&mut self, value: f64) {
        self.begin(tag::DOUBLE).extend_from_slice(&value.to_le_bytes());
    }
}

impl fmt::Display for RawValBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_raw().fmt(f)
    }
}

impl From<RawVal<'_>> for RawValBuf {
    fn from(value: RawVal<'_>) -> Self {
        let mut raw = Vec::with_capacity(value.len());
        value.append_to(&mut raw);
        Self { raw }
    }
}

/// The name of a type, as the server writes it in `$type`.
#[must_use]
pub fn type_name(tag: u8) -> &'static str {
    match tag {
        tag::DOUBLE => "double",
        tag::STRING => "string",
        tag::DOCUMENT => "object",
        tag::ARRAY => "array",
        tag::BINARY => "binData",
        tag::UNDEFINED => "undefined",
        tag::OBJECT_ID => "objectId",
        tag::BOOL => "bool",
        tag::DATE => "date",
        tag::NULL => "null",
        tag::REGEX => "regex",
        tag::DB_POINTER => "dbPointer",
        tag::CODE => "javascript",
        tag::SYMBOL => "symbol",
        tag::CODE_WITH_SCOPE => "javascriptWithScope",
        tag::INT32 => "int",
        tag::TIMESTAMP => "timestamp",
        tag::INT64 => "long",
        tag::DECIMAL128 => "decimal",
        tag::MAX_KEY => "maxKey",
        tag::MIN_KEY => "minKey",
        _ => "unknown",
    }
}

fn validate(tag: u8, bytes: &[u8], depth: usize) -> Result<(), ValueError> {
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
