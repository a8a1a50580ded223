//! What happens between an emit of the map function and a call of the reduce function.
//!
//! A map task adds emits to a [`table::Table`], which combines values of equal keys under a
//! memory budget. When the budget is used up, the table is drained in (partition, key) order into
//! one run a partition: [`writer::RunWriter`] cuts the run into compressed, checksummed blocks. A
//! reduce task gives the runs of its partition to [`merge::Merge`], which walks the groups in key
//! order without ever holding a partition, or the values of one key, in memory.
//!
//! Everything here is pure and synchronous. Where blocks live is the business of the caller,
//! who provides a [`reader::RunSource`].
//!
//! Reading order: `partition`, `builtin` and `sum`
//! (native reductions), `fold` (functions that need not be called), `table` over `keys` and `cell`, `block` and `writer` (the stored format),
//! `reader`, `merge`.

pub mod block;
pub mod builtin;
mod cell;
mod extreme;
pub mod fold;
mod keys;
pub mod merge;
pub mod partition;
pub mod reader;
pub mod spill;
mod stats;
mod sum;
pub mod table;
mod values;
pub(crate) mod varint;
mod wide;
pub mod writer;

pub use block::{Block, BlockError, BlockLimits, BlockParts, DecodedBlock};
pub use builtin::{Accumulator, Builtin, BuiltinError};
pub use fold::Fold;
pub use merge::{Merge, MergeError, MergeLimits};
pub use partition::partition_of;
pub use reader::{RunError, RunSource, SourceError};
pub use spill::TempSpace;
pub use table::{Combine, Group, ShuffleError, Table};
pub use values::Values;
pub use writer::RunWriter;
