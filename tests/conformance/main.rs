//! MongoDB's `mapReduce` jobs, unchanged: each case is run by the server itself and by Aviary on the same
//! data, and what they put out is compared by BSON type and value.
//!
//! `cargo test --test conformance -- --nocapture` prints the table. A case that differs on purpose says
//! why, and what Aviary does instead. It must differ: otherwise its reason is out of date.

#![cfg(test)]

mod case;
mod cases;
#[path = "../common/mod.rs"]
mod common;
mod data;
mod mongosh;
mod reasons;
mod run;
mod sweeps;

use std::collections::BTreeMap;
use std::sync::Arc;

use bson::doc;
use case::{Case, Expect};
use common::Bed;
use run::Found;
use tokio::sync::Semaphore;

/// Cases that run at the same time: each is mostly waiting.
const AT_ONCE: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_mongodb_give_what_mongodb_gives() {
    let bed = Arc::new(Bed::start(1).await);
    let _coordinator = bed.coordinator();
    let _worker = bed.spawn("worker", &["worker", "--slots", "4"], &[]);
    data::load(&bed).await;
    // The cases that never end would keep the server for a minute each.
    let set = doc! { "setParameter": 1, "internalQueryJavaScriptFnTimeoutMillis": 10_000 };
    bed.set().run_admin(set).await.expect("set");
    bed.aviary(&["init"]).await.ok();
    let version = bed.version().await;
    let cases: Vec<Case> = cases::all().into_iter().filter(|case| case.since <= version).collect();
    let names: std::collections::HashSet<_> = cases.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), cases.len(), "each case has a name of its own");
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = Vec::new();
    for case in cases {
        let (bed, room) = (bed.clone(), room.clone());
        running.push(tokio::spawn(async move {
            let _place = room.acquire_owned().await.expect("open");
            let found = run::both(&bed, &case).await;
            (case, found)
        }));
    }
    let mut rows = Vec::new();
    for case in running {
        rows.push(case.await.expect("a case runs"));
    }
    let unexplained = print(&rows);
    assert!(rows.len() >= 60, "{} cases are too few", rows.len());
    assert!(unexplained.is_empty(), "unexplained:\n{}", unexplained.join("\n"));
}

/// Prints the table and returns what nobody has explained.
fn print(rows: &[(Case, Found)]) -> Vec<String> {
    let (mut equal, mut unexplained, mut on_purpose) = (0, Vec::new(), Vec::new());
    for (case, found) in rows {
        let shown = match (&case.expect, found) {
            (Expect::Same, Found::Same(what)) => {
                equal += 1;
                what.clone()
            }
            (Expect::Fails(_), Found::BothRefuse) => {
                equal += 1;
                "both refuse".into()
            }
            (Expect::Differs(why, _), Found::Different(how)) => {
                assert!(!how.is_empty());
                on_purpose.push(format!("  {}: {why}", case.name));
                "different on purpose".into()
            }
            (Expect::Differs(why, _), Found::Otherwise(how)) => {
                unexplained.push(format!("{}: it differs ({why}), but {how}", case.name));
                "UNEXPLAINED".into()
            }
            (expected, found) => {
                unexplained.push(format!("{}: expected {expected:?}, found {found:#?}", case.name));
                "UNEXPLAINED".into()
            }
        };
        println!("{:<44} {shown}", case.name);
    }
    println!(
        "\n{} cases: {equal} equal, {} different on purpose, {} unexplained",
        rows.len(),
        on_purpose.len(),
        unexplained.len()
    );
    println!("{}", on_purpose.join("\n"));
    unexplained
}

#[tokio::test(flavor = "multi_thread")]
async fn sweeps_give_what_mongodb_gives() {
    let bed = Bed::start(1).await;
    let _coordinator = bed.coordinator();
    let _worker = bed.spawn("worker", &["worker", "--slots", "1"], &[]);
    bed.aviary(&["init"]).await.ok();
    let rows = sweeps::run(&bed).await;
    let (mut equal, mut on_purpose, mut unexplained) = (0, BTreeMap::<_, usize>::new(), Vec::new());
    for (name, row) in &rows {
        let different: usize = row.on_purpose.values().sum();
        println!("{name:<60} {:>5} equal {different:>4} on purpose", row.equal);
        equal += row.equal;
        for (reason, count) in &row.on_purpose {
            *on_purpose.entry(*reason).or_default() += count;
        }
        unexplained.extend(row.unexplained.iter().cloned());
    }
    let different: usize = on_purpose.values().sum();
    println!(
        "\n{} cases of {} expressions: {equal} equal, {different} different on purpose, {} unexplained",
        rows.len(),
        equal + different + unexplained.len(),
        unexplained.len()
    );
    for (reason, count) in &on_purpose {
        println!("{count:>6}  {reason}");
    }
    assert!(unexplained.is_empty(), "unexplained:\n{}", unexplained.join("\n"));
    assert!(rows.len() >= 300, "{} cases are too few", rows.len());
    assert!(equal >= 40_000, "{equal} equal expressions are too few");
    let docs = std::fs::read_to_string(common::root().join("docs/reference/javascript.md"))
        .expect("the docs");
    for reason in reasons::REASONS {
        // Which arguments a C library rounds wrongly depends on the machine.
        let may_be_unused = reason.says.starts_with("sin, cos");
        assert!(
            may_be_unused || on_purpose.contains_key(reason.says),
            "nothing differs for {:?} any more",
            reason.says
        );
        assert!(docs.contains(&format!("| {} |", reason.says)), "the docs lack {:?}", reason.says);
    }
}
