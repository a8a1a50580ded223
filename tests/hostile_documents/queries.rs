//! Queries that keep the server busy: they end with their attempt.

use bson::{Document, doc};
use futures_util::TryStreamExt;

use super::common::wait_for;
use super::{Scene, lives};

/// Queries that take long for each of many documents: no server's own limit for one call of a script ends them. Each is a
/// document of the query language.
const ENDLESS: [&str; 2] = [
    r#"{"$where": "var t = Date.now(); while (Date.now() - t < 30000) {} return true;"}"#,
    r#"{"$expr": {"$function": {"body": "function () { var t = Date.now(); while (Date.now() - t < 30000) {} return true; }", "args": [], "lang": "js"}}}"#,
];

/// Operations of readers on the input, as the server sees them.
async fn reading(scene: &Scene) -> Vec<Document> {
    let running = scene
        .bed
        .client
        .database("admin")
        .aggregate([
            doc! { "$currentOp": { "allUsers": true, "idleCursors": true } },
            doc! { "$match": { "ns": "test.few", "appName": "aviary-worker" } },
        ])
        .await
        .expect("asked");
    running.try_collect().await.expect("read")
}

async fn detached(scene: &Scene, query: &str, more: &[&str]) -> String {
    let ran = scene.submit(&[&["--query", query, "--detach"], more].concat()).await.ok();
    let id = ran.stdout.trim().to_owned();
    wait_for("the query to run", || async { (!reading(scene).await.is_empty()).then_some(()) })
        .await;
    id
}

async fn gone(scene: &Scene, what: &str) {
    wait_for(what, || async { reading(scene).await.is_empty().then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_never_ends_ends_with_its_attempt() {
    let (scene, coordinator, worker) = Scene::start().await;
    for query in ENDLESS {
        let id = detached(&scene, query, &[]).await;
        let running = reading(&scene).await;
        let task = scene.find(&format!("{id}/map/1.00000")).await;
        let comment = running[0].get_document("command").unwrap().get_document("comment").cloned();
        let comment = comment.unwrap_or_default();
        scene.bed.aviary(&["cancel", &id]).await.ok();
        gone(&scene, "a cancelled job's query to end").await;
        assert_eq!(
            comment.get_document("aviary").ok(),
            Some(&doc! {
                "job": &id, "task": task.get_str("_id").unwrap(), "token": task.get_str("token").unwrap(),
            })
        );
        scene.honest().await;
    }
    // A worker that is told to stop.
    let id = detached(&scene, ENDLESS[0], &[]).await;
    worker.terminate().expect("it runs");
    worker.wait_gone(super::common::ceiling()).await.expect("it ends");
    gone(&scene, "a drained worker's query to end").await;
    // And one that is told nothing.
    let killed = scene.bed.spawn("killed", &["worker", "--slots", "1"], &[]);
    wait_for("the query to run", || async { (!reading(&scene).await.is_empty()).then_some(()) })
        .await;
    killed.kill().expect("it runs");
    gone(&scene, "a killed worker's query to end").await;
    scene.bed.aviary(&["cancel", &id]).await.ok();
    lives(&coordinator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_has_no_more_time_than_its_task_and_its_fleet_give() {
    let (scene, coordinator, worker) = Scene::with(&[], &["--cap-script-time", "1s"]).await;
    for query in ENDLESS {
        let ran = scene.submit(&["--query", query]).await;
        assert_eq!(ran.code, 3, "{ran:#?}");
        for word in ["1000 ms", "--cap-script-time"] {
            assert!(ran.stderr.contains(word), "{word:?} is missing: {ran:#?}");
        }
        gone(&scene, "the query to end").await;
    }
    let ran = scene.submit(&["--query", r#"{"$where": "this.g >= 0"}"#]).await.ok();
    drop(ran);
    scene.honest().await;
    lives(&coordinator);
    lives(&worker);
}
