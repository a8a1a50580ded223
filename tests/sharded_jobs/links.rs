//! One job, one output: over direct and routed links, on one, two and three shards, read from
//! primaries and from secondaries.

use aviary_testcontainers::{ReplicaSet, ShardedClusterOptions};
use bson::{Document, doc};

use crate::common::{Bed, Links, cluster, wait_for};
use crate::{jobs, locality};

#[tokio::test(flavor = "multi_thread")]
async fn a_job_has_one_output_over_every_link_and_any_number_of_shards() {
    let expected = on_a_replica_set().await;
    assert_eq!(jobs::counted(&expected), jobs::recount());
    for shards in [1, 2] {
        let mut bed = Bed::sharded(cluster(shards), Links::Direct).await;
        jobs::load_sharded(&bed, "input", doc! { "n": 1 }).await;
        for links in [Links::Direct, Links::Routed] {
            bed.links = links;
            assert_eq!(output_over(&bed).await, expected, "{shards} shards, {links:?}");
        }
    }
    // Nobody dies here, so a busy machine should not elect anybody either.
    let options =
        ShardedClusterOptions { shard_members: 3, election_timeout_ms: 10_000, ..cluster(3) };
    let mut bed = Bed::sharded(options, Links::Direct).await;
    jobs::load_sharded(&bed, "input", doc! { "_id": "hashed" }).await;
    for links in [Links::Direct, Links::Secondary, Links::Routed] {
        bed.links = links;
        assert_eq!(output_over(&bed).await, expected, "3 shards, {links:?}");
        through_the_router(&bed, &expected).await;
    }
}

/// What no member can answer alone: what is there now, and which documents come first.
async fn through_the_router(bed: &Bed, expected: &[Document]) {
    let mut daemons = bed.workers();
    daemons.push(jobs::coordinator(bed));
    let now = ["--read", "committed"];
    let job = jobs::run_with(bed, "input", "output", &now).await;
    assert_eq!(job["counters"]["input"], jobs::COUNT, "{job:#}");
    assert_eq!(bed.all("output").await, expected);
    let first = ["--sort", r#"{"n": 1}"#, "--limit", "500"];
    let job = jobs::run_with(bed, "input", "output", &first).await;
    assert_eq!(job["counters"]["input"], 500, "{job:#}");
    assert_eq!(jobs::counted(&bed.all("output").await), jobs::recount_first(500));
    jobs::stop(daemons).await;
}

async fn on_a_replica_set() -> Vec<Document> {
    let bed = Bed::with(aviary_testcontainers::ReplicaSetOptions::default()).await;
    bed.load("input", jobs::documents()).await;
    let _coordinator = jobs::coordinator(&bed);
    let _worker = bed.worker();
    jobs::run(&bed, "input", "output").await;
    bed.all("output").await
}

/// Makes the first member primary: a new set elects whom it likes, and the workers read from another.
async fn make_first_primary(set: &ReplicaSet) {
    wait_for("the first member to be primary", || async {
        if set.primary().await == Some(0) {
            return Some(());
        }
        // Refused while it has not caught up or another election is under way.
        let _ = set.run_on_member(0, doc! { "replSetStepUp": 1 }).await;
        None
    })
    .await;
}

/// Runs the job with a worker for each shard, and makes sure that they had the links they should.
async fn output_over(bed: &Bed) -> Vec<Document> {
    let member = usize::from(bed.links == Links::Secondary);
    let shards = bed.cluster().shard_names();
    for shard in 0..shards.len() {
        let set = bed.cluster().shard(shard).expect("a shard");
        if member != 0 {
            make_first_primary(set).await;
        }
        locality::record(set, member, "input").await;
    }
    let coordinator = jobs::coordinator(bed);
    let mut daemons = bed.workers();
    daemons.push(coordinator);
    let job = jobs::run(bed, "input", "output").await;
    let tasks = jobs::shards_of(bed, &job, "map").await;
    assert_eq!(tasks.keys().cloned().collect::<Vec<_>>(), shards, "{tasks:?}");
    assert!(tasks.values().sum::<u32>() > 4, "{tasks:?}");
    jobs::stop(daemons).await;
    for shard in 0..shards.len() {
        let set = bed.cluster().shard(shard).expect("a shard");
        let reads = locality::recorded(set, member).await;
        let direct = reads.keys().any(|(ns, who)| ns == "test.input" && who == "aviary-worker");
        // The router is one of the shards' own servers, and shows the worker's name there too.
        assert!(direct || bed.links == Links::Routed, "the worker reads here: {reads:?}");
    }
    bed.all("output").await
}
