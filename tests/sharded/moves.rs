//! Clients read and write while chunks move, and notice nothing: what a shard refuses because the
//! data are no longer its own is asked of the new owner.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::{Client, Collection};

use super::placement::refusals;
use super::{bed, count, held, sorted_keys, thirds};

/// Chunks that move in the course of the test.
const MOVES: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn reads_and_writes_are_exact_while_chunks_move() {
    let bed = bed().await;
    thirds(&bed, "moving", "things").await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for writer in 0..2 {
        let client = Client::with_uri_str(bed.uri()).await.unwrap();
        clients.spawn(write(client.database("moving").collection("things"), writer, stop.clone()));
    }
    let client = Client::with_uri_str(bed.uri()).await.unwrap();
    let reading = tokio::spawn(read(client.database("moving").collection("things"), stop.clone()));

    let refused_before = refusals(&bed).await;
    for step in 0..MOVES {
        let (min, to) = ([0, 100, 200][step % 3], ["s1", "s2", "s0", "s2", "s0", "s1"][step % 6]);
        // The lowest chunk begins before every key.
        let chunks = bed.cluster().chunks("moving.things").await.unwrap();
        let chunk = &chunks[min / 100];
        if chunk.shard != to {
            bed.cluster().move_range("moving.things", chunk.min.clone(), to, true).await.unwrap();
        }
    }
    stop.store(true, Ordering::Release);
    let mut written = 0;
    while let Some(done) = clients.join_next().await {
        written += done.unwrap();
    }
    let reads = reading.await.unwrap();
    assert!(refusals(&bed).await > refused_before, "no command ever met a moved chunk");
    assert!(written > 0 && reads > 0, "{written} writes, {reads} reads");

    // Every write was done once, wherever the document was then.
    let things = bed.client.database("moving").collection::<Document>("things");
    let sum = doc! { "$group": { "_id": null, "sum": { "$sum": "$n" } } };
    let sum: Vec<Document> = things.aggregate([sum]).await.unwrap().try_collect().await.unwrap();
    assert_eq!(sum[0].get_i32("sum").unwrap(), written);
    let mut everywhere = Vec::new();
    for shard in 0..3 {
        everywhere.extend(held(&bed, shard, "moving.things").await);
    }
    everywhere.sort_unstable();
    assert_eq!(everywhere, (0..300).collect::<Vec<_>>(), "each document is on one shard");
    assert_eq!(count(&things).await, 300);
}

/// Adds one to documents, in two ways, and counts the additions.
async fn write(things: Collection<Document>, writer: i32, stop: Arc<AtomicBool>) -> i32 {
    let add = doc! { "$inc": { "n": 1 } };
    let mut done = 0;
    for step in 0.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let k = (step * 37 + writer * 11) % 300;
        let updated = things.update_one(doc! { "k": k }, add.clone()).await.unwrap();
        assert_eq!(updated.modified_count, 1, "{k}");
        let found = things.find_one_and_update(doc! { "k": k }, add.clone()).await.unwrap();
        assert_eq!(found.unwrap().get_i32("k").unwrap(), k);
        done += 2;
    }
    done
}

/// Reads everything again and again, and counts how often.
async fn read(things: Collection<Document>, stop: Arc<AtomicBool>) -> i32 {
    let mut reads = 0;
    while !stop.load(Ordering::Acquire) {
        assert_eq!(count(&things).await, 300);
        let found = things.find(doc! {}).batch_size(50).await.unwrap();
        let found: Vec<Document> = found.try_collect().await.unwrap();
        assert_eq!(sorted_keys(&found), (0..300).collect::<Vec<_>>());
        let one = things.find_one(doc! { "k": reads % 300 }).await.unwrap();
        assert_eq!(one.unwrap().get_i32("k").unwrap(), reads % 300);
        reads += 1;
    }
    reads
}
