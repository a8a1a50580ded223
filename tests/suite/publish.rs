//! How results get to their place: what stays of the target, what is refused, what map-only and
//! inline jobs give.

use crate::common::Bed;
use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use mongodb::IndexModel;
use mongodb::options::{Collation, CollationStrength, IndexOptions};

const COUNT_BY_GROUP: &str = "function () { emit('g' + this.g, 1); }";

/// All that `listIndexes` says, by name.
async fn indexes(bed: &Bed, name: &str) -> Vec<Document> {
    let mut found: Vec<Document> = bed
        .db()
        .run_cursor_command(doc! { "listIndexes": name })
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    found.sort_by_key(|index| index.get_str("name").unwrap().to_owned());
    found
}

async fn options(bed: &Bed, name: &str) -> Document {
    let found: Vec<Document> = bed
        .db()
        .run_cursor_command(doc! { "listCollections": 1, "filter": { "name": name } })
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    found[0].get_document("options").unwrap().clone()
}

fn index(keys: Document, options: IndexOptions) -> IndexModel {
    IndexModel::builder().keys(keys).options(options).build()
}

/// What every refusal at the end of a job owes: exit 3, the words, an untouched target.
async fn refused_untouched(bed: &Bed, args: &[&str], words: &[&str], target: &str) {
    let before = (bed.all(target).await, indexes(bed, target).await, options(bed, target).await);
    let ran = bed.aviary(args).await;
    assert_eq!(ran.code, 3, "{ran:#?}");
    assert!(ran.stderr.starts_with("error: "), "{ran:#?}");
    for word in words {
        assert!(ran.stderr.contains(word), "{word:?} is missing in {ran:#?}");
    }
    let after = (bed.all(target).await, indexes(bed, target).await, options(bed, target).await);
    assert_eq!(after, before);
    bed.nothing_left("publishing").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_get_to_their_place_and_nothing_else_changes() {
    let bed = Bed::start(1).await;
    // Small splits, so that results come from several tasks.
    let _coordinator =
        bed.spawn("coordinator", &["coordinator"], &[("AVIARY_SPLIT_BYTES", "4096")]);
    let _worker = bed.worker();
    let pad = "x".repeat(200);
    let docs = (0..300).map(|n| doc! { "_id": n, "g": n % 10, "twin": n % 299, "pad": &pad });
    bed.load("docs", docs.collect()).await;
    let path = |name: &str, text: &str| bed.file(name, text).display().to_string();
    let count = path("count.js", COUNT_BY_GROUP);
    let replace = |target: &'static str| {
        ["submit", "--quiet", "-c", "docs", "--map", &count, "--reduce", "_sum", "--out", target]
    };

    // Indexes of every kind and the collection's options outlive its content.
    bed.db()
        .create_collection("totals")
        .collation(Collation::builder().locale("en").strength(CollationStrength::Secondary).build())
        .validator(doc! { "value": { "$gte": 0 } })
        .validation_level(mongodb::options::ValidationLevel::Moderate)
        .await
        .unwrap();
    bed.coll("totals")
        .insert_many([doc! { "_id": "old", "value": 1 }, doc! { "_id": "older", "value": 2 }])
        .await
        .unwrap();
    let ttl = std::time::Duration::from_secs(3_600);
    bed.coll("totals")
        .create_indexes([
            index(doc! { "value": -1 }, IndexOptions::default()),
            index(
                doc! { "_id": 1, "value": 1 },
                IndexOptions::builder().unique(true).name("pair".to_owned()).build(),
            ),
            index(
                doc! { "value": 1 },
                IndexOptions::builder()
                    .name("large".to_owned())
                    .partial_filter_expression(doc! { "value": { "$gt": 5 } })
                    .build(),
            ),
            index(
                doc! { "seen": 1 },
                IndexOptions::builder().expire_after(ttl).sparse(true).build(),
            ),
            index(
                doc! { "note": "text" },
                IndexOptions::builder()
                    .collation(Collation::builder().locale("simple").build())
                    .build(),
            ),
            index(doc! { "$**": 1 }, IndexOptions::builder().hidden(true).build()),
        ])
        .await
        .unwrap();
    let before = (indexes(&bed, "totals").await, options(&bed, "totals").await);
    assert_eq!(before.0.len(), 7);
    for _ in 0..2 {
        bed.aviary(&replace("replace:totals")).await.ok();
        assert_eq!((indexes(&bed, "totals").await, options(&bed, "totals").await), before);
        let rows = bed.all("totals").await;
        assert_eq!(rows.len(), 10);
        for row in rows {
            assert_eq!(row.get("value").and_then(Bson::as_f64), Some(30.0), "{row}");
        }
    }
    // The validator still works, as one of this collection's own.
    let invalid = bed.coll("totals").insert_one(doc! { "_id": "bad", "value": -1 }).await;
    assert!(invalid.is_err());

    // Results that break a unique index: every count is 30.
    bed.coll("strict").insert_one(doc! { "_id": "kept", "value": 7 }).await.unwrap();
    bed.coll("strict")
        .create_index(index(
            doc! { "value": 1 },
            IndexOptions::builder().unique(true).name("one_of_each".to_owned()).build(),
        ))
        .await
        .unwrap();
    refused_untouched(
        &bed,
        &replace("replace:strict"),
        &["unique index", "test.strict", "one_of_each"],
        "strict",
    )
    .await;

    // Results that the target's validator refuses.
    bed.db().create_collection("valid").validator(doc! { "value": { "$lt": 30 } }).await.unwrap();
    bed.coll("valid").insert_one(doc! { "_id": "kept", "value": 7 }).await.unwrap();
    refused_untouched(
        &bed,
        &replace("replace:valid"),
        &["does not take the result", "validator"],
        "valid",
    )
    .await;

    // Into another database.
    let mut elsewhere = replace("replace:totals").to_vec();
    elsewhere.extend(["--out-db", "reports"]);
    bed.grant("reports", &[], &["totals"]).await;
    bed.aviary(&elsewhere).await.ok();
    let reports = bed.client.database("reports");
    let found = reports.collection::<Document>("totals").count_documents(doc! {}).await.unwrap();
    assert_eq!(found, 10);
    let mut names = reports.list_collection_names().await.unwrap();
    names.sort();
    assert_eq!(names, ["aviary-grants", "totals"]);

    // Map-only: each emit is a document; a plain value becomes one.
    let reshape = path(
        "reshape.js",
        "function () { emit(this._id, { _id: 'lost', twice: this._id * 2, tags: ['a', this.g] });
           emit('plain ' + this._id, this.g); }",
    );
    let map_only = |map: &'static str| {
        ["submit", "--quiet", "-o", "json", "-c", "docs", "--out", map, "--map"]
    };
    let mut args = map_only("replace:reshaped").to_vec();
    args.push(&reshape);
    let ran = bed.aviary(&args).await.ok();
    let job = &ran.json()[0];
    assert!(job["phases"]["map"]["total"].as_u64().unwrap() > 3, "{job}");
    assert_eq!(job["phases"]["reduce"]["total"], 0);
    assert_eq!(job["counters"]["output"], 600);
    let rows = bed.all("reshaped").await;
    assert_eq!(rows.len(), 600);
    for (n, row) in rows.iter().take(300).enumerate() {
        let number = |value: Option<&Bson>| match value {
            Some(Bson::Int32(n)) => f64::from(*n),
            Some(Bson::Double(n)) => *n,
            other => panic!("{other:?}"),
        };
        assert!((number(row.get("_id")) - n as f64).abs() < 1e-9, "{row}");
        assert!((number(row.get("twice")) - 2.0 * n as f64).abs() < 1e-9, "{row}");
        let tags = row.get_array("tags").unwrap();
        assert_eq!(tags[0], Bson::String("a".into()));
        assert!((number(tags.get(1)) - (n % 10) as f64).abs() < 1e-9, "{row}");
        assert_eq!(row.len(), 3, "{row}");
    }
    assert!(rows[300..].iter().all(|row| row.get_str("_id").unwrap().starts_with("plain ")));
    assert!(rows[300..].iter().all(|row| row.len() == 2 && row.contains_key("value")));

    // The same key twice: by one task, and by two tasks that know nothing of each other.
    let twice = path("twice.js", "function () { emit(this._id, 1); emit(this._id, 2); }");
    let twins = path("twins.js", "function () { emit(this.twin, 1); }");
    bed.coll("kept").insert_one(doc! { "_id": "kept" }).await.unwrap();
    for map in [&twice, &twins] {
        let mut args = map_only("replace:kept").to_vec();
        args.retain(|arg| !["-o", "json"].contains(arg));
        args.push(map);
        refused_untouched(&bed, &args, &["same key", "map-only", "_id"], "kept").await;
    }

    // Inline: kept with the job, read with `results`, gone with `rm`.
    let inline =
        bed.aviary(&["submit", "-q", "-c", "docs", "--map", &count, "--reduce", "_sum"]).await.ok();
    assert_eq!(inline.json().len(), 10, "{inline:#?}");
    let named = bed
        .aviary(&["submit", "-q", "-o", "name", "-c", "docs", "--map", &count, "--reduce", "_sum"])
        .await
        .ok();
    let id = named.stdout.trim();
    let read = bed.aviary(&["results", id]).await.ok();
    assert_eq!(read.stdout, inline.stdout);
    assert_eq!(read.json()[3], serde_json::json!({ "_id": "g3", "value": 30.0 }));
    let some = bed.aviary(&["results", id, "--limit", "2", "--sort", r#"{"_id": -1}"#]).await.ok();
    let ids: Vec<_> = some.json().iter().map(|row| row["_id"].clone()).collect();
    assert_eq!(ids, ["g9", "g8"]);
    let of_replace = bed.aviary(&["list", "-o", "json"]).await.ok();
    let replaced =
        of_replace.json().into_iter().find(|job| job["output"]["collection"] == "totals");
    let replaced = replaced.unwrap()["id"].as_str().unwrap().to_owned();
    bed.aviary(&["results", &replaced]).await.ok();
    assert_eq!(bed.leftovers().await.len(), 2, "one for each inline result");
    bed.aviary(&["rm", id]).await.ok();
    let gone = bed.aviary(&["results", id]).await;
    assert_eq!(gone.code, 5, "{gone:#?}");
    // `last` would be another job each time it is said.
    assert_eq!(bed.aviary(&["rm", "last"]).await.code, 2);
    let last = bed.aviary(&["status", "last", "-o", "name"]).await.ok();
    bed.aviary(&["rm", last.stdout.trim()]).await.ok();
    bed.nothing_left("publishing").await;
}
