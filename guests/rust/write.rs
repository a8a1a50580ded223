//! What can be emitted and returned.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::read::{Doc, Type, Value, Values};

/// What can be written as BSON.
///
/// `i8` to `i32`, `u8` and `u16` are written as 32-bit integers, `u32` and everything of 64 bits as 64-bit ones,
/// `f32` and `f64` as doubles; `None` and `()` as null; `Vec`, slices and arrays as arrays; `BTreeMap` with
/// `String` or `&str` keys as documents. There is no implementation for `HashMap`: its order is not the
/// same each time.
pub trait ToBson {
    /// The type that it is written as.
    fn kind(&self) -> Type;
    /// Appends the value's bytes, without the type.
    fn append(&self, to: &mut Vec<u8>);

    #[doc(hidden)]
    fn append_tagged(&self, to: &mut Vec<u8>) {
        to.push(self.kind() as u8);
        self.append(to);
    }
}

/// A buffer that is used again for each emit.
pub(crate) fn with_scratch(function: impl FnOnce(&mut Vec<u8>)) {
    thread_local! {
        static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.clear();
        function(scratch);
    });
}

macro_rules! numbers {
    ($($from:ty as $to:ty: $kind:ident),* $(,)?) => { $(
        impl ToBson for $from {
            fn kind(&self) -> Type {
                Type::$kind
            }
            fn append(&self, to: &mut Vec<u8>) {
                let wide = <$to>::try_from(*self);
                let wide = wide.unwrap_or_else(|_| crate::fail("a number does not fit into a 64-bit integer"));
                to.extend_from_slice(&wide.to_le_bytes());
            }
        }
    )* };
}

numbers! {
    i8 as i32: Int32, i16 as i32: Int32, i32 as i32: Int32, u8 as i32: Int32, u16 as i32: Int32,
    i64 as i64: Int64, u32 as i64: Int64, u64 as i64: Int64, isize as i64: Int64, usize as i64: Int64,
    f32 as f64: Double, f64 as f64: Double,
}

fn append_text(to: &mut Vec<u8>, text: &str) {
    to.extend_from_slice(&(text.len() as u32 + 1).to_le_bytes());
    to.extend_from_slice(text.as_bytes());
    to.push(0);
}

fn append_field(to: &mut Vec<u8>, name: &str, value: &(impl ToBson + ?Sized)) {
    if name.contains('\0') {
        crate::fail("the name of a field has a NUL in it");
    }
    to.push(value.kind() as u8);
    to.extend_from_slice(name.as_bytes());
    to.push(0);
    value.append(to);
}

/// Writes a document or an array around what `fill` writes.
fn embed(to: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let at = to.len();
    to.extend_from_slice(&[0; 4]);
    fill(to);
    to.push(0);
    let len = (to.len() - at) as u32;
    to[at..at + 4].copy_from_slice(&len.to_le_bytes());
}

fn append_items<T: ToBson>(to: &mut Vec<u8>, items: impl IntoIterator<Item = T>) {
    embed(to, |to| {
        for (index, item) in items.into_iter().enumerate() {
            append_field(to, &index.to_string(), &item);
        }
    });
}

macro_rules! written {
    ($(($($generics:tt)*) $type:ty: $kind:ident, |$self:ident, $to:ident| $body:expr;)*) => { $(
        impl<$($generics)*> ToBson for $type {
            fn kind(&self) -> Type {
                Type::$kind
            }
            fn append(&self, $to: &mut Vec<u8>) {
                let $self = self;
                $body;
            }
        }
    )* };
}

written! {
    () bool: Boolean, |it, to| to.push(u8::from(*it));
    () str: String, |it, to| append_text(to, it);
    () String: String, |it, to| append_text(to, it);
    () char: String, |it, to| append_text(to, it.encode_utf8(&mut [0; 4]));
    () (): Null, |_it, _to| ();
    () Doc<'_>: Document, |it, to| to.extend_from_slice(if it.as_bytes().len() < 5 { &[5, 0, 0, 0, 0] } else { it.as_bytes() });
    () Values<'_>: Array, |it, to| append_items(to, it.clone());
    () ObjectId: ObjectId, |it, to| to.extend_from_slice(&it.0);
    () DateTime: Date, |it, to| to.extend_from_slice(&it.0.to_le_bytes());
    () Decimal128: Decimal128, |it, to| to.extend_from_slice(&it.0);
    () Timestamp: Timestamp, |it, to| {
        to.extend_from_slice(&it.increment.to_le_bytes());
        to.extend_from_slice(&it.seconds.to_le_bytes());
    };
    () Binary<'_>: Binary, |it, to| {
        to.extend_from_slice(&(it.data.len() as u32).to_le_bytes());
        to.push(it.subtype);
        to.extend_from_slice(it.data);
    };
    () Regex<'_>: Regex, |it, to| for part in [it.pattern, it.options] {
        to.extend_from_slice(part.as_bytes());
        to.push(0);
    };
    () Code<'_>: Code, |it, to| append_text(to, it.0);
    () Symbol<'_>: Symbol, |it, to| append_text(to, it.0);
    () MinKey: MinKey, |_it, _to| ();
    () MaxKey: MaxKey, |_it, _to| ();
    () Document: Document, |it, to| embed(to, |to| to.extend_from_slice(&it.0));
    () List: Array, |it, to| embed(to, |to| to.extend_from_slice(&it.fields.0));
    (T: ToBson) [T]: Array, |it, to| append_items(to, it);
    (T: ToBson) Vec<T>: Array, |it, to| append_items(to, it);
    (T: ToBson, const N: usize) [T; N]: Array, |it, to| append_items(to, it);
    (K: AsRef<str>, T: ToBson) BTreeMap<K, T>: Document, |it, to| embed(to, |to| {
        for (name, value) in it {
            append_field(to, name.as_ref(), value);
        }
    });
}

impl<T: ToBson + ?Sized> ToBson for &T {
    fn kind(&self) -> Type {
        (**self).kind()
    }
    fn append(&self, to: &mut Vec<u8>) {
        (**self).append(to);
    }
}

impl<T: ToBson + ?Sized> ToBson for Box<T> {
    fn kind(&self) -> Type {
        (**self).kind()
    }
    fn append(&self, to: &mut Vec<u8>) {
        (**self).append(to);
    }
}

impl<T: ToBson> ToBson for Option<T> {
    fn kind(&self) -> Type {
        self.as_ref().map_or(Type::Null, ToBson::kind)
    }
    fn append(&self, to: &mut Vec<u8>) {
        if let Some(value) = self {
            value.append(to);
        }
    }
}

impl ToBson for Value<'_> {
    fn kind(&self) -> Type {
        match Value::kind(*self) {
            Type::Missing => Type::Null,
            kind => kind,
        }
    }
    fn append(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self.as_bytes());
    }
}

/// A document that is being put together; `doc!` makes one too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document(Vec<u8>);

impl Document {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a field.
    pub fn push(&mut self, name: &str, value: &(impl ToBson + ?Sized)) -> &mut Self {
        append_field(&mut self.0, name, value);
        self
    }

    #[doc(hidden)]
    pub fn with(mut self, name: &str, value: &(impl ToBson + ?Sized)) -> Self {
        self.push(name, value);
        self
    }
}

/// An array that is being put together, of values of any types; `list!` makes one too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List {
    fields: Document,
    len: usize,
}

impl List {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends an item.
    pub fn push(&mut self, value: &(impl ToBson + ?Sized)) -> &mut Self {
        self.fields.push(&self.len.to_string(), value);
        self.len += 1;
        self
    }

    #[doc(hidden)]
    pub fn with(mut self, value: &(impl ToBson + ?Sized)) -> Self {
        self.push(value);
        self
    }
}

/// An ObjectId.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(pub [u8; 12]);

impl ObjectId {
    /// Its 24 digits.
    pub fn hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A date: milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DateTime(pub i64);

/// A decimal number of 128 bits, as BSON has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decimal128(pub [u8; 16]);

/// MongoDB's internal timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since 1970.
    pub seconds: u32,
    /// Tells those of one second apart.
    pub increment: u32,
}

/// Binary data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Binary<'a> {
    /// 0 for generic, 4 for a UUID.
    pub subtype: u8,
    /// The bytes.
    pub data: &'a [u8],
}

/// A regular expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Regex<'a> {
    /// The pattern.
    pub pattern: &'a str,
    /// The options.
    pub options: &'a str,
}

/// JavaScript code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code<'a>(pub &'a str);

/// The deprecated symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Symbol<'a>(pub &'a str);

/// Less than every other value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MinKey;

/// Greater than every other value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MaxKey;
