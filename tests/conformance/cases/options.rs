//! Fields of the command.

use bson::{Bson, DateTime, Document, doc, oid::ObjectId};

use super::{BY_K, FIRST, SUM};
use crate::case::{Case, Out, case};
use crate::data::regex;

fn code(text: &str) -> Bson {
    Bson::JavaScriptCode(text.into())
}

pub fn all() -> Vec<Case> {
    let insensitive = doc! { "locale": "en", "strength": 2 };
    vec![
        case("query", "small", BY_K, SUM).with("query", doc! { "v": { "$gte": 7 }, "g": 1 }),
        case("query by date and $in", "small", BY_K, SUM).with("query", doc! {
            "date": { "$lt": DateTime::from_millis(1_600_500_000_000) },
            "k": { "$in": ["k1", "k2"] },
        }),
        case("query by a regular expression", "small", BY_K, SUM).with("query", doc! {
            "name": regex("^A", ""),
        }),
        case("query that matches nothing", "small", BY_K, SUM).with("query", doc! { "v": 1_000 }),
        case("sort and limit", "small", BY_K, SUM).with("sort", doc! { "v": -1 }).with("limit", 7),
        case("sort by two fields and limit", "small", BY_K, SUM)
            .with("sort", doc! { "g": 1, "v": -1 })
            .with("limit", 9.0),
        case("a limit with a fraction", "small", BY_K, SUM)
            .with("sort", doc! { "v": 1 })
            .with("limit", 2.5),
        case("a limit below one", "small", BY_K, SUM).with("limit", 0.5).fails("limit"),
        case("a limit that is text", "small", BY_K, SUM).with("limit", "2").fails("its limit"),
        case("verbose and jsMode that are numbers", "small", BY_K, SUM)
            .with("verbose", 1)
            .with("jsMode", 1)
            .differs("servers since 4.4 want booleans; older ones took numbers")
            .gives((0..5).map(|n| doc! { "_id": format!("k{n}"), "value": f64::from(30 + 4 * n) })),
        case("a capped input", "capped", BY_K, SUM)
            .differs("a capped collection cannot be read at one cluster time")
            .refuses("submit the job with --read committed"),
        case("a capped input, as committed", "capped", BY_K, SUM).flags(&["--read", "committed"]),
        case("merge into a capped collection", "small", BY_K, SUM)
            .with("out", doc! { "merge": "capped-target" })
            .fails("is a capped collection"),
        case("inline keys whose fields begin with $", "small", "function () { emit({$a: this.g}, 1); }", SUM)
            .differs("inline results are stored first, and such an _id cannot be")
            .refuses("$a"),
        case("inline keys whose fields have dots", "small", "function () { emit({'a.b': this.g}, 1); }", SUM),
        case("limit 0", "small", BY_K, SUM).with("limit", 0).fails("limit"),
        case("a negative limit", "small", BY_K, SUM).with("limit", -1).fails("limit"),
        case("sort alone", "small", BY_K, SUM).with("sort", doc! { "v": -1 }),
        case("scope", "small", "function () { emit(this.k, this.v * rate + list[1] + o.p.q); }", SUM)
            .with("scope", doc! { "rate": 2, "list": [1, 2.5], "o": { "p": { "q": 5_i64 } } }),
        case("scope of other types", "small", "function () { emit(this._id, [at, id, re, none, text]); }", FIRST)
            .with("scope", doc! {
                "at": DateTime::from_millis(5), "id": ObjectId::from_bytes([3; 12]), "none": Bson::Null,
                "re": regex("x", "i"),
                "text": "ä",
            }),
        case("scope with a function", "small", "function () { emit(this.k, twice(this.v)); }", SUM)
            .with("scope", doc! {
                "twice": Bson::JavaScriptCode("function (n) { return 2 * n; }".into()),
            }),
        case("scope with functions in an object", "small",
            "function () { emit(this._id, [utils.twice(this.v), utils.deep.next(this.v), utils.rate, \
             typeof utils.deep, utils.all()]); }", FIRST)
            .with("scope", doc! { "utils": {
                "twice": code("function (n) { return 2 * n; }"),
                "deep": { "next": code("function next(n) { return n + 1; }") },
                "rate": 2.5,
                "all": code("function () { return this.rate + Object.keys(this).join(); }"),
            } }),
        case("scope with functions in an array", "small",
            "function () { emit(this._id, [steps[0](this.v), steps[1], steps[2].half(this.v), steps.length, \
             Array.isArray(steps)]); }", FIRST)
            .with("scope", doc! { "steps": [
                code("function (n) { return 3 * n; }"), 1,
                { "half": code("return arguments[0] / 2") },
            ] }),
        case("scope with code that is no function", "small",
            "function () { emit(this._id, [utils.five(), typeof utils.five, utils.n]); }", FIRST)
            .with("scope", doc! { "utils": { "five": code("5"), "broken": code("1 +"), "n": 1 } }),
        case("scope with functions in reduce and finalize", "small", BY_K,
            "function (key, values) { return utils.add(values); }")
            .finalize("function (key, value) { return utils.show(key, value); }")
            .with("scope", doc! { "utils": {
                "add": code("function (all) { return Array.sum(all); }"),
                "show": code("function (key, n) { return key + ': ' + n; }"),
            } }),
        case("scope with a reference", "small", "function () { emit(this._id, [at.getId(), tojson(at)]); }", FIRST)
            .with("scope", doc! { "at": { "$ref": "people", "$id": 7 } }),
        case("scope in reduce and finalize", "small", BY_K,
            "function (key, values) { return Array.sum(values) * one; }")
            .finalize("function (key, value) { return value + shift; }")
            .with("scope", doc! { "one": 1, "shift": 0.5 }),
        case("null for what is optional", "small", BY_K, SUM)
            .with("query", Bson::Null)
            .with("sort", Bson::Null)
            .with("scope", Bson::Null)
            .with("finalize", Bson::Null)
            .with("collation", Bson::Null),
        case("jsMode, verbose, comment", "small", BY_K, SUM)
            .with("jsMode", true)
            .with("verbose", true)
            .with("bypassDocumentValidation", true)
            .with("comment", "a comment")
            .with("maxTimeMS", 60_000)
            .with("readConcern", doc! { "level": "local" }),
        case("another read concern", "small", BY_K, SUM)
            .with("readConcern", doc! { "level": "majority" })
            .fails("read concern"),
        case("an unknown field", "small", BY_K, SUM).with("keeptemp", true).fails("keeptemp"),
        case("no reduce", "small", BY_K, SUM).without("reduce").fails("no reduce"),
        case("no map", "small", BY_K, SUM).without("map").fails("no map"),
        case("out with an unknown field", "small", BY_K, SUM)
            .with("out", doc! { "replace": "x", "color": 1 })
            .fails("color"),
        case("out with two modes", "small", BY_K, SUM)
            .with("out", doc! { "replace": "x", "merge": "y" })
            .fails("several"),
        case("inline with a database", "small", BY_K, SUM)
            .with("out", doc! { "inline": 1, "db": "x" })
            .fails("alone"),
        case("inline: 0", "small", BY_K, SUM).with("out", doc! { "inline": 0 }).fails("inline"),
        case("nonAtomic: false", "small", BY_K, SUM)
            .with("out", doc! { "merge": "x", "nonAtomic": false })
            .fails("nonAtomic"),
        case("an operator that is none", "small", BY_K, SUM)
            .with("query", doc! { "v": { "$nonsense": 1 } })
            .fails("nonsense"),
        case("an output into system collections", "small", BY_K, SUM)
            .with("out", "system.mine")
            .fails("cannot be an output"),
        case("collation of the query", "small", "function () { emit(this.g, 1); }", SUM)
            .with("query", doc! { "name": "ANN" })
            .with("collation", insensitive.clone()),
        case("collation of the order", "small", "function () { emit(this.g, this.v); }", SUM)
            .with("sort", doc! { "name": 1, "v": -1 })
            .with("limit", 12)
            .with("collation", insensitive.clone()),
        case("the simple collation", "small", "function () { emit(this.name, 1); }", SUM)
            .with("query", doc! { "name": "ann" })
            .with("collation", doc! { "locale": "simple" }),
        case("collation of text keys", "small", "function () { emit(this.name, 1); }", SUM)
            .with("collation", insensitive)
            .differs("keys are grouped by their bytes: under a collation, a key that holds text is refused")
            .refuses("holds text, and the job has a collation"),
        case("a collection that is not there", "nowhere", BY_K, SUM)
            .differs("a name that leads nowhere is an error, and not an empty result")
            .refuses("nowhere not found"),
        case("write the input anew", "", BY_K, SUM)
            .before(vec![Document::from_iter([("_id".into(), 1.into()), ("k".into(), "a".into())])])
            .out(Out::Input("replace"))
            .differs("a job never replaces what it reads")
            .refuses("is the input itself"),
        case("merge into the input", "", BY_K, SUM)
            .before(vec![Document::from_iter([("_id".into(), 1.into()), ("k".into(), "a".into())])])
            .out(Out::Input("merge"))
            .differs("only a map-only job writes to what it reads: a second run would read the results")
            .refuses("is the input itself"),
    ]
}
