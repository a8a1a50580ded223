//! Collections that somebody drops or renames while results are merged into a target: a job succeeds only once
//! all of its results are there.

use aviary_testcontainers::Managed;
use bson::doc;
use mongodb::options::Hint;

use crate::common::{Bed, Paused};
use crate::jobs;

/// Results of more than two pieces.
const RESULTS: i32 = 25_000;

#[tokio::test(flavor = "multi_thread")]
async fn results_that_are_dropped_halfway_are_not_taken_for_merged() {
    let bed = Bed::start(1).await.in_parts();
    let (_coordinator, publisher, id) = halfway(&bed).await;
    for name in bed.leftovers().await.iter().filter(|name| name.starts_with("aviary-out-")) {
        bed.coll(name).drop().await.expect("dropped");
    }
    publisher.go_on();
    let job = jobs::reaches(&bed, &id, &["stopped"]).await;
    let why = error(&job);
    assert!(why.contains("is gone") && why.contains("aviary cancel"), "{why}");
    assert!(!why.contains("nothing was published"), "{why}");
    bed.aviary(&["cancel", &id]).await.ok();
    jobs::reaches(&bed, &id, &["cancelled"]).await;
    jobs::nothing_left(&bed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_renamed_halfway_gets_all_results_in_the_end() {
    let bed = Bed::start(1).await.in_parts();
    let (_coordinator, publisher, id) = halfway(&bed).await;
    let rename = doc! { "renameCollection": "test.counts", "to": "test.elsewhere" };
    bed.client.database("admin").run_command(rename).await.expect("renamed");
    publisher.go_on();
    let job = jobs::reaches(&bed, &id, &["stopped"]).await;
    let why = error(&job);
    assert!(why.contains("test.counts was dropped, renamed or replaced"), "{why}");
    bed.aviary(&["resume", &id]).await.ok();
    jobs::succeeded(&bed, &id).await;
    let by_id = Hint::Keys(doc! { "_id": 1 });
    let merged = bed.coll("counts").count_documents(doc! {}).hint(by_id).await.expect("counted");
    assert_eq!(merged, 25_000);
    jobs::nothing_left(&bed).await;
}

/// A job of which one piece is merged.
async fn halfway(bed: &Bed) -> (Managed, Paused, String) {
    jobs::load(bed, "docs", RESULTS, RESULTS).await;
    let coordinator = bed.coordinator();
    let publisher = bed.paused_worker("publish.piece");
    let id = jobs::submit(bed, "docs", "merge:counts", &[]).await;
    publisher.arrived().await;
    (coordinator, publisher, id)
}

fn error(job: &bson::Document) -> String {
    let error = job.get_document("error").expect("an error");
    error.get_str("message").expect("a message").to_owned()
}
