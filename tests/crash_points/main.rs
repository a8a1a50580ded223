//! Every command that a daemon sends is a place where it can die.
//!
//! A gate numbers the commands that one process, a worker or the coordinator, sends to the server
//! while it does a small job. For each command and each fault the job is run again, the fault happens
//! at that command, and everything is looked at: the target to the document, counters, how the job
//! ended, and that nothing of it is left. It treats the binary as a black box: command lines, commands
//! on the wire, documents.
//!
//! | fault | what happens at the command |
//! |---|---|
//! | `lost` | the connection breaks before the server sees it |
//! | `reply-lost` | the server runs it, the connection breaks before the reply |
//! | `killed-before` | SIGKILL, the server never sees it |
//! | `killed-after` | the server runs it, then SIGKILL |
//! | `frozen` | SIGSTOP; another process takes over and ends the job, and the target's owner changes the target; then the command arrives and the process goes on |
//!
//! ```text
//! cargo test --test crash_points                                    a sample, about two minutes
//! AVIARY_CRASH_POINTS=all cargo test --test crash_points -- --nocapture         every point and fault
//! AVIARY_CRASH_POINTS=5 …                                           every fifth point, faults in turn
//! AVIARY_CRASH_ONLY=worker/reduce/17=3f2a1b.2/reply-lost …          one, as the report names it
//! AVIARY_CRASH_ONLY=worker/reduce,coordinator/merge …               these, every point and fault
//! AVIARY_CRASH_SECONDS=1200                                        as many as begin within it, of every kind
//! AVIARY_CRASH_JOBS=6                                               runs at once
//! AVIARY_CRASH_KEEP=DIR                                             daemons' logs of bad runs go here
//! ```
//!
//! A read changes nothing on the server, so with `all` it meets three of the faults: its reply lost is the command
//! lost, and killed after it is killed before it.
//!
//! A point is a command's label and the how-many-th of that label it is, so that runs that poll a
//! little more or less mean the same step by it. Its number is its place in an undisturbed run. A point
//! that does not come in a run is told as not reached. Reads that repeat more than a few times are polls;
//! what is beyond that is told as skipped.
//!
//! It proves: whatever single fault hits a daemon at whatever command, the result is exact and
//! nothing is left over. It does not cover two faults at once (`tests/chaos` does), servers that
//! fail over (`tests/faults`), or shards.

#![cfg(test)]

mod case;
#[path = "../common/mod.rs"]
mod common;
mod gate;
mod jobs;
mod label;
mod outcome;
mod select;
mod table;

use std::time::Instant;

use futures_util::StreamExt;
use futures_util::stream;

use aviary_testcontainers::ReplicaSetOptions;
use case::Process;
use common::Bed;
use jobs::Kind;
use select::{Run, Selection};
use table::{Line, Table};

/// Runs at once on one server: every change stream reads what all of them do.
const RUNS_AT_ONCE: usize = 2;
/// A server does so many runs. What was dropped is kept for its history, and makes it ever slower.
const RUNS_PER_SERVER: usize = 120;

/// The runs of each server, of which some run at once. Where there are many, those that begin together do not end
/// together, so that others run while one waits for its last.
fn batches(mut runs: &[Run], servers: usize) -> Vec<&[Run]> {
    if runs.len() <= servers * RUNS_PER_SERVER {
        return runs.chunks(runs.len().div_ceil(servers).max(1)).collect();
    }
    let mut batches = Vec::new();
    while !runs.is_empty() {
        let share = RUNS_PER_SERVER * (batches.len() + 1).min(servers) / servers;
        let (batch, rest) = runs.split_at(share.min(runs.len()));
        batches.push(batch);
        runs = rest;
    }
    batches
}

/// A server for some runs.
async fn server() -> (Bed, u16) {
    let options = ReplicaSetOptions { members: 1, ..ReplicaSetOptions::default() };
    let bed = Bed::with(options).await;
    let port = bed.set().port(0).expect("a port");
    (bed, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_at_whatever_command_the_result_is_exact() {
    let selection = Selection::from_env();
    let at_once: usize =
        std::env::var("AVIARY_CRASH_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(4).max(1);
    let began = Instant::now();
    let mut table = Table::default();

    let scenarios = Process::ALL
        .into_iter()
        .flat_map(|process| Kind::ALL.into_iter().map(move |kind| (process, kind)));
    let scenarios = scenarios
        .filter(|(process, kind)| (*process, *kind) != (Process::Worker, Kind::Sweep))
        .filter(|(process, kind)| selection.wants(*process, *kind));
    // An undisturbed run of each counts its points.
    let (bed, port) = server().await;
    let calm = stream::iter(scenarios.map(|(process, kind)| {
        let bed = &bed;
        async move { (process, kind, case::run(bed, port, process, kind, None).await) }
    }));
    let mut calm: Vec<_> = calm.buffer_unordered(at_once).collect().await;
    drop(bed);
    calm.sort_by_key(|(process, kind, _)| (*process, *kind));
    let mut runs = Vec::new();
    for (process, kind, ended) in calm {
        if ended.verdict.is_bad() {
            table.bad_calm(process, kind, &ended);
            continue;
        }
        let points = select::points(kind, &ended.trace);
        table.points(process, kind, &points, ended.trace.len());
        runs.extend(selection.runs(process, kind, &points));
    }
    let runs = selection.sample(runs);
    println!("{} runs, {at_once} at once", runs.len());

    let total = runs.len();
    let in_time = &|| began.elapsed() < selection.budget;
    let servers = at_once.div_ceil(RUNS_AT_ONCE);
    let mut ended = stream::iter(batches(&runs, servers).into_iter().map(|batch| async move {
        let (bed, port) = server().await;
        let bed = &bed;
        let each = batch.iter().map(|run| async move {
            if !in_time() {
                return None;
            }
            let ended = case::run(bed, port, run.process, run.kind, Some(run.trap())).await;
            let line = Line { run: run.clone(), ended };
            if line.ended.verdict.is_bad() {
                println!("{line}");
                table::keep(bed, &line);
            }
            Some(line)
        });
        let lines = stream::iter(each).buffer_unordered(RUNS_AT_ONCE.min(at_once));
        lines.filter_map(std::future::ready).collect::<Vec<Line>>().await
    }))
    .buffer_unordered(servers);
    let mut done = 0;
    while let Some(lines) = ended.next().await {
        done += lines.len();
        println!("{done} of {total} after {} s", began.elapsed().as_secs());
        for line in lines {
            table.add(line);
        }
    }
    println!("{table}");
    println!("{done} of {total} runs in {} s", began.elapsed().as_secs());
    assert!(table.is_good(), "{} runs went wrong; each is told above", table.bad_count());
}
