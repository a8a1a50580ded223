//! A command whose write took effect never reports that it failed, and doing it once is never doing it twice.

use crate::common::{Bed, Ran, wait_for};
use aviary_testcontainers::{FailCommand, ReplicaSetOptions};
use bson::{Document, doc};

/// `WriteConcernFailed`: the write is done, and the driver reports an error without trying again.
const NOT_SAFE_YET: i32 = 64;

async fn bed() -> Bed {
    let options = ReplicaSetOptions { test_commands: true, ..ReplicaSetOptions::default() };
    let bed = Bed::with(options).await;
    bed.load("few", (0..40).map(|n| doc! { "_id": n, "g": n % 4 }).collect()).await;
    bed.aviary(&["init"]).await.ok();
    bed
}

/// The ways in which writes of one client go wrong, for a few times each.
fn troubles(app_name: &str) -> [FailCommand; 2] {
    // The driver itself repeats a write once over a new connection.
    const TIMES: u32 = 3;
    let commands = [
        "insert",
        "update",
        "delete",
        "findAndModify",
        "create",
        "collMod",
        "createIndexes",
        "drop",
        "setParameter",
    ];
    let fail = FailCommand {
        commands: commands.iter().map(|&command| command.to_owned()).collect(),
        app_name: Some(app_name.to_owned()),
        times: Some(TIMES),
        ..FailCommand::default()
    };
    [
        FailCommand { write_concern_error: Some(NOT_SAFE_YET), ..fail.clone() },
        FailCommand { close_connection: true, ..fail },
    ]
}

/// Runs a verb while its writes fail, and makes sure that some did.
async fn troubled(bed: &Bed, fail: &FailCommand, args: &[&str]) -> Ran {
    bed.set().fail_command(0, fail).await.expect("set");
    let ran = bed.aviary(args).await;
    let hit = bed.set().clear_fail_command(0).await.expect("cleared");
    assert!(hit > 0, "no write was hit: {args:?} {ran:#?}");
    ran
}

async fn jobs(bed: &Bed) -> Vec<Document> {
    let jobs = bed.all("aviary").await;
    jobs.into_iter().filter(|job| job.get_str("kind").is_ok_and(|kind| kind == "job")).collect()
}

fn submit(map: &str) -> [&str; 10] {
    [
        "submit",
        "-q",
        "--detach",
        "-c",
        "few",
        "--map",
        map,
        "--reduce",
        "_count",
        "--out=replace:target",
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_write_was_reported_as_failed_is_submitted_once_under_the_id_that_is_printed() {
    let bed = bed().await;
    let map = bed.file("map.js", "function () { emit(this.g, 1); }");
    let map = map.to_str().unwrap();
    // Only the request is inserted; the function and the collections are there already.
    bed.aviary(&["insert", map]).await.ok();
    let mut submitted = 0;
    for trouble in troubles("aviary-submit") {
        for times in [1, 3, 5] {
            let fail = FailCommand {
                commands: vec!["insert".into()],
                times: Some(times),
                ..trouble.clone()
            };
            let ran = troubled(&bed, &fail, &submit(map)).await.ok();
            submitted += 1;
            let jobs = bed.all("aviary-requests").await;
            assert_eq!(jobs.len(), submitted, "{fail:?}: {ran:#?}");
            let id = ran.stdout.trim();
            assert!(
                jobs.iter().any(|job| job.get_str("_id").is_ok_and(|known| known == id)),
                "{id}: {jobs:#?}"
            );
        }
    }
    // And each of them runs.
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    for job in bed.all("aviary-requests").await {
        bed.aviary(&["status", "-w", job.get_str("_id").unwrap()]).await.ok();
    }
    assert_eq!(bed.all("target").await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_written_is_submitted_though_its_answer_cannot_be_read() {
    const STEPPED_DOWN: i32 = 189;
    let bed = bed().await;
    let map = bed.file("map.js", "function () { emit(this.g, 1); }");
    let fail = FailCommand {
        commands: vec!["find".into()],
        app_name: Some("aviary-submit".into()),
        namespace: Some("test.aviary-requests".into()),
        error_code: Some(STEPPED_DOWN),
        ..FailCommand::default()
    };
    let ran = troubled(&bed, &fail, &submit(map.to_str().unwrap())).await.ok();
    let (id, requests) = (ran.stdout.trim(), bed.all("aviary-requests").await);
    assert!(
        requests.len() == 1 && requests[0].get_str("_id").is_ok_and(|known| known == id),
        "{ran:#?} {requests:#?}"
    );
    assert!(ran.stderr.contains(&format!("the answer to {id} cannot be read yet")), "{ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_it_cannot_be_known_the_error_names_the_id_and_the_danger() {
    let bed = bed().await;
    let map = bed.file("map.js", "function () { emit(this.g, 1); }");
    let [_, closed] = troubles("aviary-submit");
    let fail = FailCommand { commands: vec!["insert".into()], times: None, ..closed };
    let ran = troubled(&bed, &fail, &submit(map.to_str().unwrap())).await;
    assert_eq!(ran.code, 6, "{ran:#?}");
    let (_, rest) = ran.stderr.split_once("aviary status ").expect("what to do");
    let id = rest.split('`').next().unwrap();
    assert_eq!(id.len(), 24, "{ran:#?}");
    assert!(ran.stderr.contains(&format!("not known whether job {id} was submitted")), "{ran:#?}");
    assert!(ran.stderr.contains("submitting again may run it twice"), "{ran:#?}");
    assert_eq!(bed.aviary(&["status", id]).await.code, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_verb_that_writes_ends_well_when_its_write_took_effect() {
    let bed = bed().await;
    let map = bed.file("map.js", "function () { emit(this.g, 1); }");
    let other = bed.file("other.js", "function () { emit(this.g, 2); }");
    let (map, other) = (map.to_str().unwrap(), other.to_str().unwrap());
    for n in 0..2 {
        let trouble = |app_name: &str| troubles(app_name).into_iter().nth(n).unwrap();

        bed.db().drop().await.expect("dropped");
        troubled(&bed, &trouble("aviary-init"), &["init"]).await.ok();
        bed.load("few", vec![doc! { "_id": 1, "g": 1 }]).await;

        // The second one leads the name elsewhere, once.
        for (file, version) in [(map, 1), (other, 2)] {
            let insert = ["insert", "-o", "json", "--name", "count", file];
            let ran = troubled(&bed, &trouble("aviary-insert"), &insert).await.ok();
            assert_eq!(ran.json()[0]["version"], version, "{ran:#?}");
        }
        let rm = ["functions", "rm", "count"];
        troubled(&bed, &trouble("aviary-functions"), &rm).await.ok();
        let names = bed.aviary(&["functions", "-o", "json"]).await.ok().json();
        assert_eq!(names.len(), 1, "{names:#?}");
        assert_eq!(names[0]["names"][0], "count", "{names:#?}");

        let job = troubled(&bed, &trouble("aviary-submit"), &submit("count")).await.ok().stdout;
        let job = job.trim();
        // It has to be there to be cancelled, and nobody is to run it.
        let coordinator = bed.coordinator();
        wait_for("the job", || async { (!jobs(&bed).await.is_empty()).then_some(()) }).await;
        coordinator.stop(crate::common::ceiling()).await.unwrap();
        let told = troubled(&bed, &trouble("aviary-cancel"), &["cancel", job]).await.ok();
        assert!(told.stderr.contains("is cancelled"), "{told:#?}");
        troubled(&bed, &trouble("aviary-rm"), &["rm", job]).await.ok();
        assert_eq!(jobs(&bed).await.len(), 0);
    }
}
