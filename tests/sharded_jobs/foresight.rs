//! What `aviary submit` says beforehand, and `aviary init --history-window` on every member.

use aviary_testcontainers::ShardedClusterOptions;
use bson::doc;

use crate::common::{Bed, Links, cluster};
use crate::jobs;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_will_wait_or_outlast_its_snapshot_is_foreseen() {
    let options = ShardedClusterOptions {
        parameters: vec![("minSnapshotHistoryWindowInSeconds".into(), "1".into())],
        ..cluster(2)
    };
    let bed = Bed::sharded(options, Links::Direct).await;
    let pad = "x".repeat(4_000_000);
    bed.cluster().enable_sharding("test", "s1").await.expect("enabled");
    bed.load("large", (0..6).map(|i| doc! { "_id": i, "pad": &pad }).collect()).await;
    bed.aviary(&["init"]).await.ok();
    let map = bed.file("map.js", jobs::MAP).display().to_string();
    let submit = async |more: &[&str]| {
        let args = ["submit", "-c", "large", "--map", &map, "--reduce", "_count", "--detach"];
        bed.aviary(&[&args[..], more].concat()).await.ok()
    };

    let alone = submit(&[]).await;
    assert!(alone.stderr.contains("no worker is running"), "{alone:?}");
    assert!(alone.stderr.contains("no coordinator is running"), "{alone:?}");
    // 24 MB on one slot are expected to take some seconds.
    for word in [
        "may take about",
        "1s only",
        "minSnapshotHistoryWindowInSeconds",
        "init --history-window",
        "--read committed",
    ] {
        assert!(alone.stderr.contains(word), "{word} is missing: {alone:?}");
    }
    let unbound = submit(&["--read", "committed"]).await;
    assert!(!unbound.stderr.contains("may take about"), "{unbound:?}");
    let quiet = submit(&["--quiet"]).await;
    assert_eq!(quiet.stderr, "");

    let _worker = bed.worker_of(0, &[]);
    crate::common::wait_for("the worker", || async {
        let workers = bed.aviary(&["workers", "-o", "json"]).await.ok().json();
        (!workers.is_empty()).then_some(())
    })
    .await;
    let half = submit(&[]).await;
    assert!(half.stderr.contains("no worker serves the shard s1"), "{half:?}");
    // Nobody waits for a shard that has no part of the input.
    bed.cluster().enable_sharding("other", "s0").await.expect("enabled");
    let other = bed.client.database("other").collection("large");
    other.insert_one(doc! { "_id": 1 }).await.expect("written");
    let served = submit(&["--input-db", "other"]).await;
    assert!(!served.stderr.contains("no worker serves"), "{served:?}");

    bed.aviary(&["init", "--history-window", "2h"]).await.ok();
    let shards = (0..2).map(|shard| bed.cluster().shard(shard).expect("a shard"));
    for set in shards.chain([bed.cluster().config()]) {
        let asked = doc! { "getParameter": 1, "minSnapshotHistoryWindowInSeconds": 1 };
        let answer = set.run_on_member(0, asked).await.expect("an answer");
        assert_eq!(answer.get_i32("minSnapshotHistoryWindowInSeconds").expect("told"), 7_200);
    }
    let raised = submit(&[]).await;
    assert!(!raised.stderr.contains("may take about"), "{raised:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_expected_to_take_as_long_as_its_largest_part() {
    let options = ShardedClusterOptions {
        parameters: vec![("minSnapshotHistoryWindowInSeconds".into(), "1".into())],
        ..cluster(2)
    };
    let bed = Bed::sharded(options, Links::Direct).await;
    // All of it is on the first shard, whose worker has one slot of many.
    let pad = "x".repeat(4_000_000);
    bed.cluster().enable_sharding("test", "s0").await.expect("enabled");
    bed.load("large", (0..6).map(|i| doc! { "_id": i, "pad": &pad }).collect()).await;
    let own = bed.worker_of(0, &[]);
    let port = bed.cluster().shard(1).expect("a shard").port(0).expect("a member");
    let uri = format!("mongodb://127.0.0.1:{port}/?directConnection=true");
    let other = bed.spawn("worker", &["worker", "--slots", "64", "--shard-uri", &uri], &[]);
    bed.known(&own).await;
    bed.known(&other).await;
    let map = bed.file("map.js", jobs::MAP).display().to_string();
    let args = ["submit", "-c", "large", "--map", &map, "--reduce", "_count", "--detach"];
    let ran = bed.aviary(&args).await.ok();
    assert!(ran.stderr.contains("may take about"), "{ran:?}");
}
