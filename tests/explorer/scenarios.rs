//! Which worlds are explored: a quick set in every run, a deep one when `AVIARY_EXPLORE=deep` is set.

use aviary::job::OutputMode::{self, Merge, Reduce, Replace};

use crate::scenario::{Scenario, Start};
use crate::world::Left;

const NONE: Left = Scenario::BASE.left;

/// One job, every command by itself, two coordinators.
fn one(name: &'static str, mode: OutputMode, left: Left) -> Scenario {
    let modes = [Some(mode), None];
    Scenario { name, modes, left, coordinators: 2, coarse: false, ..Scenario::BASE }
}

/// Two jobs on one target.
fn two(name: &'static str, modes: [OutputMode; 2], left: Left) -> Scenario {
    Scenario {
        name,
        modes: modes.map(Some),
        left,
        fused: true,
        fused_clean_up: true,
        ..Scenario::BASE
    }
}

/// The same, every command by itself.
fn every_step(of: Scenario) -> Scenario {
    Scenario { fused: false, fused_clean_up: false, ..of }
}

/// One job from its beginning, or from its map tasks on. How it publishes is seen elsewhere.
fn whole(name: &'static str, start: Start, left: Left) -> Scenario {
    Scenario { name, start, left, fused: true, ..Scenario::BASE }
}

/// Two jobs publish into one target.
pub fn pairs() -> Vec<Scenario> {
    let left = Left { faults: 1, ..NONE };
    let every_step = |name, modes| every_step(two(name, modes, NONE));
    vec![
        every_step("replace x replace, every step", [Replace, Replace]),
        every_step("reduce x reduce, every step", [Reduce, Reduce]),
        every_step("merge x reduce, every step", [Merge, Reduce]),
        every_step("replace x reduce, every step", [Replace, Reduce]),
        two("replace x replace", [Replace, Replace], left),
        two("reduce x reduce", [Reduce, Reduce], left),
        two("merge x reduce", [Merge, Reduce], left),
        two("replace x reduce", [Replace, Reduce], left),
    ]
}

/// One job publishes, and a person may interfere.
pub fn publishing() -> Vec<Scenario> {
    let left = Left { faults: 1, ..NONE };
    let cancel = Left { cancels: 1, ..left };
    let remove = Left { removals: 1, ..cancel };
    let stale = Left { stale: 1, ..left };
    let refused = Left { refusals: 1, resumes: 1, ..left };
    vec![
        one("replace", Replace, left),
        one("merge", Merge, left),
        one("reduce", Reduce, left),
        one("replace, stale servers", Replace, stale),
        one("reduce, stale servers", Reduce, stale),
        one("replace, cancelled", Replace, cancel),
        one("merge, cancelled", Merge, cancel),
        Scenario { coarse: true, ..one("reduce, cancelled", Reduce, cancel) },
        Scenario {
            coarse: true,
            coordinators: 1,
            ..one("replace, cancelled, removed", Replace, remove)
        },
        Scenario {
            coarse: true,
            coordinators: 1,
            ..one("reduce, cancelled, removed", Reduce, remove)
        },
        Scenario { coarse: true, ..one("merge, refused half-way", Merge, refused) },
        Scenario { coarse: true, ..one("reduce, refused half-way", Reduce, refused) },
        Scenario { lost: 6, ..one("replace, workers vanish", Replace, left) },
        Scenario { lost: 6, ..one("merge, workers vanish", Merge, left) },
        two("reduce x reduce, cancelled", [Reduce, Reduce], Left { cancels: 1, ..NONE }),
        two("merge x reduce, refused", [Merge, Reduce], Left { refusals: 1, resumes: 1, ..NONE }),
    ]
}

/// One job is planned, mapped and reduced.
pub fn tasks() -> Vec<Scenario> {
    let left = Left { faults: 1, ..NONE };
    let rolled_back = Left { rollbacks: 1, ..left };
    let blocks = Left { blocks: 1, ..left };
    let member = Left { members: 1, ..left };
    let cancel = Left { cancels: 1, ..left };
    let remove = Left { removals: 1, ..cancel };
    vec![
        whole("map and reduce, claims roll back", Start::Mapping, rolled_back),
        whole("map and reduce, blocks vanish", Start::Mapping, blocks),
        whole("map and reduce, a member goes away", Start::Mapping, member),
        Scenario {
            coordinators: 2,
            workers: 1,
            ..whole("two coordinators, a member goes away", Start::Mapping, member)
        },
        Scenario {
            map_tasks: 2,
            reduce_tasks: 0,
            ..whole("two map-only tasks, claims roll back", Start::Mapping, rolled_back)
        },
        Scenario {
            coordinators: 2,
            coarse: false,
            workers: 1,
            ..whole("two coordinators plan", Start::Submitted, left)
        },
        Scenario {
            coordinators: 2,
            workers: 1,
            reduce_tasks: 0,
            ..whole("two coordinators plan, cancelled", Start::Submitted, cancel)
        },
        Scenario {
            workers: 1,
            reduce_tasks: 0,
            ..whole("planned, cancelled, removed", Start::Submitted, remove)
        },
    ]
}

/// The same with one fault more, or with every step by itself: minutes of a release build.
pub fn deep() -> Vec<Scenario> {
    let mut all = publishing();
    all.extend(tasks());
    all.extend(pairs());
    all.retain(|one| one.left.faults > 0);
    for one in &mut all {
        one.left.faults += 1;
        one.states_max = 60_000_000;
    }
    let left = Left { faults: 1, ..NONE };
    let pairs = [[Replace, Replace], [Reduce, Reduce], [Merge, Reduce], [Replace, Reduce]];
    let names = ["replace x replace", "reduce x reduce", "merge x reduce", "replace x reduce"];
    for (name, modes) in names.into_iter().zip(pairs) {
        all.push(every_step(two(name, modes, left)));
        all.push(two(name, modes, Left { cancels: 1, ..left }));
    }
    all
}
