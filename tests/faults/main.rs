//! Faults on a real replica set of three members: processes and servers are killed, frozen and
//! stopped at named moments, and the result must be the one of an undisturbed run.
//!
//! Every test proves that its fault fired: by the log of the process that was hurt, by the history
//! of its task, or by what the servers say of themselves.

#![cfg(test)]

#[path = "../common/mod.rs"]
mod common;
mod concern;
mod coordinator;
mod gate;
mod jobs;
mod leases;
mod merging;
mod primary;
mod publisher;
mod ttl;
mod worker;
mod zombies;

use common::Bed;

#[tokio::test(flavor = "multi_thread")]
async fn killed_workers_change_nothing() {
    worker::killed_workers_change_nothing(&Bed::start(3).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_coordinators_change_nothing() {
    coordinator::killed_coordinators_change_nothing(&Bed::start(3).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_publishers_change_nothing() {
    publisher::killed_publishers_change_nothing(&Bed::start(3).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_publishers_merge_nothing_twice() {
    merging::killed_publishers_merge_nothing_twice(&Bed::start(3).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_are_lost_and_handed_back_without_harm() {
    leases::leases_are_lost_and_handed_back_without_harm(&Bed::start(3).await).await;
}
