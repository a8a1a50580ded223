//! Where results go, and what was there.

use bson::{Document, doc};

use super::{BY_K, SUM};
use crate::case::{Case, Out, case};

const JOIN: &str = "function (key, values) { return values.join('+'); }";
/// Each key once, so that the order of values is the server's alone in reduce mode.
const ONCE: &str = "function () { if (this._id < 5) emit(this.k, 'n' + this.v); }";
const MARK: &str = "function (key, value) { return '<' + value + '>'; }";

fn old() -> Vec<Document> {
    vec![
        doc! { "_id": "k1", "value": 1000, "more": true },
        doc! { "_id": "k3", "value": 0.5 },
        doc! { "_id": "other", "value": "kept", "more": [1] },
    ]
}

pub fn all() -> Vec<Case> {
    let mut cases = vec![
        case("out is a name", "small", BY_K, SUM).out(Out::Named).before(old()),
        case("replace a collection that is not there", "small", BY_K, SUM).out(Out::Into("replace")),
        case("replace with nothing", "small", BY_K, SUM)
            .with("query", doc! { "v": 1_000 })
            .out(Out::Into("replace"))
            .before(old()),
        case("merge into one that is not there", "small", BY_K, SUM).out(Out::Into("merge")),
        case("reduce into one that is not there", "small", BY_K, SUM).out(Out::Into("reduce")),
        case("reduce with finalize", "small", ONCE, JOIN)
            .finalize(MARK)
            .out(Out::Into("reduce"))
            .before(old()),
        case("reduce with finalize twice", "small", ONCE, JOIN)
            .finalize(MARK)
            .out(Out::Into("reduce"))
            .before(old())
            .twice(),
        case("reduce the old value first", "small", ONCE, JOIN).out(Out::Into("reduce")).before(old()),
        case("reduce where there is no value", "small", BY_K, SUM)
            .out(Out::Into("reduce"))
            .before(vec![doc! { "_id": "k1" }, doc! { "_id": "k2", "n": 5 }]),
        case("reduce ten thousand", "many", "function () { emit(this.k % 5000, this.v); }", SUM)
            .out(Out::Into("reduce"))
            .before((2_500..7_500).map(|n| doc! { "_id": n, "value": n }).collect()),
        case("merge ids of another type", "many", "function () { emit(this.k % 3, this.v); }", SUM)
            .out(Out::Into("merge"))
            .before(vec![doc! { "_id": 1, "value": 1 }, doc! { "_id": 2_i64, "value": 1 }]),
        case("the manual: order statistics", "orders",
            "function () {
               for (var idx = 0; idx < this.items.length; idx++) {
                 var key = this.items[idx].sku;
                 var value = { count: 1, qty: this.items[idx].qty };
                 emit(key, value);
               }
             }",
            "function (keySKU, countObjVals) {
               reducedVal = { count: 0, qty: 0 };
               for (var idx = 0; idx < countObjVals.length; idx++) {
                 reducedVal.count += countObjVals[idx].count;
                 reducedVal.qty += countObjVals[idx].qty;
               }
               return reducedVal;
             }")
            .finalize("function (key, reducedVal) { reducedVal.avg = reducedVal.qty / reducedVal.count; return reducedVal; }")
            .with("query", doc! {
                "ord_date": { "$gte": bson::DateTime::parse_rfc3339_str("2020-03-01T00:00:00Z").unwrap() },
            })
            .out(Out::Into("merge")),
    ];
    for mode in ["replace", "merge", "reduce"] {
        let name = |text: &str| -> &'static str { format!("{mode} {text}").leak() };
        cases.extend([
            case(name("keeps indexes"), "small", BY_K, SUM).out(Out::Into(mode)).before(old()),
            case(name("twice"), "small", BY_K, SUM).out(Out::Into(mode)).before(old()).twice(),
            case(name("in another database"), "small", BY_K, SUM)
                .out(Out::Elsewhere(mode))
                .before(old()),
        ]);
    }
    cases
}
