//! The options of a collection outlive its replacement by a job's results, or the job is refused.

use crate::common::{Bed, Ran};
use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;

const MAP: &str = "function () { emit(this._id % 3, 1); }";

/// What the server says of a collection, and what it holds.
async fn whole(bed: &Bed, name: &str) -> (Document, Vec<Document>) {
    let list = doc! { "listCollections": 1, "filter": { "name": name } };
    let found = bed.db().run_cursor_command(list).await.expect("asked");
    let found: Vec<Document> = found.try_collect().await.expect("listed");
    (found[0].get_document("options").expect("options").clone(), bed.all(name).await)
}

async fn create(bed: &Bed, name: &str, options: Document) {
    let mut create = doc! { "create": name };
    create.extend(options);
    bed.db().run_command(create).await.expect("created");
}

fn submission(bed: &Bed, target: &str) -> Vec<String> {
    let map = bed.file("map.js", MAP).display().to_string();
    let args = ["submit", "-q", "-c", "docs", "--map", &map, "--reduce", "_sum", "--out", target];
    args.map(str::to_owned).to_vec()
}

async fn submit(bed: &Bed, target: &str) -> Ran {
    bed.aviary(&submission(bed, target)).await
}

fn values(rows: &[Document]) -> Vec<Option<f64>> {
    rows.iter().map(|row| row.get("value").and_then(Bson::as_f64)).collect()
}

async fn bed() -> Bed {
    let bed = Bed::start(1).await.in_parts();
    bed.load("docs", (0..30).map(|n| doc! { "_id": n }).collect()).await;
    bed
}

#[tokio::test(flavor = "multi_thread")]
async fn replace_keeps_every_option_or_refuses() {
    let bed = bed().await;
    let (_coordinator, _worker) = (bed.coordinator(), bed.worker());
    let images = doc! { "changeStreamPreAndPostImages": { "enabled": true } };
    let mut all = images.clone();
    all.extend(doc! {
        "validator": { "value": { "$gt": 0 } },
        "validationLevel": "moderate",
        "validationAction": "error",
        "collation": { "locale": "en", "strength": 2 },
        "storageEngine": { "wiredTiger": { "configString": "block_compressor=zlib" } },
        "indexOptionDefaults": { "storageEngine": { "wiredTiger": {} } },
    });
    for (name, options) in [("imaged", images), ("all", all)] {
        create(&bed, name, options.clone()).await;
        bed.coll(name).insert_one(doc! { "_id": "old", "value": 1 }).await.expect("written");
        let (before, _) = whole(&bed, name).await;
        for option in options.keys() {
            assert!(before.contains_key(option), "the server tells of {option}: {before}");
        }
        for mode in ["replace", "replace", "merge"] {
            submit(&bed, &format!("{mode}:{name}")).await.ok();
            let (after, rows) = whole(&bed, name).await;
            assert_eq!(after, before, "{mode}");
            assert_eq!(values(&rows), [Some(10.0); 3], "{mode}");
        }
    }
    // What they are for still works: the document as it was comes with its change.
    let imaged = bed.coll("imaged");
    let required = mongodb::options::FullDocumentBeforeChangeType::Required;
    let watch = imaged.watch().full_document_before_change(required);
    let mut stream = watch.await.expect("watched");
    imaged.delete_one(doc! {}).await.expect("deleted");
    let change = stream.try_next().await.expect("read").expect("a change");
    let before = change.full_document_before_change.expect("the document as it was");
    assert_eq!(values(&[before]), [Some(10.0)]);

    // Results would lie unencrypted among what is encrypted.
    let field = doc! { "path": "secret", "bsonType": "string", "keyId": bson::Uuid::new() };
    create(&bed, "secrets", doc! { "encryptedFields": { "fields": [field] } }).await;
    let before = whole(&bed, "secrets").await;
    for mode in ["replace", "merge", "reduce"] {
        let ran = submit(&bed, &format!("{mode}:secrets")).await;
        assert_eq!(ran.code, 8, "{ran:#?}");
        let words = "error: the output test.secrets has encrypted fields";
        assert!(ran.stderr.starts_with(words), "{ran:#?}");
        assert_eq!(whole(&bed, "secrets").await, before);
    }
    bed.nothing_left("refusals").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_option_that_changes_while_a_job_runs_is_kept_or_ends_the_job() {
    let bed = bed().await;
    let _worker = bed.worker();
    let change = async |options: Document| {
        let mut modify = doc! { "collMod": "totals" };
        modify.extend(options);
        bed.db().run_command(modify).await.expect("changed");
    };
    create(&bed, "totals", Document::new()).await;
    bed.coll("totals").insert_one(doc! { "_id": "old", "value": 1 }).await.expect("written");
    let on = |enabled: bool| doc! { "changeStreamPreAndPostImages": { "enabled": enabled } };
    let cases = [
        (on(true), None),
        (on(false), None),
        (doc! { "validator": { "value": { "$lt": 5 } } }, Some("the option validator")),
    ];
    for (changed, refused) in cases {
        let slow = bed.pause("reducing", |env| bed.spawn("slow", &["coordinator"], env));
        let args = submission(&bed, "replace:totals");
        let submitted = bed.aviary(&args);
        let meanwhile = async {
            slow.arrived().await;
            change(changed.clone()).await;
            let before = whole(&bed, "totals").await;
            slow.go_on();
            before
        };
        let (ran, (options, rows)) = tokio::join!(submitted, meanwhile);
        let (after, results) = whole(&bed, "totals").await;
        match refused {
            None => {
                ran.ok();
                let kept = |options: &Document| {
                    let images = options.get_document("changeStreamPreAndPostImages");
                    images.is_ok_and(|images| images.get_bool("enabled").unwrap_or(false))
                };
                assert_eq!(kept(&after), kept(&options), "{after}");
                assert_eq!(values(&results), [Some(10.0); 3]);
            }
            Some(word) => {
                assert_eq!(ran.code, 3, "{ran:#?}");
                for word in [word, "test.totals", "was changed while the job ran", "submit"] {
                    assert!(ran.stderr.contains(word), "{word:?} is missing: {ran:#?}");
                }
                assert_eq!((after, results), (options, rows), "the target is as it was");
            }
        }
        bed.nothing_left("a change").await;
        slow.process.terminate().expect("it runs");
        slow.process.wait_gone(std::time::Duration::from_secs(60)).await.expect("it ends");
    }
}
