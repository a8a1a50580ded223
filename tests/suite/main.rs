//! One binary of most suites, a module each: they wait for servers most of the time, so what shares a binary runs at the
//! same time, and is linked once. `cargo test --test suite -- leases::` runs one of them.

#![cfg(test)]

mod bad_input;
mod blocks;
mod catalogue;
mod committed;
#[path = "../common/mod.rs"]
mod common;
mod compiling;
mod databases;
mod docs;
#[path = "../exactly_once/jobs.rs"]
#[allow(dead_code, clippy::allow_attributes, reason = "these tests use a part of this")]
mod exactly_once_jobs;
#[path = "../faults/jobs.rs"]
#[allow(dead_code, clippy::allow_attributes, reason = "these tests use a part of this")]
mod faults_jobs;
mod files;
mod instructions;
mod js_guest;
mod key_order;
mod key_order_server;
mod late;
mod layers;
mod leases;
mod limits;
mod logs;
mod merging;
mod mongosh;
mod motion;
mod natural;
mod newer_documents;
#[path = "../../benches/peers/data.rs"]
#[allow(dead_code, clippy::allow_attributes, reason = "these tests use a part of this")]
mod peers_data;
#[path = "../../benches/peers/jobs.rs"]
#[allow(dead_code, clippy::allow_attributes, reason = "these tests use a part of this")]
mod peers_jobs;
mod publish;
#[path = "../common/python.rs"]
mod python;
mod query_costs;
mod reference;
#[path = "../rules/mod.rs"]
mod rules;
mod runs_and_tables;
mod secrets;
mod settings;
mod shapes;
mod sharded_mongosh;
mod sharded_pymongo;
mod shares;
mod skipping;
mod snapshot;
mod spills;
mod streaming;
mod stumbles;
#[path = "../support/mod.rs"]
mod support;
mod target_options;
mod terminal;
mod told;
mod trust;
mod unknown_outcomes;
mod up_down;
mod up_down_files;
