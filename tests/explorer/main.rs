//! Explores every order of events that a few processes can produce, and finds in all of them what must hold.
//!
//! The processes decide with the code that the daemons decide with ([`aviary::protocol`], `JobState::after`,
//! `TaskState::sources_of`), against a MongoDB that is a small value in memory. A world is visited once, breadth first,
//! so a counterexample is a shortest one. `cargo test --test explorer -- --show-output` prints a table.
//!
//! # What is modeled
//!
//! * **One command is one step**, in the order in which `src/worker` and `src/coordinator` send them: a claim, a look for
//!   an identity, a fenced write, a rename, a merge that begins and one that writes, a step of the clean-up. Two keys are
//!   in the target: `A` is 10, `B` is not there; job 0 has 1 for each, job 1 has 3. So each sum tells which jobs are in it.
//! * **Workers and coordinators** die, and are there again at once; freeze (any step can come long after the one before,
//!   and a lease can run out in between); lose the answer to a command that took effect; meet a refusal that passes; or give
//!   a command up that arrives later, at any time, once. A merge whose sender is gone goes on.
//! * **The database** gives up a claim that no majority had (with its epoch, which is then used again), loses blocks,
//!   refuses a result half-way, answers a look from a server that is behind, and loses the member that a plan reads from.
//! * **People** cancel, resume and remove jobs.
//!
//! # What must hold
//!
//! In every world: the target holds what a serial order of the jobs gives, in which each job that committed is whole and in
//! the order of commits, and one that failed, or was cancelled without saying so, is not at all; nobody commits without the
//! lease, or twice; what has succeeded was committed; no job fails or stops unless its target refuses it or workers
//! vanish with it. From every world, without faults, an end can be reached in which every job has ended and nothing is left: no
//! hidden collection, no turn, no block, no open task.
//!
//! # The bound
//!
//! Two jobs, two workers, two coordinators, and so many faults as a scenario says: one in the quick set. With
//! `AVIARY_EXPLORE=deep` (and `--release`) one more. In scenarios of two jobs, steps that touch only what is one job's own are one step with the next
//! (their every order is seen with one job), unless the table says "every step".
//!
//! # What is not
//!
//! Time (a pause is over at any moment), more than two keys, shards and their links, inline results and `update`, a target that
//! its owner changes, splits and snapshots, `keep_intermediates`, the sweep's reads (what it acts on cannot
//! change back), failovers that lose more than a claim, and that a fair scheduler really gets to the end that can be reached.

#![cfg(test)]

mod check;
mod command;
mod coordinator;
mod events;
mod explore;
mod mutants;
mod scenario;
mod scenarios;
mod server;
mod worker;
mod world;

use explore::Explored;
use scenario::Scenario;

/// Explores and prints a row of the table.
fn explored(scenario: &Scenario) -> Explored {
    let found = explore::explore(scenario);
    println!(
        "{:<38} {:>2} faults {:>8} states {:>9} transitions {:>4} deep {:>6.1} s  {}",
        scenario.name,
        scenario.left.faults,
        found.states,
        found.transitions,
        found.depth,
        found.took.as_secs_f64(),
        found.wrong.as_ref().map_or("holds", |(why, _)| why),
    );
    found
}

fn hold(scenarios: &[Scenario]) {
    for scenario in scenarios {
        let found = explored(scenario);
        if let Some((why, way)) = found.wrong {
            panic!("{}: {why}\n  {}", scenario.name, way.join("\n  "));
        }
        assert!(found.good > 0, "{}: nothing comes to a good end", scenario.name);
    }
}

#[test]
fn two_jobs_publish_into_one_target_as_if_one_came_after_the_other() {
    hold(&scenarios::pairs());
}

#[test]
fn a_job_is_published_once_or_changes_nothing_whatever_happens_to_its_publishers() {
    hold(&scenarios::publishing());
}

#[test]
fn tasks_commit_once_and_every_job_comes_to_an_end() {
    hold(&scenarios::tasks());
}

#[test]
fn every_mistake_that_is_built_in_is_found() {
    for scenario in mutants::mutants() {
        let found = explored(&scenario);
        let Some((_, way)) = found.wrong else { panic!("{}: not found", scenario.name) };
        way.iter().for_each(|step| println!("    {}", step.get(..150).unwrap_or(step)));
    }
}

#[test]
fn one_fault_more_changes_nothing() {
    if std::env::var("AVIARY_EXPLORE").as_deref() == Ok("deep") {
        hold(&scenarios::deep());
    }
}
