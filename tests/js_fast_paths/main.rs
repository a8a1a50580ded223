//! The fast paths of the JavaScript guest change nothing that a program can see: random programs do the same with them
//! and without.
//!
//! `AVIARY_JS_PROGRAMS=1000000 cargo test --release --test js_fast_paths -- --nocapture` tries a million of them;
//! `AVIARY_JS_SEED` names the seed, and `AVIARY_JS_GUEST` another build of the guest, such as one with a mistake that the test
//! must find.

#![cfg(test)]

mod documents;
mod grammar;
mod machine;
mod random;
mod reduces;

use std::sync::atomic::{AtomicU64, Ordering};

use bson::doc;
use grammar::Program;
use machine::{Instance, Machine, Transcript};
use random::Random;

/// Programs in a run that asks for no number.
const PROGRAMS: u64 = 1500;
/// The seed of a run that names none.
const SEED: u64 = 20_261_129;
/// Programs that run one after another in the same instances: what one leaves behind, the next one finds.
const TOGETHER: u64 = 16;

fn number(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// A program with what it runs on.
struct Case {
    program: Program,
    sources: Vec<u8>,
    documents: Vec<u8>,
    groups: Vec<u8>,
}

impl Case {
    fn new(seed: &Random, index: u64) -> Self {
        let mut random = seed.fork(index);
        let program = grammar::program(&mut random);
        Self {
            sources: sources(&program.map, &program.reduce),
            program,
            documents: documents::documents(&mut random),
            groups: documents::groups(&mut random),
        }
    }

    fn run(&self, instance: &mut Instance) -> (Transcript, bool) {
        instance.run(&self.sources, &self.documents, &self.groups)
    }
}

fn sources(map: &str, reduce: &str) -> Vec<u8> {
    bson::serialize_to_vec(&doc! { "map": map, "reduce": reduce }).unwrap()
}

#[derive(Default)]
struct Counts {
    programs: AtomicU64,
    emitting: AtomicU64,
    emits: AtomicU64,
    catching: AtomicU64,
    failing: AtomicU64,
    endless: AtomicU64,
    known: AtomicU64,
}

impl Counts {
    fn add(&self, seen: &Transcript) {
        self.programs.fetch_add(1, Ordering::Relaxed);
        self.emitting.fetch_add(u64::from(seen.emits > 0), Ordering::Relaxed);
        self.emits.fetch_add(u64::from(seen.emits), Ordering::Relaxed);
        let caught = seen.bytes.windows(6).any(|bytes| bytes == b"caught");
        self.catching.fetch_add(u64::from(caught), Ordering::Relaxed);
        self.failing.fetch_add(u64::from(seen.failures > 0), Ordering::Relaxed);
    }

    fn share(&self, of: &AtomicU64) -> u64 {
        of.load(Ordering::Relaxed) * 100 / self.programs.load(Ordering::Relaxed).max(1)
    }
}

/// Runs some programs in the same two instances, or in new ones after one that failed.
fn compare(seed: &Random, first: u64, count: u64, counts: &Counts) -> Result<(), String> {
    let machine = Machine::shared();
    // Half of them emit into a table, for which one of the two adds up by itself.
    let table = (first / TOGETHER) % 2 == 1;
    let set_up = sources(grammar::SET_UP, "function () {}");
    let start = |fast| {
        let mut instance = machine.start(fast, table);
        let (seen, whole) = instance.run(&set_up, &[], &[]);
        assert!(whole, "{}", readable(&seen.bytes));
        instance
    };
    let pair = || (start(true), start(false));
    let mut instances = pair();
    let mut since = first;
    for index in first..first + count {
        let case = Case::new(seed, index);
        let (fast, whole) = case.run(&mut instances.0);
        let (slow, _) = case.run(&mut instances.1);
        counts.add(&slow);
        counts.known.fetch_add(std::mem::take(&mut instances.0.known_reduces), Ordering::Relaxed);
        if fast.endless || slow.endless {
            counts.endless.fetch_add(1, Ordering::Relaxed);
        } else if (&fast.bytes, fast.failures) != (&slow.bytes, slow.failures) {
            let mut text = format!(
                "program {index} does something else with the fast paths\n with:    {}\n without: {}\n",
                readable(&fast.bytes),
                readable(&slow.bytes)
            );
            for before in since..=index {
                let Program { map, reduce } = Case::new(seed, before).program;
                text.push_str(&format!("--- program {before}\nmap: {map}\nreduce: {reduce}\n"));
            }
            return Err(text);
        }
        if !whole {
            instances = pair();
            since = index + 1;
        }
    }
    Ok(())
}

fn readable(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| std::ascii::escape_default(*byte)).map(char::from).collect()
}

#[test]
fn programs_do_the_same_with_the_fast_paths_and_without() {
    let programs = number("AVIARY_JS_PROGRAMS", PROGRAMS);
    let seed = number("AVIARY_JS_SEED", SEED);
    let random = Random::new(seed);
    let counts = Counts::default();
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(32));
    let found = std::thread::scope(|scope| {
        let work = || {
            loop {
                let first = next.fetch_add(TOGETHER, Ordering::Relaxed);
                if first >= programs {
                    return Ok(());
                }
                if let Err(found) = compare(&random, first, TOGETHER.min(programs - first), &counts)
                {
                    next.store(programs, Ordering::Relaxed);
                    return Err(found);
                }
            }
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap())
    });
    println!(
        "{} programs of seed {seed}: {} % emit ({} pairs), {} % catch an exception, {} % fail, {} % reduce by what is known, {} do not end",
        counts.programs.load(Ordering::Relaxed),
        counts.share(&counts.emitting),
        counts.emits.load(Ordering::Relaxed),
        counts.share(&counts.catching),
        counts.share(&counts.failing),
        counts.share(&counts.known),
        counts.endless.load(Ordering::Relaxed),
    );
    if let Err(found) = found {
        panic!("seed {seed}: {found}");
    }
    assert!(counts.share(&counts.emitting) > 60, "too few of the programs do something");
    assert!(counts.share(&counts.known) > 10, "too few of the reduces are known");
}
