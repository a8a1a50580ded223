//! The publisher's next step.
//!
//! Publishing is a task: a worker claims it, and every step that matters is written down in the task's
//! document behind the fence of its token. The result is a collection's **identity** (the UUID that a rename
//! keeps), never its name.
//!
//! ```text
//!   hidden ──take over──▶ staged, under a name that holds the token
//!     turn of the target taken ─ counted
//!       inline                                    ─▶ commit
//!       replace: indexes ─ [begun] ─ rename       ─▶ commit
//!       merge, update:     [begun] ─ merge        ─▶ commit
//!       reduce: completed ─ [begun] ─ merge       ─▶ commit
//! ```
//!
//! * **A takeover disarms whoever held the task before.** The collection gets a name that holds the new
//!   token, so the former holder's rename or merge finds no source; a merge that it has under way is ended.
//! * **A target is read before it is written, and never again.** For `reduce`, the values that the target is
//!   to have are computed into a second collection, whose identity takes the place of the first in one
//!   fenced update. Before it nothing was written to the target; after it nothing is computed.
//! * **The last step is announced before it is taken** (`begun`), in a write that a majority holds. If the
//!   collection is gone afterwards, its last step was taken, and its owner has replaced or dropped it since.
//! * **News is believed only by the holder, from a server that is up to date.** "It is gone", "it is under
//!   another name" and "the count is wrong" may be what the next holder's work looks like, or what a stale
//!   server says. "It is in place" may be what one server alone has, and loses with the next failover.

use crate::job::{Output, OutputMode};
use crate::task::{Marks, Task};

/// What a target may hold of a job's results, for a person. Nothing while it holds none of them, or all at once.
pub fn merged(output: &Output, task: &Task) -> Option<String> {
    let publish = task.publish.as_ref().filter(|publish| publish.marks.begun)?;
    let Output { db, collection, mode } = output;
    let (most, rows) = (task.merged_at_most(), publish.rows);
    mode.adds().then(|| format!("{db}.{collection} holds up to {most} of {rows} results"))
}

/// Where the collection is that bears the result's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// Nowhere.
    Gone,
    /// Under the target's own name.
    Target,
    /// Under the name that holds this attempt's token.
    Mine,
    /// Under another name: the hidden one, or an earlier attempt's.
    Elsewhere,
}

/// What a publisher sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct View {
    /// How the results get to the target.
    pub mode: OutputMode,
    /// What the task's document says has been done, by this attempt or earlier ones.
    pub marks: Marks,
    /// Where the results are.
    pub place: Place,
    /// Whether that was read twice, before and after a confirmation that the task is this attempt's. The first tells
    /// that it is not the work of a later holder, the second that it is not what a stale server says.
    pub sure: bool,
    /// Whether the job is known to have its target's turn.
    pub has_turn: bool,
    /// Whether this attempt has given the results the target's indexes.
    pub indexed: bool,
    /// Whether a person wants the job to end.
    pub cancel: bool,
    /// Whether so many workers were lost with this task that it must not be tried again.
    pub exhausted: bool,
}

/// What a publisher does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Make sure that the task is still mine, and look again.
    MakeSure,
    /// The results are gone: fail.
    Gone,
    /// Give the results the name that holds this attempt's token. Then end what an earlier attempt has under
    /// way, if it may have begun to merge.
    TakeOver {
        /// Whether an earlier attempt may be merging.
        end_merges: bool,
    },
    /// Take the target's turn, or hand the task back until it is free.
    TakeTurn,
    /// Count the results, and note that they are all there.
    Count,
    /// Compute what the target is to hold, and make that the result.
    Complete,
    /// Give the results the target's indexes.
    CopyIndexes,
    /// Announce the step that changes the target.
    Begin,
    /// Put the results in the target's place.
    Rename,
    /// Merge the results into the target.
    Merge,
    /// Commit the task: the results are in place.
    Commit,
    /// End the task as a person wishes.
    Cancel,
    /// Give the task up: workers vanish with it.
    GiveUp,
}

/// Decides a publisher's next step.
pub fn next(view: &View) -> Step {
    let View { mode, marks, place, .. } = *view;
    match place {
        Place::Mine => {}
        // What lies under the own name is dropped next, which must not be the results. What lies in the target's
        // place may be what one server alone has.
        Place::Gone | Place::Target | Place::Elsewhere if !view.sure => return Step::MakeSure,
        Place::Target if mode == OutputMode::Replace => return Step::Commit,
        // It was in place, and its owner has done with it as they liked since.
        Place::Gone if mode == OutputMode::Replace && marks.begun => return Step::Commit,
        Place::Gone => return Step::Gone,
        Place::Target | Place::Elsewhere => {
            return Step::TakeOver { end_merges: mode.adds() && marks.begun };
        }
    }
    // From here on nobody else can do anything with the results.
    if view.cancel {
        return Step::Cancel;
    }
    if view.exhausted {
        return Step::GiveUp;
    }
    if mode.has_target() && !view.has_turn {
        return Step::TakeTurn;
    }
    if !marks.counted {
        return Step::Count;
    }
    match mode {
        OutputMode::Inline => Step::Commit,
        OutputMode::Replace if !view.indexed => Step::CopyIndexes,
        OutputMode::Replace if !marks.begun => Step::Begin,
        OutputMode::Replace => Step::Rename,
        OutputMode::Reduce if !marks.completed => Step::Complete,
        OutputMode::Merge | OutputMode::Reduce | OutputMode::Update if !marks.begun => Step::Begin,
        OutputMode::Merge | OutputMode::Reduce | OutputMode::Update => Step::Merge,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODES: [OutputMode; 5] = [
        OutputMode::Replace,
        OutputMode::Merge,
        OutputMode::Reduce,
        OutputMode::Update,
        OutputMode::Inline,
    ];

    fn every_view() -> Vec<View> {
        // Marks are set in an order: what is begun was counted, and completed if it had to be.
        let in_order = |view: &View| {
            let Marks { counted, completed, begun } = view.marks;
            let whole = completed || view.mode != OutputMode::Reduce;
            (!begun || (counted && whole)) && (!completed || counted)
        };
        let flags = [false, true];
        let mut views = Vec::new();
        for mode in MODES {
            for place in [Place::Gone, Place::Target, Place::Mine, Place::Elsewhere] {
                for bits in 0..128_u32 {
                    let bit = |n: u32| flags[usize::from(bits & (1 << n) != 0)];
                    for indexed in flags {
                        let marks = Marks { counted: bit(0), completed: bit(1), begun: bit(2) };
                        views.push(View {
                            mode,
                            marks,
                            place,
                            sure: bit(6),
                            has_turn: bit(3),
                            indexed,
                            cancel: bit(4),
                            exhausted: bit(5),
                        });
                    }
                }
            }
        }
        views.retain(in_order);
        views
    }

    #[test]
    fn the_target_is_touched_only_after_every_condition_holds() {
        for view in every_view() {
            let step = next(&view);
            if matches!(step, Step::Rename | Step::Merge) {
                assert_eq!(view.place, Place::Mine, "{view:?}");
                assert!(view.has_turn && view.marks.counted && view.marks.begun, "{view:?}");
                assert!(!view.cancel && !view.exhausted, "{view:?}");
                assert!(view.mode != OutputMode::Reduce || view.marks.completed, "{view:?}");
            }
            if step == Step::Complete {
                assert!(view.has_turn, "a target is read in its turn: {view:?}");
                assert!(!view.marks.begun, "a target is not read once it may be written: {view:?}");
            }
        }
    }

    #[test]
    fn whoever_takes_over_disarms_the_one_before_first() {
        for view in every_view().into_iter().filter(|v| v.place == Place::Elsewhere && v.sure) {
            let end_merges = view.mode.adds() && view.marks.begun;
            assert_eq!(next(&view), Step::TakeOver { end_merges }, "{view:?}");
        }
    }

    #[test]
    fn a_look_that_may_be_stale_moves_and_ends_nothing() {
        for view in every_view().into_iter().filter(|view| !view.sure && view.place != Place::Mine)
        {
            assert_eq!(next(&view), Step::MakeSure, "{view:?}");
        }
    }

    #[test]
    fn every_path_ends() {
        for mode in MODES {
            let mut view = View {
                mode,
                marks: Marks::default(),
                place: Place::Elsewhere,
                sure: false,
                has_turn: false,
                indexed: false,
                cancel: false,
                exhausted: false,
            };
            let mut steps = Vec::new();
            loop {
                let step = next(&view);
                let again = [Step::MakeSure, Step::TakeOver { end_merges: false }];
                assert!(!steps.contains(&step) || again.contains(&step));
                steps.push(step);
                view.sure = step == Step::MakeSure;
                match step {
                    Step::MakeSure => {}
                    Step::TakeOver { .. } => view.place = Place::Mine,
                    Step::TakeTurn => view.has_turn = true,
                    Step::Count => view.marks.counted = true,
                    Step::Complete => {
                        view.marks.completed = true;
                        view.place = Place::Elsewhere;
                    }
                    Step::CopyIndexes => view.indexed = true,
                    Step::Begin => view.marks.begun = true,
                    Step::Rename => view.place = Place::Target,
                    Step::Merge | Step::Commit => break,
                    Step::Gone | Step::Cancel | Step::GiveUp => panic!("{mode} {steps:?}"),
                }
            }
        }
    }
}
