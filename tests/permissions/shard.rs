//! The role of a worker's link to its own shard, on shards that ask who their clients are: with any privilege
//! less, something breaks.
//!
//! The stand-in for a router asks nobody. What it is asked of the cluster's configuration is compared with what the
//! fleet's role has of it.

use std::collections::BTreeSet;
use std::time::Duration;

use aviary_testcontainers::{Managed, ShardedClusterOptions};
use bson::{Document, doc};

use crate::common::{Bed, Links, cluster, mongosh, wait_for};
use crate::{
    INPUT, OWN, PASSWORD, but, functions, make_roles, privileges, refusal, shortened, user,
};

/// One team owns both databases.
const TRUST: (&str, &str) = ("AVIARY_TRUST_DATABASES", INPUT);

/// Runs a job, unless the worker is refused something before the job ends.
async fn run_job(bed: &Bed, worker: &Managed, tag: &str) {
    let [map, _] = functions(bed);
    let submit = ["submit", "-d", OWN, "-c", "orders", "--input-db", INPUT, "--reduce", "_sum"];
    let rest = [
        "--map",
        map.to_str().unwrap(),
        "--timeout",
        "10m",
        "--out",
        "replace:spread",
        "--tag",
        tag,
    ];
    let submit = [&submit[..], &rest].concat();
    tokio::select! {
        ran = bed.aviary(&submit) => { ran.ok(); }
        _ = wait_for("a refusal", async || refused(worker)) => {}
    }
}

/// What the worker was refused, or how it ended.
fn refused(worker: &Managed) -> Option<String> {
    let log = worker.log().unwrap_or_default();
    let line = refusal(&log).map(shortened);
    line.or_else(|| (!worker.is_running()).then(|| format!("the worker ended: {log}")))
}

/// What the worker is refused, in one job or another: the other shard's worker may be faster, and some of what a
/// worker does has no fixed place in a job.
async fn misses(bed: &Bed, worker: &Managed, role: &str) -> String {
    const BETWEEN: Duration = Duration::from_secs(5);
    let jobs = async {
        for job in 0.. {
            run_job(bed, worker, &format!("{role}-{job}")).await;
            tokio::time::sleep(BETWEEN).await;
        }
    };
    let what = format!("a refusal to {role}");
    tokio::select! {
        () = jobs => unreachable!("jobs without end"),
        refused = wait_for(&what, async || refused(worker)) => refused,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shards_role_is_enough_and_each_of_its_privileges_is_missed() {
    let Some(mongosh) = mongosh().await else { return };
    let iterations = ("scramSHA256IterationCount".to_owned(), "5000".to_owned());
    let options = ShardedClusterOptions { auth: true, parameters: vec![iterations], ..cluster(2) };
    let bed = Bed::sharded(options, Links::Direct).await;
    let config = bed.cluster().config();
    // Everything that is asked of the config servers is in their log from now on.
    let log_all = doc! { "profile": 0, "slowms": -1 };
    config.run_admin(log_all).await.unwrap();
    bed.cluster().enable_sharding(INPUT, "s0").await.unwrap();
    bed.cluster()
        .shard_collection(&format!("{INPUT}.orders"), doc! { "_id": "hashed" }, Some(4))
        .await
        .unwrap();
    // Whether a target has zones is asked of one that is sharded.
    bed.cluster().enable_sharding(OWN, "s0").await.unwrap();
    let spread = format!("{OWN}.spread");
    bed.cluster().shard_collection(&spread, doc! { "_id": "hashed" }, None).await.unwrap();
    let orders = bed.client.database(INPUT).collection::<Document>("orders");
    orders.insert_many((0..100).map(|n| doc! { "_id": n, "k": n % 5 })).await.unwrap();
    bed.aviary(&["init", "-d", OWN]).await.ok();

    let databases = [("DB", OWN), ("INPUT_DB", INPUT), ("SHARD", "1")];
    let mut uris = Vec::new();
    for index in 0..2 {
        let shard = bed.cluster().shard(index).unwrap();
        make_roles(&mongosh, shard, &databases).await;
        user(shard, "beside", &[("aviary-shard", "admin")]).await;
        uris.push(beside(shard, "beside"));
    }
    let coordinator = bed.spawn("coordinator", &["coordinator", "-d", OWN], &[TRUST]);
    let spawn = |uri: &str| {
        let args = ["worker", "-d", OWN, "--slots", "1", "--shard-uri", uri];
        // What little a map task leaves behind would go with its commit.
        let apart = ("AVIARY_KEPT_BYTES", "0");
        bed.spawn("worker", &args, &[("AVIARY_LOG", "aviary=debug"), apart, TRUST])
    };
    let _other = spawn(&uris[1]);
    let worker = spawn(&uris[0]);
    run_job(&bed, &worker, "whole").await;
    assert_eq!(refused(&worker), None, "the role as it is made");
    worker.stop(Duration::from_secs(60)).await.unwrap();
    assert_eq!(refusal(&worker.log().unwrap()), None);

    let shard = bed.cluster().shard(0).unwrap();
    let held = privileges(shard, "aviary-shard", "admin").await;
    for (index, privilege) in held.iter().enumerate() {
        // A test that waits too long says which role it was.
        let role = format!("reduced{index}-without-{}-{}", privilege.action, privilege.collection);
        shard.create_role(&role, but(&held, index), Vec::new()).await.unwrap();
        user(shard, &role, &[(&role, "admin")]).await;
        let worker = spawn(&beside(shard, &role));
        println!("without {privilege:<48} {}", misses(&bed, &worker, &role).await);
        if privilege.collection == "system.version" {
            let log = worker.log().unwrap();
            for word in ["admin.system.version", "SHARD=1 deploy/roles.js", "Atlas"] {
                assert!(log.contains(word), "{word} is missing: {log}");
            }
        }
        // It may have ended by itself.
        let _ = worker.kill();
    }
    assert!(coordinator.is_running());

    // A cluster's fleet: the same as elsewhere, and what the config servers were asked.
    let databases = [("DB", OWN), ("INPUT_DB", INPUT), ("CLUSTER", "1")];
    make_roles(&mongosh, shard, &databases).await;
    let fleet = privileges(shard, "aviary-fleet", "admin").await;
    let granted: BTreeSet<String> =
        fleet.into_iter().filter(|one| one.db == "config").map(|one| one.collection).collect();
    let asked = asked_of_config(&config.member(0).unwrap().log().unwrap());
    println!("asked of the config servers: {asked:?}");
    assert_eq!(asked, granted);
}

fn beside(shard: &aviary_testcontainers::ReplicaSet, name: &str) -> String {
    let port = shard.port(0).unwrap();
    format!("mongodb://{name}:{PASSWORD}@127.0.0.1:{port}/?directConnection=true&authSource=admin")
}

/// The collections of `config` that daemons have read, by the log of a config server.
fn asked_of_config(log: &str) -> BTreeSet<String> {
    let mut asked = BTreeSet::new();
    for line in log
        .lines()
        .filter(|line| line.contains("aviary-worker") || line.contains("aviary-coordinator"))
    {
        let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        let attributes = &line["attr"];
        let by = attributes["appName"].as_str().unwrap_or_default();
        let read = attributes["command"]["find"].as_str();
        if let Some(read) = read
            && attributes["command"]["$db"] == "config"
            && ["aviary-worker", "aviary-coordinator"].contains(&by)
        {
            asked.insert(read.to_owned());
        }
    }
    asked
}
