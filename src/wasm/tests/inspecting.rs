//! A module that breaks the contract is refused before it runs, with everything that is wrong.

use super::guests::{emitter, guest};
use super::*;

fn problems(text: &str) -> Vec<Problem> {
    host().inspect(text.as_bytes()).unwrap_err().problems
}

fn forbidden(module: &str, name: &str) -> Problem {
    Problem::ForbiddenImport { module: module.to_owned(), name: name.to_owned() }
}

#[test]
fn a_good_module_is_described() {
    let info = host().inspect(emitter(1).as_bytes()).unwrap();
    assert_eq!(info.stages, [Stage::Map].into_iter().collect());
    assert_eq!((info.abi, info.js, info.initialize), (1, false, false));
    assert_eq!((info.memory_bytes_min, info.functions), (131_072, 3));
    assert_eq!(info.imports[0], "aviary.emit");
    let wasm = wat_to_wasm(&emitter(1)).unwrap();
    assert_eq!(info.size_bytes, wasm.len());
    assert_eq!(host().inspect(&wasm).unwrap(), info);
}

#[test]
fn every_problem_is_listed() {
    let found = problems(
        r#"(module
            (import "env" "abort" (func))
            (import "aviary" "emit" (func (param i32)))
            (import "wasi_snapshot_preview1" "sock_send" (func))
            (import "aviary" "memory" (memory 1))
            (func (export "reduce") (param i32 i32) (result i32) unreachable))"#,
    );
    let expected = [
        forbidden("env", "abort"),
        Problem::ImportType {
            module: "aviary".to_owned(),
            name: "emit".to_owned(),
            expected: "(i32, i32, i32, i32) -> ()".to_owned(),
            found: "(i32) -> ()".to_owned(),
        },
        forbidden("wasi_snapshot_preview1", "sock_send"),
        forbidden("aviary", "memory"),
        Problem::ExportType {
            name: "reduce".to_owned(),
            expected: "(i32, i32) -> ()".to_owned(),
            found: "(i32, i32) -> (i32)".to_owned(),
        },
        Problem::MissingExport { name: "memory" },
        Problem::MissingExport { name: "aviary_alloc" },
        Problem::AbiMissing,
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_module_without_stages_is_refused() {
    assert_eq!(problems(&guest("")), [Problem::NoStage]);
}

#[test]
fn the_version_may_be_named_by_a_section() {
    let section = |payload: &str| {
        let section = format!("(@custom \"aviary_abi\" \"{payload}\")");
        emitter(1).replace("(func (export \"aviary_abi_v1\"))", &section)
    };
    host().inspect(section("\\01").as_bytes()).unwrap();
    assert_eq!(problems(&section("\\02")), [Problem::AbiVersion { found: "[2]".to_owned() }]);
    let other = emitter(1).replace("aviary_abi_v1", "aviary_abi_v9");
    assert_eq!(problems(&other), [Problem::AbiVersion { found: "9".to_owned() }]);
}

#[test]
fn bytes_and_text_that_are_no_module_are_refused() {
    assert!(matches!(&problems("(module (func")[..], [Problem::Text { .. }]));
    assert!(matches!(&problems("")[..], [Problem::Text { .. }]));
    assert!(matches!(
        &host().inspect(&[0xff, 0xfe]).unwrap_err().problems[..],
        [Problem::Text { .. }]
    ));
    assert_eq!(problems("(component)"), [Problem::Component]);
    let wasm = wat_to_wasm(&emitter(1)).unwrap();
    // Only its last two sections, data and names, can be missing from this module.
    let accepted = (0..wasm.len()).filter(|cut| host().inspect(&wasm[..*cut]).is_ok());
    assert_eq!(accepted.count(), 2);
}

#[test]
fn what_is_not_deterministic_or_not_bounded_is_not_valid() {
    let cases = [
        "(func (param v128 v128 v128) (result v128) (i32x4.relaxed_laneselect (local.get 0) (local.get 1) (local.get 2)))",
        "(memory 1 2 shared)",
        "(memory i64 1)",
        "(memory 1)",
        "(tag)",
        "(type (struct))",
        "(func (param externref))",
    ];
    for case in cases {
        let text = guest(&format!("{case} (func (export \"map\") (param i32 i32))"));
        let found = problems(&text);
        assert!(matches!(&found[..], [Problem::Invalid { .. }]), "{case}: {found:?}");
        assert!(host().load(&blake3::hash(text.as_bytes()), text.as_bytes()).is_err());
    }
}

#[test]
fn what_compilers_emit_by_default_is_valid() {
    let text = guest(
        r#"(table 2 funcref)
        (func $two (result i32 i32) (i32.const 1) (i32.const 2))
        (func $tail (param i32 i32) (return_call $tail (local.get 0) (local.get 1)))
        (func (export "map") (param i32 i32)
            (memory.fill (i32.const 0) (i32.const 0) (i32.const 8))
            (drop (i32.extend8_s (i32.trunc_sat_f64_s (f64.const 1))))
            (drop (i8x16.splat (i32.const 1)))
            (drop (i32.add (call $two))))"#,
    );
    map(&text, InstanceOptions::default()).1.unwrap();
}

#[test]
fn sizes_are_limited() {
    let limit = |what, found, max: usize| vec![Problem::Limit { what, found, max: max as u64 }];
    let map = "(func (export \"map\") (param i32 i32))";
    let table = guest(&format!("(table 65537 funcref) {map}"));
    assert_eq!(problems(&table), limit("elements of a table", 65_537, limits::TABLE_ELEMENTS_MAX));
    let tables = guest(&format!("{} {map}", "(table 1 funcref)".repeat(5)));
    assert_eq!(problems(&tables), limit("tables", 5, limits::TABLES_MAX));
    let globals = guest(&format!("{} {map}", "(global i32 (i32.const 0))".repeat(10_001)));
    assert_eq!(problems(&globals), limit("globals", 10_001, limits::GLOBALS_MAX));
    let segments = guest(&format!("{} {map}", "(data \"\")".repeat(100_001)));
    assert_eq!(problems(&segments), limit("data segments", 100_001, limits::DATA_SEGMENTS_MAX));
    let functions = guest(&format!("{} {map}", "(func)".repeat(100_000)));
    assert_eq!(problems(&functions), limit("functions", 100_003, limits::FUNCTIONS_MAX));
    let wide = "i64.const -9223372036854775808 drop ".repeat(100_000);
    let body = guest(&format!("(func {wide}) {map}"));
    assert!(matches!(
        &problems(&body)[..],
        [Problem::Limit { what: "size of a function in bytes", max, .. }] if *max == limits::FUNCTION_BYTES_MAX as u64
    ));
    // Small, but its compilation would merge 2,000 locals at each of 30,000 branches.
    let merging = "local.get 0 if local.get 0 local.set 1 end ".repeat(30_000);
    let locals = "i32 ".repeat(2_000);
    let text = guest(&format!("(func (param i32) (local {locals}) {merging}) {map}"));
    assert!(matches!(
        &problems(&text)[..],
        [Problem::Limit { max: limits::MODULE_MERGES_MAX, found: 60_000_000.., .. }]
    ));
    let loops = format!("{}{}", "loop ".repeat(2_000), "end ".repeat(2_000));
    let locals = "i32 ".repeat(500);
    let text = guest(&format!("(func (local {locals}) {loops}) {map}"));
    assert!(matches!(
        &problems(&text)[..],
        [Problem::Limit { max: limits::MODULE_MERGES_MAX, found: 1_000_000_000.., .. }]
    ));
    let memory = emitter(1).replace("\"memory\") 2", "\"memory\") 65536");
    let found = problems(&memory);
    assert_eq!(
        found,
        limit("memory at the start in bytes", 1 << 32, HostOptions::default().memory_bytes_max)
    );
    let mut huge = wat_to_wasm(&emitter(1)).unwrap();
    huge.resize(limits::MODULE_BYTES_MAX + 1, 0);
    let found = host().inspect(&huge).unwrap_err().problems;
    assert_eq!(found, limit("size in bytes", huge.len() as u64, limits::MODULE_BYTES_MAX));
}

/// Small modules that take a compiler long, or much memory. None is compiled to find out.
#[test]
fn what_compiling_takes_is_limited_before_it_begins() {
    let map = "(func (export \"map\") (param i32 i32))";
    let wide = format!("(param {}) (result {})", "i64 ".repeat(100), "i64 ".repeat(100));
    let wide = format!("(type $w (func {wide})) (func $wide (type $w) unreachable)");
    let calls =
        |count: usize| format!("(func unreachable {} unreachable)", "call $wide ".repeat(count));
    let locals = |count: usize| format!("(func (local {}))", "i32 ".repeat(count));
    let cases = [
        (
            "operators of a function: 250005",
            format!("(func {})", "i32.const 0 drop ".repeat(125_002)),
        ),
        ("operators of a function: 408003", format!("{wide} {}", calls(2_000))),
        (
            "operators of a function: 409943",
            format!(
                "{wide} (func unreachable {} unreachable)",
                "block (type $w) unreachable end ".repeat(1_990)
            ),
        ),
        (
            "operators of a function: 252306",
            format!(
                "(func block (result {}) unreachable br_table {} 0 end unreachable)",
                "i64 ".repeat(100),
                "0 ".repeat(2_496)
            ),
        ),
        ("operators of all functions: 8323308", format!("{wide} {}", calls(1_200).repeat(34))),
        (
            "operators of a function that move memory of any length: 1001",
            format!(
                "(func (param i32) {} {})",
                "(memory.fill (i32.const 0) (i32.const 0) (i32.const 65536))".repeat(5_000),
                "(memory.copy (i32.const 0) (i32.const 0) (local.get 0))".repeat(1_001)
            ),
        ),
        ("locals of a function: 50001", locals(50_001)),
        ("locals of all functions: 4050000", locals(50_000).repeat(81)),
        ("types: 10001", "(type (func))".repeat(9_992)),
        ("element segments: 10001", "(elem func)".repeat(10_001)),
        (
            "elements of all segments: 1000001",
            format!("(func $f) (elem func {})", "$f ".repeat(1_000_001)),
        ),
    ];
    let mut told = Vec::new();
    for (expected, text) in cases {
        let wasm = wat_to_wasm(&guest(&format!("{text} {map}"))).unwrap();
        let found = match host().inspect(&wasm) {
            Ok(info) => format!("{} bytes are taken", info.size_bytes),
            Err(refused) => refused.to_string(),
        };
        if !found.contains(expected) || !found.contains("exceeds the limit of") {
            told.push(format!("{expected}: {found}"));
        }
    }
    // A text is measured before it is parsed.
    let text = format!("{} {}", " ".repeat(8 << 20), emitter(1));
    match host().inspect(text.as_bytes()) {
        Err(refused) if refused.to_string().contains("size of the text in bytes") => {}
        other => told.push(format!("{other:?}")),
    }
    assert!(told.is_empty(), "{}", told.join("\n"));
}

/// What people write stays far below.
#[test]
fn the_limits_on_compiling_leave_room_for_the_guests_there_are() {
    let info = host().inspect(JS_GUEST).unwrap();
    assert!(info.operators * 4 < limits::MODULE_OPERATORS_MAX, "{info:?}");
    assert!(info.function_operators * 4 < limits::FUNCTION_OPERATORS_MAX, "{info:?}");
}

#[test]
fn every_function_of_the_contract_links_with_the_type_it_is_listed_with() {
    let mut imports = String::new();
    for (module, name, signature) in abi::IMPORTS {
        let list = |types: &[wasmtime::wasmparser::ValType]| {
            types.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        let (params, results) = (list(signature.params), list(signature.results));
        imports +=
            &format!("(import \"{module}\" \"{name}\" (func (param {params}) (result {results})))");
    }
    let text = format!(
        r#"(module {imports} (memory (export "memory") 1) (func (export "aviary_abi_v1"))
            (func (export "aviary_alloc") (param i32) (result i32) (i32.const 8))
            (func (export "map") (param i32 i32)))"#
    );
    map(&text, InstanceOptions::default()).1.unwrap();
}

#[test]
fn a_refusal_reads_as_a_sentence() {
    let error = host().inspect(guest("").as_bytes()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "accept the module: it exports none of map, combine, reduce, finalize"
    );
}
