//! Numbers that say how much memory to take, or how often to do something.

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, doc};

use super::{Scene, id_of, lives, peak_mb};

fn limits(job: &mut Document) -> &mut Document {
    job.get_document_mut("spec").unwrap().get_document_mut("limits").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_beyond_their_caps_fail_the_job_that_has_them() {
    let (scene, coordinator, worker) = Scene::start().await;
    let (before, before_worker) = (peak_mb(&coordinator), peak_mb(&worker));
    let mut cases: Vec<(Document, &str, &str, &str)> = Vec::new();
    let mut job = scene.submitted();
    job.get_document_mut("spec").unwrap().insert("partitions", 6_000_000);
    cases.push((job, "spec.partitions", "6000000", "1024"));
    for (field, value, cap) in [
        ("memory_mb", 1_i64 << 40, "4096"),
        ("record_timeout_ms", 864_000_000_000, "86400000"),
        ("task_timeout_ms", i64::MAX, "604800000"),
        ("record_output_bytes", i64::MAX, "1073741824"),
        ("log_bytes", i64::MAX, "8388608"),
    ] {
        let mut job = scene.submitted();
        limits(&mut job).insert(field, value);
        let name: &str = match field {
            "memory_mb" => "spec.limits.memory_mb",
            "record_timeout_ms" => "spec.limits.record_timeout_ms",
            "task_timeout_ms" => "spec.limits.task_timeout_ms",
            "record_output_bytes" => "spec.limits.record_output_bytes",
            _ => "spec.limits.log_bytes",
        };
        cases.push((job, name, "", cap));
    }
    // One that says that it is planned already.
    let mut job = scene.submitted();
    job.extend(doc! { "state": "mapping", "plan": 1, "map_tasks": i64::from(u32::MAX), "reduce_tasks": 1_i64 });
    cases.push((job, "map_tasks", "4294967295", "65536"));
    let mut job = scene.submitted();
    job.extend(doc! { "plan": i32::MAX });
    cases.push((job, "plan", "2147483647", ""));
    for (job, ..) in &cases {
        scene.insert("aviary", vec![job.clone()]).await;
    }
    // What every worker has to say to those who plan.
    let worker_row = doc! {
        "_id": "worker/large", "kind": "worker", "shard": scene.job.get_str("shard").unwrap(), "host": "h",
        "pid": 1_i64, "slots": i32::MAX, "busy": 0, "version": "1", "started": bson::DateTime::now(),
        "seen": bson::DateTime::now(),
    };
    let mut other = worker_row.clone();
    other.insert("_id", "worker/larger");
    let mut third = worker_row.clone();
    third.insert("_id", "worker/largest");
    scene.insert("aviary", vec![worker_row, other, third]).await;
    for (job, field, value, cap) in &cases {
        let why = scene.failed(&id_of(job)).await;
        for word in [*field, *value, *cap] {
            assert!(why.contains(word), "{word:?} is missing: {why}");
        }
    }
    scene.honest().await;
    let (after, after_worker) = (peak_mb(&coordinator), peak_mb(&worker));
    assert!(after < before + 150, "coordinator: {before} MiB before, {after} MiB after");
    assert!(
        after_worker < before_worker + 300,
        "worker: {before_worker} MiB, then {after_worker} MiB"
    );
    lives(&coordinator);
    lives(&worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_of_more_parts_than_there_may_be_is_not_put_together() {
    const PART: usize = 15 << 20;
    let (scene, coordinator, worker) = Scene::start().await;
    let digest = "e".repeat(64);
    let function = doc! {
        "_id": &digest, "kind": "function", "language": "wasm", "file": "x", "stages": ["map"], "size": 1_i64,
        "created": bson::DateTime::now(), "chunks": i32::MAX, "writing": "w", "content": empty(),
    };
    scene.insert("aviary-funcs", vec![function]).await;
    for n in 0..30 {
        let chunk = doc! {
            "_id": format!("{digest}/w/{n:04}"), "kind": "chunk", "function": &digest, "writing": "w", "n": n,
            "content": Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: vec![0; PART] }),
        };
        scene.insert("aviary-funcs", vec![chunk]).await;
    }
    let before = peak_mb(&worker);
    let mut job = scene.submitted();
    let map = doc! { "digest": &digest, "language": "wasm" };
    job.get_document_mut("spec").unwrap().insert("map", map);
    let id = id_of(&job);
    scene.insert("aviary", vec![job]).await;
    let why = scene.failed(&id).await;
    for word in ["chunks", "2147483647", &digest] {
        assert!(why.contains(word), "{word:?} is missing: {why}");
    }
    scene.honest().await;
    let after = peak_mb(&worker);
    assert!(after < before + 200, "{before} MiB before, {after} MiB after");
    lives(&coordinator);
    lives(&worker);
}

fn empty() -> Bson {
    Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: Vec::new() })
}

/// A key of documents in documents, deeper than any server would store them as such.
fn nested(depth: usize) -> Vec<u8> {
    let mut bytes = b"\x05\0\0\0\0".to_vec();
    for _ in 0..depth {
        let mut outer = i32::try_from(bytes.len() + 8).unwrap().to_le_bytes().to_vec();
        outer.extend_from_slice(b"\x03a\0");
        outer.append(&mut bytes);
        outer.push(0);
        bytes = outer;
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_and_manifests_that_nobody_wrote_so_harm_only_their_job() {
    let (scene, coordinator, worker) = Scene::start().await;
    let before = peak_mb(&worker);
    let shard = scene.job.get_str("shard").unwrap().to_owned();
    let mut ids = Vec::new();
    // A reduce task of a job that seems to have mapped already.
    for runs in [vec![1_i64], vec![i64::from(u32::MAX)], vec![1_i64; 300_000]] {
        let mut job = scene.submitted();
        let id = id_of(&job);
        job.extend(doc! {
            "state": "reducing", "plan": 1, "map_tasks": 1_i64, "reduce_tasks": 1_i64,
            "snapshot": bson::Timestamp { time: 1, increment: 1 },
        });
        let mut map = scene.ready(&id);
        let part = doc! { "p": 0_i64, "runs": runs, "records": i64::MAX, "bytes": i64::MAX };
        map.extend(
            doc! { "state": "done", "result": { "token": "t", "parts": [part], "counters": {} } },
        );
        let mut reduce = scene.ready(&id);
        reduce.remove("split");
        reduce.extend(doc! { "_id": format!("{id}/reduce/1.00000"), "kind": "reduce" });
        scene.insert("aviary-intermediates", vec![block(&shard, &id)]).await;
        scene.insert("aviary", vec![job, map, reduce]).await;
        ids.push(id);
    }
    for _ in 0..3 {
        scene.honest().await;
    }
    let after = peak_mb(&worker);
    assert!(after < before + 300, "{before} MiB before, {after} MiB after");
    lives(&coordinator);
    lives(&worker);
    for id in ids {
        let job = scene.find(&id).await;
        assert_ne!(job.get_str("state").unwrap(), "succeeded", "{job}");
    }
}

/// A block with one record, whose key is nested as deep as fits, under the right checksum.
fn block(shard: &str, job: &str) -> Document {
    let mut payload = Vec::new();
    let key = [&[3][..], &nested(150_000)].concat();
    let value = b"\x10\x01\0\0\0";
    varint(value.len() as u64 * 2 + 1, &mut payload);
    varint(key.len() as u64, &mut payload);
    payload.extend(key);
    payload.extend_from_slice(value);
    let data = [&[0xA5, 1, 0][..], &payload].concat();
    let (seq, records, raw_bytes, codec) = (0_u32, 1_u32, payload.len() as u32, 0_u8);
    let mut hasher = crc32fast::Hasher::new();
    for number in [seq, records, raw_bytes] {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(&[codec]);
    hasher.update(&data);
    doc! {
        "_id": format!("{job}/p0000/00000/t/0000.00000"), "shard": shard, "job": job, "records": 1_i64,
        "raw_bytes": i64::from(raw_bytes), "crc32": i64::from(hasher.finalize()), "codec": 0,
        "data": Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: data }),
    }
}

fn varint(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}
