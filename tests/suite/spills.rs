//! What a worker writes to temporary files is limited, for all of its tasks together.

use crate::common::{Bed, wait_for};
use aviary::shuffle::partition_of;
use aviary::value::{RawVal, key};
use bson::doc;

/// More than a reduce task merges at once.
const RUNS: i32 = 60;
/// What each run holds of each of two keys: text that does not compress to less than half of it.
const VALUE_BYTES: usize = 4_000;
/// What a reducer merges at once.
const FAN_IN: i32 = 48;

/// Two keys, of the first partition of two and of the second.
fn keys() -> [i32; 2] {
    [0, 1].map(|wanted| {
        let in_partition = |number: &i32| {
            let mut encoded = Vec::new();
            let bytes = number.to_le_bytes();
            key::encode(RawVal { tag: 0x10, bytes: &bytes }, &mut encoded).unwrap();
            partition_of(&encoded, 2) == wanted
        };
        (0..).find(in_partition).unwrap()
    })
}

fn noise(n: i32) -> String {
    let mut bytes = [0; VALUE_BYTES / 2];
    blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A job whose two reduce tasks have more runs than they merge at once, each of the same size. Gives its id, and about
/// how many bytes one task writes to temporary files.
async fn submit(bed: &Bed) -> (String, u64) {
    bed.load("docs", (0..RUNS * 2).map(|n| doc! { "_id": n, "text": noise(n) }).collect()).await;
    let [a, b] = keys();
    let map = format!("function () {{ emit({a}, this.text); emit({b}, this.text); }}");
    let map = bed.file("map.js", &map).display().to_string();
    let reduce = bed.file("reduce.js", "function (key, values) { return values.length; }");
    let reduce = reduce.display().to_string();
    let args = ["submit", "-c", "docs", "--map", &map, "--reduce", &reduce, "--no-combine"];
    let more = ["--partitions", "2", "--detach"];
    let id = bed.aviary(&[&args[..], &more[..]].concat()).await.ok().stdout.trim().to_owned();
    let planned = doc! { "_id": &id, "state": "mapping" };
    wait_for("the plan", || async { bed.coll("aviary").find_one(planned.clone()).await.unwrap() })
        .await;
    let maps = doc! { "job": &id, "kind": "map" };
    let runs = bed.coll("aviary").count_documents(maps).await.unwrap();
    let excess = i32::try_from(runs).unwrap() - FAN_IN;
    assert!((2..FAN_IN).contains(&excess), "{runs} runs");
    let records = RUNS * 2 * (excess + 1) / (excess + FAN_IN);
    (id, u64::try_from(records).unwrap() * VALUE_BYTES as u64)
}

async fn results(bed: &Bed, id: &str) {
    let waited = bed.aviary(&["status", "-w", id]).await;
    assert_eq!(waited.code, 0, "{waited:#?}");
    let results = bed.aviary(&["results", id]).await.ok().json();
    assert_eq!(results.len(), 2);
    let all = f64::from(RUNS * 2);
    assert!(results.iter().all(|result| result["value"].as_f64() == Some(all)), "{results:?}");
}

fn split() -> [(&'static str, &'static str); 1] {
    [("AVIARY_SPLIT_BYTES", "8000")]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_needs_more_temporary_files_than_its_worker_may_have_fails_its_job() {
    let bed = Bed::start(1).await;
    let _coordinator = bed.spawn("coordinator", &["coordinator"], &split());
    let (id, _) = submit(&bed).await;
    let limit = [("AVIARY_SPILL_BYTES", "9000")];
    let worker = bed.spawn("worker", &["worker", "--slots", "1"], &limit);
    let ran = bed.aviary(&["status", "-w", &id]).await;
    assert_eq!(ran.code, 3, "{ran:#?}");
    let job = bed.aviary(&["status", &id, "-o", "json"]).await.ok().json().remove(0);
    assert_eq!(job["error"]["code"], "refused", "{job}");
    let message = job["error"]["message"].as_str().unwrap();
    for word in ["temporary files", "9000 bytes", "--spill-bytes", "AVIARY_SPILL_BYTES"] {
        assert!(message.contains(word), "{word:?} is missing: {message}");
    }
    drop(worker);
    // By default there is room.
    bed.coll("docs").drop().await.unwrap();
    let (id, _) = submit(&bed).await;
    let _worker = bed.worker();
    results(&bed, &id).await;
}

/// One task holds more than half of the room and stops there. The other waits, says for what, and is done after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_waits_for_temporary_files_that_other_tasks_have() {
    let bed = Bed::start(1).await;
    let _coordinator = bed.spawn("coordinator", &["coordinator"], &split());
    let (id, bytes) = submit(&bed).await;
    let quota = (bytes * 3 / 2).to_string();
    let paused = bed.pause("reduce.read", |env| {
        let env = [env, &[("AVIARY_SPILL_BYTES", quota.as_str())]].concat();
        bed.spawn("paused", &["worker", "--slots", "2"], &env)
    });
    paused.arrived().await;
    wait_for("the other task to wait", || async {
        let status = bed.aviary(&["status", &id]).await.ok();
        let words = ["the other tasks of worker", &quota, "--spill-bytes"];
        words.iter().all(|word| status.stdout.contains(word)).then_some(())
    })
    .await;
    paused.go_on();
    results(&bed, &id).await;
}
