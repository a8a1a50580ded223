//! The cases.

use bson::oid::ObjectId;
use bson::raw::cstr;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Decimal128, Document, RawDocumentBuf, Regex, Timestamp, doc};

use crate::Expect;
use crate::Expect::{Better, BothRefuse, Equal, Refuses};

/// A case.
pub struct Case {
    pub name: String,
    pub what: What,
    pub expect: Expect,
}

/// What is run.
pub enum What {
    /// A job, on both.
    Job(Job),
    /// `_min` or `_max` of values, some of which are not there.
    Extreme { values: Vec<Option<Bson>>, builtin: &'static str },
    /// A document as it is printed, and read back.
    Printed { value: RawDocumentBuf, text: String },
    /// A line as it is read, and its field `v` as it is printed then.
    Read { line: &'static str, text: &'static str },
    /// What `try` says of a reduce.
    Tried { job: Job, words: &'static str },
}

/// Where results go.
#[derive(Clone, Copy)]
pub enum Out {
    Inline,
    Into(&'static str),
    /// The server's reference is a pipeline that ends in `$merge`, as it is for what follows.
    Update,
    /// Results take the place of what is there, without a reduce.
    Merge,
}

impl Out {
    /// What `$merge` does when a document is there, and when it is not.
    pub fn merges(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Update => Some(("merge", "discard")),
            Self::Merge => Some(("replace", "insert")),
            Self::Inline | Self::Into(_) => None,
        }
    }
}

/// A job.
pub struct Job {
    pub documents: Vec<RawDocumentBuf>,
    /// Of the input collection.
    pub options: Document,
    pub map: String,
    pub reduce: String,
    pub server_reduce: String,
    pub out: Out,
    /// What the target holds before, and its options.
    pub before: Vec<RawDocumentBuf>,
    pub target_options: Document,
    pub query: Option<Document>,
    pub collation: Option<Document>,
    pub flags: Vec<&'static str>,
    pub pipeline: Vec<Document>,
}

impl Job {
    pub fn new(map: &str, reduce: &str) -> Self {
        Self {
            documents: vec![raw(doc! { "_id": 1 })],
            options: doc! {},
            map: map.into(),
            reduce: reduce.into(),
            server_reduce: reduce.into(),
            out: Out::Inline,
            before: Vec::new(),
            target_options: doc! {},
            query: None,
            collation: None,
            flags: Vec::new(),
            pipeline: Vec::new(),
        }
    }
}

const FIRST: &str = "function (key, values) { return values[0]; }";
const SUM: &str = "function (key, values) { return Array.sum(values); }";

fn raw(document: Document) -> RawDocumentBuf {
    RawDocumentBuf::try_from(&document).expect("BSON")
}

/// A document of elements that are given as bytes.
fn of_bytes(elements: &[Vec<u8>]) -> RawDocumentBuf {
    let body = [elements.concat(), vec![0]].concat();
    let length = u32::try_from(body.len() + 4).expect("short").to_le_bytes();
    RawDocumentBuf::from_bytes([length.to_vec(), body].concat()).expect("a document")
}

/// An element of text, which need not be UTF-8.
fn text(name: &str, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len() + 1).expect("short").to_le_bytes();
    [&[2], name.as_bytes(), &[0], &length, bytes, &[0]].concat()
}

fn int(name: &str, number: i32) -> Vec<u8> {
    [&[16], name.as_bytes(), &[0], &number.to_le_bytes()[..]].concat()
}

fn inner(name: &str, document: &RawDocumentBuf) -> Vec<u8> {
    [&[3], name.as_bytes(), &[0], document.as_bytes()].concat()
}

fn case(name: impl Into<String>, expect: Expect, what: What) -> Case {
    Case { name: name.into(), what, expect }
}

pub fn all() -> Vec<Case> {
    let mut cases = not_utf8();
    cases.extend(null_keys());
    cases.extend(updates());
    cases.extend(collations());
    cases.extend(depths());
    cases.extend(queries());
    cases.extend(extremes());
    cases.extend(printed());
    cases.extend(read());
    cases.extend(tried());
    cases
}

const NOT_UTF8: &[u8] = b"a\xffb";

fn not_utf8() -> Vec<Case> {
    let of_job =
        |name: &str, expect, job| case(format!("not UTF-8: {name}"), expect, What::Job(job));
    let documents = || vec![of_bytes(&[int("_id", 1), text("s", NOT_UTF8), int("n", 3)])];
    let old = || vec![of_bytes(&[int("_id", 3), text("value", b"x\xffy")])];
    let with = |map: &str| Job { documents: documents(), ..Job::new(map, FIRST) };
    let named = "refused with the document's name; a job's results are UTF-8, as drivers expect";
    vec![
        of_job("text that is read", Equal, with("function () { emit(1, this.s); }")),
        of_job("its length", Equal, with("function () { emit(1, this.s.length); }")),
        of_job(
            "halves of a character, each as one",
            Equal,
            Job {
                documents: [
                    &b"\xed\xa0\xbd\xed\xb8\x80"[..],
                    b"a\xed\xa0\x80b",
                    "\u{1f600}".as_bytes(),
                    NOT_UTF8,
                ]
                .iter()
                .zip(1..)
                .map(|(bytes, n)| of_bytes(&[int("_id", n), text("s", bytes)]))
                .collect(),
                ..Job::new("function () { emit(this.s, 1); }", SUM)
            },
        ),
        of_job(
            "the beginning of a character",
            Equal,
            Job {
                documents: vec![of_bytes(&[int("_id", 1), text("s", b"\xf0\x9f\x98x\xe2\x82")])],
                ..Job::new("function () { emit(1, this.s); }", FIRST)
            },
        ),
        of_job("as a key", Equal, with("function () { emit(this.s, 1); }")),
        of_job("in a key", Equal, with("function () { emit({ k: this.s }, 1); }")),
        of_job(
            "a document as it is",
            Refuses("on the document with _id 1", named),
            Job { out: Out::Into("replace"), ..with("function () { emit(1, this); }") },
        ),
        of_job(
            "a document in an object",
            Refuses("on the document with _id 1", named),
            Job { out: Out::Into("replace"), ..with("function () { emit(1, { d: this }); }") },
        ),
        of_job(
            "in the _id of a document that fails",
            BothRefuse("on the document with _id \"a\u{fffd}b\""),
            Job {
                documents: vec![of_bytes(&[int("n", 4), text("_id", NOT_UTF8)])],
                ..Job::new("function () { throw new Error('mine'); }", FIRST)
            },
        ),
        of_job(
            "before the _id of a document that fails",
            BothRefuse("on the document with _id 7"),
            Job {
                documents: vec![of_bytes(&[text("s", NOT_UTF8), int("_id", 7)])],
                ..Job::new("function () { throw new Error('mine'); }", FIRST)
            },
        ),
        of_job(
            "what the target of reduce holds",
            Equal,
            Job {
                out: Out::Into("reduce"),
                before: old(),
                reduce: "function (key, values) { return values.join('+'); }".into(),
                server_reduce: "function (key, values) { return values.join('+'); }".into(),
                ..with("function () { emit(this.n, 'new'); }")
            },
        ),
        of_job(
            "what the target of reduce holds, before its value",
            Equal,
            Job {
                out: Out::Into("reduce"),
                before: vec![of_bytes(&[int("_id", 3), text("note", NOT_UTF8), int("value", 4)])],
                ..with("function () { emit(this.n, 5); }")
            },
        ),
        of_job(
            "what the target of merge holds",
            Equal,
            Job {
                out: Out::Into("merge"),
                before: old(),
                ..with("function () { emit(this.n + 1, 5); }")
            },
        ),
        of_job(
            "what the target of update holds",
            Equal,
            Job {
                out: Out::Update,
                before: old(),
                pipeline: vec![doc! { "$project": { "_id": "$n", "z": "new" } }],
                ..with("function () { emit(this.n, { z: 'new' }); }")
            },
        ),
    ]
}

fn null_keys() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, key) in
        [("null", "null"), ("undefined", "undefined"), ("a missing field", "this.no")]
    {
        for mode in ["merge", "reduce", "replace"] {
            let map = format!("function () {{ emit({key}, 1); emit('other', 1); }}");
            let job = Job { out: Out::Into(mode), ..Job::new(&map, SUM) };
            let expect = match mode {
                "replace" => Equal,
                _ => BothRefuse("on the document with _id 1: a result has the key null"),
            };
            cases.push(case(format!("{name} as a key, {mode}"), expect, What::Job(job)));
        }
    }
    let job = Job {
        out: Out::Into("replace"),
        ..Job::new("function () { emit({ k: [{ $a: 1 }] }, 1); }", FIRST)
    };
    cases.push(case(
        "a key with a name that begins with $ in it",
        BothRefuse("on the document with _id 1: the key {\"k\":[{\"$a\":1.0}]} has a field that begins with $"),
        What::Job(job),
    ));
    let job = Job {
        out: Out::Update,
        before: vec![raw(doc! { "_id": 1, "a": 1 })],
        pipeline: vec![doc! { "$project": { "_id": null, "z": "new" } }],
        ..Job::new("function () { emit(null, { z: 'new' }); }", "")
    };
    cases.push(case(
        "null as a key, update",
        BothRefuse("on the document with _id 1"),
        What::Job(job),
    ));
    cases
}

fn updates() -> Vec<Case> {
    let of = |name: &str, expect, fields: &str, project: Document| {
        let job = Job {
            out: Out::Update,
            before: vec![raw(doc! { "_id": 1, "a": { "b": "old", "c": "kept" }, "n": "kept" })],
            pipeline: vec![project],
            ..Job::new(&format!("function () {{ emit(this._id, {fields}); }}"), "")
        };
        case(format!("update: {name}"), expect, What::Job(job))
    };
    let meaning = "a path or a name: it is not guessed, and the document is named";
    let refused = Refuses("on the document with _id 1: --out update: sets whole fields", meaning);
    // The same document on both: it is merged as it is, and emitted as it is.
    let whole = |name: &str, expect, field: &str, value: Bson| {
        let job = Job {
            documents: vec![raw(doc! { "_id": 1, field: value })],
            out: Out::Update,
            before: vec![raw(doc! { "_id": 1, "a": { "b": "old", "c": "kept" }, "n": "kept" })],
            ..Job::new("function () { emit(this._id, this); }", "")
        };
        case(format!("update: {name}"), expect, What::Job(job))
    };
    // What takes the place of a document is emitted as it is.
    let merged = |name: &str, expect, field: &str| {
        let job = Job {
            documents: vec![raw(doc! { "_id": "one", field: "new" })],
            out: Out::Merge,
            before: vec![raw(doc! { "_id": "one", "a": "old", "n": "lost" })],
            ..Job::new("function () { emit(this._id, this); }", "")
        };
        case(format!("merge: {name}"), expect, What::Job(job))
    };
    vec![
        merged("a name like others", Equal, "a"),
        merged(
            "a name that begins with $",
            BothRefuse("on the document with _id \"one\": --out merge: may replace a document"),
            "$a",
        ),
        of("a field", Equal, "{ z: 'new' }", doc! { "$project": { "z": "new" } }),
        of(
            "a document takes the place of one",
            Equal,
            "{ a: { d: 'new' } }",
            doc! { "$project": { "a": { "d": "new" } } },
        ),
        whole("a name with a dot", refused, "a.b", "new".into()),
        whole("a name that begins with $", BothRefuse("sets whole fields"), "$a", "new".into()),
        whole("names with dots within a field", Equal, "z", doc! { "a.b": "new" }.into()),
        whole(
            "a name of nothing",
            Better("the server updates no field without a name"),
            "",
            "new".into(),
        ),
        of(
            "an _id that the target does not hold",
            Equal,
            "{ z: 'new' }); emit('nobody', { z: 'lost' }",
            doc! { "$project": { "z": "new" } },
        ),
    ]
}

fn collations() -> Vec<Case> {
    let english = || doc! { "locale": "en", "strength": 2 };
    let texts = || vec![raw(doc! { "_id": 1, "k": "abc" }), raw(doc! { "_id": 2, "k": "ABC" })];
    let of = |name: &str, expect, job| case(format!("collation: {name}"), expect, What::Job(job));
    let by_k = "function () { emit(this.k, 1); }";
    let bytes = "text is grouped by its bytes: a group that other libraries' rules make is not the server's";
    let of_input = || Job {
        documents: texts(),
        options: doc! { "collation": english() },
        ..Job::new(by_k, SUM)
    };
    let into = |mode| Job {
        documents: texts(),
        out: Out::Into(mode),
        target_options: doc! { "collation": english() },
        ..Job::new(by_k, SUM)
    };
    vec![
        of(
            "the input's own, and a key of text",
            Refuses(
                "on the document with _id 1: the key \"abc\" holds text, and the input has a collation",
                bytes,
            ),
            of_input(),
        ),
        of(
            "the input's own, and text in a key",
            Refuses("the input has a collation", bytes),
            Job { map: "function () { emit({ k: [this.k] }, 1); }".into(), ..of_input() },
        ),
        of(
            "the input's own, and a key of a number",
            Equal,
            Job { map: "function () { emit(this._id, 1); }".into(), ..of_input() },
        ),
        of(
            "the input's own, and simple asked for",
            Equal,
            Job { collation: Some(doc! { "locale": "simple" }), ..of_input() },
        ),
        of(
            "the input's own, in the query",
            Equal,
            Job {
                map: "function () { emit(this._id, 1); }".into(),
                query: Some(doc! { "k": "Abc" }),
                ..of_input()
            },
        ),
        of(
            "asked for with a strength that is no integer, in the query",
            Equal,
            Job {
                documents: texts(),
                collation: Some(doc! { "locale": "en", "strength": 2.0 }),
                query: Some(doc! { "k": "Abc" }),
                ..Job::new("function () { emit(this._id, 1); }", SUM)
            },
        ),
        of(
            "asked for, in the query",
            Equal,
            Job {
                documents: texts(),
                collation: Some(english()),
                query: Some(doc! { "k": "Abc" }),
                ..Job::new("function () { emit(this._id, 1); }", SUM)
            },
        ),
        of(
            "the target's, and equal results, replace",
            BothRefuse("are one under the collation of"),
            into("replace"),
        ),
        of(
            "the target's, and equal results, merge",
            BothRefuse("are one under the collation of"),
            into("merge"),
        ),
    ]
}

fn depths() -> Vec<Case> {
    let of = |levels: usize, expect| {
        let map = format!(
            "function () {{ var v = 1; for (var n = 0; n < {levels}; n++) v = {{ a: v }}; emit(1, v); }}"
        );
        case(format!("a value {levels} levels deep"), expect, What::Job(Job::new(&map, FIRST)))
    };
    let more = "the server's functions give nothing that is 150 levels deep with what is around it";
    let mut deep = raw(doc! { "_id": 1, "v": 1 });
    for _ in 0..178 {
        deep = of_bytes(&[int("_id", 1), inner("a", &deep)]);
    }
    let stored =
        Job { documents: vec![deep], ..Job::new("function () { emit(1, this._id); }", FIRST) };
    vec![
        of(100, Equal),
        of(140, Equal),
        of(149, Better(more)),
        of(178, Better(more)),
        of(300, BothRefuse("nested deeper than")),
        case("a document as deep as servers store", Equal, What::Job(stored)),
    ]
}

fn queries() -> Vec<Case> {
    let ids = |count: u32, id: &dyn Fn(u32) -> Bson| -> Bson {
        doc! { "$nin": (0..count).map(id).collect::<Vec<Bson>>() }.into()
    };
    let of = |name: &str, expect, of_ids: Bson| {
        let query = Some(doc! { "_id": of_ids });
        let job = Job { query, ..Job::new("function () { emit(this._id, 1); }", SUM) };
        case(format!("query: {name}"), expect, What::Job(job))
    };
    // Each of a hundred thousand bytes.
    let long = |n: u32| Bson::String(format!("{n}{}", "x".repeat(100_000)));
    vec![
        of("15 MB", Equal, ids(155, &long)),
        of(
            "more than 15 MB",
            Refuses("at most 15728640", "a job's document holds its query beside everything else"),
            ids(160, &long),
        ),
        of(
            "100,000 ids",
            Equal,
            ids(100_000, &|n| Bson::Int32(i32::try_from(n).expect("small") + 2)),
        ),
    ]
}

fn extremes() -> Vec<Case> {
    let date = |millis| Bson::DateTime(DateTime::from_millis(millis));
    let decimal = |text: &str| Bson::Decimal128(text.parse::<Decimal128>().expect("a decimal"));
    let null = || Some(Bson::Null);
    let sets: Vec<(&str, Vec<Option<Bson>>)> = vec![
        ("null before a number", vec![null(), Some(3.into())]),
        ("null behind a number", vec![Some(3.into()), null()]),
        ("only null", vec![null(), null()]),
        ("nothing", vec![None, None]),
        ("nothing and a number", vec![None, Some((-3).into()), None]),
        ("undefined and a number", vec![Some(Bson::Undefined), Some(3.into())]),
        ("null and MinKey", vec![null(), Some(Bson::MinKey)]),
        ("null and MaxKey", vec![Some(Bson::MaxKey), null()]),
        ("null and text", vec![null(), Some("a".into()), Some("b".into())]),
        ("null and booleans", vec![Some(true.into()), null(), Some(false.into())]),
        ("null and dates", vec![Some(date(-1)), null(), Some(date(1))]),
        ("null and documents", vec![Some(doc! { "a": 1 }.into()), null(), Some(doc! {}.into())]),
        (
            "null and arrays",
            vec![Some(vec![Bson::from(2.0)].into()), null(), Some(Bson::Array(vec![]))],
        ),
        ("null and ids", vec![null(), Some(ObjectId::from_bytes([1; 12]).into())]),
        (
            "null and a long text",
            vec![Some("x".repeat(99).into()), null(), Some("y".repeat(99).into())],
        ),
        ("NaN and numbers", vec![Some(f64::NAN.into()), Some(1.into()), null()]),
        ("numbers of all types", vec![Some(2.into()), Some(Bson::Int64(3)), Some(decimal("2.5"))]),
        ("values of many types", vec![Some("a".into()), Some(1.into()), null(), Some(true.into())]),
    ];
    let mut cases = Vec::new();
    for (name, values) in sets {
        for builtin in ["_min", "_max"] {
            let what = What::Extreme { values: values.clone(), builtin };
            let expect = match values.contains(&Some(Bson::MinKey))
                || values.contains(&Some(Bson::MaxKey))
            {
                true => Better("the server gives a document that holds the value"),
                false => Equal,
            };
            cases.push(case(format!("{builtin} of {name}"), expect, what));
        }
    }
    cases
}

fn printed() -> Vec<Case> {
    let date = |millis| Bson::DateTime(DateTime::from_millis(millis));
    let binary = |subtype, bytes: &[u8]| Bson::Binary(Binary { subtype, bytes: bytes.to_vec() });
    let values: Vec<(&str, Bson, &str)> = vec![
        ("a date of 1969", date(-1), r#"{"$date":{"$numberLong":"-1"}}"#),
        ("the first date", date(i64::MIN), r#"{"$date":{"$numberLong":"-9223372036854775808"}}"#),
        (
            "a date of the year 0",
            date(-62_167_219_200_000),
            r#"{"$date":{"$numberLong":"-62167219200000"}}"#,
        ),
        ("1970", date(0), r#"{"$date":"1970-01-01T00:00:00Z"}"#),
        ("a date with a tenth of a second", date(1_500), r#"{"$date":"1970-01-01T00:00:01.500Z"}"#),
        ("the end of 9999", date(253_402_300_799_999), r#"{"$date":"9999-12-31T23:59:59.999Z"}"#),
        (
            "the year 10000",
            date(253_402_300_800_000),
            r#"{"$date":{"$numberLong":"253402300800000"}}"#,
        ),
        ("the last date", date(i64::MAX), r#"{"$date":{"$numberLong":"9223372036854775807"}}"#),
        (
            "a field $date",
            doc! { "$date": "soon" }.into(),
            r#"{"$aviaryFields":[["$date","soon"]]}"#,
        ),
        (
            "a field $numberLong",
            doc! { "$numberLong": "5" }.into(),
            r#"{"$aviaryFields":[["$numberLong","5"]]}"#,
        ),
        (
            "a field $oid among others",
            doc! { "a": 1, "$oid": "x" }.into(),
            r#"{"$aviaryFields":[["a",1],["$oid","x"]]}"#,
        ),
        (
            "fields as an old regular expression",
            doc! { "$regex": "a", "$options": "i" }.into(),
            r#"{"$aviaryFields":[["$regex","a"],["$options","i"]]}"#,
        ),
        (
            "a field $aviaryFields",
            doc! { "$aviaryFields": [] }.into(),
            r#"{"$aviaryFields":[["$aviaryFields",[]]]}"#,
        ),
        ("a reference", doc! { "$ref": "c", "$id": 1 }.into(), r#"{"$ref":"c","$id":1}"#),
        ("a long", Bson::Int64(i64::MIN), "-9223372036854775808"),
        ("a double that is whole", Bson::Double(1.0), "1.0"),
        ("minus zero", Bson::Double(-0.0), "-0.0"),
        ("NaN", Bson::Double(f64::NAN), r#"{"$numberDouble":"NaN"}"#),
        ("minus infinity", Bson::Double(f64::NEG_INFINITY), r#"{"$numberDouble":"-Infinity"}"#),
        (
            "a decimal",
            Bson::Decimal128("1.500E+10".parse::<Decimal128>().expect("a decimal")),
            r#"{"$numberDecimal":"1.500E+10"}"#,
        ),
        (
            "binary data of the old subtype",
            binary(BinarySubtype::BinaryOld, b"abc"),
            r#"{"$binary":{"base64":"YWJj","subType":"02"}}"#,
        ),
        (
            "binary data of a subtype of users",
            binary(BinarySubtype::UserDefined(0x90), b"\xff"),
            r#"{"$binary":{"base64":"/w==","subType":"90"}}"#,
        ),
        (
            "a regular expression",
            Bson::RegularExpression(Regex {
                pattern: cstr!("a\"").into(),
                options: cstr!("im").into(),
            }),
            r#"{"$regularExpression":{"pattern":"a\"","options":"im"}}"#,
        ),
        (
            "a timestamp",
            Bson::Timestamp(Timestamp { time: u32::MAX, increment: 1 }),
            r#"{"$timestamp":{"t":4294967295,"i":1}}"#,
        ),
        ("a symbol", Bson::Symbol("s".into()), r#"{"$symbol":"s"}"#),
        ("code", Bson::JavaScriptCode("f()".into()), r#"{"$code":"f()"}"#),
        ("MinKey", Bson::MinKey, r#"{"$minKey":1}"#),
    ];
    let mut cases: Vec<Case> = (1..)
        .zip(values)
        .map(|(n, (name, value, text))| {
            let value = raw(doc! { "_id": n, "v": value });
            let text = format!(r#"{{"_id":{n}.0,"v":{text}}}"#);
            case(format!("printed: {name}"), Equal, What::Printed { value, text })
        })
        .collect();
    let twice = of_bytes(&[int("x", 1), int("x", 2)]);
    cases.push(case(
        "printed: a name that is there twice",
        Equal,
        What::Printed {
            value: of_bytes(&[int("_id", 99), inner("v", &twice)]),
            text: r#"{"_id":99.0,"v":{"$aviaryFields":[["x",1],["x",2]]}}"#.into(),
        },
    ));
    cases
}

fn read() -> Vec<Case> {
    let lines: Vec<(&str, &'static str, &'static str)> = vec![
        (
            "$binary with $type",
            r#"{"v": {"$binary": "AQID", "$type": "05"}}"#,
            r#"{"$binary":{"base64":"AQID","subType":"05"}}"#,
        ),
        (
            "$type as a number",
            r#"{"v": {"$type": 0, "$binary": "AQ=="}}"#,
            r#"{"$binary":{"base64":"AQ==","subType":"00"}}"#,
        ),
        (
            "a date with +0200",
            r#"{"v": {"$date": "2020-01-01T02:00:00.000+0200"}}"#,
            r#"{"$date":"2020-01-01T00:00:00Z"}"#,
        ),
        (
            "a date with -03:30",
            r#"{"v": {"$date": "2020-01-01T00:00:00.5-03:30"}}"#,
            r#"{"$date":"2020-01-01T03:30:00.500Z"}"#,
        ),
        (
            "a date as a number",
            r#"{"v": {"$date": 1577836800000}}"#,
            r#"{"$date":"2020-01-01T00:00:00Z"}"#,
        ),
        (
            "a date of 1960",
            r#"{"v": {"$date": "1960-01-01T00:00:00Z"}}"#,
            r#"{"$date":{"$numberLong":"-315619200000"}}"#,
        ),
        (
            "the end of 9999",
            r#"{"v": {"$date": "9999-12-31T23:59:59.999Z"}}"#,
            r#"{"$date":"9999-12-31T23:59:59.999Z"}"#,
        ),
        (
            "a date of the year 20000",
            r#"{"v": {"$date": {"$numberLong": "568971820800000"}}}"#,
            r#"{"$date":{"$numberLong":"568971820800000"}}"#,
        ),
        ("$numberLong as a number", r#"{"v": {"$numberLong": 7}}"#, "7"),
        (
            "$regex with $options",
            r#"{"v": {"$regex": "^a", "$options": "mi"}}"#,
            r#"{"$regularExpression":{"pattern":"^a","options":"im"}}"#,
        ),
        ("text beyond the plane", r#"{"v": "\ud83d\ude00"}"#, r#""😀""#),
    ];
    lines
        .into_iter()
        .map(|(name, line, text)| case(format!("read: {name}"), Equal, What::Read { line, text }))
        .collect()
}

fn tried() -> Vec<Case> {
    let documents =
        || (0..7).map(|n| raw(doc! { "_id": n, "k": n % 2, "v": n })).collect::<Vec<_>>();
    let of = |name: &str, map: &str, reduce: &str, flags: &[&'static str], words: &'static str| {
        let job = Job { documents: documents(), flags: flags.to_vec(), ..Job::new(map, reduce) };
        case(format!("try: {name}"), Equal, What::Tried { job, words })
    };
    // So many values a key, whose distances grow.
    let few = |name: &str, each: i32, map: &str, reduce: &str, words: &'static str| {
        let documents =
            (0..12).map(|n| raw(doc! { "_id": n, "k": n / each, "v": n * n })).collect::<Vec<_>>();
        let job = Job { documents, ..Job::new(map, reduce) };
        case(format!("try: {name}"), Equal, What::Tried { job, words })
    };
    let numbers = "function () { emit(this.k, this.v + 0.1); }";
    let lists = "function () { emit(this.k, [this.v]); }";
    let objects = "function () { emit(this.k, { n: this.v }); }";
    vec![
        of("a sum", numbers, SUM, &[], ""),
        of("lists", lists, "function (k, values) { return [].concat.apply([], values); }", &[], ""),
        of(
            "an average",
            numbers,
            "function (k, values) { return Array.sum(values) / values.length; }",
            &[],
            "your reduce is not associative: reduced in parts, 1 of 2 results are different",
        ),
        of(
            "a count",
            numbers,
            "function (k, values) { return values.length; }",
            &[],
            "not associative",
        ),
        of(
            "another type than the values'",
            objects,
            "function (k, values) { return values.map(function (v) { return v.n.valueOf(); }).join(); }",
            &[],
            "your reduce fails on its own results",
        ),
        of(
            "an average that gets all values",
            numbers,
            "function (k, values) { return Array.sum(values) / values.length; }",
            &["--no-combine"],
            "",
        ),
        of(
            "an average in finalize",
            "function () { emit(this.k, { s: this.v, n: 1 }); }",
            "function (k, values) { var r = { s: 0, n: 0 }; \
             values.forEach(function (v) { r.s += v.s; r.n += v.n; }); return r; }",
            &["--finalize", "function (k, v) { return v.s / v.n; }"],
            "",
        ),
        of(
            "a combine of another kind than the reduce",
            numbers,
            "function (k, values) { return 'sum ' + Array.sum(values); }",
            &["--combine", SUM],
            "",
        ),
        of(
            "a combine that is not associative",
            numbers,
            SUM,
            &["--combine", "function (k, values) { return Array.sum(values) / values.length; }"],
            "not associative",
        ),
        of(
            "a combine that counts",
            numbers,
            SUM,
            &["--combine", "function (k, values) { return values.length; }"],
            "not associative",
        ),
        few(
            "a count of two values",
            2,
            "function () { emit(this.k, 1); }",
            "function (k, values) { return values.length; }",
            "not associative",
        ),
        few(
            "an average of three values",
            3,
            numbers,
            "function (k, values) { return Array.sum(values) / values.length; }",
            "not associative",
        ),
        few(
            "what two values cannot tell",
            2,
            numbers,
            "function (k, values) { return Array.sum(values) / values.length; }",
            "no key of these documents has more than two values",
        ),
    ]
}
