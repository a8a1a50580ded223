//! How functions are written, what the shell gives them, and how they fail.
//!
//! No reduce here calls emit: servers of version 6.0 crash some time after one did.

use bson::{Bson, Document, JavaScriptCodeWithScope, doc};

use super::{BY_K, FIRST, SUM};
use crate::case::{Case, case};

pub fn all() -> Vec<Case> {
    let mut cases = vec![
        case("functions as strings", "small", "", "")
            .with("map", BY_K)
            .with("reduce", SUM)
            .with("finalize", "function (key, value) { return -value; }"),
        case("a named function", "small", "function mapper() { emit(this.k, 1); }", SUM),
        case("a comment before", "small", "// by key\nfunction () { emit(this.k, 1); }", SUM),
        case(
            "a block comment before",
            "small",
            "/* by\nkey */ function () { emit(this.k, 1); }",
            SUM,
        ),
        case("a semicolon behind", "small", "function () { emit(this.k, 1); };", SUM),
        case(
            "comments inside",
            "small",
            "function () { // it's \"one\"\n emit(this.k, /* } */ 1); }",
            SUM,
        ),
        case("a comment behind", "small", "function () { emit(this.k, 1); } // by key", SUM)
            .differs("the server takes this for a syntax error")
            .gives(by_k(4)),
        case("an arrow function", "small", "() => { emit(1, 1); }", SUM)
            .differs("the server takes this for an expression, and never calls the function")
            .gives([doc! { "_id": 1.0, "value": 20.0 }]),
        case("a bare body", "small", "emit(this.k, this.v)", SUM),
        case(
            "a bare body of statements",
            "small",
            "var n = this.v * 2;\nif (n > 4) { emit(this.k, n); }",
            SUM,
        ),
        case("bare bodies all over", "small", "emit(this.k, 1)", "return Array.sum(arguments[1])")
            .finalize("return arguments[1] + 1"),
        case(
            "a bare body with a function inside",
            "small",
            "this.tags.forEach(function (tag) { emit(tag, 1); })",
            SUM,
        ),
        case(
            "a bare expression",
            "small",
            "function () { emit(this._id, 1); }",
            "arguments[1].length",
        ),
        case("a strict function", "small", "function () { 'use strict'; emit(this.k, 1); }", SUM),
        case(
            "functions inside",
            "small",
            "function () { function twice(n) { return 2 * n; } var k = this.k; \
             [1, 2].map(twice).forEach(function (n) { emit(k, n); }); }",
            SUM,
        ),
        case(
            "a closure and a recursion",
            "small",
            "function () { var fib = function f(n) { return n < 2 ? n : f(n - 1) + f(n - 2); }; \
             emit(this.k, fib(this._id % 12)); }",
            SUM,
        ),
        case(
            "an exception that is caught",
            "small",
            "function () { try { null.x; } catch (e) { emit(e instanceof TypeError, 1); } }",
            SUM,
        ),
        case(
            "printing",
            "small",
            "function () { print('a', 1); printjson(this); emit(1, 1); }",
            SUM,
        ),
        case(
            "newer syntax",
            "small",
            "function () { const {k, ...rest} = this; let n = rest.v || 0; emit(`${k}-`, n ** 2); }",
            SUM,
        ),
        case("nullish", "small", "function () { emit(this.k ?? 'none', this.a?.b ?? 0); }", SUM)
            .since(6, 0),
        case(
            "state in this of reduce",
            "small",
            BY_K,
            "function (key, values) { this.n = (this.n || 0) + 1; return this.n; }",
        ),
        case("state in this of finalize", "small", BY_K, SUM)
            .finalize("function (key, value) { this.n = (this.n || 0) + 1; return [this.n, typeof this, Object.keys(this)]; }"),
        case("arguments of map", "small", "function () { emit(this._id, arguments.length); }", FIRST),
        case("emit with one argument", "small", "function () { emit(this.k); }", SUM)
            .fails("2 arguments"),
        case("emit with three arguments", "small", "function () { emit(this.k, 1, 2); }", SUM)
            .fails("2 arguments"),
        case("emit without arguments", "small", "function () { emit(); }", SUM)
            .fails("2 arguments"),
        case("map throws", "small", "function () { throw new Error('boom ' + this._id); }", SUM)
            .fails("boom 0"),
        case("map throws text", "small", "function () { throw 'boom'; }", SUM).fails("boom"),
        case("reduce throws", "small", BY_K, "function () { throw new Error('boom'); }")
            .fails("boom"),
        case("finalize throws", "small", BY_K, SUM)
            .finalize("function () { throw new Error('boom'); }")
            .fails("boom"),
        case("an unknown variable", "small", "function () { emit(this.k, nowhere.x); }", SUM)
            .fails("nowhere"),
        case("a syntax error in map", "small", "function () { emit(this.k, ; }", SUM)
            .fails("SyntaxError"),
        case("a syntax error in reduce", "small", BY_K, "function (key, values { }")
            .fails("SyntaxError"),
        case("a function that never ends", "small", "function () { while (true) {} }", SUM)
            .with("maxTimeMS", 300)
            .flags(&["--record-timeout", "300ms"])
            .fails("ran out of time"),
        case("a reduce that never ends", "small", BY_K, "function () { while (true) {} }")
            .with("maxTimeMS", 300)
            .flags(&["--record-timeout", "300ms"])
            .fails("ran out of time"),
        case("a finalize that never ends", "small", BY_K, SUM)
            .finalize("function () { for (;;); }")
            .with("maxTimeMS", 300)
            .flags(&["--record-timeout", "300ms"])
            .fails("ran out of time"),
        case("endless recursion", "small", "function () { (function f() { f(); })(); }", SUM)
            .fails("RangeError"),
        case(
            "a value that is too large",
            "small",
            "function () { emit(1, new Array(17 * 1024 * 1024).join('x')); }",
            SUM,
        )
        .fails("exceeds the limit"),
        case(
            "a result that is too large",
            "small",
            "function () { emit(this._id, 1); }",
            "function () { return new Array(17 * 1024 * 1024).join('x'); }",
        )
        .fails("exceeds the limit"),
        case(
            "a value that holds itself",
            "small",
            "function () { var a = {}; a.a = a; emit(1, a); }",
            SUM,
        )
        .fails("deep"),
        case("a value that BSON has not", "small", "function () { emit(1, Symbol('x')); }", SUM)
            .fails("cannot be written"),
        case("a map that is no function", "small", "", SUM).with("map", 7).fails("is no function"),
    ];
    for (name, input, value) in SHELL
        .map(|(name, value)| (name, "small", value))
        .into_iter()
        .chain(REFERENCES.map(|(name, value)| (name, "references", value)))
    {
        cases.push(case(
            name,
            input,
            &format!("function () {{ emit(this._id, {value}); }}"),
            FIRST,
        ));
    }
    for (name, value, words) in REFUSED {
        let map = format!("function () {{ emit(this._id, {value}); }}");
        cases.push(case(name, "small", &map, FIRST).fails(words));
    }
    cases.push(
        case("Code with a scope", "small",
            "function () { emit(this._id, Code('x = 1', {x: 'here'})); }", FIRST)
            .differs("code stays what it is, with its scope; the server writes the function that it has made of it")
            .gives((0..20).map(|n| {
                let scope = doc! { "x": "here" };
                let code = JavaScriptCodeWithScope { code: "x = 1".into(), scope };
                doc! { "_id": f64::from(n), "value": code }
            })),
    );
    cases.push(
        case("code with a scope", "small", "", SUM)
            .with(
                "map",
                Bson::JavaScriptCodeWithScope(bson::JavaScriptCodeWithScope {
                    code: "function () { emit(this.k, factor); }".into(),
                    scope: bson::doc! { "factor": 3 },
                }),
            )
            .differs("servers of today refuse code with a scope, which older ones took")
            .gives(by_k(12)),
    );
    cases
}

/// The same sum for each of the five keys.
fn by_k(sum: i32) -> impl Iterator<Item = Document> {
    (0..5).map(move |n| doc! { "_id": format!("k{n}"), "value": f64::from(sum) })
}

/// What the shell gives functions: a name and an expression for each.
const SHELL: [(&str, &str); 23] = [
    (
        "tojson",
        "[this.nested, [1, [2]], [], {}, {a: []}, null, undefined, true, NaN, 'q\"\\n', 1.5, \
        this.oid, this.date, this.uuid, this.bin, this.ts, NumberLong(5), NumberInt(4), \
        NumberLong('5000000000'), NumberDecimal('1.5'), MinKey, MaxKey, /x/i, DBRef('a', 1), Code('x'), \
        function () { return 1; }].map(function (x) { return tojson(x); })",
    ),
    (
        "tojson of what is long",
        "tojson({a: this.nested, text: new Array(90).join('x'), none: {}, list: [1, {b: 2}]})",
    ),
    (
        "tojsononeline",
        "[this.nested, [1, {a: [2, {}]}], {}, {a: {b: 1}}].map(function (x) { return tojsononeline(x); })",
    ),
    (
        "Array.sum and its kin",
        "[Array.sum([1, 2.5]), Array.sum([]), Array.sum(['a', 'b']), Array.avg([1, 2, 6]), \
        Array.stdDev([1, 2, 6]), Array.contains([1, 'a'], 'a'), Array.contains([], 1)]",
    ),
    ("Array.unique", "Array.unique([1, 2, 1, 'a', 'a', {a: 1}, {a: 1}, null, null])"),
    (
        "Object.keySet, extend, merge",
        "[Object.keySet(this.nested), Object.extend({a: 1}, {b: {c: 1}}), \
        Object.extend({a: {x: 1}}, {a: {y: 1}}, true), Object.merge({a: 1, b: 2}, {b: 3})]",
    ),
    (
        "Object.bsonsize",
        "[Object.bsonsize({}), Object.bsonsize({a: 1}), Object.bsonsize(this.nested)]",
    ),
    ("hex_md5", "[hex_md5(''), hex_md5('abc'), hex_md5('ä🦜'), hex_md5(new Array(200).join('x'))]"),
    (
        "isNumber, isString, isObject",
        "[1, NaN, '1', NumberInt(1), NumberLong(1), null, {}, [], new Date(0)] \
        .map(function (x) { return [isNumber(x), isString(x), isObject(x)]; })",
    ),
    (
        "numbers in expressions",
        "[NumberLong(3) + 1, NumberInt(3) * 2, this.long - 1, NumberLong(3) == 3, \
        NumberLong(7).toNumber(), String(NumberLong(3)), NumberLong(5).compare(NumberLong(9)), typeof this.v]",
    ),
    (
        "ObjectId",
        "[this.oid.str, '' + this.oid, this.oid.toString(), this.oid.getTimestamp(), \
        this.oid.equals(ObjectId(this.oid.str)), this.oid.valueOf()]",
    ),
    (
        "ISODate and Date",
        "[ISODate('2020-02-29T12:00:00+01:30'), this.date.getFullYear(), this.date.getDate(), \
        this.date.getTimezoneOffset(), this.date.toISOString(), this.date.getHours(), \
        new Date(2020, 1, 29).getTime(), this.date - new Date(0), tojson(new Date(1500000000000))]",
    ),
    (
        "BinData and UUID",
        "[this.bin.hex(), this.bin.base64(), this.bin.subtype(), this.bin.length(), \
        this.uuid.hex(), '' + this.bin]",
    ),
    ("Timestamp", "[this.ts.t, this.ts.i, '' + this.ts, tojson(Timestamp(3, 4))]"),
    (
        "NumberDecimal",
        "['' + this.dec, NumberDecimal('1.10').toString(), tojson(NumberDecimal('1E+3'))]",
    ),
    (
        "bsonWoCompare",
        "[bsonWoCompare({a: 1}, {a: 2}), bsonWoCompare({a: 2}, {a: 1}), bsonWoCompare({a: 1}, {a: 1}), \
        bsonWoCompare({a: NumberLong(1)}, {a: 1})]",
    ),
    (
        "JSON and regular expressions",
        "[JSON.stringify({a: [1, 'x', null]}), JSON.parse('{\"a\":2}'), \
        /a(.)c/.exec('xabcx')[1], 'a-b-c'.split('-'), 'abc'.replace(/b/g, 'X'), parseInt('42px', 10)]",
    ),
    (
        "padding",
        "['  a b '.ltrim(), '  a '.rtrim(), 'ab'.pad(5), 'ab'.pad(5, true), 'ab'.pad(5, false, '-'), \
        'ab'.pad(5, true, 'xy'), '' + 'ab'.pad(1), (5).zeroPad(3), '' + (1234).zeroPad(3), (-5).zeroPad(4), \
        (1.5).zeroPad(5), (0.1234).toPercentStr(), (2).toPercentStr()]",
    ),
    (
        "tojson of dates",
        "[this.date.tojson(), new Date(0).tojson(), new Date(-1).tojson(), new Date(NaN).tojson(), \
        new Date(-1e15).tojson(), new Date(253402300800000).tojson(), tojson(new Date(NaN)), \
        tojson(new Date(-62198755200000)), tojson({d: new Date(5)})]",
    ),
    (
        "regular expressions as text",
        "[RegExp.escape('a.b*c-d e'), /a/i.tojson(), /a/g.toJSON(), JSON.stringify({r: /a\\/b/im}), tojson(/x/)]",
    ),
    (
        "ObjectId of a date",
        "[ObjectId.fromDate(new Date(1600000000000)), ObjectId.fromDate(this.date), ObjectId.fromDate(new Date(0)), \
        this.oid.isObjectId, ObjectId.isObjectId]",
    ),
    (
        "JSON of types",
        "[this.bin, this.uuid, this.ts, this.long, this.dec, this.oid, this.date, this.re, this.low, this.high, \
        MinKey, NumberInt(5), Code('x'), Code('x', {a: 1}), DBPointer('a', this.oid), DBRef('a', this.oid)] \
        .map(function (x) { return JSON.stringify(x); })",
    ),
    (
        "Code and its scope",
        "[Code('x', {a: 1}).code, Code('x', {a: {b: 2}}).scope, Code('x').scope, Code('x', {}) instanceof Code, \
        tojson(Code('x', {a: 1, b: 'y'}))]",
    ),
];

/// References and their kin, of the collection that has them.
const REFERENCES: [(&str, &str); 7] = [
    (
        "the parts of a reference",
        "[this.ref, this.far, this.more, this.list[0]].map(function (r) { return [r.getId(), r.getCollection(), \
        r.getRef(), r.getDb(), r.$id, r.$ref, r.$db]; })",
    ),
    (
        "references as text",
        "[this.ref, this.far, this.more, this.list[0], this.turned, this.half, this.number].map(function (r) { \
        return [tojson(r), tojson({a: [r]}), tojsononeline(r), JSON.stringify(r), Object.keys(r)]; }) \
        .concat('' + this.ref, this.far.toString())",
    ),
    (
        "what is a reference",
        "[this.ref, this.far, this.more, this.list[0], this.turned, this.half, this.number] \
        .map(function (r) { return [r instanceof DBRef, r instanceof Object, typeof r.getId, typeof r.fetch]; })",
    ),
    (
        "references that pass through",
        "[this.ref, this.far, this.more, this.list, this.turned, this.half, this.number, this.pointer]",
    ),
    (
        "references that are made",
        "[DBRef('a', 1), new DBRef('a', 1, 'b'), DBRef('a', this.oid), DBRef('a', null)].map(function (r) { \
        return [r, r.getId(), r.getCollection(), r.getRef(), r.getDb(), '' + r, tojson([r]), JSON.stringify(r), \
        r instanceof DBRef, Object.keys(r)]; })",
    ),
    (
        "references that are changed",
        "(function () { var r = DBRef('a', 1); r.$id = 7; r.x = 1; return [r, r.getId(), tojson(r)]; })()",
    ),
    (
        "DBPointer, Timestamp and NumberLong",
        "[this.pointer, DBPointer('a.b', this.oid)].map(function (p) { return [p.ns, p.id, p.getCollection(), \
        p.getId(), '' + p, tojson(p), JSON.stringify(p), p instanceof DBPointer]; }) \
        .concat(this.ts.getTime(), this.ts.getInc(), this.ts.toStringIncomparable(), this.n.exactValueString)",
    ),
];

/// What these refuse: a name, an expression, and words of Aviary's error.
const REFUSED: [(&str, &str, &str); 8] = [
    ("DBRef without an id", "DBRef('a')", "DBRef takes"),
    ("DBRef of a number", "DBRef(5, 1)", "DBRef takes"),
    ("DBRef in a database that is none", "DBRef('a', 1, 5)", "DBRef takes"),
    ("fetching a reference", "DBRef('a', 1).fetch()", "cannot read from the database"),
    ("Code with a scope that is none", "Code('x', 5)", "the scope of a Code"),
    ("ObjectId of text for a date", "ObjectId.fromDate('2020')", "made from a Date"),
    ("Array.sum of what is no array", "Array.sum(5)", "must be an array"),
    ("Array.contains of what is no array", "Array.contains('abc', 'a')", "must be an array"),
];
