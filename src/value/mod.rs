//! One BSON value as it travels: a type byte and the value's bytes.
//!
//! A guest emits values in this form, tables and blocks store them in this form, and nothing is
//! decoded into a tree on the way. [`RawVal::parse`] is the gate: what has passed it is
//! well-formed, so the rest of the shuffle may walk it without looking for malice again.

pub(crate) mod decimal;
mod elements;
pub mod extjson;
pub mod key;
pub(crate) mod number;
mod raw;
pub mod tag;
mod validate;

pub use crate::config::NESTING_DEPTH_MAX;
pub(crate) use elements::{Elements, code_and_scope, regex_parts, string_payload, value_len};
pub use raw::{DISPLAY_CHARS_MAX, RawVal, RawValBuf, close_document};
pub use tag::type_name;

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
