//! A primary that is killed under a running job.

use crate::common::{Bed, wait_for};
use crate::jobs::{self, Ask};

/// Four map tasks from the documents of `few`.
const SPLIT_BYTES: &str = "9000";

#[tokio::test(flavor = "multi_thread")]
async fn jobs_outlive_their_primary() {
    let bed = Bed::start(3).await;
    jobs::load_few(&bed).await;
    let coordinator =
        bed.spawn("coordinator", &["coordinator"], &[("AVIARY_SPLIT_BYTES", SPLIT_BYTES)]);
    let workers = [bed.worker(), bed.worker()];
    let calm = Ask::new("few", "calm").submit(&bed).await;
    jobs::succeeded(&bed, &calm).await;
    jobs::nothing_left(&bed).await;

    let slow_map = Ask { map_rounds: jobs::SLOW, ..Ask::new("few", "killed-in-map") };
    the_primary_dies_in(&bed, "map", &slow_map).await;
    let slow_reduce = Ask { reduce_rounds: 800_000, ..Ask::new("few", "killed-in-reduce") };
    the_primary_dies_in(&bed, "reduce", &slow_reduce).await;

    for daemon in workers.iter().chain([&coordinator]) {
        assert!(daemon.is_running(), "no daemon ended: {}", daemon.log().expect("its log"));
        jobs::stop(daemon).await;
    }
}

async fn the_primary_dies_in(bed: &Bed, kind: &str, ask: &Ask) {
    let id = ask.submit(bed).await;
    jobs::task_under_way(bed, &id, kind).await;
    let old = bed.set.wait_primary().await.expect("a primary");
    bed.set.kill(old).await.expect("killed");
    let new =
        wait_for("another primary", || async { bed.set.primary().await.filter(|new| *new != old) })
            .await;
    let state = jobs::job(bed, &id).await.get_str("state").expect("a state").to_owned();
    let phase = if kind == "map" { "mapping" } else { "reducing" };
    assert_eq!(state, phase, "member {new} took over while the tasks ran");
    bed.set.restart(old).await.expect("restarted");

    jobs::succeeded(bed, &id).await;
    assert_eq!(bed.all(&ask.output).await, bed.all("calm").await);
    bed.set.wait_healthy().await.expect("all members serve");
    jobs::nothing_left(bed).await;
}
