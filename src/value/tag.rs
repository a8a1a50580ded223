//! The type bytes of BSON, and what the types are called.

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

/// The name of a type, as the server writes it in `$type`.
#[must_use]
pub fn type_name(tag: u8) -> &'static str {
    match tag {
        DOUBLE => "double",
        STRING => "string",
        DOCUMENT => "object",
        ARRAY => "array",
        BINARY => "binData",
        UNDEFINED => "undefined",
        OBJECT_ID => "objectId",
        BOOL => "bool",
        DATE => "date",
        NULL => "null",
        REGEX => "regex",
        DB_POINTER => "dbPointer",
        CODE => "javascript",
        SYMBOL => "symbol",
        CODE_WITH_SCOPE => "javascriptWithScope",
        INT32 => "int",
        TIMESTAMP => "timestamp",
        INT64 => "long",
        DECIMAL128 => "decimal",
        MAX_KEY => "maxKey",
        MIN_KEY => "minKey",
        _ => "unknown",
    }
}
