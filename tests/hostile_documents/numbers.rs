//! Numbers that say how much memory to take, or how often to do something.

use bson::{Document, doc};

use super::forged::{binary, limits};
use super::{Scene, id_of, lives, peak_mb};

#[tokio::test(flavor = "multi_thread")]
async fn numbers_beyond_their_caps_fail_the_job_that_has_them() {
    let (scene, coordinator, worker) = Scene::start().await;
    let (before, before_worker) = (peak_mb(&coordinator), peak_mb(&worker));
    let mut cases: Vec<(Document, &str, &str, &str)> = Vec::new();
    let mut job = scene.forger.submitted();
    job.get_document_mut("spec").unwrap().insert("partitions", 6_000_000);
    cases.push((job, "spec.partitions", "6000000", "1024"));
    for (field, value, cap) in [
        ("memory_mb", 1_i64 << 40, "4096"),
        ("record_timeout_ms", 864_000_000_000, "86400000"),
        ("task_timeout_ms", i64::MAX, "604800000"),
        ("record_output_bytes", i64::MAX, "1073741824"),
        ("log_bytes", i64::MAX, "8388608"),
    ] {
        let mut job = scene.forger.submitted();
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
    let mut job = scene.forger.submitted();
    job.extend(doc! { "state": "mapping", "plan": 1, "map_tasks": i64::from(u32::MAX), "reduce_tasks": 1_i64 });
    cases.push((job, "map_tasks", "4294967295", "100000"));
    let mut job = scene.forger.submitted();
    job.extend(doc! { "plan": i32::MAX });
    cases.push((job, "plan", "2147483647", ""));
    for (job, ..) in &cases {
        scene.insert("aviary", vec![job.clone()]).await;
    }
    // What every worker has to say to those who plan.
    let worker_row = doc! {
        "_id": "worker/large", "kind": "worker", "shard": scene.forger.shard(), "host": "h",
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
        "created": bson::DateTime::now(), "chunks": i32::MAX, "writing": "w", "content": binary(Vec::new()),
    };
    scene.insert("aviary-funcs", vec![function]).await;
    for n in 0..30 {
        let chunk = doc! {
            "_id": format!("{digest}/w/{n:04}"), "kind": "chunk", "function": &digest, "writing": "w", "n": n,
            "content": binary(vec![0; PART]),
        };
        scene.insert("aviary-funcs", vec![chunk]).await;
    }
    let before = peak_mb(&worker);
    let mut job = scene.forger.submitted();
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

#[tokio::test(flavor = "multi_thread")]
async fn blocks_and_manifests_that_nobody_wrote_so_harm_only_their_job() {
    let (scene, coordinator, worker) = Scene::start().await;
    let before = peak_mb(&worker);
    let mut ids = Vec::new();
    for runs in [vec![1_i64], vec![i64::from(u32::MAX)], vec![1_i64; 300_000]] {
        let documents = scene.forger.reducing(&runs);
        let id = id_of(&documents[0]);
        scene.insert("aviary-intermediates", vec![scene.forger.block(&id)]).await;
        scene.insert("aviary", documents).await;
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
