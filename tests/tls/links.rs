//! A worker's link to its own shard uses the TLS options that it has for the cluster.

use aviary_testcontainers::ShardedClusterOptions;
use bson::doc;
use mongodb::Client;

use crate::certificates::Authority;
use crate::common::{Bed, Links, cluster};
use crate::door::door;

/// Connections with TLS that a shard's server has taken.
async fn encrypted(shard: &Client) -> i64 {
    let status = shard.database("admin").run_command(doc! { "serverStatus": 1 }).await.unwrap();
    let counts = status.get_document("transportSecurity").unwrap();
    counts.values().filter_map(|count| count.as_i64()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workers_link_to_its_shard_has_the_clusters_tls_options() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "authority");
    let server = authority.server();
    let shard_args = vec![
        // The stand-in for a router speaks no TLS, so others are still let in.
        "--tlsMode=allowTLS".to_owned(),
        "--tlsAllowConnectionsWithoutCertificates".to_owned(),
        format!("--tlsCertificateKeyFile={}", server.file.display()),
        format!("--tlsCAFile={}", authority.file.display()),
    ];
    let options = ShardedClusterOptions { shard_args, ..cluster(1) };
    let bed = Bed::sharded(options, Links::Direct).await;
    bed.load("orders", (0..100).map(|n| doc! { "_id": n, "k": n % 5 }).collect()).await;
    bed.aviary(&["init"]).await.ok();
    let shard = bed.cluster().shard(0).unwrap();
    let direct = Client::with_uri_str(shard.uri()).await.unwrap();
    let before = encrypted(&direct).await;

    let port = door(&server, bed.cluster().router().port()).await;
    let trusted = authority.file.display();
    let uri =
        format!("mongodb://127.0.0.1:{port}/test?retryWrites=false&tls=true&tlsCAFile={trusted}");
    let shard_uri =
        format!("mongodb://127.0.0.1:{}/?directConnection=true", shard.port(0).unwrap());
    let worker = ["worker", "--slots", "1", "--uri", &uri, "--shard-uri", &shard_uri];
    let _worker = bed.spawn("worker", &worker, &[]);
    let _coordinator = bed.coordinator();
    let map = bed.file("map.js", "function () { emit(this.k, 1) }");
    let map = map.to_str().unwrap();
    let submit = ["submit", "-c", "orders", "--map", map, "--reduce", "_sum"];
    bed.aviary(&[&submit[..], &["--out", "replace:totals"]].concat()).await.ok();
    assert_eq!(bed.all("totals").await.len(), 5);
    let taken = encrypted(&direct).await - before;
    // To the member beside it, and to the shard's primary.
    assert!(taken >= 2, "connections with TLS to the shard: {taken}");

    // An authority that has not signed the shard's certificate is told of.
    let other = Authority::new(dir.path(), "other");
    let other = format!(
        "{shard_uri}&tls=true&tlsCAFile={}&serverSelectionTimeoutMS=10000",
        other.file.display()
    );
    let ran = bed.aviary(&["worker", "--uri", &uri, "--shard-uri", &other]).await;
    assert_eq!(ran.code, 8, "{ran:#?}");
    assert!(ran.stderr.contains("other.pem has not signed the server's certificate"), "{ran:#?}");
}
