//! Real MongoDB deployments made of `mongod` processes on this machine.
//!
//! Tests use it to run against true servers and to hurt them; `aviary demo` and `aviary up` use it
//! to give a newcomer a database. It starts replica sets of one or three members, single servers
//! and sharded clusters, and it takes them down again whatever becomes of the program that started
//! them.
//!
//! It is not a container runtime, and not a way to run a production database: every server
//! listens on 127.0.0.1 only and has a small cache.
//!
//! Layout, in reading order:
//!
//! * [`dirs`]: which directories and files are trusted, and where the cache is.
//! * [`named`]: programs and directories that the user of this library names.
//! * [`mongod`]: finds a server program, or fetches one ([`Progress`] reports on it).
//! * [`process`]: one managed child process, its log, and the faults that can be put on it.
//! * [`replica_set`] and [`standalone`]: the deployments.
//! * [`sharded`]: a sharded cluster made of replica sets, behind a `mongos` where there is one.
//! * [`router`]: the test-only stand-in for `mongos` otherwise, which `bin/router.rs` makes a
//!   program of.
//! * [`assemble`]: a sharded cluster of servers that somebody else has started.
//! * `containers`: a sharded cluster of containers, with the feature of the same name.
//! * [`state`]: the file that describes a deployment left running, and taking it [`state::down`].
//! * `watchdog`: the child that cleans up when the owner dies without a word.
#![deny(
    unsafe_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

pub mod assemble;
#[cfg(feature = "containers")]
pub mod containers;
pub mod dirs;
pub mod error;
mod fetch;
mod home;
mod launch;
pub mod mongod;
pub mod named;
mod ports;
pub mod process;
pub mod program;
mod progress;
mod removal;
pub mod replica_set;
pub mod router;
pub mod secret;
pub mod sharded;
pub mod standalone;
pub mod state;
mod uri;
mod watchdog;
mod wire;

pub use error::{Error, Result};
pub use mongodb;
pub use process::{Managed, ManagedCommand};
pub use progress::Progress;
pub use replica_set::{FailCommand, ReplicaSet, ReplicaSetOptions, Role};
pub use sharded::{RouterProgram, ShardedCluster, ShardedClusterOptions};
pub use standalone::{Standalone, StandaloneOptions};
