//! What the model's MongoDB holds, and what its processes remember.

use aviary::job::JobState;
use aviary::task::{Marks, TaskState};

use crate::command::Cmd;

/// A job's number.
pub type J = u8;
/// A token; 0 is none. Only equality counts, so numbers are used again once nothing refers to them.
pub type Tok = u8;
/// A collection's identity; 0 is none. Used again like tokens.
pub type Uuid = u8;

/// A collection's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Name {
    Target,
    Hidden(J),
    Staged(J, Tok),
    Whole(J, Tok),
    Kept(J, Tok),
}

impl Name {
    pub fn job(self) -> Option<J> {
        match self {
            Name::Target => None,
            Name::Hidden(j) | Name::Staged(j, _) | Name::Whole(j, _) | Name::Kept(j, _) => Some(j),
        }
    }

    pub fn token(self) -> Tok {
        match self {
            Name::Target | Name::Hidden(_) => 0,
            Name::Staged(_, t) | Name::Whole(_, t) | Name::Kept(_, t) => t,
        }
    }
}

/// A small set in a fixed place, kept in order so that equal worlds are equal bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bag<T, const N: usize>([Option<T>; N]);

impl<T: Copy + Ord, const N: usize> Bag<T, N> {
    pub const EMPTY: Self = Self([None; N]);

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map_while(Option::as_ref)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map_while(Option::as_mut)
    }

    pub fn is_empty(&self) -> bool {
        self.0[0].is_none()
    }

    pub fn push(&mut self, item: T) {
        let free = self.0.iter().position(Option::is_none).expect("the model's bags are too small");
        self.0[free] = Some(item);
        self.tidy();
    }

    pub fn has_room(&self) -> bool {
        self.0.iter().any(Option::is_none)
    }

    pub fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        for slot in &mut self.0 {
            *slot = slot.filter(|item| keep(item));
        }
        self.tidy();
    }

    /// Removes one such item.
    pub fn take(&mut self, item: &T) {
        if let Some(slot) = self.0.iter_mut().find(|slot| slot.as_ref() == Some(item)) {
            *slot = None;
        }
        self.tidy();
    }

    pub fn pop(&mut self) -> Option<T> {
        let first = self.0[0].take();
        self.tidy();
        first
    }

    /// Orders the items again after they were changed in place.
    pub fn tidy(&mut self) {
        // Insertion sort: there are a few items at most. What is empty goes last.
        let after = |a: &Option<T>, b: &Option<T>| match (a, b) {
            (Some(a), Some(b)) => a > b,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        for i in 1..N {
            let mut k = i;
            while k > 0 && after(&self.0[k - 1], &self.0[k]) {
                self.0.swap(k - 1, k);
                k -= 1;
            }
        }
    }
}

/// A collection: two keys at most, each with a small number as its value; 0 is no such document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Coll {
    pub name: Name,
    pub uuid: Uuid,
    pub rows: [u8; 2],
    /// The name before the last rename: what a stale server says.
    pub before: Option<Name>,
}

/// A job's document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Job {
    /// Not removed.
    pub there: bool,
    pub snap: Snap,
    /// Whether its error says that the target holds a part of the results.
    pub said: bool,
}

/// What is read of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Snap {
    pub state: JobState,
    pub cancel: bool,
    pub cleaned: bool,
    /// Whether the member that the plan reads from cannot be read from.
    pub plan_lost: bool,
    pub role: u8,
    pub plan: u8,
    /// Which coordinator's instant the input is read at.
    pub snapshot: u8,
    pub uuid: Uuid,
}

/// A task's `_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub job: J,
    pub kind: Kind,
    pub plan: u8,
    pub n: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Map,
    Reduce,
    Publish,
}

/// A task's document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Task {
    pub key: Key,
    pub at: At,
    pub attempts: u8,
    pub result: Tok,
    pub uuid: Uuid,
    pub marks: Bits,
    /// What a failover brings back: the task before a claim that no majority has.
    pub before: Option<At>,
}

/// What a claim changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct At {
    /// An index into `TaskState::ALL`.
    index: u8,
    pub token: Tok,
    /// Whether the lease has run out.
    pub expired: bool,
    pub lost: u8,
    /// 2 stands for more.
    pub epoch: u8,
}

impl At {
    pub fn new(state: TaskState) -> Self {
        let mut at = Self { index: 0, token: 0, expired: false, lost: 0, epoch: 0 };
        at.set(state);
        at
    }

    pub fn state(&self) -> TaskState {
        TaskState::ALL[usize::from(self.index)]
    }

    pub fn set(&mut self, state: TaskState) {
        let at = TaskState::ALL.iter().position(|one| *one == state).unwrap();
        self.index = u8::try_from(at).unwrap();
    }

    /// Leaves the lease for another state.
    pub fn end(&mut self, state: TaskState) {
        self.set(state);
        self.token = 0;
        self.expired = false;
    }
}

impl Task {
    pub fn new(key: Key, state: TaskState) -> Self {
        Self {
            key,
            at: At::new(state),
            attempts: 0,
            result: 0,
            uuid: 0,
            marks: Bits(0),
            before: None,
        }
    }

    pub fn is_open(&self) -> bool {
        matches!(self.at.state(), TaskState::Planned | TaskState::Ready | TaskState::Leased)
    }
}

/// Marks in an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Bits(pub u8);

impl Bits {
    pub const COUNTED: u8 = 1;
    pub const COMPLETED: u8 = 2;
    pub const BEGUN: u8 = 4;

    pub fn marks(self) -> Marks {
        let has = |bit: u8| self.0 & bit != 0;
        Marks {
            counted: has(Self::COUNTED),
            completed: has(Self::COMPLETED),
            begun: has(Self::BEGUN),
        }
    }

    pub fn with(self, bit: u8) -> Self {
        Self(self.0 | bit)
    }
}

/// A block of the shuffle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Block {
    pub job: J,
    pub n: u8,
    pub token: Tok,
}

/// A merge that runs on the server: it has read its source, and has yet to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Op {
    pub job: J,
    pub piece: u8,
    pub value: u8,
    pub token: Tok,
    /// Whether the worker still waits for the answer.
    pub heard: bool,
}

/// The whole world: the database, what is under way, the processes, and what faults are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct World {
    pub jobs: [Job; 2],
    pub tasks: Bag<Task, 8>,
    pub colls: Bag<Coll, 8>,
    pub blocks: Bag<Block, 4>,
    /// The job that the target's turn names.
    pub turn: Option<J>,
    pub role: Role,
    pub ops: Bag<Op, 3>,
    /// Commands whose senders wait no more, and which have not arrived yet.
    pub late: Bag<Cmd, 2>,
    pub workers: [crate::worker::Worker; 2],
    pub lanes: [crate::coordinator::Lane; 5],
    pub left: Left,
    pub ghost: Ghost,
}

/// The coordinator's role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Role {
    pub epoch: u8,
    /// Whose lease it is, as long as it has not run out.
    pub holder: Option<u8>,
    /// Whose token it bears: it may be kept by that process, under the same epoch.
    pub token: Option<u8>,
    /// The epoch that each process trusts it has; 0 is none.
    pub trusted: [u8; 2],
}

/// What may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Left {
    /// Crashes, expiries, lost replies, late commands.
    pub faults: u8,
    /// Failovers that roll back a claim.
    pub rollbacks: u8,
    /// Stale answers.
    pub stale: u8,
    /// Results that the target refuses.
    pub refusals: u8,
    /// Blocks that vanish.
    pub blocks: u8,
    pub cancels: u8,
    pub resumes: u8,
    pub removals: u8,
    /// How often the member goes away that a plan reads from.
    pub members: u8,
}

/// What the checks remember, and no process sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Ghost {
    /// Jobs in the order in which their publish tasks were committed.
    pub done: [Option<J>; 2],
    /// Jobs that have announced their last step.
    pub begun: [bool; 2],
    /// A commit that should not have been accepted.
    pub wrong_commit: bool,
}

impl World {
    pub fn coll(&self, name: Name) -> Option<&Coll> {
        self.colls.iter().find(|coll| coll.name == name)
    }

    pub fn task(&self, key: Key) -> Option<&Task> {
        self.tasks.iter().find(|task| task.key == key)
    }

    pub fn task_mut(&mut self, key: Key) -> Option<&mut Task> {
        self.tasks.iter_mut().find(|task| task.key == key)
    }

    pub fn publish_task(&self, job: J, plan: u8) -> Option<&Task> {
        self.task(Key { job, kind: Kind::Publish, plan, n: 0 })
    }

    /// A token that nothing refers to.
    pub fn fresh_token(&self) -> Tok {
        let mut used = 1_u32;
        let mut mark = |token: Tok| used |= 1 << token;
        for task in self.tasks.iter() {
            mark(task.at.token);
            mark(task.result);
            task.before.iter().for_each(|at| mark(at.token));
        }
        for coll in self.colls.iter() {
            mark(coll.name.token());
            coll.before.iter().for_each(|name| mark(name.token()));
        }
        self.blocks.iter().for_each(|block| mark(block.token));
        self.ops.iter().for_each(|op| mark(op.token));
        self.late.iter().for_each(|cmd| cmd.tokens().into_iter().for_each(&mut mark));
        for worker in &self.workers {
            mark(worker.token);
            worker.name.iter().for_each(|name| mark(name.token()));
            worker.tokens.into_iter().for_each(&mut mark);
        }
        for lane in &self.lanes {
            lane.names.iter().for_each(|name| mark(name.token()));
        }
        u8::try_from(used.trailing_ones()).unwrap()
    }

    /// An identity that nothing refers to.
    pub fn fresh_uuid(&self) -> Uuid {
        let mut used = 1_u32;
        let mut mark = |uuid: Uuid| used |= 1 << uuid;
        self.colls.iter().for_each(|coll| mark(coll.uuid));
        self.jobs.iter().for_each(|job| mark(job.snap.uuid));
        self.tasks.iter().for_each(|task| mark(task.uuid));
        self.late.iter().for_each(|cmd| mark(cmd.uuid()));
        self.workers.iter().for_each(|worker| {
            mark(worker.uuid);
            mark(worker.whole);
        });
        self.lanes.iter().for_each(|lane| {
            mark(lane.snap.uuid);
            mark(lane.uuid);
        });
        u8::try_from(used.trailing_ones()).unwrap()
    }
}
