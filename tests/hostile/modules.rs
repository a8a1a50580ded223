//! Hostile WebAssembly, most of it as text.

use std::fmt::Write as _;

use super::{Case, Outcome, TIME};
use Outcome::{Bounded, Refused, Stopped, Unfit};

const HEAD: &str = r#"
    (import "aviary" "emit" (func $emit (param i32 i32 i32 i32)))
    (import "aviary" "count" (func $count (param i32 i32 i64)))
    (import "aviary" "log" (func $log (param i32 i32 i32)))
    (import "aviary" "fail" (func $fail (param i32 i32)))
    (import "aviary" "scope" (func $scope (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))"#;
const VERSION: &str = r#"(func (export "aviary_abi_v1"))"#;
const MEMORY: &str = r#"(memory (export "memory") 2)"#;
const ALLOC: &str = r#"(func (export "aviary_alloc") (param i32) (result i32) (i32.const 1024))"#;
const MAP: &str = r#"(func (export "map") (param i32 i32))"#;

/// What the runtime says of addresses beyond the end of memory.
const OUTSIDE: &str = "out of bounds memory access";
/// What is said of a value that has as much as it may by itself.
const TOO_MUCH: &str = "key 1 and its value have 16777221 bytes together, more than 16711680";
const CUT_OFF: &str = "the value is not a BSON value: it is cut off";

fn module(name: &'static str, stage: &'static str, text: &str, outcome: Outcome) -> Case {
    let content = aviary::wasm::wat_to_wasm(text).unwrap_or_else(|e| panic!("{name}: {e}"));
    bytes(name, stage, content, outcome)
}

fn bytes(name: &'static str, stage: &'static str, content: Vec<u8>, outcome: Outcome) -> Case {
    Case { name, language: "wasm", stage, content, outcome }
}

/// A module that is in order but for what these parts do.
fn whole(parts: &str) -> String {
    format!("(module {HEAD} {MEMORY} {VERSION} {ALLOC} {parts})")
}

/// A module whose map has this body.
fn map(name: &'static str, body: &str, outcome: Outcome) -> Case {
    let text = whole(&format!(
        r#"(func (export "map") (param $p i32) (param $n i32) (local $i i32) {body})"#
    ));
    module(name, "map", &text, outcome)
}

/// A module whose map emits the key 1 and the bytes given, as the type and value of a value.
fn emits(name: &'static str, value: &str, bytes: usize, wrong: &'static str) -> Case {
    let text = whole(&format!(
        r#"(data (i32.const 0) "\10\01\00\00\00") (data (i32.const 16) "{value}")
        (func (export "map") (param i32 i32)
            (call $emit (i32.const 0) (i32.const 5) (i32.const 16) (i32.const {bytes})))"#
    ));
    module(name, "map", &text, Stopped(wrong))
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = loops();
    cases.extend(traps());
    cases.extend(contracts());
    cases.extend(bombs());
    cases.extend(malformed());
    cases.extend(emitting());
    cases
}

fn loops() -> Vec<Case> {
    let endless = "(loop $again (br $again))";
    let stage =
        |stage: &str| whole(&format!(r#"(func (export "{stage}") (param i32 i32) {endless})"#));
    // A reduce that streams, of which one of the three does not end.
    let stream = |part: &str| {
        let mut parts = String::new();
        for (name, params) in [
            ("reduce_begin", "(param i32 i32)"),
            ("reduce_next", "(param i32 i32)"),
            ("reduce_end", ""),
        ] {
            let body = if name == part { endless } else { "" };
            let _ = write!(parts, r#"(func (export "{name}") {params} {body})"#);
        }
        whole(&parts)
    };
    let start = whole(&format!("(func $f {endless}) (start $f) {MAP}"));
    let initialize = whole(&format!(r#"(func (export "_initialize") {endless}) {MAP}"#));
    let alloc = format!(
        r#"(module {MEMORY} {VERSION} {MAP} (func (export "aviary_alloc") (param i32) (result i32) {endless} (i32.const 0)))"#
    );
    vec![
        module("wasm-loop-in-map", "map", &stage("map"), Stopped(TIME)),
        module("wasm-loop-in-combine", "combine", &stage("combine"), Stopped(TIME)),
        module("wasm-loop-in-reduce", "reduce", &stage("reduce"), Stopped(TIME)),
        module("wasm-loop-in-finalize", "finalize", &stage("finalize"), Stopped(TIME)),
        module("wasm-loop-in-reduce-begin", "reduce", &stream("reduce_begin"), Stopped(TIME)),
        module("wasm-loop-in-reduce-next", "reduce", &stream("reduce_next"), Stopped(TIME)),
        module("wasm-loop-in-reduce-end", "reduce", &stream("reduce_end"), Stopped(TIME)),
        module("wasm-loop-in-start", "map", &start, Stopped(TIME)),
        module("wasm-loop-in-initialize", "map", &initialize, Stopped(TIME)),
        module("wasm-loop-in-alloc", "map", &alloc, Stopped(TIME)),
        map(
            "wasm-loop-of-calls",
            "(loop $again (call $count (i32.const 0) (i32.const 1) (i64.const 1)) (br $again))",
            Stopped(TIME),
        ),
        map(
            "wasm-loop-of-logs",
            "(loop $again (call $log (i32.const 2) (i32.const 0) (i32.const 65536)) (br $again))",
            Stopped(TIME),
        ),
        map(
            "wasm-sleeps",
            "(loop $again (drop (call $poll (i32.const 0) (i32.const 256) (i32.const 1) (i32.const 512))) (br $again))",
            Stopped(TIME),
        ),
        map(
            "wasm-loop-growing-memory",
            "(loop $again (drop (memory.grow (i32.const 1))) (br $again))",
            Stopped(TIME),
        ),
    ]
}

fn traps() -> Vec<Case> {
    let grows = "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";
    let table = |body: &str| {
        whole(&format!(
            r#"(table $t 2 funcref) (type $other (func (param i64) (result i64))) (elem (i32.const 0) $f)
            (func $f) (func (export "map") (param i32 i32) {body})"#
        ))
    };
    vec![
        map(
            "wasm-takes-all-memory",
            grows,
            Stopped("ran out of memory on the document with _id 0: the limit is 64 MiB"),
        ),
        map("wasm-unreachable", "unreachable", Stopped("unreachable code was reached")),
        map(
            "wasm-divides-by-zero",
            "(drop (i32.div_s (i32.const 1) (local.get $i)))",
            Stopped("integer divide by zero"),
        ),
        map("wasm-reads-outside", "(drop (i32.load (i32.const -4)))", Stopped(OUTSIDE)),
        map(
            "wasm-writes-outside",
            "(i64.store (i32.const 0x7fffffff) (i64.const -1))",
            Stopped(OUTSIDE),
        ),
        module(
            "wasm-calls-nothing",
            "map",
            &table("(call_indirect (type $other) (i64.const 0) (i32.const 1)) drop"),
            Stopped("uninitialized element"),
        ),
        module(
            "wasm-calls-another-type",
            "map",
            &table("(call_indirect (type $other) (i64.const 0) (i32.const 0)) drop"),
            Stopped("indirect call type mismatch"),
        ),
        module(
            "wasm-recursion",
            "map",
            &whole(
                r#"(func $f (export "map") (param i32 i32) (call $f (local.get 0) (local.get 1)))"#,
            ),
            Stopped("stack overflow"),
        ),
        map(
            "wasm-exits",
            "(call $exit (i32.const 0))",
            Stopped("run map: the function exited with code 0"),
        ),
        map(
            "wasm-fails-without-text",
            "(call $fail (i32.const 0) (i32.const 0))",
            Stopped("failed on the document with _id 0:  ("),
        ),
        map(
            "wasm-fails-outside",
            "(call $fail (i32.const -1) (i32.const 100))",
            Stopped("the text of the failure at 4294967295 with 100 bytes lies outside of memory"),
        ),
        map(
            "wasm-logs-outside",
            "(call $log (i32.const 0) (i32.const -1) (i32.const 100))",
            Stopped("the log text at 4294967295 with 100 bytes lies outside of memory"),
        ),
        map(
            "wasm-counts-a-huge-name",
            "(call $count (i32.const 0) (i32.const 65536) (i64.const 1))",
            Stopped("the counter's name of 65536 bytes exceeds the limit of 256 bytes"),
        ),
        map(
            "wasm-scope-outside",
            "(drop (call $scope (i32.const -8) (i32.const 100)))",
            Stopped("the room for the scope at 4294967288 with 100 bytes lies outside of memory"),
        ),
        map(
            "wasm-random-without-end",
            "(if (i32.eqz (call $random_get (i32.const 0) (i32.const -1))) (then unreachable))",
            Bounded,
        ),
        map(
            "wasm-writes-to-no-file",
            "(if (i32.eqz (call $fd_write (i32.const 9) (i32.const 0) (i32.const 1) (i32.const 64))) (then unreachable))",
            Bounded,
        ),
        // All of a large memory, as many times as one call has vectors: newlines, so that each byte is a line. It
        // is told that only some was written, which is no more than is done.
        module(
            "wasm-writes-48-gib",
            "map",
            &format!(
                r#"(module {HEAD} (memory (export "memory") 768) {VERSION} {ALLOC}
                (func (export "map") (param i32 i32) (local $at i32)
                    (memory.fill (i32.const 0) (i32.const 10) (i32.const 0x3000000))
                    (local.set $at (i32.const 65536))
                    (loop $again
                        (i32.store (local.get $at) (i32.const 0))
                        (i32.store offset=4 (local.get $at) (i32.const 0x3000000))
                        (local.set $at (i32.add (local.get $at) (i32.const 8)))
                        (br_if $again (i32.lt_u (local.get $at) (i32.const 73728))))
                    (if (call $fd_write (i32.const 1) (i32.const 65536) (i32.const 1024) (i32.const 64))
                        (then unreachable))
                    (if (i32.ge_u (i32.sub (i32.load (i32.const 64)) (i32.const 1)) (i32.const -2))
                        (then unreachable))))"#
            ),
            Bounded,
        ),
        module(
            "wasm-data-outside",
            "map",
            &whole(&format!(r#"(data (i32.const 131071) "too much") {MAP}"#)),
            Stopped(OUTSIDE),
        ),
        module(
            "wasm-alloc-outside",
            "map",
            &format!(
                r#"(module {MEMORY} {VERSION} {MAP} (func (export "aviary_alloc") (param i32) (result i32) (i32.const -16)))"#
            ),
            Stopped("returned 4294967280, which is outside of memory"),
        ),
    ]
}

fn contracts() -> Vec<Case> {
    let import = |module: &str, name: &str| {
        format!(r#"(module (import "{module}" "{name}" (func)) {MEMORY} {VERSION} {ALLOC} {MAP})"#)
    };
    let shared =
        format!(r#"(module (memory (export "memory") 1 2 shared) {VERSION} {ALLOC} {MAP})"#);
    vec![
        module(
            "wasm-imports-a-system",
            "map",
            &import("env", "system"),
            Refused("it imports env.system, which guests are not given"),
        ),
        module(
            "wasm-imports-sockets",
            "map",
            &import("wasi_snapshot_preview1", "sock_accept"),
            Refused("it imports wasi_snapshot_preview1.sock_accept, which guests are not given"),
        ),
        module(
            "wasm-imports-another-emit",
            "map",
            &import("aviary", "emit"),
            Refused("it imports aviary.emit as () -> (), which is (i32, i32, i32, i32) -> ()"),
        ),
        module(
            "wasm-imports-memory",
            "map",
            &format!(r#"(module (import "env" "memory" (memory 1)) {VERSION} {ALLOC} {MAP})"#),
            Refused("it imports env.memory, which guests are not given"),
        ),
        module(
            "wasm-without-memory",
            "map",
            &format!("(module {VERSION} {ALLOC} {MAP})"),
            Refused("it does not export memory"),
        ),
        module(
            "wasm-without-alloc",
            "map",
            &format!("(module {MEMORY} {VERSION} {MAP})"),
            Refused("it does not export aviary_alloc"),
        ),
        module(
            "wasm-without-version",
            "map",
            &format!("(module {MEMORY} {ALLOC} {MAP})"),
            Refused("it names no version of the contract"),
        ),
        module(
            "wasm-of-another-version",
            "map",
            &format!(r#"(module {MEMORY} {ALLOC} {MAP} (func (export "aviary_abi_v2")))"#),
            Refused("follows version 2"),
        ),
        module(
            "wasm-without-a-stage",
            "map",
            &format!("(module {MEMORY} {VERSION} {ALLOC})"),
            Refused("it exports none of map, combine, reduce, finalize"),
        ),
        module(
            "wasm-map-of-another-type",
            "map",
            &format!(r#"(module {MEMORY} {VERSION} {ALLOC} (func (export "map") (param i64)))"#),
            Refused("it exports map as (i64) -> (), which must be (i32, i32) -> ()"),
        ),
        module(
            "wasm-shared-memory",
            "map",
            &shared,
            Refused("threads must be enabled for shared memories"),
        ),
        module(
            "wasm-64-bit-memory",
            "map",
            &format!(r#"(module (memory (export "memory") i64 1) {VERSION} {ALLOC} {MAP})"#),
            Refused("memory64 must be enabled for 64-bit memories"),
        ),
        module(
            "wasm-two-memories",
            "map",
            &format!("(module {MEMORY} (memory 1) {VERSION} {ALLOC} {MAP})"),
            Refused("multiple memories"),
        ),
    ]
}

fn bombs() -> Vec<Case> {
    // Each block branches out of all others, with locals that differ at each: what merging costs most.
    let mut merging = String::from(r#"(func (export "map") (param i32 i32)"#);
    for _ in 0..10_000 {
        merging.push_str("(local i32)");
    }
    for n in 0..3_000 {
        let _ = write!(
            merging,
            "(block (br_if 0 (local.get 0)) (local.set {} (i32.const {n})))",
            n + 2
        );
    }
    merging.push(')');
    let functions = "(func)".repeat(100_001);
    let large = format!(r#"(func {}) {MAP}"#, "nop ".repeat(1 << 20));
    let segments = r#"(data (i32.const 0) "x")"#.repeat(100_001);
    let segment = format!(r#"(data (i32.const 0) "{}")"#, "x".repeat(4 << 20));
    vec![
        module(
            "wasm-4-gib-of-memory",
            "map",
            &format!(r#"(module (memory (export "memory") 65536) {VERSION} {ALLOC} {MAP})"#),
            Unfit("memory at the start in bytes: 4294967296 exceeds the limit of"),
        ),
        module(
            "wasm-huge-table",
            "map",
            &whole(&format!("(table 100000000 funcref) {MAP}")),
            Refused("elements of a table: 100000000 exceeds the limit of 65536"),
        ),
        module(
            "wasm-many-tables",
            "map",
            &whole(&format!("{} {MAP}", "(table 1 funcref)".repeat(100))),
            Refused("tables: 100 exceeds the limit of 4"),
        ),
        module(
            "wasm-loop-growing-table",
            "map",
            &whole(
                r#"(table $t 1 funcref) (func (export "map") (param i32 i32)
                (loop $again (drop (table.grow $t (ref.null func) (i32.const 1000))) (br $again)))"#,
            ),
            Stopped(TIME),
        ),
        module(
            "wasm-merges",
            "map",
            &whole(&merging),
            Refused(
                "compiling work (branches times locals): 60006000 exceeds the limit of 20000000",
            ),
        ),
        module(
            "wasm-many-operators",
            "map",
            &whole(&format!("(func {}) {MAP}", "i32.const 0 drop ".repeat(200_000))),
            Refused("operators of a function: 400001 exceeds the limit of 250000"),
        ),
        module(
            "wasm-many-locals",
            "map",
            &whole(&format!(
                "{} {MAP}",
                format!("(func (local {}))", "i32 ".repeat(50_000)).repeat(81)
            )),
            Refused("locals of all functions: 4050000 exceeds the limit of 4000000"),
        ),
        module(
            "wasm-many-functions",
            "map",
            &whole(&format!("{functions} {MAP}")),
            Refused("functions: 100004 exceeds the limit of 100000"),
        ),
        module(
            "wasm-large-function",
            "map",
            &whole(&large),
            Refused("size of a function in bytes: 1048578 exceeds the limit of 1048576"),
        ),
        module(
            "wasm-many-segments",
            "map",
            &whole(&format!("{segments} {MAP}")),
            Refused("data segments: 100001 exceeds the limit of 100000"),
        ),
        // As much data in one as a large program has, and far more than fits into its memory.
        module(
            "wasm-huge-segment-outside",
            "map",
            &whole(&format!("{segment} {MAP}")),
            Stopped(OUTSIDE),
        ),
        module(
            "wasm-huge-segment",
            "map",
            &format!(r#"(module (memory (export "memory") 64) {VERSION} {ALLOC} {segment} {MAP})"#),
            Bounded,
        ),
    ]
}

fn malformed() -> Vec<Case> {
    let good = aviary::wasm::wat_to_wasm(&whole(MAP)).expect("a module");
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    for byte in &mut flipped[middle..middle + 8] {
        *byte ^= 0xff;
    }
    let mut component = b"\0asm".to_vec();
    component.extend([0x0d, 0, 1, 0]);
    let noise: Vec<u8> =
        (0..4_096_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let with_magic = [&b"\0asm\x01\0\0\0"[..], &noise].concat();
    vec![
        bytes("bytes-none", "map", Vec::new(), Refused("expected at least one module field")),
        bytes(
            "bytes-magic-only",
            "map",
            b"\0asm".to_vec(),
            Refused("unexpected end-of-file (at byte 4)"),
        ),
        bytes(
            "bytes-empty-module",
            "map",
            b"\0asm\x01\0\0\0".to_vec(),
            Refused("it does not export memory; it does not export aviary_alloc"),
        ),
        bytes(
            "bytes-cut-off",
            "map",
            good[..good.len() - 7].to_vec(),
            Refused("unexpected end-of-file"),
        ),
        bytes(
            "bytes-flipped",
            "map",
            flipped,
            Refused("it is not valid: malformed UTF-8 encoding"),
        ),
        bytes(
            "bytes-component",
            "map",
            component,
            Refused("it is a component; a core module is needed"),
        ),
        bytes(
            "bytes-noise",
            "map",
            noise,
            Refused("it is neither a WebAssembly module nor WebAssembly text: it is not UTF-8"),
        ),
        bytes(
            "bytes-noise-with-magic",
            "map",
            with_magic,
            Refused("it is not valid: unexpected end-of-file"),
        ),
    ]
}

fn emitting() -> Vec<Case> {
    // The key 1, and a value that lies elsewhere.
    let at = |ptr: i64, len: i64| {
        whole(&format!(
            r#"(data (i32.const 0) "\10\01\00\00\00") (func (export "map") (param i32 i32)
                (call $emit (i32.const 0) (i32.const 5) (i32.const {ptr}) (i32.const {len})))"#
        ))
    };
    // A string of so many bytes of text.
    let string = |stage: &str, text: u32| {
        let len: String = (text + 1).to_le_bytes().map(|byte| format!("\\{byte:02x}")).concat();
        format!(
            r#"(module {HEAD} (memory (export "memory") 600) {VERSION} {ALLOC}
            (data (i32.const 0) "\10\01\00\00\00") (data (i32.const 65536) "\02{len}")
            (func (export "{stage}") (param i32 i32)
                (call $emit (i32.const 0) (i32.const 5) (i32.const 65536) (i32.const {}))))"#,
            text + 6
        )
    };
    // The most that a value may have.
    let most = (16 << 20) - 6;
    // The same under the key that was given: its type stands before its name, its bytes behind.
    let in_finalize = string("finalize", most).replace(
        "(call $emit (i32.const 0) (i32.const 5)",
        r#"(i32.store8 (i32.const 0) (i32.load8_u offset=4 (local.get 0)))
        (i64.store (i32.const 1) (i64.load offset=7 (local.get 0)))
        (call $emit (i32.const 0)
            (select (i32.const 5) (i32.const 9) (i32.eq (i32.load8_u (i32.const 0)) (i32.const 16)))"#,
    );
    vec![
        emits(
            "emit-of-no-type",
            r"\42\00",
            2,
            "the value is not a BSON value: its type is unknown",
        ),
        emits("emit-cut-off", r"\10\01\00", 3, CUT_OFF),
        emits(
            "emit-too-long",
            r"\10\01\00\00\00\00",
            6,
            "the value is not a BSON value: bytes follow its end",
        ),
        emits("emit-nothing", "", 0, "the value is not a BSON value: it is empty"),
        emits("emit-document-that-lies", r"\03\ff\00\00\00\00", 6, CUT_OFF),
        emits(
            "emit-document-without-end",
            r"\03\05\00\00\00\01",
            6,
            "the value is not a BSON value: a document does not end with a zero byte",
        ),
        emits(
            "emit-string-not-utf8",
            r"\02\03\00\00\00\ff\fe\00",
            8,
            "the value is not a BSON value: a string is not UTF-8",
        ),
        emits(
            "emit-negative-length",
            r"\02\ff\ff\ff\ff\00",
            6,
            "the value is not a BSON value: a length is negative",
        ),
        emits(
            "emit-bool-of-two",
            r"\08\02",
            2,
            "the value is not a BSON value: a boolean is neither 0 nor 1",
        ),
        module(
            "emit-outside",
            "map",
            &at(-5, 100),
            Stopped("the value at 4294967291 with 100 bytes lies outside of memory"),
        ),
        module(
            "emit-4-gib",
            "map",
            &at(0, -1),
            Stopped("the value at 0 with 4294967295 bytes lies outside of memory"),
        ),
        module(
            "emit-32-mib",
            "map",
            &string("map", (32 << 20) - 6),
            Stopped("the value of 33554432 bytes exceeds the limit of 16777216 bytes"),
        ),
        module(
            "emit-16-mib-and-a-byte",
            "map",
            &string("map", most + 1),
            Stopped("the value of 16777217 bytes exceeds the limit of 16777216 bytes"),
        ),
        // As much as a value may have is more than fits into a document beside its key.
        module("emit-16-mib", "map", &string("map", most), Unfit(TOO_MUCH)),
        module("emit-16-mib-in-reduce", "reduce", &string("reduce", most), Unfit(TOO_MUCH)),
        module(
            "emit-16-mib-in-finalize",
            "finalize",
            &in_finalize,
            Unfit("has 16777240 bytes; MongoDB stores documents of at most 16 MiB"),
        ),
        module(
            "emit-another-key",
            "finalize",
            &string("finalize", 1),
            Unfit("finalize must emit the key it was given, once"),
        ),
    ]
}
