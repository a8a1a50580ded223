//! The real pymongo does through a cluster's router what it does through a mongos: see
//! `sharded_pymongo.py`, which checks each step, and here what it left behind.

#![cfg(test)]

mod common;

use std::path::PathBuf;

use bson::{Document, doc};
use common::{Bed, Links, cluster, root, run_parts};

const PYMONGO: &str = "pymongo==4.15.4";

#[tokio::test(flavor = "multi_thread")]
async fn pymongo_works_on_a_cluster_through_the_router() {
    let Some(python) = python().await else { return };
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

/// A Python that has pymongo, in an environment of its own below `target/`. `None`, with a line that
/// says so, where it cannot be made; in CI that is an error.
async fn python() -> Option<PathBuf> {
    let environment = root().join("target/pymongo");
    let python = environment.join("bin/python");
    let check = "import pymongo, sys; sys.exit('pymongo==' + pymongo.version != sys.argv[1])";
    let has_it = async || {
        let run = tokio::process::Command::new(&python).args(["-c", check, PYMONGO]).output().await;
        run.is_ok_and(|run| run.status.success())
    };
    if !has_it().await {
        let made = tokio::process::Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&environment)
            .output()
            .await;
        if made.is_ok_and(|made| made.status.success()) {
            let install =
                ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", PYMONGO];
            tokio::process::Command::new(&python).args(install).output().await.ok();
        }
        if !has_it().await {
            assert!(std::env::var_os("CI").is_none(), "{PYMONGO} could not be installed with pip");
            println!("skipped: there is no pymongo, and pip cannot install it");
            return None;
        }
    }
    Some(python)
}
