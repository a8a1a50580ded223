//! The primary of a shard is killed; the worker beside it lives on.

use bson::Document;

use crate::common::Bed;
use crate::phases::{PHASES, held_in, kill_primary};

pub async fn dies_in_each_phase(bed: &Bed, calm: &[Document]) {
    // The first shard holds jobs, the coordinator's role and results; the second nothing but tasks,
    // blocks and input.
    for (shard, phase) in [0, 1].into_iter().cycle().zip(PHASES) {
        let set = bed.cluster().shard(shard).expect("a shard");
        let mut dead = None;
        held_in(bed, phase, "primary", calm, async |_| dead = Some(kill_primary(set).await)).await;
        // Only now, so that nobody could wait for it to come back.
        set.restart(dead.expect("somebody was killed")).await.expect("restarted");
        set.wait_healthy().await.expect("all members serve");
    }
}
