//! Guests in text form. Each shares a head that exports what every guest must.

/// A module with the imports that most tests need, one page of memory and an allocator that always
/// gives the same place.
pub(crate) fn guest(body: &str) -> String {
    with_memory("(memory (export \"memory\") 2)", body)
}

/// The same with a memory of its own.
pub(crate) fn with_memory(memory: &str, body: &str) -> String {
    format!(
        r#"(module
            (import "aviary" "emit" (func $emit (param i32 i32 i32 i32)))
            (import "aviary" "count" (func $count (param i32 i32 i64)))
            (import "aviary" "log" (func $log (param i32 i32 i32)))
            (import "aviary" "fail" (func $fail (param i32 i32)))
            (import "aviary" "scope" (func $scope (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_write"
                (func $fd_write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "random_get"
                (func $random_get (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "clock_time_get"
                (func $clock_time_get (param i32 i64 i32) (result i32)))
            (import "wasi_snapshot_preview1" "poll_oneoff"
                (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
            {memory}
            (func (export "aviary_abi_v1"))
            (func (export "aviary_alloc") (param i32) (result i32) (i32.const 1024))
            {body}
        )"#
    )
}

/// Emits a 32-bit key and a 32-bit value `times` times: the bytes at 0 and at 8.
pub(crate) fn emitter(times: u32) -> String {
    guest(&format!(
        r#"(data (i32.const 0) "\10\07\00\00\00")
        (data (i32.const 8) "\10\01\00\00\00")
        (func (export "map") (param i32 i32) (local $i i32)
            (local.set $i (i32.const {times}))
            (block $done (loop $again
                (br_if $done (i32.eqz (local.get $i)))
                (call $emit (i32.const 0) (i32.const 5) (i32.const 8) (i32.const 5))
                (local.set $i (i32.sub (local.get $i) (i32.const 1)))
                (br $again))))"#
    ))
}

/// Loops until it is stopped.
pub(crate) fn endless() -> String {
    guest(r#"(func (export "map") (param i32 i32) (loop $again (br $again)))"#)
}

/// Its map does what this code says.
pub(crate) fn mapping(code: &str) -> String {
    guest(&format!(r#"(func (export "map") (param i32 i32) {code})"#))
}
