//! Job documents of which something is not what it should be.

use bson::{Bson, Document, doc};

use super::forged::{paths, set};
use super::{Scene, id_of, lives, odd};

#[tokio::test(flavor = "multi_thread")]
async fn jobs_with_any_field_of_any_type_stop_nothing() {
    let (scene, coordinator, worker) = Scene::start().await;
    // The server's validator would refuse some of them; whoever may write may take it away.
    let bare = doc! { "collMod": "aviary", "validator": {} };
    scene.bed.db().run_command(bare).await.expect("no validator");
    let mut hostile = Vec::new();
    let (mut turn, values) = (0, odd());
    for state in ["submitted", "mapping", "failed"] {
        for path in paths(&scene.forger.submitted(), &[]) {
            if matches!(path[0].as_str(), "_id" | "kind" | "shard") {
                continue;
            }
            // Each in turn: many of them are as good as an honest job's, and run.
            for _ in 0..2 {
                turn += 1;
                let value = values[turn % values.len()].clone();
                let mut job = scene.forger.submitted();
                job.extend(doc! { "state": state, "priority": i32::MAX });
                set(&mut job, &path, value);
                hostile.push(job);
            }
        }
        let mut empty = scene.forger.submitted();
        empty.extend(doc! { "state": state, "spec": {} });
        hostile.push(empty);
    }
    // Ids that are no job's, one of which has blocks of an honest job within its range.
    for id in ["", "x", "../..", "$", "a.b/c", "0123456789abcdef01234567/p0000"] {
        for state in ["submitted", "failed"] {
            let mut job = scene.forger.submitted();
            job.extend(doc! { "_id": format!("{id}{}", if state == "failed" { "" } else { "/" }), "state": state });
            hostile.push(job);
        }
    }
    let block = doc! {
        "_id": "0123456789abcdef01234567/p0000/00000/t/0000.00000",
        "shard": scene.forger.shard(), "data": 1,
    };
    let bare = doc! { "collMod": "aviary-intermediates", "validator": {} };
    scene.bed.db().run_command(bare).await.expect("no validator");
    let mut owner = scene.forger.submitted();
    owner.extend(doc! { "_id": "0123456789abcdef01234567", "state": "stopped" });
    scene.insert("aviary", vec![owner]).await;
    scene.insert("aviary-intermediates", vec![block.clone()]).await;
    assert!(hostile.len() > 200, "{}", hostile.len());
    scene.insert("aviary", hostile).await;
    for _ in 0..3 {
        scene.honest().await;
    }
    lives(&coordinator);
    lives(&worker);
    let kept =
        scene.bed.coll("aviary-intermediates").find_one(doc! { "_id": block.get("_id") }).await;
    assert!(kept.expect("asked").is_some(), "a job's block was taken for another's");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_great_many_small_parts_take_no_memory() {
    let (scene, coordinator, worker) = Scene::start().await;
    let before = super::peak_mb(&coordinator);
    // As many nulls as a document holds: some 6 MB stored, half a gigabyte as values of a program.
    let nulls: Document = (0..500_000).map(|n| (n.to_string(), Bson::Null)).collect();
    let mut ids = Vec::new();
    for _ in 0..2 {
        let mut job = scene.forger.submitted();
        job.insert("priority", i32::MAX);
        job.get_document_mut("spec").unwrap().insert("scope", nulls.clone());
        ids.push(id_of(&job));
        scene.insert("aviary", vec![job]).await;
    }
    scene.honest().await;
    scene.honest().await;
    let after = super::peak_mb(&coordinator);
    assert!(after < before + 150, "{before} MiB before, {after} MiB after");
    let told = scene.bed.aviary(&["status", &ids[0]]).await;
    assert_eq!(told.code, 8, "{told:#?}");
    assert!(told.stderr.contains("more than"), "{told:#?}");
    lives(&coordinator);
    lives(&worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_jobs_in_any_state_hides_no_other() {
    let (scene, coordinator, worker) = Scene::start().await;
    let mut crowd = Vec::new();
    for state in ["mapping", "reducing", "publishing"] {
        for _ in 0..100 {
            let mut job = scene.forger.submitted();
            // Nothing will ever be done of it, since it waits for a task that is not there.
            job.extend(doc! {
                "state": state, "plan": 1, "map_tasks": 1_i64, "reduce_tasks": 1_i64, "priority": i32::MAX,
                "publish": { "uuid": "none" }, "snapshot": bson::Timestamp { time: 1, increment: 1 },
            });
            crowd.push(job);
        }
    }
    scene.insert("aviary", crowd).await;
    scene.honest().await;
    lives(&coordinator);
    lives(&worker);
}
