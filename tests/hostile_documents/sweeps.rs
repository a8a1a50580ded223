//! What cannot be swept keeps nothing else from being swept.

use bson::{Document, doc};

use super::common::wait_for;
use super::{Scene, fresh, id_of, lives};

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_cleaned_up_holds_up_nothing_else() {
    let (scene, coordinator, worker) = Scene::start().await;
    // Leftovers of a job that was removed, for the sweep to find last.
    let ran = scene.submit(&["--out", "replace:gone"]).await.ok();
    let removed = ran.stdout.trim().to_owned();
    scene.bed.aviary(&["rm", &removed]).await.ok();
    // Jobs that are over, in databases that cannot be listed.
    let mut hostile: Vec<Document> = Vec::new();
    let mut unlistable = Vec::new();
    for db in ["", "a b", "no/such", "a.b", &"x".repeat(70)] {
        let mut job = scene.forger.submitted();
        job.extend(doc! { "state": "failed", "priority": i32::MAX });
        let output = doc! { "mode": "inline", "db": db, "collection": "x" };
        job.get_document_mut("spec").unwrap().insert("output", output);
        unlistable.push(id_of(&job));
        hostile.push(job);
    }
    // Tasks of so many jobs that no reply could hold their names.
    for n in 0..1_000 {
        let mut task = scene.forger.ready(&format!("{n:05}{}", "x".repeat(20_000)));
        task.extend(doc! { "_id": format!("{n}"), "state": "planned" });
        hostile.push(task);
    }
    for n in 0..1_000 {
        hostile.push(doc! {
            "_id": format!("removed{n}"), "kind": "removed", "shard": scene.forger.shard(),
            "db": format!("{n:05}{}", "x".repeat(20_000)),
        });
    }
    scene.insert("aviary", hostile).await;
    let left = format!("aviary-out-{removed}");
    scene.bed.coll(&left).insert_one(doc! { "_id": 1 }).await.expect("inserted");
    let stray = format!("{}/block", fresh());
    let block = doc! {
        "_id": &stray, "shard": scene.forger.shard(), "crc32": 0, "records": 0,
        "data": bson::Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![1] }),
    };
    scene.insert("aviary-intermediates", vec![block]).await;
    scene.honest().await;
    wait_for("what is left of a removed job to go", || async {
        let names = scene.bed.db().list_collection_names().await.expect("listed");
        let stray = scene.bed.coll("aviary-intermediates").find_one(doc! { "_id": &stray }).await;
        (!names.contains(&left) && stray.expect("asked").is_none()).then_some(())
    })
    .await;
    // What is said to be there is no job's of this database, and is left alone.
    for id in &unlistable {
        wait_for("the job to be done with", || async {
            scene.find(id).await.get_bool("cleaned").ok()?.then_some(())
        })
        .await;
    }
    lives(&coordinator);
    lives(&worker);
}
