//! Programs: a map and a reduce made of what such functions consist of, and of what a script could do to make a fast
//! path wrong. They end: a loop that grows what it goes over has a bound, and no expression says that it is global and is
//! not.

use crate::random::Random;
use crate::reduces;

/// How deep expressions and statements nest.
const DEPTH_MAX: usize = 3;

/// The sources of one program.
#[derive(Debug, Clone)]
pub struct Program {
    /// The map.
    pub map: String,
    /// The reduce.
    pub reduce: String,
}

/// Makes up a program.
pub fn program(random: &mut Random) -> Program {
    let mut writer = Writer { random, depth: 0, names: 0 };
    let map = writer.map();
    let reduce = writer.reduce();
    Program { map, reduce }
}

/// What a script may change for all that runs after it: how, and how it is undone.
pub const PATCHES: &[(&str, &str)] = &[
    (
        "var p0 = Array.prototype[Symbol.iterator]; Array.prototype[Symbol.iterator] = function* () { yield 'patched'; yield this.length; };",
        "Array.prototype[Symbol.iterator] = p0;",
    ),
    (
        "var p1 = Array.prototype[Symbol.iterator]; Array.prototype[Symbol.iterator] = Array.prototype.keys;",
        "Array.prototype[Symbol.iterator] = p1;",
    ),
    (
        "var p2 = Array.prototype[Symbol.iterator]; Array.prototype[Symbol.iterator] = Array.prototype.entries;",
        "Array.prototype[Symbol.iterator] = p2;",
    ),
    (
        "var i3 = Object.getPrototypeOf([][Symbol.iterator]()), p3 = i3.next; i3.next = function () { var r = p3.call(this); if (!r.done) r.value = r.value + '!'; return r; };",
        "i3.next = p3;",
    ),
    (
        "var p4 = String.prototype.split; String.prototype.split = function (s, l) { return ['split'].concat(p4.call(this, s, l)); };",
        "String.prototype.split = p4;",
    ),
    (
        "var p5 = RegExp.prototype.exec; RegExp.prototype.exec = function (s) { var r = p5.call(this, s); if (r && r[0]) r[0] = r[0] + '+'; return r; };",
        "RegExp.prototype.exec = p5;",
    ),
    (
        "Object.defineProperty(RegExp.prototype, 'flags', { get: function () { print('flags'); return ''; }, configurable: true });",
        "Object.defineProperty(RegExp.prototype, 'flags', flags0);",
    ),
    (
        "Object.defineProperty(RegExp.prototype, 'global', { get: function () { print('global'); return false; }, configurable: true });",
        "Object.defineProperty(RegExp.prototype, 'global', global0);",
    ),
    (
        "Object.defineProperty(RegExp.prototype, 'sticky', { get: function () { return true; }, configurable: true });",
        "Object.defineProperty(RegExp.prototype, 'sticky', sticky0);",
    ),
    (
        "Object.defineProperty(RegExp.prototype, 'unicode', { get: Object.getOwnPropertyDescriptor(RegExp.prototype, 'global').get, configurable: true });",
        "Object.defineProperty(RegExp.prototype, 'unicode', unicode0);",
    ),
    (
        "var p7 = RegExp.prototype[Symbol.match]; RegExp.prototype[Symbol.match] = function (s) { return [String(s).length]; };",
        "RegExp.prototype[Symbol.match] = p7;",
    ),
    (
        "Object.defineProperty(Array.prototype, 1, { set: function (v) { print('set ' + v); }, get: function () { return 'got'; }, configurable: true });",
        "delete Array.prototype[1];",
    ),
    (
        "Object.defineProperty(Object.prototype, 0, { set: function (v) { print('oset ' + v); }, get: function () { return 'ogot'; }, configurable: true });",
        "delete Object.prototype[0];",
    ),
    ("Array.prototype[2] = 'hole';", "delete Array.prototype[2]; Array.prototype.length = 0;"),
    ("Object.prototype[1] = 'deep';", "delete Object.prototype[1];"),
    (
        "var p8 = emit; emit = function (k, v) { p8('mine', k); if (arguments.length > 1) p8('value', v); };",
        "emit = p8;",
    ),
    (
        "var p9 = emit, n9 = 0; Object.defineProperty(globalThis, 'emit', { get: function () { n9++; return n9 % 3 ? p9 : function (k, v) { p9([n9], v); }; }, configurable: true });",
        "Object.defineProperty(globalThis, 'emit', { value: p9, writable: true, configurable: true, enumerable: true });",
    ),
    (
        "var pa = emit; delete globalThis.emit; globalThis.__proto__ = { emit: function (k, v) { pa('proto', v); } };",
        "globalThis.__proto__ = Object.prototype; globalThis.emit = pa;",
    ),
    (
        "var pb = emit, tb = []; for (var b = 0; b < 24; b++) globalThis['t' + b] = b; for (b = 0; b < 24; b++) delete globalThis['t' + b];",
        "",
    ),
    (
        "var pc = Array.prototype.forEach; Array.prototype.forEach = function (f) { for (var i = 0; i < this.length; i++) f(this[i], -i, this); };",
        "Array.prototype.forEach = pc;",
    ),
    (
        "var pd = Array.prototype.push; Array.prototype.push = function (v) { print('push ' + typeof v); return pd.call(this, v); };",
        "Array.prototype.push = pd;",
    ),
    (
        "var pe = Array.sum; Array.sum = function (v) { return 'sum of ' + v.length; };",
        "Array.sum = pe;",
    ),
    (
        "var pk = Array.isArray; Array.isArray = function () { return false; };",
        "Array.isArray = pk;",
    ),
    (
        "var pl = Array.prototype.reduce; Array.prototype.reduce = function (f, s) { return ['reduced', pl.call(this, f, s)]; };",
        "Array.prototype.reduce = pl;",
    ),
    ("var pm = Math.min; Math.min = function () { return 'least'; };", "Math.min = pm;"),
    ("Math.max.apply = function (t, v) { return v.length; };", "delete Math.max.apply;"),
    (
        "var pn = Function.prototype.apply; Function.prototype.apply = function () { return 'apply'; };",
        "Function.prototype.apply = pn;",
    ),
    (
        "Object.setPrototypeOf(Math.min, { apply: function () { return 'inherited'; } });",
        "Object.setPrototypeOf(Math.min, Function.prototype);",
    ),
    (
        "var po = Array; Array = function () {}; Array.sum = function () { return 'other array'; };",
        "Array = po;",
    ),
    (
        "var pp = Array.sum; Object.defineProperty(Array, 'sum', { get: function () { print('read'); return pp; }, configurable: true });",
        "Object.defineProperty(Array, 'sum', { value: pp, writable: true });",
    ),
    (
        "var pf = String.prototype.toLowerCase; String.prototype.toLowerCase = function () { return 'low'; };",
        "String.prototype.toLowerCase = pf;",
    ),
    (
        "var pg = Math; Math = { floor: function () { return 'floor'; }, max: pg.max, abs: pg.abs, random: pg.random };",
        "Math = pg;",
    ),
    (
        "Object.defineProperty(RegExp.prototype, 'lastIndex', { get: function () { return 1; }, configurable: true });",
        "delete RegExp.prototype.lastIndex;",
    ),
    (
        "String.prototype[Symbol.split] = function () { return ['own']; };",
        "delete String.prototype[Symbol.split];",
    ),
    (
        "var ph = Function.prototype.call; Function.prototype.call = function () { return 'call'; };",
        "Function.prototype.call = ph;",
    ),
    ("RegExp.prototype.compile.call(shared, 'b+', 'g');", "shared = /[a-z]+/g;"),
    (
        "var ij = Object.getPrototypeOf([][Symbol.iterator]()), pj = ij.next; ij.next = Object.getPrototypeOf(new Set()[Symbol.iterator]()).next;",
        "ij.next = pj;",
    ),
];

/// What programs use of each other, as a map that is loaded before the first of them. It reads a utility, so that all of them are
/// defined: a reduce that is known need not be called, and would leave that to a later program, which may have changed what
/// defining them takes.
pub const SET_UP: &str = "
    Array.sum;
    const of = (name) => Object.getOwnPropertyDescriptor(RegExp.prototype, name);
    flags0 = of('flags'); global0 = of('global'); sticky0 = of('sticky'); unicode0 = of('unicode');
    shared = /[a-z]+/g; total = 0; Sub = class extends Array {}; Rx = class extends RegExp {};
    function map() {}
";

const REGEXES: &[&str] = &[
    "/[a-z]+/g",
    "/[a-z]+/g",
    "/[A-Za-z]+/g",
    "/[a-z]+/gi",
    "/[A-Z]+/gi",
    "/\\w+/g",
    "/\\w+/gi",
    "/\\d+/g",
    "/[^ ]+/g",
    "/[^a-z]+/g",
    "/[^a-z]+/gi",
    "/[a-z'-]+/g",
    "/[\\w']+/g",
    "/[a-z]*/g",
    "/(a|b)c?/g",
    "/x*/g",
    "/./g",
    "/[a-z]+/",
    "/[é-ü]+/g",
    "/\\S+/g",
    "/\\b/g",
    "/^/gm",
    "/(?<y>[a-z])\\k<y>/g",
    "/[a-z]+/y",
    "/[a-z]+/gy",
    "/[a-z]+/gu",
    "/[a-z]+/gs",
    "/[a-z]+/gd",
    "/[a-z]+/gm",
    "/[0-9+-]+/g",
    "/[a\\-z]+/g",
    "/[\\]a]+/g",
    "/[+--]+/g",
    "/[a-]+/g",
    "/[\\d.]+/g",
    "/[^\\w]+/g",
    "/[^]+/g",
    "/[]+/g",
    "/[a-z]+?/g",
    "/[ -~]+/g",
    "/[µ]+/gi",
    "/[a-z]+|\\d/g",
    "/(?:)/g",
    "/[k]+/gi",
    "/[s]+/giu",
    "/[_\\d]+/g",
    "/[\\s,]+/g",
    "/[a-z\\d-]+/g",
    "/[!-\\/]+/g",
    "/[\\cA]+/g",
    "/\\++/g",
    "/[.]+/g",
    "shared",
    "shared",
    "new Rx('[a-z]+', 'g')",
    "new RegExp('[a-z]+', 'g')",
    "new RegExp('\\\\w+', 'g')",
    "Object.freeze(/[a-z]+/g)",
    "Object.assign(/[a-z]+/g, { lastIndex: 2 })",
    "Object.assign(/[a-z]+/g, { lastIndex: { valueOf: function () { print('valueOf'); return 1; } } })",
    "Object.assign(/[a-z]+/g, { exec: function () { return null; } })",
    "Object.assign(/[a-z]+/g, { more: 1 })",
    "Object.setPrototypeOf(/[a-z]+/g, Object.create(RegExp.prototype, { flags: { value: '' } }))",
    "Object.defineProperty(/[a-z]+/g, 'global', { value: false })",
    "Object.defineProperty(/[a-z]+/g, 'flags', { value: '' })",
    "'[a-z]+'",
    "'a'",
    "undefined",
    "{ [Symbol.match]: function (s) { return ['m', s]; } }",
];

const SEPARATORS: &[&str] = &[
    "' '",
    "' '",
    "' '",
    "','",
    "'a'",
    "'é'",
    "'ÿ'",
    "'日'",
    "''",
    "', '",
    "'-'",
    "'\\n'",
    "/ /",
    "/[ ,]+/",
    "/(b)/",
    "undefined",
    "null",
    "1",
    "new String(' ')",
    "String.fromCharCode(32)",
    "' '.concat('')",
    "[' ']",
    "{ [Symbol.split]: function (s, l) { return [s, l, 'split']; } }",
    "{ toString: function () { return 'b'; } }",
    "', x'.slice(1, 2)",
    "'\\u00a0'",
];

struct Writer<'a> {
    random: &'a mut Random,
    depth: usize,
    names: usize,
}

impl Writer<'_> {
    fn name(&mut self) -> String {
        self.names += 1;
        format!("v{}", self.names)
    }

    fn map(&mut self) -> String {
        let mut body = String::new();
        body.push_str(self.random.pick(&[
            "var d = this;",
            "var d = this;",
            "'use strict'; var d = arguments[0];",
        ]));
        let undone = self.patches(&mut body);
        let mut work = String::new();
        for _ in 0..=self.random.below(3) {
            work.push_str(&self.statement());
        }
        if self.random.one_in(3) {
            body.push_str(&work);
            body.push_str(&undone);
        } else if undone.is_empty() {
            body.push_str(&format!("try {{ {work} }} catch (e) {{ emit('caught', String(e)); }}"));
        } else {
            body.push_str(&format!(
                "try {{ {work} }} catch (e) {{ print('caught ' + e); }} finally {{ {undone} }}"
            ));
        }
        if self.random.one_in(3) {
            body.push_str("emit(d.s, 1);");
        }
        if self.random.one_in(12) {
            // A function as a script, with helpers of its own.
            return format!("function helper(x) {{ return [x, x]; }} function map() {{ {body} }}");
        }
        if self.random.one_in(15) {
            // What stands behind the function makes a lexical global, which hides one of the global object.
            let (kind, number) = (self.random.pick(&["let", "const"]), self.random.below(3));
            return format!("function () {{ {body} }}; {kind} g{number} = 'lexical';");
        }
        format!("function () {{ {body} }}")
    }

    /// Patches something in one of three programs. Most are undone in the end; the others stay for the programs after
    /// this one.
    fn patches(&mut self, body: &mut String) -> String {
        let mut undone = String::new();
        if !self.random.one_in(3) {
            return undone;
        }
        // The same one twice would be a function that calls itself.
        let first = self.random.below(PATCHES.len());
        for at in 0..=self.random.below(2) {
            let (done, undo) = PATCHES[(first + at * 7) % PATCHES.len()];
            body.push_str(done);
            if !self.random.one_in(20) {
                undone = format!("{undo} {undone}");
            }
        }
        undone
    }

    fn reduce(&mut self) -> String {
        if self.random.one_in(2) {
            return reduces::reduce(self.random);
        }
        let body = match self.random.below(9) {
            0 => "return Array.sum(v);".to_owned(),
            1 => "var s = 0; for (var i = 0; i < v.length; i++) s += v[i]; return s;".to_owned(),
            2 => "var s = 0; for (const x of v) s += x; return s;".to_owned(),
            3 => "return v.reduce(function (a, b) { return a + b; }, 0);".to_owned(),
            4 => "var r = { n: 0, q: 0 }; v.forEach(function (x) { r.n += 1; r.q += x.qty; }); return r;".to_owned(),
            5 => "total += v.length; return { total: total, k: k };".to_owned(),
            6 => "return v.map(String).join(' ').split(' ').length;".to_owned(),
            7 => format!("v = [v]; var d = {{ text: String(k), s: 's', n: 2, x: 3, tags: v, items: [], inner: {{}} }}; return {};", self.value()),
            _ => "return Math.max(...v);".to_owned(),
        };
        format!("function (k, v) {{ {body} }}")
    }

    fn deep(&mut self) -> bool {
        self.depth >= DEPTH_MAX
    }

    fn nested<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> T {
        self.depth += 1;
        let made = make(self);
        self.depth -= 1;
        made
    }

    fn string(&mut self) -> String {
        if self.deep() {
            return self.random.pick(&["d.text", "d.s", "'a b c'", "'lorem, ipsum'"]).to_owned();
        }
        self.nested(|w| match w.random.below(22) {
            0..=5 => "d.text".to_owned(),
            6 => "d.s".to_owned(),
            7 => "'a b  c, d'".to_owned(),
            8 => "'déjà vu ÿ'".to_owned(),
            9 => w
                .random
                .pick(&[
                    "'日本 語 a'",
                    "'abcdefgh'.repeat(150)",
                    "('abcdefgh'.repeat(150) + ' b ').repeat(2)",
                ])
                .to_owned(),
            10 => "''".to_owned(),
            11 => format!("({} + {})", w.string(), w.string()),
            12 => format!("{}.toLowerCase()", w.string()),
            13 => format!("{}.toUpperCase()", w.string()),
            14 => format!("{}.slice({}, {})", w.string(), w.random.below(4), w.random.below(30)),
            15 => format!("{}.replace({}, '_')", w.string(), w.regex()),
            16 => format!("`${{{}}} x`", w.string()),
            17 => format!("String({})", w.number()),
            18 => format!("{}.join({})", w.array(), w.random.pick(&["' '", "','", "''"])),
            19 => format!("{}.repeat({})", w.string(), w.random.pick(&["0", "2", "3"])),
            20 => "d.inner.k".to_owned(),
            _ => format!("{}.trim()", w.string()),
        })
    }

    fn regex(&mut self) -> String {
        if !self.random.one_in(4) {
            return self.random.pick(REGEXES).to_owned();
        }
        // A class made up; one that is none is an exception.
        let mut class = String::new();
        if self.random.one_in(4) {
            class.push('^');
        }
        for _ in 0..=self.random.below(4) {
            class.push_str(self.random.pick(&[
                "a-z", "A-Z", "0-9", "a", "k", "s", "_", "-", "\\w", "\\d", "\\s", "\\-", "'", ".",
                " ", "é", "ÿ", "µ", "à-ü", "!-/", "\\b", "\\]", "^", "+", ",-.", "ſ", "\\x41",
                "b-", "$",
            ]));
        }
        let flags = self.random.pick(&["g", "g", "g", "gi", "gm", "gs", "gu", "gy", "i"]);
        let plus = self.random.pick(&["+", "+", "+", "*", "", "+?", "{2}"]);
        format!("/[{class}]{plus}/{flags}")
    }

    fn array(&mut self) -> String {
        if self.deep() {
            return self.random.pick(&["d.tags", "[1, 2, 3]", "d.text.split(' ')"]).to_owned();
        }
        self.nested(|w| match w.random.below(34) {
            0..=7 => format!("{}.split({})", w.string(), w.random.pick(SEPARATORS)),
            8 => format!(
                "{}.split({}, {})",
                w.string(),
                w.random.pick(SEPARATORS),
                w.random.pick(&["undefined", "2", "0", "-1", "1.5", "null", "'1'"])
            ),
            9..=11 => "d.tags".to_owned(),
            12..=16 => format!("({}.match({}) || [])", w.string(), w.regex()),
            17 => "d.items.map(function (i) { return i.sku; })".to_owned(),
            18 => w
                .random
                .pick(&["[1, , 3]", "[, 'a']", "[, ,]", "new Array(3)", "[0, -0, NaN, 1.5]"])
                .to_owned(),
            19 => "Array.from({ length: 4 }, function (_, i) { return i * i; })".to_owned(),
            20 => "Object.keys(d)".to_owned(),
            21 => format!("{}.filter(function (x) {{ return x; }})", w.array()),
            22 => format!("{}.map(function (x, i) {{ return [i, x].join(':'); }})", w.array()),
            23 => format!("{}.concat({})", w.array(), w.array()),
            24 => format!("{}.slice().sort()", w.array()),
            25 => format!("[...{}]", w.array()),
            26 => "new Sub('x', 'y', 'z')".to_owned(),
            27 => format!("new Proxy({}, {{}})", w.array()),
            28 => "(function () { return arguments; })(1, 'two', 3)".to_owned(),
            29 => format!("Object.freeze({})", w.array()),
            30 => format!("{}.{}()", w.array(), w.random.pick(&["entries", "keys", "values"])),
            31 => format!("new Set({})", w.array()),
            32 => w
                .random
                .pick(&[
                    "new Uint8Array([1, 2, 300])",
                    "new Map([[1, 2]])",
                    "'text'",
                    "[[1, 2], [3]]",
                ])
                .to_owned(),
            _ => format!("(function* () {{ yield 'first'; yield* {}; }})()", w.array()),
        })
    }

    fn number(&mut self) -> String {
        if self.deep() {
            return self.random.pick(&["1", "d.n", "2.5", "total"]).to_owned();
        }
        self.nested(|w| match w.random.below(12) {
            0..=2 => "1".to_owned(),
            3 => "d.n".to_owned(),
            4 => "d.x".to_owned(),
            5 => format!("{}.length", w.string()),
            6 => format!(
                "({} {} {})",
                w.number(),
                w.random.pick(&["+", "-", "*", "/", "%"]),
                w.number()
            ),
            7 => format!("Math.floor({})", w.number()),
            8 => "(total += 1)".to_owned(),
            9 => format!("parseInt({})", w.string()),
            10 => format!("{}.indexOf('a')", w.string()),
            _ => "d.items.length".to_owned(),
        })
    }

    fn key(&mut self) -> String {
        match self.random.below(12) {
            0..=5 => self.string(),
            6 => self.number(),
            7 => format!("{{ a: {}, b: {} }}", self.string(), self.number()),
            8 => self
                .random
                .pick(&["null", "undefined", "true", "d._id", "d.when", "NaN", "-0"])
                .to_owned(),
            9 => format!("NumberLong({})", self.random.below(9)),
            10 => "d.inner".to_owned(),
            _ => format!("{}[0]", self.array()),
        }
    }

    fn value(&mut self) -> String {
        match self.random.below(13) {
            0..=3 => "1".to_owned(),
            4..=5 => self.number(),
            6 => self.string(),
            7 => format!("{{ count: 1, qty: {} }}", self.number()),
            8 => self.array(),
            9 => format!("NumberLong({})", self.random.below(9)),
            10 => "NumberInt(3)".to_owned(),
            11 => self
                .random
                .pick(&["null", "true", "d", "d.items", "undefined", "d.when", "Infinity"])
                .to_owned(),
            _ => format!("Array.sum({})", self.array()),
        }
    }

    fn emit(&mut self) -> String {
        let (key, value) = (self.key(), self.value());
        self.emit_of(&key, &value)
    }

    fn emit_of(&mut self, key: &str, value: &str) -> String {
        match self.random.below(24) {
            0 => format!("globalThis.emit({key}, {value});"),
            1 => format!("emit.call(null, {key}, {value});"),
            2 => format!("emit.apply(d, [{key}, {value}]);"),
            3 => format!("var e = emit; e({key}, {value});"),
            4 => format!("(0, emit)({key}, {value});"),
            5 if self.random.one_in(4) => self
                .random
                .pick(&["emit();", "emit(1);", "emit(1, 2, 3);", "new emit(1, 2);"])
                .to_owned(),
            6 => format!("emit(...[{key}, {value}]);"),
            7 => format!("emit.bind(null, {key})({value});"),
            _ => format!("emit({key}, {value});"),
        }
    }

    /// What happens to an element of a loop.
    fn body(&mut self, element: &str, array: &str) -> String {
        match self.random.below(14) {
            0..=4 => self.emit_of(element, "1"),
            5 => self.emit_of(&format!("String({element}).toLowerCase()"), "1"),
            6 => {
                let mutation = self.random.pick(&[
                    "if (A.length < 9) A.push('more');",
                    "A.pop();",
                    "A.shift();",
                    "A.length = 2;",
                    "delete A[1];",
                    "A[A.length] = 'next';",
                    "A[12] = 'far';",
                    "A[1] = 'changed';",
                    "A.splice(0, 1);",
                    "A.reverse();",
                    "Object.freeze(A);",
                    "Object.defineProperty(A, 1, { get: function () { return 'own'; } });",
                    "A.length = 0;",
                    "A.unshift('front');",
                    "emit('length', A.unshift(1, 'two', [3]));",
                    "A.unshift();",
                    "A.x = 1;",
                    "Object.setPrototypeOf(A, null);",
                ]);
                // Everything that makes an array longer is done a few times only.
                let few =
                    format!("if (++{array}_grown < 5) {{ {} }}", mutation.replace('A', array));
                format!("{few} {}", self.emit_of(element, "2"))
            }
            7 => format!(
                "if (String({element}) === 'b') {};",
                self.random.pick(&["break", "continue"])
            ),
            8 => format!("print({element});"),
            9 => format!("{array}_counts[{element}] = ({array}_counts[{element}] || 0) + 1;"),
            10 => format!("count('seen', 1); {}", self.emit_of(element, "d.n")),
            11 if !self.deep() => self.nested(Self::statement),
            12 => format!("if (String({element}).length > 30) throw new Error({element});"),
            _ => {
                let value = self.value();
                self.emit_of(element, &value)
            }
        }
    }

    fn statement(&mut self) -> String {
        if self.deep() {
            return self.emit();
        }
        self.nested(|w| match w.random.below(26) {
            0..=3 => w.emit(),
            4..=8 => {
                let (array, list, element) = (w.array(), w.name(), w.name());
                let body = w.body(&element, &list);
                let kind = w.random.pick(&["const", "let", "var"]);
                format!("var {list}_grown = 0, {list}_counts = {{}}, {list} = {array}; for ({kind} {element} of {list}) {{ {body} }} emit('counts', {list}_counts);")
            }
            9..=11 => {
                let (array, list, element) = (w.array(), w.name(), w.name());
                let body = w.body(&element, &list).replace("break;", "return;").replace("continue;", "return;");
                let function = if w.random.one_in(2) {
                    format!("function ({element}) {{ {body} }}")
                } else {
                    format!("({element}) => {{ {body} }}")
                };
                format!("var {list}_grown = 0, {list}_counts = {{}}, {list} = {array}; {list}.forEach({function});")
            }
            12..=13 => {
                let (array, list, element) = (w.array(), w.name(), w.name());
                let body = w.body(&element, &list);
                format!("var {list}_grown = 0, {list}_counts = {{}}, {list} = {array}; for (var {list}_i = 0; {list}_i < {list}.length && {list}_i < 40; {list}_i++) {{ var {element} = {list}[{list}_i]; {body} }}")
            }
            14 => {
                let array = w.array();
                format!("var c = {{}}; {array}.forEach(function (w) {{ c[w] = (c[w] || 0) + 1; }}); for (var k in c) emit(k, c[k]);")
            }
            15 => format!("var [a, b = 'none', ...rest] = {}; emit(a, b); emit('rest', rest.length);", w.array()),
            16 => {
                let inner = w.statement();
                format!("try {{ {inner} }} catch (e) {{ emit('caught', String(e)); }}")
            }
            17 => {
                let inner = w.emit();
                format!("(function (emit) {{ {inner} }})(function (k, v) {{ print(k); }});")
            }
            18 => w.globals(),
            19 => {
                let inner = w.emit();
                format!("(new Function('emit', 'd', {}))(emit, d);", quoted(&format!("with ({{ s: 'with', emit: function (k, v) {{ emit('w', v); }} }}) {{ {inner} }}")))
            }
            20 => {
                let (array, inner) = (w.array(), w.emit());
                format!("var made = {array}, later = () => {{ {inner} }}; later(); emit('made', made);")
            }
            21 => {
                let compare = w.random.pick(&[
                    "function (a, b) { return a < b ? 1 : a > b ? -1 : 0; }",
                    "function (a, b) { return a > b; }",
                    "function (a, b) { return a - b; }",
                ]);
                format!("emit('sorted', {}.sort({compare}));", w.array())
            }
            22 => {
                let (text, regex) = (w.string(), w.regex());
                format!("var r = {regex}, m = {text}.match(r); emit('match', m); emit('last', r && r.lastIndex); \
                     emit('left', [RegExp.$1, RegExp.lastMatch, RegExp.lastParen, RegExp.leftContext, RegExp.rightContext, RegExp.input]);")
            }
            23 => format!("var o = {{ emit: emit, k: {} }}; o.emit(o.k, {});", w.key(), w.value()),
            24 => {
                let inner = w.statement();
                format!("{{ let total = {}; const emit = globalThis.emit; {inner} }}", w.number())
            }
            _ => {
                let inner = w.statement();
                format!("function f(n) {{ if (n > 0) return f(n - 1); {inner} }} f({});", w.random.below(4))
            }
        })
    }

    /// Globals that come, change and go.
    fn globals(&mut self) -> String {
        let name = format!("g{}", self.random.below(3));
        let mut text = String::new();
        for _ in 0..=self.random.below(5) {
            let step = self.random.pick(&[
                "globalThis.G = 1;",
                "globalThis.G = 'text';",
                "delete globalThis.G;",
                "Object.defineProperty(globalThis, 'G', { get: function () { return ++total; }, configurable: true });",
                "Object.defineProperty(globalThis, 'G', { value: 'fixed', writable: false, configurable: true });",
                "try { (0, eval)('let G = ' + (total += 3)); } catch (e) { emit('redeclared', e.name); }",
                "try { (0, eval)('var G = 4'); } catch (e) { emit('redeclared', e.name); }",
                "try { G = 'assigned'; } catch (e) { emit('refused', e.name); }",
                "for (var q = 0; q < 20; q++) globalThis['z' + q] = q; for (q = 0; q < 20; q++) delete globalThis['z' + q];",
                "try { (0, eval)('function G() { return 6; }'); } catch (e) { emit('refused', e.name); }",
                "try { (0, eval)('const other' + (total += 1) + ' = 1'); } catch (e) { emit('refused', e.name); }",
            ]);
            text.push_str(&step.replace('G', &name));
            text.push_str(
                &"for (var t = 0; t < 2; t++) { try { emit('G', typeof G === 'function' ? G() : G); } catch (e) { emit('G', e.message); } }"
                    .replace('G', &name),
            );
        }
        text
    }
}

/// A JavaScript string of a text.
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n");
    format!("'{escaped}'")
}
