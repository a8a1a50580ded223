//! Hostile JavaScript.

use super::{AT_LOAD, Case, Outcome, TIME};
use Outcome::{Bounded, Refused, Stopped, Unfit};

const MEMORY: &str = "out of memory: the function needs more than the memory limit of its task";
const STACK: &str = "RangeError: Maximum call stack size exceeded";
const NO_FUNCTION: &str = "the source has no function for this stage";
const DEEP: &str = "TypeError: cannot write a value nested deeper than";

fn script(name: &'static str, stage: &'static str, text: &str, outcome: Outcome) -> Case {
    Case { name, language: "js", stage, content: text.as_bytes().to_vec(), outcome }
}

/// A body of map.
fn map(name: &'static str, body: &str, outcome: Outcome) -> Case {
    script(name, "map", &format!("function () {{ {body} }}"), outcome)
}

pub(super) fn cases() -> Vec<Case> {
    let deep_json = "JSON.parse('['.repeat(200000))";
    vec![
        map("js-loop-in-map", "for (;;) ;", Stopped(TIME)),
        script("js-loop-in-combine", "combine", "function (k, v) { for (;;) ; }", Stopped(TIME)),
        script("js-loop-in-reduce", "reduce", "function (k, v) { for (;;) ; }", Stopped(TIME)),
        script("js-loop-in-finalize", "finalize", "function (k, v) { for (;;) ; }", Stopped(TIME)),
        script("js-loop-at-load", "map", "for (;;) ; function map() {}", Refused(AT_LOAD)),
        map("js-loop-in-getter", "emit({ get a() { for (;;) ; } }, 1)", Stopped(TIME)),
        map("js-loop-in-sort", "for (;;) [3, 1, 2].sort(() => 1)", Stopped(TIME)),
        map("js-loop-of-promises", "(function f() { Promise.resolve().then(f) })()", Stopped(TIME)),
        map(
            "js-loop-caught",
            "for (;;) try { null.x } catch (e) {} finally { continue }",
            Stopped(TIME),
        ),
        map("js-regexp-backtracks", "/^(a+)+$/.test('a'.repeat(60) + '!')", Stopped(TIME)),
        map("js-recursion", "(function f(x) { return f(x + 1) + 1 })(0)", Stopped(STACK)),
        map("js-recursion-by-replace", "(function f() { 'a'.replace('a', f) })()", Stopped(STACK)),
        map(
            "js-recursion-of-proxies",
            "let p = {}; for (let i = 0; i < 1e5; i++) p = new Proxy(p, {}); p.x",
            Stopped(STACK),
        ),
        map("js-deep-json", deep_json, Stopped(STACK)),
        map(
            "js-array-without-end",
            "const a = []; for (;;) a.push(new Array(1000).fill(1))",
            Stopped(MEMORY),
        ),
        map(
            "js-string-doubles",
            "let s = 'x'; for (;;) s += s",
            Stopped("InternalError: string too long"),
        ),
        map("js-array-buffer", "new Uint8Array(2 ** 31 - 1).fill(1)", Stopped(MEMORY)),
        map("js-sparse-array", "const a = []; a[4294967290] = 1; emit(1, a)", Stopped(MEMORY)),
        map("js-throws", "throw new Error('on purpose')", Stopped("Error: on purpose")),
        map("js-throws-null", "throw null", Stopped(" failed on the document with _id 0: null (")),
        script(
            "js-throws-in-reduce",
            "reduce",
            "function (k, v) { throw new Error('on purpose') }",
            Stopped("Error: on purpose"),
        ),
        script(
            "js-does-not-parse",
            "map",
            "function ( {",
            Refused("SyntaxError: invalid property name"),
        ),
        script("js-is-no-function", "map", "42", Refused(NO_FUNCTION)),
        script("js-is-empty", "map", "", Refused(NO_FUNCTION)),
        script(
            "js-imports",
            "map",
            "import fs from 'fs'; function map() {}",
            Refused("SyntaxError: Unexpected identifier 'fs'"),
        ),
        map("js-wants-require", "require('fs')", Stopped("ReferenceError: require is not defined")),
        map("js-wants-the-system", "std.exit(1)", Stopped("ReferenceError: std is not defined")),
        map(
            "js-value-too-large",
            "emit(1, 'x'.repeat(17 << 20))",
            Stopped("the value of 17825798 bytes exceeds the limit of 16777216 bytes"),
        ),
        map(
            "js-key-too-large",
            "emit('x'.repeat(2 << 20), 1)",
            Stopped("the key of 2097158 bytes exceeds the limit of 1048576 bytes"),
        ),
        map(
            "js-value-too-deep",
            "let v = 1; for (let i = 0; i < 300; i++) v = [v]; emit(1, v)",
            Stopped(DEEP),
        ),
        map("js-value-in-a-circle", "const v = {}; v.v = v; emit(1, v)", Stopped(DEEP)),
        map(
            "js-key-is-array",
            "emit([1], 1)",
            Unfit("the key [1.0] is of type array, which cannot be an _id"),
        ),
        map(
            "js-emits-one-argument",
            "emit(1)",
            Stopped("TypeError: emit takes exactly 2 arguments"),
        ),
        map(
            "js-removes-emit",
            "delete globalThis.emit; emit(1, 1)",
            Stopped("ReferenceError: emit is not defined"),
        ),
        map(
            "js-waits",
            "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)",
            Stopped("ReferenceError: Atomics is not defined"),
        ),
        map(
            "js-a-million-logs",
            "if (this._id === 0) for (let i = 0; i < 1e6; i++) print('line ' + i); emit(1, 1)",
            Bounded,
        ),
        map(
            "js-many-counters",
            "for (let i = 0; i < 1e4; i++) count('c' + this._id + '-' + i); emit(1, 1)",
            Bounded,
        ),
        map(
            "js-breaks-builtins",
            "Object.prototype.toString = Array.prototype.push = null; emit(1, 1)",
            Bounded,
        ),
    ]
}
