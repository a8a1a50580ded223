//! The primary of a shard is killed; the worker beside it lives on.

use bson::{Document, doc};

use crate::common::Bed;
use crate::jobs::{self, Ask};
use crate::phases::{PHASES, Phase, READING, held_in, kill_primary, undisturbed};

pub async fn dies_in_each_phase(bed: &Bed, calm: &[Document]) {
    // The first shard holds jobs, the coordinator's role and results; the others nothing but tasks,
    // blocks and input.
    for (shard, phase) in [0, 1, 2, 0, 0].into_iter().zip(PHASES) {
        dies_in(bed, shard, phase, &phase.ask("primary"), calm).await;
    }
}

/// More than a worker has read when it stops: the rest of its cursor dies with the primary.
pub async fn dies_under_a_cursor(bed: &Bed) {
    const SHARD: usize = 1;
    load_wide(bed).await;
    let calm = undisturbed(bed, "wide").await;
    let tasks = dies_in(bed, SHARD, READING, &Ask::new("wide", "wide-killed"), &calm).await;
    let is_cut_off = |task: &&Document| {
        jobs::text(task, "shard") == format!("s{SHARD}")
            && jobs::outcomes(task) == ["database away", "done"]
    };
    assert_eq!(tasks.iter().filter(is_cut_off).count(), 1, "one cursor died: {tasks:#?}");
}

async fn dies_in(
    bed: &Bed,
    shard: usize,
    phase: Phase,
    ask: &Ask,
    calm: &[Document],
) -> Vec<Document> {
    let set = bed.cluster().shard(shard).expect("a shard");
    let mut dead = None;
    let tasks = held_in(bed, phase, ask, calm, async || dead = Some(kill_primary(set).await)).await;
    // Only now, so that nobody could wait for it to come back.
    set.restart(dead.expect("somebody was killed")).await.expect("restarted");
    set.wait_healthy().await.expect("all members serve");
    tasks
}

/// Some replies' worth of documents on each shard, beyond those that are read ahead.
async fn load_wide(bed: &Bed) {
    bed.spread("wide").await;
    let pad = "x".repeat(4_000);
    let docs =
        (0..7_500).map(|i| doc! { "_id": i, "k": i * 7 % 60, "v": i % 100, "pad": pad.as_str() });
    bed.load("wide", docs.collect()).await;
}
