//! Runs functions over batches: map, combine, reduce, finalize, and reduce once more.
//!
//! The worker uses it for a job's tasks, the command line for trials, and the catalogue to check what it is given.
//! Nothing here claims, commits or publishes: what comes out goes to a sink of the caller's.
//!
//! Reading order: [`prepare`] (from a reference to something that can run), [`function`] (a function at work, and whose
//! fault it was), [`combiner`] and [`reducer`] (what happens to emits and groups), `result_document` (what may become a
//! result), [`rereduce`], [`local_run`] (a whole job in one process), [`log_buffer`] (what functions log), [`skipping`] (records that a function fails on are left out).

pub mod batch_sizer;
pub mod collation;
pub mod collect;
pub mod combiner;
pub mod deadline;
pub mod function;
pub mod in_parts;
pub mod local_run;
pub mod log_buffer;
pub(crate) mod manifest;
pub mod prepare;
pub mod reducer;
pub mod rereduce;
pub(crate) mod result_document;
pub mod skipping;
mod streaming_reduce;
mod values_chunk;
