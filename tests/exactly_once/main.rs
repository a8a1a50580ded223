//! "Exactly one result" under ordinary faults. Each test is named for the promise that was broken once.
//!
//! Everything here is done to the real binary and a real server: processes are frozen and killed at named
//! places, commands are cut off on their way, servers are stopped.

#![cfg(test)]

mod attempts;
mod clocks;
#[path = "../common/mod.rs"]
mod common;
mod cutter;
mod jobs;
mod late_merges;
mod locks;
mod midway;
mod overtaken;
mod refused;
mod removed;
mod restarted;
mod rolled_back;
mod turns;
mod unfit;
mod unkept;
