//! What happens on the server, what the sweep removes, and what people do.

use aviary::job::JobState;
use aviary::task::TaskState;

use super::{Event, Swept, fault};
use crate::command::{Cmd, Reply};
use crate::coordinator::{self, PERSON};
use crate::scenario::Scenario;
use crate::server::exec;
use crate::worker::{self, Pc};
use crate::world::{Name, Op, World};

pub(super) fn server_steps(world: &World, scenario: &Scenario, add: &mut impl FnMut(Event, World)) {
    for op in world.ops.iter() {
        let without = |mut after: World| {
            after.ops.retain(|one| one != op);
            after
        };
        let mut written = without(*world);
        for coll in written.colls.iter_mut().filter(|coll| coll.name == Name::Target) {
            coll.rows[usize::from(op.piece)] = op.value;
        }
        let waits = worker::waiting(world, op.token).filter(|_| op.heard);
        let mut after = written;
        if let Some(i) = waits {
            worker::resume(&mut after, scenario, i, Some(Reply::Done));
        }
        add(Event::MergeWrites(op.job, op.piece), after);
        let Some(i) = waits else { continue };
        if let Some(left) = world.left.faults.checked_sub(1) {
            let mut after = written;
            after.left.faults = left;
            worker::resume(&mut after, scenario, i, None);
            add(Event::MergeAnswerLost(op.job, op.piece), after);
            let mut after = without(*world);
            after.left.faults = left;
            after.ops.push(Op { heard: false, ..*op });
            worker::resume(&mut after, scenario, i, None);
            add(Event::MergeForsaken(op.job, op.piece), after);
        }
        if let Some(left) = world.left.refusals.checked_sub(1) {
            let mut after = without(*world);
            after.left.refusals = left;
            let one = &mut after.workers[i];
            one.pc = Pc::Fail { retryable: false };
            add(Event::MergeRefused(op.job, op.piece), after);
        }
    }
    for cmd in world.late.iter() {
        let mut after = *world;
        after.late.take(cmd);
        if exec(&mut after, scenario, *cmd) == Reply::Running {
            for op in after.ops.iter_mut().filter(|op| op.token == cmd.tokens()[1]) {
                op.heard &= world.ops.iter().any(|old| old == op);
            }
            after.ops.tidy();
        }
        add(Event::Arrives(*cmd), after);
    }
    for task in world.tasks.iter().filter(|task| task.at.state() == TaskState::Leased) {
        if !task.at.expired {
            let live = worker::has_live_holder(world, task.key);
            let base = if live { fault(world) } else { Some(*world) };
            if let Some(mut after) = base {
                after.task_mut(task.key).unwrap().at.expired = true;
                for one in after.workers.iter_mut().filter(|one| one.token == task.at.token) {
                    one.trusted = false;
                }
                add(if live { Event::Expires(task.key) } else { Event::Lapses(task.key) }, after);
            }
        }
        if let (Some(before), Some(left)) = (task.before, world.left.rollbacks.checked_sub(1)) {
            let mut after = *world;
            after.left.rollbacks = left;
            let task = after.task_mut(task.key).unwrap();
            (task.at, task.before) = (before, None);
            task.attempts -= 1;
            add(Event::ClaimRolledBack(task.key), after);
        }
    }
    if let Some(left) = world.left.members.checked_sub(1) {
        for j in scenario.jobs() {
            let mut after = *world;
            after.left.members = left;
            let job = &mut after.jobs[usize::from(j)];
            if job.there && job.snap.state == JobState::Mapping {
                job.snap.plan_lost = true;
                add(Event::MemberGone(j), after);
            }
        }
    }
    if let Some(left) = world.left.blocks.checked_sub(1) {
        for block in world.blocks.iter() {
            let mut after = *world;
            after.left.blocks = left;
            after.blocks.retain(|one| one != block);
            add(Event::BlockVanishes(block.n), after);
        }
    }
}

pub(super) fn sweeps(world: &World, scenario: &Scenario, add: &mut impl FnMut(Event, World)) {
    if world.role.holder.is_none() {
        return;
    }
    for j in scenario.jobs() {
        let job = world.jobs[usize::from(j)];
        // Before that, it is the clean-up's work.
        if job.there && !job.snap.cleaned {
            continue;
        }
        let mut sweep = |swept, cmds: &[Cmd]| {
            let mut after = *world;
            for cmd in cmds {
                exec(&mut after, scenario, *cmd);
            }
            add(Event::Sweeps(swept), after);
        };
        for coll in world.colls.iter().filter(|coll| coll.name.job() == Some(j)) {
            sweep(Swept::Collection(coll.name), &[Cmd::Drop(coll.name)]);
        }
        if world.turn == Some(j) {
            sweep(Swept::Turn(j), &[Cmd::ReleaseTurn(j)]);
        }
        if world.tasks.iter().any(|task| task.key.job == j && task.is_open()) {
            let plan = job.snap.plan;
            if job.there {
                sweep(Swept::Tasks(j), &[Cmd::CancelTasks(j), Cmd::DeleteStale(j, plan)]);
            } else if !scenario.bugs.removed_not_swept {
                sweep(Swept::Tasks(j), &[Cmd::DeleteTasks(j)]);
            }
        }
        if world.blocks.iter().any(|block| block.job == j) {
            sweep(Swept::Blocks(j), &[Cmd::DeleteBlocks(j)]);
        }
    }
}

pub(super) fn people(world: &World, scenario: &Scenario, add: &mut impl FnMut(Event, World)) {
    if world.lanes[PERSON].pc != coordinator::Pc::Idle {
        return;
    }
    for j in scenario.jobs() {
        let job = world.jobs[usize::from(j)];
        let state = job.snap.state;
        if !job.there {
            continue;
        }
        let stopped = state == JobState::Stopped;
        if !state.is_terminal() && (world.left.cancels > 0 || stopped) {
            let mut after = *world;
            // What has stopped waits for a person, who comes in the end.
            after.left.cancels -= u8::from(!stopped);
            coordinator::cancel(&mut after, j);
            add(Event::Cancels(j), after);
        }
        if let Some(left) = world.left.resumes.checked_sub(1).filter(|_| stopped) {
            let mut after = *world;
            after.left.resumes = left;
            coordinator::resume_job(&mut after, j);
            add(Event::Resumes(j), after);
        }
        if let Some(left) = world.left.removals.checked_sub(1).filter(|_| state.is_terminal()) {
            let mut after = *world;
            after.left.removals = left;
            coordinator::remove(&mut after, j);
            add(Event::Removes(j), after);
        }
    }
}
