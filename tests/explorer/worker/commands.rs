//! The command of each place that a worker can be at.

use super::{Pc, Worker};
use crate::command::Cmd;
use crate::scenario::Scenario;
use crate::world::{Bits, Block, Key, Kind, Name};

impl Worker {
    pub fn command(&self, scenario: &Scenario) -> Option<Cmd> {
        let Worker { key, token, uuid, .. } = *self;
        let job = key.job;
        // Only a publisher has one.
        let staged = || self.staged.unwrap_or(Name::Hidden(job));
        let whole = match staged() {
            Name::Staged(j, t) => Name::Whole(j, t),
            other => other,
        };
        let kept = Name::Kept(job, token);
        let note = |uuid, bit| Cmd::Note { key, token, uuid, marks: self.marks.with(bit) };
        let seen = || self.name.unwrap();
        Some(match self.pc {
            Pc::Idle | Pc::MergeWait => return None,
            Pc::ReadJob if scenario.coarse => Cmd::ReadBoth(job, uuid),
            Pc::ReadSpec | Pc::ReadJob | Pc::MergeJob => Cmd::ReadJob(job),
            Pc::Look => Cmd::NameOf(uuid),
            Pc::SureConfirm | Pc::ConfirmClaim => Cmd::Confirm(key, token),
            Pc::CountConfirm | Pc::CountConfirmAgain => Cmd::Confirm(key, token),
            Pc::TakeDrop => Cmd::Drop(staged()),
            Pc::TakeRename => Cmd::Rename { from: seen(), to: staged(), drop: false },
            Pc::TakeEndMerges => Cmd::EndMerges(job),
            Pc::TurnRead if scenario.coarse => Cmd::ReadTurnBoth(job),
            Pc::TurnRead => Cmd::ReadTurn,
            Pc::TurnHolder(other) => Cmd::ReadHolder(other),
            Pc::TurnBegin => Cmd::BeginTurn(job),
            Pc::TurnPass(from) => Cmd::PassTurn { from, to: job },
            // Of a whole that is not noted yet, or of the results.
            Pc::Count | Pc::CountAgain if self.whole != 0 => Cmd::Count(whole),
            Pc::Count | Pc::CountAgain => Cmd::Count(staged()),
            Pc::NoteCounted => note(uuid, Bits::COUNTED),
            Pc::WholeDrop => Cmd::Drop(whole),
            Pc::WholeCreate => Cmd::Create(whole),
            Pc::WholeDescribe => Cmd::Describe(whole),
            Pc::WholeSource => Cmd::ReadDocs(staged()),
            Pc::WholeTarget => Cmd::ReadDocs(Name::Target),
            Pc::WholeInsert => Cmd::Insert { name: whole, rows: self.rows, again: true },
            Pc::NoteCompleted => note(self.whole, Bits::COMPLETED),
            Pc::Indexes => Cmd::CreateIndexes(staged()),
            Pc::NoteBegun => note(uuid, Bits::BEGUN),
            Pc::RenameIn => Cmd::Rename { from: staged(), to: Name::Target, drop: true },
            Pc::MergeSend => Cmd::MergeStart { from: staged(), job, piece: self.piece, token },
            Pc::DisarmDrop => Cmd::Drop(kept),
            Pc::DisarmRename => Cmd::Rename { from: staged(), to: kept, drop: false },
            Pc::WriteBlock => Cmd::WriteBlock(Block { job, n: key.n, token }),
            Pc::WriteOutput | Pc::WriteReduced => {
                Cmd::Insert { name: Name::Hidden(job), rows: self.rows, again: self.again }
            }
            Pc::Manifest => Cmd::Manifest(job, key.plan),
            Pc::HasBlocks => Cmd::HasBlocks(job, self.tokens),
            Pc::Reopen => {
                let n = self.piece;
                let key = Key { kind: Kind::Map, n, ..key };
                Cmd::Reopen { key, token: self.tokens[usize::from(n)] }
            }
            Pc::Commit => Cmd::Commit(key, token),
            Pc::WasCommitted => Cmd::WasCommitted(key, token),
            Pc::CancelOwn => Cmd::CancelOwn(key, token),
            Pc::Release | Pc::ReleaseToReopen => Cmd::Release(key, token),
            Pc::Fail { retryable } => Cmd::Fail { key, token, retryable },
        })
    }

    /// Whether the next command touches nothing that another job sees.
    pub fn is_private(&self) -> bool {
        matches!(
            self.pc,
            Pc::ReadSpec
                | Pc::ReadJob
                | Pc::Look
                | Pc::SureConfirm
                | Pc::TakeDrop
                | Pc::TakeRename
                | Pc::Count
                | Pc::CountConfirm
                | Pc::CountAgain
                | Pc::CountConfirmAgain
                | Pc::NoteCounted
                | Pc::WholeDrop
                | Pc::WholeCreate
                | Pc::WholeDescribe
                | Pc::WholeSource
                | Pc::WholeInsert
                | Pc::NoteCompleted
                | Pc::Indexes
                | Pc::NoteBegun
                | Pc::MergeJob
                | Pc::DisarmDrop
                | Pc::DisarmRename
                | Pc::Release
        )
    }

    /// Whether a failed try of this command is simply repeated, so that a refused one changes nothing.
    pub fn repeats(&self) -> bool {
        matches!(self.pc, Pc::CancelOwn | Pc::Release | Pc::ReleaseToReopen | Pc::Fail { .. })
            || (self.trusted
                && matches!(
                    self.pc,
                    Pc::SureConfirm
                        | Pc::ConfirmClaim
                        | Pc::CountConfirm
                        | Pc::CountConfirmAgain
                        | Pc::NoteCounted
                        | Pc::NoteCompleted
                        | Pc::NoteBegun
                        | Pc::MergeSend
                        | Pc::Commit
                        | Pc::WriteBlock
                ))
    }
}
