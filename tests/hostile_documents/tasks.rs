//! Task documents in front of everybody else's.

use bson::{Bson, Document, doc};

use super::common::wait_for;
use super::{Scene, fresh, lives, odd};

/// Submits a job and waits until its tasks could be claimed; nobody claims them.
async fn waiting_job(scene: &Scene) -> String {
    let ran = scene.submit(&["--out", "replace:late", "--detach"]).await.ok();
    let id = ran.stdout.trim().to_owned();
    wait_for("the job's tasks", || async {
        let ready = doc! { "job": &id, "kind": "map", "state": "ready" };
        scene.bed.coll("aviary").find_one(ready).await.expect("asked")
    })
    .await;
    id
}

async fn ends(scene: &Scene, id: &str) {
    let job = wait_for("the job to end", || async {
        let job = scene.find(id).await;
        let ended =
            job.get_str("state").is_ok_and(|s| matches!(s, "succeeded" | "failed" | "cancelled"));
        ended.then_some(job)
    })
    .await;
    assert_eq!(job.get_str("state").unwrap(), "succeeded", "{job}");
    assert_eq!(scene.bed.all("late").await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_cannot_be_claimed_hide_no_others() {
    let (scene, coordinator, worker) = Scene::start().await;
    worker.terminate().expect("it runs");
    worker.wait_gone(super::common::ceiling()).await.expect("it ends");
    let id = waiting_job(&scene).await;
    // Whoever submits brings the validator up to date.
    let bare = doc! { "collMod": "aviary", "validator": {} };
    scene.bed.db().run_command(bare).await.expect("no validator");
    let mut hostile = Vec::new();
    let mut front = |job: &str, n: usize, odd: Document| {
        let mut task = scene.forger.ready(job);
        task.extend(doc! { "_id": format!("{job}/map/1.{n:05}x"), "priority": i32::MAX });
        task.extend(odd);
        hostile.push(task);
    };
    // Of jobs that are not there, as far as anybody can read them or not.
    for n in 0..2_000 {
        front(&fresh(), n, doc! { "epoch": "x" });
        front(&fresh(), n, doc! {});
    }
    // Of the honest job itself.
    for (n, value) in odd().into_iter().enumerate() {
        for (m, field) in
            ["epoch", "attempts", "lost", "history", "n", "plan", "not_before", "split"]
                .iter()
                .enumerate()
        {
            front(&id, n * 100 + m, doc! { *field: value.clone() });
        }
    }
    front(&id, 90_000, doc! {});
    front(&id, 90_001, doc! { "state": "quarantined", "error": { "code": "x", "message": "x" } });
    front(&id, 90_002, doc! { "state": "leased", "until": "x", "worker": 1, "lost": 9 });
    front(&id, 90_003, doc! { "state": "leased", "until": Bson::Null, "history": "x", "lost": 9 });
    // Of a job that has ended.
    let ended = scene.forger.job.get_str("_id").unwrap().to_owned();
    for n in 0..2_000 {
        front(&ended, n, doc! { "history": "x" });
    }
    scene.insert("aviary", hostile).await;
    let worker = scene.bed.worker();
    ends(&scene, &id).await;
    scene.honest().await;
    lives(&coordinator);
    lives(&worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_cannot_be_given_up_keep_no_other_from_it() {
    let (scene, coordinator, worker) = Scene::start().await;
    worker.terminate().expect("it runs");
    worker.wait_gone(super::common::ceiling()).await.expect("it ends");
    let bare = doc! { "collMod": "aviary", "validator": {} };
    scene.bed.db().run_command(bare).await.expect("no validator");
    let past = bson::DateTime::from_millis(1);
    let lost = |job: &str, more: Document| {
        let mut task = scene.forger.ready(job);
        task.extend(
            doc! { "state": "leased", "until": past, "lost": 20, "token": "t", "epoch": 20_i64 },
        );
        task.extend(more);
        task
    };
    scene
        .insert(
            "aviary",
            vec![
                lost(&fresh(), doc! { "worker": 5 }),
                lost(&fresh(), doc! { "history": "x" }),
                lost(&fresh(), doc! { "worker": { "a": 1 }, "lost": 9e9 }),
            ],
        )
        .await;
    let id = waiting_job(&scene).await;
    let set = doc! { "$set": { "state": "leased", "until": past, "lost": 20, "token": "t" } };
    scene
        .bed
        .coll("aviary")
        .update_one(doc! { "job": &id, "kind": "map" }, set)
        .await
        .expect("set");
    let why = scene.failed(&id).await;
    assert!(why.contains("vanished"), "{why}");
    lives(&coordinator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_somebody_wrote_is_taken_all_the_same() {
    for role in [
        doc! { "token": "t", "until": bson::DateTime::from_millis(i64::MAX / 2) },
        doc! { "token": "t", "until": "x", "epoch": "x" },
        doc! { "token": { "a": 1 }, "until": [1], "epoch": i64::MAX },
    ] {
        let bed = super::Bed::start(1).await;
        bed.aviary(&["init"]).await.ok();
        let name = bed.set().name().to_owned();
        let mut hostile = doc! { "_id": "coordinator", "kind": "coordinator", "shard": name };
        hostile.extend(role);
        bed.coll("aviary").insert_one(hostile).await.expect("inserted");
        let coordinator = bed.coordinator();
        coordinator.wait_for_log("\"holds\":true").await.expect("it has the role");
        lives(&coordinator);
    }
}
