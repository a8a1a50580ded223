//! Shards come and go between jobs: after `aviary init` the next job uses them, or no longer does.

use bson::doc;

use crate::common::{Bed, Links, cluster, wait_for};
use crate::jobs;

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_was_added_is_used_and_one_that_is_drained_is_not() {
    let mut bed = Bed::sharded(cluster(2), Links::Direct).await;
    jobs::load_sharded(&bed, "input", doc! { "n": 1 }).await;
    let coordinator = jobs::coordinator(&bed);
    let mut workers = bed.workers();
    let first = jobs::run(&bed, "input", "first").await;
    assert_eq!(used(&bed, &first).await, [["s0", "s1"], ["s0", "s1"]]);
    let expected = bed.all("first").await;
    assert_eq!(jobs::counted(&expected), jobs::recount());

    let added = bed.cluster_mut().add_shard().await.expect("added");
    for chunk in bed.cluster().chunks("test.input").await.expect("chunks") {
        if chunk.shard == "s1" {
            bed.cluster().move_range("test.input", chunk.min, "s2", true).await.expect("moved");
        }
    }
    bed.aviary(&["init"]).await.ok();
    workers.push(bed.worker_of(added, &[]));
    wait_for("the new worker", || async {
        let workers = bed.aviary(&["workers", "-o", "json"]).await.ok().json();
        workers.iter().any(|worker| worker["shard"] == "s2").then_some(())
    })
    .await;
    let second = jobs::run(&bed, "input", "second").await;
    assert_eq!(used(&bed, &second).await[0], ["s0", "s2"]);
    assert_eq!(used(&bed, &second).await[1], ["s0", "s1", "s2"]);
    assert_eq!(bed.all("second").await, expected);

    // The shard has to be empty before it can go: Aviary's own collections are moved off by init.
    assert_eq!(bed.cluster().remove_shard("s1").await.expect("begun"), "started");
    bed.aviary(&["init"]).await.ok();
    for name in ["aviary", "aviary-intermediates"] {
        let chunks = bed.cluster().chunks(&format!("test.{name}")).await.expect("chunks");
        assert!(chunks.iter().all(|chunk| chunk.shard != "s1"), "{chunks:#?}");
    }
    // Its worker is still there, and idle.
    let third = jobs::run(&bed, "input", "third").await;
    assert_eq!(used(&bed, &third).await, [["s0", "s2"], ["s0", "s2"]]);
    assert_eq!(bed.all("third").await, expected);
    let gone = bed.cluster().remove_shard("s1").await.expect("asked");
    assert_eq!(gone, "completed");
    workers.push(coordinator);
    jobs::stop(workers).await;

    let _coordinator = jobs::coordinator(&bed);
    let _others = [bed.worker_of(0, &[]), bed.worker_of(added, &[])];
    let fourth = jobs::run(&bed, "input", "fourth").await;
    assert_eq!(used(&bed, &fourth).await, [["s0", "s2"], ["s0", "s2"]]);
    assert_eq!(bed.all("fourth").await, expected);
}

/// The shards on which a job was mapped, and those on which it was reduced.
async fn used(bed: &Bed, job: &serde_json::Value) -> [Vec<String>; 2] {
    let of = async |kind| jobs::shards_of(bed, job, kind).await.into_keys().collect();
    [of("map").await, of("reduce").await]
}
