//! The encoding of keys against a real server: its sort, its index order and its groups.

use std::collections::HashMap;

use aviary::value::{RawVal, RawValBuf, key};
use aviary::value::{close_document, tag};
use aviary_testcontainers::{ReplicaSet, ReplicaSetOptions};
use bson::{RawDocumentBuf, doc};
use mongodb::options::Hint;
use mongodb::{Client, Collection, Cursor, IndexModel};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

const VALUES: i32 = 4000;

/// The encoding of the value of each document, by `_id`.
type Encodings = HashMap<i32, Vec<u8>>;

/// A BSON string or a namespace: its length, its text and a NUL.
fn text_bytes(text: &str) -> Vec<u8> {
    let mut bytes = u32::try_from(text.len() + 1).unwrap().to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
    bytes
}

/// A DBPointer, of which `bson` can make none.
fn pointer(namespace: &str, id: [u8; 12]) -> RawValBuf {
    let mut bytes = text_bytes(namespace);
    bytes.extend_from_slice(&id);
    RawValBuf::from(RawVal { tag: tag::DB_POINTER, bytes: &bytes })
}

/// DBPointers whose namespaces differ in length. The server's sort looks at the length and the id
/// only, while its index looks at the text as well, so only here do the two agree.
fn pointer_by_length() -> impl Strategy<Value = RawValBuf> {
    ("b{0,3}", prop::array::uniform12(0_u8..2)).prop_map(|(name, id)| pointer(&name, id))
}

fn any_pointer() -> impl Strategy<Value = RawValBuf> {
    ("[ab]{0,3}", prop::array::uniform12(0_u8..2)).prop_map(|(name, id)| pointer(&name, id))
}

/// Strings and symbols, which are equal when their texts are.
fn text() -> impl Strategy<Value = RawValBuf> {
    (any::<bool>(), "[ab\u{0}\u{1}é]{0,3}").prop_map(|(is_symbol, text)| {
        let tag = if is_symbol { tag::SYMBOL } else { tag::STRING };
        RawValBuf::from(RawVal { tag, bytes: &text_bytes(&text) })
    })
}

/// Three kinds of values in turn, so that the rare types and the close numbers are many.
fn random_value(number: i32, runner: &mut TestRunner) -> RawValBuf {
    let of_bson = |value| RawValBuf::from_bson(&value).unwrap();
    match number % 4 {
        0 => of_bson(crate::support::number().new_tree(runner).unwrap().current()),
        1 => prop_oneof![pointer_by_length(), text()].new_tree(runner).unwrap().current(),
        _ => of_bson(crate::support::value().new_tree(runner).unwrap().current()),
    }
}

/// `{_id: id, v: {x: value}}`: in a subdocument an array is compared as a whole, not by its elements.
fn document(id: i32, value: RawVal<'_>) -> RawDocumentBuf {
    let mut inner = vec![0; 4];
    value.append_element("x", &mut inner);
    close_document(&mut inner, 0);
    let mut outer = vec![0; 4];
    RawVal { tag: tag::INT32, bytes: &id.to_le_bytes() }.append_element("_id", &mut outer);
    RawVal { tag: tag::DOCUMENT, bytes: &inner }.append_element("v", &mut outer);
    close_document(&mut outer, 0);
    RawDocumentBuf::from_bytes(outer).unwrap()
}

/// Stores values and gives their encodings.
async fn store(collection: &Collection<RawDocumentBuf>, values: &[RawValBuf]) -> Encodings {
    let mut encodings = Encodings::new();
    let mut documents = Vec::new();
    for (id, value) in (0..).zip(values) {
        let mut encoded = Vec::new();
        key::encode(value.as_raw(), &mut encoded).unwrap();
        encodings.insert(id, encoded);
        documents.push(document(id, value.as_raw()));
    }
    collection.insert_many(documents).await.unwrap();
    encodings
}

/// Checks that documents sorted by value and `_id` are sorted by encoding and `_id`.
async fn assert_sorted<T>(mut cursor: Cursor<T>, encodings: &Encodings) {
    let mut last = None;
    let mut seen = 0;
    while cursor.advance().await.unwrap() {
        let id = cursor.current().get_i32("_id").unwrap();
        let place = Some((encodings[&id].clone(), id));
        assert!(last < place, "document {id} is out of order: {last:02x?} {place:02x?}");
        last = place;
        seen += 1;
    }
    assert_eq!(seen, encodings.len());
}

/// Checks that two documents are in one group exactly when their encodings are equal.
async fn assert_grouped(mut cursor: Cursor<bson::Document>, encodings: &Encodings) {
    let mut groups = HashMap::new();
    let (mut number, mut seen) = (0, 0);
    while cursor.advance().await.unwrap() {
        for id in cursor.current().get_array("ids").unwrap() {
            let id = id.unwrap().as_i32().unwrap();
            let group = *groups.entry(&encodings[&id]).or_insert(number);
            assert_eq!(group, number, "document {id} is in another group than its equal");
            seen += 1;
        }
        number += 1;
    }
    assert_eq!(seen, encodings.len());
    assert_eq!(groups.len(), number, "a group of the server holds different encodings");
    assert!(number < seen, "no value came twice, so nothing was grouped");
}

/// Makes an index and checks the order in which it gives the documents.
async fn assert_index_sorted(values: &Collection<RawDocumentBuf>, encodings: &Encodings) {
    let order = doc! {"v": 1, "_id": 1};
    values.create_index(IndexModel::builder().keys(order.clone()).build()).await.unwrap();
    let indexed = values.find(doc! {}).sort(order.clone()).hint(Hint::Keys(order));
    assert_sorted(indexed.await.unwrap(), encodings).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sort_index_and_groups_of_the_server_are_those_of_the_encoding() {
    let set = ReplicaSet::start(ReplicaSetOptions::default()).await.unwrap();
    let client = Client::with_uri_str(set.uri()).await.unwrap();
    let database = client.database("aviary_key_order");
    let mut runner = TestRunner::deterministic();

    let values = database.collection("values");
    let random: Vec<_> = (0..VALUES).map(|number| random_value(number, &mut runner)).collect();
    let encodings = store(&values, &random).await;
    // Without an index it is the sort stage that sorts.
    let sort = doc! {"$sort": {"v": 1, "_id": 1}};
    let sorted = values.aggregate([sort, doc! {"$project": {"_id": 1}}]);
    assert_sorted(sorted.await.unwrap(), &encodings).await;
    let group = doc! {"$group": {"_id": "$v", "ids": {"$push": "$_id"}}};
    let grouped = values.aggregate([group, doc! {"$project": {"_id": 0, "ids": 1}}]);
    assert_grouped(grouped.await.unwrap(), &encodings).await;
    assert_index_sorted(&values, &encodings).await;

    let pointers = database.collection("pointers");
    let random: Vec<_> =
        (0..VALUES).map(|_| any_pointer().new_tree(&mut runner).unwrap().current()).collect();
    let encodings = store(&pointers, &random).await;
    assert_index_sorted(&pointers, &encodings).await;
}
