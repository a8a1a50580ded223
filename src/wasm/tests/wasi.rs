//! The part of WASI that guests get is inert, and the same each time.

use super::guests::{guest, mapping};
use super::*;

/// A map that fails with `len` bytes of memory from 0 on, written by this code.
fn shows(code: &str, len: u32) -> String {
    // The log carries text only, so each byte is written as two letters from `a` to `p`.
    guest(&format!(
        r#"(func (export "map") (param i32 i32) (local $i i32) (local $b i32)
            {code}
            (loop $again
                (local.set $b (i32.load8_u (local.get $i)))
                (i32.store8 (i32.add (i32.const 4096) (i32.mul (local.get $i) (i32.const 2)))
                    (i32.add (i32.const 97) (i32.shr_u (local.get $b) (i32.const 4))))
                (i32.store8 (i32.add (i32.const 4097) (i32.mul (local.get $i) (i32.const 2)))
                    (i32.add (i32.const 97) (i32.and (local.get $b) (i32.const 15))))
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $i) (i32.const {len}))))
            (call $log (i32.const 2) (i32.const 4096) (i32.const {})))"#,
        len * 2
    ))
}

fn shown(text: &str, options: InstanceOptions) -> Vec<u8> {
    let (instance, result) = map(text, options);
    result.unwrap();
    let letters = instance.sink().logs[0].1.as_bytes().to_vec();
    letters.chunks(2).map(|pair| (pair[0] - b'a') << 4 | (pair[1] - b'a')).collect()
}

#[test]
fn randomness_follows_from_the_seed() {
    let text = shows(
        "(drop (call $random_get (i32.const 0) (i32.const 20))) (drop (call $random_get (i32.const 20) (i32.const 12)))",
        32,
    );
    let seeded = |byte| InstanceOptions { seed: [byte; 32], ..InstanceOptions::default() };
    let first = shown(&text, seeded(1));
    assert_eq!(first, shown(&text, seeded(1)));
    assert_ne!(first, shown(&text, seeded(2)));
    let mut expected = [0; 32];
    blake3::Hasher::new_keyed(&[1; 32]).finalize_xof().fill(&mut expected);
    assert_eq!(first, expected);
}

#[test]
fn the_clock_stands_at_the_snapshot_and_sleeping_takes_no_time() {
    // Real time twice, then a sleep of an hour between two readings of the monotonic clock.
    let text = shows(
        r#"(drop (call $clock_time_get (i32.const 0) (i64.const 0) (i32.const 0)))
        (drop (call $clock_time_get (i32.const 1) (i64.const 0) (i32.const 8)))
        (i32.store (i32.const 216) (i32.const 1))
        (i64.store (i32.const 224) (i64.const 3600000000000))
        (if (call $poll_oneoff (i32.const 200) (i32.const 300) (i32.const 1) (i32.const 400)) (then unreachable))
        (if (i32.ne (i32.load (i32.const 400)) (i32.const 1)) (then unreachable))
        (drop (call $clock_time_get (i32.const 0) (i64.const 0) (i32.const 16)))
        (drop (call $clock_time_get (i32.const 1) (i64.const 0) (i32.const 24)))"#,
        32,
    );
    let options = InstanceOptions { now_ms: 1_700_000_000_123, ..timeout_ms(10_000) };
    let bytes = shown(&text, options);
    let read: Vec<u64> =
        bytes.chunks(8).map(|b| u64::from_le_bytes(b.try_into().unwrap())).collect();
    let now_ns = 1_700_000_000_123_000_000;
    let start_ns = crate::wasm::guest::MONOTONIC_START_NS;
    assert_eq!(read, [now_ns, start_ns, now_ns, start_ns + 3_600_000_000_000]);
}

#[test]
fn the_bits_of_a_nan_are_always_the_same() {
    let text = shows(
        r#"(f64.store (i32.const 0) (f64.div (f64.const 0) (f64.const 0)))
        (f64.store (i32.const 8) (f64.add (f64.reinterpret_i64 (i64.const 0x7ff0000000000bad)) (f64.const 1)))
        (f64.store (i32.const 16) (f64.sqrt (f64.const -1)))"#,
        24,
    );
    let canonical = 0x7ff8_0000_0000_0000_u64.to_le_bytes();
    assert_eq!(shown(&text, InstanceOptions::default()), canonical.repeat(3));
}

/// Pieces may overlap, so a few kilobytes can stand for a text of any length: what one call takes is limited,
/// and the guest, which has to come back for the rest, meets its deadline.
#[test]
fn one_write_takes_no_more_than_its_limit() {
    let text = guest(
        r#"(func (export "map") (param i32 i32) (local $n i32)
            (memory.fill (i32.const 65536) (i32.const 10) (i32.const 65536))
            (loop $more
                (i32.store (i32.mul (local.get $n) (i32.const 8)) (i32.const 65536))
                (i32.store offset=4 (i32.mul (local.get $n) (i32.const 8)) (i32.const 40000))
                (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (br_if $more (i32.lt_u (local.get $n) (i32.const 1024))))
            (if (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1024) (i32.const 8200)) (then unreachable))
            (if (i32.ne (i32.load (i32.const 8200)) (i32.const 65536)) (then unreachable)))"#,
    );
    let limits = Limits { log_bytes_max: usize::MAX, ..Limits::default() };
    let (instance, result) = map(&text, InstanceOptions { limits, ..InstanceOptions::default() });
    result.unwrap();
    assert_eq!(instance.sink().logs.len(), 65_536, "empty lines, each of one byte");
}

#[test]
fn standard_output_and_error_are_the_log() {
    let text = guest(
        r#"(data (i32.const 0) "one\ntwo\nth")
        (data (i32.const 16) "ree\n")
        (data (i32.const 32) "\00\00\00\00\0a\00\00\00\10\00\00\00\04\00\00\00")
        (func (export "map") (param i32 i32)
            (if (call $fd_write (i32.const 1) (i32.const 32) (i32.const 2) (i32.const 64)) (then unreachable))
            (if (i32.ne (i32.load (i32.const 64)) (i32.const 14)) (then unreachable))
            (if (call $fd_write (i32.const 2) (i32.const 32) (i32.const 1) (i32.const 64)) (then unreachable))
            ;; A file that is not open, and pieces that lie outside of memory.
            (if (i32.ne (call $fd_write (i32.const 3) (i32.const 32) (i32.const 1) (i32.const 64)) (i32.const 8)) (then unreachable))
            (if (i32.ne (call $fd_write (i32.const 1) (i32.const -4) (i32.const 1) (i32.const 64)) (i32.const 21)) (then unreachable))
            (if (i32.ne (call $fd_write (i32.const 1) (i32.const 32) (i32.const -1) (i32.const 64)) (i32.const 28)) (then unreachable)))"#,
    );
    let (instance, result) = map(&text, InstanceOptions::default());
    result.unwrap();
    let line = |level, text: &str| (level, text.to_owned());
    assert_eq!(
        instance.sink().logs,
        [
            line(Level::Info, "one"),
            line(Level::Info, "two"),
            line(Level::Info, "three"),
            line(Level::Warn, "one"),
            line(Level::Warn, "two"),
            // The end of the call ends the last line too.
            line(Level::Warn, "th"),
        ]
    );
}

#[test]
fn exiting_is_an_error_that_shows_the_end_of_standard_error() {
    let text = guest(
        r#"(data (i32.const 0) "panic: no such key\n")
        (data (i32.const 32) "\00\00\00\00\13\00\00\00")
        (func (export "map") (param i32 i32)
            (drop (call $fd_write (i32.const 2) (i32.const 32) (i32.const 1) (i32.const 64)))
            (call $proc_exit (i32.const 2)))"#,
    );
    match map_error(&text, InstanceOptions::default()) {
        GuestError::Exit { code, stderr, .. } => {
            assert_eq!((code, stderr.as_str()), (2, "panic: no such key"));
        }
        other => panic!("{other:?}"),
    }
    let error = map_error(&mapping("(call $proc_exit (i32.const 0))"), InstanceOptions::default());
    assert!(matches!(error, GuestError::Exit { code: 0, .. }));
}

#[test]
fn the_start_of_a_common_libc_finds_no_arguments_variables_or_files() {
    // What the start-up code of C, Rust and Go asks for, in their order.
    let text = r#"(module
        (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_fdstat_get" (func $stat (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_seek" (func $seek (param i32 i64 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
        (import "wasi_snapshot_preview1" "path_open"
            (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
        (memory (export "memory") 1)
        (func (export "aviary_abi_v1"))
        (func (export "aviary_alloc") (param i32) (result i32) (i32.const 1024))
        (func $is (param i32 i32) (if (i32.ne (local.get 0) (local.get 1)) (then unreachable)))
        (func (export "_initialize")
            (i64.store (i32.const 0) (i64.const -1))
            (call $is (call $args_sizes (i32.const 0) (i32.const 4)) (i32.const 0))
            (call $is (i32.or (i32.load (i32.const 0)) (i32.load (i32.const 4))) (i32.const 0))
            (call $is (call $args (i32.const 0) (i32.const 4)) (i32.const 0))
            (call $is (call $environ_sizes (i32.const 0) (i32.const 4)) (i32.const 0))
            (call $is (call $environ (i32.const 0) (i32.const 4)) (i32.const 0))
            (call $is (call $stat (i32.const 1) (i32.const 0)) (i32.const 0))
            (call $is (i32.load8_u (i32.const 0)) (i32.const 2))
            (call $is (call $stat (i32.const 3) (i32.const 0)) (i32.const 8))
            (call $is (call $stat (i32.const 1) (i32.const 65530)) (i32.const 21))
            (call $is (call $prestat (i32.const 3) (i32.const 0)) (i32.const 8))
            (call $is (call $read (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 8)) (i32.const 0))
            (call $is (call $seek (i32.const 1) (i64.const 0) (i32.const 0) (i32.const 0)) (i32.const 70))
            (call $is (call $close (i32.const 5)) (i32.const 8))
            (call $is (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 0)) (i32.const 8))
            (call $is (call $yield) (i32.const 0)))
        (func (export "map") (param i32 i32)))"#;
    map(text, InstanceOptions::default()).1.unwrap();
}
