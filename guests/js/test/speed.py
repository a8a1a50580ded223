"""Nanoseconds of processor time of common functions: python3 speed.py [quickjs.wasm]. Emitted pairs go to an empty
function."""

import random
import sys
import time
from pathlib import Path

from bson import Int64, ObjectId, encode

from host import Host

HERE = Path(__file__).resolve().parent
QUICKJS = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / "quickjs.wasm"
C_GUESTS = HERE.parent.parent / "c"
BATCH_BYTES = 1 << 20


def best_ns(host, stage, doc, per=None):
    data = encode(doc)
    copies = max(1, BATCH_BYTES // len(data))
    p, n = host.give(data * copies)

    def best_s(size):
        best = 1e9
        for _ in range(7):
            start = time.thread_time()
            host.exports[stage](host.store, p, size)
            best = min(best, time.thread_time() - start)
        return best

    # An empty batch costs what Python needs for a call.
    return max(0.1, (best_s(n) - best_s(0)) * 1e9 / copies), len(data)


def show(name, host, stage, doc, each=1):
    ns, size = best_ns(host, stage, doc)
    print(f"{name:42} {ns / each:9.0f} ns   {size / ns * 1000:7.0f} MB/s")


words = "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor".split()
source = random.Random(1)
text = " ".join(source.choice(words).capitalize() for _ in range(100)) + "."
order = {"_id": ObjectId(), "customer": "c000123", "items": [{"sku": f"s{i:04}", "qty": i, "price": 1.5 * i} for i in range(3)],
         "total": 42.5, "status": "shipped", "region": "north"}
five = {"_id": ObjectId(), "a": 1, "b": 2.5, "c": "text", "d": True, "e": 7}
big = dict(five, pad=["x" * 100] * 9000)


def js(map=None, sums=False, **more):
    return Host(QUICKJS, silent=True, sums=sums).load(**{k: v for k, v in dict(more, map=map).items() if v})


Host(QUICKJS)
boots = [Host(QUICKJS).boot_s for _ in range(30)]
print(f"boot {min(boots) * 1e6:.0f} us")
start = time.thread_time()
js(map="function() { emit(this.k, 1); }")
print(f"boot and load {(time.thread_time() - start) * 1e6:.0f} us")
show("emit(this.k, 1)", js("function() { emit(this.k, 1); }"), "map", {"k": "key"})
show("empty function", js("function() { }"), "map", {"k": "key"})
show("emit(1, 1)", js("function() { emit(1, 1); }"), "map", {"k": "key"})
show("five fields", js("function() { emit(this.c, this.a + this.b + (this.d ? this.e : 0)); }"), "map", five)
show("emit(this._id, {four fields})", js("function() { emit(this._id, {a: this.a, b: this.b, c: this.c, d: this.d}); }"), "map", five)
show("emit(this._id, this)", js("function() { emit(this._id, this); }"), "map", five)
show("this.x = 1; emit(1, this)", js("function() { this.x = 1; emit(1, this); }"), "map", five)
show("one field of 1 MB", js("function() { emit(this.c, 1); }"), "map", big)
show("sum by customer", js("function() { emit(this.customer, this.total); }"), "map", order)
show("units by sku, an item", js("function() { this.items.forEach(i => emit(i.sku, i.qty)); }"), "map", order, each=3)
show("units by sku with for, an item",
     js("function() { for (var i = 0; i < this.items.length; i++) emit(this.items[i].sku, {count: 1, qty: this.items[i].qty}); }"), "map", order, each=3)
show("words by match, a word", js("function() { this.text.toLowerCase().match(/[a-z]+/g).forEach(w => emit(w, 1)); }"), "map", {"text": text}, each=100)
show("words by split, a word", js("function() { for (const w of this.text.split(' ')) emit(w.toLowerCase(), 1); }"), "map", {"text": text}, each=100)
show("the same with sums wanted", js("function() { for (const w of this.text.split(' ')) emit(w.toLowerCase(), 1); }", sums=True), "map", {"text": text}, each=100)
show("sums of keys that do not repeat", js("var n = 0; function map() { emit('key' + n++, 1); }", sums=True), "map", {"text": "t"})
show("the same without sums", js("var n = 0; function map() { emit('key' + n++, 1); }"), "map", {"text": "t"})
show("reduce of 1000 by Array.sum, a value", js(reduce="function(k, v) { return Array.sum(v); }"), "reduce", {"k": "a", "v": [1.0] * 1000}, each=1000)
show("reduce of 2 by Array.sum, a key", js(reduce="function(k, v) { return Array.sum(v); }"), "reduce", {"k": "a", "v": [1.0, 2.0]})
show("reduce of 1000 by loop, a value", js(reduce="function(k, v) { var s = 0; for (var i = 0; i < v.length; i++) s += v[i]; return s; }"),
     "reduce", {"k": "a", "v": [1.0] * 1000}, each=1000)
show("NumberLong + 1", js("function() { emit(1, this.n + 1); }"), "map", {"n": Int64(5)})
show("sum_by_customer.wasm", Host(C_GUESTS / "sum_by_customer.wasm", silent=True), "map", order)
show("units_by_sku.wasm, an item", Host(C_GUESTS / "units_by_sku.wasm", silent=True), "map", order, each=3)
show("word_count.wasm, a word", Host(C_GUESTS / "word_count.wasm", silent=True), "map", {"text": text}, each=100)
show("sum_by_customer.wasm reduce of 1000", Host(C_GUESTS / "sum_by_customer.wasm", silent=True), "reduce", {"k": "a", "v": [1.0] * 1000}, each=1000)
