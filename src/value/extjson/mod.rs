//! MongoDB extended JSON, version 2: how values are printed, and how documents are read from text.
//!
//! Both work on BSON's bytes, so that nothing is lost on the way that a tree of values could not hold: field names
//! that are there twice, dates of any year, numbers of any type. Two forms are printed, canonical (every type kept)
//! and relaxed (numbers and dates as people write them).
//!
//! A document whose own field names look like extended JSON (`{"$date": "soon"}`) would be read back as something
//! else, and one with a name twice would lose a value. Both are printed as `{"$aviaryFields": [[NAME, VALUE], …]}`,
//! which `read` takes back. `docs/reference/values.md` tells users of it.
//!
//! It is not: a parser of what people type into mongosh. That is JavaScript, and is evaluated as such.

mod json;
mod read;
mod write;

pub use json::is_json;
pub use read::{Of, document};
pub use write::{Form, display, json, of_bson};

/// The name that stands for a list of fields.
const FIELDS: &str = "$aviaryFields";

/// Names by which extended JSON tells a value from a document.
const WRAPPERS: [&str; 18] = [
    "$oid",
    "$symbol",
    "$numberInt",
    "$numberLong",
    "$numberDouble",
    "$numberDecimal",
    "$binary",
    "$uuid",
    "$code",
    "$scope",
    "$timestamp",
    "$regularExpression",
    "$dbPointer",
    "$date",
    "$minKey",
    "$maxKey",
    "$undefined",
    FIELDS,
];

fn is_wrapper(name: &str) -> bool {
    WRAPPERS.contains(&name)
}

#[cfg(test)]
mod tests;
