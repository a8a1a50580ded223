//! What a guest emits, counts, logs and fails with arrives as it was given, or not at all.

use super::guests::{emitter, guest, mapping};
use super::*;

fn fault(code: &str) -> EmitFault {
    match map_error(&mapping(code), InstanceOptions::default()) {
        GuestError::BadEmit { step: Step::Stage(Stage::Map), fault } => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn pairs_arrive_in_order_and_whole() {
    let (instance, result) = map(&emitter(3), InstanceOptions::default());
    result.unwrap();
    let sink = instance.into_sink();
    assert_eq!(sink.pairs, vec![(vec![0x10, 7, 0, 0, 0], vec![0x10, 1, 0, 0, 0]); 3]);
}

#[test]
fn input_reaches_the_stage_it_is_for() {
    // Each stage fails with its input as the text.
    let text = guest(
        r#"(func (export "map") (param i32 i32) (call $fail (local.get 0) (local.get 1)))
        (func (export "finalize") (param i32 i32) (call $fail (local.get 0) (i32.const 3)))"#,
    );
    for (stage, expected) in [(Stage::Map, "some input"), (Stage::Finalize, "som")] {
        let mut instance = start(&text, InstanceOptions::default()).unwrap();
        match instance.call(stage, b"some input").unwrap_err() {
            GuestError::Failed { step, message, stack } => {
                assert_eq!(
                    (step, message.as_str(), stack.as_str()),
                    (Step::Stage(stage), expected, "")
                );
            }
            other => panic!("{other:?}"),
        }
    }
    let mut instance = start(&text, InstanceOptions::default()).unwrap();
    let error = instance.call(Stage::Reduce, b"").unwrap_err();
    assert!(matches!(error, GuestError::NotExported { stage: Stage::Reduce }));
}

#[test]
fn a_failure_is_a_message_and_a_stack() {
    let text = guest(
        r#"(data (i32.const 0) "TypeError: x is null\n    at map (line 3)\n    at run\n")
        (func (export "map") (param i32 i32) (call $fail (i32.const 0) (i32.const 51)))"#,
    );
    match map_error(&text, InstanceOptions::default()) {
        GuestError::Failed { message, stack, .. } => {
            assert_eq!(message, "TypeError: x is null");
            assert_eq!(stack, "    at map (line 3)\n    at run");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_error_of_the_sink_comes_back_as_it_was() {
    let sink = Collect { fail_at: Some(2), ..Collect::default() };
    let mut instance =
        Instance::new(&load(host(), &emitter(5)), InstanceOptions::default(), sink).unwrap();
    match instance.call(Stage::Map, &[]).unwrap_err() {
        GuestError::Sink { error, .. } => {
            assert_eq!(*error.downcast::<DiskFull>().unwrap(), DiskFull(7))
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(instance.sink().pairs.len(), 2);
}

#[test]
fn addresses_outside_of_memory_are_refused() {
    let bounds = |what, ptr, len| EmitFault::Bounds { what, ptr, len };
    let all = u32::MAX;
    assert_eq!(
        fault("(call $emit (i32.const -1) (i32.const 5) (i32.const 0) (i32.const 5))"),
        bounds("the key", all, 5)
    );
    assert_eq!(
        fault(
            r#"(i32.store8 (i32.const 0) (i32.const 16))
            (call $emit (i32.const 0) (i32.const 5) (i32.const 131070) (i32.const 5))"#
        ),
        bounds("the value", 131_070, 5)
    );
    assert_eq!(
        fault("(call $emit (i32.const 5) (i32.const -1) (i32.const 0) (i32.const 5))"),
        bounds("the key", 5, all)
    );
    assert_eq!(
        fault("(call $log (i32.const 0) (i32.const 1) (i32.const -1))"),
        bounds("the log text", 1, all)
    );
    assert_eq!(
        fault("(call $count (i32.const 131073) (i32.const 0) (i64.const 1))"),
        bounds("the counter's name", 131_073, 0)
    );
    assert_eq!(
        fault("(call $fail (i32.const 131072) (i32.const 1))"),
        bounds("the text of the failure", 131_072, 1)
    );
}

#[test]
fn what_is_not_bson_is_refused() {
    assert!(matches!(
        fault("(call $emit (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))"),
        EmitFault::Malformed { what: "the key", why: "it is empty" }
    ));
    assert!(matches!(
        fault("(call $emit (i32.const 0) (i32.const 5) (i32.const 0) (i32.const 5))"),
        EmitFault::Malformed { what: "the key", why: "its type is unknown" }
    ));
    let too_large = r#"(if (i32.eq (memory.grow (i32.const 32)) (i32.const -1)) (then unreachable))
        (call $emit (i32.const 0) (i32.const 1048577) (i32.const 0) (i32.const 5))"#;
    assert!(matches!(
        fault(too_large),
        EmitFault::TooLarge { what: "the key", len: 1_048_577, max: limits::KEY_BYTES_MAX }
    ));
}

#[test]
fn emitting_while_being_set_up_is_refused() {
    let text = emitter(1).replace("(func (export \"map\")", "(func $init (call $emit (i32.const 0) (i32.const 5) (i32.const 8) (i32.const 5))) (start $init) (func (export \"map\")");
    let error = start(&text, InstanceOptions::default()).unwrap_err();
    let expected = EmitFault::OutsideOfStage;
    assert!(
        matches!(&error, GuestError::BadEmit { step: Step::Start, fault } if *fault == expected),
        "{error:?}"
    );
}

#[test]
fn counters_and_log_lines_arrive() {
    let text = guest(
        r#"(data (i32.const 0) "bad rows")
        (func (export "map") (param i32 i32)
            (call $count (i32.const 0) (i32.const 8) (i64.const -3))
            (call $log (i32.const 0) (i32.const 0) (i32.const 3))
            (call $log (i32.const 99) (i32.const 4) (i32.const 4)))"#,
    );
    let (instance, result) = map(&text, InstanceOptions::default());
    result.unwrap();
    let sink = instance.into_sink();
    assert_eq!(sink.counts, [("bad rows".to_owned(), -3)]);
    assert_eq!(sink.logs, [(Level::Error, "bad".to_owned()), (Level::Info, "rows".to_owned())]);
}

#[test]
fn a_counter_has_a_short_name_of_text() {
    assert!(matches!(
        fault("(call $count (i32.const 0) (i32.const 257) (i64.const 1))"),
        EmitFault::TooLarge { len: 257, .. }
    ));
    assert!(matches!(
        fault(
            "(i32.store8 (i32.const 0) (i32.const 255)) (call $count (i32.const 0) (i32.const 1) (i64.const 1))"
        ),
        EmitFault::Utf8 { .. }
    ));
}

#[test]
fn the_scope_is_copied_as_far_as_there_is_room() {
    let text = guest(
        r#"(func (export "map") (param i32 i32)
            (if (i32.ne (call $scope (i32.const 0) (i32.const 0)) (i32.const 5)) (then unreachable))
            (if (i32.ne (call $scope (i32.const 0) (i32.const 3)) (i32.const 5)) (then unreachable))
            (call $log (i32.const 2) (i32.const 0) (i32.const 5))
            (drop (call $scope (i32.const 0) (i32.const 100)))
            (call $fail (i32.const 0) (i32.const 6)))"#,
    );
    let options = InstanceOptions { scope: b"scope".to_vec(), ..InstanceOptions::default() };
    let (instance, result) = map(&text, options);
    assert!(
        matches!(result.unwrap_err(), GuestError::Failed { message, .. } if message == "scope\0")
    );
    assert_eq!(instance.sink().logs, [(Level::Info, "sco\0\0".to_owned())]);
}

#[test]
fn a_log_beyond_its_limit_does_not_end_the_call() {
    let text = guest(
        r#"(func (export "map") (param i32 i32) (local $i i32)
            (local.set $i (i32.const 100000))
            (loop $again
                (call $log (i32.const 2) (i32.const 0) (i32.const 99))
                (local.set $i (i32.sub (local.get $i) (i32.const 1)))
                (br_if $again (local.get $i))))"#,
    );
    let mut options = InstanceOptions::default();
    options.limits.log_bytes_max = 1_050;
    let (instance, result) = map(&text, options);
    result.unwrap();
    assert_eq!(instance.sink().logs.len(), 11);
    assert_eq!(instance.log_bytes_dropped(), 99 * (100_000 - 10));
}
