//! Jobs that are cancelled and removed while a worker has not noticed yet.

use bson::doc;

use crate::common::{Bed, wait_for};
use crate::jobs;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_brings_back_of_a_removed_job_goes() {
    let bed = Bed::start(1).await.in_parts();
    jobs::load(&bed, "docs", 400, 10).await;
    let coordinator = bed.coordinator();
    // It trusts its lease for long, so it does not notice.
    let slow = bed.pause("reduce.read", |env| {
        let more = [("AVIARY_LEASE_TTL_MS", "3600000")];
        bed.spawn("slow", &["worker", "--slots", "1"], &[env, &more[..]].concat())
    });
    let id = jobs::submit(&bed, "docs", "replace:counts", &[]).await;
    slow.arrived().await;
    slow.process.freeze().expect("frozen");
    bed.aviary(&["cancel", &id]).await.ok();
    jobs::reaches(&bed, &id, &["cancelled"]).await;
    bed.aviary(&["rm", &id]).await.ok();
    assert_eq!(bed.aviary(&["status", &id]).await.code, 5, "it is gone");
    assert_eq!(bed.leftovers().await, Vec::<String>::new());
    // Nobody may sweep before it has been seen that there is something to sweep.
    jobs::stop(&coordinator).await;
    slow.go_on();
    slow.process.thaw().expect("thawed");
    wait_for("what the worker brings back", || async {
        (bed.leftovers().await == [format!("aviary-out-{id}")]).then_some(())
    })
    .await;
    let _next = bed.coordinator();
    jobs::nothing_left(&bed).await;
    assert!(bed.aviary(&["list", "-o", "name"]).await.ok().stdout.is_empty());
    let jobs_left = bed.coll("aviary").count_documents(doc! { "kind": "job" }).await.unwrap();
    assert_eq!(jobs_left, 0);
}
