//! Attacks by everybody whom SECURITY.md names, on real servers, and what becomes of them.
//!
//! The suite looks from outside only, at effects: what was read or changed that should not be, whether the processes
//! live and an honest job beside the attack comes to its right result, how much memory was taken, what was printed, what was
//! run. Nothing depends on a message. So it runs against any version of the program, and proves itself both ways:
//!
//! * `cargo test --test attacks -- --nocapture` tries all on the binary under test, and none may succeed;
//! * with `AVIARY_ATTACKED=PROGRAM` it tries them on another program, one from before the mends, and all must succeed.
//!
//! Both print a table. `AVIARY_ATTACKS=WORDS` tries only those attacks whose "role: name" contains the words. An attack that
//! needs a program that is not there is not tried; with `CI` set that is a failure.

#![cfg(test)]

mod author;
#[path = "../tls/certificates.rs"]
mod certificates;
#[path = "../common/mod.rs"]
mod common;
mod documents;
#[path = "../tls/door.rs"]
mod door;
mod flood;
#[path = "../common/forged.rs"]
mod forged;
mod forgery;
mod local;
mod modules;
mod network;
mod stage;
mod submitter;
mod terminal;

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};

use common::attacked;
use stage::Stage;

/// Who attacks: the first table of SECURITY.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Writes functions.
    Author,
    /// Inserts requests, or runs `aviary submit`.
    Submitter,
    /// Writes documents into any collection of the database.
    Database,
    /// Has an account on the machine.
    Local,
    /// Is on the way between processes and servers.
    Network,
    /// Wrote what is shown.
    Terminal,
}

impl Role {
    const ALL: [Self; 6] =
        [Self::Author, Self::Submitter, Self::Database, Self::Local, Self::Network, Self::Terminal];

    fn name(self) -> &'static str {
        match self {
            Self::Author => "function author",
            Self::Submitter => "submitter",
            Self::Database => "database user",
            Self::Local => "local user",
            Self::Network => "network",
            Self::Terminal => "terminal",
        }
    }
}

/// What became of an attack, and what shows it.
#[derive(Debug)]
pub enum Outcome {
    /// Nothing came of it.
    Held(String),
    /// It did what it was to do.
    Succeeded(String),
    /// It was not tried, for want of something.
    Untried(&'static str),
}

impl Outcome {
    /// It succeeded if this happened.
    pub fn if_true(succeeded: bool, evidence: impl Into<String>) -> Self {
        if succeeded { Self::Succeeded(evidence.into()) } else { Self::Held(evidence.into()) }
    }
}

/// One attack.
pub struct Attack {
    /// Who attacks.
    pub role: Role,
    /// What it is, in words.
    pub name: &'static str,
    /// Attacks.
    pub run: for<'a> fn(&'a Stage) -> BoxFuture<'a, Outcome>,
}

/// Attacks that have a deployment together.
struct Act {
    attacks: &'static [Attack],
    /// Whether they may hurt daemons, so that an honest job is run after each, not only after all.
    on_daemons: bool,
}

static ACTS: [Act; 8] = [
    Act { attacks: documents::ATTACKS, on_daemons: true },
    Act { attacks: flood::ATTACKS, on_daemons: true },
    Act { attacks: author::ATTACKS, on_daemons: true },
    Act { attacks: forgery::ATTACKS, on_daemons: true },
    Act { attacks: submitter::ATTACKS, on_daemons: true },
    Act { attacks: local::ATTACKS, on_daemons: false },
    Act { attacks: network::ATTACKS, on_daemons: false },
    Act { attacks: terminal::ATTACKS, on_daemons: false },
];

/// Acts at once: much of each is waiting.
const ACTS_AT_ONCE: usize = 3;
/// The suite is no smaller than this.
const ATTACKS_MIN: usize = 40;

/// What a row says that became of an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Became {
    Held,
    Succeeded,
    Untried,
    /// It panicked, so nobody knows.
    Unclear,
}

struct Row {
    role: Role,
    name: &'static str,
    became: Became,
    evidence: String,
}

impl Row {
    fn new(attack: &Attack, outcome: Result<Outcome, String>) -> Self {
        let (became, evidence) = match outcome {
            Ok(Outcome::Held(evidence)) => (Became::Held, evidence),
            Ok(Outcome::Succeeded(evidence)) => (Became::Succeeded, evidence),
            Ok(Outcome::Untried(what)) => (Became::Untried, format!("there is no {what}")),
            Err(why) => (Became::Unclear, why),
        };
        Self { role: attack.role, name: attack.name, became, evidence }
    }

    fn print(&self) {
        let became = match self.became {
            Became::Held => "held",
            Became::Succeeded => "SUCCEEDED",
            Became::Untried => "not tried",
            Became::Unclear => "UNCLEAR",
        };
        let evidence: String = self.evidence.escape_debug().take(110).collect();
        println!("{:<16}| {:<70}| {became:<10}| {evidence}", self.role.name(), self.name);
    }

    fn is_as(&self, expected: Became) -> bool {
        let excused = self.became == Became::Untried && std::env::var_os("CI").is_none();
        self.became == expected || excused
    }
}

/// A panic's text.
fn told(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned()
}

async fn act(act: &Act) -> Vec<Row> {
    let only = std::env::var("AVIARY_ATTACKS").unwrap_or_default();
    let named = |attack: &&Attack| format!("{}: {}", attack.role.name(), attack.name);
    let wanted: Vec<&Attack> =
        act.attacks.iter().filter(|attack| named(attack).contains(&only)).collect();
    let Some(last) = wanted.last() else { return Vec::new() };
    let stage = Stage::open().await;
    let mut rows = Vec::new();
    for attack in &wanted {
        let began = Instant::now();
        let tried = AssertUnwindSafe((attack.run)(&stage)).catch_unwind().await;
        let mut outcome = tried.map_err(|panic| told(&*panic));
        if act.on_daemons || std::ptr::eq(*attack, *last) || outcome.is_err() {
            let unharmed = AssertUnwindSafe(stage.unharmed()).catch_unwind().await;
            let harm = unharmed.unwrap_or_else(|panic| Err(told(&*panic))).err();
            if let Some(harm) = harm {
                // What an attack has done by itself says more than what it did to others.
                if !matches!(outcome, Ok(Outcome::Succeeded(_))) {
                    outcome = Ok(Outcome::Succeeded(harm));
                }
                stage.begin_again().await;
            }
        }
        let row = Row::new(attack, outcome);
        print!("{:>4} s ", began.elapsed().as_secs());
        row.print();
        rows.push(row);
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn no_attack_succeeds() {
    let acts = futures_util::stream::iter(ACTS.iter().map(act));
    let rows: Vec<Vec<Row>> = acts.buffer_unordered(ACTS_AT_ONCE).collect().await;
    let mut rows: Vec<Row> = rows.into_iter().flatten().collect();
    rows.sort_by_key(|row| row.role);
    println!("\n{:<16}| {:<70}| {:<10}| evidence", "role", "attack", "became");
    for row in &rows {
        row.print();
    }
    let counted = |became| rows.iter().filter(|row| row.became == became).count();
    println!(
        "{} attacks: {} held, {} succeeded, {} not tried, {} unclear",
        rows.len(),
        counted(Became::Held),
        counted(Became::Succeeded),
        counted(Became::Untried),
        counted(Became::Unclear)
    );
    if std::env::var_os("AVIARY_ATTACKS").is_none() {
        assert!(rows.len() >= ATTACKS_MIN);
        assert!(Role::ALL.iter().all(|role| rows.iter().any(|row| row.role == *role)));
    }
    let expected = if attacked().is_some() { Became::Succeeded } else { Became::Held };
    let wrong: Vec<&str> =
        rows.iter().filter(|row| !row.is_as(expected)).map(|row| row.name).collect();
    assert!(wrong.is_empty(), "not as expected: {wrong:#?}");
}
