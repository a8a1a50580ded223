//! A target whose documents expire: results may vanish as soon as they have its index, before they are in
//! its place.

use aviary_testcontainers::{Managed, ReplicaSetOptions};
use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::IndexModel;
use mongodb::options::IndexOptions;

use crate::common::{Bed, wait_for};
use crate::jobs::{self, Ask};

/// Long past, so that a result expires at once.
const MAP: &str = "function () { emit(this.k, { n: 1, at: new Date(0) }); }";
const REDUCE: &str = "function (key, values) {
  let n = 0;
  for (const value of values) n += value.n;
  return { n: n, at: values[0].at };
}";

const TARGET: &str = "expiring";
const PLACE: &str = "publish.rename";

#[tokio::test(flavor = "multi_thread")]
async fn results_that_expire_while_nobody_publishes_them_are_published_all_the_same() {
    // It looks for what has expired every second.
    let parameters = vec![("ttlMonitorSleepSecs".to_owned(), "1".to_owned())];
    let bed = Bed::with(ReplicaSetOptions { parameters, ..ReplicaSetOptions::default() }).await;
    let bed = &bed;
    jobs::load_few(bed).await;
    let ttl = IndexOptions::builder().expire_after(std::time::Duration::ZERO).build();
    let expires = IndexModel::builder().keys(doc! { "value.at": 1 }).options(ttl).build();
    bed.coll(TARGET).create_index(expires).await.expect("built");
    bed.coll(TARGET).insert_one(doc! { "_id": "old" }).await.expect("written");

    // Whichever of them publishes.
    let halting = [("AVIARY_HALT_AT", PLACE), ("AVIARY_SPLIT_BYTES", jobs::SPLIT_BYTES)];
    let doomed = [
        bed.spawn("coordinator", &["coordinator"], &halting),
        bed.spawn("worker", &["worker", "--slots", "1"], &halting),
    ];
    let ask = Ask { functions: Some((MAP, REDUCE)), ..Ask::new("few", TARGET) };
    let id = ask.submit(bed).await;
    let has_halted = |process: &&Managed| process.log().is_ok_and(|log| log.contains("halted"));
    wait_for("the publisher", || async { doomed.iter().find(has_halted).map(|_| ()) }).await;
    let job = jobs::job(bed, &id).await;
    assert_eq!(jobs::text(&job, "state"), "publishing");
    let counters = job.get_document("counters").expect("counters");
    assert_eq!(counters.get_i64("output").expect("results"), 60);
    for process in &doomed {
        process.kill().expect("killed");
        process.wait_gone(std::time::Duration::from_secs(60)).await.expect("gone");
    }
    // Whatever can expire has: two whole passes were begun after this.
    let (before, passes) = (passes(bed).await, || passes(bed));
    wait_for("the server's passes", || async { (passes().await > before + 2).then_some(()) }).await;

    let coordinator = jobs::coordinator(bed);
    let worker = bed.worker();
    jobs::succeeded(bed, &id).await;
    // The target is the collection of the results: the old document is gone, and the index is there.
    let expired = || async { bed.all(TARGET).await.is_empty().then_some(()) };
    wait_for("the results to expire in their place", expired).await;
    let indexes: Vec<Document> = bed
        .db()
        .run_cursor_command(doc! { "listIndexes": TARGET })
        .await
        .expect("asked")
        .try_collect()
        .await
        .expect("listed");
    let [_, expires] = &indexes[..] else { panic!("{indexes:?}") };
    assert_eq!(jobs::number(expires, "expireAfterSeconds"), 0, "{expires}");
    assert_eq!(expires.get_document("key").expect("a key"), &doc! { "value.at": 1 });
    jobs::nothing_left(bed).await;
    jobs::stop(&worker).await;
    jobs::stop(&coordinator).await;
}

/// How often the server has looked for documents that have expired.
async fn passes(bed: &Bed) -> i64 {
    let status = bed.client.database("admin").run_command(doc! { "serverStatus": 1 }).await;
    let status = status.expect("asked");
    let metrics = status.get_document("metrics").expect("metrics");
    jobs::number(metrics.get_document("ttl").expect("of expiry"), "passes")
}
