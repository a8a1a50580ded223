//! Workers that are killed, each at another step of putting a result in place.

use crate::common::Bed;
use crate::coordinator::{TARGET, published, submit, with_old_target};
use crate::jobs;

/// Every place at which a worker that replaces a target can be made to halt.
const PUBLISHING: [&str; 4] =
    ["publish.staged", "publish.rename", "publish.renamed", "publish.commit"];

pub async fn killed_publishers_change_nothing(bed: &Bed) {
    jobs::load_many(bed).await;
    let coordinator = jobs::coordinator(bed);
    let healthy = bed.worker();
    let calm = submit(bed, "calm").await;
    jobs::succeeded(bed, &calm).await;
    jobs::stop(&healthy).await;
    let calm = &bed.all("calm").await;
    for place in PUBLISHING {
        let reader = with_old_target(bed, calm).await;
        let doomed = bed.halting_worker(place);
        let id = submit(bed, TARGET).await;
        jobs::kill_at(&doomed, place).await;
        assert_eq!(jobs::text(&jobs::job(bed, &id).await, "state"), "publishing", "{place}");
        let next = bed.worker();
        jobs::succeeded(bed, &id).await;
        published(bed, reader, calm, place).await;
        jobs::stop(&next).await;
    }
    // One job, and a publisher that dies at each step of it.
    let reader = with_old_target(bed, calm).await;
    let id = submit(bed, TARGET).await;
    for place in PUBLISHING {
        let doomed = bed.halting_worker(place);
        jobs::kill_at(&doomed, place).await;
    }
    let last = bed.worker();
    jobs::succeeded(bed, &id).await;
    published(bed, reader, calm, "every step of publishing").await;
    jobs::stop(&last).await;
    jobs::stop(&coordinator).await;
}
