//! Documents that nobody asked for, in the collection of the fleet: they must not give anybody what a request
//! could not.

use bson::{DateTime, Document, doc};

use crate::common::{Bed, wait_for};
use crate::forged::{spec, uuid_of};
use crate::{bed, insert, sums, text, told};

/// A job as a forger would write it.
async fn job(bed: &Bed, id: &str, more: Document) -> Document {
    insert(bed, sums(&format!("model-{id}"), &format!("model-{id}"))).await;
    let told = told(bed, &format!("model-{id}"), &["result", "error"]).await;
    let model = doc! { "_id": told.get_str("job").expect("a job") };
    let mut job = bed.coll("aviary").find_one(model).await.unwrap().expect("a job");
    for field in ["finished", "counters", "publish", "request"] {
        job.remove(field);
    }
    job.extend(doc! { "_id": id, "cleaned": false, "role": 0_i64, "created": DateTime::now() });
    job.extend(more);
    job
}

async fn ended(bed: &Bed, id: &str) -> Document {
    wait_for("the planted job's end", || async {
        let job = bed.coll("aviary").find_one(doc! { "_id": id }).await.ok().flatten()?;
        ["succeeded", "failed", "stopped"].contains(&job.get_str("state").ok()?).then_some(job)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_publish_does_not_take_somebody_elses_collection() {
    let (bed, _daemons) = bed().await;
    bed.load("victim", vec![doc! { "_id": "precious" }]).await;
    let theirs = bed.client.database("theirs");
    theirs.collection("victim").insert_one(doc! { "_id": "precious" }).await.unwrap();
    for (id, db) in [("aaaaaaaaaaaaaaaaaaaaaaa1", "test"), ("aaaaaaaaaaaaaaaaaaaaaaa2", "theirs")] {
        let uuid = uuid_of(&bed, db, "victim").await;
        let mut forged = job(
            &bed,
            id,
            doc! {
                "state": "publishing", "publish": { "uuid": uuid }, "counters": { "output": 0_i64 },
            },
        )
        .await;
        let output = doc! { "mode": "replace", "db": db, "collection": "stolen" };
        spec(&mut forged).insert("output", output);
        bed.coll("aviary").insert_one(forged).await.unwrap();
        let task = wait_for("the publish task to be given up", || async {
            let wanted = doc! { "job": id, "kind": "publish", "state": "quarantined" };
            bed.coll("aviary").find_one(wanted).await.ok().flatten()
        })
        .await;
        assert!(task.contains_key("error"), "{task}");
        let job = ended(&bed, id).await;
        assert_eq!(text(&job, "state"), "failed", "{job}");
        let kept = bed.client.database(db).collection::<Document>("victim");
        assert_eq!(kept.count_documents(doc! {}).await.unwrap(), 1, "{db}.victim");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_job_reads_and_writes_nothing_that_a_request_could_not() {
    let (bed, _daemons) = bed().await;
    let theirs = bed.client.database("theirs");
    let secret = (0..10).map(|n| doc! { "_id": n, "k": n, "v": n });
    theirs.collection("secret").insert_many(secret).await.unwrap();
    theirs.collection("kept").insert_one(doc! { "_id": "kept" }).await.unwrap();
    let input = |db: &str, name: &str| doc! { "db": db, "collection": name, "query": {}, "read": "snapshot" };
    let own = doc! { "mode": "replace", "db": "test", "collection": "loot" };
    let cases = [
        (input("theirs", "secret"), own.clone()),
        (input("admin", "system.version"), own.clone()),
        (input("config", "image_collection"), own.clone()),
        (input("local", "oplog.rs"), own.clone()),
        (input("test", "orders"), doc! { "mode": "replace", "db": "theirs", "collection": "kept" }),
        (input("test", "orders"), doc! { "mode": "merge", "db": "admin", "collection": "loot" }),
        (input("test", "orders"), doc! { "mode": "merge", "db": "test", "collection": "aviary" }),
        (
            input("test", "orders"),
            doc! { "mode": "merge", "db": "test", "collection": "aviary-grants" },
        ),
        (input("test", "orders"), doc! { "mode": "inline", "db": "theirs", "collection": "kept" }),
    ];
    let plan = |id: &str| {
        // A ready task of a plan that was never made.
        doc! {
            "_id": format!("{id}/map/1.00000"), "kind": "map", "job": id, "plan": 1, "n": 0,
            "state": "ready", "epoch": 0_i64, "attempts": 0, "priority": 0, "split": {},
        }
    };
    for (n, (input, output)) in cases.into_iter().enumerate() {
        for state in ["submitted", "mapping"] {
            let which = if state == "mapping" { "aa" } else { "bb" };
            let id = format!("bbbbbbbbbbbbbbbbbbbb{n:02}{which}");
            let mut forged = job(
                &bed,
                &id,
                doc! { "state": state, "plan": 1, "map_tasks": 1, "reduce_tasks": 0 },
            )
            .await;
            let shard = forged.get_str("shard").unwrap().to_owned();
            spec(&mut forged).extend(doc! { "input": input.clone(), "output": output.clone() });
            spec(&mut forged).remove("reduce");
            bed.coll("aviary").insert_one(forged).await.unwrap();
            if state == "mapping" {
                let mut task = plan(&id);
                task.insert("shard", shard);
                bed.coll("aviary").insert_one(task).await.unwrap();
            }
            let job = ended(&bed, &id).await;
            assert_eq!(text(&job, "state"), "failed", "{input} {output} {job}");
            let counted = job.get_document("counters").ok().and_then(|c| c.get_i64("input").ok());
            assert!(counted.is_none_or(|n| n == 0), "it counted what it may not read: {job}");
        }
    }
    assert_eq!(theirs.collection::<Document>("kept").count_documents(doc! {}).await.unwrap(), 1);
    assert_eq!(theirs.list_collection_names().await.unwrap().len(), 2);
    assert_eq!(bed.coll("loot").count_documents(doc! {}).await.unwrap(), 0);
    assert_eq!(bed.coll("aviary-grants").count_documents(doc! {}).await.unwrap(), 0);
}
