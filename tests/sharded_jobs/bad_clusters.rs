//! Clusters that cannot be used as asked: one line says why, the exit code is the documented one, and
//! nothing is lost.

use aviary_testcontainers::{ReplicaSet, ReplicaSetOptions};
use bson::doc;

use crate::common::{Bed, Links, Ran, cluster};
use crate::jobs;

/// One line of error with these words.
fn says(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, code, "{ran:?}");
    let errors = ran.stderr.lines().filter(|line| line.starts_with("error: "));
    assert_eq!(errors.count(), 1, "{ran:?}");
    for word in words {
        assert!(ran.stderr.contains(word), "{word:?} is missing: {ran:?}");
    }
}

fn direct(set: &ReplicaSet) -> String {
    format!("mongodb://127.0.0.1:{}/?directConnection=true", set.port(0).expect("a member"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_leads_elsewhere_is_refused() {
    let (bed, other) = tokio::join!(
        Bed::sharded(cluster(2), Links::Direct),
        Bed::sharded(cluster(1), Links::Direct)
    );
    let set = Bed::with(ReplicaSetOptions::default()).await;
    let own = direct(bed.cluster().shard(0).expect("a shard"));

    // Its shard bears the same name, and is another's.
    let twin = direct(other.cluster().shard(0).expect("a shard"));
    let ran = bed.aviary(&["worker", "--shard-uri", &twin]).await;
    says(&ran, 8, &["--shard-uri", "s0 of another cluster", "sh.status()"]);
    let ran = bed.aviary(&["worker", "--shard-uri", &direct(set.set())]).await;
    says(&ran, 8, &["is no shard of the cluster", "never added"]);
    let config = direct(bed.cluster().config());
    let ran = bed.aviary(&["worker", "--shard-uri", &config]).await;
    says(&ran, 8, &["is no shard of the cluster"]);
    let ran = bed.aviary(&["worker", "--shard-uri", &bed.uri()]).await;
    says(&ran, 8, &["is no shard of the cluster", "router"]);
    let ran = bed.aviary(&["worker", "--shard-uri", &own, "--shard", "s1"]).await;
    says(&ran, 2, &["leads to the shard s0", "--shard s1"]);
    let ran = bed.aviary(&["worker", "--shard", "s9"]).await;
    says(&ran, 5, &["shard s9", "s0, s1"]);
    for (uri, part) in [(&own, "the shard s0"), (&config, "the config servers")] {
        let ran = bed.aviary(&["list", "--uri", uri]).await;
        says(&ran, 8, &["--uri", part, "router"]);
    }
    let ran = set.aviary(&["worker", "--shard-uri", &own]).await;
    says(&ran, 2, &["no sharded cluster"]);
    assert_eq!(
        bed.client
            .list_database_names()
            .await
            .expect("listed")
            .iter()
            .filter(|name| *name == "test")
            .count(),
        0,
        "nothing was written"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_waits_for_a_shard_that_is_away_and_a_submit_says_so() {
    let bed = Bed::sharded(cluster(2), Links::Direct).await;
    jobs::load_sharded(&bed, "input", doc! { "n": 1 }).await;
    let _coordinator = jobs::coordinator(&bed);
    let _workers = bed.workers();
    jobs::run(&bed, "input", "before").await;
    let expected = bed.all("before").await;

    let away = bed.cluster().shard(1).expect("a shard");
    away.kill(0).await.expect("killed");
    let map = bed.file("map.js", jobs::MAP).display().to_string();
    let args =
        ["submit", "-c", "input", "--map", &map, "--reduce", "_count", "--out", "replace:lost"];
    let ran = bed.aviary(&args).await;
    says(&ran, 6, &["s1"]);
    away.restart(0).await.expect("started");
    away.wait_primary().await.expect("a primary");
    assert!(bed.all("lost").await.is_empty());
    jobs::run(&bed, "input", "after").await;
    assert_eq!(bed.all("after").await, expected);
}
