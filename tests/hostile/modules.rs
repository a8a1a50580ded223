//! Hostile WebAssembly, most of it as text.

use std::fmt::Write as _;

use super::{Case, Outcome, TIME};
use Outcome::{Bounded, Refused, Stopped};

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
fn emits(name: &'static str, value: &str, bytes: usize) -> Case {
    let text = whole(&format!(
        r#"(data (i32.const 0) "\10\01\00\00\00") (data (i32.const 16) "{value}")
        (func (export "map") (param i32 i32)
            (call $emit (i32.const 0) (i32.const 5) (i32.const 16) (i32.const {bytes})))"#
    ));
    module(name, "map", &text, Stopped("emitted something impossible"))
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
        map("wasm-takes-all-memory", grows, Stopped("ran out of memory")),
        map("wasm-unreachable", "unreachable", Stopped("trapped")),
        map(
            "wasm-divides-by-zero",
            "(drop (i32.div_s (i32.const 1) (local.get $i)))",
            Stopped("trapped"),
        ),
        map("wasm-reads-outside", "(drop (i32.load (i32.const -4)))", Stopped("trapped")),
        map(
            "wasm-writes-outside",
            "(i64.store (i32.const 0x7fffffff) (i64.const -1))",
            Stopped("trapped"),
        ),
        module(
            "wasm-calls-nothing",
            "map",
            &table("(call_indirect (type $other) (i64.const 0) (i32.const 1)) drop"),
            Stopped("trapped"),
        ),
        module(
            "wasm-calls-another-type",
            "map",
            &table("(call_indirect (type $other) (i64.const 0) (i32.const 0)) drop"),
            Stopped("trapped"),
        ),
        module(
            "wasm-recursion",
            "map",
            &whole(
                r#"(func $f (export "map") (param i32 i32) (call $f (local.get 0) (local.get 1)))"#,
            ),
            Stopped("trapped"),
        ),
        map("wasm-exits", "(call $exit (i32.const 0))", Stopped("map")),
        map(
            "wasm-fails-without-text",
            "(call $fail (i32.const 0) (i32.const 0))",
            Stopped("failed"),
        ),
        map("wasm-fails-outside", "(call $fail (i32.const -1) (i32.const 100))", Stopped("map")),
        map(
            "wasm-logs-outside",
            "(call $log (i32.const 0) (i32.const -1) (i32.const 100))",
            Stopped("map"),
        ),
        map(
            "wasm-counts-a-huge-name",
            "(call $count (i32.const 0) (i32.const 65536) (i64.const 1))",
            Stopped("map"),
        ),
        map(
            "wasm-scope-outside",
            "(drop (call $scope (i32.const -8) (i32.const 100)))",
            Stopped("map"),
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
        module(
            "wasm-data-outside",
            "map",
            &whole(&format!(r#"(data (i32.const 131071) "too much") {MAP}"#)),
            Stopped("trapped"),
        ),
        module(
            "wasm-alloc-outside",
            "map",
            &format!(
                r#"(module {MEMORY} {VERSION} {MAP} (func (export "aviary_alloc") (param i32) (result i32) (i32.const -16)))"#
            ),
            Stopped("aviary_alloc"),
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
        module("wasm-imports-a-system", "map", &import("env", "system"), Refused("env.system")),
        module(
            "wasm-imports-sockets",
            "map",
            &import("wasi_snapshot_preview1", "sock_accept"),
            Refused("sock_accept"),
        ),
        module("wasm-imports-another-emit", "map", &import("aviary", "emit"), Refused("emit")),
        module(
            "wasm-imports-memory",
            "map",
            &format!(r#"(module (import "env" "memory" (memory 1)) {VERSION} {ALLOC} {MAP})"#),
            Refused("env.memory"),
        ),
        module(
            "wasm-without-memory",
            "map",
            &format!("(module {VERSION} {ALLOC} {MAP})"),
            Refused("memory"),
        ),
        module(
            "wasm-without-alloc",
            "map",
            &format!("(module {MEMORY} {VERSION} {MAP})"),
            Refused("aviary_alloc"),
        ),
        module(
            "wasm-without-version",
            "map",
            &format!("(module {MEMORY} {ALLOC} {MAP})"),
            Refused("aviary_abi_v1"),
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
            Refused("exports none of"),
        ),
        module(
            "wasm-map-of-another-type",
            "map",
            &format!(r#"(module {MEMORY} {VERSION} {ALLOC} (func (export "map") (param i64)))"#),
            Refused("map"),
        ),
        module("wasm-shared-memory", "map", &shared, Refused("shared")),
        module(
            "wasm-64-bit-memory",
            "map",
            &format!(r#"(module (memory (export "memory") i64 1) {VERSION} {ALLOC} {MAP})"#),
            Refused("memory"),
        ),
        module(
            "wasm-two-memories",
            "map",
            &format!("(module {MEMORY} (memory 1) {VERSION} {ALLOC} {MAP})"),
            Refused("memor"),
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
    vec![
        module(
            "wasm-4-gib-of-memory",
            "map",
            &format!(r#"(module (memory (export "memory") 65536) {VERSION} {ALLOC} {MAP})"#),
            Refused("memory"),
        ),
        module(
            "wasm-huge-table",
            "map",
            &whole(&format!("(table 100000000 funcref) {MAP}")),
            Refused("table"),
        ),
        module(
            "wasm-many-tables",
            "map",
            &whole(&format!("{} {MAP}", "(table 1 funcref)".repeat(100))),
            Refused("tables"),
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
        module("wasm-merges", "map", &whole(&merging), Refused("compiling work")),
        module(
            "wasm-many-functions",
            "map",
            &whole(&format!("{functions} {MAP}")),
            Refused("functions"),
        ),
        module("wasm-large-function", "map", &whole(&large), Refused("size of a function")),
        module(
            "wasm-many-segments",
            "map",
            &whole(&format!("{segments} {MAP}")),
            Refused("segments"),
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
        bytes("bytes-none", "map", Vec::new(), Refused("")),
        bytes("bytes-magic-only", "map", b"\0asm".to_vec(), Refused("")),
        bytes("bytes-empty-module", "map", b"\0asm\x01\0\0\0".to_vec(), Refused("memory")),
        bytes("bytes-cut-off", "map", good[..good.len() - 7].to_vec(), Refused("")),
        bytes("bytes-flipped", "map", flipped, Refused("")),
        bytes("bytes-component", "map", component, Refused("component")),
        bytes("bytes-noise", "map", noise, Refused("")),
        bytes("bytes-noise-with-magic", "map", with_magic, Refused("")),
    ]
}

fn emitting() -> Vec<Case> {
    let outside = "(call $emit (i32.const 0) (i32.const 5) (i32.const -5) (i32.const 100))";
    let negative = "(call $emit (i32.const 0) (i32.const 5) (i32.const 0) (i32.const -1))";
    let large = r#"(module (import "aviary" "emit" (func $emit (param i32 i32 i32 i32)))
        (memory (export "memory") 600) (func (export "aviary_abi_v1"))
        (func (export "aviary_alloc") (param i32) (result i32) (i32.const 1024))
        (data (i32.const 0) "\10\01\00\00\00") (data (i32.const 65536) "\02\fc\ff\ff\01")
        (func (export "map") (param i32 i32)
            (call $emit (i32.const 0) (i32.const 5) (i32.const 65536) (i32.const 33554433))))"#;
    vec![
        emits("emit-of-no-type", r"\42\00", 2),
        emits("emit-cut-off", r"\10\01\00", 3),
        emits("emit-too-long", r"\10\01\00\00\00\00", 6),
        emits("emit-nothing", "", 0),
        emits("emit-document-that-lies", r"\03\ff\00\00\00\00", 6),
        emits("emit-document-without-end", r"\03\05\00\00\00\01", 6),
        emits("emit-string-not-utf8", r"\02\03\00\00\00\ff\fe\00", 8),
        emits("emit-negative-length", r"\02\ff\ff\ff\ff\00", 6),
        emits("emit-bool-of-two", r"\08\02", 2),
        map("emit-outside", outside, Stopped("map")),
        map("emit-4-gib", negative, Stopped("map")),
        module("emit-32-mib", "map", large, Stopped("map")),
    ]
}
