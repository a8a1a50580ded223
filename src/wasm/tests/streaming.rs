//! A reduce in the streaming form: what makes one, and how it is called.

use bson::doc;

use super::guests::guest;
use super::*;

/// Counts the bytes it is given: begin sets the number, next adds its input's length, end emits it under
/// the key at 0.
const COUNTING: &str = r#"
    (data (i32.const 0) "\10\07\00\00\00")
    (data (i32.const 8) "\10\00\00\00\00")
    (global $n (mut i32) (i32.const 0))
    (func (export "reduce_begin") (param i32 i32) (global.set $n (i32.const 1000)))
    (func (export "reduce_next") (param i32 i32)
        (global.set $n (i32.add (global.get $n) (local.get 1))))
    (func (export "reduce_end")
        (i32.store (i32.const 9) (global.get $n))
        (call $emit (i32.const 0) (i32.const 5) (i32.const 8) (i32.const 5)))"#;

fn numbers(instance: &mut Instance<Collect>) -> Vec<i32> {
    let pairs = std::mem::take(&mut instance.sink_mut().pairs);
    pairs.iter().map(|(_, value)| i32::from_le_bytes(value[1..].try_into().unwrap())).collect()
}

fn start_js(reduce: &str) -> Result<Instance<Collect>, GuestError> {
    let module = host().load(js_guest_digest(), JS_GUEST).unwrap();
    let script = Script { reduce: Some(reduce.to_owned()), ..Script::default() };
    let options = InstanceOptions { script: Some(script), ..InstanceOptions::default() };
    Instance::new(&module, options, Collect::default())
}

fn load_error(reduce: &str) -> String {
    match start_js(reduce).unwrap_err() {
        GuestError::Failed { step: Step::Load, message, .. } => message,
        other => panic!("{other:?}"),
    }
}

/// The values of a group as one number, each weighing by its place.
fn fold_js(instance: &mut Instance<Collect>, values: &[i32]) -> (Vec<u8>, f64) {
    instance.reduce_begin(&doc! { "k": "a" }.to_vec().unwrap()).unwrap();
    for some in values.chunks(2) {
        instance.reduce_next(&doc! { "v": some }.to_vec().unwrap()).unwrap();
    }
    instance.reduce_end().unwrap();
    let (key, value) = instance.sink_mut().pairs.pop().unwrap();
    assert_eq!(value[0], 1, "a double");
    (key, f64::from_le_bytes(value[1..].try_into().unwrap()))
}

#[test]
fn a_group_begins_goes_on_and_ends() {
    let text = guest(COUNTING);
    let info = host().inspect(text.as_bytes()).unwrap();
    assert!(info.streams);
    assert_eq!(info.stages, [Stage::Reduce].into_iter().collect());
    let mut instance = start(&text, InstanceOptions::default()).unwrap();
    assert!(instance.streams());
    for _ in 0..2 {
        instance.reduce_begin(&[0; 7]).unwrap();
        instance.reduce_next(&[0; 5]).unwrap();
        instance.reduce_next(&[0; 6]).unwrap();
        instance.reduce_end().unwrap();
    }
    // A second group begins anew.
    assert_eq!(numbers(&mut instance), [1011, 1011]);
    let error = instance.call(Stage::Reduce, &[]).unwrap_err();
    assert!(matches!(error, GuestError::NotExported { stage: Stage::Reduce }));
}

#[test]
fn a_part_of_the_form_is_refused_with_what_is_missing() {
    let begin = r#"(func (export "reduce_begin") (param i32 i32))"#;
    let end = r#"(func (export "reduce_end"))"#;
    let problems = |text: &str| host().inspect(text.as_bytes()).unwrap_err().problems;
    assert_eq!(
        problems(&guest(&format!("{begin}{end}"))),
        [Problem::PartOfStream {
            found: "reduce_begin and reduce_end".to_owned(),
            missing: "reduce_next".to_owned()
        }]
    );
    let wrong =
        guest(&COUNTING.replace("(export \"reduce_end\")", "(export \"reduce_end\") (param i32)"));
    assert!(
        matches!(&problems(&wrong)[..], [Problem::ExportType { name, .. }] if name == "reduce_end"),
        "{:?}",
        problems(&wrong)
    );
}

#[test]
fn a_module_without_the_form_does_not_stream() {
    let text = guest(r#"(func (export "reduce") (param i32 i32))"#);
    assert!(!host().inspect(text.as_bytes()).unwrap().streams);
    let mut instance = start(&text, InstanceOptions::default()).unwrap();
    assert!(!instance.streams());
    let error = instance.reduce_begin(&[]).unwrap_err();
    assert!(matches!(error, GuestError::NotExported { stage: Stage::Reduce }));
    // Of a module that has both, the streaming form is the reduce.
    let both = guest(&format!(r#"{COUNTING} (func (export "reduce") (param i32 i32))"#));
    let mut instance = start(&both, InstanceOptions::default()).unwrap();
    assert!(instance.streams());
    instance.call(Stage::Reduce, &[]).unwrap_err();
}

#[test]
fn each_next_has_the_whole_time_for_itself() {
    let text = guest(&COUNTING.replace(
        "(global.set $n (i32.add (global.get $n) (local.get 1)))",
        "(loop $again (br_if $again (i32.eq (local.get 1) (i32.const 3))))",
    ));
    let mut instance = start(&text, timeout_ms(100)).unwrap();
    instance.reduce_begin(&[]).unwrap();
    instance.reduce_next(&[0; 2]).unwrap();
    let error = instance.reduce_next(&[0; 3]).unwrap_err();
    assert!(
        matches!(error, GuestError::Timeout { step: Step::Stage(Stage::Reduce), .. }),
        "{error:?}"
    );
    // After an error the group cannot go on.
    assert!(matches!(instance.reduce_end().unwrap_err(), GuestError::Poisoned { .. }));
}

#[test]
fn what_a_group_emits_is_limited_over_all_its_calls() {
    let text = guest(&COUNTING.replace(
        "(global.set $n (i32.add (global.get $n) (local.get 1)))",
        "(call $emit (i32.const 0) (i32.const 5) (i32.const 8) (i32.const 5))",
    ));
    let mut options = InstanceOptions::default();
    options.limits.output_bytes_max = 25;
    let mut instance = start(&text, options).unwrap();
    for _ in 0..2 {
        // A group may emit 25 bytes, and the next one as many again.
        instance.reduce_begin(&[]).unwrap();
        instance.reduce_next(&[]).unwrap();
        instance.reduce_next(&[]).unwrap();
        assert_eq!(instance.output_bytes(), 20);
    }
    let error = instance.reduce_next(&[]).unwrap_err();
    assert!(matches!(error, GuestError::Output { limit_bytes: 25, .. }), "{error:?}");
    assert!(error.is_deterministic());
}

#[test]
fn several_records_may_together_emit_as_much_as_each_of_them() {
    let mut options = InstanceOptions::default();
    options.limits.output_bytes_max = 10;
    let text = guests::emitter(3);
    let mut instance = start(&text, options.clone()).unwrap();
    instance.call_batch(Stage::Map, &[], 3).unwrap();
    assert_eq!(instance.output_bytes(), 30);
    let error = instance.call_batch(Stage::Map, &[], 2).unwrap_err();
    assert!(matches!(error, GuestError::Output { limit_bytes: 10, .. }), "{error:?}");
    assert!(map(&text, options.clone()).1.is_err());
    // However many there are, they do not fill the host's memory.
    let error = start(&guests::emitter(5), options).unwrap().call_batch(Stage::Map, &[], 1_000);
    assert!(matches!(error.unwrap_err(), GuestError::Output { .. }));
}

#[test]
fn a_script_streams_with_an_object_or_with_three_functions() {
    let object = "({ begin(key) { this.sum = 0; this.place = 0; }, \
                     next(value) { this.sum += value * ++this.place; }, \
                     end() { return this.sum; } });";
    let functions = "let sum, place;\nfunction reduce_begin(key) { sum = 0; place = 0; }\n\
                     function reduce_next(value) { sum += value * ++place; }\n\
                     const reduce_end = () => sum;";
    for source in [object, functions] {
        let mut instance = start_js(source).unwrap();
        assert!(instance.streams(), "{source}");
        for _ in 0..2 {
            let (key, sum) = fold_js(&mut instance, &[5, 6, 7]);
            assert!((sum - 38.0).abs() < f64::EPSILON, "{source}: {sum}");
            assert_eq!(&key[5..7], b"a\0");
        }
        instance.call(Stage::Reduce, &[]).unwrap_err();
    }
    let plain = start_js("function (key, values) { return values.length; }").unwrap();
    assert!(!plain.streams());
}

#[test]
fn what_a_script_keeps_of_its_values_outlives_the_call() {
    let source = "({ begin(key) { this.all = []; this.key = key; }, next(value) { this.all.push(value); }, \
                     end() { return this.all.map((x) => x.word + x.list[1]).join() + this.key.of.it; } })";
    let mut instance = start_js(source).unwrap();
    instance.reduce_begin(&doc! { "k": { "of": { "it": "!" } } }.to_vec().unwrap()).unwrap();
    for n in 0..20 {
        let value = doc! { "word": format!("w{n}"), "list": [0, n] };
        instance.reduce_next(&doc! { "v": [value] }.to_vec().unwrap()).unwrap();
    }
    instance.reduce_end().unwrap();
    let (_, value) = instance.sink_mut().pairs.pop().unwrap();
    let text = String::from_utf8_lossy(&value[5..value.len() - 1]).into_owned();
    assert!(text.starts_with("w00,w11,w22,") && text.ends_with(",w1919!"), "{text}");
}

#[test]
fn a_script_with_a_part_of_the_form_or_a_wrong_one_is_refused() {
    let message = load_error("({ begin() {}, end() {} })");
    assert!(message.contains("there is no function next"), "{message}");
    let message = load_error("function reduce_next(v) {}\nfunction reduce_end() {}");
    assert!(message.contains("there is no function begin"), "{message}");
    let message = load_error("({ begin() {}, async next(v) {}, end() {} })");
    assert!(message.contains("next is an async function"), "{message}");
    // An object without any of it is no function at all.
    let message = load_error("({ start() {} })");
    assert!(message.contains("reduce"), "{message}");
    // The other stages have no such form.
    let module = host().load(js_guest_digest(), JS_GUEST).unwrap();
    let script = Script {
        combine: Some("({ begin() {}, next() {}, end() {} })".to_owned()),
        ..Script::default()
    };
    let options = InstanceOptions { script: Some(script), ..InstanceOptions::default() };
    Instance::new(&module, options, Collect::default()).unwrap_err();
}

#[test]
fn an_exception_of_a_script_that_streams_comes_with_its_message() {
    let source =
        "({ begin() {}, next(v) { if (v === 3) throw new RangeError('three'); }, end() {} })";
    let mut instance = start_js(source).unwrap();
    instance.reduce_begin(&doc! { "k": 1 }.to_vec().unwrap()).unwrap();
    let error = instance.reduce_next(&doc! { "v": [1, 3] }.to_vec().unwrap()).unwrap_err();
    assert!(
        matches!(&error, GuestError::Failed { step: Step::Stage(Stage::Reduce), message, .. }
            if message.contains("RangeError: three")),
        "{error:?}"
    );
    let mut emits = start_js("({ begin() { emit(1, 1); }, next() {}, end() {} })").unwrap();
    let error = emits.reduce_begin(&doc! { "k": 1 }.to_vec().unwrap()).unwrap_err();
    assert!(matches!(error, GuestError::Failed { .. }), "{error:?}");
}
