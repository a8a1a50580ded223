//! Writes that take effect while the server says that they may not last: what was written is met again by
//! the next try, and neither counts twice nor fails anything.

use aviary_testcontainers::{FailCommand, ReplicaSetOptions};

use crate::common::Bed;
use crate::jobs::{self, Ask};

/// `WriteConcernFailed`, which the driver itself does not try again.
const NOT_SAFE_YET: i32 = 64;
/// So many writes in a row; a batch may be among them several times.
const TIMES: u32 = 12;

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_are_not_safe_yet_are_tried_again() {
    let options = ReplicaSetOptions { test_commands: true, ..ReplicaSetOptions::default() };
    let bed = Bed::with(options).await;
    jobs::load_few(&bed).await;
    let coordinator = bed.spawn("coordinator", &["coordinator"], &[("AVIARY_SPLIT_BYTES", "9000")]);
    let worker = bed.worker();
    let calm = Ask::new("few", "calm").submit(&bed).await;
    jobs::succeeded(&bed, &calm).await;

    for writer in ["aviary-coordinator", "aviary-worker"] {
        for commands in [&["insert"][..], &["update"], &["insert", "update"]] {
            let output = format!("of-{writer}-{}", commands.concat());
            let fail = FailCommand {
                commands: commands.iter().map(|&command| command.to_owned()).collect(),
                app_name: Some(writer.to_owned()),
                times: Some(TIMES),
                write_concern_error: Some(NOT_SAFE_YET),
                ..FailCommand::default()
            };
            bed.set().fail_command(0, &fail).await.expect("set");
            let id = Ask::new("few", &output).submit(&bed).await;
            jobs::succeeded(&bed, &id).await;
            let hit = bed.set().clear_fail_command(0).await.expect("cleared");
            assert!(hit > 0, "{output}: no write was hit");
            assert_eq!(bed.all(&output).await, bed.all("calm").await, "{output}");
            for task in jobs::tasks(&bed, &id).await {
                let outcomes = jobs::outcomes(&task);
                assert!(!outcomes.contains(&"failed".to_owned()), "{output}: {task:#?}");
            }
        }
    }
    jobs::nothing_left(&bed).await;
    jobs::stop(&worker).await;
    jobs::stop(&coordinator).await;
}
