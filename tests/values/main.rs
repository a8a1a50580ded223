//! Values that come out wrong elsewhere: text that is not UTF-8, dates of any year, keys and fields that servers treat
//! in their own way, documents that look like something else.
//!
//! Each case has a reference: the server's own `mapReduce` on the same documents, its aggregation, or the
//! specifications of BSON and extended JSON. `cargo test --test values -- --nocapture` prints the table. A case is
//! equal, better (Aviary gives what the server refuses or loses, for the reason that it names), or different on purpose.
//! One that differs otherwise fails the suite, and so does one whose reason is out of date.

#![cfg(test)]

mod cases;
#[path = "../common/mod.rs"]
mod common;
mod run;

use std::collections::HashMap;

use cases::{Case, What};
use common::Bed;
use run::{Outcome, Place};

/// What is expected of a case.
#[derive(Debug, Clone, Copy)]
pub enum Expect {
    /// Both give the same, or Aviary gives what the specification says.
    Equal,
    /// Both refuse, and Aviary's words are these.
    BothRefuse(&'static str),
    /// The server refuses, or loses a value.
    Better(&'static str),
    /// Aviary refuses with these words, for this reason.
    Refuses(&'static str, &'static str),
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_the_servers_or_the_specifications() {
    let bed = Bed::start(1).await;
    let _coordinator = bed.coordinator();
    let _worker = bed.spawn("worker", &["worker", "--slots", "2"], &[]);
    bed.aviary(&["init"]).await.ok();
    let cases = cases::all();
    let names: std::collections::HashSet<_> = cases.iter().map(|case| &case.name).collect();
    assert_eq!(names.len(), cases.len(), "each case has a name of its own");
    assert!(cases.len() >= 60, "{} cases are too few", cases.len());
    let (mut equal, mut better, mut on_purpose, mut unexplained) = (0, 0, Vec::new(), Vec::new());
    let mut together = together(&bed, &cases).await;
    for (n, case) in cases.iter().enumerate() {
        let found = match together.remove(&n) {
            Some(found) => found,
            None => Place { bed: &bed, name: format!("values_{n}") }.run(&case.what).await,
        };
        let shown = match (case.expect, &found) {
            (Expect::Equal, Outcome::Same) => {
                equal += 1;
                "equal".to_owned()
            }
            (Expect::BothRefuse(words), Outcome::BothRefuse(ours)) if ours.contains(words) => {
                equal += 1;
                "equal, both refuse".to_owned()
            }
            (Expect::Better(why), Outcome::OnlyOurs | Outcome::Differs(_)) => {
                better += 1;
                format!("better: {why}")
            }
            (Expect::Refuses(words, why), Outcome::OnlyTheirs(ours)) if ours.contains(words) => {
                on_purpose.push(why);
                format!("different on purpose: {why}")
            }
            (expected, found) => {
                let told = format!("expected {expected:?}, found {found}");
                unexplained.push(format!("{}: {told}", case.name));
                format!("UNEXPLAINED: {told}")
            }
        };
        println!("{:<58} {shown}", case.name);
    }
    println!(
        "\n{} cases: {equal} equal, {better} better, {} different on purpose, {} unexplained",
        cases.len(),
        on_purpose.len(),
        unexplained.len()
    );
    assert!(unexplained.is_empty(), "unexplained:\n{}", unexplained.join("\n"));
}

/// What becomes of the cases of which many go through one job, by number.
async fn together(bed: &Bed, cases: &[Case]) -> HashMap<usize, Outcome> {
    let place = |name: &str| Place { bed, name: format!("values_{name}") };
    let mut found = HashMap::new();
    for wanted in ["_min", "_max"] {
        let sets = cases.iter().enumerate().filter_map(|(n, case)| match &case.what {
            What::Extreme { values, builtin } if *builtin == wanted => Some((n, values.as_slice())),
            _ => None,
        });
        let (numbers, sets): (Vec<_>, Vec<_>) = sets.unzip();
        found.extend(numbers.into_iter().zip(place(wanted).extremes(&sets, wanted).await));
    }
    let printed = cases.iter().enumerate().filter_map(|(n, case)| match &case.what {
        What::Printed { value, text } => Some((n, (value, text.as_str()))),
        _ => None,
    });
    let (numbers, values): (Vec<_>, Vec<_>) = printed.unzip();
    found.extend(numbers.into_iter().zip(place("printed").printed(&values).await));
    let read = cases.iter().enumerate().filter_map(|(n, case)| match &case.what {
        What::Read { line, text } => Some((n, (*line, *text))),
        _ => None,
    });
    let (numbers, lines): (Vec<_>, Vec<_>) = read.unzip();
    found.extend(numbers.into_iter().zip(place("read").read(&lines).await));
    found
}
