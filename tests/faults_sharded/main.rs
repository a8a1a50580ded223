//! Faults on a cluster of three shards, each with its workers beside it: what the fault tests on a
//! replica set do, and servers that die: primaries of shards and of the config servers, and the router.
//!
//! Every test proves that its fault fired: by the log of the process that was hurt, by the history
//! of its task, or by what the servers say of themselves.

#![cfg(test)]

#[path = "../common/mod.rs"]
mod common;
mod config;
#[path = "../faults/coordinator.rs"]
mod coordinator;
#[path = "../faults/jobs.rs"]
mod jobs;
#[path = "../faults/leases.rs"]
mod leases;
mod phases;
mod primary;
mod router;
#[path = "../faults/worker.rs"]
mod worker;

use aviary_testcontainers::ShardedClusterOptions;
use common::{Bed, Links};

const SHARDS: usize = 3;

/// Every server has two others that can take over.
fn replicated() -> ShardedClusterOptions {
    ShardedClusterOptions { shard_members: 3, config_members: 3, ..common::cluster(SHARDS) }
}

/// Each of these leaves the cluster whole, so they share one and follow each other.
#[tokio::test(flavor = "multi_thread")]
async fn servers_killed_in_any_phase_change_nothing() {
    let bed = Bed::sharded(replicated(), Links::Direct).await;
    jobs::load_few(&bed).await;
    let calm = phases::undisturbed(&bed, "few").await;
    primary::dies_under_a_cursor(&bed).await;
    primary::dies_in_each_phase(&bed, &calm).await;
    router::dies_in_each_phase(&bed, &calm).await;
    config::primary_dies_in_each_phase(&bed, &calm).await;
}

/// No server is hurt in the following, so each shard gets along with one.
#[tokio::test(flavor = "multi_thread")]
async fn killed_coordinators_change_nothing() {
    let bed = Bed::sharded(common::cluster(SHARDS), Links::Direct).await;
    coordinator::killed_coordinators_change_nothing(&bed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_and_frozen_workers_change_nothing() {
    let bed = Bed::sharded(common::cluster(SHARDS), Links::Direct).await;
    leases::leases_are_lost_and_handed_back_without_harm(&bed).await;
    worker::killed_workers_change_nothing(&bed).await;
}
