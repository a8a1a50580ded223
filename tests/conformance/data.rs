//! The collections that cases read.

use std::str::FromStr;

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{
    Binary, Bson, DateTime, Decimal128, Document, JavaScriptCodeWithScope, Regex, Timestamp, doc,
};

use crate::common::Bed;

/// Loads them all.
pub async fn load(bed: &Bed) {
    bed.load("small", (0..20).map(small).collect()).await;
    for name in ["capped", "capped-target"] {
        let capped = doc! { "create": name, "capped": true, "size": 1 << 20 };
        bed.db().run_command(capped).await.expect("created");
    }
    bed.load("capped", (0..20).map(|n| doc! { "_id": n, "k": n % 3, "v": n }).collect()).await;
    bed.load("many", (0..10_000).map(|n| doc! { "_id": n, "k": n, "v": n % 7 }).collect()).await;
    bed.load("one", (0..1_000).map(|n| doc! { "_id": n, "k": "only", "v": n }).collect()).await;
    let pad = "x".repeat(50_000);
    let large = (0..120).map(|n| doc! { "_id": n, "k": n % 2, "text": format!("{pad}{n}") });
    bed.load("large", large.collect()).await;
    bed.load("orders", orders()).await;
    bed.load("references", references()).await;
    for (name, values) in keys() {
        let rows = values.into_iter().zip(0..).map(|(value, n)| match value {
            Some(value) => doc! { "_id": n, "k": value },
            None => doc! { "_id": n },
        });
        bed.load(&format!("keys-{name}"), rows.collect()).await;
    }
}

fn small(n: i32) -> Document {
    doc! {
        "_id": n, "k": format!("k{}", n % 5), "v": n, "half": f64::from(n) / 2.0, "g": n % 3,
        "long": 5_000_000_000_i64 + i64::from(n),
        "dec": Decimal128::from_str(&format!("{n}.50")).unwrap(),
        "date": DateTime::from_millis(1_600_000_000_000 + i64::from(n) * 86_400_000),
        "tags": [format!("t{}", n % 4), "all"], "nested": { "b": n, "a": { "deep": [n, { "x": n }] } },
        "oid": ObjectId::from_bytes([u8::try_from(n).unwrap(); 12]),
        "bin": Binary { subtype: BinarySubtype::Generic, bytes: vec![1, 2, 3] },
        "uuid": Binary { subtype: BinarySubtype::Uuid, bytes: (0..16).collect() },
        "re": regex("^a.b$", "im"),
        "ts": Timestamp { time: 7, increment: 9 },
        "code": Bson::JavaScriptCode("function () { return 1; }".into()),
        "yes": n % 2 == 0, "nothing": Bson::Null, "low": Bson::MinKey, "high": Bson::MaxKey,
        "name": if n % 2 == 0 { "Ann" } else { "ann" },
    }
}

/// The manual's own.
fn orders() -> Vec<Document> {
    let date = |day: &str| DateTime::parse_rfc3339_str(format!("2020-{day}T00:00:00Z")).unwrap();
    let item = |sku: &str, qty: i32, price: f64| doc! { "sku": sku, "qty": qty, "price": price };
    let rows = [
        ("Ant O. Knee", "03-01", 25.0, vec![item("oranges", 5, 2.5), item("apples", 5, 2.5)]),
        ("Ant O. Knee", "03-08", 70.0, vec![item("oranges", 8, 2.5), item("chocolates", 5, 10.0)]),
        ("Busby Bee", "03-08", 50.0, vec![item("oranges", 10, 2.5), item("pears", 10, 2.5)]),
        ("Busby Bee", "03-18", 25.0, vec![item("oranges", 10, 2.5)]),
        ("Busby Bee", "03-19", 50.0, vec![item("chocolates", 5, 10.0)]),
        ("Cam Elot", "03-19", 35.0, vec![item("carrots", 10, 1.0), item("apples", 10, 2.5)]),
        ("Cam Elot", "03-20", 25.0, vec![item("oranges", 10, 2.5)]),
        ("Don Quis", "03-20", 75.0, vec![item("chocolates", 5, 10.0), item("apples", 10, 2.5)]),
        (
            "Don Quis",
            "03-20",
            55.0,
            vec![item("carrots", 5, 1.0), item("apples", 10, 2.5), item("oranges", 10, 2.5)],
        ),
        ("Don Quis", "03-23", 25.0, vec![item("oranges", 10, 2.5)]),
    ];
    (1..)
        .zip(rows)
        .map(|(n, (who, day, price, items)): (i32, _)| {
            doc! {
                "_id": n, "cust_id": who, "ord_date": date(day), "price": price, "items": items,
                "status": "A",
            }
        })
        .collect()
}

/// A regular expression.
pub fn regex(pattern: &str, options: &str) -> Bson {
    let (pattern, options) = (pattern.to_owned(), options.to_owned());
    Bson::RegularExpression(Regex {
        pattern: pattern.try_into().expect("no zero byte"),
        options: options.try_into().expect("no zero byte"),
    })
}

fn code_with_scope(code: &str, scope: Document) -> Bson {
    Bson::JavaScriptCodeWithScope(JavaScriptCodeWithScope { code: code.into(), scope })
}

/// `bson` makes one of extended JSON only.
fn pointer(namespace: &str, id: &str) -> Bson {
    let text = serde_json::json!({ "$dbPointer": { "$ref": namespace, "$id": { "$oid": id } } });
    Bson::try_from(text).expect("a DBPointer")
}

/// References, and documents that are like one; and what the values of other types hold.
fn references() -> Vec<Document> {
    let id = ObjectId::from_bytes([7; 12]);
    vec![doc! {
        "_id": 1, "ref": { "$ref": "people", "$id": 5 },
        "far": { "$ref": "people", "$id": id, "$db": "other" },
        "more": { "$ref": "people", "$id": 1, "x": 2 }, "list": [{ "$ref": "people", "$id": "a" }],
        "turned": { "$id": 1, "$ref": "people" }, "half": { "$ref": "people" },
        "number": { "$ref": 5, "$id": 1 }, "pointer": pointer("test.people", "070707070707070707070707"),
        "oid": id, "n": 5_i64, "ts": Timestamp { time: 7, increment: 9 },
        "date": DateTime::from_millis(1_577_934_245_678),
    }]
}

/// Keys of every type: a collection each, `None` for a document without the field.
fn keys() -> Vec<(&'static str, Vec<Option<Bson>>)> {
    let decimal = |text: &str| Bson::Decimal128(Decimal128::from_str(text).unwrap());
    let some = |values: Vec<Bson>| values.into_iter().map(Some).collect();
    vec![
        ("int", some(vec![1.into(), 2.into(), 1.into(), (-3).into(), i32::MAX.into()])),
        ("long", some(vec![1_i64.into(), 2_i64.into(), 1_i64.into(), (1_i64 << 60).into()])),
        ("double", some(vec![0.5.into(), 1e300.into(), 0.5.into(), f64::NEG_INFINITY.into()])),
        ("decimal", some(vec![decimal("1.5"), decimal("1.5"), decimal("1E+3"), decimal("NaN")])),
        ("numbers", some(vec![1.into(), 1.0.into(), 1_i64.into(), 2.into(), 2.0.into()])),
        ("longs-and-doubles", some(vec![3.0.into(), 3_i64.into(), 4_i64.into(), 4.0.into()])),
        ("zeros", some(vec![0.0.into(), (-0.0).into(), 0.into()])),
        ("nan", some(vec![f64::NAN.into(), f64::NAN.into(), 1.into()])),
        ("nothing", vec![Some(Bson::Null), None, Some(Bson::Undefined), Some(Bson::Null)]),
        ("bool", some(vec![true.into(), false.into(), true.into()])),
        ("text", some(["", "a", "A", "ä", "a\u{308}", "é", "🦜", "a"].map(Bson::from).to_vec())),
        ("zero-bytes", some(vec!["a\0b".into(), "a\0b".into(), "a".into()])),
        (
            "date",
            some(vec![
                DateTime::from_millis(0).into(),
                DateTime::from_millis(-86_400_001).into(),
                DateTime::from_millis(0).into(),
            ]),
        ),
        (
            "oid",
            some(vec![
                ObjectId::from_bytes([1; 12]).into(),
                ObjectId::from_bytes([2; 12]).into(),
                ObjectId::from_bytes([1; 12]).into(),
            ]),
        ),
        (
            "document",
            some(vec![
                doc! { "a": 1, "b": 2 }.into(),
                doc! { "b": 2, "a": 1 }.into(),
                doc! { "a": 1, "b": 2 }.into(),
                doc! {}.into(),
                doc! { "a": { "b": [1, "x"] } }.into(),
            ]),
        ),
        (
            "documents-of-numbers",
            some(vec![doc! { "a": 1 }.into(), doc! { "a": 1.0 }.into(), doc! { "a": 2.0 }.into()]),
        ),
        (
            "binary",
            some(vec![
                Binary { subtype: BinarySubtype::Generic, bytes: vec![1] }.into(),
                Binary { subtype: BinarySubtype::UserDefined(0x80), bytes: vec![1] }.into(),
                Binary { subtype: BinarySubtype::Uuid, bytes: (0..16).collect() }.into(),
                Binary { subtype: BinarySubtype::Generic, bytes: vec![1] }.into(),
            ]),
        ),
        (
            "timestamp",
            some(vec![
                Timestamp { time: 1, increment: 2 }.into(),
                Timestamp { time: 1, increment: 2 }.into(),
                Timestamp { time: u32::MAX, increment: 0 }.into(),
            ]),
        ),
        ("ends", some(vec![Bson::MinKey, Bson::MaxKey, Bson::MinKey])),
        ("code", some(vec![Bson::JavaScriptCode("x".into()), Bson::JavaScriptCode("x".into())])),
        (
            "code-with-scope",
            some(vec![
                code_with_scope("x", doc! { "a": 1 }),
                code_with_scope("x", doc! { "a": 1 }),
            ]),
        ),
        (
            "pointer",
            some(vec![
                pointer("test.people", "000000000000000000000001"),
                pointer("test.people", "000000000000000000000002"),
                pointer("test.people", "000000000000000000000001"),
            ]),
        ),
        (
            "reference",
            some(vec![
                doc! { "$ref": "people", "$id": 1 }.into(),
                doc! { "$ref": "people", "$id": 1, "$db": "other" }.into(),
                doc! { "$ref": "people", "$id": 1 }.into(),
            ]),
        ),
        ("array", some(vec![vec![1, 2].into(), vec![1, 2].into(), vec![2, 1].into()])),
        ("regex", some(vec![regex("a", "i"), regex("a", "i")])),
        ("symbol", some(vec![Bson::Symbol("s".into()), "s".into()])),
    ]
}
