//! The worker daemon: claims tasks of its shard and runs them, `slots` at a time.
//!
//! Reading order: [`daemon`] (the loop), `slots` (what runs at once, what is claimed ahead), `attempt` (one claimed task
//! from claim to commit), `commits` (commits that go together), `map`, `reduce` and `publish_task` (the work), `writer`
//! (to the database, behind the lease), `log_writer`. What runs the functions is in [`crate::exec`].

mod attempt;
mod commits;
mod complete;
pub mod daemon;
mod log_writer;
mod map;
mod publish_task;
mod reduce;
mod runs;
mod skips;
mod slots;
pub mod spills;
mod staging;
mod writer;

pub use daemon::{WorkerOptions, run};
pub use slots::Slots;
pub use spills::Spills;
