//! What must hold in every world, and what a good end is.

use aviary::job::{JobState, OutputMode};
use aviary::task::TaskState;

use crate::coordinator::{PERSON, Pc};
use crate::scenario::Scenario;
use crate::world::{J, Name, World};

/// What is wrong with a world, if anything is.
pub fn wrong(world: &World, scenario: &Scenario) -> Option<&'static str> {
    if world.ghost.wrong_commit {
        return Some(
            "a commit was accepted from somebody who had lost the lease, or a second time",
        );
    }
    let healthy = scenario.left.refusals == 0 && scenario.lost == 0;
    for j in scenario.jobs() {
        let state = world.jobs[usize::from(j)].snap.state;
        let done = world.ghost.done.contains(&Some(j));
        if state == JobState::Succeeded && !done {
            return Some("a job has succeeded whose publish task was not committed");
        }
        if matches!(state, JobState::Failed | JobState::Stopped) && healthy {
            return Some("a healthy job has failed or stopped");
        }
        if state == JobState::Cancelled && scenario.left.cancels == 0 && healthy {
            return Some("a job is cancelled that nobody cancelled");
        }
    }
    if healthy && world.tasks.iter().any(|task| task.at.state() == TaskState::Quarantined) {
        return Some("a task of a healthy job was given up");
    }
    let Some(target) = world.coll(Name::Target) else { return Some("the target is gone") };
    if !is_explained(world, scenario, target.rows) {
        return Some("the target holds what no serial order of the jobs gives");
    }
    None
}

/// Which keys of job `j` may be in the target: sets of them, as bits.
fn applied(world: &World, scenario: &Scenario, j: J) -> Vec<u8> {
    let job = world.jobs[usize::from(j)];
    let done = world.ghost.done.contains(&Some(j));
    let none = match job.snap.state {
        JobState::Failed => true,
        JobState::Cancelled => !job.said,
        _ => false,
    };
    match (done, none || !world.ghost.begun[usize::from(j)]) {
        (true, true) => Vec::new(),
        (true, false) => vec![0b11],
        (false, true) => vec![0],
        (false, false) if scenario.mode(j) == OutputMode::Replace => vec![0, 0b11],
        (false, false) => vec![0, 0b01, 0b10, 0b11],
    }
}

/// Whether some serial order of the jobs gives these values: each job that was committed as a whole, one that has
/// begun and was not committed in part or whole, and any other not at all.
fn is_explained(world: &World, scenario: &Scenario, rows: [u8; 2]) -> bool {
    let jobs: Vec<J> = scenario.jobs().collect();
    let orders: Vec<Vec<J>> = match jobs.as_slice() {
        [one] => vec![vec![*one]],
        // Jobs that were committed are in the order of that: each had the target to itself.
        _ => match world.ghost.done {
            [Some(first), Some(second)] => vec![vec![first, second]],
            _ => vec![vec![0, 1], vec![1, 0]],
        },
    };
    orders.into_iter().any(|order| {
        let mut found = vec![Scenario::FIRST];
        for j in order {
            let value = Scenario::value(j);
            let mut next = Vec::new();
            for keys in applied(world, scenario, j) {
                for rows in &found {
                    let mut rows = *rows;
                    let has = |key: usize| keys & (1 << key) != 0;
                    for (_, row) in rows.iter_mut().enumerate().filter(|(key, _)| has(*key)) {
                        *row = match scenario.mode(j) {
                            OutputMode::Reduce => *row + value,
                            _ => value,
                        };
                    }
                    next.push(rows);
                }
            }
            found = next;
        }
        found.contains(&rows)
    })
}

/// Whether everything has come to its end, and nothing is left.
pub fn is_good(world: &World, scenario: &Scenario) -> bool {
    let ended = scenario.jobs().all(|j| {
        let job = world.jobs[usize::from(j)];
        !job.there || (job.snap.state.is_terminal() && job.snap.cleaned)
    });
    ended
        && world.lanes[PERSON].pc == Pc::Idle
        && world.turn.is_none()
        && world.colls.iter().all(|coll| coll.name == Name::Target)
        && world.blocks.is_empty()
        && world.ops.is_empty()
        && world.late.is_empty()
        && !world.tasks.iter().any(|task| task.is_open())
}
