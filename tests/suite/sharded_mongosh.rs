//! The real mongosh does through a cluster's router what an operator does through a mongos: see
//! `sharded_mongosh.js`, which checks each step, and here what it left behind.

use crate::common::{Bed, Links, cluster, mongosh, root, run_parts};
use bson::{Document, doc};

#[tokio::test(flavor = "multi_thread")]
async fn mongosh_administers_a_cluster_through_the_router() {
    let Some(mongosh) = mongosh().await else { return };
    let bed = Bed::sharded(cluster(3), Links::Routed).await;
    let mut shell = tokio::process::Command::new(mongosh);
    shell
        .args([bed.uri().as_str(), "--quiet", "--norc", "--file"])
        .arg(root().join("tests/sharded_mongosh.js"))
        .env("HOME", bed.dir.path());
    let parts = [
        "crud",
        "aggregate",
        "shardCollection",
        "split",
        "moves",
        "getMore",
        "sessions",
        "indexes",
        "collections",
        "zones",
        "rename",
        "status",
        "drop",
    ];
    run_parts(&mut shell, &parts).await;

    // What the shell says it did, the servers have.
    let chunks = bed.cluster().chunks("shell.kept").await.unwrap();
    let owners: Vec<&str> = chunks.iter().map(|chunk| chunk.shard.as_str()).collect();
    assert_eq!(owners, ["s0", "s1", "s2"]);
    let kept = bed.client.database("shell").collection::<Document>("kept");
    assert_eq!(kept.count_documents(doc! {}).await.unwrap(), 300);
    let names = bed.client.database("shell").list_collection_names().await.unwrap();
    assert_eq!(names, ["kept"]);
}
