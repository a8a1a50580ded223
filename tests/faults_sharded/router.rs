//! The router is killed, and started again on the same port.

use bson::Document;

use crate::common::Bed;
use crate::phases::{PHASES, held_in};

pub async fn dies_in_each_phase(bed: &Bed, calm: &[Document]) {
    let router = bed.cluster().router();
    let pid = || router.process().expect("a process").pid();
    for phase in PHASES {
        held_in(bed, phase, &phase.ask("router"), calm, async || {
            let old = pid();
            router.kill().await.expect("killed");
            assert!(!router.answers().await, "nobody answers for it");
            router.restart().await.expect("restarted");
            assert_ne!(pid(), old, "another process serves");
        })
        .await;
    }
}
