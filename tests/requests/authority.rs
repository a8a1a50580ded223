//! What is in another database is its owner's.

use bson::doc;

use crate::{REQUESTS, bed, insert, refusal, sums, told};

#[tokio::test(flavor = "multi_thread")]
async fn another_database_is_used_only_as_far_as_its_owner_grants() {
    let (bed, _daemons) = bed().await;
    let theirs = bed.client.database("theirs");
    let docs = (0..10).map(|n| doc! { "_id": n, "k": 1, "v": 1 });
    theirs.collection("secret").insert_many(docs).await.unwrap();
    theirs.collection("kept").insert_one(doc! { "_id": "kept" }).await.unwrap();
    let reading = |id: &str| {
        let mut request = sums(id, "copied");
        request.insert("input", doc! { "db": "theirs", "collection": "secret" });
        request
    };
    let writing = |id: &str, collection: &str| {
        let mut request = sums(id, "x");
        request.insert("out", doc! { "replace": collection, "db": "theirs" });
        request
    };
    insert(&bed, reading("read")).await;
    insert(&bed, writing("write", "kept")).await;
    for (id, word) in [("read", "theirs.secret"), ("write", "theirs.kept")] {
        let error = refusal(&bed, id).await;
        let message = error.get_str("message").unwrap();
        assert!(message.contains("may not") && message.contains(word), "{error}");
        assert!(error.get_str("hint").unwrap().contains("aviary-grants"), "{error}");
    }
    // A grant to write is none to read, and one collection is not another.
    let grants = theirs.collection("aviary-grants");
    grants
        .insert_one(doc! { "_id": "test", "write": ["totals"], "read": ["other"] })
        .await
        .unwrap();
    grants.insert_one(doc! { "_id": "elsewhere", "read": ["secret"] }).await.unwrap();
    insert(&bed, reading("read2")).await;
    insert(&bed, writing("write2", "kept")).await;
    refusal(&bed, "read2").await;
    refusal(&bed, "write2").await;
    insert(&bed, writing("write3", "totals")).await;
    assert!(told(&bed, "write3", &["result", "error"]).await.contains_key("result"));
    assert_eq!(
        theirs.collection::<bson::Document>("totals").count_documents(doc! {}).await.unwrap(),
        5
    );
    let own = doc! { "$addToSet": { "read": "secret" } };
    grants.update_one(doc! { "_id": "test" }, own).await.unwrap();
    insert(&bed, reading("read3")).await;
    assert!(told(&bed, "read3", &["result", "error"]).await.contains_key("result"));
    // Nobody grants to himself by means of a job.
    insert(&bed, writing("write4", "aviary-grants")).await;
    refusal(&bed, "write4").await;
    assert_eq!(
        theirs.collection::<bson::Document>("kept").count_documents(doc! {}).await.unwrap(),
        1
    );
    let accepted = bed.coll(REQUESTS).count_documents(doc! { "state": "accepted" }).await.unwrap();
    assert_eq!(accepted, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_of_one_team_can_be_told_so() {
    let bed = crate::Bed::start(1).await;
    bed.load("orders", vec![doc! { "_id": 1, "k": 1, "v": 1 }]).await;
    let trust = [("AVIARY_TRUST_DATABASES", "reports,archive")];
    let _coordinator = bed.spawn("coordinator", &["coordinator"], &trust);
    let _worker = bed.spawn("worker", &["worker", "--slots", "1"], &trust);
    let run = async |db: &str| {
        let map = "function () { emit(this.k, this.v); }";
        let args = ["submit", "-c", "orders", "--map", map, "--reduce", "_sum"];
        let mut args: Vec<&str> = args.to_vec();
        args.extend(["--out", "replace:totals", "--out-db", db]);
        bed.aviary(&args).await
    };
    run("reports").await.ok();
    let refused = run("other").await;
    assert_eq!(refused.code, 8, "{refused:#?}");
    assert!(refused.stderr.contains("--trust-databases other"), "{refused:#?}");
}
