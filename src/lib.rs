//! Aviary runs MapReduce over the documents of a MongoDB deployment.
//!
//! The database is the file system, the queue, the shuffle and the journal. A coordinator writes
//! task documents; workers claim them by atomic leases, run the user's functions as sandboxed
//! WebAssembly and write the shuffle back. No process talks to another and none keeps state it
//! cannot lose.
//!
//! It is not: a cluster manager, a replacement for indexes and aggregation where these do the job,
//! or a place to run code that talks to the world.
//!
//! # Layout
//!
//! ```text
//! bin ─▶ cli ─▶ coordinator, worker ─▶ functions ─▶ exec ─▶ store ─▶ request, protocol, toolchain
//!               ─▶ job, task ─▶ shuffle, wasm ─▶ value ─▶ settings ─▶ ids, error, config
//! ```
//!
//! Dependencies point down only; [`store`] is the only module that imports the driver; [`job`],
//! [`task`], [`protocol`], [`shuffle`] and [`wasm`] are pure. Start reading at [`task`] (the lease
//! protocol), then [`job`], [`protocol`], [`coordinator`], [`worker`].
//!
//! The command line is the contract. This library is what the command is made of, and no more
//! stable than that.

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod cli;
pub mod config;
pub mod coordinator;
pub mod dirs;
pub mod error;
mod exact;
pub mod exec;
pub mod files;
pub mod functions;
pub mod halt;
pub mod ids;
pub mod job;
pub mod planted;
pub mod protocol;
pub mod request;
pub mod settings;
pub mod shuffle;
pub mod store;
pub mod task;
pub mod telemetry;
pub mod terminal;
pub mod toolchain;
pub mod value;
pub mod wasm;
pub mod worker;
