//! The worker daemon: claims tasks of its shard and runs them, `slots` at a time.
//!
//! Reading order: [`daemon`] (the loop), `slots` (what runs at once, what is claimed ahead), `attempt` (one claimed task from claim to commit), `commits` (commits that go together), `map`,
//! `reduce` and `publish_task` (the work), `guest` (a function and its failures), `combiner`, `reducer` (what
//! happens to emits and groups), `writer` (to the database, behind the lease), `lines` (what functions log).

pub mod apart;
mod attempt;
pub mod collation;
pub mod combiner;
mod commits;
mod complete;
pub mod daemon;
pub mod deadline;
pub mod guest;
pub mod lines;
pub mod loader;
pub mod local;
mod manifest;
mod map;
pub mod once_more;
pub mod pace;
mod publish_task;
mod reduce;
pub mod reducer;
mod runs;
mod slots;
pub mod spills;
mod stream;
mod writer;

pub use daemon::{WorkerOptions, run};
pub use spills::Spills;
