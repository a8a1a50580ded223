//! The real pymongo does through a cluster's router what it does through a mongos: see
//! `sharded_pymongo.py`, which checks each step, and here what it left behind.

use crate::common::{Bed, Links, cluster, root, run_parts};
use crate::python;
use bson::{Document, doc};

#[tokio::test(flavor = "multi_thread")]
async fn pymongo_works_on_a_cluster_through_the_router() {
    let Some(python) = python::python().await else { return };
    let bed = Bed::sharded(cluster(3), Links::Routed).await;
    let mut script = tokio::process::Command::new(python);
    script.arg(root().join("tests/sharded_pymongo.py")).arg(bed.uri());
    let parts = [
        "crud",
        "shard_collection",
        "split_and_move",
        "aggregate",
        "get_more",
        "sessions",
        "indexes",
        "collections",
        "zones",
        "stale_routing",
        "change_stream",
        "rename",
        "drop",
    ];
    run_parts(&mut script, &parts).await;

    let chunks = bed.cluster().chunks("py.kept").await.unwrap();
    let owners: Vec<&str> = chunks.iter().map(|chunk| chunk.shard.as_str()).collect();
    assert_eq!(owners, ["s0", "s1", "s2"]);
    let kept = bed.client.database("py").collection::<Document>("kept");
    assert_eq!(kept.count_documents(doc! {}).await.unwrap(), 300);
    assert_eq!(bed.client.database("py").list_collection_names().await.unwrap(), ["kept"]);
}
