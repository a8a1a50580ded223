//! A guest cannot take more than it is given, and cannot harm its neighbours.

use std::time::{Duration, Instant};

use super::guests::{emitter, endless, guest, mapping, with_memory};
use super::*;

const GROW: &str = r#"(func (export "map") (param i32 i32)
    (loop $again
        (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then unreachable))
        (br $again)))"#;

#[test]
fn an_endless_loop_ends_after_its_time_and_not_before() {
    let begun = Instant::now();
    let error = map_error(&endless(), timeout_ms(100));
    let limit = Duration::from_millis(100);
    assert!(
        matches!(error, GuestError::Timeout { step: Step::Stage(Stage::Map), limit: l } if l == limit)
    );
    assert!(begun.elapsed() >= limit);
    assert!(!error.is_deterministic());
}

#[test]
fn a_neighbour_of_a_guest_that_times_out_goes_on() {
    // Both run at once: the neighbour counts for as long as the other one loops.
    let (begun_sender, begun) = std::sync::mpsc::channel();
    let looping = std::thread::spawn(move || {
        begun_sender.send(()).unwrap();
        map_error(&endless(), timeout_ms(150))
    });
    begun.recv().unwrap();
    let mut neighbour = start(&emitter(1), timeout_ms(10_000)).unwrap();
    let mut calls = 0;
    while !looping.is_finished() {
        neighbour.call(Stage::Map, &[]).unwrap();
        calls += 1;
    }
    assert!(matches!(looping.join().unwrap(), GuestError::Timeout { .. }));
    neighbour.call(Stage::Map, &[]).unwrap();
    assert_eq!(neighbour.sink().pairs.len(), calls + 1);
    assert!(calls > 0);
}

#[test]
fn each_call_has_the_whole_time_for_itself() {
    // Calls of about a millisecond: together they exceed the limit, and each alone is so far below it that a busy
    // machine may stop it for a while.
    const LIMIT_MS: u64 = 2_000;
    let text = guest(
        r#"(func (export "map") (param i32 i32) (local $i i32)
            (local.set $i (i32.const 300000))
            (loop $again
                (local.set $i (i32.sub (local.get $i) (i32.const 1)))
                (br_if $again (local.get $i))))"#,
    );
    let mut instance = start(&text, timeout_ms(LIMIT_MS)).unwrap();
    let mut together = Duration::ZERO;
    while together < Duration::from_millis(LIMIT_MS * 5 / 4) {
        let begun = Instant::now();
        instance.call(Stage::Map, &[]).unwrap();
        together += begun.elapsed();
    }
}

#[test]
fn starting_is_under_the_deadline_too() {
    let start_loops = guest(
        "(func $go (loop $again (br $again))) (start $go) (func (export \"map\") (param i32 i32))",
    );
    let error = start(&start_loops, timeout_ms(30)).unwrap_err();
    assert!(matches!(error, GuestError::Timeout { step: Step::Start, .. }));
    let initialize_loops = guest(
        "(func (export \"_initialize\") (loop $again (br $again))) (func (export \"map\") (param i32 i32))",
    );
    let error = start(&initialize_loops, timeout_ms(30)).unwrap_err();
    assert!(matches!(error, GuestError::Timeout { step: Step::Initialize, .. }));
}

/// The runtime looks at the time where functions and loops begin, and here is neither: the host looks itself.
#[test]
fn a_guest_that_keeps_the_host_busy_ends_after_its_time() {
    let long = "(call $log (i32.const 1) (i32.const 0) (i32.const 33554432))".repeat(60);
    let random = "(drop (call $random_get (i32.const 0) (i32.const 1048576)))".repeat(2_000);
    for busy in [long, random] {
        let text = with_memory(
            "(memory (export \"memory\") 512)",
            &format!("(func (export \"map\") (param i32 i32) {busy})"),
        );
        let mut options = timeout_ms(50);
        options.limits.log_bytes_max = usize::MAX;
        let error = match map(&text, options) {
            (_, Err(error)) => error,
            (instance, Ok(())) => {
                panic!("it took its time, and left {} lines", instance.sink().logs.len())
            }
        };
        assert!(matches!(error, GuestError::Timeout { .. }), "{error:?}");
    }
}

#[test]
fn memory_ends_at_the_limit() {
    let mut options = InstanceOptions::default();
    options.limits.memory_bytes_max = 8 << 20;
    let (instance, result) = map(&guest(GROW), options);
    let error = result.unwrap_err();
    assert!(
        matches!(&error, GuestError::Memory { limit_bytes, detail, .. }
            if *limit_bytes == 8 << 20 && detail.contains("unreachable")),
        "{error:?}"
    );
    assert!(error.is_deterministic());
    assert!(instance.memory_bytes() <= 8 << 20 && instance.memory_bytes() > 6 << 20);
}

#[test]
fn the_bound_of_the_host_holds_over_the_limit_of_an_instance() {
    let host = Host::new(HostOptions {
        memory_bytes_max: 4 << 20,
        instances_max: 1,
        ..HostOptions::default()
    })
    .unwrap();
    let module = load(&host, &guest(GROW));
    let mut instance =
        Instance::new(&module, InstanceOptions::default(), Collect::default()).unwrap();
    let error = instance.call(Stage::Map, &[]).unwrap_err();
    assert!(matches!(error, GuestError::Memory { limit_bytes, .. } if limit_bytes == 4 << 20));
    assert!(instance.memory_bytes() <= 4 << 20);
}

#[test]
fn a_guest_that_copes_with_refused_memory_is_not_in_error() {
    let (_, result) =
        map(&mapping("(drop (memory.grow (i32.const 60000)))"), InstanceOptions::default());
    result.unwrap();
}

#[test]
fn memory_at_the_start_counts() {
    let text =
        with_memory("(memory (export \"memory\") 200)", "(func (export \"map\") (param i32 i32))");
    let mut options = InstanceOptions::default();
    options.limits.memory_bytes_max = 1 << 20;
    let error = start(&text, options).unwrap_err();
    assert!(matches!(error, GuestError::Memory { step: Step::Start, .. }), "{error:?}");
}

#[test]
fn recursion_without_end_is_a_stack_overflow() {
    let text = guest(
        r#"(func $deep (param i32 i32) (call $deep (local.get 0) (local.get 1)) (call $deep (local.get 0) (local.get 1))) (export "map" (func $deep))"#,
    );
    let error = map_error(&text, InstanceOptions::default());
    assert!(
        matches!(&error, GuestError::Trap { message, .. } if message == "stack overflow"),
        "{error:?}"
    );
}

#[test]
fn traps_say_what_happened_and_where() {
    let cases = [
        ("unreachable", "unreachable code was reached"),
        ("(drop (i32.load (i32.const -4)))", "out of bounds memory access"),
        ("(drop (i32.div_s (i32.const 1) (i32.const 0)))", "integer divide by zero"),
        ("(drop (i32.trunc_f64_s (f64.const 1e300)))", "integer overflow"),
    ];
    for (code, expected) in cases {
        let text = guest(&format!(
            r#"(func $inner {code}) (func $outer (export "map") (param i32 i32) (call $inner))"#
        ));
        let (mut instance, result) = map(&text, InstanceOptions::default());
        let error = result.unwrap_err();
        match &error {
            GuestError::Trap { step, message, backtrace, .. } => {
                assert_eq!((*step, message.as_str()), (Step::Stage(Stage::Map), expected));
                assert_eq!(backtrace, &["inner", "outer"]);
            }
            other => panic!("{other:?}"),
        }
        assert!(error.is_deterministic());
        // After an error the state of the guest means nothing any more.
        assert!(instance.is_poisoned());
        let again = instance.call(Stage::Map, &[]).unwrap_err();
        assert!(matches!(again, GuestError::Poisoned { stage: Stage::Map }));
    }
}

#[test]
fn a_table_does_not_grow_beyond_its_limit() {
    let text = guest(
        r#"(table $t 10 funcref)
        (func (export "map") (param i32 i32)
            (if (i32.ne (table.grow $t (ref.null func) (i32.const 65526)) (i32.const 10)) (then unreachable))
            (if (i32.ne (table.grow $t (ref.null func) (i32.const 1)) (i32.const -1)) (then unreachable)))"#,
    );
    map(&text, InstanceOptions::default()).1.unwrap();
}

#[test]
fn there_are_only_so_many_instances_at_once() {
    let host = Host::new(HostOptions { instances_max: 2, ..HostOptions::default() }).unwrap();
    assert!(host.is_pooling());
    let module = load(&host, &emitter(1));
    let new = || Instance::new(&module, InstanceOptions::default(), Collect::default());
    let first = new().unwrap();
    let second = new().unwrap();
    assert!(matches!(new().unwrap_err(), GuestError::Busy { instances_max: 2 }));
    drop(first);
    let third = new().unwrap();
    drop((second, third));
}

#[test]
fn without_address_space_for_a_pool_instances_are_made_one_by_one() {
    // 400 TiB of address space is more than a process has.
    let host = Host::new(HostOptions { instances_max: 100_000, ..HostOptions::default() }).unwrap();
    assert!(!host.is_pooling());
    let module = load(&host, &emitter(3));
    let mut instance =
        Instance::new(&module, InstanceOptions::default(), Collect::default()).unwrap();
    instance.call(Stage::Map, &[1, 2, 3]).unwrap();
    assert_eq!(instance.into_sink().pairs.len(), 3);
    let module = load(&host, &mapping("(drop (i32.load (i32.const 131072)))"));
    let mut instance =
        Instance::new(&module, InstanceOptions::default(), Collect::default()).unwrap();
    let error = instance.call(Stage::Map, &[]).unwrap_err();
    assert!(matches!(error, GuestError::Trap { .. }), "{error:?}");
}

#[test]
fn deadlines_hold_after_the_last_host_is_dropped() {
    let host = Host::new(HostOptions::default()).unwrap();
    let module = load(&host, &endless());
    let mut instance = Instance::new(&module, timeout_ms(30), Collect::default()).unwrap();
    drop((host, module));
    let error = instance.call(Stage::Map, &[]).unwrap_err();
    assert!(matches!(error, GuestError::Timeout { .. }));
}

#[test]
fn an_input_larger_than_a_call_takes_is_refused() {
    let mut instance = start(&emitter(1), InstanceOptions::default()).unwrap();
    let input = vec![0; limits::INPUT_BYTES_MAX + 1];
    let error = instance.call(Stage::Map, &input).unwrap_err();
    assert!(matches!(error, GuestError::Input { max: limits::INPUT_BYTES_MAX, .. }));
}

#[test]
fn room_outside_of_memory_is_refused() {
    for (ptr, len) in [(0x7fff_ffff_u32, 8), (131_070, 8), (0, 8)] {
        let text = emitter(1).replace("(i32.const 1024)", &format!("(i32.const {ptr})"));
        let mut instance = start(&text, InstanceOptions::default()).unwrap();
        let error = instance.call(Stage::Map, &vec![0; len]).unwrap_err();
        assert!(
            matches!(error, GuestError::BadAlloc { ptr: p, len: 8, .. } if p == ptr),
            "{error:?}"
        );
    }
}
