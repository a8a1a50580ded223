//! Reduces that are known by their text, others that look like them, and what could give their words another meaning.

use crate::grammar::PATCHES;
use crate::random::Random;

/// All of these are known.
pub const KNOWN: &[&str] = &[
    "function (key, values) { return Array.sum(values); }",
    "function reduce(key, values) { return Array.sum(values) }",
    "(k, v) => Array.sum(v)",
    "(k, v) => { return Array.sum(v); }",
    "function (k, v) { return v.reduce((a, b) => a + b); }",
    "function (k, v) { return v.reduce((a, b) => a + b, 0); }",
    "function (k, v) { return v.reduce((a, b) => { return a + b; }, 0); }",
    "function (k, v) { return v.reduce(function (previous, current) { return previous + current; }, 0); }",
    "(_, v) => v.reduce((a, b) => a + b, 0)",
    "function (k, v) { var s = 0; for (var i = 0; i < v.length; i++) s += v[i]; return s; }",
    "function (k, v) { let s = 0; for (let i = 0; i < v.length; ++i) { s += v[i]; } return s; }",
    "function (k, v) { var s = 0; for (var i = 0, n = v.length; i < n; i += 1) { s = s + v[i]; } return s; }",
    "function (k, v) {\n  // adds\n  var s = 0\n  for (var i = 0; i < v.length; i++) {\n    s += v[i]\n  }\n  return s\n}",
    "function (k, v) { var s = 0; for (const x of v) s += x; return s; }",
    "function (k, v) { let s = 0; for (let x of v) { s = s + x; } return s; }",
    "function (k, v) { var s = 0; v.forEach(function (x) { s += x; }); return s; }",
    "function (k, v) { var s = 0; v.forEach(x => { s += x; }); return s; }",
    "function (k, v) { var s = 0; v.forEach((x) => s += x); return s; }",
    "function (k, v) { return Math.min(...v); }",
    "function (k, v) { return Math.min.apply(null, v); }",
    "(k, v) => v.reduce((a, b) => Math.min(a, b))",
    "function (k, v) { return Math.max(...v); }",
    "(k, v) => Math.max.apply(Math, v)",
    "function (k, v) { return v.reduce(function (a, b) { return Math.max(a, b); }); }",
];

/// What makes another function of one, mostly.
const CHANGES: &[(&str, &str)] = &[
    ("0", "1"),
    ("0", "''"),
    ("0", "-0"),
    ("0", "v[0]"),
    ("+=", "-="),
    ("+=", "="),
    ("a + b", "b + a"),
    ("a + b", "a + +b"),
    ("a + b", "a - b"),
    ("a + b", "a + b + 1"),
    ("a + b", "a"),
    ("s + x", "x + s"),
    ("sum", "avg"),
    ("min", "max"),
    ("max", "abs"),
    ("return", "return\n"),
    ("return", "return /* \n */"),
    ("return", "return -"),
    ("return s", "return s + ''"),
    ("return s", "return [s]"),
    ("i < v", "i <= v"),
    ("i++", "i += 2"),
    ("v.length", "v.length - 1"),
    ("key", "Array"),
    ("k", "Math"),
    ("k", "v"),
    ("reduce(key", "Array(key"),
    ("(values)", "(key)"),
    ("(v)", "(v, 1)"),
    ("(v)", "(k)"),
    ("{", "{ 'use strict';"),
    ("{", "{ print('called');"),
    ("{", "{ v[0] = 'mine';"),
    (";", ";;"),
    ("function", "function*"),
    ("function", "async function"),
    ("of v", "in v"),
    ("forEach", "map"),
    ("x =>", "(x, s) =>"),
    ("var s", "var v"),
    ("v)", "v, more)"),
    ("v)", "v = [])"),
    ("v)", "...v)"),
];

/// Where a function stands, and what that means for it. `F` is the function, `P` a patch.
const AROUND: &[&str] = &[
    "P; var reduce = F;",
    "P; var reduce = F;",
    "(function () { P return F; })()",
    "var Array = { sum: function () { return 'mine'; } }, Math = { min: Array.sum, max: Array.sum }; var reduce = F;",
    "var reduce; with ({ Array: { sum: function () { return 'with'; } }, Math: { max: String } }) { reduce = F; }",
    "F; const Math = { min: function () { return 'lexical'; }, max: String }",
    "Promise.resolve().then(function () { Array.sum = function () { return 'later'; }; }); var reduce = F;",
    "Object.assign(F, { length: 9, call: 1 })",
    "(F).bind(null)",
    "new Proxy(F, {})",
    "function reduce(k, v) { var f = F; return f(k, v); }",
];

/// Makes up a reduce.
pub fn reduce(random: &mut Random) -> String {
    let mut function = random.pick(KNOWN).to_owned();
    while random.one_in(3) {
        let changes: Vec<_> = CHANGES.iter().filter(|(from, _)| function.contains(from)).collect();
        // Enough changes leave nothing that could be changed.
        let Some((from, to)) = changes.get(random.below(changes.len())) else { break };
        function = function.replacen(from, to, 1);
    }
    if !random.one_in(4) {
        return function;
    }
    let (patch, _) = PATCHES[random.below(PATCHES.len())];
    random.pick(AROUND).replace('P', patch).replace('F', &function)
}
