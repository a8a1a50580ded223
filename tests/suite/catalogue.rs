//! The function catalogue: equal content once, names with versions, large modules in parts, nothing removed that
//! a job needs, and no byte executed that is not what its digest says.

use std::path::{Path, PathBuf};

use crate::common::{Bed, Ran, wait_for};
use bson::spec::BinarySubtype;
use bson::{Binary, Document, doc};

const COUNT: &str = "function () { emit(this.k, 1) }";
const TENS: &str = "function () { emit(this.k, 10) }";

/// Emits `(1, 7)` for each call, and nothing else.
const SEVEN: &str = r#"(module
    (import "aviary" "emit" (func $emit (param i32 i32 i32 i32)))
    (memory (export "memory") 2)
    (data (i32.const 0) "\10\01\00\00\00\10\07\00\00\00")
    (func (export "aviary_abi_v1"))
    (func (export "aviary_alloc") (param i32) (result i32) (i32.const 1024))
    (func (export "map") (param i32 i32)
        (call $emit (i32.const 0) (i32.const 5) (i32.const 5) (i32.const 5))))"#;

/// The module with so many bytes of a custom section behind it.
fn padded(bytes: usize) -> Vec<u8> {
    let mut wasm = aviary::wasm::wat_to_wasm(SEVEN).expect("a module");
    let mut section = b"\x07padding".to_vec();
    section.resize(section.len() + bytes, 0x5a);
    wasm.push(0);
    let mut length = section.len();
    while length >= 0x80 {
        wasm.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    wasm.push(length as u8);
    wasm.extend(section);
    wasm
}

async fn input(bed: &Bed) {
    let docs = (0..6).map(|n| doc! { "_id": n, "k": n % 2 });
    bed.load("input", docs.collect()).await;
}

async fn functions(bed: &Bed) -> Vec<serde_json::Value> {
    bed.aviary(&["functions", "list", "-o", "json"]).await.ok().json()
}

async fn insert(bed: &Bed, path: &Path, name: &str) -> serde_json::Value {
    let path = path.to_str().expect("a plain path");
    bed.aviary(&["insert", path, "--name", name, "-o", "json"]).await.ok().json().remove(0)
}

async fn submit(bed: &Bed, map: &str, out: &str) -> Ran {
    reduced(bed, map, "_sum", out).await
}

async fn reduced(bed: &Bed, map: &str, reduce: &str, out: &str) -> Ran {
    let out = format!("replace:{out}");
    bed.aviary(&["submit", "-c", "input", "--map", map, "--reduce", reduce, "--out", &out]).await
}

/// Submits without waiting and returns the job's id.
async fn detached(bed: &Bed, map: &str, out: &str) -> String {
    let out = format!("replace:{out}");
    let args = ["submit", "-c", "input", "--map", map, "--reduce", "_sum", "--out", &out];
    let ran = bed.aviary(&[&args[..], &["--detach", "-o", "name", "-q"]].concat()).await.ok();
    ran.stdout.trim().to_owned()
}

async fn ended(bed: &Bed, job: &str) -> Document {
    let filter = doc! { "_id": job, "state": { "$in": ["succeeded", "failed", "cancelled"] } };
    wait_for("the job to end", || async {
        bed.coll("aviary").find_one(filter.clone()).await.ok().flatten()
    })
    .await
}

async fn sums(bed: &Bed, out: &str) -> Vec<f64> {
    let number = |doc: &Document| match doc.get("value") {
        Some(bson::Bson::Int32(n)) => f64::from(*n),
        Some(bson::Bson::Int64(n)) => *n as f64,
        Some(bson::Bson::Double(n)) => *n,
        other => panic!("no number: {other:?}"),
    };
    bed.all(out).await.iter().map(number).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn names_have_versions_and_a_job_keeps_the_one_it_began_with() {
    let bed = Bed::start(1).await;
    for (verb, nothing) in
        [("list", "no such jobs"), ("workers", "no workers"), ("functions", "no functions")]
    {
        let empty = bed.aviary(&["-d", "elsewhere", verb]).await.ok();
        let hint = format!("{nothing} in database elsewhere; --db names another");
        assert!(empty.stderr.contains(&hint), "{verb}: {}", empty.stderr);
    }
    input(&bed).await;
    let (count, tens) = (bed.file("count.js", COUNT), bed.file("tens.js", TENS));
    let first = insert(&bed, &count, "keys").await;
    assert_eq!(first["version"], 1);
    // The same again is the same version of the same function, whatever its file is called.
    let copy = bed.file("copy.js", COUNT);
    assert_eq!(insert(&bed, &copy, "keys").await["digest"], first["digest"]);
    assert_eq!(functions(&bed).await.len(), 1);

    let job = detached(&bed, "keys", "first").await;
    let second = insert(&bed, &tens, "keys").await;
    assert_eq!(second["version"], 2);
    assert_ne!(second["digest"], first["digest"]);
    let (_coordinator, _worker) = (bed.coordinator(), bed.worker());
    assert_eq!(ended(&bed, &job).await.get_str("state").unwrap(), "succeeded");
    assert_eq!(sums(&bed, "first").await, [3.0, 3.0], "the job ran what the name meant then");
    submit(&bed, "keys", "now").await.ok();
    assert_eq!(sums(&bed, "now").await, [30.0, 30.0]);
    submit(&bed, "keys@1", "then").await.ok();
    assert_eq!(sums(&bed, "then").await, [3.0, 3.0]);
    assert_eq!(submit(&bed, "keys@3", "never").await.code, 5);

    let listed = functions(&bed).await;
    let names: Vec<&serde_json::Value> = listed.iter().map(|row| &row["names"]).collect();
    assert_eq!(names, [&serde_json::json!(["keys"]), &serde_json::json!(["keys@1"])]);
    let shown = bed.aviary(&["functions", "show", "keys"]).await.ok();
    assert_eq!(shown.stdout.trim(), TENS);

    // Without its second version the name leads to its first again.
    bed.aviary(&["functions", "rm", "keys"]).await.ok();
    let shown = bed.aviary(&["functions", "show", "keys"]).await.ok();
    assert_eq!(shown.stdout.trim(), COUNT);
    // Whoever asks for a version that was removed never gets another function.
    assert_eq!(insert(&bed, &tens, "keys").await["version"], 3);
    assert_eq!(bed.aviary(&["functions", "show", "keys@2"]).await.code, 5);
    bed.aviary(&["functions", "rm", "keys"]).await.ok();
    bed.aviary(&["functions", "rm", "keys"]).await.ok();
    assert_eq!(bed.aviary(&["functions", "show", "keys"]).await.code, 5);
    assert_eq!(bed.aviary(&["functions", "rm", "keys"]).await.code, 5);
    assert!(functions(&bed).await.is_empty());
    for bad in ["_sum", "a@1", "a/b", ""] {
        let path = count.to_str().unwrap();
        assert_eq!(bed.aviary(&["insert", path, "--name", bad]).await.code, 2, "{bad:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_a_job_needs_stays() {
    let bed = Bed::start(1).await;
    input(&bed).await;
    insert(&bed, &bed.file("count.js", COUNT), "keys").await;
    // Nobody runs it, so it goes on needing its function.
    let job = detached(&bed, "keys", "sums").await;
    let refused = bed.aviary(&["functions", "rm", "keys"]).await;
    assert_eq!(refused.code, 8);
    assert!(refused.stderr.contains(&job), "{}", refused.stderr);
    assert_eq!(functions(&bed).await.len(), 1);
    bed.aviary(&["cancel", &job]).await.ok();
    bed.aviary(&["functions", "rm", "keys"]).await.ok();
    assert!(functions(&bed).await.is_empty());
}

/// Who removes a function, who stores it and who submits a job meet in the function's document: whatever the
/// order, a function that is there is whole, and no job is left without its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_is_being_removed_is_gone_for_new_jobs_only() {
    let bed = Bed::start(1).await;
    input(&bed).await;
    let path = bed.file("count.js", COUNT);
    let digest = insert(&bed, &path, "keys").await["digest"].as_str().unwrap().to_owned();
    let job = detached(&bed, "keys", "sums").await;
    // Somebody is about to remove it, or ended while he was.
    let marked = doc! { "$set": { "removing": true } };
    let catalogue = bed.coll("aviary-funcs");
    let mark = async || {
        // Aviary reads what a majority has, and a router does not ask for one by itself.
        let marking = catalogue.update_one(doc! { "_id": &digest }, marked.clone());
        marking.write_concern(mongodb::options::WriteConcern::majority()).await.unwrap();
    };
    mark().await;
    let refused = submit(&bed, "keys", "others").await;
    assert_eq!(refused.code, 8, "{refused:#?}");
    assert!(refused.stderr.contains("was removed just now"), "{refused:#?}");
    // The job that was there before has it still.
    let (_coordinator, _worker) = (bed.coordinator(), bed.worker());
    assert_eq!(ended(&bed, &job).await.get_str("state").unwrap(), "succeeded");
    // Whoever brings the function itself stores it again.
    mark().await;
    submit(&bed, path.to_str().unwrap(), "others").await.ok();
    submit(&bed, "keys", "others").await.ok();

    let large = bed.dir.path().join("large.wasm");
    std::fs::write(&large, padded(16 << 20)).unwrap();
    for _ in 0..4 {
        insert(&bed, &large, "large").await;
        let remove = ["functions", "rm", "large"];
        let (removed, inserted) = tokio::join!(bed.aviary(&remove), insert(&bed, &large, "large"));
        assert!([0, 5, 8].contains(&removed.code), "{removed:#?}");
        let digest = inserted["digest"].as_str().unwrap();
        // By digest, since its name may be gone.
        let there = bed.aviary(&["functions", "show", digest, "-o", "name"]).await;
        if there.code == 0 {
            reduced(&bed, digest, "_max", "sevens").await.ok();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_module_is_stored_in_parts_and_runs() {
    let bed = Bed::start(1).await;
    input(&bed).await;
    let wasm = padded(33 << 20);
    let path = bed.dir.path().join("large.wasm");
    std::fs::write(&path, &wasm).unwrap();
    let inserted = insert(&bed, &path, "large").await;
    assert_eq!(inserted["size"], wasm.len());
    assert_eq!(inserted["stages"], serde_json::json!(["map"]));
    let digest = inserted["digest"].as_str().unwrap();
    let parts = doc! { "kind": "chunk", "function": digest };
    let catalogue = bed.coll("aviary-funcs");
    assert_eq!(catalogue.count_documents(parts.clone()).await.unwrap(), 3);
    let (_coordinator, _worker) = (bed.coordinator(), bed.worker());
    reduced(&bed, "large", "_max", "sums").await.ok();
    assert_eq!(bed.all("sums").await, [doc! { "_id": 1, "value": 7 }]);

    // What comes out is what went in, and nothing stays behind.
    let saved = bed.dir.path().join("saved.wasm");
    bed.aviary(&["functions", "show", "large", "--save", saved.to_str().unwrap()]).await.ok();
    assert!(std::fs::read(&saved).unwrap() == wasm);
    bed.aviary(&["functions", "rm", "large"]).await.ok();
    assert_eq!(catalogue.count_documents(doc! {}).await.unwrap(), 0);

    let path = bed.dir.path().join("too-large.wasm");
    std::fs::write(&path, padded(65 << 20)).unwrap();
    let refused = bed.aviary(&["insert", path.to_str().unwrap()]).await;
    assert_eq!(refused.code, 8, "{}", refused.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_byte_flipped_in_the_catalogue_never_runs() {
    let bed = Bed::start(1).await;
    input(&bed).await;
    let path = bed.file("seven.wat", SEVEN);
    let digest = insert(&bed, &path, "seven").await["digest"].as_str().unwrap().to_owned();
    let catalogue = bed.coll("aviary-funcs");
    let stored = catalogue.find_one(doc! { "_id": &digest }).await.unwrap().unwrap();
    let mut bytes = stored.get_binary_generic("content").unwrap().clone();
    // The 7 becomes a 9: still a module, that emits something else.
    let at = bytes.windows(2).position(|pair| pair == [0x10, 7]).expect("the 7");
    bytes[at + 1] = 9;
    let content = Binary { subtype: BinarySubtype::Generic, bytes };
    let damage = doc! { "$set": { "content": content } };
    catalogue.update_one(doc! { "_id": &digest }, damage).await.unwrap();

    let (_coordinator, _worker) = (bed.coordinator(), bed.worker());
    let failed = submit(&bed, "seven", "sums").await;
    assert_eq!(failed.code, 3, "{}", failed.stderr);
    assert!(failed.stderr.contains("digest"), "{}", failed.stderr);
    assert!(bed.all("sums").await.is_empty());
    assert_eq!(bed.aviary(&["functions", "show", "seven"]).await.code, 8);

    // Inserting it again mends it, as the error says.
    insert(&bed, &path, "seven").await;
    reduced(&bed, "seven", "_max", "sums").await.ok();
    assert_eq!(bed.all("sums").await, [doc! { "_id": 1, "value": 7 }]);
}

/// The only compiled module in a worker's cache.
fn cached(cache: &Path) -> PathBuf {
    let mut found = Vec::new();
    let mut directories = vec![cache.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).expect("read") {
            let path = entry.expect("read").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "cwasm") {
                found.push(path);
            }
        }
    }
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_worker_does_not_compile_and_a_flipped_byte_in_its_cache_never_runs() {
    const COMPILED: &str = "compiled a module";
    const CACHED: &str = "read a compiled module from the cache";
    const REJECTED: &str = "was not intact and is made again";
    let bed = Bed::start(1).await;
    input(&bed).await;
    let map = bed.file("count.js", COUNT);
    let map = map.to_str().unwrap();
    let cache = bed.dir.path().join("cache");
    let _coordinator = bed.coordinator();
    let run = async |out: &str| {
        let env = [("AVIARY_CACHE", cache.to_str().unwrap())];
        let worker = bed.spawn("worker", &["worker", "--slots", "1"], &env);
        submit(&bed, map, out).await.ok();
        assert_eq!(sums(&bed, out).await, [3.0, 3.0]);
        let log = worker.log().expect("a log");
        [COMPILED, CACHED, REJECTED].map(|line| log.matches(line).count())
    };
    assert_eq!(run("first").await, [1, 0, 0], "the first worker compiles the guest");
    assert_eq!(run("second").await, [0, 1, 0], "the second one has no need to");
    let file = cached(&cache);
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert_eq!(run("third").await, [1, 0, 1], "what was changed is thrown away");
    assert_eq!(run("fourth").await, [0, 1, 0]);
}
