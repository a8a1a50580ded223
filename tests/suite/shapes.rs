//! Inputs of every shape: each document is read exactly once, whatever the type of its `_id`, its
//! size, or what the collection is.

use crate::common::Bed;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Document, Timestamp, doc, oid::ObjectId};
use futures_util::TryStreamExt;
use mongodb::options::Collation;

/// Small, so that a test's input is cut into many splits.
const SPLIT_BYTES: &str = "16384";

/// Every `_id` is a key of its own; every type is one more.
const MAP: &str = "function () { emit(this._id, 1); emit('type:' + this.t, 1); }";

/// What a shape's job must have been cut into.
#[derive(Clone, Copy)]
enum Tasks {
    One,
    Many,
}

struct Shapes {
    bed: Bed,
    map: String,
}

impl Shapes {
    /// Writes documents that know the type of their `_id`, and enough besides to be split.
    async fn load(&self, name: &str, ids: Vec<Bson>) {
        let pad = "x".repeat(150);
        let docs = ids.into_iter().enumerate().map(|(n, id)| {
            doc! { "t": type_name(&id), "_id": id, "n": n as i64, "pad": &pad }
        });
        self.bed.load(name, docs.collect()).await;
    }

    /// Runs a job whose keys are numbers: they need no collation, and the splits may have the collection's.
    async fn along_its_own_index(&self, name: &str) {
        let map = self.bed.file("numbers.js", "function () { emit(this.n, 1); }");
        let (map, out) = (map.display().to_string(), format!("{name}_numbers"));
        let target = format!("replace:{out}");
        let args = ["submit", "-q", "-o", "json", "-c", name, "--map", &map, "--reduce", "_count"];
        let ran = self.bed.aviary(&[&args[..], &["--out", &target]].concat()).await.ok();
        let job = &ran.json()[0];
        assert!(job["phases"]["map"]["total"].as_u64() > Some(1), "{job}");
        let rows = self.bed.all(&out).await;
        let count = self.bed.coll(name).count_documents(doc! {}).await.unwrap();
        assert_eq!(rows.len() as u64, count);
        assert!(rows.iter().all(|row| number(row) == 1), "{rows:?}");
    }

    /// Runs a job over the collection and compares it with what the server says of it.
    async fn check(&self, name: &str, tasks: Tasks, more: &[&str], query: Document) {
        let out = format!("replace:{name}_out");
        let mut args = vec![
            "submit",
            "--quiet",
            "-o",
            "json",
            "-c",
            name,
            "--map",
            &self.map,
            "--reduce",
            "_count",
            "--partitions",
            "3",
            "--out",
            &out,
        ];
        args.extend(more);
        let ran = self.bed.aviary(&args).await.ok();
        let job = &ran.json()[0];
        let coll = self.bed.coll(name);
        let counted = coll.count_documents(query.clone()).await.unwrap();
        assert_eq!(job["counters"]["input"], counted, "{name}: {job}");
        assert_eq!(job["counters"]["emit"], counted * 2, "{name}: {job}");
        let total = job["phases"]["map"]["total"].as_u64().unwrap();
        match tasks {
            Tasks::One => assert_eq!(total, 1, "{name}: {job}"),
            Tasks::Many => assert!(total > 1, "{name}: {job}"),
        }

        // The types, as the server counts them.
        let types: Vec<Document> = coll
            .aggregate(vec![
                doc! { "$match": query.clone() },
                doc! { "$group": { "_id": { "$type": "$_id" }, "n": { "$sum": 1 } } },
                doc! { "$sort": { "_id": 1 } },
            ])
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        let out = self.bed.coll(&format!("{name}_out"));
        for row in &types {
            let key = format!("type:{}", row.get_str("_id").unwrap());
            let found = out.find_one(doc! { "_id": &key }).await.unwrap();
            let found = found.unwrap_or_else(|| panic!("{name}: {key} is missing"));
            assert_eq!(number(&found), i64::from(row.get_i32("n").unwrap()), "{name}: {key}");
        }
        let results = out.count_documents(doc! {}).await.unwrap();
        assert_eq!(results, counted + types.len() as u64, "{name}: a key too many or too few");

        // Every `_id`, compared by the server itself: there, and counted once.
        let wrong: Vec<Document> = coll
            .aggregate(vec![
                doc! { "$match": query },
                doc! { "$lookup": {
                    "from": out.name(), "localField": "_id", "foreignField": "_id", "as": "o",
                } },
                doc! { "$match": { "o.value": { "$ne": 1 } } },
                doc! { "$project": { "_id": 1, "o": 1 } },
            ])
            .collation(Collation::builder().locale("simple").build())
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        assert!(wrong.is_empty(), "{name}: {wrong:?}");
        self.bed.nothing_left(name).await;
    }
}

fn number(row: &Document) -> i64 {
    match row.get("value") {
        Some(Bson::Int32(n)) => i64::from(*n),
        Some(Bson::Int64(n)) => *n,
        Some(Bson::Double(n)) => *n as i64,
        other => panic!("no number: {other:?}"),
    }
}

/// The server's names of types.
fn type_name(value: &Bson) -> &'static str {
    match value {
        Bson::Double(_) => "double",
        Bson::String(_) => "string",
        Bson::Document(_) => "object",
        Bson::Boolean(_) => "bool",
        Bson::Null => "null",
        Bson::JavaScriptCode(_) => "javascript",
        Bson::JavaScriptCodeWithScope(_) => "javascriptWithScope",
        Bson::Int32(_) => "int",
        Bson::Int64(_) => "long",
        Bson::Timestamp(_) => "timestamp",
        Bson::Binary(_) => "binData",
        Bson::ObjectId(_) => "objectId",
        Bson::DateTime(_) => "date",
        Bson::Symbol(_) => "symbol",
        Bson::Decimal128(_) => "decimal",
        Bson::MaxKey => "maxKey",
        Bson::MinKey => "minKey",
        other => panic!("not an _id: {other:?}"),
    }
}

fn binary(subtype: BinarySubtype, bytes: Vec<u8>) -> Bson {
    Bson::Binary(Binary { subtype, bytes })
}

fn decimal(text: &str) -> Bson {
    Bson::Decimal128(text.parse().unwrap())
}

/// Numbers of all four types that are all different numbers.
fn numbers(count: i32) -> Vec<Bson> {
    (0..count)
        .map(|n| match n % 5 {
            0 => Bson::Int32(n),
            1 => Bson::Int64(i64::from(n)),
            2 => Bson::Double(f64::from(n) + 0.25),
            3 => decimal(&format!("{n}.75")),
            _ => Bson::Int64(i64::from(n) << 40),
        })
        .collect()
}

fn every_type() -> Vec<Bson> {
    let mut ids = vec![
        Bson::MinKey,
        Bson::MaxKey,
        Bson::Null,
        Bson::Boolean(false),
        Bson::Boolean(true),
        Bson::Double(f64::NAN),
        Bson::Double(f64::INFINITY),
        Bson::Double(f64::NEG_INFINITY),
        Bson::Double(-0.5),
        Bson::Int64(i64::MAX),
        Bson::Int64(i64::MIN),
        decimal("1E6000"),
        decimal("-1E-6000"),
        Bson::String(String::new()),
        Bson::String("with\0nul".into()),
        Bson::String("Ünïcödé ☃".into()),
        Bson::Document(Document::new()),
        Bson::Timestamp(Timestamp { time: 1, increment: 2 }),
        Bson::Timestamp(Timestamp { time: u32::MAX, increment: u32::MAX }),
        Bson::JavaScriptCode("function () {}".into()),
        Bson::JavaScriptCodeWithScope(bson::JavaScriptCodeWithScope {
            code: "f".into(),
            scope: doc! { "x": 1 },
        }),
        Bson::Symbol("a symbol".into()),
        Bson::DateTime(DateTime::MIN),
        Bson::DateTime(DateTime::MAX),
    ];
    for n in 0..120_i32 {
        let byte = u8::try_from(n).unwrap();
        ids.extend([
            Bson::Int32(n),
            Bson::Int64(i64::from(n) + 1_000_000),
            Bson::Double(f64::from(n) + 0.5),
            decimal(&format!("{n}.125")),
            Bson::String(format!("text {n}")),
            Bson::Document(doc! { "a": n, "b": { "c": [n, "x", Bson::Null] } }),
            Bson::Document(doc! { "b": f64::from(n) }),
            Bson::ObjectId(ObjectId::new()),
            Bson::DateTime(DateTime::from_millis(i64::from(n) * 86_400_000 - 5_000_000_000)),
            binary(BinarySubtype::Generic, vec![byte; usize::from(byte)]),
            binary(BinarySubtype::Uuid, vec![byte; 16]),
            binary(BinarySubtype::UserDefined(200), vec![byte; 3]),
        ]);
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn every_document_is_read_once_whatever_its_shape() {
    let bed = Bed::start(1).await;
    let map = bed.file("map.js", MAP).display().to_string();
    let _coordinator =
        bed.spawn("coordinator", &["coordinator"], &[("AVIARY_SPLIT_BYTES", SPLIT_BYTES)]);
    let _worker = bed.spawn("worker", &["worker", "--slots", "2"], &[]);
    let shapes = Shapes { bed, map };
    let bed = &shapes.bed;
    let all = Document::new();
    const COUNT: i32 = 1_000;

    shapes.load("object_ids", (0..COUNT).map(|_| ObjectId::new().into()).collect()).await;
    shapes.check("object_ids", Tasks::Many, &[], all.clone()).await;

    shapes.load("ints", (0..COUNT).map(|n| Bson::Int32((n - 500) * 7)).collect()).await;
    shapes.check("ints", Tasks::Many, &[], all.clone()).await;

    shapes.load("numbers", numbers(COUNT)).await;
    shapes.check("numbers", Tasks::Many, &[], all.clone()).await;

    let text =
        |n: i32| Bson::String(format!("{}-{n}", ["a", "B", "é", "日本", ""][n as usize % 5]));
    shapes.load("strings", (0..COUNT).map(text).collect()).await;
    shapes.check("strings", Tasks::Many, &[], all.clone()).await;

    let nested = |n: i32| Bson::Document(doc! { "region": n % 7, "of": { "n": n } });
    shapes.load("documents", (0..COUNT).map(nested).collect()).await;
    shapes.check("documents", Tasks::Many, &[], all.clone()).await;

    let day = |n: i32| Bson::DateTime(DateTime::from_millis(i64::from(n - 500) * 86_400_000));
    shapes.load("dates", (0..COUNT).map(day).collect()).await;
    shapes.check("dates", Tasks::Many, &[], all.clone()).await;

    let bytes = |n: i32| {
        let digest = blake3::hash(&n.to_le_bytes()).as_bytes()[..16].to_vec();
        let subtype = if n % 2 == 0 { BinarySubtype::Uuid } else { BinarySubtype::Generic };
        binary(subtype, digest)
    };
    shapes.load("binary", (0..COUNT).map(bytes).collect()).await;
    shapes.check("binary", Tasks::Many, &[], all.clone()).await;

    shapes.load("every_type", every_type()).await;
    shapes.check("every_type", Tasks::Many, &[], all.clone()).await;
    // The same with a query, which sees all types as well.
    shapes
        .check(
            "every_type",
            Tasks::Many,
            &["--query", r#"{"n": {"$gte": 100, "$lt": 900}}"#],
            doc! { "n": { "$gte": 100, "$lt": 900 } },
        )
        .await;
    shapes.check("every_type", Tasks::Many, &["--read", "committed"], all.clone()).await;

    bed.db().create_collection("empty").await.unwrap();
    shapes.check("empty", Tasks::One, &[], all.clone()).await;
    shapes.load("one", vec![Bson::Null]).await;
    shapes.check("one", Tasks::One, &[], all.clone()).await;
    // Nothing matches, in a collection that is split all the same.
    shapes.check("ints", Tasks::Many, &["--query", r#"{"n": -1}"#], doc! { "n": -1 }).await;

    let huge = "h".repeat(5_500_000);
    for n in 0..5 {
        bed.load("huge", vec![doc! { "_id": n, "t": "int", "huge": &huge }]).await;
    }
    bed.load("huge", (5..300).map(|n| doc! { "_id": n, "t": "int" }).collect()).await;
    shapes.check("huge", Tasks::Many, &[], all.clone()).await;

    let fat = "f".repeat(30_000);
    let skewed = (0..1_500).map(|n| match n % 50 {
        0 => doc! { "_id": n, "t": "int", "fat": &fat },
        _ => doc! { "_id": n, "t": "int", "thin": "x" },
    });
    bed.load("skewed", skewed.collect()).await;
    shapes.check("skewed", Tasks::Many, &[], all.clone()).await;

    // Splits of this one compare strings without regard to case, as its index does.
    bed.db()
        .create_collection("collated")
        .collation(
            Collation::builder()
                .locale("en")
                .strength(mongodb::options::CollationStrength::Secondary)
                .build(),
        )
        .await
        .unwrap();
    let word = |n: i32| Bson::String(format!("{}{n}", if n % 2 == 0 { "word" } else { "WORD" }));
    shapes.load("collated", (0..COUNT).map(word).collect()).await;
    let by_bytes = ["--collation", r#"{"locale": "simple"}"#];
    shapes.check("collated", Tasks::One, &by_bytes, all.clone()).await;
    shapes.along_its_own_index("collated").await;

    // Servers before 5.3 know none.
    if bed.version().await >= (5, 3) {
        let key = doc! { "key": { "_id": 1 }, "unique": true };
        bed.db().run_command(doc! { "create": "clustered", "clusteredIndex": key }).await.unwrap();
        shapes.load("clustered", every_type()).await;
        shapes.check("clustered", Tasks::Many, &[], all.clone()).await;
    }

    bed.db().create_collection("capped").capped(true).size(1 << 22).await.unwrap();
    shapes.load("capped", (0..COUNT).map(Bson::Int32).collect()).await;
    shapes.check("capped", Tasks::Many, &["--read", "committed"], all.clone()).await;
    // At one cluster time only servers from 8.0 on read one; others say so at once.
    if snapshots_of_capped(bed).await {
        shapes.check("capped", Tasks::Many, &[], all).await;
    } else {
        let ran = bed
            .aviary(&["submit", "-q", "-c", "capped", "--map", &shapes.map, "--reduce", "_count"])
            .await;
        assert_eq!(ran.code, 8, "{ran:#?}");
        assert!(ran.stderr.starts_with("error: test.capped is a capped collection"), "{ran:#?}");
        assert!(ran.stderr.contains("--read committed"), "{ran:#?}");
    }
}

async fn snapshots_of_capped(bed: &Bed) -> bool {
    let read = doc! { "find": "capped", "limit": 1, "readConcern": { "level": "snapshot" } };
    bed.db().run_command(read).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_takes_the_first_of_the_order() {
    let bed = Bed::start(1).await;
    let map = bed.file("map.js", "function () { emit(this._id, 1); }").display().to_string();
    let _coordinator =
        bed.spawn("coordinator", &["coordinator"], &[("AVIARY_SPLIT_BYTES", SPLIT_BYTES)]);
    let _worker = bed.worker();
    let pad = "x".repeat(200);
    let docs = (0..1_000).map(|n| doc! { "_id": n, "rank": n * 7919 % 1_000, "pad": &pad });
    bed.load("ranked", docs.collect()).await;
    let ids = async |more: &[&str]| -> (u64, Vec<i32>) {
        let mut args =
            vec!["submit", "--quiet", "-o", "json", "-c", "ranked", "--map", &map, "--reduce"];
        args.extend(["_count", "--out", "replace:ranked_out"]);
        args.extend(more);
        let ran = bed.aviary(&args).await.ok();
        let job = ran.json().remove(0);
        assert_eq!(job["phases"]["map"]["total"], 1, "only one reader knows who is first");
        let ids = bed.all("ranked_out").await.into_iter().map(|row| match row.get("_id") {
            Some(Bson::Int32(n)) => *n,
            Some(Bson::Double(n)) => *n as i32,
            other => panic!("{other:?}"),
        });
        (job["counters"]["input"].as_u64().unwrap(), ids.collect())
    };
    let best = |count: usize, below: i32| {
        let mut all: Vec<(i32, i32)> =
            (0..1_000).map(|n| (n * 7919 % 1_000, n)).filter(|(_, n)| *n < below).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        let mut ids: Vec<i32> = all.into_iter().take(count).map(|(_, n)| n).collect();
        ids.sort_unstable();
        ids
    };
    let sort = ["--sort", r#"{"rank": -1}"#];
    assert_eq!(ids(&[&sort[..], &["--limit", "37"]].concat()).await, (37, best(37, 1_000)));
    let query = ["--query", r#"{"_id": {"$lt": 400}}"#, "--limit", "50"];
    assert_eq!(ids(&[&sort[..], &query].concat()).await, (50, best(50, 400)));
    assert_eq!(ids(&[&sort[..], &["--limit", "5000"]].concat()).await.0, 1_000);
    let (read, any) = ids(&["--limit", "10"]).await;
    assert_eq!((read, any.len()), (10, 10));
}
