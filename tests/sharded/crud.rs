//! Reading and writing documents, wherever they are.

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use mongodb::Collection;
use mongodb::options::ReturnDocument;

use super::common::Bed;
use super::{bed, count, fill, held, keys, thirds};

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_written_read_and_aggregated_on_all_shards() {
    let bed = bed().await;
    let things = thirds(&bed, "crud", "things").await;
    reads_are_whole_and_in_order(&things).await;
    writes_reach_every_shard(&bed, &things).await;
    aggregations_merge_what_shards_found(&bed, &things).await;
    find_and_modify_goes_by_the_shard_key(&bed, &things).await;
    transactions_are_refused(&bed, &things).await;
}

async fn reads_are_whole_and_in_order(things: &Collection<Document>) {
    assert_eq!(count(things).await, 300);
    assert_eq!(things.estimated_document_count().await.unwrap(), 300);
    let sorted = things.find(doc! {}).sort(doc! { "k": -1 }).batch_size(17).await.unwrap();
    let sorted: Vec<Document> = sorted.try_collect().await.unwrap();
    assert_eq!(keys(&sorted), (0..300).rev().collect::<Vec<_>>());
    let part = things.find(doc! { "k": { "$gte": 95 } }).sort(doc! { "k": 1 }).skip(3).limit(110);
    let part: Vec<Document> =
        part.projection(doc! { "k": 1, "_id": 0 }).await.unwrap().try_collect().await.unwrap();
    assert_eq!(keys(&part), (98..208).collect::<Vec<_>>());
    assert_eq!(part[0], doc! { "k": 98 });
    let one = things.find_one(doc! { "k": 250 }).await.unwrap();
    assert_eq!(one, Some(doc! { "_id": 250, "k": 250, "g": 1, "n": 0 }));
    assert_eq!(things.find_one(doc! { "k": 300 }).await.unwrap(), None);
    let mut groups = things.distinct("g", doc! { "k": { "$lt": 150 } }).await.unwrap();
    groups.sort_by_key(|group| group.as_i32());
    assert_eq!(groups, [Bson::Int32(0), Bson::Int32(1), Bson::Int32(2)]);
    // The second batch, asked for as a shell asks: in the session that opened the cursor.
    let db = things.client().database("crud");
    let mut session = things.client().start_session().await.unwrap();
    let find = doc! { "find": "things", "batchSize": 0 };
    let first = db.run_command(find).session(&mut session).await.unwrap();
    let cursor = first.get_document("cursor").unwrap();
    assert!(cursor.get_array("firstBatch").unwrap().is_empty());
    let more = doc! { "getMore": cursor.get_i64("id").unwrap(), "collection": "things" };
    let more = db.run_command(more).session(&mut session).await.unwrap();
    let more = more.get_document("cursor").unwrap();
    assert_eq!(more.get_array("nextBatch").unwrap().len(), 300);
    assert_eq!(more.get_i64("id").unwrap(), 0);
}

async fn writes_reach_every_shard(bed: &Bed, things: &Collection<Document>) {
    let many = things.update_many(doc! { "g": 0 }, doc! { "$inc": { "n": 1 } }).await.unwrap();
    assert_eq!((many.matched_count, many.modified_count), (100, 100));
    let one = things.update_one(doc! { "k": 299 }, doc! { "$set": { "n": 7 } }).await.unwrap();
    assert_eq!(one.modified_count, 1);
    let upserted = things.update_one(doc! { "k": 1_000 }, doc! { "$set": { "n": 1 } });
    let upserted = upserted.upsert(true).await.unwrap();
    assert!(upserted.upserted_id.is_some());
    assert!(held(bed, 2, "crud.things").await.contains(&1_000));
    let replaced = things.replace_one(doc! { "k": 150 }, doc! { "k": 150, "g": 9, "n": 5 });
    assert_eq!(replaced.await.unwrap().modified_count, 1);
    let replaced = things.find_one(doc! { "k": 150 }).await.unwrap();
    assert_eq!(replaced, Some(doc! { "_id": 150, "k": 150, "g": 9, "n": 5 }));
    assert_eq!(things.delete_one(doc! { "k": 1_000 }).await.unwrap().deleted_count, 1);
    // What one of several writes is refused for names the write; those before it are done.
    let refused = things.insert_many([
        doc! { "_id": 400, "k": 400, "n": 0 },
        doc! { "_id": 5, "k": 5, "n": 0 },
        doc! { "_id": 401, "k": 401, "n": 0 },
    ]);
    let refused = refused.await.unwrap_err();
    let mongodb::error::ErrorKind::InsertMany(refused) = refused.kind.as_ref() else {
        panic!("{refused:?}")
    };
    let errors = refused.write_errors.as_ref().unwrap();
    assert_eq!(
        errors.iter().map(|error| (error.index, error.code)).collect::<Vec<_>>(),
        [(1, 11_000)]
    );
    let deleted = things.delete_many(doc! { "k": { "$gte": 300 } }).await.unwrap();
    assert_eq!(deleted.deleted_count, 1);
    let sum: i32 = all(things).await.iter().map(|found| found.get_i32("n").unwrap()).sum();
    // One for each of the hundred, of which 150 was replaced, and 299 is not one.
    assert_eq!(sum, 99 + 5 + 7);
}

async fn aggregations_merge_what_shards_found(bed: &Bed, things: &Collection<Document>) {
    things
        .update_many(doc! {}, vec![doc! { "$set": { "n": "$k", "g": { "$mod": ["$k", 3] } } }])
        .await
        .unwrap();
    let by_group =
        doc! { "$group": { "_id": "$g", "sum": { "$sum": "$n" }, "most": { "$max": "$k" } } };
    let sorted = doc! { "$sort": { "_id": 1 } };
    let expected: Vec<Document> = (0..3)
        .map(|g| {
            let sum: i32 = (0..300).filter(|k| k % 3 == g).sum();
            doc! { "_id": g, "sum": sum, "most": 297 + g }
        })
        .collect();
    let grouped = things.aggregate([by_group.clone(), sorted]).await.unwrap();
    assert_eq!(grouped.try_collect::<Vec<_>>().await.unwrap(), expected);

    let db = bed.client.database("crud");
    // Into an unsharded collection, which is replaced as a whole.
    let out = db.collection::<Document>("out");
    out.insert_one(doc! { "_id": "old" }).await.unwrap();
    things.aggregate([by_group.clone(), doc! { "$out": "out" }]).await.unwrap();
    assert_eq!(all(&out).await, expected);
    // Into a sharded one, which keeps what is not matched.
    let merged = db.collection::<Document>("merged");
    bed.cluster().shard_collection("crud.merged", doc! { "_id": "hashed" }, Some(6)).await.unwrap();
    merged.insert_many([doc! { "_id": 1, "kept": true }, doc! { "_id": 77 }]).await.unwrap();
    let merge = doc! { "$merge": { "into": "merged", "whenMatched": "merge" } };
    things.aggregate([by_group, merge]).await.unwrap();
    let found = all(&merged).await;
    let with_kept = doc! { "_id": 1, "kept": true, "sum": expected[1].get("sum"), "most": 298 };
    assert_eq!(found, [expected[0].clone(), with_kept, expected[2].clone(), doc! { "_id": 77 }]);

    let lookup = doc! { "$lookup": { "from": "merged", "localField": "g", "foreignField": "_id", "as": "of" } };
    let joined = [
        doc! { "$match": { "k": { "$in": [10, 110, 210] } } },
        lookup,
        doc! { "$sort": { "k": 1 } },
    ];
    let joined: Vec<Document> =
        things.aggregate(joined).await.unwrap().try_collect().await.unwrap();
    assert_eq!(keys(&joined), [10, 110, 210]);
    for found in joined {
        let of = found.get_array("of").unwrap();
        assert_eq!(of[0].as_document().unwrap().get("_id"), found.get("g"));
    }
}

async fn find_and_modify_goes_by_the_shard_key(bed: &Bed, things: &Collection<Document>) {
    for k in [20, 120, 220] {
        let increment =
            things.find_one_and_update(doc! { "k": k }, doc! { "$inc": { "n": 1_000 } });
        let after = increment.return_document(ReturnDocument::After).await.unwrap().unwrap();
        assert_eq!((after.get_i32("k").unwrap(), after.get_i32("n").unwrap()), (k, k + 1_000));
        let gone = things.find_one_and_delete(doc! { "k": { "$eq": k } }).await.unwrap().unwrap();
        assert_eq!(gone, after);
        let shard = usize::try_from(k / 100).unwrap();
        assert!(!held(bed, shard, "crud.things").await.contains(&k));
        let made = things.find_one_and_replace(doc! { "k": k }, doc! { "k": k, "n": -k });
        let made = made.upsert(true).return_document(ReturnDocument::After).await.unwrap().unwrap();
        assert_eq!(made.get_i32("n").unwrap(), -k);
        assert!(held(bed, shard, "crud.things").await.contains(&k));
    }
    let keyless = things.find_one_and_update(doc! { "g": 1 }, doc! { "$set": { "n": 2 } }).await;
    let keyless = keyless.unwrap_err().to_string();
    assert!(keyless.contains("must contain the shard key"), "{keyless}");
    let hashed = bed.client.database("crud").collection::<Document>("by_hash");
    bed.cluster().shard_collection("crud.by_hash", doc! { "k": "hashed" }, Some(6)).await.unwrap();
    fill(&hashed, 60).await;
    for k in 0..60 {
        let done = hashed.find_one_and_update(doc! { "k": k }, doc! { "$inc": { "n": 1 } });
        assert_eq!(done.await.unwrap().unwrap().get_i32("k").unwrap(), k);
    }
    assert_eq!(hashed.count_documents(doc! { "n": 1 }).await.unwrap(), 60);
}

async fn transactions_are_refused(bed: &Bed, things: &Collection<Document>) {
    let mut session = bed.client.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let refused = things.insert_one(doc! { "_id": 900, "k": 900 }).session(&mut session).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("the test router has no transactions"), "{refused}");
    session.abort_transaction().await.ok();
    assert_eq!(things.find_one(doc! { "k": 900 }).await.unwrap(), None);
    // And the connection goes on.
    things.insert_one(doc! { "_id": 900, "k": 900 }).await.unwrap();
    assert_eq!(count(things).await, 301);
}

async fn all(things: &Collection<Document>) -> Vec<Document> {
    things.find(doc! {}).sort(doc! { "_id": 1 }).await.unwrap().try_collect().await.unwrap()
}
