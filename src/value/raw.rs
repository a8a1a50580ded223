//! A value as its bytes: borrowed, and owned.

use std::fmt;

use bson::Bson;

use super::validate::validate;
use super::{ValueError, string_payload, tag, type_name};

/// Longest text that a value is shown as in an error message, in characters.
pub const DISPLAY_CHARS_MAX: usize = 80;

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
            // Where JavaScript takes an exponent too: the largest number has 309 digits.
            let is_short = number == 0.0 || (1e-7..1e21).contains(&number.abs());
            return match is_short || !number.is_finite() {
                true => write!(f, "{number}"),
                false => write!(f, "{number:e}"),
            };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_as_people_write_them_and_never_at_length() {
        for (number, shown) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (5.0, "5"),
            (0.1, "0.1"),
            (-123_456.75, "-123456.75"),
            (1e20, "100000000000000000000"),
            (1e21, "1e21"),
            (f64::MAX, "1.7976931348623157e308"),
            (-f64::MAX, "-1.7976931348623157e308"),
            (1e-7, "0.0000001"),
            (1.5e-8, "1.5e-8"),
            (5e-324, "5e-324"),
            (f64::INFINITY, "inf"),
            (f64::NAN, "NaN"),
        ] {
            let value = RawValBuf::from_bson(&bson::Bson::Double(number)).unwrap();
            assert_eq!(value.to_string(), shown);
        }
    }
}
