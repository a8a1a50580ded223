//! The JavaScript guest runs under this host, with the same limits as every other.

use bson::{RawDocument, doc};

use super::super::inspect::inspect_own;
use super::*;

pub(super) fn script(map: &str) -> Script {
    Script { map: Some(map.to_owned()), ..Script::default() }
}

pub(super) fn start_script(
    script: Script,
    options: InstanceOptions,
) -> Result<Instance<Collect>, GuestError> {
    let module = host().load(js_guest_digest(), JS_GUEST).unwrap();
    let options = InstanceOptions { script: Some(script), ..options };
    Instance::new(&module, options, Collect::default())
}

pub(super) fn run(
    map: &str,
    input: &[u8],
    options: InstanceOptions,
) -> Result<Collect, GuestError> {
    let mut instance = start_script(script(map), options)?;
    instance.call(Stage::Map, input)?;
    Ok(instance.into_sink())
}

pub(super) fn one_document() -> Vec<u8> {
    doc! { "k": "a", "n": 2 }.to_vec().unwrap()
}

/// The value behind a type byte, as a field of a document.
pub(super) fn field(tagged: &[u8]) -> bson::Bson {
    let len = i32::try_from(tagged.len() + 6).unwrap();
    let mut bytes = len.to_le_bytes().to_vec();
    bytes.push(tagged[0]);
    bytes.push(0);
    bytes.extend_from_slice(&tagged[1..]);
    bytes.push(0);
    let document = RawDocument::from_bytes(&bytes).unwrap();
    let (_, value) = document.iter().next().unwrap().unwrap();
    value.try_into().unwrap()
}

#[test]
fn the_shipped_module_keeps_the_contract() {
    let info = host().inspect(JS_GUEST).unwrap();
    assert!(info.js && info.initialize);
    assert_eq!(info.stages.iter().count(), 4);
    // An interpreter is about the most that a compiler is given, and is far from the limit.
    assert!(info.merges < limits::MODULE_MERGES_MAX / 4, "{}", info.merges);
    // A process that runs it looks at all but its functions, which were counted here.
    let own = inspect_own(JS_GUEST, host().memory_bytes_max()).unwrap();
    let ModuleInfo { merges, operators, function_operators, .. } = info;
    assert_eq!(ModuleInfo { merges, operators, function_operators, ..own }, info);
}

#[test]
fn map_and_reduce_run_on_documents() {
    let script = Script {
        map: Some("function () { emit(this.k, this.n); }".to_owned()),
        reduce: Some("function (k, v) { return v.reduce((a, b) => a + b, 0); }".to_owned()),
        ..Script::default()
    };
    let mut instance = start_script(script, InstanceOptions::default()).unwrap();
    instance.call(Stage::Map, &one_document().repeat(2)).unwrap();
    let grouped = doc! { "k": "a", "v": [2, 3] }.to_vec().unwrap();
    instance.call(Stage::Reduce, &grouped).unwrap();
    let error = instance.call(Stage::Finalize, &grouped).unwrap_err();
    assert!(matches!(error, GuestError::NotExported { stage: Stage::Finalize }));
    let pairs = instance.into_sink().pairs;
    assert_eq!(pairs.len(), 3);
    assert_eq!(field(&pairs[0].0), "a".into());
    let number = |tagged: &[u8]| match field(tagged) {
        bson::Bson::Int32(number) => f64::from(number),
        bson::Bson::Double(number) => number,
        other => panic!("{other:?}"),
    };
    assert!((number(&pairs[1].1) - 2.0).abs() < f64::EPSILON);
    assert!((number(&pairs[2].1) - 5.0).abs() < f64::EPSILON);
}

#[test]
fn an_exception_comes_with_its_message_and_stack() {
    let map = "function () {\n  const inner = () => { throw new TypeError('no such field'); };\n  inner();\n}";
    match run(map, &one_document(), InstanceOptions::default()).unwrap_err() {
        GuestError::Failed { step, message, stack } => {
            assert_eq!(step, Step::Stage(Stage::Map));
            assert!(message.contains("TypeError: no such field"), "{message}");
            assert!(stack.contains("inner"), "{stack}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_syntax_error_is_found_when_the_script_is_loaded() {
    let error =
        start_script(script("function () { emit(1, }"), InstanceOptions::default()).unwrap_err();
    assert!(
        matches!(&error, GuestError::Failed { step: Step::Load, message, .. } if message.contains("SyntaxError")),
        "{error:?}"
    );
}

#[test]
fn an_endless_loop_ends_after_its_time() {
    let error = run("function () { while (1); }", &one_document(), timeout_ms(200)).unwrap_err();
    assert!(
        matches!(error, GuestError::Timeout { step: Step::Stage(Stage::Map), .. }),
        "{error:?}"
    );
    let error = start_script(script("(() => { while (1); })()"), timeout_ms(200)).unwrap_err();
    assert!(matches!(error, GuestError::Timeout { step: Step::Load, .. }), "{error:?}");
}

#[test]
fn memory_without_end_is_a_memory_error() {
    let mut options = InstanceOptions::default();
    options.limits.memory_bytes_max = 16 << 20;
    let map = "function () { const a = []; for (;;) a.push('x'.repeat(10000) + a.length); }";
    let error = run(map, &one_document(), options).unwrap_err();
    assert!(
        matches!(error, GuestError::Memory { limit_bytes, .. } if limit_bytes == 16 << 20),
        "{error:?}"
    );
}

#[test]
fn recursion_without_end_is_an_exception() {
    let map = "function () { const f = (n) => f(n + 1) + 1; f(0); }";
    let error = run(map, &one_document(), InstanceOptions::default()).unwrap_err();
    assert!(
        matches!(&error, GuestError::Failed { message, .. } if message.contains("stack")),
        "{error:?}"
    );
}

#[test]
fn scripts_go_with_the_javascript_guest_only() {
    let module = host().load(js_guest_digest(), JS_GUEST).unwrap();
    let error = Instance::new(&module, InstanceOptions::default(), Collect::default()).unwrap_err();
    assert!(matches!(error, GuestError::Script { given: false }));
    let options = InstanceOptions { script: Some(Script::default()), ..InstanceOptions::default() };
    let error = start(&guests::emitter(1), options).unwrap_err();
    assert!(matches!(error, GuestError::Script { given: true }));
}

/// The interpreter adds up what it holds and ends the guest when the sum goes below nothing: the sizes of blocks must
/// not change while they are in use, however large and small ones come and go beside each other.
#[test]
fn many_long_strings_come_and_go() {
    let module = host().load(js_guest_digest(), JS_GUEST).unwrap();
    let script = Script {
        map: Some("function () { for (const name in this) this[name]; }".into()),
        ..Script::default()
    };
    let options = InstanceOptions { script: Some(script), ..InstanceOptions::default() };
    let mut instance = Instance::new(&module, options, Collect::default()).unwrap();
    let mut batch = Vec::new();
    for n in 0..4 {
        let mut doc = bson::doc! { "_id": n };
        for field in 0..10 {
            doc.insert(format!("pad{field}"), "x".repeat(10_000));
        }
        doc.insert("k", n);
        batch.extend(doc.to_vec().unwrap());
    }
    for _ in 0..1_500 {
        instance.call(Stage::Map, &batch).unwrap();
    }
}
