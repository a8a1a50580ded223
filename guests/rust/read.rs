//! BSON read where it lies in the input.

use crate::fail;
use crate::write::{Binary, DateTime, Decimal128, ObjectId, Timestamp};

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Type {
    /// There is no such field.
    Missing = 0x00,
    Double = 0x01,
    String = 0x02,
    Document = 0x03,
    Array = 0x04,
    Binary = 0x05,
    Undefined = 0x06,
    ObjectId = 0x07,
    Boolean = 0x08,
    Date = 0x09,
    Null = 0x0A,
    Regex = 0x0B,
    DbPointer = 0x0C,
    Code = 0x0D,
    Symbol = 0x0E,
    CodeWithScope = 0x0F,
    Int32 = 0x10,
    Timestamp = 0x11,
    Int64 = 0x12,
    Decimal128 = 0x13,
    MaxKey = 0x7F,
    MinKey = 0xFF,
}

impl Type {
    fn of(byte: u8) -> Self {
        use Type::*;
        match byte {
            0x00 => Missing,
            0x01 => Double,
            0x02 => String,
            0x03 => Document,
            0x04 => Array,
            0x05 => Binary,
            0x06 => Undefined,
            0x07 => ObjectId,
            0x08 => Boolean,
            0x09 => Date,
            0x0A => Null,
            0x0B => Regex,
            0x0C => DbPointer,
            0x0D => Code,
            0x0E => Symbol,
            0x0F => CodeWithScope,
            0x10 => Int32,
            0x11 => Timestamp,
            0x12 => Int64,
            0x13 => Decimal128,
            0x7F => MaxKey,
            0xFF => MinKey,
            _ => malformed(),
        }
    }

    /// Its name, as MongoDB's `$type` has it.
    pub fn name(self) -> &'static str {
        match self {
            Type::Missing => "missing",
            Type::Double => "double",
            Type::String => "string",
            Type::Document => "object",
            Type::Array => "array",
            Type::Binary => "binData",
            Type::Undefined => "undefined",
            Type::ObjectId => "objectId",
            Type::Boolean => "bool",
            Type::Date => "date",
            Type::Null => "null",
            Type::Regex => "regex",
            Type::DbPointer => "dbPointer",
            Type::Code => "javascript",
            Type::Symbol => "symbol",
            Type::CodeWithScope => "javascriptWithScope",
            Type::Int32 => "int",
            Type::Timestamp => "timestamp",
            Type::Int64 => "long",
            Type::Decimal128 => "decimal",
            Type::MaxKey => "maxKey",
            Type::MinKey => "minKey",
        }
    }
}

#[cold]
fn malformed() -> ! {
    fail("the input is not BSON")
}

fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
    match bytes.first_chunk() {
        Some(chunk) => *chunk,
        None => malformed(),
    }
}

fn length(bytes: &[u8]) -> usize {
    u32::from_le_bytes(fixed(bytes)) as usize
}

/// A document, or an array, as it came.
#[derive(Clone, Copy)]
pub struct Doc<'a>(&'a [u8]);

impl<'a> Doc<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The document that some bytes begin with.
    pub(crate) fn cut(bytes: &'a [u8]) -> Self {
        let len = length(bytes);
        match bytes.get(..len) {
            Some(doc) if len >= 5 => Self(doc),
            _ => malformed(),
        }
    }

    /// Its bytes, as BSON has them.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Its fields, in their order. A field has its name.
    pub fn fields(self) -> Fields<'a> {
        Fields { rest: self.0.get(4..).unwrap_or_default() }
    }

    /// The field of that name; of type [`Type::Missing`] where there is none.
    pub fn get(self, name: &str) -> Value<'a> {
        let found = self.fields().find(|value| value.name == name.as_bytes());
        found.unwrap_or(Value { kind: Type::Missing, name: b"", bytes: &[] }.or_named(name))
    }
}

/// Goes through a document's fields.
#[derive(Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        let (kind, rest) = self.rest.split_first()?;
        if *kind == 0 {
            self.rest = &[];
            return None;
        }
        let kind = Type::of(*kind);
        let Some(end) = rest.iter().position(|byte| *byte == 0) else { malformed() };
        let (name, rest) = rest.split_at(end);
        let rest = &rest[1..];
        let Some((bytes, rest)) = rest.split_at_checked(size(kind, rest)) else { malformed() };
        self.rest = rest;
        Some(Value { kind, name, bytes })
    }
}

fn size(kind: Type, rest: &[u8]) -> usize {
    match kind {
        Type::Missing | Type::Undefined | Type::Null | Type::MaxKey | Type::MinKey => 0,
        Type::Boolean => 1,
        Type::Int32 => 4,
        Type::Double | Type::Date | Type::Timestamp | Type::Int64 => 8,
        Type::ObjectId => 12,
        Type::Decimal128 => 16,
        Type::String | Type::Code | Type::Symbol => length(rest).max(1).saturating_add(4),
        Type::Document | Type::Array => length(rest).max(5),
        Type::CodeWithScope => length(rest).max(14),
        Type::DbPointer => length(rest).max(1).saturating_add(16),
        Type::Binary => length(rest).saturating_add(5),
        Type::Regex => {
            let mut ends = rest.iter().enumerate().filter(|(_, byte)| **byte == 0);
            match ends.nth(1) {
                Some((at, _)) => at + 1,
                None => malformed(),
            }
        }
    }
}

/// One value of a document.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    kind: Type,
    name: &'a [u8],
    bytes: &'a [u8],
}

impl<'a> Value<'a> {
    /// A missing field remembers its name for error messages; only short ones, which nearly all are.
    fn or_named(mut self, name: &str) -> Self {
        thread_local! {
            static NAMES: std::cell::RefCell<Vec<&'static str>> = const { std::cell::RefCell::new(Vec::new()) };
        }
        const NAMES_MAX: usize = 256;
        self.name = NAMES.with_borrow_mut(|names| match names.iter().find(|known| **known == name) {
            Some(known) => known.as_bytes(),
            None if names.len() < NAMES_MAX => {
                let kept: &'static str = Box::leak(name.into());
                names.push(kept);
                kept.as_bytes()
            }
            None => b"",
        });
        self
    }

    /// Its type.
    pub fn kind(self) -> Type {
        self.kind
    }

    /// The name of the field that it was found in.
    pub fn name(self) -> &'a str {
        std::str::from_utf8(self.name).unwrap_or_default()
    }

    /// Its bytes as BSON has them, without the type.
    pub fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Whether there is a field at all.
    pub fn exists(self) -> bool {
        self.kind != Type::Missing
    }

    /// Whether it is null, undefined or not there.
    pub fn is_null(self) -> bool {
        matches!(self.kind, Type::Null | Type::Undefined | Type::Missing)
    }

    /// Fails the record, with the line that asked for another type.
    #[cold]
    #[track_caller]
    fn wrong(self, wanted: &str) -> ! {
        let mut text = match self.name() {
            "" => "the value".to_owned(),
            name => format!("the field {name}"),
        };
        match self.kind {
            Type::Missing => text.push_str(" is missing"),
            kind => text.push_str(&format!(" is of type {}", kind.name())),
        }
        text.push_str(&format!(", it should be {wanted}"));
        let place = std::panic::Location::caller();
        // An accessor that was handed to the standard library is called from there.
        if !place.file().starts_with('/') {
            text.push_str(&format!("\n    at {}:{}", place.file(), place.line()));
        }
        fail(&text)
    }

    /// A double or an integer.
    pub fn as_f64(self) -> Option<f64> {
        match self.kind {
            Type::Double => Some(f64::from_le_bytes(fixed(self.bytes))),
            Type::Int32 => Some(i32::from_le_bytes(fixed(self.bytes)).into()),
            Type::Int64 => Some(i64::from_le_bytes(fixed(self.bytes)) as f64),
            _ => None,
        }
    }

    /// A double or an integer; the record fails if it is none.
    #[track_caller]
    pub fn f64(self) -> f64 {
        match self.as_f64() {
            Some(value) => value,
            None => self.wrong("a number"),
        }
    }

    /// An integer, or a double that is one.
    pub fn as_i64(self) -> Option<i64> {
        match self.kind {
            Type::Int32 => Some(i32::from_le_bytes(fixed(self.bytes)).into()),
            Type::Int64 => Some(i64::from_le_bytes(fixed(self.bytes))),
            Type::Double => {
                let double = f64::from_le_bytes(fixed(self.bytes));
                let whole = double.trunc() == double && (-(2f64.powi(63))..2f64.powi(63)).contains(&double);
                whole.then_some(double as i64)
            }
            _ => None,
        }
    }

    /// An integer, or a double that is one; the record fails if it is none.
    #[track_caller]
    pub fn i64(self) -> i64 {
        match self.as_i64() {
            Some(value) => value,
            None => self.wrong("an integer"),
        }
    }

    /// A string, also a symbol or code.
    pub fn as_str(self) -> Option<&'a str> {
        match self.kind {
            Type::String | Type::Symbol | Type::Code => {
                std::str::from_utf8(self.bytes.get(4..self.bytes.len() - 1)?).ok()
            }
            _ => None,
        }
    }

    /// A string; the record fails if it is none.
    #[track_caller]
    pub fn str(self) -> &'a str {
        match self.as_str() {
            Some(value) => value,
            None => self.wrong("a string of UTF-8"),
        }
    }

    /// A boolean.
    pub fn as_bool(self) -> Option<bool> {
        (self.kind == Type::Boolean).then(|| self.bytes.first() != Some(&0))
    }

    /// A boolean; the record fails if it is none.
    #[track_caller]
    pub fn bool(self) -> bool {
        match self.as_bool() {
            Some(value) => value,
            None => self.wrong("a boolean"),
        }
    }

    /// A date.
    pub fn as_date(self) -> Option<DateTime> {
        (self.kind == Type::Date).then(|| DateTime(i64::from_le_bytes(fixed(self.bytes))))
    }

    /// A date; the record fails if it is none.
    #[track_caller]
    pub fn date(self) -> DateTime {
        match self.as_date() {
            Some(value) => value,
            None => self.wrong("a date"),
        }
    }

    /// An ObjectId.
    pub fn as_object_id(self) -> Option<ObjectId> {
        (self.kind == Type::ObjectId).then(|| ObjectId(fixed(self.bytes)))
    }

    /// An ObjectId; the record fails if it is none.
    #[track_caller]
    pub fn object_id(self) -> ObjectId {
        match self.as_object_id() {
            Some(value) => value,
            None => self.wrong("an ObjectId"),
        }
    }

    /// A document, or an array as a document of its indexes.
    pub fn as_doc(self) -> Option<Doc<'a>> {
        matches!(self.kind, Type::Document | Type::Array).then_some(Doc(self.bytes))
    }

    /// A document, or an array as a document of its indexes; the record fails if it is none.
    #[track_caller]
    pub fn doc(self) -> Doc<'a> {
        match self.as_doc() {
            Some(value) => value,
            None => self.wrong("a document"),
        }
    }

    /// The field of the document that the value is; of type [`Type::Missing`] where there is none.
    pub fn get(self, name: &str) -> Value<'a> {
        self.as_doc().unwrap_or(Doc(&[])).get(name)
    }

    /// An array's items.
    pub fn as_items(self) -> Option<Values<'a>> {
        (self.kind == Type::Array).then(|| Values(Doc(self.bytes).fields()))
    }

    /// An array's items; the record fails if it is none.
    #[track_caller]
    pub fn items(self) -> Values<'a> {
        match self.as_items() {
            Some(value) => value,
            None => self.wrong("an array"),
        }
    }

    /// Binary data: its subtype and bytes.
    pub fn as_binary(self) -> Option<Binary<'a>> {
        match (self.kind, self.bytes) {
            (Type::Binary, [_, _, _, _, subtype, data @ ..]) => Some(Binary { subtype: *subtype, data }),
            _ => None,
        }
    }

    /// A decimal number's 16 bytes.
    pub fn as_decimal(self) -> Option<Decimal128> {
        (self.kind == Type::Decimal128).then(|| Decimal128(fixed(self.bytes)))
    }

    /// A timestamp.
    pub fn as_timestamp(self) -> Option<Timestamp> {
        (self.kind == Type::Timestamp).then(|| {
            let both = u64::from_le_bytes(fixed(self.bytes));
            Timestamp { seconds: (both >> 32) as u32, increment: both as u32 }
        })
    }

    /// A regular expression: its pattern and options.
    pub fn as_regex(self) -> Option<(&'a str, &'a str)> {
        if self.kind != Type::Regex {
            return None;
        }
        let mut parts = self.bytes.split(|byte| *byte == 0);
        let mut part = || std::str::from_utf8(parts.next()?).ok();
        Some((part()?, part()?))
    }
}

/// Goes through the values of a key, or an array's items.
#[derive(Clone)]
pub struct Values<'a>(Fields<'a>);

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        // An index is no name that says anything in an error.
        self.0.next().map(|value| Value { name: b"", ..value })
    }
}

impl std::fmt::Debug for Value<'_> {
    /// For logs and error messages; BSON is exact, this is for people.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            Type::Double => write!(f, "{}", self.f64()),
            Type::Int32 | Type::Int64 => write!(f, "{}", self.i64()),
            Type::String | Type::Symbol | Type::Code => {
                write!(f, "{:?}", String::from_utf8_lossy(&self.bytes[4..self.bytes.len() - 1]))
            }
            Type::Boolean => write!(f, "{}", self.bool()),
            Type::Date => write!(f, "Date({})", self.date().0),
            Type::ObjectId => write!(f, "ObjectId({})", self.object_id().hex()),
            Type::Document => write!(f, "{:?}", Doc(self.bytes)),
            Type::Array => f.debug_list().entries(Doc(self.bytes).fields()).finish(),
            kind => f.write_str(kind.name()),
        }
    }
}

impl std::fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.as_str() {
            Some(text) => f.write_str(text),
            None => write!(f, "{self:?}"),
        }
    }
}

impl std::fmt::Debug for Doc<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.fields().map(|value| (value.name(), value))).finish()
    }
}
