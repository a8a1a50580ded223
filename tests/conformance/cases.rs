//! All cases, by what they are about.

mod functions;
mod keys;
mod options;
mod outputs;
mod values;

use crate::case::Case;

/// Adds numbers.
pub const SUM: &str = "function (key, values) { return Array.sum(values); }";
/// Counts by a field.
pub const BY_K: &str = "function () { emit(this.k, this.v); }";
/// Takes the first value: for maps that emit each key once.
pub const FIRST: &str = "function (key, values) { return values[0]; }";

/// Every case.
pub fn all() -> Vec<Case> {
    [values::all(), keys::all(), functions::all(), options::all(), outputs::all()].concat()
}
