//! A shard that does not let in whoever comes without a router: the router serves instead, and a person is told once
//! what would let the worker in.

use aviary_testcontainers::{FailCommand, Managed, ShardedClusterOptions};
use bson::doc;

use crate::common::{Bed, Links, cluster};
use crate::jobs::{counted, ended, submit_with};

const COUNT: i32 = 2_100;
const UNAUTHORIZED: i32 = 13;
/// What workers call themselves on their links to their own shards, and nowhere else.
const BESIDE: &str = "beside";

/// What is sent over such a link. A worker that begins asks a shard for its name, in a database that servers always let it
/// read.
fn shut() -> FailCommand {
    let commands = ["find", "getMore", "findAndModify", "update", "aggregate"];
    FailCommand {
        commands: commands.map(str::to_owned).to_vec(),
        app_name: Some(BESIDE.to_owned()),
        error_code: Some(UNAUTHORIZED),
        namespace: Some("test.aviary".to_owned()),
        ..FailCommand::default()
    }
}

async fn shut_all(bed: &Bed) {
    for index in 0..bed.cluster().shard_count() {
        let shard = bed.cluster().shard(index).expect("a shard");
        shard.fail_command(0, &shut()).await.expect("a fail point");
    }
}

/// Lets workers in again, and says how many commands were refused.
async fn open_all(bed: &Bed) -> i64 {
    let mut refused = 0;
    for index in 0..bed.cluster().shard_count() {
        let shard = bed.cluster().shard(index).expect("a shard");
        refused += shard.clear_fail_command(0).await.expect("cleared");
    }
    refused
}

fn worker_beside(bed: &Bed, shard: usize, env: &[(&str, &str)]) -> Managed {
    let port = bed.cluster().shard(shard).expect("a shard").port(0).expect("a member");
    let uri = format!("mongodb://127.0.0.1:{port}/?directConnection=true&appName={BESIDE}");
    bed.spawn("worker", &["worker", "--slots", "1", "--shard-uri", &uri], env)
}

async fn bed() -> Bed {
    let options = ShardedClusterOptions { test_commands: true, ..cluster(2) };
    let bed = Bed::sharded(options, Links::Direct).await;
    bed.spread("docs").await;
    bed.load("docs", crate::jobs::documents(COUNT)).await;
    bed
}

fn told(worker: &Managed) -> usize {
    worker.log().unwrap_or_default().matches("directShardOperations").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_lets_nobody_in_is_reached_through_the_router_until_it_does() {
    let bed = bed().await;
    let split = [("AVIARY_SPLIT_BYTES", "20000")];
    let _coordinator = bed.spawn("coordinator", &["coordinator"], &split);
    bed.aviary(&["init"]).await.ok();
    shut_all(&bed).await;
    let workers = [0, 1].map(|shard| worker_beside(&bed, shard, &[]));
    for out in ["first", "second"] {
        ended(&bed, &submit_with(&bed, "test", out, &["--partitions", "4"]).await).await.ok();
        assert_eq!(counted(&bed, out).await, i64::from(COUNT));
    }
    assert!(open_all(&bed).await > 0, "it fired");
    for worker in &workers {
        assert_eq!(told(worker), 1, "{}", worker.log().unwrap_or_default());
        worker.wait_for_log("answers again").await.expect("the link is used again");
    }
}

/// As when a cluster gets its second shard.
#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_shuts_its_door_in_the_middle_of_a_job_costs_no_attempt() {
    let bed = bed().await;
    let split = [("AVIARY_SPLIT_BYTES", "20000")];
    let _coordinator = bed.spawn("coordinator", &["coordinator"], &split);
    bed.aviary(&["init"]).await.ok();
    for (out, place) in
        [("read", "map.call"), ("committed", "map.commit"), ("reduced", "reduce.commit")]
    {
        let workers = [0, 1].map(|n| bed.pause(place, |env| worker_beside(&bed, n, env)));
        for worker in &workers {
            bed.known(&worker.process).await;
        }
        let id = submit_with(&bed, "test", out, &["--partitions", "4"]).await;
        for worker in &workers {
            worker.arrived().await;
        }
        shut_all(&bed).await;
        for worker in &workers {
            worker.go_on();
        }
        ended(&bed, &id).await.ok();
        assert_eq!(counted(&bed, out).await, i64::from(COUNT), "{out}");
        let failed = doc! { "job": &id, "history.outcome": "failed" };
        assert_eq!(bed.coll("aviary").find_one(failed).await.expect("read"), None, "{out}");
        assert!(open_all(&bed).await > 0, "it fired");
        for worker in &workers {
            worker.process.terminate().expect("it runs");
            worker.process.wait_gone(crate::common::ceiling()).await.expect("it ends");
        }
    }
}
