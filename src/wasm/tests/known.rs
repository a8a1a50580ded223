//! Reduces in JavaScript that are known by their text, and those that only look like them.

use bson::doc;

use super::*;

fn load(script: Script, scope: bson::Document) -> Instance<Nowhere> {
    let module = host().load(js_guest_digest(), JS_GUEST).unwrap();
    let scope = scope.to_vec().unwrap();
    let options = InstanceOptions { script: Some(script), scope, ..InstanceOptions::default() };
    Instance::new(&module, options, Nowhere).unwrap()
}

fn known(reduce: &str) -> Option<Known> {
    let reduce = Some(reduce.to_owned());
    load(Script { reduce, ..Script::default() }, doc! {}).known()
}

#[test]
fn the_usual_reduces_are_known() {
    let sums = [
        "function (key, values) { return Array.sum(values); }",
        "function reduce(key, values) {\n  return Array.sum(values)\n}",
        "(k, v) => Array.sum(v)",
        "(k, v) => v.reduce((a, b) => a + b)",
        "function(k,v){return v.reduce(function(a,b){return a+b},0)}",
        "function (k, v) { var s = 0; for (var i = 0; i < v.length; i++) s += v[i]; return s; }",
        "function (k, v) { // sums\n let s = 0\n for (let i = 0, n = v.length; i < n; ++i) { s = s + v[i] }\n return s\n}",
        "function (k, v) { let s = 0; for (const x of v) { s += x; } return s; }",
        "function (k, v) { var s = 0; v.forEach(function (x) { s += x; }); return s; }",
        "function (k, v) { var s = 0; v.forEach(x => { s += x; }); return s; }",
        "function helper() {} function reduce(k, v) { return Array.sum(v); }",
    ];
    for source in sums {
        assert_eq!(known(source), Some(Known::Sum), "{source}");
    }
    assert_eq!(known("(k, v) => Math.min(...v)"), Some(Known::Min));
    assert_eq!(known("function (k, v) { return Math.max.apply(null, v); }"), Some(Known::Max));
    let max = "function (k, v) { return v.reduce((a, b) => Math.max(a, b)); }";
    assert_eq!(known(max), Some(Known::Max));
}

#[test]
fn a_combine_is_known_as_well() {
    let combine = Some("(k, v) => Array.sum(v)".to_owned());
    let instance = load(Script { combine, ..Script::default() }, doc! {});
    assert_eq!(instance.known(), Some(Known::Sum));
}

#[test]
fn what_may_do_something_else_is_not_known() {
    let others = [
        "function (key, values) { return Array.avg(values); }",
        "function (key, values) { return Array.sum(key); }",
        "function (key, values) { return\nArray.sum(values); }",
        "function (key, values) { return /*\n*/ Array.sum(values); }",
        "function (key, values) { print(key); return Array.sum(values); }",
        "function (Array, values) { return Array.sum(values); }",
        "function (values, values) { return Array.sum(values); }",
        "function (k, v) { return v.reduce((a, b) => b + a); }",
        "function (k, v) { return v.reduce((a, b) => a + b, 1); }",
        "function (k, v) { return v.reduce((a, b) => a + b, ''); }",
        "function (k, v) { var s = 1; for (var i = 0; i < v.length; i++) s += v[i]; return s; }",
        "function (k, v) { var s = 0; for (var i = 1; i < v.length; i++) s += v[i]; return s; }",
        "function (k, v) { var s = 0; for (var i = 0; i < v.length; i++) s -= v[i]; return s; }",
        "function (k, v) { var s = 0; for (var i in v) s += i; return s; }",
        "(k, v) => Math.min(v)",
        // The same text where its words mean something else.
        "Array.sum = function () { return 1; }; var reduce = (k, v) => Array.sum(v);",
        "Array.isArray = function () { return false; }; var reduce = (k, v) => Array.sum(v);",
        "Array.prototype.reduce = function () { return 1; }; var reduce = (k, v) => v.reduce((a, b) => a + b);",
        "Array.prototype[Symbol.iterator] = function* () {}; var reduce = (k, v) => Math.min(...v);",
        "Math.max = String; var reduce = (k, v) => Math.max(...v);",
        "Math = { max: String }; var reduce = (k, v) => Math.max(...v);",
        "Math.max.apply = String; var reduce = (k, v) => Math.max.apply(null, v);",
        "var Array = { sum: String }; var reduce = (k, v) => Array.sum(v);",
        "var reduce; with ({ Array: { sum: String } }) reduce = (k, v) => Array.sum(v);",
        "Promise.resolve().then(() => { Array.sum = String; }); var reduce = (k, v) => Array.sum(v);",
        "((k, v) => Array.sum(v)).bind(null)",
        "function* g() {} var reduce = new Proxy((k, v) => Array.sum(v), {});",
    ];
    for source in others {
        assert_eq!(known(source), None, "{source}");
    }
}

#[test]
fn parameters_may_give_a_name_another_meaning() {
    let script = Script { reduce: Some("(k, v) => Array.sum(v)".to_owned()), ..Script::default() };
    assert_eq!(load(script.clone(), doc! { "limit": 3 }).known(), Some(Known::Sum));
    assert_eq!(load(script, doc! { "Array": { "sum": 3 } }).known(), None);
}

#[test]
fn utilities_are_defined_on_the_built_in_objects_whatever_has_their_names() {
    let map = "function () { var array = Array; Array = function () {}; NumberLong(1); Array = array; \
               if (Array.sum([1, 2]) !== 3) throw 'no sum'; }";
    let mut instance = load(Script { map: Some(map.to_owned()), ..Script::default() }, doc! {});
    instance.call(Stage::Map, &doc! {}.to_vec().unwrap()).unwrap();
}
