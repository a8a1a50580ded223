//! The fuzz targets of `fuzz/`, each over its seeds and some mutations of them that are always the same, so that the
//! targets never rot; `AVIARY_FUZZ_MUTATIONS=N` makes N of each seed. What the documents' target may allocate is counted. With `AVIARY_FUZZ_SEEDS=DIR` the seeds are written to `DIR/TARGET/` for cargo-fuzz.

#![cfg(test)]

#[path = "../fuzz/src/allocation.rs"]
#[expect(unsafe_code, reason = "an allocator that counts can be written in no other way")]
mod allocation;
#[path = "../fuzz/src/documents.rs"]
mod documents;
#[path = "../fuzz/src/emits.rs"]
mod emits;
#[path = "../fuzz/src/modules.rs"]
mod modules;

use std::convert::Infallible;

use aviary::ids::{JobId, TaskId, Token};
use aviary::job::{Job, JobSpec};
use aviary::shuffle::{Block, BlockLimits, RunWriter};
use aviary::task::{Task, TaskKind, TaskResult};
use aviary::value::RawValBuf;
use aviary::wasm::wat_to_wasm;
use bson::{Bson, Document, doc};
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

/// Mutations of each seed.
const MUTATIONS: usize = 2_000;

#[global_allocator]
static ALLOCATOR: allocation::Counting = allocation::Counting;

/// A few bytes changed, removed, repeated or taken from elsewhere.
fn mutated(seed: &[u8], random: &mut SmallRng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..random.random_range(1..6) {
        if bytes.is_empty() {
            break;
        }
        let at = random.random_range(0..bytes.len());
        match random.random_range(0..5) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = random.next_u32() as u8,
            2 => bytes.truncate(at),
            3 => {
                let end = (at + random.random_range(1..9)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                let to = random.random_range(0..bytes.len());
                bytes.splice(to..to, piece);
            }
            _ => {
                bytes.remove(at);
            }
        }
    }
    bytes
}

fn fuzz(target: &str, seeds: &[Vec<u8>], run: fn(&[u8])) {
    if let Some(dir) = std::env::var_os("AVIARY_FUZZ_SEEDS") {
        let dir = std::path::Path::new(&dir).join(target);
        std::fs::create_dir_all(&dir).unwrap();
        for (n, seed) in seeds.iter().enumerate() {
            std::fs::write(dir.join(format!("seed-{n:02}")), seed).unwrap();
        }
    }
    let wanted = std::env::var("AVIARY_FUZZ_MUTATIONS").ok();
    let mutations = wanted.map_or(MUTATIONS, |count| count.parse().expect("a number"));
    // Another begin is another set of mutations.
    let begin = std::env::var("AVIARY_FUZZ_BEGIN").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let mut random = SmallRng::seed_from_u64(begin);
    let mut count = 0_u64;
    for seed in seeds {
        run(seed);
        for _ in 0..mutations {
            run(&mutated(seed, &mut random));
        }
        count += 1 + mutations as u64;
    }
    println!("{target}: {count} executions");
}

#[test]
fn mutated_modules_leave_the_host_alive() {
    let head = r#"(import "aviary" "emit" (func $emit (param i32 i32 i32 i32)))
        (import "aviary" "scope" (func $scope (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1) (table 4 funcref) (global $n (mut i32) (i32.const 3))
        (func (export "aviary_abi_v1"))
        (func (export "aviary_alloc") (param i32) (result i32) (i32.const 1024))"#;
    let guests = [
        r#"(data (i32.const 0) "\10\01\00\00\00\10\07\00\00\00")
        (func (export "map") (param i32 i32)
            (call $emit (i32.const 0) (i32.const 5) (i32.const 5) (i32.const 5)))"#,
        r#"(func (export "map") (param i32 i32) (local i32)
            (loop $again
                (local.set 2 (i32.add (local.get 2) (i32.load8_u (local.get 0))))
                (local.set 0 (i32.add (local.get 0) (i32.const 1)))
                (br_if $again (local.tee 1 (i32.sub (local.get 1) (i32.const 1))))))
        (func (export "reduce") (param i32 i32) (drop (memory.grow (global.get $n))))"#,
        r#"(elem (i32.const 0) $f $g) (type $t (func (param i32) (result i32)))
        (func $f (type $t) (i32.mul (local.get 0) (i32.const 3)))
        (func $g (type $t) (i32.div_u (i32.const 9) (local.get 0)))
        (func (export "_initialize") (global.set $n (call $scope (i32.const 64) (i32.const 100))))
        (func (export "map") (param i32 i32)
            (drop (call_indirect (type $t) (i32.const 1) (local.get 1))))
        (func (export "finalize") (param i32 i32) (i64.store (local.get 0) (i64.const 7)))"#,
    ];
    let mut seeds: Vec<Vec<u8>> = guests
        .iter()
        .map(|body| wat_to_wasm(&format!("(module {head} {body})")).unwrap())
        .collect();
    seeds.push(include_bytes!("../guests/c/sum_by_customer.wasm").to_vec());
    fuzz("modules", &seeds, modules::run);
}

fn raw(value: &Bson) -> Vec<u8> {
    let value = RawValBuf::from_bson(value).unwrap();
    let value = value.as_raw();
    [&[value.tag], value.bytes].concat()
}

#[test]
fn mutated_emits_leave_the_host_alive() {
    let values = [
        Bson::Int32(7),
        Bson::Int64(1 << 40),
        Bson::Double(0.1),
        Bson::Decimal128("1.5E+3".parse().unwrap()),
        Bson::String("grüße".into()),
        Bson::Document(
            doc! { "a": [1, { "b": Bson::Null }], "c": bson::Timestamp { time: 1, increment: 2 } },
        ),
        Bson::Boolean(true),
        Bson::DateTime(bson::DateTime::from_millis(-1)),
        Bson::ObjectId(bson::oid::ObjectId::from_bytes([9; 12])),
        Bson::MinKey,
    ];
    let mut seeds = Vec::new();
    for choice in 0..7_u8 {
        let mut seed = vec![choice];
        for key in &values {
            for value in &values[..4] {
                let (key, value) = (raw(key), raw(value));
                seed.extend((key.len() as u16).to_le_bytes());
                seed.extend((value.len() as u16).to_le_bytes());
                seed.extend(key);
                seed.extend(value);
            }
        }
        seeds.push(seed);
    }
    // Once taken for a value: binary data of subtype 2 without the length inside it.
    seeds.push(b"\x03\x05\0\x06\0\x10\xfc\xff\x04\x10\x05\0\0\0\0\x02".to_vec());
    fuzz("emits", &seeds, emits::run);
}

/// Blocks of a few records, and of one that is too large for a block, as the `documents` target takes them.
fn blocks() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let mut sink = |block: Block| {
        let mut seed = vec![4];
        for number in [block.seq, block.records, block.raw_bytes] {
            seed.extend(u16::try_from(number).unwrap().to_le_bytes());
        }
        seed.extend([block.codec, 0]);
        seed.extend(block.data);
        seeds.push(seed);
        Ok::<(), Infallible>(())
    };
    for value in ["short".to_owned(), (0..2_000).map(|n| (n * 7919).to_string()).collect()] {
        let mut writer = RunWriter::new(BlockLimits { raw_bytes_target: 1024 });
        for key in 0..5 {
            let key = RawValBuf::from_bson(&Bson::Int32(key)).unwrap();
            let value = RawValBuf::from_bson(&Bson::String(value.clone())).unwrap();
            writer.push(key.as_raw(), value.as_raw(), &mut sink).unwrap();
        }
        writer.finish(&mut sink).unwrap();
    }
    seeds.truncate(4);
    seeds
}

fn of_task(task: &Task) -> Document {
    bson::serialize_to_document(task).unwrap()
}

#[test]
fn mutated_documents_leave_the_reader_alive() {
    let job = JobId::generate();
    let task = Task::planned(TaskKind::Map, &job, 1, 7, "s0");
    let mut leased = Task::planned(TaskKind::Reduce, &job, 2, 3, "s1");
    leased.token = Some(Token::generate());
    leased.until = Some(bson::DateTime::from_millis(1));
    leased.history = vec![doc! { "worker": "w", "outcome": "lost" }];
    let function = doc! { "digest": "d", "language": "js" };
    let spec = doc! {
        "input": { "db": "test", "collection": "input", "query": { "a": { "$gt": 1 } } },
        "map": &function,
        "reduce": { "builtin": "_sum" },
        "finalize": &function,
        "scope": { "n": 1 },
        "output": { "mode": "replace", "db": "test", "collection": "out" },
        "limits": { "memory_mb": 64_i64, "record_timeout_ms": 1_000_i64 },
    };
    let job = doc! {
        "_id": job.as_str(), "kind": "job", "shard": "home", "state": "mapping", "priority": 0, "spec": &spec,
        "created": bson::DateTime::from_millis(0), "plan": 1, "map_tasks": 3, "reduce_tasks": 2,
        "reduce_on": ["s0", "s1"], "snapshot": bson::Timestamp { time: 5, increment: 1 },
    };
    let stored =
        aviary::store::catalogue::StoredFunction::new("js", "a.js", Vec::new(), b"x".to_vec());
    let part = doc! { "p": 3_i64, "runs": [1_i64, 70_000_i64], "records": 9_i64, "bytes": 99_i64 };
    let apart = doc! { "p": 4_i64, "apart": 9_i64, "records": 9_i64, "bytes": 99_i64 };
    let result = doc! { "token": "t", "parts": [part, apart], "counters": { "input": 1_i64 } };
    let mut chunked = bson::serialize_to_document(&stored).unwrap();
    chunked.extend(doc! { "chunks": 3, "writing": "w" });
    let name = doc! {
        "_id": "name:n", "kind": "name", "name": "n", "digest": "d", "version": 2,
        "set": bson::DateTime::from_millis(1),
        "earlier": [{ "digest": "e", "version": 1, "set": bson::DateTime::from_millis(0) }],
    };
    bson::deserialize_from_document::<aviary::store::catalogue::FunctionName>(name.clone())
        .unwrap();
    let mut done = of_task(&task);
    done.extend(doc! { "state": "done", "result": &result });
    bson::deserialize_from_document::<Task>(done.clone()).unwrap();
    let seed =
        |kind: u8, doc: Document| [&[kind][..], &bson::serialize_to_vec(&doc).unwrap()].concat();
    // A seed that is not read is no seed.
    bson::deserialize_from_document::<Job>(job.clone()).unwrap();
    bson::deserialize_from_document::<JobSpec>(spec.clone()).unwrap();
    bson::deserialize_from_document::<TaskResult>(result.clone()).unwrap();
    let js = doc! { "js": "function () { emit(1, 1); }" };
    let input = doc! { "collection": "c", "query": { "a": 1 }, "sort": { "a": 1 }, "limit": 5_i64 };
    let asked = doc! {
        "_id": "r", "v": 1, "input": input, "map": &js, "reduce": "_sum", "finalize": &js,
        "out": { "replace": "t", "db": "other" }, "scope": { "n": 1 }, "partitions": 4,
        "limits": { "memoryMb": 64, "recordTimeoutMs": 1_000.0 }, "priority": 1, "client": "c", "tag": "t",
    };
    let command = doc! {
        "mapReduce": "c", "map": "function () { emit(1, 1); }", "reduce": "function (k, v) { return 1; }",
        "out": { "merge": "t", "db": "other" }, "query": { "a": 1 }, "limit": 5, "scope": { "n": 1 }, "verbose": true,
    };
    let commanded = doc! { "_id": "r", "v": 1, "command": command };
    let cancel = doc! { "_id": "r", "v": 1, "cancel": "0123456789abcdef01234567" };
    for asked in [&asked, &commanded, &cancel] {
        let row = bson::raw::RawDocumentBuf::try_from(asked).unwrap();
        let asked = aviary::store::requests::found("aviary-requests", "r".into(), &row).asked;
        let wish = asked.unwrap().sorted().unwrap().wish;
        if let aviary::request::Wish::Run(mut asked) = wish {
            aviary::request::job::translated(&mut asked).unwrap();
            let id = JobId::from_text("j");
            aviary::request::job::drafted("test", &id, &mut asked).unwrap();
        }
    }
    let mut seeds = vec![
        seed(7, asked),
        seed(7, commanded),
        seed(7, cancel),
        seed(0, of_task(&task)),
        seed(0, of_task(&leased)),
        seed(1, job),
        seed(2, bson::serialize_to_document(&stored).unwrap()),
        seed(2, chunked),
        seed(2, name),
        seed(0, done),
        seed(3, spec),
        seed(3, result),
    ];
    let blocks = blocks();
    // All of them as one run, and as documents.
    let mut run = vec![5];
    for block in &blocks {
        run.extend(u16::try_from(block.len() - 1).unwrap().to_le_bytes());
        run.extend(&block[1..]);
    }
    seeds.push(run);
    let data = bson::Binary {
        subtype: bson::spec::BinarySubtype::Generic,
        bytes: blocks[0][9..].to_vec(),
    };
    let number = |at: usize| i64::from(u16::from_le_bytes([blocks[0][at], blocks[0][at + 1]]));
    seeds.push(seed(
        6,
        doc! {
            "_id": "j/p0000/00000/t/0000.00000", "shard": "s0", "job": "j", "records": number(3),
            "raw_bytes": number(5), "crc32": 0_i64, "codec": i32::from(blocks[0][7]), "data": data,
        },
    ));
    seeds.extend(blocks);
    assert_eq!(task.id, TaskId::map(&task.job, 1, 7));
    fuzz("documents", &seeds, |data| {
        allocation::within(documents::ALLOCATION_BYTES_MAX, data, documents::run);
    });
}
