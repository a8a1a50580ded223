//! Sweeps: programs that evaluate many expressions, made in loops over types, constructors, built-ins and changes of
//! documents. Each is one job on the server and one on Aviary, and what they emit is compared expression by expression.
//!
//! A row of the table is a case: the expressions that belong together. What differs on purpose is named by a reason, which
//! must hold for something, and is told in `docs/reference/javascript.md`.

use std::collections::BTreeMap;

use bson::raw::{RawBsonRef, RawDocumentBuf};
use bson::spec::BinarySubtype;
use bson::{
    Binary, Bson, DateTime, Decimal128, Document, RawArray, Regex, Timestamp, doc, oid::ObjectId,
};
use futures_util::TryStreamExt;
use mongodb::Collection;

use crate::common::Bed;
use crate::reasons::Reason;

const COMMON: &str = include_str!("sweeps/common.js");
const REDUCE: &str = "function (key, values) { return values[0]; }";
/// Time of a whole sweep, which is one document's.
const TIMEOUT_MS: i32 = 120_000;

/// A sweep: its name, the body of its map, and the documents that are mapped.
struct Sweep {
    name: &'static str,
    body: &'static str,
    documents: Vec<RawDocumentBuf>,
}

fn sweeps() -> Vec<Sweep> {
    let one = || vec![RawDocumentBuf::try_from(&doc! { "_id": 1 }).unwrap()];
    let mut sweeps = vec![
        Sweep {
            name: "mutations",
            body: include_str!("sweeps/mutations.js"),
            documents: changes(),
        },
        Sweep { name: "documents", body: include_str!("sweeps/documents.js"), documents: odd() },
    ];
    for (name, body) in [
        ("constructors", include_str!("sweeps/constructors.js")),
        ("types", include_str!("sweeps/types.js")),
        ("methods", include_str!("sweeps/methods.js")),
        ("dates", include_str!("sweeps/dates.js")),
        ("numbers", include_str!("sweeps/numbers.js")),
        ("texts", include_str!("sweeps/texts.js")),
        ("lists", include_str!("sweeps/lists.js")),
    ] {
        sweeps.push(Sweep { name, body, documents: one() });
    }
    sweeps
}

/// Documents of several shapes, each with each change: as a part of a document, and as the document itself.
fn changes() -> Vec<RawDocumentBuf> {
    let decimal: Decimal128 = "1.50".parse().unwrap();
    let regex = Regex { pattern: "a".try_into().unwrap(), options: "i".try_into().unwrap() };
    let shapes = [
        ("numeric names", doc! { "b": 1, "10": 2, "a": 2.0, "2": "x", "l": 5_i64, "d": 1.5 }),
        (
            "nested",
            doc! {
                "b": 1, "n": { "x": 1, "3": 2, "deep": { "i": 7, "f": 1.0 } },
                "l": [1.5, 2.0, 3_i64, { "i": 1 }], "z": 0,
            },
        ),
        (
            "types",
            doc! {
                "b": true, "i": i32::MAX, "m": -0.0, "o": ObjectId::from_bytes([0x5f; 12]),
                "t": Timestamp { time: 3, increment: 4 }, "e": decimal, "s": "text", "v": Bson::Null,
                "r": regex, "B": Binary { subtype: BinarySubtype::Generic, bytes: vec![1, 2, 3] },
                "lo": Bson::MinKey, "dt": DateTime::from_millis(5),
            },
        ),
        ("empty", doc! {}),
        (
            "odd names",
            doc! {
                "": 1, "a.b": 2, "$c": 3, "__proto__": 4, "constructor": 5, "length": 6, "01": 7, "-1": 8,
                "4294967295": 9,
            },
        ),
    ];
    let mut all = Vec::new();
    for (shape, fields) in &shapes {
        for change in include_str!("sweeps/changes.txt").lines() {
            for whole in [false, true] {
                let part = if whole { "the document" } else { "a part" };
                let mut document = doc! {
                    "_id": format!("{change} / {shape} / {part}"), "group": format!("changing {shape}, {part}"),
                    "change": change, "whole": whole,
                };
                if whole {
                    document.extend(fields.clone());
                } else {
                    document.insert("it", fields.clone());
                }
                all.push(RawDocumentBuf::try_from(&document).unwrap());
            }
        }
    }
    all
}

fn raw(parts: &[(&str, Bson)]) -> RawDocumentBuf {
    let mut raw = RawDocumentBuf::new();
    for (name, value) in parts {
        let value = bson::RawBson::try_from(value.clone()).unwrap();
        raw.append(c_string(name), value);
    }
    raw
}

fn c_string(text: &str) -> bson::raw::CString {
    text.to_owned().try_into().expect("no zero byte")
}

fn texts(all: &[&str]) -> Bson {
    all.to_vec().into()
}

/// Documents that drivers rarely write.
fn odd() -> Vec<RawDocumentBuf> {
    let twice = {
        let mut twice = raw(&[
            ("_id", "names that are there twice".into()),
            ("fields", texts(&["a", "b", "n"])),
            (
                "more",
                texts(&[
                    "(it.b, it.a)",
                    "(it.a, it.b, it.a)",
                    "it.n.x",
                    "it.n.y",
                    "(it.n.y, it.n.x)",
                    "Object.keys(it.n)",
                    "JSON.stringify(it.n)",
                    "it.n",
                    "[it.a, it.b]",
                    "(function () { return {a: it.a, k: it.b + '/' + it.a}; })()",
                ]),
            ),
            ("a", 1.into()),
            ("b", 2.into()),
            ("a", 3.into()),
        ]);
        twice.append(c_string("n"), raw(&[("x", 1.into()), ("y", 2.into()), ("x", "two".into())]));
        twice.append(c_string("b"), 4);
        twice
    };
    let far = raw(&[
        ("_id", "dates out of range".into()),
        ("fields", texts(&["least", "most", "before", "after", "ok"])),
        (
            "more",
            texts(&[
                "it.most.getTime()",
                "it.most.getFullYear()",
                "isNaN(it.least)",
                "it.before.getTime()",
                "String(it.after)",
                "it.most instanceof Date",
                "it.ok - it.most",
                "it.most < it.ok",
                "Object.prototype.toString.call(it.most)",
                "JSON.stringify(it.most)",
                "new Date(it.most).getTime()",
                "it.after.getUTCDay()",
            ]),
        ),
        ("least", DateTime::MIN.into()),
        ("most", DateTime::MAX.into()),
        ("before", DateTime::from_millis(-8_640_000_000_000_001).into()),
        ("after", DateTime::from_millis(8_640_000_000_000_001).into()),
        ("ok", DateTime::from_millis(5).into()),
    ]);
    vec![twice, expressions(), far]
}

/// Regular expressions whose options are in no order: `bson` would sort them.
fn expressions() -> RawDocumentBuf {
    let options = ["im", "mi", "gi", "smi", "none", "e"];
    let mut document = raw(&[
        ("_id", "regular expressions".into()),
        ("fields", texts(&options)),
        (
            "more",
            texts(&[
                "'xA\\nB'.match(it.mi)",
                "'xA\\nB'.replace(it.im, '-')",
                "'xAb'.replace(it.mi, '-')",
                "'aXbxc'.split(it.gi)",
                "it.mi.flags",
                "it.smi.source",
                "it.gi.test('x')",
                "it.smi.exec('a')",
                "'abc'.search(it.none)",
                "String(it.mi)",
                "it.mi instanceof RegExp",
                "it.e.source",
                "it.mi.toString()",
            ]),
        ),
    ])
    .into_bytes();
    document.pop();
    for (name, pattern) in options.into_iter().zip(["^a", "^a", "x", "a.", "c", ""]) {
        let flags = if matches!(name, "none" | "e") { "" } else { name };
        document.push(0x0B);
        for part in [name, pattern, flags] {
            document.extend_from_slice(part.as_bytes());
            document.push(0);
        }
    }
    document.push(0);
    let len = i32::try_from(document.len()).unwrap();
    document[..4].copy_from_slice(&len.to_le_bytes());
    RawDocumentBuf::from_bytes(document).unwrap()
}

/// What a sweep emits: a key, and its expressions with what they give.
type Emitted = BTreeMap<String, RawDocumentBuf>;

/// How a case compares.
#[derive(Debug, Default)]
pub struct Row {
    pub equal: usize,
    /// Reasons, and how many expressions differ for them.
    pub on_purpose: BTreeMap<&'static str, usize>,
    pub unexplained: Vec<String>,
}

/// Runs every sweep, and returns its cases by name.
pub async fn run(bed: &Bed) -> BTreeMap<String, Row> {
    let set = doc! { "setParameter": 1, "internalQueryJavaScriptFnTimeoutMillis": TIMEOUT_MS };
    bed.set().run_admin(set).await.expect("set");
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for sweep in sweeps() {
        let input = format!("sweep-{}", sweep.name);
        let collection: Collection<RawDocumentBuf> = bed.db().collection(&input);
        collection.insert_many(&sweep.documents).await.expect("loaded");
        let map = format!("function () {{\n{COMMON}\n{}\n}}", sweep.body);
        let command = doc! {
            "mapReduce": &input, "map": Bson::JavaScriptCode(map),
            "reduce": Bson::JavaScriptCode(REDUCE.into()),
        };
        let theirs = on_server(bed, &command, &input).await;
        let ours = on_aviary(bed, &command, &input).await;
        let (server, aviary): (Vec<_>, Vec<_>) = (theirs.keys().collect(), ours.keys().collect());
        assert_eq!(server, aviary, "{} emits the same keys", sweep.name);
        for (key, theirs) in &theirs {
            compare(&mut rows, key, theirs, &ours[key]);
        }
    }
    rows
}

async fn on_server(bed: &Bed, command: &Document, input: &str) -> Emitted {
    let (mut command, target) = (command.clone(), format!("{input}-server"));
    // Not inline: some of what a server writes is no BSON, which the driver does not let through in a reply.
    command.insert("out", &target);
    bed.db().run_command(command).await.expect("the server runs it");
    emitted(bed, &target).await
}

async fn emitted(bed: &Bed, target: &str) -> Emitted {
    let rows: Collection<RawDocumentBuf> = bed.db().collection(target);
    let rows: Vec<_> = rows.find(doc! {}).await.unwrap().try_collect().await.unwrap();
    rows.iter().map(|row| keyed(row)).collect()
}

async fn on_aviary(bed: &Bed, command: &Document, input: &str) -> Emitted {
    let (mut command, target) = (command.clone(), format!("{input}-out"));
    command.insert("out", &target);
    let text = Bson::Document(command).into_canonical_extjson().to_string();
    let file = bed.file(&format!("{input}.json"), &text).display().to_string();
    bed.aviary(&["submit", "-q", "--command", &file, "--record-timeout", "5m"]).await.ok();
    emitted(bed, &target).await
}

fn keyed(row: &bson::RawDocument) -> (String, RawDocumentBuf) {
    (row.get_str("_id").expect("a text key").to_owned(), row.to_owned())
}

/// Compares a case's expressions one by one.
fn compare(
    rows: &mut BTreeMap<String, Row>,
    key: &str,
    theirs: &RawDocumentBuf,
    ours: &RawDocumentBuf,
) {
    // The changes of documents are many keys of a few cases.
    let name = match key.split(" / ").collect::<Vec<_>>().as_slice() {
        [change, shape, part] => {
            let kind =
                if change.starts_with("keys: ") { "read after changing" } else { "changing" };
            format!("{kind} {shape}, {part}")
        }
        _ => key.to_owned(),
    };
    let row = rows.entry(name.clone()).or_default();
    let (theirs, ours) = (checks(theirs), checks(ours));
    assert_eq!(theirs.len(), ours.len(), "{key} has as many checks");
    for (theirs, ours) in theirs.into_iter().zip(ours) {
        let text = text_of(theirs);
        assert_eq!(text, text_of(ours), "{key}: the same expressions");
        if theirs.as_bytes() == ours.as_bytes() {
            row.equal += 1;
            continue;
        }
        let difference =
            Difference { case: &name, text: &text, server: sides(theirs), aviary: sides(ours) };
        match Reason::of(&difference) {
            Some(reason) => *row.on_purpose.entry(reason.says).or_default() += 1,
            None => row.unexplained.push(format!("{difference:?}")),
        }
    }
}

/// An expression of which the two make something else.
#[derive(Debug)]
pub struct Difference<'a> {
    pub case: &'a str,
    pub text: &'a str,
    /// What it looks like from each side, as text.
    pub server: Vec<String>,
    pub aviary: Vec<String>,
}

fn checks(row: &RawDocumentBuf) -> Vec<&RawArray> {
    let all = row.get_array("value").expect("a list of checks");
    all.into_iter().map(|check| check.unwrap().as_array().expect("a check")).collect()
}

fn text_of(check: &RawArray) -> String {
    check.get_str(0).expect("the expression's text").to_owned()
}

fn sides(check: &RawArray) -> Vec<String> {
    let side = |side: bson::error::Result<RawBsonRef<'_>>| match side {
        Ok(RawBsonRef::String(text)) => text.to_owned(),
        // Some of what a server writes is no BSON.
        Ok(value) => match Bson::try_from(value) {
            Ok(value) => format!("{value:?}"),
            Err(_) => "malformed".into(),
        },
        Err(_) => "malformed".into(),
    };
    check.into_iter().skip(1).map(side).collect()
}
