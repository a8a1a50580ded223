//! What a JavaScript map adds up by itself comes to the same as if each emit had been given.

use std::collections::BTreeMap;

use bson::{Bson, doc};

use super::*;
use crate::shuffle::builtin::{Accumulator, Builtin};
use crate::value::{RawVal, tag};

/// What was emitted for a key: the sum as a worker makes it, what is no number, and how many emits.
struct Total {
    sum: Accumulator,
    others: Vec<Vec<u8>>,
    emits: u64,
}

/// A key, its sum, what is no number, and how many emits.
type Outcome = (Vec<u8>, String, Vec<Vec<u8>>, u64);

/// Adds up what it is given, and wants sums or not.
#[derive(Default)]
struct Adding {
    wants: Option<Sums>,
    totals: BTreeMap<Vec<u8>, Total>,
    emits: u64,
    sums: u64,
}

impl Adding {
    fn total(&mut self, key: &[u8]) -> &mut Total {
        let new = || Total { sum: Accumulator::new(Builtin::Sum), others: Vec::new(), emits: 0 };
        self.totals.entry(key.to_vec()).or_insert_with(new)
    }

    /// What can be compared with another: for each key the result, what is no number, and how many emits.
    fn results(&self) -> Vec<Outcome> {
        let result = |(key, total): (&Vec<u8>, &Total)| {
            let mut others = total.others.clone();
            others.sort();
            (key.clone(), format!("{:?}", total.sum.finish()), others, total.emits)
        };
        self.totals.iter().map(result).collect()
    }
}

impl Sink for Adding {
    fn emit(&mut self, key: &[u8], value: &[u8]) -> Result<(), SinkError> {
        self.emits += 1;
        let total = self.total(key);
        total.emits += 1;
        let (tag, bytes) = value.split_first().unwrap();
        if total.sum.add(RawVal { tag: *tag, bytes }).is_err() {
            total.others.push(value.to_vec());
        }
        Ok(())
    }
    fn wants_sums(&self) -> Option<Sums> {
        self.wants
    }
    fn emit_sum(&mut self, key: &[u8], sum: f64, emits: u32) -> Result<(), SinkError> {
        self.sums += 1;
        let total = self.total(key);
        assert!(emits > 0);
        total.emits += u64::from(emits);
        total.sum.merge(RawVal { tag: tag::DOUBLE, bytes: &sum.to_le_bytes() })?;
        Ok(())
    }
    fn emit_total(&mut self, key: &[u8], value: &[u8], emits: u32) -> Result<(), SinkError> {
        self.sums += 1;
        let total = self.total(key);
        assert!(emits > 0);
        total.emits += u64::from(emits);
        let (tag, bytes) = value.split_first().unwrap();
        total.sum.add(RawVal { tag: *tag, bytes })?;
        Ok(())
    }
    fn count(&mut self, _name: &str, _delta: i64) {}
    fn log(&mut self, _level: Level, _text: &str) {}
}

fn adding(map: &str, wants: Option<Sums>, limits: Limits) -> Instance<Adding> {
    let module = host().load(js_guest_digest(), JS_GUEST).unwrap();
    let script = Some(Script { map: Some(map.to_owned()), ..Script::default() });
    let options = InstanceOptions { script, limits, ..InstanceOptions::default() };
    Instance::new(&module, options, Adding { wants, ..Adding::default() }).unwrap()
}

/// Emits `n` pairs of `keys` keys, with a value of `values` in turn.
fn emitting(values: &str) -> String {
    format!(
        "function () {{ var values = {values}; for (var i = 0; i < this.n; i++) emit(this.prefix + (i * 7919) % this.keys, values[i % values.length]); }}"
    )
}

fn run_both(map: &str, documents: &[bson::Document]) -> (Adding, Adding) {
    let limits = Limits { call_timeout: Duration::from_secs(60), ..Limits::default() };
    let run = |wants| {
        let mut instance = adding(map, wants, limits);
        let mut bytes = 0;
        for document in documents {
            instance.call(Stage::Map, &document.to_vec().unwrap()).unwrap();
            bytes += instance.output_bytes();
        }
        (instance.into_sink(), bytes)
    };
    let (with, bytes_with) = run(Some(Sums::InAnyOrder));
    let (without, bytes_without) = run(None);
    assert_eq!(bytes_with, bytes_without);
    assert_eq!(without.sums, 0);
    (with, without)
}

/// The same of a function in C.
fn run_both_in_c(module: &[u8], documents: &[bson::Document]) -> (Adding, Adding) {
    let module = host().load(&blake3::hash(module), module).unwrap();
    let limits = Limits { call_timeout: Duration::from_secs(60), ..Limits::default() };
    let run = |wants| {
        let options = InstanceOptions { limits, ..InstanceOptions::default() };
        let mut instance =
            Instance::new(&module, options, Adding { wants, ..Adding::default() }).unwrap();
        let mut bytes = 0;
        for some in documents.chunks(1_000) {
            let input: Vec<u8> = some.iter().flat_map(|one| one.to_vec().unwrap()).collect();
            instance.call_batch(Stage::Map, &input, some.len()).unwrap();
            bytes += instance.output_bytes();
        }
        (instance.into_sink(), bytes)
    };
    let (with, bytes_with) = run(Some(Sums::InAnyOrder));
    // A function that is known to add up gets its values in order, which these sums do not keep.
    let (without, bytes_without) = run(Some(Sums::InOrder));
    assert_eq!(bytes_with, bytes_without);
    assert_eq!(without.sums, 0);
    (with, without)
}

fn record(n: i32, keys: i32, prefix: &str) -> bson::Document {
    doc! { "n": n, "keys": keys, "prefix": prefix }
}

#[test]
fn sums_made_in_the_guest_are_those_of_single_emits() {
    let values = "[1, 0.5, -3, 1e15, 0.1, -0, NaN, Infinity, NumberLong(2), NumberInt(3), 'x', null, 17592186044415, 17592186044415, -0.00390625]";
    let documents = [
        record(5000, 10, "k"),
        record(100, 3, ""),
        record(3000, 700, "twenty-seven-bytes-here-"),
        record(100, 9, "déjà"),
        record(100, 9, "日本"),
        record(100, 9, "a key that is longer than what the table holds "),
    ];
    let (with, without) = run_both(&emitting(values), &documents);
    assert!(with.sums > 0 && with.emits < without.emits);
    assert_eq!(with.results(), without.results());
}

#[test]
fn sums_made_in_c_are_those_of_single_emits() {
    let orders = include_bytes!("../../../guests/c/sum_by_customer.wasm");
    let values = [
        Bson::from(1_i32),
        Bson::from(i32::MAX),
        Bson::from(i32::MIN),
        Bson::from(0.25),
        Bson::from(0.1),
        Bson::from(-0.0),
        Bson::from(f64::NAN),
        Bson::from(f64::INFINITY),
        Bson::from(17_592_186_044_415.0),
        Bson::from(i64::MAX),
        Bson::from(i64::MIN),
        Bson::from(3_i64),
        Bson::Null,
        Bson::from("text"),
        Bson::from(doc! { "a": 1 }),
    ];
    let keys =
        ["", "k", "déjà vu", "twenty-eight bytes, no more.", "twenty-nine bytes and no more"];
    let order = |n: usize| {
        let key = format!("{}{}", keys[n % keys.len()], n / 7 % 40);
        doc! { "customer": key, "total": values[n * 13 % values.len()].clone() }
    };
    let documents: Vec<_> = (0..30_000).map(order).collect();
    let (with, without) = run_both_in_c(orders, &documents);
    assert!(with.sums > 0 && with.emits < without.emits);
    assert_eq!(with.results(), without.results());

    let words = include_bytes!("../../../guests/c/word_count.wasm");
    let text = |n: u32| {
        let word = |i: u32| format!("w{} ", char::from(b'a' + ((n * 31 + i * i) % 23) as u8));
        doc! { "text": (0..200).map(word).collect::<String>() }
    };
    let documents: Vec<_> = (0..500).map(text).collect();
    let (with, without) = run_both_in_c(words, &documents);
    assert!(with.emits == 0 && with.sums < 100, "{} emits, {} sums", with.emits, with.sums);
    assert_eq!(with.results(), without.results());

    // Where keys do not repeat, the table rests.
    let order = |n: usize| doc! { "customer": n.to_string(), "total": 1 };
    let documents: Vec<_> = (0..100_000).map(order).collect();
    let (with, without) = run_both_in_c(orders, &documents);
    assert_eq!(with.results(), without.results());
    assert!(with.emits > 60_000, "{} emits, {} sums", with.emits, with.sums);
}

#[test]
fn more_keys_than_the_table_holds_lose_nothing() {
    let (with, without) = run_both(&emitting("[1, 2, 0.25]"), &[record(150_000, 40_000, "k")]);
    assert_eq!(with.results(), without.results());
}

#[test]
fn where_keys_do_not_repeat_the_table_rests() {
    let (with, without) = run_both(&emitting("[1]"), &[record(100_000, 100_000, "k")]);
    assert_eq!(with.results(), without.results());
    assert!(with.emits > 60_000, "{} emits, {} sums", with.emits, with.sums);
}

#[test]
fn where_keys_repeat_the_host_gets_few() {
    let (with, without) = run_both(&emitting("[1]"), &[record(100_000, 50, "k")]);
    assert_eq!(with.results(), without.results());
    assert!(with.emits == 0 && with.sums < 1000, "{} emits, {} sums", with.emits, with.sums);
}

#[test]
fn a_record_that_emits_without_end_is_stopped_by_its_limit() {
    let limits = Limits {
        output_bytes_max: 100_000,
        call_timeout: Duration::from_secs(60),
        ..Limits::default()
    };
    let mut instance =
        adding("function () { for (;;) emit('a', 1); }", Some(Sums::InAnyOrder), limits);
    let error = instance.call(Stage::Map, &doc! {}.to_vec().unwrap()).unwrap_err();
    assert!(matches!(error, GuestError::Output { .. }), "{error:?}");
}

#[test]
fn of_equal_keys_the_first_one_comes_first() {
    let map = "function () { emit('a', 1); emit(BSONSymbol('a'), 1); emit('a', 1); }";
    let mut instance = adding(map, Some(Sums::InAnyOrder), Limits::default());
    instance.call(Stage::Map, &doc! {}.to_vec().unwrap()).unwrap();
    // The text was given before the symbol.
    let sink = instance.into_sink();
    assert_eq!((sink.sums, sink.emits), (2, 1));
}

#[test]
fn sums_are_refused_where_they_are_not_wanted() {
    let text = r#"(module (import "aviary" "emit_sum" (func $sum (param i32 i32 f64 i32)))
        (memory (export "memory") 1)
        (func (export "aviary_abi_v1"))
        (func (export "aviary_alloc") (param i32) (result i32) i32.const 64)
        (func (export "map") (param i32 i32)
            (call $sum (i32.const 0) (i32.const 1) (f64.const 1) (i32.const 1)))
        (data (i32.const 0) "\0a"))"#;
    let error = map_error(text, InstanceOptions::default());
    let fault = matches!(&error, GuestError::BadEmit { fault: EmitFault::SumsNotWanted, .. });
    assert!(fault, "{error:?}");
}

#[test]
fn in_order_a_value_that_is_not_exact_ends_the_sums() {
    let map = "function () { for (var v of [1, 2, 0.1, 3, 4]) { emit('a', v); emit('b', 1); } }";
    let mut instance = adding(map, Some(Sums::InOrder), Limits::default());
    instance.call(Stage::Map, &doc! {}.to_vec().unwrap()).unwrap();
    let sink = instance.into_sink();
    // One of a, one of b; then each emit by itself.
    assert_eq!((sink.sums, sink.emits), (2, 6));
}

#[test]
fn in_order_a_symbol_ends_the_sums() {
    let map = "function () { emit('a', 1); emit(BSONSymbol('a'), 1); emit('a', 1); }";
    let mut instance = adding(map, Some(Sums::InOrder), Limits::default());
    instance.call(Stage::Map, &doc! {}.to_vec().unwrap()).unwrap();
    let sink = instance.into_sink();
    assert_eq!((sink.sums, sink.emits), (1, 2));
}
