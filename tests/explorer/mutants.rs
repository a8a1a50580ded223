//! Mistakes that the processes do not make. An exploration that misses one of them proves nothing.

use aviary::job::OutputMode::{self, Merge, Reduce, Replace};

use crate::scenario::{Bugs, Scenario, Start};
use crate::world::Left;

const NONE: Left = Scenario::BASE.left;
const SOUND: Bugs = Scenario::BASE.bugs;

fn one(name: &'static str, mode: OutputMode, left: Left, bugs: Bugs) -> Scenario {
    Scenario { name, modes: [Some(mode), None], left, bugs, ..Scenario::BASE }
}

fn two(name: &'static str, modes: [OutputMode; 2], left: Left, bugs: Bugs) -> Scenario {
    Scenario {
        name,
        modes: modes.map(Some),
        left,
        bugs,
        fused: true,
        fused_clean_up: true,
        ..Scenario::BASE
    }
}

/// Each with the smallest exploration that finds it.
pub fn mutants() -> Vec<Scenario> {
    let fault = Left { faults: 1, ..NONE };
    let faults = Left { faults: 2, ..NONE };
    let cancel = Left { cancels: 1, ..fault };
    let map_only = |name, left, bugs| Scenario {
        start: Start::Mapping,
        map_tasks: 2,
        reduce_tasks: 0,
        ..one(name, Replace, left, bugs)
    };
    vec![
        two("turn ignored", [Reduce, Reduce], NONE, Bugs { turn_ignored: true, ..SOUND }),
        two(
            "turn released before the clean-up",
            [Reduce, Reduce],
            fault,
            Bugs { turn_released_early: true, ..SOUND },
        ),
        // The rule that notes take nothing back would hide it.
        one(
            "notes without any fence",
            Reduce,
            faults,
            Bugs { note_without_fence: true, notes_taken_back: true, ..SOUND },
        ),
        one("a late note takes back", Reduce, faults, Bugs { notes_taken_back: true, ..SOUND }),
        one("commit without fence", Replace, fault, Bugs { commit_without_fence: true, ..SOUND }),
        one(
            "looks believed at once",
            Reduce,
            Left { stale: 1, ..NONE },
            Bugs { looks_believed: true, ..SOUND },
        ),
        one(
            "taken over without a rename",
            Replace,
            Left { cancels: 1, ..faults },
            Bugs { take_over_without_rename: true, ..SOUND },
        ),
        two(
            "merges outlive the clean-up",
            [Reduce, Reduce],
            fault,
            Bugs { merges_not_ended: true, ..SOUND },
        ),
        one("begin not noted", Replace, NONE, Bugs { begin_not_noted: true, ..SOUND }),
        one(
            "cancelled without disarming",
            Replace,
            cancel,
            Bugs { cancel_without_disarming: true, ..SOUND },
        ),
        one(
            "withdrawn after begin",
            Replace,
            cancel,
            Bugs { withdrawn_after_begin: true, ..SOUND },
        ),
        map_only(
            "claim not confirmed",
            Left { rollbacks: 1, ..NONE },
            Bugs { claim_not_confirmed: true, ..SOUND },
        ),
        map_only(
            "second claim not confirmed",
            Left { rollbacks: 1, ..fault },
            Bugs { second_claim_not_confirmed: true, ..SOUND },
        ),
        Scenario {
            start: Start::Submitted,
            coordinators: 2,
            workers: 1,
            reduce_tasks: 0,
            fused: true,
            fused_clean_up: true,
            ..one("moves without a fence", Merge, faults, Bugs { moves_unfenced: true, ..SOUND })
        },
        Scenario {
            start: Start::Submitted,
            workers: 1,
            fused: true,
            fused_clean_up: true,
            ..one(
                "tasks of removed jobs stay",
                Replace,
                Left { removals: 1, ..cancel },
                Bugs { removed_not_swept: true, ..SOUND },
            )
        },
    ]
}
