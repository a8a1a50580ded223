//! The input: what it is, where to cut it, and reading a piece of it at the job's snapshot.

mod history;
mod inspect;
mod options;
mod read;
mod reply;
mod sample;

pub use read::Reading;
pub(super) use read::room_in;
pub use reply::InputBatch;
pub(super) use reply::batch_documents;

/// What the planner needs to know of an input collection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InputSize {
    /// Documents, as the server estimates them.
    pub documents: u64,
    /// Bytes of them, uncompressed, as the server estimates them.
    pub bytes: u64,
}
