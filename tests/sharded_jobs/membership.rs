//! Shards come and go between jobs: after `aviary init` the next job uses them, or no longer does.

use aviary_testcontainers::ShardedClusterOptions;
use bson::{Document, doc};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_idle_when_its_shard_was_drained_still_maps_what_lies_there() {
    let bed = with_input().await;
    bed.aviary(&["init"]).await.ok();
    let workers = bed.workers();
    for worker in &workers {
        bed.known(worker).await;
    }
    drain(&bed).await;
    let _coordinator = jobs::coordinator(&bed);
    let job = jobs::run(&bed, "input", "output").await;
    assert_eq!(used(&bed, &job).await, [vec!["s0", "s1"], vec!["s0"]]);
    assert_eq!(jobs::counted(&bed.all("output").await), jobs::recount());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_is_under_way_while_its_shard_is_drained_is_committed_where_it_lives_then() {
    let bed = with_input().await;
    let _coordinator = jobs::coordinator(&bed);
    let stays = bed.worker_of(0, &[]);
    let leaves = bed.paused_worker_of(1, "map.call");
    bed.known(&stays).await;
    bed.known(&leaves.process).await;
    let draining = async {
        // The worker holds a task that it claimed on its own server.
        leaves.arrived().await;
        drain(&bed).await;
        let left = filed_on(&bed, 1, "s1").await;
        assert_eq!(left, 0, "nothing looks like a task where it no longer lives");
        leaves.go_on();
    };
    let (job, ()) = tokio::join!(jobs::run(&bed, "input", "output"), draining);
    assert_eq!(used(&bed, &job).await[0], ["s0", "s1"]);
    assert_eq!(jobs::counted(&bed.all("output").await), jobs::recount());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_serves_all_shards_serves_one_that_is_added_while_it_runs() {
    let mut bed = Bed::sharded(cluster(1), Links::Routed).await;
    jobs::load_sharded(&bed, "input", doc! { "n": 1 }).await;
    bed.aviary(&["init"]).await.ok();
    // Neither is started again. The first coordinator plans, the second has to clean up after it.
    let planner = jobs::coordinator(&bed);
    let workers = bed.workers();
    bed.known(&workers[0]).await;
    wait_for("the role of coordinator", || async {
        bed.coll("aviary")
            .find_one(doc! { "_id": "coordinator", "token": { "$exists": true } })
            .await
            .expect("asked")
    })
    .await;
    let standby = jobs::coordinator(&bed);
    standby.wait_for_log("coordinator started").await.expect("it starts");

    bed.cluster_mut().add_shard().await.expect("added");
    let chunks = bed.cluster().chunks("test.input").await.expect("chunks");
    let moved = chunks.into_iter().last().expect("a chunk");
    bed.cluster().move_range("test.input", moved.min, "s1", true).await.expect("moved");
    bed.aviary(&["init"]).await.ok();

    let job = jobs::run(&bed, "input", "output").await;
    assert!(used(&bed, &job).await[0].contains(&"s1".to_owned()), "{job:#?}");
    assert_eq!(jobs::counted(&bed.all("output").await), jobs::recount());
    jobs::stop(vec![planner]).await;
    // What is filed under the new shard's name is the next coordinator's to remove, too.
    bed.coll("aviary-intermediates")
        .insert_one(doc! {
            "_id": format!("{}/stray", job["id"].as_str().expect("an id")),
            "shard": "s1",
            "data": bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: Vec::new() },
            "crc32": 0,
            "records": 0,
        })
        .await
        .expect("written");
    bed.nothing_left("blocks on the shard that was added").await;
}

/// Two shards with input, which keep what moved away for a quarter of an hour, as they do by default.
async fn with_input() -> Bed {
    let options = ShardedClusterOptions {
        parameters: vec![("orphanCleanupDelaySecs".into(), "900".into())],
        ..cluster(2)
    };
    let bed = Bed::sharded(options, Links::Direct).await;
    jobs::load_sharded(&bed, "input", doc! { "n": 1 }).await;
    bed
}

/// Begins to remove the second shard, and does no more than has to be done at once: the input stays there until
/// a balancer has moved it.
async fn drain(bed: &Bed) {
    assert_eq!(bed.cluster().remove_shard("s1").await.expect("begun"), "started");
    bed.aviary(&["init"]).await.ok();
}

/// How many tasks and blocks a server has that are filed under a shard's name.
async fn filed_on(bed: &Bed, server: usize, shard: &str) -> u64 {
    let server = bed.servers().await.swap_remove(server);
    let mut count = 0;
    for name in ["aviary", "aviary-intermediates"] {
        let part = server.database("test").collection::<Document>(name);
        count += part.count_documents(doc! { "shard": shard }).await.expect("counted");
    }
    count
}

/// The shards on which a job was mapped, and those on which it was reduced.
async fn used(bed: &Bed, job: &serde_json::Value) -> [Vec<String>; 2] {
    let of = async |kind| jobs::shards_of(bed, job, kind).await.into_keys().collect();
    [of("map").await, of("reduce").await]
}
