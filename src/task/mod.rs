//! A task: one unit of work under a lease.
//!
//! # The lease protocol
//!
//! A task is a document. Whoever wants to work on it *claims* it by one atomic update that sets a
//! fresh random **token**, a time `until` which it is theirs by the **server's** clock, and one more
//! **epoch** and **attempt**. The same update reclaims a task whose `until` has passed, and closes
//! the attempt before as lost.
//!
//! ```text
//!             claim                     commit (token)
//!   planned ─▶ ready ────────▶ leased ──────────────────▶ done
//!                ▲               │ │ │                      │
//!                │ fail (token), │ │ └─ until passed: claim ┘ (a lost block sends a done
//!                │ not_before    │ │    by anyone             map task back to ready)
//!                └───────────────┘ └──▶ quarantined | cancelled
//! ```
//!
//! * **Time decides when a lease may be taken, the token decides who may write.** Every write after
//!   the claim (renewal, commit, failure, release) names the token in its filter. A zombie that was
//!   frozen past its lease matches nothing and stops. Clocks that disagree can cost work, never
//!   correctness.
//! * **The local clock only ends trust early.** A worker stops writing at *claim start + time to
//!   live − margin* on its own monotonic clock ([`Lease`]), before the server would give the task
//!   away.
//! * **Claims may be lost, commits may not.** A claim is written with `w: 1`: if a failover rolls it
//!   back, somebody else claims and the first finds its token gone. A commit is written with
//!   `w: majority`. A commit whose reply is lost is resolved by reading the task again.
//! * **An attempt is counted when it is claimed**, so that a task that kills its worker before the
//!   first renewal still burns one. A worker that is told to stop hands its leases back and the
//!   attempt with it. Attempts that fail and attempts that are lost have a limit each
//!   ([`ATTEMPTS_MAX`](crate::config::ATTEMPTS_MAX), [`LOST_MAX`](crate::config::LOST_MAX)).
//!
//! The shape follows lease-based queues such as river and underway, and the fencing token is
//! Kleppmann's ("How to do distributed locking", 2016).

pub mod counters;
pub mod document;
pub mod lease;
pub mod phases;
pub mod state;

pub use counters::Counters;
pub use document::{
    KeptBlock, Marks, NATURAL, PartManifest, Publish, Range, Split, Task, TaskKind, TaskResult,
    Waiting, goes_down,
};
pub use lease::Lease;
pub use phases::{JobPhases, PhaseCounts};
pub use state::TaskState;
