//! Cursors are ended when they are given up: open ones hold up the deletion of what moved away.

use std::process::Stdio;

use bson::{Bson, Document, doc};
use futures_util::StreamExt;
use mongodb::Client;

use super::common::{Bed, wait_for};
use super::{bed, direct, thirds};

#[tokio::test(flavor = "multi_thread")]
async fn cursors_that_are_given_up_are_ended_on_every_shard() {
    let bed = bed().await;
    thirds(&bed, "cursors", "things").await;
    a_killed_cursor_is_gone(&bed, None).await;
    a_killed_cursor_is_gone(&bed, Some("a comment of the client's")).await;
    a_killed_cursor_leaves_its_neighbours(&bed).await;
    a_killed_stream_is_gone(&bed).await;
    cursors_of_an_ended_session_are_gone(&bed).await;
    cursors_of_a_client_that_died_are_gone(&bed).await;
}

/// The cursors on `cursors.things` that wait on shards for more to be asked of them.
async fn idle(bed: &Bed) -> Vec<Document> {
    let mut found = Vec::new();
    for shard in 0..3 {
        let pipeline = [
            doc! { "$currentOp": { "idleCursors": true, "allUsers": true } },
            doc! { "$match": { "type": "idleCursor", "ns": "cursors.things" } },
        ];
        let admin = direct(bed.cluster(), shard).await.database("admin");
        let mut cursors = admin.aggregate(pipeline).await.unwrap();
        while let Some(cursor) = cursors.next().await {
            found.push(cursor.unwrap());
        }
    }
    found
}

async fn none_idle(bed: &Bed, what: &str) {
    wait_for(what, async || idle(bed).await.is_empty().then_some(())).await;
}

async fn opened(bed: &Bed, command: Document) -> i64 {
    cursor_id(&bed.client.database("cursors").run_command(command).await.unwrap())
}

fn cursor_id(reply: &Document) -> i64 {
    let id = reply.get_document("cursor").unwrap().get_i64("id").unwrap();
    assert_ne!(id, 0);
    id
}

async fn kill(bed: &Bed, ids: &[i64]) -> Document {
    let command = doc! { "killCursors": "things", "cursors": ids };
    bed.client.database("cursors").run_command(command).await.unwrap()
}

fn longs(reply: &Document, key: &str) -> Vec<i64> {
    reply.get_array(key).unwrap().iter().filter_map(Bson::as_i64).collect()
}

async fn assert_gone(bed: &Bed, id: i64) {
    let more = doc! { "getMore": id, "collection": "things" };
    let gone = bed.client.database("cursors").run_command(more).await.unwrap_err();
    let mongodb::error::ErrorKind::Command(gone) = gone.kind.as_ref() else { panic!("{gone:?}") };
    assert_eq!((gone.code, gone.code_name.as_str()), (43, "CursorNotFound"));
}

async fn a_killed_cursor_is_gone(bed: &Bed, comment: Option<&str>) {
    // Shards send an aggregation's results in batches as long as they may be, whatever the client's.
    let pipeline = [doc! { "$set": { "pad": { "$range": ["$k", 50_000] } } }];
    for mut command in [
        doc! { "find": "things", "batchSize": 5 },
        doc! { "aggregate": "things", "pipeline": pipeline.to_vec(), "cursor": { "batchSize": 5 } },
    ] {
        if let Some(comment) = comment {
            command.insert("comment", comment);
        }
        let id = opened(bed, command).await;
        let open = idle(bed).await;
        assert_eq!(open.len(), 3, "one on each shard: {open:#?}");
        if let Some(comment) = comment {
            for cursor in open {
                let cursor = cursor.get_document("cursor").unwrap();
                let origin = cursor.get_document("originatingCommand").unwrap();
                assert_eq!(origin.get_str("comment").unwrap(), comment);
            }
        }
        let killed = kill(bed, &[id, 12_345]).await;
        assert_eq!(longs(&killed, "cursorsKilled"), [id]);
        assert_eq!(longs(&killed, "cursorsNotFound"), [12_345]);
        none_idle(bed, "the killed cursor's parts to end").await;
        assert_gone(bed, id).await;
        assert_eq!(longs(&kill(bed, &[id]).await, "cursorsNotFound"), [id]);
    }
}

async fn a_killed_cursor_leaves_its_neighbours(bed: &Bed) {
    let find = doc! { "find": "things", "batchSize": 5, "comment": "the same" };
    let first = opened(bed, find.clone()).await;
    // More of a cursor is given only in the session that opened it, and a driver may take another each time.
    let mut session = bed.client.start_session().await.unwrap();
    let db = bed.client.database("cursors");
    let second = cursor_id(&db.run_command(find).session(&mut session).await.unwrap());
    kill(bed, &[first]).await;
    wait_for("one of two to end", async || (idle(bed).await.len() == 3).then_some(())).await;
    let mut seen = 5;
    let mut id = second;
    while id != 0 {
        let more = doc! { "getMore": id, "collection": "things", "batchSize": 90 };
        let more = db.run_command(more).session(&mut session).await.unwrap();
        let more = more.get_document("cursor").unwrap();
        seen += more.get_array("nextBatch").unwrap().len();
        id = more.get_i64("id").unwrap();
    }
    assert_eq!(seen, 300);
    none_idle(bed, "a drained cursor's parts to end").await;
}

async fn a_killed_stream_is_gone(bed: &Bed) {
    let watch = doc! { "aggregate": "things", "pipeline": [{ "$changeStream": {} }], "cursor": {} };
    let id = opened(bed, watch).await;
    assert_eq!(idle(bed).await.len(), 3, "one on each shard");
    assert_eq!(longs(&kill(bed, &[id]).await, "cursorsKilled"), [id]);
    none_idle(bed, "the stream's parts to end").await;
    assert_gone(bed, id).await;
}

async fn cursors_of_an_ended_session_are_gone(bed: &Bed) {
    let client = Client::with_uri_str(bed.uri()).await.unwrap();
    let mut session = client.start_session().await.unwrap();
    let lsid = session.id().clone();
    let things = client.database("cursors").collection::<Document>("things");
    let mut cursor = things.find(doc! {}).batch_size(5).session(&mut session).await.unwrap();
    assert!(cursor.next(&mut session).await.is_some());
    assert_eq!(idle(bed).await.len(), 3);
    client.database("admin").run_command(doc! { "endSessions": [lsid] }).await.unwrap();
    none_idle(bed, "the session's cursors to end").await;
}

async fn cursors_of_a_client_that_died_are_gone(bed: &Bed) {
    // A process of its own, for only that dies without a word.
    let mut process = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "cursors::a_client_that_waits_to_be_killed", "--ignored", "--nocapture"])
        .env(URI, bed.uri())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the other process's cursors", async || (idle(bed).await.len() == 6).then_some(()))
        .await;
    process.kill().unwrap();
    process.wait().unwrap();
    none_idle(bed, "the dead process's cursors to end").await;
}

const URI: &str = "AVIARY_TEST_CURSORS_URI";

#[tokio::test]
#[ignore = "it is the process that another test kills"]
async fn a_client_that_waits_to_be_killed() {
    let uri = std::env::var(URI).unwrap();
    let client = Client::with_uri_str(uri).await.unwrap();
    let things = client.database("cursors").collection::<Document>("things");
    let mut found = things.find(doc! {}).batch_size(5).await.unwrap();
    assert!(found.next().await.is_some());
    let _stream = things.watch().await.unwrap();
    std::future::pending::<()>().await;
}
