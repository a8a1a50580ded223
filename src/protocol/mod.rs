//! What the processes decide, apart from doing it.
//!
//! Each function here is given what was read and says what to do next. There is no clock, no random number
//! and no driver inside: the daemons execute the decisions against MongoDB, and `tests/explorer` executes
//! the same decisions against a model, in every order of events that a few processes can produce.
//!
//! * [`coordinate`]: from a job and the counts of its tasks to the job's next move.
//! * [`publish`]: from what a publisher sees to its next step.
//! * [`turn`]: who may publish into a target.
//! * [`shares`]: whose task a free slot takes.
//! * [`backoff`]: when to try again what failed.
//!
//! The task's lease protocol is told in [`crate::task`].

pub mod backoff;
pub mod coordinate;
pub mod publish;
pub mod shares;
pub mod turn;
