//! Attempts that end without a commit count for nothing, and leases are given away by the server's clock alone.

use std::path::{Path, PathBuf};

use bson::doc;

use crate::common::{Bed, wait_for};
use crate::jobs;

/// Every block is written when the worker dies, and none of them counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_before_its_commit_counts_for_nothing() {
    let bed = Bed::start(1).await.in_parts();
    let pad = "x".repeat(100);
    let docs = (0..400).map(|n| doc! { "_id": n, "keys": 10, "pad": &pad });
    bed.load("docs", docs.collect()).await;
    let _coordinator =
        bed.spawn("coordinator", &["coordinator"], &[("AVIARY_SPLIT_BYTES", "8000")]);
    for place in ["map.commit", "reduce.commit"] {
        let doomed = bed.halting_worker(place);
        let id = jobs::submit(&bed, "docs", "replace:counts", &[]).await;
        jobs::kill(&doomed).await;
        let next = bed.worker();
        let job = jobs::succeeded(&bed, &id).await;
        assert!(jobs::number(&job, "map_tasks") > 3, "{job}");
        let counters = job.get_document("counters").expect("counters");
        for (name, expected) in [("input", 400), ("emit", 400), ("reduce", 10), ("output", 10)] {
            assert_eq!(jobs::number(counters, name), expected, "{place}: {name}");
        }
        for row in bed.all("counts").await {
            assert_eq!(jobs::number(&row, "value"), 40, "{place}: {row}");
        }
        jobs::nothing_left(&bed).await;
        jobs::stop(&next).await;
    }
}

/// A worker whose clock is wrong takes no lease from another.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_clock_is_a_day_ahead_takes_nothing_away() {
    let Some(faketime) = faketime() else { return };
    let faketime = faketime.display().to_string();
    let bed = Bed::start(1).await.in_parts();
    jobs::load(&bed, "docs", 400, 10).await;
    let _coordinator = bed.coordinator();
    let first = bed.pause("map.read", |env| {
        let more = [("AVIARY_LEASE_TTL_MS", "3600000")];
        bed.spawn("worker", &["worker", "--slots", "1"], &[env, &more[..]].concat())
    });
    let id = jobs::submit(&bed, "docs", "replace:counts", &[]).await;
    first.arrived().await;
    let env = [
        ("LD_PRELOAD", faketime.as_str()),
        ("FAKETIME", "+1d"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let ahead = bed.spawn("ahead", &["worker", "--slots", "1"], &env);
    let other = jobs::submit(&bed, "docs", "replace:others", &[]).await;
    jobs::succeeded(&bed, &other).await;
    assert_eq!(jobs::total(&bed, "others").await, 400);
    let tomorrow =
        humantime_date(std::time::SystemTime::now() + std::time::Duration::from_secs(86_400));
    let log = ahead.log().expect("its log");
    assert!(log.contains(&tomorrow), "its clock is not ahead: no {tomorrow} in {log}");
    let held = doc! { "job": &id, "kind": "map", "state": "leased", "epoch": 1 };
    assert!(bed.coll("aviary").find_one(held).await.expect("read").is_some(), "the lease stands");
    first.go_on();
    jobs::succeeded(&bed, &id).await;
    assert_eq!(jobs::total(&bed, "counts").await, 400);
    let lost = doc! { "job": { "$in": [&id, &other] }, "history.outcome": "lost" };
    wait_for("the tasks", || async {
        let found = bed.coll("aviary").find_one(lost.clone()).await.ok()?;
        assert!(found.is_none(), "{found:?}");
        Some(())
    })
    .await;
}

/// The date part of a log line's time.
fn humantime_date(time: std::time::SystemTime) -> String {
    let text = bson::DateTime::from_system_time(time).try_to_rfc3339_string().expect("a date");
    text.split('T').next().expect("a date").to_owned()
}

/// The library that shows a process another time (Debian's `faketime`).
fn faketime() -> Option<PathBuf> {
    let libraries = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    ];
    let found = libraries.iter().map(Path::new).find(|library| library.is_file());
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "faketime is not installed");
        println!("skipped: faketime is not installed (apt-get install faketime)");
    }
    found.map(Path::to_owned)
}
