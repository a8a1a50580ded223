//! Values of every type, read by the languages' accessors and written by their own types.

use aviary::toolchain::Language;
use bson::spec::BinarySubtype;
use bson::{Bson, DateTime, Document, doc, oid::ObjectId};

use crate::common::{Bed, root};
use crate::compilers::there;

fn values() -> Vec<Bson> {
    let binary =
        |subtype, bytes: &[u8]| Bson::Binary(bson::Binary { subtype, bytes: bytes.to_vec() });
    vec![
        Bson::Double(-0.0),
        Bson::Double(f64::INFINITY),
        Bson::Double(1e300),
        Bson::Int32(i32::MIN),
        Bson::Int64(7),
        Bson::Int64(i64::MIN),
        Bson::String("nul \0, ß, 漢字, 🦀".into()),
        Bson::String(String::new()),
        Bson::Document(doc! { "z": 1, "a": { "": [1_i64, { "x": null }] }, "z2": {} }),
        Bson::Array(vec![Bson::Boolean(true), Bson::Array(Vec::new()), Bson::Int64(1)]),
        // More items than one digit counts.
        Bson::Array((0..12).map(Bson::Int32).collect()),
        binary(BinarySubtype::Generic, &[0, 255, 1]),
        binary(BinarySubtype::Uuid, &[7; 16]),
        binary(BinarySubtype::UserDefined(0x80), &[]),
        Bson::ObjectId(ObjectId::from_bytes([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 255])),
        Bson::Boolean(false),
        Bson::DateTime(DateTime::from_millis(-1)),
        Bson::DateTime(DateTime::from_millis(253_402_300_800_001)),
        Bson::Null,
        Bson::RegularExpression(bson::Regex {
            pattern: bson::raw::CString::try_from("^a/b").unwrap(),
            options: bson::raw::CString::try_from("im").unwrap(),
        }),
        Bson::JavaScriptCode("function () { return 1 }".into()),
        Bson::JavaScriptCodeWithScope(bson::JavaScriptCodeWithScope {
            code: "f".into(),
            scope: doc! { "n": 1 },
        }),
        Bson::Symbol("sym".into()),
        Bson::Undefined,
        Bson::Timestamp(bson::Timestamp { time: u32::MAX, increment: 3 }),
        Bson::Decimal128("1234.50".parse().unwrap()),
        Bson::MinKey,
        Bson::MaxKey,
        // The library makes none but of its JSON.
        serde_json::json!({ "$dbPointer": { "$ref": "a.b", "$id": { "$oid": "0102030405060708090a0bff" } } })
            .try_into()
            .unwrap(),
    ]
}

pub async fn every_type_is_read_and_written_exactly(bed: &Bed) {
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    let number = |n| i32::try_from(n).unwrap();
    let docs: Vec<Document> =
        values().into_iter().enumerate().map(|(n, v)| doc! { "_id": number(n), "v": v }).collect();
    bed.load("types", docs.clone()).await;
    for language in Language::ALL {
        if !there(language) {
            continue;
        }
        let file = format!("tests/languages/sources/types.{}", language.extensions()[0]);
        let file = root().join(file).display().to_string();
        let target = format!("types in {language}");
        let out = format!("replace:{target}");
        bed.aviary(&["submit", "-q", "-c", "types", "--map", &file, "--out", &out]).await.ok();
        let rows = bed.all(&target).await;
        assert_eq!(rows.len(), docs.len());
        for (row, doc) in rows.iter().zip(&docs) {
            let mut expected = doc.clone();
            // A field that is not there is written as null.
            expected.insert("none", Bson::Null);
            assert_eq!(
                row.to_vec().unwrap(),
                expected.to_vec().unwrap(),
                "{language}: {row} {doc}"
            );
        }
    }
}
