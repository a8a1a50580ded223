//! Collections and indexes come, change their names and go, and every client sees it at once,
//! whichever shard routes for it.

use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::options::IndexOptions;
use mongodb::{Client, IndexModel};

use super::common::Bed;
use super::{bed, count, direct, fill, keys, names, thirds};

#[tokio::test(flavor = "multi_thread")]
async fn collections_come_change_and_go() {
    let bed = bed().await;
    indexes_are_made_on_every_shard(&bed).await;
    collections_are_listed(&bed).await;
    an_unsharded_collection_is_renamed(&bed).await;
    // Different connections are routed by different shards, each with a memory of its own.
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Client::with_uri_str(bed.uri()).await.unwrap());
    }
    a_renamed_sharded_collection_is_found_by_all(&bed, &clients).await;
    a_collection_made_anew_is_found_by_all(&bed, &clients).await;
    a_moved_database_is_found_by_all(&bed, &clients).await;
}

async fn indexes_are_made_on_every_shard(bed: &Bed) {
    let things = thirds(bed, "indexed", "things").await;
    let options = IndexOptions::builder().name("groups".to_owned()).build();
    let index = IndexModel::builder().keys(doc! { "g": 1, "n": -1 }).options(options).build();
    assert_eq!(things.create_index(index).await.unwrap().index_name, "groups");
    let all = ["_id_", "groups", "k_1"];
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    assert_eq!(sorted(things.list_index_names().await.unwrap()), all);
    for shard in 0..3 {
        let client = direct(bed.cluster(), shard).await;
        let things = client.database("indexed").collection::<Document>("things");
        assert_eq!(sorted(things.list_index_names().await.unwrap()), all, "shard {shard}");
    }
    let hinted = things.find(doc! { "g": 1 }).hint(mongodb::options::Hint::Name("groups".into()));
    assert_eq!(hinted.await.unwrap().try_collect::<Vec<_>>().await.unwrap().len(), 100);
    let unique = IndexOptions::builder().unique(true).build();
    let unique = IndexModel::builder().keys(doc! { "g": 1 }).options(unique).build();
    assert!(things.create_index(unique).await.is_err(), "unique, and not by the shard key");
    things.drop_index("groups").await.unwrap();
    assert_eq!(sorted(things.list_index_names().await.unwrap()), ["_id_", "k_1"]);
    let hint = mongodb::options::Hint::Name("groups".into());
    assert!(things.find(doc! { "g": 1 }).hint(hint).await.is_err());
}

async fn collections_are_listed(bed: &Bed) {
    let db = bed.client.database("indexed");
    db.create_collection("checked").validator(doc! { "a": { "$gt": 0 } }).await.unwrap();
    assert_eq!(names(&db).await, ["checked", "things"]);
    let one = db.list_collections().filter(doc! { "name": "checked" }).await.unwrap();
    let one: Vec<_> = one.try_collect().await.unwrap();
    assert_eq!(one.len(), 1);
    assert_eq!(one[0].options.validator, Some(doc! { "a": { "$gt": 0 } }));
    let checked = db.collection::<Document>("checked");
    assert!(checked.insert_one(doc! { "a": 0 }).await.is_err());
    checked.insert_one(doc! { "a": 1 }).await.unwrap();
    checked.drop().await.unwrap();
    assert_eq!(names(&db).await, ["things"]);
    db.drop().await.unwrap();
    assert!(names(&db).await.is_empty());
    assert!(bed.cluster().chunks("indexed.things").await.unwrap().is_empty());
    let databases = bed.client.list_database_names().await.unwrap();
    assert!(!databases.contains(&"indexed".to_owned()), "{databases:?}");
}

async fn an_unsharded_collection_is_renamed(bed: &Bed) {
    let db = bed.client.database("plain");
    let (from, to) = (db.collection::<Document>("from"), db.collection::<Document>("to"));
    fill(&from, 10).await;
    fill(&to, 3).await;
    let mut rename = doc! { "renameCollection": "plain.from", "to": "plain.to" };
    let refused = bed.cluster().run_admin(rename.clone()).await.unwrap_err().to_string();
    assert!(refused.contains("exists"), "{refused}");
    assert_eq!((count(&from).await, count(&to).await), (10, 3));
    rename.insert("dropTarget", true);
    bed.cluster().run_admin(rename).await.unwrap();
    assert_eq!((count(&from).await, count(&to).await), (0, 10));
    assert_eq!(names(&db).await, ["to"]);
}

async fn a_renamed_sharded_collection_is_found_by_all(bed: &Bed, clients: &[Client]) {
    let target = thirds(bed, "renamed", "dst").await;
    for round in 0..4 {
        thirds(bed, "renamed", "src").await;
        let marked = bed.client.database("renamed").collection::<Document>("src");
        marked.update_many(doc! {}, doc! { "$set": { "round": round } }).await.unwrap();
        marked.delete_many(doc! { "k": { "$gte": 300 - 10 * (round + 1) } }).await.unwrap();
        for client in clients {
            count(&client.database("renamed").collection("src")).await;
            count(&client.database("renamed").collection("dst")).await;
        }
        // A move just before: what is remembered of the target is older than the target's end.
        let to = ["s1", "s2", "s0", "s1"][usize::try_from(round).unwrap()];
        let moved = bed.cluster().move_range("renamed.dst", doc! { "k": 100 }, to, false).await;
        moved.unwrap();
        let rename =
            doc! { "renameCollection": "renamed.src", "to": "renamed.dst", "dropTarget": true };
        bed.cluster().run_admin(rename).await.unwrap();
        let left = u64::try_from(300 - 10 * (round + 1)).unwrap();
        for client in clients {
            let db = client.database("renamed");
            let dst = db.collection::<Document>("dst");
            assert_eq!(count(&dst).await, left, "round {round}");
            assert_eq!(dst.count_documents(doc! { "round": round }).await.unwrap(), left);
            assert_eq!(count(&db.collection("src")).await, 0, "round {round}");
            let sorted = dst.find(doc! {}).sort(doc! { "k": 1 }).batch_size(40).await.unwrap();
            let sorted: Vec<Document> = sorted.try_collect().await.unwrap();
            assert_eq!(keys(&sorted), (0..i32::try_from(left).unwrap()).collect::<Vec<_>>());
        }
        assert_eq!(names(&bed.client.database("renamed")).await, ["dst"]);
    }
    assert_eq!(count(&target).await, 260);
}

async fn a_collection_made_anew_is_found_by_all(bed: &Bed, clients: &[Client]) {
    for round in 0..3 {
        let things = thirds(bed, "anew", "things").await;
        for client in clients {
            let things = client.database("anew").collection::<Document>("things");
            assert_eq!(count(&things).await, 300, "round {round}");
        }
        things.drop().await.unwrap();
        // The next client has not read since, and writes at once: the collection is unsharded now.
        let first = &clients[round % clients.len()];
        fill(&first.database("anew").collection("things"), 7).await;
        for client in clients {
            let things = client.database("anew").collection::<Document>("things");
            assert_eq!(count(&things).await, 7, "round {round}");
            let changed = things.find_one_and_update(doc! { "k": 3 }, doc! { "$inc": { "n": 1 } });
            assert!(changed.await.unwrap().is_some());
            let changed = things.update_many(doc! {}, doc! { "$inc": { "n": 1 } }).await.unwrap();
            assert_eq!(changed.modified_count, 7);
        }
        things.drop().await.unwrap();
    }
}

async fn a_moved_database_is_found_by_all(bed: &Bed, clients: &[Client]) {
    bed.cluster().enable_sharding("moved", "s0").await.unwrap();
    fill(&bed.client.database("moved").collection("things"), 20).await;
    for (round, to) in ["s1", "s2", "s0"].into_iter().enumerate() {
        for client in clients {
            assert_eq!(count(&client.database("moved").collection("things")).await, 20);
        }
        bed.cluster().run_admin(doc! { "movePrimary": "moved", "to": to }).await.unwrap();
        for client in clients {
            let db = client.database("moved");
            let things = db.collection::<Document>("things");
            assert_eq!(count(&things).await, 20, "to {to}");
            assert_eq!(names(&db).await, ["things"]);
            let changed = things.update_many(doc! {}, doc! { "$inc": { "n": 1 } }).await.unwrap();
            assert_eq!(changed.modified_count, 20);
        }
        let n = i32::try_from((round + 1) * clients.len()).unwrap();
        let things = bed.client.database("moved").collection::<Document>("things");
        assert_eq!(things.count_documents(doc! { "n": n }).await.unwrap(), 20);
        let shard = usize::from(to.as_bytes()[1] - b'0');
        assert_eq!(super::held(bed, shard, "moved.things").await.len(), 20);
    }
}
