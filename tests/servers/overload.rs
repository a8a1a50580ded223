//! A server that has too much to do, or whose cluster is changing its version, says so with codes and labels that older
//! ones do not have. It passes, and costs no job anything but time.

use aviary_testcontainers::{FailCommand, ReplicaSetOptions};
use bson::doc;

use crate::common::Bed;
use crate::jobs::{counted, ended, load, submit};

const COUNT: i32 = 210;
/// Refusals of each kind: more than a driver repeats by itself.
const TIMES: u32 = 12;
/// What the daemons send, but for `hello` and the like.
const COMMANDS: [&str; 8] = [
    "find",
    "getMore",
    "insert",
    "update",
    "aggregate",
    "findAndModify",
    "listCollections",
    "renameCollection",
];
/// A code that no list has.
const UNHEARD_OF: i32 = 31_999;

#[tokio::test(flavor = "multi_thread")]
async fn no_job_fails_because_a_server_has_too_much_to_do_or_changes_its_version() {
    let options = ReplicaSetOptions { test_commands: true, ..ReplicaSetOptions::default() };
    let bed = Bed::with(options).await;
    load(&bed, "test", "docs", COUNT).await;
    let (_coordinator, _worker) = (bed.coordinator(), bed.worker());
    ended(&bed, &submit(&bed, "test", "first").await).await.ok();

    let labelled = [
        (UNHEARD_OF, vec!["RetryableError"]),
        (UNHEARD_OF, vec!["SystemOverloadedError"]),
        (462, vec!["SystemOverloadedError", "RetryableError"]),
    ];
    // One of overload, one of a change of version; `store/error.rs` has all of them.
    let plain = [433, 406].map(|code| (code, Vec::new()));
    for (code, labels) in labelled.into_iter().chain(plain) {
        for daemon in ["aviary-worker", "aviary-coordinator"] {
            let what = format!("{code} {labels:?} to {daemon}");
            let fail = FailCommand {
                commands: COMMANDS.map(str::to_owned).to_vec(),
                app_name: Some(daemon.to_owned()),
                error_code: Some(code),
                error_labels: labels.iter().map(|label| (*label).to_owned()).collect(),
                times: Some(TIMES),
                ..FailCommand::default()
            };
            bed.set().fail_command(0, &fail).await.expect("a fail point");
            let id = submit(&bed, "test", "out").await;
            let ended = ended(&bed, &id).await;
            assert_eq!(ended.code, 0, "{what}: {ended:#?}");
            assert_eq!(counted(&bed, "out").await, i64::from(COUNT), "{what}");
            let failed = doc! { "job": &id, "history.outcome": "failed" };
            let failed = bed.coll("aviary").find_one(failed).await.expect("read");
            assert_eq!(failed, None, "{what}: no attempt counts as failed");
            let fired = bed.set().clear_fail_command(0).await.expect("cleared");
            assert!(fired >= i64::from(TIMES), "{what}: refused {fired} times");
        }
    }
}
