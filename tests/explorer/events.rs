//! What can happen next in a world: processes take steps, and faults strike.

mod others;

use crate::command::{Cmd, Reply};
use crate::coordinator::{self, Lane, PERSON};
use crate::scenario::Scenario;
use crate::server::{self, exec};
use crate::worker::{self, Pc, Worker};
use crate::world::{J, Key, Name, World};

/// Who sends a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Worker(usize),
    Lane(usize),
}

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A command takes effect and its answer arrives.
    Sent(Who, Cmd),
    Claim(Key),
    Look(usize),
    Renewed(Key),
    MergeWrites(J, u8),
    Arrives(Cmd),
    TakesRole(u8),
    /// The lease of a process that is gone runs out.
    Lapses(Key),
    Sweeps(Swept),
    Cancels(J),
    Resumes(J),
    Removes(J),
    // Faults from here on.
    /// The command is refused for a reason that passes.
    Refused(Who, Cmd),
    /// The command takes effect, and its sender does not learn it.
    AnswerLost(Who, Cmd),
    /// The sender learns nothing, and the command arrives later.
    Late(Who, Cmd),
    WorkerDies(Key),
    /// The worker dies, and its last command arrives later.
    WorkerDiesLate(Key, Cmd),
    CoordinatorDies(u8),
    CoordinatorDiesLate(u8, Cmd),
    /// A claim takes effect, and whoever made it does not learn it.
    ClaimLost(Key),
    /// A lease runs out while its holder is frozen.
    Expires(Key),
    RoleExpires,
    MergeAnswerLost(J, u8),
    /// The connection of a merge breaks, and the merge goes on.
    MergeForsaken(J, u8),
    MergeRefused(J, u8),
    ClaimRolledBack(Key),
    /// A stale server says where the results are.
    StaleLook(Key, Option<Name>),
    /// A stale server counts the results.
    StaleCount(Key),
    BlockVanishes(u8),
    /// The member goes away that the job's plan reads from, and a worker notices.
    MemberGone(J),
}

/// What a sweep removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swept {
    Collection(Name),
    Turn(J),
    Tasks(J),
    Blocks(J),
}

impl Event {
    /// Whether it needs no fault and no person.
    pub fn is_run(&self) -> bool {
        use Event as E;
        matches!(
            self,
            E::Sent(..)
                | E::Claim(_)
                | E::Look(_)
                | E::Renewed(_)
                | E::MergeWrites(..)
                | E::Arrives(_)
                | E::TakesRole(_)
                | E::Lapses(_)
                | E::Sweeps(_)
        )
    }
}

/// Everything that can happen next, and what the world is then.
pub fn successors(world: &World, scenario: &Scenario, found: &mut Vec<(Event, World)>) {
    found.clear();
    let mut add = |event: Event, mut after: World| {
        settle(&mut after, scenario);
        after.workers.sort_unstable();
        found.push((event, after));
    };
    worker_steps(world, scenario, &mut add);
    lane_steps(world, scenario, &mut add);
    others::server_steps(world, scenario, &mut add);
    others::sweeps(world, scenario, &mut add);
    others::people(world, scenario, &mut add);
}

/// Has everybody go on until a command touches what other jobs see: the target, its turn, or how the job stands.
fn settle(world: &mut World, scenario: &Scenario) {
    for i in (0..world.workers.len()).filter(|_| scenario.fused) {
        while let Some(cmd) =
            world.workers[i].command(scenario).filter(|_| world.workers[i].is_private())
        {
            let reply = exec(world, scenario, cmd);
            resume(world, scenario, Who::Worker(i), Some(reply));
        }
    }
    for lane in (0..PERSON).filter(|_| scenario.fused_clean_up) {
        while let Some(cmd) = world.lanes[lane].command().filter(|_| world.lanes[lane].is_private())
        {
            let reply = exec(world, scenario, cmd);
            resume(world, scenario, Who::Lane(lane), Some(reply));
        }
    }
}

fn fault(world: &World) -> Option<World> {
    let mut after = *world;
    after.left.faults = world.left.faults.checked_sub(1)?;
    Some(after)
}

/// Answers, or does not answer, whoever sent a command.
fn resume(world: &mut World, scenario: &Scenario, who: Who, reply: Option<Reply>) {
    match who {
        Who::Worker(i) => worker::resume(world, scenario, i, reply),
        Who::Lane(lane) => {
            coordinator::resume(world, scenario, lane, reply);
            if scenario.coarse && lane != PERSON {
                coordinator::coarse(world, scenario, lane);
            }
        }
    }
}

/// What may become of a command that is about to be sent.
fn sent(
    world: &World,
    scenario: &Scenario,
    who: Who,
    cmd: Cmd,
    repeats: bool,
    add: &mut impl FnMut(Event, World),
) {
    let mut after = *world;
    let reply = exec(&mut after, scenario, cmd);
    resume(&mut after, scenario, who, Some(reply));
    add(Event::Sent(who, cmd), after);
    if who == Who::Lane(PERSON) {
        return;
    }
    let Some(base) = fault(world) else { return };
    if !repeats {
        let mut after = base;
        resume(&mut after, scenario, who, None);
        add(Event::Refused(who, cmd), after);
    }
    if cmd.is_read() {
        return;
    }
    let mut after = base;
    if exec(&mut after, scenario, cmd) == Reply::Running {
        for op in after.ops.iter_mut().filter(|op| cmd.tokens()[1] == op.token) {
            op.heard = false;
        }
        after.ops.tidy();
    }
    resume(&mut after, scenario, who, None);
    add(Event::AnswerLost(who, cmd), after);
    if base.late.has_room() {
        let mut after = base;
        after.late.push(cmd);
        resume(&mut after, scenario, who, None);
        add(Event::Late(who, cmd), after);
    }
}

fn worker_steps(world: &World, scenario: &Scenario, add: &mut impl FnMut(Event, World)) {
    let busy = world.workers.iter().filter(|one| one.pc != Pc::Idle).count();
    let mut idle_seen: Option<Worker> = None;
    for (i, one) in world.workers.iter().enumerate() {
        if one.pc == Pc::Idle {
            // Workers are alike: one that is idle stands for all that are and know the same.
            if busy < usize::from(scenario.workers) && idle_seen != Some(*one) {
                idle_seen = Some(*one);
                for key in worker::claimable(world) {
                    let mut after = *world;
                    let token = server::claim(&mut after, scenario, key);
                    after.workers[i] = Worker::begin(&after, scenario, key, token, *one);
                    add(Event::Claim(key), after);
                    if let Some(mut after) = fault(world) {
                        server::claim(&mut after, scenario, key);
                        add(Event::ClaimLost(key), after);
                    }
                }
            }
            continue;
        }
        let who = Who::Worker(i);
        let cmd = one.command(scenario);
        if let Some(cmd) = cmd {
            sent(world, scenario, who, cmd, one.repeats(), add);
        }
        if let Some(base) = fault(world) {
            let dead = |mut after: World| {
                for op in after.ops.iter_mut().filter(|op| op.token == one.token) {
                    op.heard = false;
                }
                after.ops.tidy();
                after.workers[i] = Worker::IDLE;
                after
            };
            add(Event::WorkerDies(one.key), dead(base));
            if let Some(cmd) = cmd.filter(|cmd| !cmd.is_read() && base.late.has_room()) {
                let mut after = dead(base);
                after.late.push(cmd);
                add(Event::WorkerDiesLate(one.key, cmd), after);
            }
        }
        if let Some(task) =
            world.task(one.key).filter(|task| !one.trusted && task.at.token == one.token)
        {
            let mut after = *world;
            after.task_mut(task.key).unwrap().at.expired = false;
            after.workers[i].trusted = true;
            add(Event::Renewed(one.key), after);
        }
        stale(world, scenario, i, add);
    }
}

fn stale(world: &World, scenario: &Scenario, i: usize, add: &mut impl FnMut(Event, World)) {
    let mut after = *world;
    let one = world.workers[i];
    let Some(left) = world.left.stale.checked_sub(1) else { return };
    after.left.stale = left;
    match (one.pc, one.command(scenario)) {
        (Pc::ReadJob | Pc::Look, _) if one.sure => {}
        (Pc::ReadJob | Pc::Look, Some(Cmd::ReadBoth(_, uuid) | Cmd::NameOf(uuid))) => {
            let before =
                world.colls.iter().find(|coll| coll.uuid == uuid).and_then(|coll| coll.before);
            for name in [None, before].into_iter().take(1 + usize::from(before.is_some())) {
                let mut after = after;
                let reply = match one.pc {
                    Pc::ReadJob => {
                        let job = world.jobs[usize::from(one.key.job)];
                        Reply::Both(job.there.then_some(job.snap), name)
                    }
                    _ => Reply::Name(name),
                };
                worker::resume(&mut after, scenario, i, Some(reply));
                add(Event::StaleLook(one.key, name), after);
            }
        }
        (Pc::Count, Some(_)) => {
            worker::resume(&mut after, scenario, i, Some(Reply::Number(0)));
            add(Event::StaleCount(one.key), after);
        }
        _ => {}
    }
}

fn lane_steps(world: &World, scenario: &Scenario, add: &mut impl FnMut(Event, World)) {
    for (lane, one) in world.lanes.iter().enumerate() {
        if let Some(cmd) = one.command() {
            sent(world, scenario, Who::Lane(lane), cmd, false, add);
        } else if lane != PERSON {
            let mut after = *world;
            if coordinator::look(&mut after, scenario, lane) {
                add(Event::Look(lane), after);
            }
        }
    }
    for c in 0..scenario.coordinators {
        let lanes = [usize::from(c) * 2, usize::from(c) * 2 + 1];
        let role = world.role;
        if role.trusted[usize::from(c)] == 0 && role.holder.is_none() {
            let mut after = *world;
            let epoch = if role.token == Some(c) { role.epoch } else { role.epoch + 1 };
            after.role.epoch = epoch;
            (after.role.holder, after.role.token) = (Some(c), Some(c));
            after.role.trusted[usize::from(c)] = epoch;
            add(Event::TakesRole(c), after);
        }
        let Some(mut base) = fault(world) else { continue };
        let alive = role.trusted[usize::from(c)] != 0
            || lanes.iter().any(|l| world.lanes[*l].pc != coordinator::Pc::Idle);
        if !alive {
            continue;
        }
        if role.holder == Some(c) {
            base.role.holder = None;
        }
        if role.token == Some(c) {
            base.role.token = None;
        }
        base.role.trusted[usize::from(c)] = 0;
        lanes.iter().for_each(|lane| base.lanes[*lane] = Lane::IDLE);
        add(Event::CoordinatorDies(c), base);
        for lane in lanes {
            let cmd = world.lanes[lane].command().filter(|cmd| !cmd.is_read());
            if let Some(cmd) = cmd.filter(|_| base.late.has_room()) {
                let mut after = base;
                after.late.push(cmd);
                add(Event::CoordinatorDiesLate(c, cmd), after);
            }
        }
    }
    if let (Some(holder), Some(mut after)) = (world.role.holder, fault(world)) {
        after.role.holder = None;
        after.role.trusted[usize::from(holder)] = 0;
        add(Event::RoleExpires, after);
    }
}
