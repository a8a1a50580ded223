//! What a function emits, mutated: a guest hands the fuzzer's bytes over as keys and values, and they go the way of
//! everything emitted: checked, encoded, combined, reduced by each built-in, written as documents.

use std::sync::OnceLock;
use std::time::Duration;

use aviary::exec::local_run::{LocalJob, LocalReduce};
use aviary::exec::prepare::Loaded;
use aviary::wasm::{Host, HostOptions, InstanceOptions, Limits, Module, Stage, wat_to_wasm};
use bson::{RawDocumentBuf, rawdoc};

/// Its map takes one document with one field `b` of binary, and emits the pairs in it: two lengths of 16 bits, key and
/// value, as often as there are any.
const ECHO: &str = r#"(module
    (import "aviary" "emit" (func $emit (param i32 i32 i32 i32)))
    (memory (export "memory") 40)
    (func (export "aviary_abi_v1"))
    (func (export "aviary_alloc") (param i32) (result i32) (i32.const 1024))
    (func (export "map") (param $p i32) (param $n i32) (local $end i32) (local $k i32) (local $v i32)
        (local.set $end (i32.sub (i32.add (local.get $p) (local.get $n)) (i32.const 1)))
        (local.set $p (i32.add (local.get $p) (i32.const 12)))
        (block $done (loop $again
            (br_if $done (i32.gt_u (i32.add (local.get $p) (i32.const 4)) (local.get $end)))
            (local.set $k (i32.load16_u (local.get $p)))
            (local.set $v (i32.load16_u offset=2 (local.get $p)))
            (local.set $p (i32.add (local.get $p) (i32.const 4)))
            (if (i32.gt_u (i32.add (i32.add (local.get $p) (local.get $k)) (local.get $v)) (local.get $end))
                (then
                    (local.set $k (i32.shr_u (i32.sub (local.get $end) (local.get $p)) (i32.const 1)))
                    (local.set $v (i32.sub (i32.sub (local.get $end) (local.get $p)) (local.get $k)))))
            (call $emit (local.get $p) (local.get $k) (i32.add (local.get $p) (local.get $k)) (local.get $v))
            (local.set $p (i32.add (local.get $p) (i32.add (local.get $k) (local.get $v))))
            (br $again)))))"#;

const REDUCES: [Option<&str>; 7] =
    [None, Some("_sum"), Some("_count"), Some("_min"), Some("_max"), Some("_avg"), Some("_stats")];

fn echo() -> Module {
    static HOST: OnceLock<(Host, Module)> = OnceLock::new();
    let (_, module) = HOST.get_or_init(|| {
        let options = HostOptions { instances_max: 4, ..HostOptions::default() };
        let host = Host::new(options).expect("a host");
        let wasm = wat_to_wasm(ECHO).expect("a module");
        let module = host.load(&blake3::hash(&wasm), &wasm).expect("a guest");
        (host, module)
    });
    module.clone()
}

/// One document of emits; its first byte chooses the reduce.
pub fn run(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    let reduce = REDUCES[usize::from(*choice) % REDUCES.len()];
    let bytes = bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: bytes.to_vec() };
    let doc: RawDocumentBuf = rawdoc! { "b": bytes };
    let options = InstanceOptions {
        limits: Limits { call_timeout: Duration::from_secs(5), ..Limits::default() },
        now_ms: 0,
        seed: [0; 32],
        scope: b"\x05\0\0\0\0".to_vec(),
        script: None,
        ..InstanceOptions::default()
    };
    let job = LocalJob {
        map: Loaded {
            module: echo(),
            stage: Stage::Map,
            options,
            name: None,
            deadline: None,
            careful: false,
        },
        combine: None,
        no_combine: false,
        skip_single_values: false,
        reduce: reduce.map(|name| LocalReduce::Builtin(name.to_owned())),
        finalize: None,
        collation: None,
    };
    if let Ok(outcome) = job.run(&[doc]) {
        for result in outcome.results {
            // What is written can be read.
            let _: bson::Document = result.try_into().expect("results are BSON");
        }
    }
}
