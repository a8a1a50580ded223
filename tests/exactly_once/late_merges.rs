//! Merges that arrive when they are no longer waited for.

use bson::doc;

use crate::common::{Bed, wait_for};
use crate::cutter::Cutter;
use crate::jobs;

/// A publisher's connection breaks as it sends a merge, so it sends it once more. The first one arrives when the job
/// has succeeded and nobody has cleaned up after it yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_merge_that_arrives_late_changes_nothing_once_the_job_has_succeeded() {
    let bed = Bed::with(Default::default()).await.in_parts();
    jobs::load(&bed, "docs", 400, 10).await;
    let cutter = Cutter::to_primary(&bed).await;
    let uri = cutter.uri();
    let _worker = bed.spawn("worker", &["worker", "--slots", "1"], &[("AVIARY_URI", &uri)]);
    let doomed = bed.halting(&["coordinator"], "clean");
    cutter.delay("aviary-publish");
    let id = jobs::submit(&bed, "docs", "merge:counts", &[]).await;
    cutter.has_cut().await;
    wait_for("the job to succeed", async || {
        (jobs::state(&bed, &id).await == "succeeded").then_some(())
    })
    .await;
    // Whoever waited for the job goes on with its result.
    let mine = doc! { "$set": { "value": "mine" } };
    bed.coll("counts").update_one(doc! { "_id": 0 }, mine).await.expect("updated");
    cutter.arrive().await;
    let found = bed.coll("counts").find_one(doc! { "_id": 0 }).await.expect("read");
    assert_eq!(found.as_ref().and_then(|row| row.get_str("value").ok()), Some("mine"), "{found:?}");
    jobs::kill(&doomed).await;
    let _coordinator = bed.coordinator();
    jobs::succeeded(&bed, &id).await;
    jobs::nothing_left(&bed).await;
}
