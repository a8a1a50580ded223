//! What one command does to the database, and what it answers.
//!
//! Filters are those of `src/store`: a job's transition by [`JobState::sources_of`], a holder's write by its token,
//! a claim by state and expiry.

use aviary::config;
use aviary::job::{JobEvent, JobState};
use aviary::protocol::coordinate::PublishTask;
use aviary::task::state::TaskEvent;
use aviary::task::{JobPhases, TaskState};

use crate::command::{ANY, Arrow, Cmd, Reply};
use crate::scenario::Scenario;
use crate::world::{Bag, Bits, Block, Coll, J, Key, Kind, Name, Op, Snap, Task, Tok, World};

/// Executes a command.
pub fn exec(world: &mut World, scenario: &Scenario, cmd: Cmd) -> Reply {
    let bugs = scenario.bugs;
    match cmd {
        Cmd::ReadJob(j) => Reply::Job(read_job(world, j)),
        Cmd::ReadBoth(j, uuid) => Reply::Both(read_job(world, j), name_of(world, uuid)),
        Cmd::NameOf(uuid) => Reply::Name(name_of(world, uuid)),
        Cmd::Confirm(key, token) => Reply::Matched(held(world, key, token, true).is_some()),
        Cmd::Drop(name) => {
            world.colls.retain(|coll| coll.name != name);
            Reply::Done
        }
        Cmd::Rename { from, to, drop } => rename(world, scenario, from, to, drop),
        Cmd::EndMerges(j) => {
            let heard: Vec<Tok> =
                world.ops.iter().filter(|op| op.job == j && op.heard).map(|op| op.token).collect();
            world.ops.retain(|op| op.job != j);
            for token in heard {
                crate::worker::interrupted(world, scenario, token);
            }
            Reply::Done
        }
        Cmd::ReadTurn => Reply::Turn(world.turn),
        Cmd::ReadHolder(j) => Reply::Job(read_job(world, j)),
        Cmd::ReadTurnBoth(asks) => {
            let other = world.turn.filter(|holder| *holder != asks);
            Reply::TurnBoth(world.turn, other.and_then(|j| read_job(world, j)))
        }
        Cmd::BeginTurn(j) => {
            world.turn = world.turn.or(Some(j));
            Reply::Done
        }
        Cmd::PassTurn { from, to } => {
            if world.turn == Some(from) {
                world.turn = Some(to);
            }
            Reply::Done
        }
        Cmd::ReleaseTurn(j) => {
            world.turn = world.turn.filter(|holder| *holder != j);
            Reply::Done
        }
        Cmd::Count(name) => {
            let rows = world.coll(name).map_or([0, 0], |coll| coll.rows);
            Reply::Number(u8::try_from(rows.iter().filter(|row| **row != 0).count()).unwrap())
        }
        Cmd::Note { key, token, uuid, marks } => {
            let fence = !bugs.note_without_fence;
            let Some(task) = held(world, key, token, fence) else { return Reply::Matched(false) };
            // What was noted is not taken back: an older note of the same attempt may come late.
            if task.marks.0 & !marks.0 != 0 && !bugs.notes_taken_back {
                return Reply::Matched(false);
            }
            (task.uuid, task.marks) = (uuid, marks);
            if marks.0 & Bits::BEGUN != 0 {
                world.ghost.begun[usize::from(key.job)] = true;
            }
            Reply::Matched(true)
        }
        Cmd::Create(name) => {
            if world.coll(name).is_some() {
                return Reply::Exists;
            }
            create(world, name, [0, 0]);
            Reply::Done
        }
        Cmd::Describe(name) => Reply::Number(world.coll(name).map_or(0, |coll| coll.uuid)),
        Cmd::ReadDocs(name) => Reply::Docs(world.coll(name).map_or([0, 0], |coll| coll.rows)),
        Cmd::Insert { name, rows, again } => insert(world, name, rows, again),
        Cmd::CreateIndexes(name) => {
            if world.coll(name).is_none() {
                create(world, name, [0, 0]);
            }
            Reply::Done
        }
        Cmd::MergeStart { from, job, piece, token } => {
            let value = world.coll(from).map_or(0, |coll| coll.rows[usize::from(piece)]);
            if value == 0 {
                return Reply::Done;
            }
            world.ops.push(Op { job, piece, value, token, heard: true });
            Reply::Running
        }
        Cmd::Commit(key, token) => commit(world, key, token, !bugs.commit_without_fence),
        Cmd::WasCommitted(key, token) => {
            let is = |task: &Task| task.at.state() == TaskState::Done && task.result == token;
            Reply::Matched(world.task(key).is_some_and(is))
        }
        Cmd::CancelOwn(key, token) => end_attempt(world, key, token, |task| {
            task.at.end(TaskState::Cancelled);
        }),
        Cmd::Release(key, token) => end_attempt(world, key, token, |task| {
            task.at.end(TaskState::Ready);
            task.attempts -= 1;
        }),
        Cmd::Fail { key, token, retryable } => end_attempt(world, key, token, |task| {
            let failures = i32::from(task.attempts) - i32::from(task.at.lost);
            let over = !retryable || failures >= config::ATTEMPTS_MAX;
            task.at.end(if over { TaskState::Quarantined } else { TaskState::Ready });
        }),
        Cmd::WriteBlock(block) => {
            if !world.blocks.iter().any(|one| *one == block) {
                world.blocks.push(block);
            }
            Reply::Done
        }
        Cmd::Manifest(j, plan) => {
            let mut tokens = [0; 2];
            let mut seen = 0;
            for task in world.tasks.iter() {
                let mine = task.key.job == j && task.key.kind == Kind::Map && task.key.plan == plan;
                if mine && task.at.state() == TaskState::Done {
                    tokens[usize::from(task.key.n)] = task.result;
                    seen += 1;
                }
            }
            Reply::Tokens((seen == scenario.map_tasks).then_some(tokens))
        }
        Cmd::HasBlocks(job, tokens) => {
            let missing = (0_u8..).zip(tokens).find(|(n, token)| {
                let block = Block { job, n: *n, token: *token };
                *token != 0 && !world.blocks.iter().any(|one| *one == block)
            });
            Reply::Missing(missing.map(|(n, _)| n))
        }
        Cmd::Reopen { key, token } => {
            let sources = TaskState::sources_of(TaskEvent::BlocksLost);
            let Some(task) = world.task_mut(key) else { return Reply::Matched(false) };
            if !sources.contains(&task.at.state()) || task.result != token {
                return Reply::Matched(false);
            }
            task.at.end(TaskState::Ready);
            (task.attempts, task.at.lost, task.result) = (0, 0, 0);
            Reply::Matched(true)
        }
        Cmd::Adopt(j, epoch) => {
            let job = &mut world.jobs[usize::from(j)];
            if !job.there || job.snap.role > epoch {
                return Reply::Job(None);
            }
            job.snap.role = epoch;
            Reply::Job(Some(job.snap))
        }
        Cmd::ReadTasks(j, plan) => {
            let (phases, publish) = read_tasks(world, j, plan);
            Reply::Tasks(phases, publish)
        }
        Cmd::Quarantined(j, plan) => {
            let given_up = |task: &Task| {
                task.key.job == j
                    && task.key.plan == plan
                    && task.at.state() == TaskState::Quarantined
            };
            Reply::Matched(world.tasks.iter().any(given_up))
        }
        Cmd::Transition(arrow) => Reply::Matched(transition(world, scenario, arrow)),
        Cmd::InsertPublish { job, plan, uuid } => {
            let key = Key { job, kind: Kind::Publish, plan, n: 0 };
            let task = Task { uuid, ..Task::new(key, TaskState::Ready) };
            insert_task(world, task);
            Reply::Done
        }
        Cmd::Withdraw(job, plan) => {
            let key = Key { job, kind: Kind::Publish, plan, n: 0 };
            let waiting = [TaskState::Planned, TaskState::Ready];
            match world.task_mut(key).filter(|task| waiting.contains(&task.at.state())) {
                Some(task) => task.at.end(TaskState::Cancelled),
                None => return Reply::Matched(false),
            }
            world.tasks.tidy();
            Reply::Matched(true)
        }
        Cmd::OpenPhase(j, plan, kind) => {
            for task in world.tasks.iter_mut() {
                let mine = task.key.job == j && task.key.kind == kind && task.key.plan == plan;
                if mine && task.at.state() == TaskState::Planned {
                    task.at.set(TaskState::Ready);
                }
            }
            Reply::Done
        }
        Cmd::SetSnapshot { job, plan, role, to } => {
            let planning = is_planning(world, scenario, job, plan, role);
            if planning {
                world.jobs[usize::from(job)].snap.snapshot = to;
            }
            Reply::Matched(planning)
        }
        Cmd::BeginPlan { job, plan, role } => {
            if !is_planning(world, scenario, job, plan, role) {
                return Reply::Number(0);
            }
            let snap = &mut world.jobs[usize::from(job)].snap;
            snap.plan += 1;
            Reply::Number(snap.plan)
        }
        Cmd::InsertTasks(job, plan) => {
            let kinds = [(Kind::Map, scenario.map_tasks), (Kind::Reduce, scenario.reduce_tasks)];
            for (kind, count) in kinds {
                for n in 0..count {
                    insert_task(world, Task::new(Key { job, kind, plan, n }, TaskState::Planned));
                }
            }
            Reply::Done
        }
        Cmd::CancelTasks(j) => {
            for task in world.tasks.iter_mut().filter(|task| task.key.job == j && task.is_open()) {
                task.at.end(TaskState::Cancelled);
            }
            Reply::Done
        }
        Cmd::DeleteStale(j, plan) => {
            world.tasks.retain(|task| task.key.job != j || task.key.plan == plan);
            Reply::Done
        }
        Cmd::DeleteBlocks(j) => {
            world.blocks.retain(|block| block.job != j);
            Reply::Done
        }
        Cmd::ListHidden(j) => {
            let mut names = Bag::EMPTY;
            for coll in world.colls.iter().filter(|coll| coll.name.job() == Some(j)) {
                names.push(coll.name);
            }
            Reply::Names(names)
        }
        Cmd::Cleaned(j) => {
            let job = &mut world.jobs[usize::from(j)];
            job.snap.cleaned |= job.there;
            Reply::Done
        }
        Cmd::RequestCancel(j) => {
            let job = &mut world.jobs[usize::from(j)];
            let publishes = job.there && job.snap.state == JobState::Publishing;
            job.snap.cancel |= publishes;
            Reply::Matched(publishes)
        }
        Cmd::ResumeTask(job, plan) => {
            let key = Key { job, kind: Kind::Publish, plan, n: 0 };
            let sources = TaskState::sources_of(TaskEvent::Resumed);
            match world.task_mut(key).filter(|task| sources.contains(&task.at.state())) {
                Some(task) => {
                    task.at.end(TaskState::Ready);
                    (task.attempts, task.at.lost) = (0, 0);
                    Reply::Matched(true)
                }
                None => Reply::Matched(false),
            }
        }
        Cmd::DeleteTasks(j) => {
            world.tasks.retain(|task| task.key.job != j);
            Reply::Done
        }
        Cmd::Tombstone(j) => {
            world.jobs[usize::from(j)].there = false;
            Reply::Done
        }
    }
}

fn read_job(world: &World, j: J) -> Option<Snap> {
    let job = &world.jobs[usize::from(j)];
    job.there.then_some(job.snap)
}

fn name_of(world: &World, uuid: u8) -> Option<Name> {
    world.colls.iter().find(|coll| coll.uuid == uuid).map(|coll| coll.name)
}

fn create(world: &mut World, name: Name, rows: [u8; 2]) {
    let uuid = world.fresh_uuid();
    world.colls.push(Coll { name, uuid, rows, before: None });
}

fn rename(world: &mut World, scenario: &Scenario, from: Name, to: Name, drop: bool) -> Reply {
    if world.coll(from).is_none() {
        return Reply::Matched(false);
    }
    if world.coll(to).is_some() && !drop {
        return Reply::Exists;
    }
    world.colls.retain(|coll| coll.name != to);
    for coll in world.colls.iter_mut().filter(|coll| coll.name == from) {
        coll.before = (scenario.left.stale > 0).then_some(from);
        coll.name = to;
    }
    world.colls.tidy();
    Reply::Matched(true)
}

fn insert(world: &mut World, name: Name, rows: [u8; 2], again: bool) -> Reply {
    if world.coll(name).is_none() {
        create(world, name, rows);
        return Reply::Done;
    }
    let mut existed = false;
    for coll in world.colls.iter_mut().filter(|coll| coll.name == name) {
        for (there, new) in coll.rows.iter_mut().zip(rows) {
            existed |= *there != 0 && new != 0;
            if *there == 0 {
                *there = new;
            }
        }
    }
    world.colls.tidy();
    if existed && !again { Reply::Exists } else { Reply::Done }
}

fn insert_task(world: &mut World, task: Task) {
    if world.task(task.key).is_none() {
        world.tasks.push(task);
    }
}

/// The task behind the fence of its holder. A write there is one that a majority has, and so is the claim.
fn held(world: &mut World, key: Key, token: Tok, fence: bool) -> Option<&mut Task> {
    let task = world.task_mut(key)?;
    let fits = task.at.state() == TaskState::Leased && (task.at.token == token || !fence);
    if fits {
        task.before = None;
    }
    fits.then_some(task)
}

fn end_attempt(world: &mut World, key: Key, token: Tok, end: impl FnOnce(&mut Task)) -> Reply {
    let Some(task) = held(world, key, token, true) else { return Reply::Matched(false) };
    end(task);
    Reply::Matched(true)
}

fn commit(world: &mut World, key: Key, token: Tok, fence: bool) -> Reply {
    let Some(task) = held(world, key, token, fence) else { return Reply::Matched(false) };
    let wrong = task.at.token != token || task.result != 0;
    task.at.end(TaskState::Done);
    task.result = token;
    world.ghost.wrong_commit |= wrong;
    if key.kind == Kind::Publish {
        let next = world.ghost.done.iter().position(Option::is_none).unwrap();
        world.ghost.done[next] = Some(key.job);
    }
    Reply::Matched(true)
}

fn is_planning(world: &World, scenario: &Scenario, j: J, plan: u8, role: u8) -> bool {
    let job = &world.jobs[usize::from(j)];
    let snap = job.snap;
    let mine = (snap.plan, snap.role) == (plan, role) || scenario.bugs.moves_unfenced;
    job.there && snap.state == JobState::Planning && mine
}

fn transition(world: &mut World, scenario: &Scenario, arrow: Arrow) -> bool {
    let job = &mut world.jobs[usize::from(arrow.job)];
    let snap = job.snap;
    let event = JobEvent::ALL[usize::from(arrow.event)];
    let Some(to) = snap.state.after(event).filter(|_| job.there) else { return false };
    let from = JobState::ALL[usize::from(arrow.state) % JobState::ALL.len()];
    let fits = (arrow.state == ANY || snap.state == from)
        && [(arrow.plan, snap.plan), (arrow.role, snap.role), (arrow.snapshot, snap.snapshot)]
            .iter()
            .all(|(wanted, is)| *wanted == ANY || wanted == is);
    if !fits && !scenario.bugs.moves_unfenced {
        return false;
    }
    job.snap.state = to;
    job.said |= arrow.says;
    if arrow.uuid != 0 {
        job.snap.uuid = arrow.uuid;
    }
    if event == JobEvent::PlanLost {
        job.snap.plan_lost = false;
    }
    if event == JobEvent::Resumed {
        job.said = false;
    }
    true
}

/// Counts tasks as `Store::phases` does, and reads the publish task.
fn read_tasks(world: &World, j: J, plan: u8) -> (JobPhases, Option<PublishTask>) {
    let mut phases = JobPhases::default();
    for task in world.tasks.iter().filter(|task| task.key.job == j && task.key.plan == plan) {
        match task.key.kind {
            Kind::Map => phases.map.add(task.at.state(), 1),
            Kind::Reduce => phases.reduce.add(task.at.state(), 1),
            Kind::Publish => {}
        }
    }
    let publish = world
        .publish_task(j, plan)
        .map(|task| PublishTask { state: task.at.state(), marks: task.marks.marks() });
    (phases, publish)
}

/// Whether a task may be claimed now, as `store::leases::claimable` has it.
pub fn is_claimable(task: &Task) -> bool {
    let exhausted = i32::from(task.at.lost) >= config::LOST_MAX - 1;
    match task.at.state() {
        TaskState::Ready => true,
        TaskState::Leased => task.at.expired && (!exhausted || task.key.kind == Kind::Publish),
        _ => false,
    }
}

/// Claims a task: its state before is what a failover may bring back.
pub fn claim(world: &mut World, scenario: &Scenario, key: Key) -> Tok {
    let token = world.fresh_token();
    let task = world.task_mut(key).unwrap();
    let before = task.at;
    let again = u8::from(before.state() == TaskState::Leased);
    let mut at = before;
    at.lost += again;
    at.set(TaskState::Leased);
    (at.token, at.expired, at.epoch) = (token, false, (before.epoch + 1).min(2));
    task.at = at;
    task.attempts += 1;
    task.before = (scenario.left.rollbacks > 0).then_some(before);
    token
}
