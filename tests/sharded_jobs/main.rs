//! Jobs on sharded clusters: the same result whatever the way to it, read where it lies, written to
//! sharded collections, while shards come and go; and what cannot work says why.

#![cfg(test)]

mod bad_clusters;
#[path = "../common/mod.rs"]
mod common;
mod foresight;
mod history;
mod jobs;
mod keys;
mod links;
mod locality;
mod membership;
mod outputs;
