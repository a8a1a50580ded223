//! Change streams over all shards.

use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::change_stream::ChangeStream;
use mongodb::change_stream::event::{ChangeStreamEvent, OperationType};
use mongodb::options::FullDocumentType;

use super::common::ceiling;
use super::{bed, thirds};

type Stream = ChangeStream<ChangeStreamEvent<Document>>;

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_reports_every_shards_changes_in_order() {
    let bed = bed().await;
    let things = thirds(&bed, "streamed", "things").await;
    let mut stream = things.watch().await.unwrap();
    let mut of_db = bed.client.database("streamed").watch().await.unwrap();
    // A document here, one there: the order over shards is the order of the writes.
    let order = [5, 205, 105, 6, 106, 206, 7, 107, 8, 208];
    for k in order {
        things.update_one(doc! { "k": k }, doc! { "$set": { "n": k } }).await.unwrap();
    }
    let events = take(&mut stream, order.len()).await;
    assert_eq!(changed(&events), order);
    assert_eq!(changed(&take(&mut of_db, order.len()).await), order);

    // From the middle, without what was seen.
    let token = events[3].id.clone();
    let mut resumed = things.watch().resume_after(token).await.unwrap();
    assert_eq!(changed(&take(&mut resumed, order.len() - 4).await), order[4..]);
    let start = events[6].cluster_time.unwrap();
    let mut timed = things.watch().start_at_operation_time(start).await.unwrap();
    assert_eq!(changed(&take(&mut timed, order.len() - 6).await), order[6..]);

    // Filters and whole documents.
    let only =
        [doc! { "$match": { "operationType": "update", "documentKey._id": { "$gte": 200 } } }];
    let mut filtered =
        things.watch().pipeline(only).full_document(FullDocumentType::UpdateLookup).await.unwrap();
    for k in [1, 201, 101, 299] {
        things.update_one(doc! { "k": k }, doc! { "$set": { "n": -k } }).await.unwrap();
    }
    let found = take(&mut filtered, 2).await;
    let wholes: Vec<_> = found.into_iter().map(|event| event.full_document.unwrap()).collect();
    assert_eq!(wholes[0], doc! { "_id": 201, "k": 201, "g": 0, "n": -201 });
    assert_eq!(wholes[1], doc! { "_id": 299, "k": 299, "g": 2, "n": -299 });

    // A chunk's move is no change, and the document's next one comes from its new shard.
    bed.cluster().move_range("streamed.things", doc! { "k": 100 }, "s2", true).await.unwrap();
    things.insert_one(doc! { "_id": 1_105, "k": 105 }).await.unwrap();
    things.delete_one(doc! { "_id": 3, "k": 3 }).await.unwrap();
    let tail = take(&mut stream, 6).await;
    assert_eq!(changed(&tail), [1, 201, 101, 299, 1_105, 3]);
    assert_eq!(tail[4].operation_type, OperationType::Insert);
    assert_eq!(tail[5].operation_type, OperationType::Delete);

    things.drop().await.unwrap();
    // Each shard reports its own part's end, and the first of them ends the stream.
    let mut last = take(&mut stream, 1).await.remove(0).operation_type;
    assert_eq!(last, OperationType::Drop);
    while last == OperationType::Drop {
        last = take(&mut stream, 1).await.remove(0).operation_type;
    }
    assert_eq!(last, OperationType::Invalidate);
}

async fn take(stream: &mut Stream, count: usize) -> Vec<ChangeStreamEvent<Document>> {
    let mut events = Vec::new();
    while events.len() < count {
        let next = tokio::time::timeout(ceiling(), stream.try_next());
        events.push(next.await.expect("an event in time").unwrap().expect("the stream goes on"));
    }
    events
}

fn changed(events: &[ChangeStreamEvent<Document>]) -> Vec<i32> {
    let key = |event: &ChangeStreamEvent<Document>| {
        event.document_key.as_ref().unwrap().get_i32("_id").unwrap()
    };
    events.iter().map(key).collect()
}
