//! A worker: claims a task, runs it command by command, and writes down how that ended.
//!
//! The order of commands is that of `src/worker`: a row here is a call there. What a publisher does next is asked of
//! [`aviary::protocol::publish`] itself, and what it does about a turn of [`aviary::protocol::turn`].

mod commands;

use aviary::config;
use aviary::job::JobState;
use aviary::protocol::publish::{Place, Step, View, next};
use aviary::protocol::turn::{Ask, Holder, ask};
use aviary::task::TaskState;

use crate::command::Reply;
use crate::scenario::Scenario;
use crate::server;
use crate::world::{Bits, J, Key, Kind, Name, Snap, Tok, Uuid, World};

/// Which command a worker sends next, or waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pc {
    Idle,
    ReadSpec,
    // Publishing.
    ReadJob,
    Look,
    SureConfirm,
    TakeDrop,
    TakeRename,
    TakeEndMerges,
    TurnRead,
    TurnHolder(J),
    TurnBegin,
    TurnPass(J),
    Count,
    CountConfirm,
    CountAgain,
    CountConfirmAgain,
    NoteCounted,
    WholeDrop,
    WholeCreate,
    WholeDescribe,
    WholeSource,
    WholeTarget,
    WholeInsert,
    NoteCompleted,
    Indexes,
    NoteBegun,
    RenameIn,
    MergeJob,
    MergeSend,
    MergeWait,
    DisarmDrop,
    DisarmRename,
    // Map and reduce.
    ConfirmClaim,
    WriteBlock,
    WriteOutput,
    Manifest,
    HasBlocks,
    WriteReduced,
    Reopen,
    // The end of an attempt.
    Commit,
    WasCommitted,
    CancelOwn,
    Release,
    ReleaseToReopen,
    Fail { retryable: bool },
}

/// What a worker remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Worker {
    pub pc: Pc,
    pub key: Key,
    pub token: Tok,
    /// Whether the lease is trusted: it is not once it ran out, until it is renewed.
    pub trusted: bool,
    /// The jobs that it has read before, as bits.
    knows: u8,
    /// Whether what is written may be there already.
    again: bool,
    pub uuid: Uuid,
    marks: Bits,
    end_merges: bool,
    /// Whether the lease was confirmed since `name` was seen.
    pub sure: bool,
    has_turn: bool,
    indexed: bool,
    unsure: bool,
    exhausted: bool,
    cancel: bool,
    /// The name of the results as they were seen, until it is used.
    pub name: Option<Name>,
    /// The name that only this attempt gives the results.
    staged: Option<Name>,
    piece: u8,
    rows: [u8; 2],
    pub whole: Uuid,
    pub tokens: [Tok; 2],
}

impl Worker {
    pub const IDLE: Worker = Worker {
        pc: Pc::Idle,
        key: Key { job: 0, kind: Kind::Map, plan: 0, n: 0 },
        token: 0,
        trusted: false,
        knows: 0,
        again: false,
        uuid: 0,
        marks: Bits(0),
        end_merges: false,
        sure: false,
        has_turn: false,
        indexed: false,
        unsure: false,
        exhausted: false,
        cancel: false,
        name: None,
        staged: None,
        piece: 0,
        rows: [0; 2],
        whole: 0,
        tokens: [0; 2],
    };

    /// Begins an attempt.
    pub fn begin(world: &World, scenario: &Scenario, key: Key, token: Tok, old: Worker) -> Worker {
        let task = world.task(key).unwrap();
        let mut me = Worker { key, token, trusted: true, knows: old.knows, ..Worker::IDLE };
        if key.kind == Kind::Publish {
            // The job may be known, and is read at the first step anyway.
            me.staged = Some(Name::Staged(key.job, token));
            (me.uuid, me.marks) = (task.uuid, task.marks);
            me.exhausted = i32::from(task.at.lost) >= config::LOST_MAX - 1;
            me.pc = Pc::ReadJob;
            return me;
        }
        me.again = key.kind == Kind::Reduce || task.at.epoch > 1;
        if me.knows & (1 << key.job) == 0 {
            me.pc = Pc::ReadSpec;
        } else {
            me.work(scenario);
        }
        me
    }

    /// The attempt has ended.
    fn idle(&mut self) {
        *self = Worker { knows: self.knows, ..Worker::IDLE };
    }

    /// Ends the attempt in a way that is written down; nothing but the lease is needed any more.
    fn end(&mut self, pc: Pc) {
        let Worker { key, token, trusted, knows, piece, tokens, .. } = *self;
        *self = Worker { pc, key, token, trusted, knows, ..Worker::IDLE };
        if pc == Pc::ReleaseToReopen {
            (self.piece, self.tokens) = (piece, tokens);
        }
    }

    /// Goes on where the lease is checked first.
    fn checked(&mut self, pc: Pc) {
        if self.trusted {
            self.pc = pc;
        } else {
            self.idle();
        }
    }

    /// What a map or reduce task does first.
    fn work(&mut self, scenario: &Scenario) {
        self.knows |= 1 << self.key.job;
        let value = Scenario::value(self.key.job);
        let map_only = scenario.reduce_tasks == 0;
        self.rows = match self.key.kind {
            Kind::Map if scenario.map_tasks > 1 && self.key.n == 0 => [value, 0],
            Kind::Map if scenario.map_tasks > 1 => [0, value],
            _ => [value; 2],
        };
        let bugs = scenario.bugs;
        let unconfirmed =
            bugs.claim_not_confirmed || (bugs.second_claim_not_confirmed && self.again);
        match self.key.kind {
            Kind::Map if map_only && !unconfirmed => self.checked(Pc::ConfirmClaim),
            Kind::Map if map_only => self.checked(Pc::WriteOutput),
            Kind::Map => self.checked(Pc::WriteBlock),
            _ => self.pc = Pc::Manifest,
        }
    }

    /// What `is_cancelled` makes of the job. `None` when the attempt ends.
    fn is_cancelled(&mut self, job: Option<Snap>) -> Option<bool> {
        match job {
            Some(snap) if snap.state == JobState::Publishing && snap.plan == self.key.plan => {
                return Some(snap.cancel);
            }
            Some(snap) if snap.state == JobState::Stopped => self.end(Pc::Release),
            _ => self.end(Pc::CancelOwn),
        }
        None
    }

    /// Decides the next step, as the loop in `publish_task` does.
    fn decide(&mut self, scenario: &Scenario, name: Option<Name>) {
        let bugs = scenario.bugs;
        let mode = scenario.mode(self.key.job);
        let place = match name {
            None => Place::Gone,
            Some(name) if Some(name) == self.staged => Place::Mine,
            Some(Name::Target) => Place::Target,
            Some(_) => Place::Elsewhere,
        };
        // Seen before and after the same confirmation.
        let sure = std::mem::take(&mut self.sure) && self.name == name;
        self.name = None;
        let view = View {
            mode,
            marks: self.marks.marks(),
            place,
            sure: sure || bugs.looks_believed,
            has_turn: self.has_turn || bugs.turn_ignored,
            indexed: self.indexed,
            cancel: self.cancel,
            exhausted: self.exhausted,
        };
        match next(&view) {
            Step::MakeSure => {
                self.name = name;
                self.checked(Pc::SureConfirm);
            }
            Step::Gone => self.end(Pc::Fail { retryable: false }),
            Step::TakeOver { .. } if bugs.take_over_without_rename => {
                self.staged = name;
                self.checked(Pc::ReadJob);
            }
            Step::TakeOver { end_merges } => {
                self.end_merges = end_merges;
                self.name = name;
                self.pc = Pc::TakeDrop;
            }
            Step::TakeTurn => self.pc = Pc::TurnRead,
            Step::Count => self.pc = Pc::Count,
            Step::Complete => self.pc = Pc::WholeDrop,
            Step::CopyIndexes => self.pc = Pc::Indexes,
            Step::Begin if bugs.begin_not_noted => {
                self.marks = self.marks.with(Bits::BEGUN);
                self.checked(Pc::ReadJob);
            }
            Step::Begin => self.checked(Pc::NoteBegun),
            Step::Rename => self.pc = Pc::RenameIn,
            Step::Merge => {
                self.piece = 0;
                self.checked(Pc::MergeJob);
            }
            Step::Commit => self.end(Pc::Commit),
            Step::Cancel if self.unsure && !bugs.cancel_without_disarming => {
                self.pc = Pc::DisarmDrop
            }
            Step::Cancel => self.end(Pc::CancelOwn),
            Step::GiveUp => self.end(Pc::Fail { retryable: false }),
        }
    }

    /// What `ask` says about the turn; coarse reads bring the holder along.
    fn turn(&mut self, held: Option<J>, holder: Holder) {
        match (ask(holder), held) {
            (Ask::Mine, _) => {
                self.has_turn = true;
                self.checked(Pc::ReadJob);
            }
            (Ask::Wait, Some(_)) => self.end(Pc::Release),
            (Ask::Take | Ask::Wait, None) => self.pc = Pc::TurnBegin,
            (Ask::Take, Some(ended)) => self.pc = Pc::TurnPass(ended),
        }
    }

    /// A fenced write has come back: `then` if it matched, else the lease is lost.
    fn fenced(&mut self, reply: Reply, then: impl FnOnce(&mut Self)) {
        match reply {
            Reply::Matched(true) => then(self),
            _ => self.idle(),
        }
    }

    fn answered(&mut self, scenario: &Scenario, reply: Reply) {
        match (self.pc, reply) {
            (Pc::ReadSpec, Reply::Job(job)) => match job {
                Some(snap) if snap.plan == self.key.plan && !snap.state.is_terminal() => {
                    match snap.state {
                        JobState::Submitted | JobState::Planning => self.end(Pc::Release),
                        _ => self.work(scenario),
                    }
                }
                _ => self.end(Pc::CancelOwn),
            },
            (Pc::ReadJob, Reply::Job(job)) => {
                if let Some(cancel) = self.is_cancelled(job) {
                    self.cancel = cancel;
                    self.pc = Pc::Look;
                }
            }
            (Pc::ReadJob, Reply::Both(job, name)) => {
                if let Some(cancel) = self.is_cancelled(job) {
                    self.cancel = cancel;
                    self.decide(scenario, name);
                }
            }
            (Pc::Look, Reply::Name(name)) => self.decide(scenario, name),
            (Pc::SureConfirm, _) => self.fenced(reply, |me| {
                me.sure = true;
                me.checked(Pc::ReadJob);
            }),
            (Pc::TakeDrop, _) => self.pc = Pc::TakeRename,
            (Pc::TakeRename, Reply::Exists) => self.end(Pc::Fail { retryable: true }),
            (Pc::TakeRename, _) => {
                self.name = None;
                if self.end_merges {
                    self.end_merges = false;
                    self.pc = Pc::TakeEndMerges;
                } else {
                    self.checked(Pc::ReadJob);
                }
            }
            (Pc::TakeEndMerges, _) => self.checked(Pc::ReadJob),
            (Pc::TurnRead, Reply::TurnBoth(held, other)) => {
                let holder = holder(held, self.key.job, other);
                self.turn(held, holder);
            }
            (Pc::TurnRead, Reply::Turn(held)) => match held {
                Some(other) if other != self.key.job => self.pc = Pc::TurnHolder(other),
                _ => self.turn(held, holder(held, self.key.job, None)),
            },
            (Pc::TurnHolder(other), Reply::Job(job)) => {
                self.turn(Some(other), holder(Some(other), self.key.job, job));
            }
            (Pc::TurnBegin | Pc::TurnPass(_), _) => self.pc = Pc::TurnRead,
            (Pc::Count | Pc::CountAgain, Reply::Number(2)) if self.whole != 0 => {
                self.checked(Pc::NoteCompleted);
            }
            (Pc::Count | Pc::CountAgain, Reply::Number(2)) => self.checked(Pc::NoteCounted),
            (Pc::Count, _) => self.checked(Pc::CountConfirm),
            (Pc::CountConfirm, _) => self.fenced(reply, |me| me.pc = Pc::CountAgain),
            (Pc::CountAgain, _) => self.checked(Pc::CountConfirmAgain),
            (Pc::CountConfirmAgain, _) => {
                self.fenced(reply, |me| me.end(Pc::Fail { retryable: false }));
            }
            (Pc::NoteCounted, _) => self.fenced(reply, |me| {
                me.marks = me.marks.with(Bits::COUNTED);
                me.checked(Pc::ReadJob);
            }),
            (Pc::WholeDrop, _) => self.pc = Pc::WholeCreate,
            (Pc::WholeCreate, _) => self.pc = Pc::WholeDescribe,
            (Pc::WholeDescribe, Reply::Number(0)) => self.end(Pc::Fail { retryable: true }),
            (Pc::WholeDescribe, Reply::Number(uuid)) => {
                self.whole = uuid;
                self.pc = Pc::WholeSource;
            }
            (Pc::WholeSource, Reply::Docs(rows)) => {
                self.rows = rows;
                self.pc = Pc::WholeTarget;
            }
            (Pc::WholeTarget, Reply::Docs(target)) => {
                for (row, target) in self.rows.iter_mut().zip(target) {
                    *row += if *row == 0 { 0 } else { target };
                }
                self.checked(Pc::WholeInsert);
            }
            (Pc::WholeInsert, _) => {
                self.rows = [0; 2];
                self.pc = Pc::Count;
            }
            (Pc::NoteCompleted, _) => self.fenced(reply, |me| {
                me.uuid = std::mem::take(&mut me.whole);
                me.marks = me.marks.with(Bits::COMPLETED);
                me.checked(Pc::ReadJob);
            }),
            (Pc::Indexes, _) => {
                self.indexed = true;
                self.checked(Pc::ReadJob);
            }
            (Pc::NoteBegun, _) => self.fenced(reply, |me| {
                me.marks = me.marks.with(Bits::BEGUN);
                me.checked(Pc::ReadJob);
            }),
            (Pc::RenameIn, _) => self.checked(Pc::ReadJob),
            (Pc::MergeJob, Reply::Job(job)) => match self.is_cancelled(job) {
                Some(true) => self.checked(Pc::ReadJob),
                Some(false) => self.checked(Pc::MergeSend),
                None => {}
            },
            (Pc::MergeSend, Reply::Running) => self.pc = Pc::MergeWait,
            (Pc::MergeSend | Pc::MergeWait, _) => {
                self.piece += 1;
                // A piece that is the last one ends the merge without another check.
                if self.piece == 2 {
                    self.end(Pc::Commit);
                } else {
                    self.checked(Pc::MergeJob);
                }
            }
            (Pc::DisarmDrop, _) => self.pc = Pc::DisarmRename,
            (Pc::DisarmRename, Reply::Exists) => self.end(Pc::Fail { retryable: true }),
            (Pc::DisarmRename, _) => {
                self.staged = Some(Name::Kept(self.key.job, self.token));
                self.unsure = false;
                self.checked(Pc::ReadJob);
            }
            (Pc::ConfirmClaim, _) => self.fenced(reply, |me| me.checked(Pc::WriteOutput)),
            (Pc::WriteOutput | Pc::WriteReduced, Reply::Exists) => {
                self.end(Pc::Fail { retryable: false });
            }
            (Pc::WriteBlock | Pc::WriteOutput | Pc::WriteReduced, _) => self.end(Pc::Commit),
            (Pc::Manifest, Reply::Tokens(None)) => self.end(Pc::Release),
            (Pc::Manifest, Reply::Tokens(Some(tokens))) => {
                self.tokens = tokens;
                self.pc = Pc::HasBlocks;
            }
            (Pc::HasBlocks, Reply::Missing(Some(n))) => {
                self.piece = n;
                self.end(Pc::ReleaseToReopen);
            }
            (Pc::HasBlocks, _) => {
                self.tokens = [0; 2];
                self.checked(Pc::WriteReduced);
            }
            (Pc::ReleaseToReopen, Reply::Matched(true)) => self.pc = Pc::Reopen,
            (Pc::Commit, Reply::Matched(false)) => self.pc = Pc::WasCommitted,
            (
                Pc::Commit
                | Pc::WasCommitted
                | Pc::CancelOwn
                | Pc::Release
                | Pc::ReleaseToReopen
                | Pc::Reopen
                | Pc::Fail { .. },
                _,
            ) => self.idle(),
            (pc, reply) => panic!("{pc:?} was answered {reply:?}"),
        }
    }

    /// The outcome of the command is unknown.
    fn failed(&mut self) {
        match self.pc {
            _ if self.repeats() => {}
            Pc::SureConfirm
            | Pc::ConfirmClaim
            | Pc::CountConfirm
            | Pc::CountConfirmAgain
            | Pc::NoteCounted
            | Pc::NoteCompleted
            | Pc::NoteBegun
            | Pc::MergeSend
            | Pc::WriteBlock => self.idle(),
            Pc::MergeWait => self.checked(Pc::MergeSend),
            Pc::WriteOutput | Pc::WriteReduced => {
                self.again = true;
                let pc = self.pc;
                self.checked(pc);
            }
            Pc::RenameIn => {
                self.unsure = true;
                self.checked(Pc::ReadJob);
            }
            Pc::Commit => self.pc = Pc::WasCommitted,
            Pc::Reopen | Pc::WasCommitted => self.idle(),
            _ => self.end(Pc::Release),
        }
    }
}

/// What is known of the job that has the turn.
fn holder(held: Option<J>, mine: J, other: Option<Snap>) -> Holder {
    match (held, other) {
        (None, _) => Holder::Nobody,
        (Some(job), _) if job == mine => Holder::Myself,
        (Some(_), Some(snap)) => Holder::Other(snap.state, snap.cleaned),
        (Some(_), None) => Holder::Removed,
    }
}

/// Has worker `i` go on with an answer, or without one.
pub fn resume(world: &mut World, scenario: &Scenario, i: usize, reply: Option<Reply>) {
    let worker = &mut world.workers[i];
    match reply {
        Some(reply) => worker.answered(scenario, reply),
        None => worker.failed(),
    }
}

/// A merge was ended that the holder of `token` waits for.
pub fn interrupted(world: &mut World, scenario: &Scenario, token: Tok) {
    if let Some(i) = waiting(world, token) {
        resume(world, scenario, i, None);
    }
}

/// The worker that waits for the merge of `token`.
pub fn waiting(world: &World, token: Tok) -> Option<usize> {
    world.workers.iter().position(|one| one.pc == Pc::MergeWait && one.token == token)
}

/// The tasks that an idle worker may claim.
pub fn claimable(world: &World) -> Vec<Key> {
    world.tasks.iter().filter(|task| server::is_claimable(task)).map(|task| task.key).collect()
}

/// Whether a live worker has the lease of this task.
pub fn has_live_holder(world: &World, key: Key) -> bool {
    let Some(task) = world.task(key) else { return false };
    task.at.state() == TaskState::Leased
        && world
            .workers
            .iter()
            .any(|one| one.pc != Pc::Idle && one.key == key && one.token == task.at.token)
}
