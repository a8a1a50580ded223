//! A primary that is killed under a running job.

use crate::common::{Bed, Paused, wait_for};
use crate::jobs::{self, Ask};

/// Four map tasks from the documents of `few`.
const SPLIT_BYTES: &str = "9000";

#[tokio::test(flavor = "multi_thread")]
async fn jobs_outlive_their_primary() {
    let bed = Bed::start(3).await;
    jobs::load_few(&bed).await;
    let coordinator =
        bed.spawn("coordinator", &["coordinator"], &[("AVIARY_SPLIT_BYTES", SPLIT_BYTES)]);
    let worker = bed.worker();
    let calm = Ask::new("few", "calm").submit(&bed).await;
    jobs::succeeded(&bed, &calm).await;
    jobs::nothing_left(&bed).await;
    jobs::stop(&worker).await;

    the_primary_dies_in(&bed, "mapping", "map.call").await;
    the_primary_dies_in(&bed, "reducing", "reduce.read").await;
    assert!(coordinator.is_running(), "it goes on: {}", coordinator.log().expect("its log"));
    jobs::stop(&coordinator).await;
}

/// Kills the primary while each worker is in the middle of a task.
async fn the_primary_dies_in(bed: &Bed, phase: &str, place: &str) {
    let workers = [bed.paused_worker(place), bed.paused_worker(place)];
    let output = format!("killed-{phase}");
    let id = Ask::new("few", &output).submit(bed).await;
    for worker in &workers {
        worker.arrived().await;
    }
    let old = bed.set().wait_primary().await.expect("a primary");
    bed.set().kill(old).await.expect("killed");
    let new = wait_for("another primary", || async {
        bed.set().primary().await.filter(|new| *new != old)
    })
    .await;
    let state = jobs::job(bed, &id).await.get_str("state").expect("a state").to_owned();
    assert_eq!(state, phase, "member {new} took over while the tasks ran");
    workers.iter().for_each(Paused::go_on);
    bed.set().restart(old).await.expect("restarted");

    jobs::succeeded(bed, &id).await;
    assert_eq!(bed.all(&output).await, bed.all("calm").await);
    bed.set().wait_healthy().await.expect("all members serve");
    jobs::nothing_left(bed).await;
    for Paused { process, .. } in &workers {
        assert!(process.is_running(), "no worker ended: {}", process.log().expect("its log"));
        jobs::stop(process).await;
    }
}
