//! The function catalogue's documents.
//!
//! A function is found by the BLAKE3 of its bytes, so equal content is stored once. Three kinds of document
//! live in the collection: `function` (manifest, source and bytes), `chunk` (a part of bytes that do not fit
//! beside their manifest) and `name` (which digest a name leads to now, and which it led to before). Chunks are written
//! before their function and removed after it, and belong to this one writing of it: a function that can be found
//! is whole, whoever removes and stores it at the same time.
//!
//! A function that is to be removed is marked first. Workers still find it; whoever submits a job takes it for
//! gone, and whoever stores it again takes the mark away. Only while it is marked, and no job needs it, it goes.

mod content;
mod documents;
mod names;

pub use documents::{FunctionName, FunctionRow, NameVersion, SourceFile, StoredFunction};

/// The field by which a function that is to be removed is marked.
const REMOVING: &str = "removing";
