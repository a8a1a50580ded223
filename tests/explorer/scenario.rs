//! What is explored: how a world begins, what may go wrong in it, and which mistake is built in.

use aviary::job::{JobState, OutputMode};
use aviary::task::TaskState;

use crate::coordinator::Lane;
use crate::worker::Worker;
use crate::world::{Bag, Coll, Ghost, Job, Key, Kind, Left, Name, Role, Snap, Task, World};

/// Where jobs stand at the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Written by a client.
    Submitted,
    /// The map tasks are open.
    Mapping,
    /// The publish task is ready.
    Publishing,
}

/// Mistakes that the real processes do not make. Each must be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bugs {
    /// Publishers do not ask for the target's turn.
    pub turn_ignored: bool,
    /// The turn is released before the job is cleaned up after.
    pub turn_released_early: bool,
    /// How far publishing has come is noted by whoever publishes, holder or not.
    pub note_without_fence: bool,
    /// A note that comes late takes a later one back.
    pub notes_taken_back: bool,
    /// A commit does not name the token.
    pub commit_without_fence: bool,
    /// Where the results are, or that they are gone, is believed at once.
    pub looks_believed: bool,
    /// Who takes over leaves the results under the name that they have.
    pub take_over_without_rename: bool,
    /// The clean-up lets merges go on that are under way.
    pub merges_not_ended: bool,
    /// The last step is not announced.
    pub begin_not_noted: bool,
    /// Who obeys a cancellation forgets the rename that it has sent.
    pub cancel_without_disarming: bool,
    /// A job's moves name neither the role nor the plan.
    pub moves_unfenced: bool,
    /// A map-only task's attempt does not make its claim durable before it writes.
    pub claim_not_confirmed: bool,
    /// A second attempt does not.
    pub second_claim_not_confirmed: bool,
    /// A waiting publish task is withdrawn even if its last step was announced.
    pub withdrawn_after_begin: bool,
    /// The sweep leaves the tasks of removed jobs.
    pub removed_not_swept: bool,
}

/// One exploration.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    /// The modes of the jobs; one job or two.
    pub modes: [Option<OutputMode>; 2],
    pub start: Start,
    pub map_tasks: u8,
    pub reduce_tasks: u8,
    pub workers: u8,
    pub coordinators: u8,
    /// Reads that follow each other directly are one step.
    pub coarse: bool,
    /// What a publisher does to nothing but the job's own documents and collections is one step with what comes
    /// next.
    pub fused: bool,
    /// The same for a clean-up.
    pub fused_clean_up: bool,
    pub left: Left,
    /// Leases lost before the beginning, of each publish task.
    pub lost: u8,
    pub bugs: Bugs,
    /// States after which the exploration is given up as too large.
    pub states_max: usize,
}

impl Scenario {
    pub const BASE: Scenario = Scenario {
        name: "",
        modes: [Some(OutputMode::Replace), None],
        start: Start::Publishing,
        map_tasks: 1,
        reduce_tasks: 1,
        workers: 2,
        coordinators: 1,
        coarse: true,
        fused: false,
        fused_clean_up: false,
        left: Left {
            faults: 0,
            rollbacks: 0,
            stale: 0,
            refusals: 0,
            blocks: 0,
            cancels: 0,
            resumes: 0,
            removals: 0,
            members: 0,
        },
        lost: 0,
        bugs: Bugs {
            turn_ignored: false,
            turn_released_early: false,
            note_without_fence: false,
            notes_taken_back: false,
            commit_without_fence: false,
            looks_believed: false,
            take_over_without_rename: false,
            merges_not_ended: false,
            begin_not_noted: false,
            cancel_without_disarming: false,
            moves_unfenced: false,
            claim_not_confirmed: false,
            second_claim_not_confirmed: false,
            withdrawn_after_begin: false,
            removed_not_swept: false,
        },
        states_max: 4_000_000,
    };

    pub fn mode(&self, j: u8) -> OutputMode {
        self.modes[usize::from(j)].unwrap()
    }

    pub fn jobs(&self) -> impl Iterator<Item = u8> {
        (0_u8..).zip(self.modes).filter(|(_, mode)| mode.is_some()).map(|(j, _)| j)
    }

    /// What job `j` adds to, or puts at, each of the two keys.
    pub fn value(j: u8) -> u8 {
        [1, 3][usize::from(j)]
    }

    /// What the target holds at first.
    pub const FIRST: [u8; 2] = [10, 0];

    pub fn world(&self) -> World {
        let before = Snap {
            state: JobState::Submitted,
            cancel: false,
            cleaned: false,
            plan_lost: false,
            role: 1,
            plan: 0,
            snapshot: 0,
            uuid: 0,
        };
        let mut world = World {
            jobs: [Job { there: false, snap: before, said: false }; 2],
            tasks: Bag::EMPTY,
            colls: Bag::EMPTY,
            blocks: Bag::EMPTY,
            turn: None,
            role: Role { epoch: 1, holder: Some(0), token: Some(0), trusted: [1, 0] },
            ops: Bag::EMPTY,
            late: Bag::EMPTY,
            workers: [Worker::IDLE; 2],
            lanes: [Lane::IDLE; 5],
            left: self.left,
            ghost: Ghost::default(),
        };
        world.colls.push(Coll { name: Name::Target, uuid: 1, rows: Self::FIRST, before: None });
        for j in self.jobs() {
            self.begin(&mut world, j);
        }
        world
    }

    fn begin(&self, world: &mut World, job: u8) {
        let snap = &mut world.jobs[usize::from(job)].snap;
        world.jobs[usize::from(job)].there = true;
        snap.state = match self.start {
            Start::Submitted => return,
            Start::Mapping => JobState::Mapping,
            Start::Publishing => JobState::Publishing,
        };
        snap.plan = 1;
        let uuid = 2 + job;
        let whole = self.start == Start::Publishing;
        let value = if whole { Self::value(job) } else { 0 };
        if self.start == Start::Publishing {
            snap.uuid = uuid;
            let key = Key { job, kind: Kind::Publish, plan: 1, n: 0 };
            let mut task = Task { uuid, ..Task::new(key, TaskState::Ready) };
            (task.at.lost, task.attempts) = (self.lost, self.lost);
            world.tasks.push(task);
        }
        world.colls.push(Coll { name: Name::Hidden(job), uuid, rows: [value; 2], before: None });
        let kinds = [(Kind::Map, self.map_tasks), (Kind::Reduce, self.reduce_tasks)];
        for (kind, count) in kinds.into_iter().filter(|_| self.start != Start::Publishing) {
            for n in 0..count {
                let state = match kind {
                    Kind::Map => TaskState::Ready,
                    _ => TaskState::Planned,
                };
                world.tasks.push(Task::new(Key { job, kind, plan: 1, n }, state));
            }
        }
    }
}
