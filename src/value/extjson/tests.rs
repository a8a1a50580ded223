use bson::raw::cstr;
use bson::{Bson, RawDocumentBuf, doc};

use super::{Form, Of, document, json};
use crate::value::RawVal;
use crate::value::tag;

fn printed(document: &RawDocumentBuf, form: Form) -> String {
    json(RawVal { tag: tag::DOCUMENT, bytes: document.as_bytes() }, form).to_string()
}

fn raw(value: impl Into<Bson>) -> RawDocumentBuf {
    RawDocumentBuf::try_from(&doc! { "v": value.into() }).unwrap()
}

fn read(text: &str) -> RawDocumentBuf {
    document(text, Of::Data).unwrap_or_else(|why| panic!("{text}: {why}"))
}

fn date(millis: i64) -> Bson {
    Bson::DateTime(bson::DateTime::from_millis(millis))
}

/// The examples of the specification, canonical and relaxed.
#[test]
fn values_are_printed_as_the_specification_has_it() {
    let regex = Bson::RegularExpression(bson::Regex {
        pattern: cstr!("a*").into(),
        options: cstr!("ix").into(),
    });
    let binary = |subtype: u8, bytes: &[u8]| {
        Bson::Binary(bson::Binary { subtype: subtype.into(), bytes: bytes.to_vec() })
    };
    for (value, canonical, relaxed) in [
        (Bson::Int32(42), r#"{"$numberInt":"42"}"#, "42"),
        (Bson::Int64(-42), r#"{"$numberLong":"-42"}"#, "-42"),
        (Bson::Double(42.42), r#"{"$numberDouble":"42.42"}"#, "42.42"),
        (Bson::Double(1.0), r#"{"$numberDouble":"1.0"}"#, "1.0"),
        (Bson::Double(-0.0), r#"{"$numberDouble":"-0.0"}"#, "-0.0"),
        (
            Bson::Double(f64::NEG_INFINITY),
            r#"{"$numberDouble":"-Infinity"}"#,
            r#"{"$numberDouble":"-Infinity"}"#,
        ),
        (Bson::Double(f64::NAN), r#"{"$numberDouble":"NaN"}"#, r#"{"$numberDouble":"NaN"}"#),
        (date(0), r#"{"$date":{"$numberLong":"0"}}"#, r#"{"$date":"1970-01-01T00:00:00Z"}"#),
        (
            date(1_356_351_330_501),
            r#"{"$date":{"$numberLong":"1356351330501"}}"#,
            r#"{"$date":"2012-12-24T12:15:30.501Z"}"#,
        ),
        (
            date(1_356_351_330_500),
            r#"{"$date":{"$numberLong":"1356351330500"}}"#,
            r#"{"$date":"2012-12-24T12:15:30.500Z"}"#,
        ),
        (
            date(-284_643_869_501),
            r#"{"$date":{"$numberLong":"-284643869501"}}"#,
            r#"{"$date":{"$numberLong":"-284643869501"}}"#,
        ),
        (
            date(253_402_300_799_999),
            r#"{"$date":{"$numberLong":"253402300799999"}}"#,
            r#"{"$date":"9999-12-31T23:59:59.999Z"}"#,
        ),
        (
            date(253_402_300_800_000),
            r#"{"$date":{"$numberLong":"253402300800000"}}"#,
            r#"{"$date":{"$numberLong":"253402300800000"}}"#,
        ),
        (
            date(i64::MAX),
            r#"{"$date":{"$numberLong":"9223372036854775807"}}"#,
            r#"{"$date":{"$numberLong":"9223372036854775807"}}"#,
        ),
        (
            date(i64::MIN),
            r#"{"$date":{"$numberLong":"-9223372036854775808"}}"#,
            r#"{"$date":{"$numberLong":"-9223372036854775808"}}"#,
        ),
        (
            binary(0, &[255, 255]),
            r#"{"$binary":{"base64":"//8=","subType":"00"}}"#,
            r#"{"$binary":{"base64":"//8=","subType":"00"}}"#,
        ),
        (
            binary(2, b"abc"),
            r#"{"$binary":{"base64":"YWJj","subType":"02"}}"#,
            r#"{"$binary":{"base64":"YWJj","subType":"02"}}"#,
        ),
        (
            binary(0x80, b""),
            r#"{"$binary":{"base64":"","subType":"80"}}"#,
            r#"{"$binary":{"base64":"","subType":"80"}}"#,
        ),
        (
            regex,
            r#"{"$regularExpression":{"pattern":"a*","options":"ix"}}"#,
            r#"{"$regularExpression":{"pattern":"a*","options":"ix"}}"#,
        ),
        (
            Bson::Timestamp(bson::Timestamp { time: u32::MAX, increment: 7 }),
            r#"{"$timestamp":{"t":4294967295,"i":7}}"#,
            r#"{"$timestamp":{"t":4294967295,"i":7}}"#,
        ),
        (Bson::MinKey, r#"{"$minKey":1}"#, r#"{"$minKey":1}"#),
        (Bson::Undefined, r#"{"$undefined":true}"#, r#"{"$undefined":true}"#),
        (Bson::Symbol("s".into()), r#"{"$symbol":"s"}"#, r#"{"$symbol":"s"}"#),
        (Bson::Null, "null", "null"),
        (Bson::String("a\u{0}\"é".into()), r#""a\u0000\"é""#, r#""a\u0000\"é""#),
    ] {
        let document = raw(value);
        for (form, expected) in [(Form::Canonical, canonical), (Form::Relaxed, relaxed)] {
            assert_eq!(printed(&document, form), format!("{{\"v\":{expected}}}"));
        }
        assert_eq!(read(&printed(&document, Form::Canonical)), document);
    }
}

/// What is printed is read back, byte for byte in canonical form.
#[test]
fn documents_that_look_like_extended_json_are_read_back() {
    let code = bson::JavaScriptCodeWithScope { code: "f()".into(), scope: doc! { "$date": 1 } };
    for document in [
        doc! { "$date": "soon" },
        doc! { "v": { "$numberLong": "5" } },
        doc! { "v": { "$oid": "x", "more": [{ "$date": 1 }] } },
        doc! { "$aviaryFields": [["a", 1]] },
        doc! { "v": { "$regex": "a", "$options": "i" } },
        doc! { "v": { "$ref": "c", "$id": 1 }, "w": { "$type": 3, "$gt": 1 } },
        doc! { "v": Bson::JavaScriptCodeWithScope(code) },
    ] {
        let document = RawDocumentBuf::try_from(&document).unwrap();
        for form in [Form::Canonical, Form::Relaxed] {
            let text = printed(&document, form);
            let again = read(&text);
            assert_eq!(printed(&again, form), text);
        }
        assert_eq!(read(&printed(&document, Form::Canonical)), document);
    }
    // A query keeps the look of its operators.
    let query = raw(doc! { "$regex": "a", "$options": "i" });
    assert_eq!(printed(&query, Form::Query), r#"{"v":{"$regex":"a","$options":"i"}}"#);
    assert_eq!(document(&printed(&query, Form::Query), Of::Query).unwrap(), query);
}

#[test]
fn a_name_that_is_there_twice_keeps_both_values() {
    let twice = read(r#"{"a": 1, "b": {"x": 1, "x": 2}, "a": 3}"#);
    let text = printed(&twice, Form::Relaxed);
    assert_eq!(
        text,
        r#"{"$aviaryFields":[["a",1],["b",{"$aviaryFields":[["x",1],["x",2]]}],["a",3]]}"#
    );
    assert_eq!(read(&text), twice);
    let slip = document(r#"{"a": {"$gt": 1}, "a": {"$lt": 5}}"#, Of::Query);
    assert_eq!(slip.unwrap_err(), "the field a is there twice");
}

#[test]
fn what_older_tools_wrote_is_read() {
    for (text, value) in [
        (
            r#"{"v": {"$binary": "AQID", "$type": "05"}}"#,
            Bson::Binary(bson::Binary { subtype: 5.into(), bytes: vec![1, 2, 3] }),
        ),
        (
            r#"{"v": {"$type": 2, "$binary": "AQ=="}}"#,
            Bson::Binary(bson::Binary { subtype: 2.into(), bytes: vec![1] }),
        ),
        (r#"{"v": {"$date": "2020-01-01T02:00:00.000+0200"}}"#, date(1_577_836_800_000)),
        (r#"{"v": {"$date": "2020-01-01T00:00:00.123-03:30"}}"#, date(1_577_849_400_123)),
        (r#"{"v": {"$date": 1577836800000}}"#, date(1_577_836_800_000)),
        (r#"{"v": {"$date": {"$numberLong": "-1"}}}"#, date(-1)),
        (r#"{"v": {"$date": "1969-12-31T23:59:59.999Z"}}"#, date(-1)),
        (r#"{"v": {"$numberLong": 7}}"#, Bson::Int64(7)),
        (
            r#"{"v": {"$regex": "^a", "$options": "mi"}}"#,
            Bson::RegularExpression(bson::Regex {
                pattern: cstr!("^a").into(),
                options: cstr!("im").into(),
            }),
        ),
        (r#"{"v": 9223372036854775808}"#, Bson::Double(9_223_372_036_854_775_808.0)),
        (r#"{"v": "\ud83d\ude00\u00e9"}"#, Bson::String("😀é".into())),
    ] {
        assert_eq!(read(text), raw(value), "{text}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    let deep = format!("{}1{}", "{\"a\":".repeat(201), "}".repeat(201));
    for (text, words) in [
        (r#"{"n": }"#, "a value was expected, found '}' at character 7"),
        ("{v: 1}", "a name in double quotes was expected, found 'v' at character 2"),
        ("[1]", "must be an object"),
        (r#"{"v": {"$date": "soon"}}"#, r#"v: "soon" is no date"#),
        (r#"{"v": {"$in": [1, {"$date": "soon"}]}}"#, r#"v.$in.1: "soon" is no date"#),
        (r#"{"v": {"$oid": "x"}}"#, "24 hexadecimal digits"),
        (r#"{"v": {"$numberInt": "2147483648"}}"#, "no 32-bit integer"),
        (r#"{"v": {"$date": 1, "x": 2}}"#, "$aviaryFields"),
        (r#"{"$oid": "5f0000000000000000000000"}"#, "a document was expected"),
        (r#"{"v": "\ud800"}"#, "half of a pair"),
        (r#"{"v": 01}"#, "01 is no number"),
        (r#"{"v": 1e999}"#, "beyond what a double holds"),
        (r#"{"v": 1} 2"#, "nothing more was expected"),
        (r#"{"v": {"$binary": "A", "$type": "00"}}"#, "base64"),
        (&deep, "deeper than 200 levels"),
    ] {
        let why = document(text, Of::Data).unwrap_err();
        assert!(why.contains(words), "{text}: {words:?} is missing in {why}");
    }
}
