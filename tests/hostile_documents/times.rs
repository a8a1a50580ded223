//! Times that a job asks for, and what a worker obeys whatever these are.

use super::common::{ceiling, wait_for};
use super::{Scene, id_of, lives};
use bson::doc;

const ENDLESS: &str = "function () { console.log('begun'); while (true); }";

async fn running(scene: &Scene, id: &str) {
    wait_for("the function to run", || async {
        let said = doc! { "job": id, "kind": "log" };
        scene.bed.coll("aviary").find_one(said).await.expect("asked")
    })
    .await;
}

async fn endless(scene: &Scene) -> String {
    let map = scene.bed.file("endless.js", ENDLESS).display().to_string();
    let args = [
        "submit",
        "-q",
        "-o",
        "name",
        "-c",
        "few",
        "--map",
        &map,
        "--record-timeout",
        "12h",
        "--detach",
    ];
    scene.bed.aviary(&args).await.ok().stdout.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_stops_when_told_to_whatever_time_a_record_has() {
    let (scene, coordinator, worker) = Scene::start().await;
    let id = endless(&scene).await;
    running(&scene, &id).await;
    worker.terminate().expect("it runs");
    worker.wait_gone(ceiling()).await.expect("it ends");
    let task = scene.find(&format!("{id}/map/1.00000")).await;
    assert_eq!(task.get_str("state").unwrap(), "ready", "{task}");
    assert_eq!(task.get_i32("attempts").unwrap(), 0, "{task}");
    lives(&coordinator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_ends_with_its_lease_whatever_time_a_record_has() {
    let (scene, coordinator, worker) = Scene::start().await;
    for _ in 0..3 {
        let id = endless(&scene).await;
        running(&scene, &id).await;
        scene.bed.aviary(&["cancel", &id]).await.ok();
        scene.honest().await;
    }
    // Nothing computes any more.
    let spent = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", worker.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    wait_for("the worker to be idle", || async {
        let before = spent();
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        // In hundredths of a second; a function that goes on takes a whole one.
        (spent() - before < 50).then_some(())
    })
    .await;
    assert!(!worker.log().expect("a log").contains("going on without it"));
    lives(&coordinator);
    lives(&worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_asks_for_has_caps_that_a_fleet_can_lower() {
    let flags = ["--cap-record-timeout", "1m", "--cap-partitions", "8", "--cap-memory-mb", "256"];
    let (scene, coordinator, worker) = Scene::with(&flags, &[]).await;
    for (more, words) in [
        (
            &["--record-timeout", "10000days"][..],
            &["--record-timeout", "864000000000", "86400000"][..],
        ),
        (&["--task-timeout", "10000days"], &["--task-timeout", "604800000"]),
        (&["--record-output", "99999999999"], &["--record-output", "1073741824"]),
    ] {
        let ran = scene.submit(more).await;
        assert_eq!(ran.code, 2, "{ran:#?}");
        for word in words {
            assert!(ran.stderr.contains(word), "{word:?} is missing: {ran:#?}");
        }
    }
    for (more, words) in [
        (
            &["--record-timeout", "2m"][..],
            &["spec.limits.record_timeout_ms", "120000", "60000", "--cap-record-timeout"][..],
        ),
        (&["--partitions", "9"], &["spec.partitions", "9", "8", "--cap-partitions"]),
        (&["--memory-mb", "257"], &["spec.limits.memory_mb", "257", "256", "--cap-memory-mb"]),
    ] {
        let ran = scene.submit(more).await;
        assert_eq!(ran.code, 8, "{ran:#?}");
        for word in words {
            assert!(ran.stderr.contains(word), "{word:?} is missing: {ran:#?}");
        }
    }
    scene.honest().await;
    let mut job = scene.forger.submitted();
    job.get_document_mut("spec")
        .unwrap()
        .get_document_mut("limits")
        .unwrap()
        .insert("record_timeout_ms", 60_001_i64);
    let id = id_of(&job);
    scene.insert("aviary", vec![job]).await;
    assert!(scene.failed(&id).await.contains("--cap-record-timeout"));
    lives(&coordinator);
    lives(&worker);
}
