//! Visits every world that can be reached, breadth first, so that what is found wrong is found by a shortest way.

use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use hashbrown::HashTable;

use crate::check;
use crate::events::{Event, successors};
use crate::scenario::Scenario;
use crate::world::World;

/// What an exploration has found.
#[derive(Debug)]
pub struct Explored {
    pub states: usize,
    pub transitions: usize,
    /// Of the way to the world that is farthest from the beginning.
    pub depth: usize,
    pub took: Duration,
    /// Good ends among the worlds.
    pub good: usize,
    /// What is wrong, and the way there.
    pub wrong: Option<(&'static str, Vec<String>)>,
}

/// The worlds that were seen: of each a fingerprint, and how it was reached. (Of a million worlds, two have the same
/// fingerprint of 64 bits with a probability of 1 : 40 million.)
struct Seen {
    table: HashTable<(u64, u32)>,
    /// Where each came from, and by which of the events that were possible there.
    from: Vec<(u32, u16)>,
    hasher: foldhash::quality::FixedState,
}

impl Seen {
    /// The number of a world, and whether it is new.
    fn number(&mut self, world: &World, from: u32, event: usize) -> (u32, bool) {
        let hash = self.hasher.hash_one(world);
        if let Some((_, known)) = self.table.find(hash, |(other, _)| *other == hash) {
            return (*known, false);
        }
        let new = u32::try_from(self.from.len()).unwrap();
        self.table.insert_unique(hash, (hash, new), |(hash, _)| *hash);
        self.from.push((from, u16::try_from(event).unwrap()));
        (new, true)
    }

    /// The way to a world, found by going it once more, and the world.
    fn way(&self, scenario: &Scenario, mut at: u32) -> (Vec<String>, World) {
        let mut choices = Vec::new();
        while at != 0 {
            let (from, choice) = self.from[at as usize];
            choices.push(usize::from(choice));
            at = from;
        }
        let (mut way, mut world, mut found) = (Vec::new(), scenario.world(), Vec::new());
        for choice in choices.into_iter().rev() {
            successors(&world, scenario, &mut found);
            let (event, after) = found[choice];
            way.push(format!("{event:?}"));
            world = after;
        }
        (way, world)
    }
}

/// Explores a scenario until everything was seen, or something is wrong.
pub fn explore(scenario: &Scenario) -> Explored {
    let began = Instant::now();
    let hasher = foldhash::quality::FixedState::default();
    let mut seen = Seen { table: HashTable::new(), from: Vec::new(), hasher };
    let first = scenario.world();
    seen.number(&first, 0, 0);
    let mut level = vec![(0_u32, first)];
    // What each world leads to without faults, as pairs of a world and one before it.
    let mut runs: Vec<(u32, u32)> = Vec::new();
    let (mut transitions, mut depth, mut ends, mut wrong) = (0, 0, Vec::new(), None);
    let mut found = Vec::new();
    'worlds: while !level.is_empty() {
        let mut next_level = Vec::new();
        for (number, world) in &level {
            if check::is_good(world, scenario) {
                ends.push(*number);
            }
            successors(world, scenario, &mut found);
            for (choice, (event, after)) in found.iter().enumerate() {
                let (next, is_new) = seen.number(after, *number, choice);
                transitions += 1;
                if event.is_run() || is_person(event) {
                    runs.push((next, *number));
                }
                if is_new {
                    if let Some(why) = check::wrong(after, scenario) {
                        wrong = Some((why, seen.way(scenario, next).0));
                        break 'worlds;
                    }
                    next_level.push((next, *after));
                }
            }
            assert!(seen.from.len() < scenario.states_max, "{}: too many worlds", scenario.name);
        }
        level = next_level;
        depth += usize::from(!level.is_empty());
    }
    let (states, good) = (seen.from.len(), ends.len());
    if wrong.is_none()
        && let Some(stuck) = first_stuck(states, &mut runs, ends)
    {
        let (mut way, world) = seen.way(scenario, stuck);
        way.push(format!("{world:?}"));
        wrong = Some(("from here no good end can be reached", way));
    }
    Explored { states, transitions, depth, took: began.elapsed(), good, wrong }
}

/// Whether a person is certain to do it in the end.
fn is_person(event: &Event) -> bool {
    matches!(event, Event::Cancels(_) | Event::Resumes(_))
}

/// The first world from which none of `ends` can be reached by `runs` (pairs of a world and one before it).
fn first_stuck(worlds: usize, runs: &mut [(u32, u32)], ends: Vec<u32>) -> Option<u32> {
    runs.sort_unstable();
    let mut reaches = vec![false; worlds];
    let mut open = ends;
    open.iter().for_each(|at| reaches[*at as usize] = true);
    while let Some(at) = open.pop() {
        let first = runs.partition_point(|(to, _)| *to < at);
        for (_, before) in runs[first..].iter().take_while(|(to, _)| *to == at) {
            if !std::mem::replace(&mut reaches[*before as usize], true) {
                open.push(*before);
            }
        }
    }
    reaches.iter().position(|reaches| !reaches).map(|at| u32::try_from(at).unwrap())
}
