//! The role in `deploy/role.js` is enough to run a job, and is what it says.

#![cfg(test)]

mod common;

use aviary_testcontainers::ReplicaSetOptions;
use bson::{Bson, doc};
use common::{Bed, mongosh, root};

#[tokio::test(flavor = "multi_thread")]
async fn the_least_role_is_enough_for_coordinator_workers_and_submit() {
    let Some(mongosh) = mongosh().await else { return };
    let bed = Bed::with(ReplicaSetOptions { auth: true, ..ReplicaSetOptions::default() }).await;
    let made = tokio::process::Command::new(mongosh)
        .arg(bed.set().uri())
        .args(["--quiet", "--file"])
        .arg(root().join("deploy/role.js"))
        .env("DB", "test")
        .env("INPUT_DB", "shop")
        .output()
        .await
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let role = Bson::Document(doc! { "role": "aviary", "db": "admin" });
    bed.set().create_user("worker", "least-of-all", vec![role]).await.unwrap();
    let uri = bed.set().uri_for_user("worker", "least-of-all");
    let shop = bed.client.database("shop").collection::<bson::Document>("orders");
    shop.insert_many((0..500).map(|n| doc! { "_id": n, "k": n % 5 })).await.unwrap();
    bed.load("totals", vec![doc! { "_id": "old" }]).await;

    let env = [("AVIARY_URI", uri.as_str())];
    let _coordinator = bed.spawn("coordinator", &["coordinator"], &env);
    let _worker = bed.spawn("worker", &["worker", "--slots", "1"], &env);
    let map = bed.file("map.js", "function () { emit(this.k, 1) }");
    let map = map.to_str().unwrap();
    let args = [
        "submit",
        "--uri",
        &uri,
        "-c",
        "orders",
        "--input-db",
        "shop",
        "--map",
        map,
        "--reduce",
        "_sum",
        "--out",
        "replace:totals",
        "-o",
        "json",
    ];
    let ran = bed.aviary(&args).await.ok();
    assert!(!ran.stdout.contains("least-of-all") && !ran.stderr.contains("least-of-all"));
    assert_eq!(ran.json()[0]["counters"]["input"], 500);
    assert_eq!(bed.all("totals").await.len(), 5);
    bed.nothing_left("permissions").await;
    // To merge takes no more privileges than to replace.
    for (out, value) in [("merge:totals", 100.0), ("reduce:totals", 200.0)] {
        let mut args = args.to_vec();
        args[12] = out;
        bed.aviary(&args).await.ok();
        let rows = bed.all("totals").await;
        assert_eq!(rows.len(), 5, "{out}");
        for row in rows {
            assert_eq!(row.get("value").and_then(Bson::as_f64), Some(value), "{out}: {row}");
        }
        bed.nothing_left(out).await;
    }
}
