//! The primary of the config servers is killed.

use bson::Document;

use crate::common::Bed;
use crate::phases::{PHASES, held_in, kill_primary};

pub async fn primary_dies_in_each_phase(bed: &Bed, calm: &[Document]) {
    let set = bed.cluster().config();
    for phase in PHASES {
        let mut dead = None;
        let ask = phase.ask("config");
        held_in(bed, phase, &ask, calm, async || dead = Some(kill_primary(set).await)).await;
        // Only now, so that nobody could wait for it to come back.
        set.restart(dead.expect("somebody was killed")).await.expect("restarted");
        set.wait_healthy().await.expect("all members serve");
    }
}
