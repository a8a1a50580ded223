//! Keys of every BSON type.

use bson::{Bson, JavaScriptCodeWithScope, doc};

use super::SUM;
use crate::case::{Case, Out, case};

const ONE: &str = "function () { emit(this.k, 1); }";
/// Untouched, with the type it has in the document.
const INSIDE: &str = "function () { var k = {}; k.of = this; emit({k: this.k}, 1); }";

pub fn all() -> Vec<Case> {
    let cannot_be_id = "a result of Aviary is a document whose _id is the key, inline results too, and \
                        MongoDB takes no _id of this type";
    vec![
        case("integer keys", "keys-int", ONE, SUM),
        case("long keys", "keys-long", ONE, SUM),
        case("double keys", "keys-double", ONE, SUM),
        case("decimal keys", "keys-decimal", ONE, SUM),
        case("equal numbers of several types", "keys-numbers", ONE, SUM),
        case("longs and doubles that are equal", "keys-longs-and-doubles", ONE, SUM),
        case("zeros", "keys-zeros", ONE, SUM),
        case("NaN keys", "keys-nan", ONE, SUM),
        case("null, missing and undefined keys", "keys-nothing", ONE, SUM),
        case("boolean keys", "keys-bool", ONE, SUM),
        case("text keys", "keys-text", ONE, SUM),
        case("text keys with zero bytes", "keys-zero-bytes", ONE, SUM),
        case("date keys", "keys-date", ONE, SUM),
        case("ObjectId keys", "keys-oid", ONE, SUM),
        case("document keys and their order", "keys-document", ONE, SUM),
        case("document keys of equal numbers", "keys-documents-of-numbers", ONE, SUM),
        case(
            "document keys that are made",
            "small",
            "function () { emit({g: this.g, even: this.v % 2 == 0}, 1); }",
            SUM,
        ),
        case("keys inside a document", "keys-int", INSIDE, SUM),
        case("binary keys", "keys-binary", ONE, SUM),
        case("timestamp keys", "keys-timestamp", ONE, SUM),
        case("MinKey and MaxKey", "keys-ends", ONE, SUM),
        case("code keys", "keys-code", ONE, SUM).differs(
            "code stays what it is; the server compiles it and writes the function it has made of it")
            .gives([doc! { "_id": Bson::JavaScriptCode("x".into()), "value": 2.0 }]),
        case("DBPointer keys", "keys-pointer", ONE, SUM),
        case("keys of code with a scope", "keys-code-with-scope", ONE, SUM).differs(
            "code stays what it is, with its scope; the server writes the function that it has made of it")
            .gives([doc! { "_id": code_with_scope(), "value": 2.0 }]),
        case("reference keys", "keys-reference", ONE, SUM),
        case("symbol keys", "keys-symbol", ONE, SUM)
            .differs("the first of equal keys stands for them as it is; the server makes text of a symbol")
            .gives([doc! { "_id": Bson::Symbol("s".into()), "value": 2.0 }]),
        case(
            "keys that are made",
            "one",
            "function () { [NumberLong(7), NumberInt(8), NumberDecimal('9.5'), new Date(5), MinKey, \
             UUID('00112233-4455-6677-8899-aabbccddeeff'), {}, DBRef('a', 1), function () {}] \
             .forEach(function (key) { emit(key, 1); }); }",
            SUM,
        ),
        case("array keys", "keys-array", ONE, SUM)
            .differs(cannot_be_id)
            .refuses("is of type array, which cannot be an _id"),
        case("regular expressions as keys", "keys-regex", ONE, SUM)
            .differs(cannot_be_id)
            .refuses("is of type regex, which cannot be an _id"),
        case(
            "keys with a dollar into a collection",
            "small",
            "function () { emit({$a: 1}, 1); }",
            SUM,
        )
        .out(Out::Into("merge"))
        .fails("begins with $"),
        case(
            "references as keys into a collection",
            "small",
            "function () { emit(DBRef('a', this.g), 1); emit(DBRef('a', this.g, 'b'), 1); }",
            SUM,
        )
        .out(Out::Into("merge")),
        case(
            "keys with a dot into a collection",
            "small",
            "function () { emit({'a.b': 1}, 1); }",
            SUM,
        )
        .out(Out::Into("merge")),
    ]
}

fn code_with_scope() -> JavaScriptCodeWithScope {
    JavaScriptCodeWithScope { code: "x".into(), scope: doc! { "a": 1 } }
}
