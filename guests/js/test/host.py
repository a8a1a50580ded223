"""A host for guests, small enough to test them with: the imports of ABI version 1 and nothing else."""

import struct
import time

import wasmtime
from bson import BSON, encode
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

# As the worker has it: threads that call guests need more than this.
STACK_BYTES = 16 << 20
CLOCK_NS = 1_700_000_000_123_000_000


class Failed(Exception):
    """The guest called fail."""


class Host:
    """One instance of a guest."""

    modules = {}

    def __init__(self, path, scope=None, seed=7, memory_max=256 << 20, silent=False, sums=False):
        if path not in Host.modules:
            config = wasmtime.Config()
            config.cranelift_nan_canonicalization = True
            config.epoch_interruption = True
            config.max_wasm_stack = STACK_BYTES
            wasmtime._ffi.wasmtime_config_async_stack_size_set(config.ptr(), STACK_BYTES + (1 << 20))
            engine = wasmtime.Engine(config)
            Host.modules[path] = (engine, wasmtime.Module.from_file(engine, str(path)))
        self.engine, module = Host.modules[path]
        self.store = wasmtime.Store(self.engine)
        self.store.set_limits(memory_size=memory_max)
        self.store.set_epoch_deadline(1)
        self.scope = encode(scope) if scope is not None else b""
        self.seed = seed
        self.emitted, self.summed, self.counts, self.logs = [], [], {}, []
        linker = wasmtime.Linker(self.engine)
        i32, i64, f64 = wasmtime.ValType.i32(), wasmtime.ValType.i64(), wasmtime.ValType.f64()

        def define(name, args, results, function, space="aviary"):
            linker.define_func(space, name, wasmtime.FuncType(args, results), function)

        if silent:
            quiet = """(module (func (export "emit") (param i32 i32 i32 i32))
                (func (export "emit_sum") (param i32 i32 f64 i32)))"""
            quiet = wasmtime.Instance(self.store, wasmtime.Module(self.engine, quiet), [])
            for name in ("emit", "emit_sum"):
                linker.define(self.store, "aviary", name, quiet.exports(self.store)[name])
        else:
            define("emit", [i32] * 4, [], self._emit)
            define("emit_sum", [i32, i32, f64, i32], [], self._emit_sum)
        define("emit_total", [i32] * 5, [], self._emit_total)
        define("count", [i32, i32, i64], [], self._count)
        define("log", [i32] * 3, [], lambda level, p, n: self.logs.append((level, self._text(p, n))))
        define("fail", [i32, i32], [], self._fail)
        define("scope", [i32, i32], [i32], self._scope)
        wasi = "wasi_snapshot_preview1"
        define("clock_time_get", [i32, i64, i32], [i32], self._clock, wasi)
        define("random_get", [i32, i32], [i32], self._random, wasi)
        start = time.thread_time()
        self.exports = linker.instantiate(self.store, module).exports(self.store)
        self.memory = self.exports["memory"]
        if "_initialize" in [e.name for e in module.exports]:
            self.exports["_initialize"](self.store)
        self.boot_s = time.thread_time() - start
        if sums:
            self.exports["aviary_js_sums"](self.store, 1)

    def _read(self, p, n):
        p, n = p & 0xFFFFFFFF, n & 0xFFFFFFFF
        return bytes(self.memory.read(self.store, p, p + n))

    def _text(self, p, n):
        return self._read(p, n).decode()

    def _emit(self, kp, kn, vp, vn):
        self.emitted.append((self._read(kp, kn), self._read(vp, vn)))

    def _emit_sum(self, kp, kn, total, emits):
        self.summed.append((self._read(kp, kn), total, emits))

    def _emit_total(self, kp, kn, vp, vn, emits):
        self.summed.append((self._read(kp, kn), self._read(vp, vn), emits))

    def _count(self, p, n, delta):
        name = self._text(p, n)
        self.counts[name] = self.counts.get(name, 0) + delta

    def _fail(self, p, n):
        raise Failed(self._text(p, n))

    def _scope(self, p, cap):
        part = self.scope[: cap & 0xFFFFFFFF]
        if part:
            self.memory.write(self.store, part, p & 0xFFFFFFFF)
        return len(self.scope)

    def _clock(self, _id, _precision, p):
        self.memory.write(self.store, struct.pack("<Q", CLOCK_NS), p & 0xFFFFFFFF)
        return 0

    def _random(self, p, n):
        self.memory.write(self.store, bytes((self.seed + i * 31) & 0xFF for i in range(n)), p & 0xFFFFFFFF)
        return 0

    def give(self, data):
        """Copies input into the guest, and returns (pointer, length)."""
        p = self.exports["aviary_alloc"](self.store, len(data)) & 0xFFFFFFFF
        self.memory.write(self.store, data, p)
        return p, len(data)

    def call(self, name, data):
        """Calls an export with input; raises Failed or wasmtime.Trap. Returns what it emitted."""
        p, n = self.give(data)
        self.emitted = []
        self.exports[name](self.store, p, n)
        return self.emitted

    def load(self, **stages):
        self.call("aviary_js_load", encode(stages))
        return self

    def map(self, *docs):
        return [(decode(k), decode(v)) for k, v in self.call("map", b"".join(map(as_bytes, docs)))]

    def keyed(self, stage, *docs):
        return [(decode(k), decode(v)) for k, v in self.call(stage, b"".join(map(as_bytes, docs)))]


def as_bytes(doc):
    if isinstance(doc, bytes):
        return doc
    return doc.raw if isinstance(doc, RawBSONDocument) else encode(doc)


def element(tagged, name=b"v"):
    """A document of one element from a type byte and a value."""
    body = tagged[:1] + name + b"\0" + tagged[1:] + b"\0"
    return struct.pack("<I", len(body) + 4) + body


OPTIONS = CodecOptions(tz_aware=False)


def decode(tagged):
    return BSON(element(tagged)).decode(OPTIONS)["v"]
