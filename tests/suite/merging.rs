//! Results that join what a collection holds already: merge, reduce and update.

use crate::common::{Bed, Ran};
use bson::{Bson, Document, doc};
use mongodb::IndexModel;
use mongodb::options::{Collation, IndexOptions};

const BY_GROUP: &str = "function () { emit(this.g, this.v); }";
const SUM: &str = "function (key, values) { return Array.sum(values); }";

struct Stage {
    bed: Bed,
    map: String,
    sum: String,
}

impl Stage {
    async fn submit(&self, out: &str, more: &[&str]) -> Ran {
        let mut args = vec!["submit", "-q", "-c", "docs", "--out", out];
        args.extend(more);
        self.bed.aviary(&args).await
    }

    async fn old(&self, target: &str, docs: Vec<Document>) {
        self.bed.coll(target).drop().await.unwrap();
        self.bed.load(target, docs).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_join_what_is_there() {
    let bed = Bed::start(1).await;
    let _coordinator =
        bed.spawn("coordinator", &["coordinator"], &[("AVIARY_SPLIT_BYTES", "4096")]);
    let _worker = bed.worker();
    let pad = "x".repeat(200);
    let docs = (0..100).map(|n| doc! { "_id": n, "g": n % 4, "v": 1.0, "pad": &pad });
    bed.load("docs", docs.collect()).await;
    let path = |name: &str, text: &str| bed.file(name, text).display().to_string();
    let (map, sum) = (path("map.js", BY_GROUP), path("sum.js", SUM));
    let stage = Stage { bed, map, sum };
    merge(&stage).await;
    reduce(&stage).await;
    builtins(&stage).await;
    update(&stage).await;
    refusals(&stage).await;
    stage.bed.nothing_left("merging").await;
}

async fn merge(stage: &Stage) {
    let functions = ["--map", &stage.map, "--reduce", &stage.sum];
    let old = vec![
        doc! { "_id": 1, "value": "old", "more": true },
        doc! { "_id": "other", "value": "kept" },
    ];
    stage.old("merged", old).await;
    let index = IndexModel::builder().keys(doc! { "value": 1 }).build();
    stage.bed.coll("merged").create_index(index).await.unwrap();
    for _ in 0..2 {
        stage.submit("merge:merged", &functions).await.ok();
        let rows = stage.bed.all("merged").await;
        assert_eq!(rows.len(), 5);
        for (n, row) in (0..4).zip(&rows) {
            assert_eq!(row, &doc! { "_id": row.get("_id"), "value": 25.0 }, "{n}");
        }
        assert_eq!(rows[4], doc! { "_id": "other", "value": "kept" });
    }
    let names = stage.bed.coll("merged").list_index_names().await.unwrap();
    assert_eq!(names, ["_id_", "value_1"]);
    // A collection that is not there yet, in another database.
    stage.bed.grant("reports", &[], &["fresh"]).await;
    stage.submit("merge:fresh", &[&functions[..], &["--out-db", "reports"]].concat()).await.ok();
    let reports = stage.bed.client.database("reports");
    let fresh = reports.collection::<Document>("fresh").count_documents(doc! {}).await.unwrap();
    assert_eq!(fresh, 4);
    let mut names = reports.list_collection_names().await.unwrap();
    names.sort();
    assert_eq!(names, ["aviary-grants", "fresh"]);
}

async fn reduce(stage: &Stage) {
    let functions = ["--map", &stage.map, "--reduce", &stage.sum];
    let old = vec![
        doc! { "_id": 1_i64, "value": 100, "more": true },
        // Of another making: it has no value, which the servers reduce as null.
        doc! { "_id": 2.0, "n": 1 },
        doc! { "_id": 9, "value": "kept" },
    ];
    stage.old("reduced", old).await;
    for (first, second, third) in [(25.0, 125.0, 25.0), (50.0, 150.0, 50.0)] {
        stage.submit("reduce:reduced", &functions).await.ok();
        let rows = stage.bed.all("reduced").await;
        let values: Vec<_> = rows.iter().map(|row| row.get("value").cloned().unwrap()).collect();
        let expected: [Bson; 5] =
            [first.into(), second.into(), third.into(), first.into(), "kept".into()];
        assert_eq!(values, expected);
        assert!(rows.iter().all(|row| row.len() == 2), "{rows:?}");
    }
    // What was there comes first, and finalize sees the whole once more, as on the servers.
    let text = stage.bed.file("text.js", "function (k, v) { return v.join('+'); }");
    let mark = stage.bed.file("mark.js", "function (k, v) { return '<' + v + '>'; }");
    let (text, mark) = (text.display().to_string(), mark.display().to_string());
    stage.old("texts", vec![doc! { "_id": 1.0, "value": "old" }]).await;
    let map = ["--map", &stage.map, "--query", r#"{"_id": {"$lt": 2}}"#, "--finalize", &mark];
    stage.submit("reduce:texts", &[&map[..], &["--reduce", &text]].concat()).await.ok();
    let rows = stage.bed.all("texts").await;
    let texts: Vec<_> = rows.iter().map(|row| row.get_str("value").unwrap()).collect();
    assert_eq!(texts, ["<1>", "<old+<1>>"]);
}

async fn builtins(stage: &Stage) {
    for (builtin, old, new) in
        [("_sum", 5, 30.0), ("_count", 5, 30.0), ("_min", 0, 0.0), ("_max", 9, 9.0)]
    {
        stage.old("builtin", vec![doc! { "_id": 1, "value": old }]).await;
        let args = ["--map", &stage.map, "--reduce", builtin];
        stage.submit("reduce:builtin", &args).await.ok();
        let row = stage.bed.coll("builtin").find_one(doc! { "_id": 1 }).await.unwrap().unwrap();
        let value = match row.get("value") {
            Some(Bson::Int32(n)) => f64::from(*n),
            Some(Bson::Int64(n)) => *n as f64,
            Some(Bson::Double(n)) => *n,
            other => panic!("{builtin}: {other:?}"),
        };
        assert!((value - new).abs() < 1e-9, "{builtin}: {row}");
    }
    stage.old("builtin", vec![doc! { "_id": 1, "value": "text" }]).await;
    let ran = stage.submit("reduce:builtin", &["--map", &stage.map, "--reduce", "_sum"]).await;
    assert_eq!(ran.code, 3, "{ran:#?}");
    assert!(ran.stderr.contains("key 1"), "{ran:#?}");
    let rows = stage.bed.all("builtin").await;
    assert_eq!(rows, [doc! { "_id": 1, "value": "text" }], "nothing was merged");
}

/// A backfill: the job writes to the collection it reads.
async fn update(stage: &Stage) {
    let bed = &stage.bed;
    let people = (0..50).map(|n| doc! { "_id": n, "first": format!("f{n}"), "last": "l", "n": n });
    stage.old("people", people.collect()).await;
    let full = bed.file(
        "full.js",
        "function () { emit(this._id, {full: this.first + ' ' + this.last}); emit(-1 - this._id, {}); }",
    );
    let full = full.display().to_string();
    for _ in 0..2 {
        let args = ["submit", "-q", "-c", "people", "--map", &full, "--out", "update:people"];
        bed.aviary(&args).await.ok();
        let rows = bed.all("people").await;
        assert_eq!(rows.len(), 50, "what is not there is not brought back");
        for (n, row) in (0..50).zip(rows) {
            let first = format!("f{n}");
            let expected = doc! { "_id": n, "first": &first, "last": "l", "n": n, "full": format!("{first} l") };
            assert_eq!(row, expected);
        }
    }
    // The whole document, by merge.
    let whole = bed.file("whole.js", "function () { emit(this._id, {only: this.full}); }");
    let whole = whole.display().to_string();
    let args = ["submit", "-q", "-c", "people", "--map", &whole, "--out", "merge:people"];
    bed.aviary(&args).await.ok();
    let rows = bed.all("people").await;
    assert_eq!(rows.len(), 50);
    assert_eq!(rows[7], doc! { "_id": rows[7].get("_id"), "only": "f7 l" });
}

async fn refusals(stage: &Stage) {
    let bed = &stage.bed;
    let functions = ["--map", &stage.map, "--reduce", &stage.sum];
    let before = bed.all("docs").await;
    for (out, more, code, word) in [
        ("merge:docs", &functions[..], 8, "input itself"),
        ("reduce:docs", &functions[..], 8, "input itself"),
        ("replace:docs", &functions[..2], 8, "input itself"),
        ("update:x", &functions[..], 2, "map-only"),
        ("reduce:x", &functions[..2], 2, "--reduce"),
        ("reduce:x", &["--map", &stage.map, "--reduce", "_avg"][..], 8, "how many values"),
        ("reduce:x", &["--map", &stage.map, "--reduce", "_stats"][..], 8, "how many values"),
        ("reduce:x", &[&functions[..], &["--no-combine"]].concat(), 8, "--no-combine"),
        ("reduce:x", &[&functions[..], &["--combine", &stage.sum]].concat(), 8, "--combine"),
        ("mix:x", &functions[..], 2, "not understood"),
        ("merge:", &functions[..], 2, "not understood"),
        ("merge:aviary", &functions[..], 8, "cannot be an output"),
    ] {
        let ran = stage.submit(out, more).await;
        assert_eq!(ran.code, code, "{out} {ran:#?}");
        assert!(ran.stderr.contains(word), "{out}: {word:?} is missing in {ran:#?}");
    }
    // Only the function itself knows that it streams. As a file it is tried before anything is written, and one
    // that is in the catalogue is found out by whoever maps, before anything is published.
    let first =
        "({ begin(key) { this.v = null; }, next(v) { this.v ??= v; }, end() { return this.v; } })";
    stage.submit("merge:streamed", &["--map", &stage.map, "--reduce", first]).await.ok();
    let ran = stage.submit("reduce:streamed", &["--map", &stage.map, "--reduce", first]).await;
    assert_eq!(ran.code, 8, "{ran:#?}");
    assert!(ran.stderr.contains("a reduce that streams"), "{ran:#?}");
    let first = "let v;\nfunction reduce_begin(key) { v = null; }\n\
                 function reduce_next(value) { v ??= value; }\nfunction reduce_end() { return v; }";
    let first = bed.file("first.js", first).display().to_string();
    let inserted = bed.aviary(&["insert", &first, "-o", "name"]).await.ok();
    let first = inserted.stdout.trim();
    let ran = stage.submit("reduce:streamed", &["--map", &stage.map, "--reduce", first]).await;
    assert_eq!(ran.code, 3, "{ran:#?}");
    assert!(ran.stderr.contains("a reduce that streams"), "{ran:#?}");
    let failed = doc! {
        "kind": "job",
        "state": "failed",
        "spec.output.mode": "reduce",
        "spec.output.collection": "streamed",
    };
    let job = bed.coll("aviary").find_one(failed).await.unwrap().expect("the job that failed");
    assert!(job.get("publish").is_none(), "{job}");
    let committed = [&functions[..2], &["--read", "committed"]].concat();
    let ran = stage.submit("update:docs", &committed).await;
    assert_eq!(ran.code, 8, "{ran:#?}");
    assert!(ran.stderr.contains("--read committed"), "{ran:#?}");
    assert_eq!(bed.all("docs").await, before);

    // A collation of the target's own says which results are one, which reduce cannot know.
    let collation = Collation::builder().locale("en").build();
    bed.db().create_collection("collated").collation(collation).await.unwrap();
    let ran = stage.submit("reduce:collated", &functions).await;
    assert_eq!(ran.code, 8, "{ran:#?}");
    assert!(ran.stderr.contains("collation"), "{ran:#?}");
    stage.submit("merge:collated", &functions).await.ok();
    assert_eq!(bed.all("collated").await.len(), 4);

    // The target's validator counts before anything is merged, its unique index when it is.
    bed.db().create_collection("valid").validator(doc! { "value": { "$lt": 5 } }).await.unwrap();
    let ran = stage.submit("merge:valid", &functions).await;
    assert_eq!(ran.code, 3, "{ran:#?}");
    assert!(ran.stderr.contains("validator"), "{ran:#?}");
    assert_eq!(bed.all("valid").await, Vec::<Document>::new());
    let unique = IndexOptions::builder().unique(true).build();
    let unique = IndexModel::builder().keys(doc! { "value": 1 }).options(unique).build();
    bed.coll("strict").create_index(unique).await.unwrap();
    let ran = stage.submit("merge:strict", &functions).await;
    assert_eq!(ran.code, 9, "{ran:#?}");
    for word in
        ["stopped while publishing", "test.strict does not take the result", "aviary resume"]
    {
        assert!(ran.stderr.contains(word), "{word:?} is missing: {ran:#?}");
    }
    // Part of it may be there, so it neither failed nor goes away by itself.
    let ran = bed.aviary(&["status", "last"]).await.ok();
    assert!(ran.stdout.contains("stopped"), "{ran:#?}");
    let id = bed.aviary(&["status", "last", "-o", "name"]).await.ok();
    assert_eq!(bed.aviary(&["rm", id.stdout.trim()]).await.code, 8);
    bed.coll("strict").drop_index("value_1").await.unwrap();
    bed.aviary(&["resume", "last"]).await.ok();
    bed.aviary(&["status", "-w", "last"]).await.ok();
    assert_eq!(bed.all("strict").await.len(), 4);
}
