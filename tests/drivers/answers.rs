//! What a driver finds in its requests after a job went on, or was removed.

use bson::{Document, doc};

use crate::bed;
use crate::common::wait_for;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_went_on_unseen_ends_with_its_result_alone() {
    let (bed, mut daemons) = bed(&[]).await;
    let unique = doc! { "key": { "value": 1 }, "name": "strict", "unique": true };
    let index = doc! { "createIndexes": "strict", "indexes": [unique] };
    bed.db().run_command(index).await.expect("an index");
    let request = doc! {
        "_id": "unseen",
        "v": 1,
        "input": { "collection": "orders" },
        "map": { "js": "function () { emit(this.k, 1); }" },
        "reduce": "_sum",
        "out": { "merge": "strict" },
    };
    bed.coll("aviary-requests").insert_one(request).await.expect("inserted");
    let told = |field: &'static str| {
        let requests = bed.coll("aviary-requests");
        wait_for("an answer", move || {
            let requests = requests.clone();
            async move {
                let request = requests.find_one(doc! { "_id": "unseen" }).await.ok().flatten()?;
                request.contains_key(field).then_some(request)
            }
        })
    };
    let stopped = told("error").await;
    assert_eq!(
        stopped.get_document("error").unwrap().get_str("code").unwrap(),
        "stopped",
        "{stopped}"
    );

    // No coordinator sees it go on.
    daemons.remove(0).kill().expect("killed");
    let drop = doc! { "dropIndexes": "strict", "index": "strict" };
    bed.db().run_command(drop).await.expect("dropped");
    bed.aviary(&["resume", "unseen"]).await.ok();
    wait_for("the results", || async {
        let done = doc! { "kind": "publish", "job": stopped.get("job"), "state": "done" };
        bed.coll("aviary").find_one(done).await.ok().flatten()
    })
    .await;
    daemons.push(bed.coordinator());
    let ended = told("result").await;
    assert!(!ended.contains_key("error"), "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_job_takes_every_answer_about_it_with_it() {
    let (bed, _daemons) = bed(&[]).await;
    let endless = "function () { for (let n = 0; n < 1e12; n++); emit(1, 1); }";
    let slow = doc! {
        "_id": "slow",
        "v": 1,
        "input": { "collection": "orders" },
        "map": { "js": endless },
        "limits": { "recordTimeoutMs": 600_000 },
    };
    let requests = bed.coll("aviary-requests");
    let told = async |id: &str, field: &str| {
        wait_for("an answer", || async {
            let request = requests.find_one(doc! { "_id": id }).await.ok().flatten()?;
            request.contains_key(field).then_some(request)
        })
        .await
    };
    requests.insert_one(slow).await.expect("inserted");
    told("slow", "job").await;
    requests.insert_one(doc! { "_id": "end", "v": 1, "cancel": "slow" }).await.expect("inserted");
    assert!(told("end", "state").await.contains_key("result"));
    assert_eq!(
        told("slow", "error").await.get_document("error").unwrap().get_str("code").unwrap(),
        "cancelled"
    );
    let lasting = doc! { "expires": { "$exists": false } };
    assert_eq!(requests.count_documents(lasting.clone()).await.unwrap(), 2);

    bed.aviary(&["rm", "slow"]).await.ok();
    let left: Vec<Document> = bed.all("aviary-requests").await;
    assert_eq!(requests.count_documents(lasting).await.unwrap(), 0, "{left:?}");
}
