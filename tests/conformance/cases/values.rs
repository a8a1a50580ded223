//! What functions compute, and what becomes of values of each type.

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, doc};

use super::{BY_K, FIRST, SUM};
use crate::case::{Case, case};

pub fn all() -> Vec<Case> {
    let mut cases = vec![
        case("sum by key", "small", BY_K, SUM),
        case("ten thousand keys", "many", "function () { emit(this.k, this.v); }", SUM),
        case("a thousand values of a key", "one", BY_K, SUM),
        case(
            "several emits a document",
            "small",
            "function () { for (var i = 0; i < this.tags.length; i++) emit(this.tags[i], 1); }",
            SUM,
        ),
        case("nothing is emitted", "small", "function () { if (this.v > 99) emit(1, 1); }", SUM),
        case(
            "averages",
            "small",
            "function () { emit(this.k, {n: 1, sum: this.v, squares: this.v * this.v}); }",
            "function (key, values) {
               var all = {n: 0, sum: 0, squares: 0};
               values.forEach(function (value) {
                 all.n += value.n; all.sum += value.sum; all.squares += value.squares;
               });
               return all;
             }",
        )
        .finalize(
            "function (key, all) {
               all.mean = all.sum / all.n;
               all.deviation = Math.sqrt(all.squares / all.n - all.mean * all.mean);
               return all;
             }",
        ),
        case(
            "large values are reduced again and again",
            "large",
            "function () { emit(this.k, {n: 1, longest: this.text}); }",
            "function (key, values) {
               var all = {n: 0, longest: ''};
               values.forEach(function (value) {
                 all.n += value.n;
                 if (value.longest > all.longest) all.longest = value.longest;
               });
               return all;
             }",
        ),
        case(
            "a value of one emit is reduced",
            "small",
            "function () { emit(this._id, this.v); }",
            "function (key, values) { return 'reduced ' + values.length; }",
        ),
        case(
            "the manual: customer totals",
            "orders",
            "function () { emit(this.cust_id, this.price); }",
            "function (keyCustId, valuesPrices) { return Array.sum(valuesPrices); }",
        ),
        case(
            "a reduce without result",
            "small",
            "function () { emit(this.k, 1); }",
            "function (key, values) {}",
        ),
        case("a null result", "small", BY_K, "function (key, values) { return null; }"),
        case("an array as result", "small", BY_K, "function (key, values) { return [key, 1]; }"),
        case("a finalize without result", "small", BY_K, SUM).finalize("function (key, value) {}"),
        case("finalize changes the type", "small", BY_K, SUM)
            .finalize("function (key, value) { return key + ': ' + value.toFixed(2); }"),
        case("finalize is given an undefined value", "small", BY_K, "function (key, values) {}")
            .finalize("function (key, value) { return typeof value; }"),
        case(
            "null key and null value",
            "small",
            "function () { emit(null, null); }",
            "function (key, values) { return [key, values[0]]; }",
        ).with("limit", 1),
        case(
            "undefined key and undefined value",
            "small",
            "function () { emit(undefined, undefined); }",
            "function (key, values) { return [typeof key, typeof values[0]]; }",
        ).with("limit", 1),
        case(
            "map changes the document",
            "small",
            "function () { this.v = 7; this.more = [this.g]; delete this.k; emit(this._id, this); }",
            FIRST,
        ),
        case(
            "map changes what is nested",
            "small",
            "function () { this.nested.a.deep.push('new'); this.nested.c = 1; emit(this._id, this.nested); }",
            FIRST,
        ).differs("an integer of an array stays one while only other elements are changed")
        .gives((0..20).map(|n| doc! {
            "_id": f64::from(n),
            "value": { "b": n, "a": { "deep": [n, { "x": n }, "new"] }, "c": 1.0 },
        })),
        case(
            "reduce changes the values",
            "small",
            "function () { emit(this._id, [this.v]); }",
            "function (key, values) { values[0].push('x'); values.push(1); return values[0]; }",
        ),
        case(
            "finalize changes the value",
            "small",
            "function () { emit(this._id, {v: this.v}); }",
            FIRST,
        )
        .finalize("function (key, value) { value.more = true; delete value.v; return value; }"),
        case(
            "the order of fields",
            "small",
            "function () { emit(this._id, {z: 1, a: 2, m: {y: 1, b: 2}}); }",
            FIRST,
        ),
    ];
    for (name, value) in [
        ("the whole document", "this"),
        ("an untouched document", "this.nested"),
        ("an integer of a document", "this.v"),
        ("a long of a document", "this.long"),
        ("a decimal of a document", "this.dec"),
        ("a date", "this.date"),
        ("an array", "this.tags"),
        ("an ObjectId", "this.oid"),
        (
            "bytes",
            "[this.bin, this.uuid, BinData(0, 'AQID'), UUID('00112233-4455-6677-8899-aabbccddeeff'), HexData(128, 'ff00')]",
        ),
        ("regular expressions", "[this.re, /x\\/y/g, /z/im, new RegExp('q')]"),
        ("timestamps", "[this.ts, Timestamp(1, 2), new Timestamp()]"),
        ("a boolean and nothing", "[this.yes, this.nothing, this.missing]"),
        ("the ends", "[this.low, this.high, MinKey, MaxKey]"),
        ("code", "[this.code, function (a) { return a; }]"),
        ("integers that are made", "[NumberInt(3), new NumberInt(-3), NumberInt('7')]"),
        (
            "longs that are made",
            "[NumberLong(3), NumberLong('9223372036854775807'), NumberLong(-1)]",
        ),
        (
            "decimals that are made",
            "[NumberDecimal('1.50'), NumberDecimal(3), NumberDecimal('-1E-7'), NumberDecimal('Infinity')]",
        ),
        ("doubles that are made", "[1, 1.5, -0, 1e300, Infinity, -Infinity, NaN, 0.1 + 0.2]"),
        (
            "dates that are made",
            "[new Date(0), ISODate('2020-01-02T03:04:05.678Z'), new Date(2020, 0, 31, 5), ISODate('2020-01-02')]",
        ),
        ("references", "[DBRef('people', 1), DBRef('people', this.oid, 'other')]"),
        ("objects of the language", "[new Error('x'), Object.create(null)]"),
        ("undefined inside", "{a: undefined, b: [undefined, null], c: void 0}"),
        ("holes", "[1, , 3]"),
        ("text of every plane", "['', 'ä', '🦜', 'a\\u0000b', '\\u2028']"),
        ("deep nesting", "(function f(n) { return n ? {f: f(n - 1)} : 1; })(100)"),
    ] {
        cases.push(case(
            name,
            "small",
            &format!("function () {{ emit(this._id, {value}); }}"),
            FIRST,
        ));
    }
    cases.push(
        case("objects that hold a value", "small",
            "function () { emit(this._id, [new Number(3), new Boolean(true), new Uint8Array([1, 2])]); }",
            FIRST)
            .differs("they are written as what they hold, and not as empty objects or objects of digits")
            .gives((0..20).map(|n| doc! {
                "_id": f64::from(n),
                "value": [3.0, true, Binary { subtype: BinarySubtype::Generic, bytes: vec![1, 2] }],
            })),
    );
    let each = |value: fn(i32) -> Bson| {
        (0..20).map(move |n| doc! { "_id": f64::from(n), "value": value(n) })
    };
    cases.push(
        case(
            "the type of code in a document",
            "small",
            "function () { emit(this._id, typeof this.code); }",
            FIRST,
        )
        .differs("code in a document is a value")
        .gives(each(|_| "object".into())),
    );
    cases.push(
        case(
            "code in a document is called",
            "small",
            "function () { emit(this._id, this.code()); }",
            FIRST,
        )
        .differs("data are not run")
        .refuses("this.code is not a function"),
    );
    cases.push(
        case(
            "the type of a symbol",
            "keys-symbol",
            "function () { emit(this._id, typeof this.k); }",
            FIRST,
        )
        .differs("a symbol in a document is a value")
        .gives([doc! { "_id": 0.0, "value": "object" }, doc! { "_id": 1.0, "value": "string" }]),
    );
    cases.push(
        case(
            "a sigma at the end",
            "small",
            "function () { emit(this._id, '\u{391}\u{3a3}'.toLowerCase()); }",
            FIRST,
        )
        .differs("Unicode has a letter of its own for the last sigma")
        .gives(each(|_| "\u{3b1}\u{3c2}".into())),
    );
    cases.push(
        case(
            "a frozen document",
            "small",
            "function () { Object.freeze(this).g = 'new'; emit(this._id, this.g); }",
            FIRST,
        )
        .differs("to write to a frozen document does nothing, as with every other object")
        .gives(each(|n| Bson::Double(f64::from(n % 3)))),
    );
    cases.push(
        case("code that is text", "small", "function () { emit(this._id, Code('x = 1')); }", FIRST)
            .differs("code stays what it is; the server compiles it and writes the function it has made of it")
            .gives((0..20).map(|n| doc! { "_id": f64::from(n), "value": Bson::JavaScriptCode("x = 1".into()) })),
    );
    cases
}
