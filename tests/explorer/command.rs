//! Commands to the server, and what it answers.

use aviary::protocol::coordinate::PublishTask;
use aviary::task::JobPhases;

use crate::world::{Bag, Bits, Block, J, Key, Kind, Name, Snap, Tok, Uuid};

/// One command to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cmd {
    ReadJob(J),
    /// The job and the name of its results at one instant (coarse reads).
    ReadBoth(J, Uuid),
    NameOf(Uuid),
    Confirm(Key, Tok),
    Drop(Name),
    Rename {
        from: Name,
        to: Name,
        drop: bool,
    },
    EndMerges(J),
    ReadTurn,
    ReadHolder(J),
    /// The turn and the job that has it at one instant (coarse reads).
    ReadTurnBoth(J),
    BeginTurn(J),
    PassTurn {
        from: J,
        to: J,
    },
    ReleaseTurn(J),
    Count(Name),
    Note {
        key: Key,
        token: Tok,
        uuid: Uuid,
        marks: Bits,
    },
    Create(Name),
    Describe(Name),
    ReadDocs(Name),
    Insert {
        name: Name,
        rows: [u8; 2],
        again: bool,
    },
    CreateIndexes(Name),
    MergeStart {
        from: Name,
        job: J,
        piece: u8,
        token: Tok,
    },
    Commit(Key, Tok),
    WasCommitted(Key, Tok),
    CancelOwn(Key, Tok),
    Release(Key, Tok),
    Fail {
        key: Key,
        token: Tok,
        retryable: bool,
    },
    WriteBlock(Block),
    Manifest(J, u8),
    HasBlocks(J, [Tok; 2]),
    Reopen {
        key: Key,
        token: Tok,
    },
    Adopt(J, u8),
    ReadTasks(J, u8),
    Quarantined(J, u8),
    Transition(Arrow),
    InsertPublish {
        job: J,
        plan: u8,
        uuid: Uuid,
    },
    Withdraw(J, u8),
    OpenPhase(J, u8, Kind),
    SetSnapshot {
        job: J,
        plan: u8,
        role: u8,
        to: u8,
    },
    BeginPlan {
        job: J,
        plan: u8,
        role: u8,
    },
    InsertTasks(J, u8),
    CancelTasks(J),
    DeleteStale(J, u8),
    DeleteBlocks(J),
    ListHidden(J),
    Cleaned(J),
    RequestCancel(J),
    ResumeTask(J, u8),
    DeleteTasks(J),
    Tombstone(J),
}

/// A conditional update of a job: an event and what narrows it further; 255 is "whatever it is".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Arrow {
    pub job: J,
    /// An index into `JobEvent::ALL`.
    pub event: u8,
    pub plan: u8,
    pub role: u8,
    pub snapshot: u8,
    /// An index into `JobState::ALL`.
    pub state: u8,
    pub uuid: Uuid,
    pub says: bool,
}

/// Whatever it is.
pub const ANY: u8 = 255;

impl Cmd {
    /// Whether it changes nothing, so that its reply alone can be lost.
    pub fn is_read(&self) -> bool {
        matches!(
            self,
            Cmd::ReadJob(_)
                | Cmd::ReadBoth(..)
                | Cmd::NameOf(_)
                | Cmd::ReadTurn
                | Cmd::ReadHolder(_)
                | Cmd::ReadTurnBoth(_)
                | Cmd::Count(_)
                | Cmd::Describe(_)
                | Cmd::ReadDocs(_)
                | Cmd::WasCommitted(..)
                | Cmd::Manifest(..)
                | Cmd::HasBlocks(..)
                | Cmd::ReadTasks(..)
                | Cmd::Quarantined(..)
                | Cmd::ListHidden(_)
        )
    }

    pub fn tokens(&self) -> [Tok; 2] {
        match *self {
            Cmd::Drop(name) | Cmd::Count(name) | Cmd::Create(name) | Cmd::Describe(name) => {
                [name.token(), 0]
            }
            Cmd::ReadDocs(name) | Cmd::CreateIndexes(name) | Cmd::Insert { name, .. } => {
                [name.token(), 0]
            }
            Cmd::Rename { from, to, .. } => [from.token(), to.token()],
            Cmd::Confirm(_, t) | Cmd::Commit(_, t) | Cmd::WasCommitted(_, t) => [t, 0],
            Cmd::CancelOwn(_, t) | Cmd::Release(_, t) => [t, 0],
            Cmd::Fail { token, .. } | Cmd::Note { token, .. } | Cmd::Reopen { token, .. } => {
                [token, 0]
            }
            Cmd::MergeStart { from, token, .. } => [from.token(), token],
            Cmd::WriteBlock(block) => [block.token, 0],
            Cmd::HasBlocks(_, tokens) => tokens,
            _ => [0, 0],
        }
    }

    pub fn uuid(&self) -> Uuid {
        match *self {
            Cmd::NameOf(uuid) | Cmd::ReadBoth(_, uuid) | Cmd::Note { uuid, .. } => uuid,
            Cmd::InsertPublish { uuid, .. } => uuid,
            Cmd::Transition(arrow) => arrow.uuid,
            _ => 0,
        }
    }
}

/// What the server answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    Done,
    /// Whether the filter matched; of a rename, whether its source was there.
    Matched(bool),
    /// Something of that name or key is there already.
    Exists,
    Job(Option<Snap>),
    Both(Option<Snap>, Option<Name>),
    Name(Option<Name>),
    Turn(Option<J>),
    TurnBoth(Option<J>, Option<Snap>),
    Number(u8),
    Docs([u8; 2]),
    /// A merge runs, and answers later.
    Running,
    /// Per map task the token of its committed attempt; `None` while one is not committed.
    Tokens(Option<[Tok; 2]>),
    /// The first map task whose block is missing.
    Missing(Option<u8>),
    Tasks(JobPhases, Option<PublishTask>),
    Names(Bag<Name, 4>),
}
