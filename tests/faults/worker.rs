//! Workers that are killed.

use aviary_testcontainers::Managed;
use bson::{Document, doc};

use crate::common::{Bed, wait_for};
use crate::jobs::{self, Ask};

/// Keys and values too large for one write, so that a map task's blocks go out in several.
const BULK_MAP: &str = "function () { emit(this.k, {n: 1, pad: this.pad}); }";
const BULK_REDUCE: &str = "function (key, values) {
  let out = {n: 0, pad: values[0].pad};
  for (const value of values) {
    out.n += value.n;
    if (value.pad < out.pad) out.pad = value.pad;
  }
  return out;
}";

fn bulk(output: &str) -> Ask {
    Ask {
        functions: Some((BULK_MAP, BULK_REDUCE)),
        // A sorted job is one split.
        flags: vec!["--sort", r#"{"_id": 1}"#],
        ..Ask::new("bulk", output)
    }
}

/// Text that does not compress.
fn noise(seed: u32, chars: usize) -> String {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        char::from(b' ' + u8::try_from(state % 90).expect("below 90"))
    };
    (0..chars).map(|_| next()).collect()
}

/// On a cluster the first shard has all of it, as the one task that reads it is that shard's.
async fn load_bulk(bed: &Bed) {
    let docs = (0..3_500).map(|i| {
        let pad = noise(u32::try_from(i).expect("small") + 1, 4_000);
        doc! { "_id": i, "k": i % 3_400, "pad": pad }
    });
    bed.load("bulk", docs.collect()).await;
}

pub async fn killed_workers_change_nothing(bed: &Bed) {
    jobs::load_many(bed).await;
    load_bulk(bed).await;
    let coordinator = jobs::coordinator(bed);
    let calm = undisturbed(bed, Ask::new("many", "calm")).await;
    assert_eq!(calm.len(), 18_000);
    jobs::assert_recounted(bed, "many", &calm).await;

    for place in ["map.read", "map.call", "map.commit", "reduce.read", "reduce.commit"] {
        let ask = Ask::new("many", &place.replace('.', "-"));
        let (id, ..) = killed_at(bed, &ask, place, async |_| 0).await;
        assert!(jobs::tasks(bed, &id).await.len() >= 6, "several tasks of each kind");
        assert_eq!(bed.all(&ask.output).await, calm, "{place}");
    }
    a_worker_killed_between_two_writes_of_output(bed, &calm).await;

    let calm = undisturbed(bed, bulk("bulk-calm")).await;
    assert_eq!(calm.len(), 3_400);
    a_worker_killed_between_two_writes_of_blocks(bed, &calm).await;
    jobs::stop(&coordinator).await;
}

async fn a_worker_killed_between_two_writes_of_output(bed: &Bed, calm: &[Document]) {
    let ask = Ask::new("many", "half-written");
    let of = |task: &Document| {
        let result = task.get_document("result").expect("a result");
        result.get_document("counters").expect("counters").get_i64("output").expect("a number")
    };
    let (_, task, left) = killed_at(bed, &ask, "reduce.write", async |id| {
        let hidden = bed.coll(&format!("aviary-out-{id}"));
        let written = hidden.count_documents(doc! {}).await.expect("counted");
        let tasks = jobs::tasks(bed, id).await;
        let is_done =
            |task: &&Document| jobs::text(task, "kind") == "reduce" && task.contains_key("result");
        let committed: i64 = tasks.iter().filter(is_done).map(of).sum();
        i64::try_from(written).expect("a count") - committed
    })
    .await;
    assert!(0 < left && left < of(&task), "{left} of {} results were written", of(&task));
    assert_eq!(bed.all(&ask.output).await, calm);
}

async fn a_worker_killed_between_two_writes_of_blocks(bed: &Bed, calm: &[Document]) {
    let ask = bulk("bulk-killed");
    let (_, task, left) = killed_at(bed, &ask, "map.write", async |id| {
        let of_job = doc! { "_id": { "$regex": format!("^{id}/") } };
        let blocks = bed.coll("aviary-intermediates").count_documents(of_job).await;
        i64::try_from(blocks.expect("counted")).expect("a count")
    })
    .await;
    let parts = task.get_document("result").expect("a result").get_array("parts").expect("parts");
    let whole: i64 = parts
        .iter()
        .filter_map(|part| part.as_document()?.get_array("runs").ok())
        .flatten()
        .map(|blocks| blocks.as_i64().or_else(|| blocks.as_i32().map(i64::from)).expect("a number"))
        .sum();
    assert!(0 < left && left < whole, "{left} of {whole} blocks were written");
    assert_eq!(bed.all(&ask.output).await, calm);
}

async fn undisturbed(bed: &Bed, ask: Ask) -> Vec<Document> {
    let worker = bed.worker();
    let id = ask.submit(bed).await;
    jobs::succeeded(bed, &id).await;
    for task in jobs::tasks(bed, &id).await {
        assert_eq!(jobs::outcomes(&task), ["done"]);
    }
    jobs::nothing_left(bed).await;
    jobs::stop(&worker).await;
    bed.all(&ask.output).await
}

/// Runs a job on a worker that is killed at `place` and then on one that is not. Returns the job's
/// id, the task that was lost, and what `between` counted while nobody worked.
async fn killed_at(
    bed: &Bed,
    ask: &Ask,
    place: &str,
    between: impl AsyncFn(&str) -> i64,
) -> (String, Document, i64) {
    let doomed = bed.halting_worker(place);
    bed.known(&doomed).await;
    let id = ask.submit(bed).await;
    jobs::kill_at(&doomed, place).await;
    let held = jobs::held_by(bed, &id, &doomed).await;
    others_are_done(bed, &id, &held).await;
    assert!(place.starts_with(held.get_str("kind").expect("a kind")), "{held:#?}");
    let counted = between(&id).await;

    let healthy = bed.worker();
    jobs::succeeded(bed, &id).await;
    let lost = jobs::again(bed, &held).await;
    assert_eq!(jobs::outcomes(&lost), ["lost", "done"], "{lost:#?}");
    assert_eq!(jobs::number(&lost, "epoch"), 2);
    assert_attempts_of(&lost, &doomed, &healthy);
    jobs::nothing_left(bed).await;
    jobs::stop(&healthy).await;
    (id, lost, counted)
}

/// Waits until nothing is left to do for workers of other shards than the dead one's.
async fn others_are_done(bed: &Bed, id: &str, held: &Document) {
    wait_for("the other shards", || async {
        let busy = jobs::tasks(bed, id).await.into_iter().any(|task| {
            let elsewhere = jobs::text(&task, "shard") != jobs::text(held, "shard");
            elsewhere && ["ready", "leased"].contains(&jobs::text(&task, "state"))
        });
        (!busy).then_some(())
    })
    .await;
}

fn assert_attempts_of(task: &Document, first: &Managed, second: &Managed) {
    let of = |n: usize| jobs::history(task)[n].get_str("worker").expect("a worker").to_owned();
    assert!(jobs::is_of(&of(0), first), "{task:#?}");
    assert!(jobs::is_of(&of(1), second), "{task:#?}");
}
