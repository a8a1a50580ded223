//! What map and reduce functions in Rust are written with.
//!
//! ```ignore
//! use aviary::*;
//!
//! fn map(doc: Doc) { emit(doc.get("customer"), doc.get("total")) }   // any number of emits
//! fn reduce(key: Value, values: Values) -> f64 { … }                 // must be associative, or stream:
//! fn reduce_begin(key: Value) { … }
//! fn reduce_next(value: Value) { … }                                 // every value, in order
//! fn reduce_end() -> f64 { … }
//! fn combine(key: Value, values: Values) -> f64 { … }                // shrinks values before they travel
//! fn finalize(key: Value, value: Value) -> Document { … }
//! ```
//!
//! Documents are read in place. A value of another type than a function asks for fails the record with the
//! field's name; the accessors that begin with `as_` return `None` instead. Whatever implements [`ToBson`] can be
//! emitted and returned.

#[doc(hidden)]
pub mod glue;
mod read;
mod sums;
mod write;

pub use read::{Doc, Fields, Type, Value, Values};
pub use write::{
    Binary, Code, DateTime, Decimal128, Document, List, MaxKey, MinKey, ObjectId, Regex, Symbol, Timestamp, ToBson,
};

#[link(wasm_import_module = "aviary")]
unsafe extern "C" {
    #[link_name = "emit"]
    fn host_emit(key: *const u8, key_len: u32, value: *const u8, value_len: u32);
    #[link_name = "emit_total"]
    fn host_emit_total(key: *const u8, key_len: u32, value: *const u8, value_len: u32, emits: u32);
    #[link_name = "count"]
    fn host_count(name: *const u8, name_len: u32, delta: i64);
    #[link_name = "log"]
    fn host_log(level: i32, text: *const u8, text_len: u32);
    #[link_name = "fail"]
    fn host_fail(text: *const u8, text_len: u32) -> !;
    #[link_name = "scope"]
    fn host_scope(to: *mut u8, room: u32) -> u32;
}

/// Emits a pair: any number of them from a map, and from no other function, since theirs is what they return.
pub fn emit(key: impl ToBson, value: impl ToBson) {
    write::with_scratch(|scratch| {
        key.append_tagged(scratch);
        let at = scratch.len();
        value.append_tagged(scratch);
        let (key, value) = scratch.split_at(at);
        if !sums::take(key, value) {
            // SAFETY: the host reads the two slices before it returns.
            unsafe { host_emit(key.as_ptr(), key.len() as u32, value.as_ptr(), value.len() as u32) }
        }
    });
}

/// Adds to one of the job's own counters.
pub fn count(name: &str, delta: i64) {
    // SAFETY: the host reads the name before it returns.
    unsafe { host_count(name.as_ptr(), name.len() as u32, delta) }
}

/// How much a line of the log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something is odd.
    Warn,
    /// Worth knowing.
    Info,
    /// For finding mistakes.
    Debug,
    /// For finding them step by step.
    Trace,
}

/// Writes a line to the log of the task.
pub fn log(level: Level, text: &str) {
    // SAFETY: the host reads the text before it returns.
    unsafe { host_log(level as i32, text.as_ptr(), text.len() as u32) }
}

/// Writes a line to the log of the task, like `println!`.
#[macro_export]
macro_rules! log {
    ($($arg:tt)*) => { $crate::log($crate::Level::Info, &::std::format!($($arg)*)) };
}

/// Says that the record at hand is bad. It does not return.
pub fn fail(text: &str) -> ! {
    // SAFETY: the host reads the text, and ends the call.
    unsafe { host_fail(text.as_ptr(), text.len() as u32) }
}

/// Says that the record at hand is bad, with a text like `format!` makes. It does not return.
#[macro_export]
macro_rules! fail {
    ($($arg:tt)*) => { $crate::fail(&::std::format!($($arg)*)) };
}

/// The job's parameters, an empty document if it has none.
pub fn scope() -> Doc<'static> {
    static SCOPE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    Doc::new(SCOPE.get_or_init(|| {
        // SAFETY: given no room, the host only says how much it takes; then it writes no more than that.
        let len = unsafe { host_scope(std::ptr::null_mut(), 0) };
        let mut bytes = vec![0; len as usize];
        unsafe { host_scope(bytes.as_mut_ptr(), len) };
        bytes
    }))
}

/// Makes every emit of the map in this file a call of the host. Without it, where a job reduces by `_sum` or `_count`,
/// emits of one key are added up first, which changes neither results nor counters. It stands outside of all functions:
/// `aviary::no_sums!();`
#[macro_export]
macro_rules! no_sums {
    () => {
        const AVIARY_SUMS: bool = false;
    };
}

/// Makes a [`Document`]: `doc! { "sum": sum, "count": 2 }`.
#[macro_export]
macro_rules! doc {
    ($($name:literal : $value:expr),* $(,)?) => { $crate::Document::new()$(.with($name, &$value))* };
}

/// Makes a [`List`], an array whose items may be of several types: `list![1, "two", None::<i32>]`.
#[macro_export]
macro_rules! list {
    ($($value:expr),* $(,)?) => { $crate::List::new()$(.with(&$value))* };
}
