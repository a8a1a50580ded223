//! What the shuffle leaves in the database between map and reduce: blocks that are damaged there are made
//! again.

#![cfg(test)]

mod common;
#[path = "faults/jobs.rs"]
#[allow(dead_code, clippy::allow_attributes, reason = "these tests use a part of this")]
mod jobs;

use bson::{Binary, Bson, Document, doc, spec::BinarySubtype};
use common::Bed;
use futures_util::TryStreamExt;
use jobs::Ask;

/// Submits a job and has it stand still between map and reduce: every block is there, nobody reads them.
async fn mapped(bed: &Bed, ask: &Ask) -> String {
    let env = [("AVIARY_HALT_AT", "reducing"), ("AVIARY_SPLIT_BYTES", "65536")];
    let doomed = bed.spawn("halting", &["coordinator"], &env);
    let id = ask.submit(bed).await;
    jobs::kill_at(&doomed, "reducing").await;
    id
}

/// A job's blocks in the order of their names.
async fn blocks(bed: &Bed, id: &str) -> Vec<Document> {
    let of_job = doc! { "_id": { "$regex": format!("^{id}/") } };
    let found = bed.coll("aviary-intermediates").find(of_job).sort(doc! { "_id": 1 }).await;
    found.expect("found").try_collect().await.expect("read")
}

async fn change(bed: &Bed, block: &Document, set: Document) {
    let this = doc! { "_id": block.get("_id"), "shard": block.get("shard") };
    let changed = bed.coll("aviary-intermediates").update_one(this, doc! { "$set": set }).await;
    assert_eq!(changed.expect("changed").modified_count, 1);
}

fn data(block: &Document) -> Vec<u8> {
    block.get_binary_generic("data").expect("data").clone()
}

fn binary(bytes: Vec<u8>) -> Bson {
    Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes })
}

/// The number of the map task that wrote a block: `JOB/pPARTITION/TASK/TOKEN/RUN.SEQ`.
fn task_of(block: &Document) -> i64 {
    let name = jobs::text(block, "_id");
    name.split('/').nth(2).expect("a task").parse().expect("a number")
}

fn of_kind<'a>(tasks: &'a [Document], kind: &str) -> Vec<&'a Document> {
    tasks.iter().filter(|task| jobs::text(task, "kind") == kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_block_is_made_again() {
    let bed = Bed::start(1).await;
    jobs::load_many(&bed).await;
    let worker = bed.worker();
    let id = mapped(&bed, &Ask::new("many", "damaged")).await;
    let whole = blocks(&bed, &id).await;
    // One block of each of four map tasks, each damaged in its own way.
    let of_task = |n| whole.iter().find(|block| task_of(block) == n).expect("a block of each task");
    let mut flipped = data(of_task(0));
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x10;
    let mut cut = data(of_task(1));
    cut.truncate(2);
    let damages = [
        doc! { "data": binary(flipped) },
        doc! { "data": binary(cut) },
        doc! { "records": 1_i64 },
        doc! { "codec": "lz4" },
    ];
    for (n, damage) in (0..).zip(&damages) {
        change(&bed, of_task(n), damage.clone()).await;
    }

    let coordinator = jobs::coordinator(&bed);
    jobs::succeeded(&bed, &id).await;
    jobs::assert_recounted(&bed, "many", &bed.all("damaged").await).await;
    let tasks = jobs::tasks(&bed, &id).await;
    for task in of_kind(&tasks, "map") {
        let again = jobs::number(task, "n") < 4;
        let expected: &[&str] = if again { &["done", "done"] } else { &["done"] };
        assert_eq!(jobs::outcomes(task), expected, "{task:#?}");
    }
    let met: Vec<&str> = of_kind(&tasks, "reduce")
        .into_iter()
        .flat_map(jobs::history)
        .filter(|ended| jobs::text(ended, "outcome") == "block damaged")
        .map(|ended| jobs::text(ended, "error"))
        .collect();
    assert_eq!(met.len(), damages.len(), "{met:#?}");
    for (n, words) in [(0, "checksum"), (1, "checksum"), (2, "checksum"), (3, "malformed")] {
        let name = jobs::text(of_task(n), "_id");
        let told = met.iter().any(|error| error.contains(name) && error.contains(words));
        assert!(told, "{words:?} of {name} is missing in {met:#?}");
    }
    jobs::nothing_left(&bed).await;
    jobs::stop(&worker).await;
    jobs::stop(&coordinator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_that_are_damaged_again_and_again_end_the_job() {
    let bed = Bed::start(1).await;
    jobs::load_few(&bed).await;
    let worker = bed.worker();
    let id = mapped(&bed, &Ask::new("few", "kept")).await;
    // A reduce task that has been through this so often that chance is no explanation any more.
    let before: Vec<Document> = (0..8_i64)
        .map(|n| doc! { "epoch": n + 1, "worker": "w", "outcome": "block damaged" })
        .collect();
    let block = blocks(&bed, &id).await.remove(0);
    let name = jobs::text(&block, "_id").to_owned();
    let partition = name.split('/').nth(1).expect("a partition");
    let partition: i64 = partition.trim_start_matches('p').parse().expect("a number");
    let reduce = doc! { "job": &id, "kind": "reduce", "n": partition };
    let set = doc! { "$set": { "history": before } };
    let changed = bed.coll("aviary").update_one(reduce, set).await.expect("changed");
    assert_eq!(changed.modified_count, 1);
    let mut bytes = data(&block);
    bytes[3] ^= 1;
    change(&bed, &block, doc! { "data": binary(bytes) }).await;

    let coordinator = jobs::coordinator(&bed);
    let waited = bed.aviary(&["status", "--watch", &id]).await;
    assert_eq!(waited.code, 3, "{waited:#?}");
    for word in [name.as_str(), "damaged", "as 8 times before", "failing disk"] {
        assert!(waited.stderr.contains(word), "{word:?} is missing: {waited:#?}");
    }
    assert!(bed.all("kept").await.is_empty());
    jobs::stop(&worker).await;
    jobs::stop(&coordinator).await;
}
