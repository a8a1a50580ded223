//! Coordinators that are killed, each at another step of a job.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use aviary_testcontainers::Managed;
use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::{Collection, IndexModel};
use tokio::task::JoinHandle;

use crate::common::Bed;
use crate::jobs::{self, Ask};

/// Every place at which a coordinator can be made to halt, with the job's state there.
const PLACES: [(&str, &str); 5] = [
    ("plan", "planning"),
    ("plan.written", "planning"),
    ("mapping", "mapping"),
    ("reducing", "reducing"),
    ("clean", "succeeded"),
];

/// 3,000 results: more than a reader gets in one reply.
const MAP: &str = "function () { emit(this.k % 3000, {n: 1, total: this.v}); }";
const REDUCE: &str = "function (key, values) {
  const sum = {n: 0, total: 0};
  for (const value of values) { sum.n += value.n; sum.total += value.total; }
  return sum;
}";

pub const TARGET: &str = "target";
const OLD: i32 = 2_500;

pub async fn killed_coordinators_change_nothing(bed: &Bed) {
    jobs::load_many(bed).await;
    let worker = bed.worker();
    let healthy = jobs::coordinator(bed);
    let calm = submit(bed, "calm").await;
    jobs::succeeded(bed, &calm).await;
    jobs::stop(&healthy).await;
    let calm = bed.all("calm").await;
    assert_eq!(calm.len(), 3_000);

    for (place, state) in PLACES {
        let reader = with_old_target(bed, &calm).await;
        let doomed = halting(bed, place);
        let id = submit(bed, TARGET).await;
        let epoch = killed_in(bed, &doomed, &id, place, state).await;
        let next = jobs::coordinator(bed);
        jobs::succeeded(bed, &id).await;
        assert!(jobs::role_epoch(bed).await > epoch, "the role changed hands");
        published(bed, reader, &calm, place).await;
        jobs::stop(&next).await;
    }
    one_job_outlives_a_coordinator_at_every_step(bed, &calm).await;
    jobs::stop(&worker).await;
}

async fn one_job_outlives_a_coordinator_at_every_step(bed: &Bed, calm: &[Document]) {
    let reader = with_old_target(bed, calm).await;
    let id = submit(bed, TARGET).await;
    for (place, state) in PLACES {
        let doomed = halting(bed, place);
        killed_in(bed, &doomed, &id, place, state).await;
    }
    let last = jobs::coordinator(bed);
    let job = jobs::succeeded(bed, &id).await;
    assert_eq!(jobs::number(&job, "plan"), 2, "the plan that was not finished was made again");
    published(bed, reader, calm, "every step").await;
    jobs::stop(&last).await;
}

pub async fn submit(bed: &Bed, output: &str) -> String {
    Ask { functions: Some((MAP, REDUCE)), ..Ask::new("many", output) }.submit(bed).await
}

fn halting(bed: &Bed, place: &str) -> Managed {
    let env = [("AVIARY_HALT_AT", place), ("AVIARY_SPLIT_BYTES", jobs::SPLIT_BYTES)];
    bed.spawn("halting", &["coordinator"], &env)
}

/// Kills the coordinator and returns the role's epoch while it was its.
async fn killed_in(bed: &Bed, doomed: &Managed, id: &str, place: &str, state: &str) -> i64 {
    jobs::kill_at(doomed, place).await;
    assert_eq!(jobs::text(&jobs::job(bed, id).await, "state"), state, "{place}");
    jobs::role_epoch(bed).await
}

/// The target as a user left it: other documents, and an index of the user's own. The reader begins
/// to look at it.
pub async fn with_old_target(bed: &Bed, calm: &[Document]) -> Reader {
    let target = bed.coll(TARGET);
    target.drop().await.expect("dropped");
    let old: Vec<Document> = (0..OLD).map(|i| doc! { "_id": i, "value": "old" }).collect();
    bed.load(TARGET, old.clone()).await;
    target
        .create_index(IndexModel::builder().keys(doc! { "value": 1 }).build())
        .await
        .expect("built");
    Reader::start(target, old, calm.to_vec())
}

/// The target holds the result, whole, under the user's index; readers never saw anything else.
pub async fn published(bed: &Bed, reader: Reader, calm: &[Document], place: &str) {
    assert_eq!(bed.all(TARGET).await, calm, "{place}");
    let indexes = bed.coll(TARGET).list_index_names().await.expect("listed");
    assert_eq!(indexes, ["_id_", "value_1"], "{place}");
    reader.saw_old_then_new().await;
    jobs::nothing_left(bed).await;
}

/// Reads a collection over and over; every read must be one of two results.
pub struct Reader {
    seen: Arc<[AtomicUsize; 2]>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Reader {
    fn start(target: Collection<Document>, old: Vec<Document>, new: Vec<Document>) -> Self {
        let seen: Arc<[AtomicUsize; 2]> = Arc::default();
        let stop: Arc<AtomicBool> = Arc::default();
        let (counts, ended) = (seen.clone(), stop.clone());
        let task = tokio::spawn(async move {
            while !ended.load(Ordering::Relaxed) {
                // Small replies, so that a read is under way most of the time.
                let cursor = target.find(doc! {}).sort(doc! { "_id": 1 }).batch_size(500).await;
                let read: Result<Vec<Document>, _> = match cursor {
                    Ok(cursor) => cursor.try_collect().await,
                    Err(error) => Err(error),
                };
                // A read that the rename cuts off is an error, which is not part of a result.
                let Ok(read) = read else { continue };
                let which = usize::from(read != old);
                if which == 1 {
                    assert!(
                        read == new,
                        "a reader saw {} documents, neither old nor new",
                        read.len()
                    );
                }
                counts[which].fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        Self { seen, stop, task }
    }

    async fn saw_old_then_new(self) {
        crate::common::wait_for("the reader to see the result", || async {
            let new = self.seen[1].load(Ordering::Relaxed);
            (new > 0 || self.task.is_finished()).then_some(())
        })
        .await;
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the reader saw the old or the new result only");
        assert!(self.seen[0].load(Ordering::Relaxed) > 0, "it saw the old one first");
    }
}
