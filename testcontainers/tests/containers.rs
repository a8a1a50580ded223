//! The image that `deploy/image` builds, started through the crate `testcontainers`.
//!
//! Runs only when `AVIARY_CONTAINERS` names the image.
#![cfg(test)]

use std::io::Write;

use aviary_testcontainers::containers::{Containers, ContainersOptions};
use aviary_testcontainers::mongodb::Client;
use aviary_testcontainers::mongodb::bson::{Document, doc};

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_containers_counts_under_a_quota() {
    let Some(image) = std::env::var("AVIARY_CONTAINERS").ok().filter(|image| !image.is_empty())
    else {
        // Past the harness, which keeps what a passing test prints to itself.
        writeln!(
            std::io::stderr(),
            "skipped: AVIARY_CONTAINERS names no image; .ci/containers builds one and runs this"
        )
        .expect("written");
        return;
    };
    let options = ContainersOptions {
        image,
        shards: 2,
        shard_cpus: Some(0.4),
        ..ContainersOptions::default()
    };
    let cluster = Containers::start(options).await.expect("a cluster");
    let client = Client::with_uri_str(cluster.uri()).await.expect("a client");
    let docs: Vec<Document> = (0..1_000).map(|n| doc! { "_id": n, "k": n % 3 }).collect();
    client.database("test").collection("things").insert_many(docs).await.expect("loaded");
    cluster.write("/tmp/map.js", "function () { emit(this.k, 1); }").await.expect("written");
    let submit =
        ["submit", "-c", "things", "--map", "/tmp/map.js", "--reduce", "_count", "--quiet"];
    let ended = cluster.aviary(&submit).await.expect("it runs");
    assert_eq!(ended.code, 0, "{ended:?}");
    let mut lines: Vec<&str> = ended.stdout.lines().collect();
    lines.sort_unstable();
    let expected =
        [r#"{"_id":0.0,"value":334}"#, r#"{"_id":1.0,"value":333}"#, r#"{"_id":2.0,"value":333}"#];
    assert_eq!(lines, expected);
    let used = cluster.shard_cpu_seconds(1).await.expect("it tells");
    assert!(used > 0.0, "{used} CPU seconds");
}
