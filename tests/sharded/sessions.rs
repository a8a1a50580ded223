//! Sessions with causal consistency: every reply carries the cluster's time, and what was written is
//! read back by whoever says how late it is.

use bson::{Bson, Document, Timestamp, doc};
use mongodb::Client;
use mongodb::options::{ReadConcern, WriteConcern};

use super::common::Bed;
use super::{bed, direct, thirds};

#[tokio::test(flavor = "multi_thread")]
async fn a_causally_consistent_session_reads_what_it_wrote() {
    let bed = bed().await;
    thirds(&bed, "causal", "things").await;
    replies_are_no_older_than_the_write(&bed).await;
    a_session_reads_its_own_writes(&bed).await;
    another_session_is_told_the_time(&bed).await;
    every_reply_carries_the_time(&bed).await;
}

/// When the shard that holds it logged the insertion of a document.
async fn logged_at(bed: &Bed, shard: usize, id: i32) -> Timestamp {
    let log =
        direct(bed.cluster(), shard).await.database("local").collection::<Document>("oplog.rs");
    let entry = log.find_one(doc! { "op": "i", "ns": "causal.things", "o._id": id }).await.unwrap();
    entry.unwrap().get_timestamp("ts").unwrap()
}

fn times(reply: &Document) -> (Timestamp, Timestamp) {
    let heard = reply.get_document("$clusterTime").unwrap_or_else(|_| panic!("{reply}"));
    let operation = reply.get_timestamp("operationTime").unwrap_or_else(|_| panic!("{reply}"));
    (operation, heard.get_timestamp("clusterTime").unwrap())
}

/// The shard that routes is not the shard that writes, and only the latter's time is the write's.
async fn replies_are_no_older_than_the_write(bed: &Bed) {
    let db = bed.client.database("causal");
    for round in 0..4 {
        for shard in 0..3 {
            let k = i32::try_from(shard).unwrap() * 100 + 50;
            let id = 10_000 + round * 10 + i32::try_from(shard).unwrap();
            let insert = doc! { "insert": "things", "documents": [{ "_id": id, "k": k }] };
            let reply = db.run_command(insert).await.unwrap();
            assert_eq!(reply.get_i32("n").unwrap(), 1);
            let (operation, cluster) = times(&reply);
            let logged = logged_at(bed, shard, id).await;
            assert!(operation >= logged, "{operation:?} is before {logged:?}");
            assert!(cluster >= operation, "{cluster:?} is before {operation:?}");
            // And whoever asks for that time gets it, whichever shard routes.
            let after = doc! {
                "find": "things",
                "filter": { "_id": id },
                "readConcern": { "level": "majority", "afterClusterTime": operation },
            };
            let other = Client::with_uri_str(bed.uri()).await.unwrap();
            let found = other.database("causal").run_command(after).await.unwrap();
            let found = found.get_document("cursor").unwrap().get_array("firstBatch").unwrap();
            assert_eq!(found, &[Bson::from(doc! { "_id": id, "k": k })]);
        }
    }
}

async fn a_session_reads_its_own_writes(bed: &Bed) {
    let things = bed.client.database("causal").collection::<Document>("things");
    let mut session = bed.client.start_session().causal_consistency(true).await.unwrap();
    for k in 0..60 {
        let key = k * 5;
        things
            .update_one(doc! { "k": key, "_id": key }, doc! { "$set": { "n": k } })
            .write_concern(WriteConcern::majority())
            .session(&mut session)
            .await
            .unwrap();
        let read = things
            .find_one(doc! { "_id": key, "n": k })
            .read_concern(ReadConcern::majority())
            .session(&mut session)
            .await
            .unwrap();
        assert_eq!(read.unwrap().get_i32("k").unwrap(), key);
    }
    assert!(session.operation_time().is_some() && session.cluster_time().is_some());
}

async fn another_session_is_told_the_time(bed: &Bed) {
    let mut writer = bed.client.start_session().causal_consistency(true).await.unwrap();
    let written = bed.client.database("causal").collection::<Document>("things");
    written
        .insert_one(doc! { "_id": 20_000, "k": 299 })
        .write_concern(WriteConcern::majority())
        .session(&mut writer)
        .await
        .unwrap();
    let other = Client::with_uri_str(bed.uri()).await.unwrap();
    let mut reader = other.start_session().causal_consistency(true).await.unwrap();
    reader.advance_cluster_time(writer.cluster_time().unwrap());
    reader.advance_operation_time(writer.operation_time().unwrap());
    let read = other
        .database("causal")
        .collection::<Document>("things")
        .find_one(doc! { "_id": 20_000 })
        .read_concern(ReadConcern::majority())
        .session(&mut reader)
        .await
        .unwrap();
    assert_eq!(read, Some(doc! { "_id": 20_000, "k": 299 }));
    assert!(reader.operation_time() >= writer.operation_time());
}

/// Those the router answers itself, and those it puts together, no less than those it passes on.
async fn every_reply_carries_the_time(bed: &Bed) {
    let (admin, db) = (bed.client.database("admin"), bed.client.database("causal"));
    let of_admin = [
        doc! { "ping": 1 },
        doc! { "listShards": 1 },
        doc! { "listDatabases": 1 },
        doc! { "currentOp": 1 },
        doc! { "hello": 1 },
    ];
    let of_db = [
        doc! { "count": "things" },
        doc! { "distinct": "things", "key": "g" },
        doc! { "dbStats": 1 },
        doc! { "collStats": "things" },
        doc! { "listCollections": 1 },
        doc! { "listIndexes": "things" },
        doc! { "createIndexes": "things", "indexes": [{ "key": { "z": 1 }, "name": "z" }] },
        doc! { "findAndModify": "things", "query": { "k": 1 }, "update": { "$set": { "z": 1 } } },
        doc! { "killCursors": "things", "cursors": [1_i64] },
    ];
    let mut last = Timestamp { time: 0, increment: 0 };
    for (db, commands) in [(&admin, of_admin.as_slice()), (&db, of_db.as_slice())] {
        for command in commands {
            let (operation, cluster) = times(&db.run_command(command.clone()).await.unwrap());
            assert!(operation <= cluster, "{command}");
            assert!(cluster >= last, "{command}: time went back");
            last = cluster;
        }
    }
}
