//! Random jobs under random faults, several at a time.
//!
//! Two databases, each with coordinators and workers of their own, get jobs of every kind: map-only or
//! reduced, into targets of their own or shared ones, small, with 50,000 keys, and with more runs than a
//! reducer merges in memory. Meanwhile daemons are killed, told to stop and frozen, primaries step
//! down or die, links are cut or slow, commands fail; a few daemons have no temporary directory, or
//! a full one, too little memory, or a clock that is a day off. In the end every job must have succeeded (or
//! have been cancelled by whoever asked for it), every target and counter be what an oracle in this
//! process computes, and nothing be left over.
//!
//! ```text
//! cargo test --test chaos                                             a minute on each deployment
//! AVIARY_CHAOS_SECONDS=1800 cargo test --test chaos replica_set -- --nocapture     the long run
//! AVIARY_CHAOS_SECONDS=1800 cargo test --test chaos three_shards -- --nocapture    the same on shards
//! AVIARY_CHAOS_SEED=7                                                 the same dice again
//! AVIARY_CHAOS_ONLY=kill-worker,step-down                             only these faults
//! AVIARY_CHAOS_WITHOUT=missing-tmp,small-worker                       all but these
//! AVIARY_CHAOS_DIR=DIR                                                histories and daemons' logs stay here
//! AVIARY_CHAOS_CHECK=FILE cargo test --test chaos check -- --nocapture    checks a history again
//! ```
//!
//! The seed decides jobs and faults, not how they interleave. A fault counts when it was felt: a link that
//! was cut with nobody on it does not, nor does a failing command that nobody sent. A class that never
//! fired fails a run of ten minutes or more; shorter runs say so. The history says what happened and what was
//! found, one JSON document a line, and the check reads nothing else.
//!
//! A replaced target must hold one job's whole result; which of several came last is not checked.

#![cfg(test)]

mod check;
#[path = "../common/mod.rs"]
mod common;
mod dice;
mod faults;
mod fleet;
mod history;
mod jobs;
mod link;
mod run;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use aviary_testcontainers::{ReplicaSetOptions, ShardedClusterOptions};
use common::{Bed, Links};
use fleet::{Fleet, Oddity};
use history::{History, What};

/// How long faults go on unless `AVIARY_CHAOS_SECONDS` says otherwise.
const SECONDS: u64 = 60;
/// A run at least this long has time for every fault.
const LONG_SECONDS: u64 = 600;

/// All that a run is about.
pub struct World {
    seed: u64,
    bed: Bed,
    dbs: Vec<String>,
    fleet: Fleet,
    history: History,
    servers: faults::Servers,
}

impl World {
    /// Writes down that a fault happened.
    fn fired(&self, class: &str, times: i64, detail: &str) {
        let (class, detail) = (class.to_owned(), detail.to_owned());
        self.history.add(What::Fault { class, times, detail });
    }

    /// Has every link that is whole lead to where the primary is now.
    async fn lead_links(&self) {
        let port = self.bed.front_port().await;
        for link in &self.fleet.links {
            if link.server() != 0 && link.server() != port {
                link.lead_to(port);
            }
        }
    }
}

impl Bed {
    /// The number of shards, of a sharded cluster.
    fn shards(&self) -> Option<usize> {
        (self.links != Links::Direct).then(|| self.cluster().shard_count())
    }

    /// The port of the primary, or of the router.
    async fn front_port(&self) -> u16 {
        if self.shards().is_some() {
            return self.cluster().router().port();
        }
        let primary = self.set().wait_primary().await.expect("a primary");
        self.set().port(primary).expect("a port")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_on_a_replica_set_changes_no_result() {
    let options =
        ReplicaSetOptions { members: 3, test_commands: true, ..ReplicaSetOptions::default() };
    chaos("replica set of three", Bed::with(options).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chaos_on_three_shards_changes_no_result() {
    let options = ShardedClusterOptions { test_commands: true, ..common::cluster(3) };
    chaos("three shards", Bed::sharded(options, Links::Routed).await).await;
}

/// Checks the history that `AVIARY_CHAOS_CHECK` names.
#[test]
fn check_a_history_again() {
    let Some(file) = std::env::var_os("AVIARY_CHAOS_CHECK") else { return };
    conclude(&check::check(&history::read(&PathBuf::from(file))));
}

async fn chaos(deployment: &str, bed: Bed) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("AVIARY_CHAOS_SEED").unwrap_or_else(rand::random::<u64>);
    let seconds = number("AVIARY_CHAOS_SECONDS").unwrap_or(SECONDS);
    let classes = classes();
    let kept = std::env::var_os("AVIARY_CHAOS_DIR").map(PathBuf::from);
    let dir = kept.clone().unwrap_or_else(|| bed.dir.path().to_owned());
    std::fs::create_dir_all(&dir).expect("a directory");
    let history =
        History::create(&dir.join(format!("{}-{seed}.jsonl", deployment.replace(' ', "-"))));
    println!(
        "{deployment}: AVIARY_CHAOS_SEED={seed} AVIARY_CHAOS_SECONDS={seconds}, history in {}",
        history.path().display()
    );
    let dbs = vec!["chaos0".to_owned(), "chaos1".to_owned()];
    let fleet = Fleet::start(&bed, &dbs, &classes).await;
    let classes: Vec<String> = classes.into_iter().filter(|class| fleet.can(class)).collect();
    history.add(What::Run {
        seed,
        deployment: deployment.to_owned(),
        seconds,
        classes: classes.clone(),
    });
    let servers = faults::Servers::default();
    let world = Arc::new(World { seed, bed, dbs, fleet, history, servers });
    run::load(&world).await;

    let over = Arc::new(AtomicBool::new(false));
    let next = Arc::default();
    let mut all = tokio::task::JoinSet::new();
    for db in world.dbs.clone() {
        all.spawn(run::submit(world.clone(), db, Arc::clone(&next), over.clone()));
    }
    all.spawn(faults::storm(world.clone(), classes, over.clone()));
    let calm = Arc::new(AtomicBool::new(false));
    let nurse = tokio::spawn(run::look_after(world.clone(), calm.clone()));
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    // On a slow machine, next to nothing may have been submitted by now.
    common::wait_for("a few jobs", || async { (acknowledged(&world) >= FEW).then_some(()) }).await;
    over.store(true, std::sync::atomic::Ordering::SeqCst);
    while let Some(ended) = all.join_next().await {
        ended.expect("it ends well");
    }
    world.lead_links().await;
    run::take_stock(&world).await;
    calm.store(true, std::sync::atomic::Ordering::SeqCst);
    nurse.await.expect("it ends well");
    for member in &world.fleet.members {
        member.stop(&world.history).await;
    }
    if let Some(kept) = kept {
        keep(&world.bed, &kept);
    }
    conclude(&check::check(&world.history.events()));
}

/// Jobs without which nothing is shown: one or two of them may be cancelled.
const FEW: usize = 4;

fn acknowledged(world: &World) -> usize {
    let events = world.history.events();
    events.iter().filter(|event| matches!(event.what, What::Submitted { code: 0, .. })).count()
}

/// The faults that are wanted, and possible here.
fn classes() -> Vec<String> {
    let listed = |name: &str| -> Option<Vec<String>> {
        Some(std::env::var(name).ok()?.split(',').map(str::to_owned).collect())
    };
    let only = listed("AVIARY_CHAOS_ONLY");
    let without = listed("AVIARY_CHAOS_WITHOUT").unwrap_or_default();
    let odd = [Oddity::MissingTmp, Oddity::FullTmp, Oddity::Small, Oddity::Tomorrow];
    let all = faults::STRIKING.into_iter().chain(odd.map(Oddity::class)).map(str::to_owned);
    let mut classes: Vec<String> = all
        .filter(|class| only.as_ref().is_none_or(|only| only.contains(class)))
        .filter(|class| !without.contains(class))
        .collect();
    if fleet::faketime().is_none() {
        println!(
            "skipped: there is no libfaketime (apt-get install libfaketime), so no clock is shifted"
        );
        classes.retain(|class| class != Oddity::Tomorrow.class());
    }
    classes
}

fn conclude(summary: &check::Summary) {
    println!("{summary}");
    assert!(summary.is_good(), "chaos changed something; see above");
    assert!(summary.succeeded() > 0, "no job succeeded, so nothing was shown");
    if summary.seconds >= LONG_SECONDS {
        assert!(summary.never.is_empty(), "never fired: {:?}", summary.never);
    }
}

/// Keeps the daemons' logs.
fn keep(bed: &Bed, dir: &std::path::Path) {
    for entry in bed.dir.path().read_dir().expect("a directory").flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "log") {
            std::fs::copy(entry.path(), dir.join(entry.file_name())).expect("copied");
        }
    }
}
