"""Tests of the JavaScript guest and of the C guests: python3 check.py [quickjs.wasm]

Needs the packages wasmtime and pymongo (for its bson)."""

import datetime
import math
import os
import random
import re
import struct
import sys
import threading
import time
import unittest
from pathlib import Path

import bson
import wasmtime
from bson import Binary, Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp, encode

from host import Failed, Host, decode, element

HERE = Path(__file__).resolve().parent
QUICKJS = HERE.parent / "quickjs.wasm"
C_GUESTS = HERE.parent.parent / "c"
FUZZ_RUNS = int(os.environ.get("FUZZ_RUNS", "10000"))


def js(scope=None, memory_max=256 << 20, seed=7, silent=False, **stages):
    return Host(QUICKJS, scope=scope, memory_max=memory_max, seed=seed, silent=silent).load(**stages)


def run(body, doc=None, **options):
    """What a map with this body emits for one document."""
    return js(map="function() { " + body + " }", **options).map(doc if doc is not None else {})


def one(expression, doc=None, **options):
    return run("emit(0, " + expression + ");", doc, **options)[0][1]


def timed(call):
    start = time.thread_time()
    call()
    return time.thread_time() - start


# Every BSON type: a type byte and the bytes of a value.
def text(s):
    data = s.encode() + b"\0"
    return struct.pack("<I", len(data)) + data


EMPTY = b"\x05\0\0\0\0"
TYPES = {
    "double": b"\x01" + struct.pack("<d", 2.5),
    "negative zero": b"\x01" + struct.pack("<d", -0.0),
    "infinity": b"\x01" + struct.pack("<d", math.inf),
    "string": b"\x02" + text("plain"),
    "string empty": b"\x02" + text(""),
    "string latin": b"\x02" + text("caf\u00e9 \u00ff"),
    "string wide": b"\x02" + text("\u65e5\u672c \U0001F600 \u00e9"),
    "string with NUL": b"\x02" + text("a\0b"),
    "string long": b"\x02" + text("xy\u00e9" * 400),
    "document": b"\x03" + encode({"a": 1, "b": {"c": Int64(3)}}),
    "array": b"\x04" + encode({"0": 1.0, "1": "x", "2": None}),
    "binary": b"\x05" + struct.pack("<IB", 3, 0) + b"abc",
    "binary empty": b"\x05" + struct.pack("<IB", 0, 128),
    "binary old": b"\x05" + struct.pack("<IBI", 7, 2, 3) + b"abc",
    "uuid": b"\x05" + struct.pack("<IB", 16, 4) + bytes(range(16)),
    "undefined": b"\x06",
    "object id": b"\x07" + bytes(range(12)),
    "true": b"\x08\x01",
    "false": b"\x08\x00",
    "date": b"\x09" + struct.pack("<q", 1700000000123),
    "date before 1970": b"\x09" + struct.pack("<q", -1),
    "date beyond JavaScript": b"\x09" + struct.pack("<q", 2**62),
    "null": b"\x0a",
    "regex": b"\x0b" + b"a/b[.]\0im\0",
    "regex of PCRE": b"\x0b" + b"(?i)x\0x\0",
    "regex empty": b"\x0b\0\0",
    "db pointer": b"\x0c" + text("db.c") + bytes(range(12)),
    "code": b"\x0d" + text("function() {}"),
    "symbol": b"\x0e" + text("sym"),
    "code with scope": b"\x0f" + struct.pack("<I", 4 + 6 + 5) + text("x") + EMPTY,
    "timestamp": b"\x11" + struct.pack("<II", 3, 4000000000),
    "int64": b"\x12" + struct.pack("<q", -(2**63)),
    "decimal": b"\x13" + Decimal128("1.50").bid,
    "min key": b"\xff",
    "max key": b"\x7f",
}


class RoundTrips(unittest.TestCase):
    def test_every_type_as_value(self):
        guest = js(map="function() { emit(1, this.v); }")
        for name, tagged in TYPES.items():
            with self.subTest(name):
                self.assertEqual(guest.call("map", element(tagged))[0][1], tagged)

    def test_every_type_as_key(self):
        guest = js(map="doc => emit(doc.v, 1)")
        for name, tagged in TYPES.items():
            expected = b"\x0a" if name == "undefined" else tagged
            with self.subTest(name):
                self.assertEqual(guest.call("map", element(tagged))[0][0], expected)

    def test_every_type_in_new_object(self):
        guest = js(map="function() { emit(1, {v: this.v}); emit(1, [this.v]); }")
        for name, tagged in TYPES.items():
            with self.subTest(name):
                (_, doc), (_, array) = guest.call("map", element(tagged))
                self.assertEqual(doc, b"\x03" + element(tagged))
                self.assertEqual(array, b"\x04" + element(tagged, b"0"))

    def test_every_type_in_one_document_untouched_and_touched(self):
        body = b"".join(t[:1] + b"f%d\0" % i + t[1:] for i, t in enumerate(TYPES.values())) + b"\0"
        doc = struct.pack("<I", len(body) + 4) + body
        touch = "for (const k in this) this[k];"
        for before in ["", touch, touch + "this.extra = 1; delete this.extra;", "Object.keys(this); JSON.stringify(Object.assign({}, this));"]:
            with self.subTest(before):
                out = js(map="function() { " + before + " emit(1, this); }").call("map", doc)
                self.assertEqual(out[0][1], b"\x03" + doc)

    def test_as_key_of_reduce_and_finalize(self):
        guest = js(reduce="function(k, v) { return v[0]; }", finalize="function(k, v) { return v; }")
        for name, tagged in TYPES.items():
            with self.subTest(name):
                items = element(tagged, b"0")
                array = b"\x04v\0" + items
                body = tagged[:1] + b"k\0" + tagged[1:] + array + b"\0"
                # No result is a null.
                result = b"\x0a" if name == "undefined" else tagged
                self.assertEqual(guest.call("reduce", struct.pack("<I", len(body) + 4) + body), [(tagged, result)])
                body = tagged[:1] + b"k\0" + tagged[1:] + tagged[:1] + b"v\0" + tagged[1:] + b"\0"
                self.assertEqual(guest.call("finalize", struct.pack("<I", len(body) + 4) + body), [(tagged, result)])

    def test_lone_surrogates_become_replacement(self):
        self.assertEqual(one("'a\\uD800b'"), "a\ufffdb")

    def test_int32_is_a_number_and_is_written_as_double(self):
        self.assertEqual(one("typeof this.n", {"n": 5}), "number")
        out = js(map="function() { emit(1, this.n); }").call("map", encode({"n": 5}))
        self.assertEqual(out[0][1], b"\x01" + struct.pack("<d", 5))

    def test_integers_of_a_changed_document_keep_their_type(self):
        out = js(map="function() { this.a++; emit(1, this); }").call("map", encode({"a": 1, "b": 2, "c": [3, 4.5]}))
        self.assertEqual(out[0][1], b"\x03" + encode({"a": 2, "b": 2, "c": [3, 4.5]}))


class Stages(unittest.TestCase):
    def test_word_count_of_mongodb(self):
        guest = js(
            map="function() { this.text.toLowerCase().match(/[a-z]+/g).forEach(w => emit(w, 1)); }",
            reduce="function(key, values) { return Array.sum(values); };",
            finalize="function(key, value) { return {word: key, n: NumberInt(value)}; }",
        )
        self.assertEqual(guest.map({"text": "The cat, the mat"}), [("the", 1), ("cat", 1), ("the", 1), ("mat", 1)])
        self.assertEqual(guest.keyed("reduce", {"k": "the", "v": [1, 1]}, {"k": "cat", "v": [1]}), [("the", 2), ("cat", 1)])
        self.assertEqual(guest.keyed("combine", {"k": "the", "v": [1, 1]}), [("the", 2)])
        out = guest.call("finalize", encode({"k": "the", "v": 2.0}))
        self.assertEqual(out[0][1], b"\x03" + encode({"word": "the", "n": 2}))

    def test_orders_of_the_manual(self):
        guest = js(
            map="""function() {
                for (var idx = 0; idx < this.items.length; idx++) {
                    var key = this.items[idx].sku;
                    var value = { count: 1, qty: this.items[idx].qty };
                    emit(key, value);
                }
            };""",
            reduce="""function(keySKU, countObjVals) {
                reducedVal = { count: 0, qty: 0 };
                for (var idx = 0; idx < countObjVals.length; idx++) {
                    reducedVal.count += countObjVals[idx].count;
                    reducedVal.qty += countObjVals[idx].qty;
                }
                return reducedVal;
            };""",
            finalize="function (key, reducedVal) { reducedVal.avg = reducedVal.qty/reducedVal.count; return reducedVal; };",
        )
        order = {"items": [{"sku": "oranges", "qty": 5}, {"sku": "apples", "qty": 3}]}
        self.assertEqual(guest.map(order), [("oranges", {"count": 1, "qty": 5}), ("apples", {"count": 1, "qty": 3})])
        values = [{"count": 1, "qty": 5}, {"count": 2, "qty": 4}]
        self.assertEqual(guest.keyed("reduce", {"k": "apples", "v": values}), [("apples", {"count": 3, "qty": 9})])
        self.assertEqual(
            guest.keyed("finalize", {"k": "apples", "v": {"count": 3, "qty": 9}}),
            [("apples", {"count": 3, "qty": 9, "avg": 3})],
        )

    def test_scope_is_global(self):
        scope = {"limit": 3, "names": ["a", "b"], "deep": {"x": {"y": 1}}, "twice": Code("function(x) { return 2 * x; }")}
        out = run("emit(limit + names.length, twice(deep.x.y)); deep.x.y++;", scope=scope)
        self.assertEqual(out, [(5, 2)])

    def test_code_within_the_scope_is_a_function(self):
        scope = {"utils": {"twice": Code("function(x) { return 2 * x; }"), "deep": {"inc": Code("n => n + 1")}, "n": 3, "plain": {"x": 1}},
                 "list": [Code("return arguments[0] * 4"), 1, {"five": Code("5")}], "odd": {"a-b": Code("1 +"), "": Code("7", {"x": 1})},
                 "self": {"v": 9, "get": Code("function() { return this.v; }")}}
        for expression, expected in {
            "utils.twice(4)": 8, "utils.deep.inc(1)": 2, "list[0](2)": 8, "list[2].five()": 5, "odd['']()": 7, "self.get()": 9, "utils.plain.x": 1,
            "odd['a-b'] instanceof Code": True, "Object.keys(utils).join()": "twice,deep,n,plain", "Array.isArray(list)": True, "list.length": 3,
            "utils.twice === utils.twice": True, "(utils.twice = () => 1, utils.twice())": 1, "typeof this.c": "object",
        }.items():
            with self.subTest(expression):
                self.assertEqual(one(expression, {"c": Code("function() {}")}, scope=scope), expected)
        out = js(map="function() { emit(1, utils); }", scope=scope).call("map", encode({}))
        self.assertEqual(decode(out[0][1])["n"], 3)

    def test_batches_and_documents_that_outlive_them(self):
        guest = js(map="""function() {
            globalThis.kept = globalThis.kept || [];
            kept.push(this, this.sub, this.list[0]);
            emit(kept.map(d => d.n + ':' + d.pad.length).join(), kept.length);
        }""")
        for batch in range(20):
            docs = [{"n": batch * 10 + i, "pad": "p" * 50, "sub": {"n": i, "pad": "q" * 70}, "list": [{"n": -i, "pad": ""}]} for i in range(3)]
            out = guest.map(*docs)
        expected = []
        for batch in range(20):
            for i in range(3):
                expected += [f"{batch * 10 + i}:50", f"{i}:70", f"{-i}:0"]
        self.assertEqual(out[-1][0], ",".join(expected))

    def test_empty_batch(self):
        self.assertEqual(js(map="function() { emit(1, 1); }").map(), [])

    def test_emit_is_for_map(self):
        with self.assertRaisesRegex(Failed, "only by map"):
            js(reduce="function(k, v) { emit(k, 1); }").keyed("reduce", {"k": 1, "v": [1]})

    def test_count_and_log(self):
        guest = js(map="function() { count('seen'); count('bytes', 10); print('hello', 1); printjson({a: 1}); console.warn('w', {b: 2}); }")
        guest.map({}, {})
        self.assertEqual(guest.counts, {"seen": 2, "bytes": 20})
        self.assertEqual(guest.logs[:3], [(2, "hello 1"), (2, '{ "a" : 1 }'), (1, 'w {  "b" : 2 }')])

    def test_promises_run_before_the_next_document(self):
        self.assertEqual(run("Promise.resolve(3).then(x => emit(x, 1));"), [(3, 1)])


class Documents(unittest.TestCase):
    def test_behaves_as_an_object(self):
        doc = {"a": 1, "b": {"c": [1, 2, {"d": 5}]}, "s": "text", "n": None}
        for expression, expected in {
            "JSON.stringify(this)": '{"a":1,"b":{"c":[1,2,{"d":5}]},"s":"text","n":null}',
            "Object.keys(this).join()": "a,b,s,n",
            "'a' in this": True,
            "'z' in this": False,
            "this.hasOwnProperty('b')": True,
            "Object.hasOwn(this, 'toString')": False,
            "this.toString()": "[object BSON]",
            "this.z === undefined": True,
            "this.b === this.b": True,
            "this.b.c === this.b.c": True,
            "Array.isArray(this.b.c)": True,
            "this instanceof Object": True,
            "(delete this.a, Object.keys(this).join())": "b,s,n",
            "(this.z = 1, this.b.q = 2, JSON.stringify(this))": '{"a":1,"b":{"c":[1,2,{"d":5}],"q":2},"s":"text","n":null,"z":1}',
            "(({a, ...rest}) => Object.keys(rest).join())(this)": "b,s,n",
            "Object.entries(this).length": 4,
            "(Object.freeze(this), this.a = 5, this.y = 1, JSON.stringify([this.a, this.y]))": "[1,null]",
            "(Object.defineProperty(this, 'a', {get() { return 42 }}), this.a)": 42,
            "Object.create(this).b.c.length": 3,
            "(() => { const c = Object.create(this); c.a = 9; return c.a * 10 + this.a })()": 91,
            "(() => { let s = ''; for (const k in this) s += k; return s })()": "absn",
            "JSON.stringify({...this})": '{"a":1,"b":{"c":[1,2,{"d":5}]},"s":"text","n":null}',
            "structuredCopy = JSON.parse(JSON.stringify(this)).b.c[2].d": 5,
        }.items():
            with self.subTest(expression):
                self.assertEqual(one(expression, doc), expected)

    def test_odd_names(self):
        doc = {"0": "zero", "caf\u00e9": 1, "\u65e5": 2, "__proto__": 3, "": 4, "constructor": 5, "4294967295": 6, "toString": 7}
        for expression, expected in {
            "this[0]": "zero", "this['caf\u00e9']": 1, "this['\u65e5']": 2, "this['']": 4, "this.constructor": 5,
            "this[4294967295]": 6, "this.toString": 7, "Object.keys(this).length": 8, "this[1] === undefined": True,
        }.items():
            with self.subTest(expression):
                self.assertEqual(one(expression, doc), expected)
        self.assertEqual(one("this", doc), doc)
        self.assertEqual(one("(this.x = 1, delete this.x, this)", doc), doc)

    def test_many_fields(self):
        doc = {f"f{i}": {"n": i} for i in range(3000)}
        out = one("(() => { let s = 0; for (let i = 2999; i >= 0; i--) s += this['f' + i].n; return s })()", doc)
        self.assertEqual(out, sum(range(3000)))
        self.assertEqual(one("(() => { for (let i = 0; i < 50; i++) this['f' + i].n; return this })()", doc), doc)

    def test_one_late_field_of_many_costs_one_search(self):
        doc = encode({**{f"f{i}": "x" * 20 for i in range(20000)}, "k": 5})
        def best_s(body):
            guest = js(map="function() { " + body + " emit(0, 1); }")
            return min(timed(lambda: guest.call("map", doc)) for _ in range(5))
        none = best_s("")
        self.assertLess(best_s("this.k;") - none, (best_s("this.extra = 1;") - none) / 3)
        # Reads in any order cost little more than decoding everything.
        self.assertLess(best_s("for (let i = 19999; i >= 0; i--) this['f' + i];") - none, (best_s("this.extra = 1;") - none) * 20)
        guest = js(map="function() { let s = 0; for (let i = 0; i < 40; i++) { s += this.k; s += this.zz === undefined; } emit(s, this.f7); }")
        self.assertEqual(guest.map(doc), [(240, "x" * 20)])

    def test_changes_are_written(self):
        doc = {"a": [1, 2], "o": {"x": 1}, "d": datetime.datetime(2020, 1, 1)}
        self.assertEqual(one("(this.a.push(3), this.o.y = 'n', this.d.setUTCFullYear(2021), this)", doc),
                         {"a": [1, 2, 3], "o": {"x": 1, "y": "n"}, "d": datetime.datetime(2021, 1, 1)})

    def test_order_of_integer_names_in_plain_objects(self):
        self.assertEqual(list(one("({b: 1, 2: 1, 1: 1})")), ["1", "2", "b"])

    def test_getters_are_read(self):
        self.assertEqual(one("({get x() { return 4 }, y: undefined, get z() { delete this.y; return 1 }})")["x"], 4)

    def test_cycles_and_depth(self):
        with self.assertRaisesRegex(Failed, "does it contain itself"):
            run("const a = {}; a.a = a; emit(1, a);")
        with self.assertRaisesRegex(Failed, "does it contain itself"):
            run("const a = []; a.push(a); emit(1, a);")
        deep = {}
        for _ in range(150):
            deep = {"d": deep}
        self.assertEqual(one("this", deep), deep)
        self.assertEqual(one("JSON.parse(JSON.stringify(this))", deep), deep)

    def test_garbage_is_collected(self):
        guest = js(map="function() { this.self = this; this.pad = [this.a, this.a.b]; emit(1, 1); }", memory_max=32 << 20)
        doc = {"a": {"b": {"c": "x" * 2000}}}
        for _ in range(100):
            self.assertEqual(len(guest.map(*[doc] * 400)), 400)


class Utilities(unittest.TestCase):
    def test_constructors_with_and_without_new(self):
        oid = ObjectId("0123456789abcdef01234567")
        for call, expected in {
            "ObjectId('0123456789abcdef01234567')": oid,
            "NumberLong('9223372036854775807')": Int64(2**63 - 1),
            "NumberLong(5)": Int64(5),
            "NumberInt(7)": 7,
            "NumberDecimal('1.50')": Decimal128("1.50"),
            "Timestamp(5, 6)": Timestamp(5, 6),
            "BinData(0, 'YWJj')": b"abc",
            "UUID('00112233-4455-6677-8899-aabbccddeeff')": Binary(bytes.fromhex("00112233445566778899aabbccddeeff"), 4),
            "MinKey()": MinKey(), "MaxKey()": MaxKey(),
            "Code('x')": Code("x"),
            "ISODate('2020-02-03T04:05:06.007Z')": datetime.datetime(2020, 2, 3, 4, 5, 6, 7000),
        }.items():
            for prefix in ["", "new "]:
                with self.subTest(prefix + call):
                    value = one(prefix + call)
                    self.assertEqual(value, expected)
                    self.assertIs(type(value), type(expected))
        self.assertEqual(one("MinKey"), MinKey())
        self.assertEqual(one("MaxKey"), MaxKey())
        self.assertIsInstance(one("ObjectId()"), ObjectId)
        self.assertEqual(one("12345678901234n"), Int64(12345678901234))
        self.assertEqual(one("new Uint8Array([1, 2])"), b"\x01\x02")

    def test_numbers(self):
        doc = {"l": Int64(2**53 + 1), "s": Int64(5), "d": Decimal128("-12.340")}
        for expression, expected in {
            "this.s + 1": 6, "this.s * this.s": 25, "this.s == 5": True, "this.s.toNumber()": 5, "this.s > 4": True,
            "this.l.toString()": 'NumberLong("9007199254740993")', "this.s.toString()": "NumberLong(5)",
            "this.d.toString()": 'NumberDecimal("-12.340")', "this.d.toNumber()": -12.34, "typeof this.l": "object",
            "this.l instanceof NumberLong": True, "NumberInt(3) + 4": 7, "NumberInt(3.9) == 3": True,
            "NumberLong(0, 1, 2).toBigInt() == 4294967298n": True, "this.l.compare(NumberLong(1))": 1,
        }.items():
            with self.subTest(expression):
                self.assertEqual(one(expression, doc), expected)

    def test_decimals_agree_with_another_implementation(self):
        source = random.Random(5)
        texts = ["0", "-0", "0E+3", "1E-6176", "9.999999999999999999999999999999999E+6144", "NaN", "Infinity", "-Infinity", "0.000001", "0.0000001"]
        for _ in range(300):
            digits = str(source.randrange(10 ** source.randrange(1, 35)))
            texts.append(source.choice(["", "-"]) + digits + "E" + str(source.randrange(-60, 60)))
        guest = js(map="function() { emit(this.d.toString(), NumberDecimal(this.s)); }")
        for text, (shown, made) in zip(texts, guest.map(*[{"d": Decimal128(t), "s": t} for t in texts])):
            with self.subTest(text):
                self.assertEqual(shown, f'NumberDecimal("{Decimal128(text)}")')
                self.assertEqual(made.bid, Decimal128(text).bid)

    def test_utilities(self):
        for expression, expected in {
            "Array.sum([1, 2, 3])": 6, "Array.avg([1, 2, 3])": 2, "Array.stdDev([1, 3])": 1, "Array.contains([1, 2], 2)": True,
            "Array.unique([1, 1, 2, {a: 1}, {a: 1}]).length": 4, "Object.keySet({a: 1, b: 2}).join()": "a,b",
            "JSON.stringify(Object.extend({a: 1}, {b: 2}))": '{"a":1,"b":2}',
            "JSON.stringify(Object.merge({a: 1}, {a: 3, b: 2}))": '{"a":3,"b":2}',
            "isNumber(3)": True, "isNumber('3')": False, "hex_md5('hello')": "5d41402abc4b2a76b9719d911017c592",
            "hex_md5('')": "d41d8cd98f00b204e9800998ecf8427e", "hex_md5('\u00e9'.repeat(60))": "8f3ba4ceb1b1c5ec1e4a7dad2be2fbd1",
            "tojson({a: [1, 'x'], b: null})": '{ "a" : [ 1, "x" ], "b" : null }',
            "tojsononeline({a: {b: NumberLong(3)}})": '{  "a" : {  "b" : NumberLong(3) } }',
            "tojson(ObjectId('0123456789abcdef01234567'))": 'ObjectId("0123456789abcdef01234567")',
            "ObjectId('0123456789abcdef01234567').str": "0123456789abcdef01234567",
            "UUID('00112233-4455-6677-8899-aabbccddeeff').toString()": 'UUID("00112233-4455-6677-8899-aabbccddeeff")',
            "Timestamp(5, 6).t * 10 + Timestamp(5, 6).i": 56, "BinData(0, 'YWJj').base64()": "YWJj",
            "DBRef('c', 1).$ref": "c", "(tojson = () => 'mine', tojson({}))": "mine", "Object.bsonsize({})": 5,
        }.items():
            with self.subTest(expression):
                if "hex_md5('\u00e9'" in expression:
                    import hashlib
                    expected = hashlib.md5(("\u00e9" * 60).encode()).hexdigest()
                self.assertEqual(one(expression), expected)


    def test_references(self):
        doc = {"r": {"$ref": "people", "$id": 5}, "f": {"$ref": "p", "$id": ObjectId("0" * 24), "$db": "d"}, "w": {"$id": 1, "$ref": "p"},
               "n": {"$ref": 5, "$id": 1}, "l": [{"$ref": "q", "$id": 1}], "o": {"$ref": "p"}}
        raw = encode(doc)
        self.assertEqual(js(map="function() { this.r.getId(); this.l[0].getId(); emit(1, this); }").call("map", raw)[0][1], b"\x03" + raw)
        for expression, expected in {
            "this.r.getId()": 5, "this.r.getCollection()": "people", "this.r.getRef()": "people", "this.r.getDb() === undefined": True,
            "this.f.getDb()": "d", "'' + this.f": 'DBRef("p", ObjectId("000000000000000000000000"), "d")', "tojson(this.r)": 'DBRef("people", 5)',
            "this.l[0] instanceof DBRef": True, "this.w instanceof DBRef": False, "this.n instanceof DBRef": False, "this.o instanceof DBRef": False,
            "Object.keys(this.r).join()": "$ref,$id", "DBRef('a', 1, 'b').getDb()": "b", "DBRef('a', 1) instanceof DBRef": True,
            "(this.r.x = 1, this.r.$id = 6, tojson(this.r))": 'DBRef("people", 6)',
        }.items():
            with self.subTest(expression):
                self.assertEqual(one(expression, raw), expected)
        for expression in ["DBRef('a')", "DBRef(1, 2)", "DBRef('a', 1, 2)", "DBRef('a', 1).fetch()"]:
            with self.subTest(expression), self.assertRaisesRegex(Failed, "DBRef takes|cannot read from the database"):
                one(expression)

    def test_code_keeps_its_scope(self):
        self.assertEqual(one("Code('x', {a: NumberInt(1), b: 'c'})"), Code("x", {"a": 1, "b": "c"}))
        self.assertEqual(one("[Code('x', {a: {b: 2}}).scope.a.b, Code('x').scope === undefined, Code('x', {}) instanceof Code]"), [2, True, True])
        self.assertEqual(one("this.c.scope.k + this.c.code", {"c": Code("x", {"k": "v"})}), "vx")
        with self.assertRaisesRegex(Failed, "scope of a Code"):
            one("Code('x', 5)")

    def test_a_helper_that_is_assigned_belongs_to_its_object(self):
        self.assertEqual(one("(() => { const d = new Date(0); d.tojson = () => 'mine'; return [d.tojson(), new Date(0).tojson()]; })()"),
                         ["mine", 'ISODate("1970-01-01T00:00:00Z")'])
        self.assertEqual(one("(Date.prototype.tojson = () => 'all', new Date(0).tojson())"), "all")
        self.assertEqual(one("(() => { const s = []; for (const k in 'a') s.push(k); for (const k in new Date()) s.push(k); return s; })()"), ["0"])


class Sources(unittest.TestCase):
    def test_forms(self):
        for source in [
            "function() { emit(this.a, 1); }",
            "function() { emit(this.a, 1); };",
            "  // leading\n/* and */ function () { emit(this.a, 1) } ; ; // trailing",
            "function map() { emit(this.a, 1); }",
            "function other() { emit(this.a, 1); }",
            "function other() { emit(this.a, 1); };",
            "(function() { emit(this.a, 1); })",
            "(function() { emit(this.a, 1); });",
            "doc => emit(doc.a, 1)",
            "(doc) => { emit(doc.a, 1); };\n",
            "const map = doc => emit(doc.a, 1);",
            "const map = (doc, ...rest) => { emit(doc.a, 1); };",
            "emit(this.a, 1)",
            "// body\nvar a = this.a;\nif (a) { emit(a, 1); }",
            "[this.a].forEach(a => emit(a, 1))",
            "[this.a].forEach(function (a) { emit(a, 1); });",
            "let one = 1; function utility(d) { return d.a; }\nfunction map() { emit(utility(this), one); }",
            "function map() { emit(utility(this), 1); }\nfunction utility(d) { return d.a; }\nfunction reduce(k, v) { return v; }",
            "var map = function() { emit(this.a, 1) }",
            "'use strict';\nfunction map() { emit(this.a, 1); }",
            "\ufeff function() { emit(this.a, 1); }",
        ]:
            with self.subTest(source):
                self.assertEqual(js(map=source).map({"a": 5}), [(5, 1)])

    def test_one_script_for_every_stage(self):
        source = "const one = 1;\nfunction map() { emit(this.a, one); }\nfunction reduce(k, v) { return v.length + one; }"
        guest = js(map=source, reduce=source)
        self.assertEqual(guest.map({"a": 5}), [(5, 1)])
        self.assertEqual(guest.keyed("reduce", {"k": 5, "v": [1, 2]}), [(5, 3)])

    def test_code_as_source(self):
        self.assertEqual(js(map=Code("function() { emit(1, 2); }")).map({}), [(1, 2)])

    def test_syntax_errors_have_a_place(self):
        for source, place in {
            "function() {\n  emit(this.a,, 1);\n}": "map, line 2, column 15",
            "function map() {\n  var x = ;\n}\nfunction other() {}": "map, line 2, column 11",
            "function() { emit(1, 1);": "map, line",
            "x => {\n\n  return }}": "map, line 3",
        }.items():
            with self.subTest(source), self.assertRaises(Failed) as caught:
                js(map=source)
            self.assertIn(place, str(caught.exception))
            self.assertIn("SyntaxError", str(caught.exception))

    def test_no_function(self):
        for source in ["1 + 1", "function other() {} function more() {}", "", "// nothing", "({})", "const map = 5;"]:
            with self.subTest(source), self.assertRaisesRegex(Failed, "function"):
                js(map=source)
        for source in ["async function() { emit(1, 1); }", "function*() { emit(1, 1); }", "async () => 1"]:
            with self.subTest(source), self.assertRaisesRegex(Failed, "plain function"):
                js(map=source)
        with self.assertRaisesRegex(Failed, "no function was given for reduce"):
            js(map="x => 1").keyed("reduce", {"k": 1, "v": [1]})
        with self.assertRaisesRegex(Failed, "nonsense is not a stage"):
            js(nonsense="x => 1")
        with self.assertRaisesRegex(Failed, "not text"):
            js(map=5)


class Failures(unittest.TestCase):
    def test_exceptions_have_a_stack(self):
        with self.assertRaises(Failed) as caught:
            js(map="function() {\n  inner(this);\n  function inner(d) { return d.a.b.c; }\n}").map({})
        lines = str(caught.exception).split("\n")
        self.assertEqual(lines[0], "TypeError: cannot read property 'b' of undefined")
        self.assertIn("inner (map:3:", lines[1])
        self.assertIn("(map:2:", lines[2])

    def test_other_throws(self):
        for thrown, shown in {"'text'": "text", "{a: 1}": '{"a":1}', "[1, {a: 1}]": '[1,{"a":1}]', "null": "null", "new RangeError('r')": "RangeError: r",
                              "Object.create(null)": "{}",
                              "(() => { var a = Object.create(null); a.a = a; return a; })()": "an exception"}.items():
            with self.subTest(thrown), self.assertRaises(Failed) as caught:
                run("throw " + thrown)
            self.assertTrue(str(caught.exception).startswith(shown), caught.exception)

    def test_what_is_no_function_is_named(self):
        for called, named in {
            "this.items.forEch(x => x)": "this.items.forEch", "f(1, this.g(2))": "this.g", "this['a b'].zip(...[1])": "this['a b'].zip",
            "this.items\n .map(x => x)\n .foo('a)(', 2)": "this.items.map(x => x).foo", "this.größe('ü')": "this.größe",
            "this.o?.b?.('x')": "this.o?.b", "var o = {}; o[Math.max(1, 2)](3)": "o[Math.max(1, 2)]", "[1].map(5)": "5",
            "[1].map('text')": '"text"', "[1].forEach()": "undefined", "[1].sort({})": "an object",
            "x." + "long." * 40 + "name(1)": "." + "long." * 15 + "name",
        }.items():
            with self.subTest(called), self.assertRaises(Failed) as caught:
                f = {"long": {}}
                for _ in range(39):
                    f = {"long": f}
                Host(QUICKJS).load(map="function () { var x = this.x, f = x => x; " + called + "; }").map(
                    {"_id": 1, "items": [1], "a b": {}, "o": {"b": 1}, "größe": 5, "x": f})
            self.assertEqual(str(caught.exception).split("\n")[0], f"TypeError: {named} is not a function")
        # Rather nothing than another thing.
        for called in ["this // items\n .foo()", "this.o // the price (net)\n .foo()", "this.o /* it's */ .foo()", "this./*c*/foo(1)",
                       "new Proxy({}, {get: 1}).x", "this.o ['q'] ()", "this.\\u0066oo()", "'abc'.foo()", "/a/.foo()", "`a`.foo()"]:
            with self.subTest(called), self.assertRaises(Failed) as caught:
                js(map="function () { " + called + "; }").map({"_id": 1, "o": {"b": 1}})
            self.assertEqual(str(caught.exception).split("\n")[0], "TypeError: not a function")
        for called, named in {"new Date().foo()": "new Date().foo", "[...this.foo()]": "this.foo", "return this.foo()": "this.foo"}.items():
            with self.subTest(called), self.assertRaisesRegex(Failed, re.escape(f": {named} is not a function")):
                run(called)
        with self.assertRaisesRegex(Failed, ": not a constructor"):
            run("new (() => 1)")
        for made in ["new this.Foo(1)", "new this._id(1)", "new this.Foo(...[1])"]:
            with self.subTest(made), self.assertRaisesRegex(Failed, "this.* is not a constructor"):
                run(made)

    def test_the_field_that_cannot_be_written_is_named(self):
        for emitted, field in {"{a: {b: [1, Symbol('x')]}}": "a.b.1", "(this.d.e = Symbol(), this)": "d.e", "[[new Date(NaN)]]": "0.0",
                               "{x: 1n << 70n}": "x"}.items():
            with self.subTest(emitted), self.assertRaises(Failed) as caught:
                js(map=f"function () {{ emit(1, {emitted}); }}").map({"_id": 1, "d": {"c": "text", "e": 5, "f": 1}})
            self.assertIn(f"(field {field})", str(caught.exception).split("\n")[0])

    def test_what_is_no_utf_8_is_replaced(self):
        def read(data, body):
            return js(map="function () { " + body + " }").map(element(b"\x02" + struct.pack("<I", len(data) + 1) + data + b"\0"))

        for data, units in {b"a\xffb": "61 fffd 62", b"\xed\xa0\xbd\xed\xb8\x80": " ".join(["fffd"] * 6), b"\xf0\x9f\x98x": "fffd 78",
                            b"\xf0\x9f\x98\x80": "d83d de00", b"\xc0\x80": "fffd fffd", b"\xe2\x82": "fffd fffd", b"\xf4\x90\x80\x80": " ".join(["fffd"] * 4),
                            b"\xc3\xa9\xff": "e9 fffd"}.items():
            with self.subTest(data):
                out = read(data, "emit(1, Array.from({length: this.v.length}, (_, i) => this.v.charCodeAt(i).toString(16)).join(' '));")
                self.assertEqual(out, [(1, units)])
        body = b"\x10_id\0\1\0\0\0\x10na\xefve\0\2\0\0\0\x10c\0\3\0\0\0\0"
        named = struct.pack("<I", len(body) + 4) + body
        guest = js(map="function () { for (var k in this) emit(k, this[k]); emit('keys', Object.keys(this).length); emit('whole', {...this}); }")
        self.assertEqual(guest.map(named), [("_id", 1), ("na\ufffdve", 2), ("c", 3), ("keys", 3), ("whole", {"_id": 1, "na\ufffdve": 2, "c": 3})])

    def test_emit_takes_two(self):
        for arguments in ["", "1", "1, 2, 3"]:
            with self.subTest(arguments), self.assertRaisesRegex(Failed, "exactly 2 arguments"):
                run("emit(" + arguments + ")")
        self.assertEqual(run("try { emit(1) } catch (e) { emit(2, 2) }"), [(2, 2)])

    def test_unwritable(self):
        for value in ["Symbol()", "new Date(NaN)", "2n ** 70n", "({'a\\0b': 1})"]:
            with self.subTest(value), self.assertRaises(Failed):
                one(value)

    def test_deep_recursion_is_an_exception(self):
        for body in [
            "const f = n => f(n + 1) + 1; try { f(0) } catch (e) { emit(e.name, 1) }",
            "function f(a, b, c, d, e) { return [1].map(() => f(a, b, c, d, e)) } try { f(1) } catch (e) { emit(e.name, 1) }",
            "const o = {get x() { return this.x }}; try { o.x } catch (e) { emit(e.name, 1) }",
            "const o = {toString() { return '' + this }}; try { '' + o } catch (e) { emit(e.name, 1) }",
            "let a = []; for (let i = 0; i < 1e5; i++) a = [a]; try { JSON.stringify(a) } catch (e) { emit(e.name, 1) }",
            "try { JSON.parse('['.repeat(1e5)) } catch (e) { emit(e.name, 1) }",
            "try { eval('('.repeat(1e5)) } catch (e) { emit(e.name, 1) }",
            "try { eval('x=>'.repeat(1e5) + '1') } catch (e) { emit(e.name, 1) }",
            "try { eval('['.repeat(1e5)) } catch (e) { emit(e.name, 1) }",
            "try { eval('{'.repeat(1e5)) } catch (e) { emit(e.name, 1) }",
            "try { eval('!'.repeat(1e6) + '1') } catch (e) { emit(e.name, 1) }",
            "try { new RegExp('('.repeat(1e5)) } catch (e) { emit(e.name, 1) }",
            "try { class A { constructor() { new A() } } new A() } catch (e) { emit(e.name, 1) }",
            "let p = {}; for (let i = 0; i < 1e5; i++) p = new Proxy(p, {}); try { p.x } catch (e) { emit(e.name, 1) }",
            "const f = () => { [3, 2, 1].sort(f) }; try { f() } catch (e) { emit(e.name, 1) }",
            "const f = () => 'a'.replace(/a/, f); try { f() } catch (e) { emit(e.name, 1) }",
            "const f = () => Reflect.apply(f, null, []); try { f() } catch (e) { emit(e.name, 1) }",
            "let f = () => 1; for (let i = 0; i < 9000; i++) f = f.bind(null); try { f() } catch (e) { emit(e.name, 1) }",
            "let s = 'a'; for (let i = 0; i < 1e5; i++) s = s + i; emit('RangeError', s.length)",
            "let x = null; for (let i = 0; i < 1e6; i++) x = {x}; x = null; emit('RangeError', 1)",
            "try { (function f() { emit(1, 1); f() })() } catch (e) { emit(e.name, 1) }",
        ]:
            with self.subTest(body):
                self.assertIn(run(body)[-1][0], ("RangeError", "SyntaxError", "InternalError"))

    def test_deep_documents(self):
        deep = EMPTY
        for _ in range(20000):
            body = b"\x04d\0" + deep + b"\0"
            deep = struct.pack("<I", len(body) + 4) + body
        with self.assertRaises(Failed):
            js(map="function() { this.d; }").call("map", deep)
        self.assertEqual(len(js(map="function() { emit(1, 1); }").call("map", deep)), 1)
        deep = EMPTY
        for _ in range(20000):
            body = b"\x03d\0" + deep + b"\0"
            deep = struct.pack("<I", len(body) + 4) + body
        with self.assertRaisesRegex(Failed, "nested deeper"):
            js(map="function() { let x = this, y; while ((y = x.d)) x = y; emit(1, this); }").call("map", deep)

    def test_out_of_memory(self):
        for body in [
            "const a = []; for (;;) a.push({x: a.length});",
            "let s = 'x'; for (;;) s += s;",
            "let s = 'ab'; for (;;) { s += s; s.charCodeAt(0); emit(1, s) }",
            "const a = []; for (;;) a.push(new Uint8Array(1 << 20));",
            "const m = new Map(); for (let i = 0;; i++) m.set(i, 'v' + i);",
            "const a = []; for (;;) a.push(JSON.parse(JSON.stringify(this)));",
            "globalThis.all = globalThis.all || []; for (;;) all.push(Object.assign({}, this));",
        ]:
            with self.subTest(body), self.assertRaises(Failed) as caught:
                run(body, {"a": [1, 2, {"b": "c" * 100}]}, memory_max=24 << 20)
            self.assertRegex(str(caught.exception), "out of memory|string too long|invalid array")

    def test_out_of_memory_at_start(self):
        with self.assertRaises((Failed, wasmtime.WasmtimeError, wasmtime.Trap)):
            js(map="x => 1", memory_max=1 << 20)

    def test_endless_loop_is_interrupted(self):
        guest = js(map="function() { for (;;); }")
        guest.store.set_epoch_deadline(1)
        timer = threading.Timer(0.1, guest.engine.increment_epoch)
        timer.start()
        with self.assertRaises(wasmtime.Trap):
            guest.map({})
        timer.join()


class Determinism(unittest.TestCase):
    def test_random_and_clock(self):
        body = "emit(Math.random(), [Date.now(), new Date().getTimezoneOffset(), ObjectId(), UUID()])"
        a, b, c = run(body), run(body), run(body, seed=9)
        self.assertEqual(a, b)
        self.assertNotEqual(a[0][0], c[0][0])
        self.assertEqual(a[0][1][:2], [1700000000123, 0])

    def test_no_time_zone(self):
        self.assertEqual(one("new Date(2020, 0, 1).getTime()"), 1577836800000)


class Malformed(unittest.TestCase):
    def test_fuzz(self):
        """Damaged input fails or traps, or does no harm; it never hangs and never breaks the instance's invariants."""
        source = random.Random(1)
        good = [encode({"_id": 1, "a": {"b": [1, {"c": "x"}], "d": Int64(5)}, "t": "text", "o": ObjectId(), "r": Regex("a", "i"),
                        "bin": Binary(b"abc", 2), "w": Code("x", {"y": 1}), "dec": Decimal128("1"), "e": []}),
                element(TYPES["db pointer"]), element(TYPES["code with scope"]), encode({"k": 1, "v": [1, {"x": 2}, "s"]})]
        walk = """function walk(x, d) {
            if (d > 20 || x === null || typeof x !== 'object') return x;
            for (const k of Object.keys(x)) walk(x[k], d + 1);
            return x;
        }"""
        stages = {"map": walk + " function map() { emit(this.a, this.t); walk(this, 0); emit(1, this); this.z = 1; emit(2, this); }",
                  "reduce": walk + " function reduce(k, v) { walk(v, 0); return v; }"}
        outcomes = {"ok": 0, "failed": 0, "trap": 0}
        guest = js(**stages)
        for i in range(FUZZ_RUNS):
            data = bytearray(source.choice(good))
            for _ in range(source.choice([1, 1, 2, 5])):
                kind = source.randrange(4)
                at = source.randrange(len(data))
                if kind == 0:
                    data[at] = source.randrange(256)
                elif kind == 1:
                    data[at:at + 4] = struct.pack("<I", source.choice([0, 1, 4, 5, 2**31 - 1, 2**31, 2**32 - 1, len(data)]))
                elif kind == 2:
                    del data[at:at + source.randrange(1, 5)]
                else:
                    data[at] ^= 1 << source.randrange(8)
                if not data:
                    data = bytearray(b"\0")
            if source.random() < 0.7 and len(data) >= 4:
                data[:4] = struct.pack("<I", len(data))
                data[-1] = 0
            start = time.monotonic()
            try:
                guest.call(source.choice(["map", "map", "reduce"]), bytes(data))
                outcomes["ok"] += 1
            except Failed as error:
                outcomes["failed"] += 1
                guest = js(**stages)
                self.assertNotIn("out of memory", str(error))
            except wasmtime.Trap:
                outcomes["trap"] += 1
                guest = js(**stages)
            self.assertLess(time.monotonic() - start, 2)
        print("fuzz:", outcomes, file=sys.stderr)
        self.assertGreater(outcomes["failed"], FUZZ_RUNS // 10)
        self.assertEqual(outcomes["trap"], 0)

    def test_names_the_problem(self):
        for data in [b"\0", b"\x05\0\0\0", b"\xff\xff\xff\x7f\0", encode({"a": 1})[:-1] + b"\x01"]:
            with self.subTest(data), self.assertRaisesRegex(Failed, "malformed BSON"):
                js(map="function() { emit(this.a, 1); }").call("map", data)


class Cost(unittest.TestCase):
    def test_one_field_of_a_large_document_costs_about_one_field(self):
        def seconds(doc):
            guest = js(map="function() { emit(this.k, 1); }", silent=True)
            p, n = guest.give(encode(doc))
            best = math.inf
            for _ in range(5):
                start = time.perf_counter()
                for _ in range(200):
                    guest.exports["map"](guest.store, p, n)
                best = min(best, (time.perf_counter() - start) / 200)
            return best

        pad = {"sub": {"x": ["y" * 100] * 10000}, "text": "z" * 10000}
        small, large = seconds({"pad": 1, "k": "key"}), seconds({"pad": pad, "k": "key"})
        self.assertLess(large, small * 3 + 20e-6)


class CGuests(unittest.TestCase):
    def guest(self, name):
        return Host(C_GUESTS / (name + ".wasm"))

    def test_sum_by_customer(self):
        order = {"_id": 1, "customer": "c000123", "items": [{"sku": "s0042", "qty": 2, "price": 1.5}], "total": 3.25}
        self.assertEqual(self.guest("sum_by_customer").map(order, order), [("c000123", 3.25)] * 2)

    def test_units_by_sku(self):
        items = [{"sku": f"s{i:04}", "qty": i, "price": 1.5} for i in range(3)]
        self.assertEqual(self.guest("units_by_sku").map({"_id": 1, "items": items, "total": 3.25}), [("s0000", 0), ("s0001", 1), ("s0002", 2)])

    def test_word_count(self):
        out = self.guest("word_count").map({"_id": 1, "text": "The cat, THE-mat2x \u00e9a"})
        self.assertEqual(out, [(w, 1) for w in ["the", "cat", "the", "mat", "x", "a"]])
        self.assertEqual(self.guest("word_count").map({"_id": 1, "text": ""}), [])

    def test_reduce_sums(self):
        for name in ["sum_by_customer", "units_by_sku", "word_count"]:
            guest = self.guest(name)
            self.assertEqual(guest.keyed("reduce", {"k": "a", "v": [1, 2, 3]}, {"k": 5, "v": [1.5, 2]}, {"k": None, "v": [Int64(2**40), 1]}),
                             [("a", 6), (5, 3.5), (None, 2**40 + 1)])

    def test_missing_fields_fail(self):
        for name in ["sum_by_customer", "units_by_sku", "word_count"]:
            with self.subTest(name), self.assertRaises(Failed):
                self.guest(name).map({"_id": 1})

    def test_fuzz(self):
        source = random.Random(2)
        good = encode({"_id": 1, "customer": "c", "items": [{"sku": "s", "qty": 1}], "total": 1.5, "text": "a b", "v": [1]})
        for name in ["sum_by_customer", "units_by_sku", "word_count"]:
            guest = self.guest(name)
            for _ in range(FUZZ_RUNS // 10):
                data = bytearray(good)
                for _ in range(source.choice([1, 3])):
                    data[source.randrange(len(data))] = source.randrange(256)
                if source.random() < 0.7:
                    data[:4] = struct.pack("<I", len(data))
                try:
                    guest.call(source.choice(["map", "reduce"]), bytes(data))
                except Failed:
                    guest = self.guest(name)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1].endswith(".wasm"):
        QUICKJS = Path(sys.argv.pop(1)).resolve()
    # The main thread's stack is too small for a guest's.
    threading.stack_size(64 << 20)
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(unittest.main(exit=False).result.wasSuccessful()))
    thread.start()
    thread.join()
    sys.exit(outcome != [True])
