//! A job over a sharded collection is exact while chunks move from shard to shard without pause and
//! clients write at full speed: its input is the whole collection as of one instant.
//!
//! `AVIARY_MOTION_DOCS` says how many documents each collection has, `AVIARY_MOTION_MOVES` how many migrations each job has to
//! see committed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::common::{Bed, Links, Paused, cluster, wait_for};
use aviary_testcontainers::ShardedClusterOptions;
use bson::{Bson, Document, Timestamp, doc};
use futures_util::TryStreamExt;
use mongodb::Collection;

const DOCS_DEFAULT: i64 = 30_000;
/// Migrations that a job has to see committed at least.
const MOVES_DEFAULT: usize = 8;
const GROUPS: i64 = 97;
const CHUNKS: i64 = 24;

/// Sums under the group's number, counts under its negative.
const MAP: &str = "function () { emit(this.g, this.v); emit(-1 - this.g, 1); }";

/// A sequence of numbers that look random.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: i64) -> i64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as i64) % bound
    }
}

fn document(id: i64) -> Document {
    // A bijection of the numbers below the count would do; clashes of `k` do no harm either.
    let k = id.wrapping_mul(2_654_435_761) % 1_000_000;
    doc! { "_id": id, "k": k, "a": k % 50, "g": id % GROUPS, "v": id % 1_000, "pad": "x".repeat(60) }
}

async fn load(bed: &Bed, name: &str, count: i64) {
    let coll = bed.coll(name);
    let mut id = 0;
    while id < count {
        let upto = count.min(id + 5_000);
        coll.insert_many((id..upto).map(document)).ordered(false).await.expect("loaded");
        id = upto;
    }
}

/// Inserts, changes and deletes until told to stop, and counts what it did.
async fn write(
    coll: Collection<Document>,
    seed: i64,
    count: i64,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
) {
    let mut numbers = Numbers(seed as u64);
    let mut fresh = 0;
    while !stop.load(Ordering::Acquire) {
        let id = numbers.below(count);
        let known = document(id);
        let (k, a) = (known.get_i64("k").expect("k"), known.get_i64("a").expect("a"));
        // The whole shard key is named, whichever it is.
        let at = doc! { "_id": id, "k": k, "a": a };
        let written = match numbers.below(4) {
            0 => {
                fresh += 1;
                let id = count + seed * 100_000_000 + fresh;
                coll.insert_one(document(id)).await.map(|_| ())
            }
            1 => coll.delete_one(at).await.map(|_| ()),
            _ => coll.update_one(at, doc! { "$inc": { "v": 13 } }).await.map(|_| ()),
        };
        // A shard that is giving a chunk away may refuse for a moment.
        if written.is_ok() {
            done.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Moves random chunks to other shards until told to stop, and counts the moves that committed.
async fn shuffle(bed: &Bed, name: &str, shards: &[&str], stop: &AtomicBool, moved: &AtomicUsize) {
    let namespace = format!("test.{name}");
    let mut numbers = Numbers(7);
    while !stop.load(Ordering::Acquire) {
        let chunks = bed.cluster().chunks(&namespace).await.expect("chunks");
        let chunks: Vec<_> = chunks.iter().filter(|c| shards.contains(&c.shard.as_str())).collect();
        let chunk = chunks[numbers.below(chunks.len() as i64) as usize];
        let others: Vec<_> = shards.iter().filter(|shard| **shard != chunk.shard).collect();
        let to = others[numbers.below(others.len() as i64) as usize];
        let done = bed.cluster().move_range(&namespace, chunk.min.clone(), to, true).await;
        match done {
            Ok(()) => {
                moved.fetch_add(1, Ordering::AcqRel);
            }
            Err(error) => println!("a move was refused: {error}"),
        }
    }
}

/// The groups' sums and counts at a cluster time, as the servers see them.
async fn recount(bed: &Bed, name: &str, time: Timestamp) -> BTreeMap<i64, i64> {
    let rows: Vec<Document> = bed
        .db()
        .run_cursor_command(doc! {
            "aggregate": name,
            "pipeline": [{ "$group": { "_id": "$g", "sum": { "$sum": "$v" }, "n": { "$sum": 1_i64 } } }],
            "cursor": {},
            "readConcern": { "level": "snapshot", "atClusterTime": time },
        })
        .await
        .expect("recounted")
        .try_collect()
        .await
        .expect("recounted");
    let mut groups = BTreeMap::new();
    for row in rows {
        let group = number(row.get("_id"));
        groups.insert(group, number(row.get("sum")));
        groups.insert(-1 - group, number(row.get("n")));
    }
    groups
}

fn number(value: Option<&Bson>) -> i64 {
    match value {
        Some(Bson::Int32(n)) => i64::from(*n),
        Some(Bson::Int64(n)) => *n,
        Some(Bson::Double(n)) => *n as i64,
        other => panic!("no number: {other:?}"),
    }
}

fn given<T: std::str::FromStr>(variable: &str) -> Option<T> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text}")))
}

struct Case {
    name: &'static str,
    key: Document,
    /// Between whom chunks are moved.
    movers: &'static [&'static str],
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_exact_while_chunks_move_and_clients_write() {
    let count = given("AVIARY_MOTION_DOCS").unwrap_or(DOCS_DEFAULT);
    let options = ShardedClusterOptions {
        parameters: vec![("minSnapshotHistoryWindowInSeconds".into(), "3600".into())],
        ..cluster(3)
    };
    let bed = Bed::sharded(options, Links::Direct).await;
    let _coordinator =
        bed.spawn("coordinator", &["coordinator"], &[("AVIARY_SPLIT_BYTES", "400000")]);
    bed.cluster().enable_sharding("test", "s0").await.expect("enabled");
    let all: &[&str] = &["s0", "s1", "s2"];
    for case in [
        Case { name: "hashed", key: doc! { "_id": "hashed" }, movers: all },
        Case { name: "ranged", key: doc! { "k": 1 }, movers: all },
        Case { name: "compound", key: doc! { "a": 1, "k": 1 }, movers: all },
        Case { name: "orphaned", key: doc! { "k": 1 }, movers: &["s1", "s2"] },
    ] {
        prepare(&bed, &case, count).await;
        check(&bed, &case, count).await;
        bed.coll(case.name).drop().await.expect("dropped");
    }
}

async fn prepare(bed: &Bed, case: &Case, count: i64) {
    let namespace = format!("test.{}", case.name);
    let hashed = case.key.contains_key("_id");
    let chunks = hashed.then_some(CHUNKS as i32);
    bed.cluster().shard_collection(&namespace, case.key.clone(), chunks).await.expect("sharded");
    for n in (1..CHUNKS).filter(|_| !hashed) {
        let at = if case.key.contains_key("a") {
            doc! { "a": n * 50 / CHUNKS, "k": bson::Bson::MinKey }
        } else {
            doc! { "k": n * 1_000_000 / CHUNKS }
        };
        bed.cluster().split(&namespace, at.clone()).await.expect("split");
        let to = format!("s{}", n % 3);
        if to != "s0" {
            bed.cluster().move_range(&namespace, at, &to, true).await.expect("moved");
        }
    }
    load(bed, case.name, count).await;
    if case.name == "orphaned" {
        plant_orphans(bed, case.name).await;
    }
}

/// Puts documents on the first shard that belong on others, as an interrupted migration leaves them.
async fn plant_orphans(bed: &Bed, name: &str) {
    let shard = bed.cluster().shard(0).expect("a shard");
    let direct = mongodb::Client::with_uri_str(shard.uri()).await.expect("a client");
    let coll: Collection<Document> = direct.database("test").collection(name);
    let namespace = format!("test.{name}");
    let chunks = bed.cluster().chunks(&namespace).await.expect("chunks");
    let mut planted = Vec::new();
    for chunk in chunks.iter().filter(|chunk| chunk.shard != "s0") {
        let first = chunk.min.get_i64("k").or(chunk.min.get_i32("k").map(i64::from)).expect("k");
        for n in 0..50 {
            planted.push(doc! { "_id": format!("orphan {first} {n}"), "k": first + n, "a": 0, "g": n % GROUPS, "v": 1 });
        }
    }
    let count = planted.len() as u64;
    coll.insert_many(planted).await.expect("planted");
    let there =
        coll.count_documents(doc! { "_id": { "$regex": "^orphan" } }).await.expect("counted");
    assert_eq!(there, count, "the orphans are on the shard");
    let pipeline = [doc! { "$match": { "_id": { "$regex": "^orphan" } } }];
    let seen = bed.coll(name).aggregate(pipeline).await.expect("read");
    let seen: Vec<Document> = seen.try_collect().await.expect("read");
    assert!(seen.is_empty(), "and no router shows them");
    println!("{count} orphans planted");
}

async fn check(bed: &Bed, case: &Case, count: i64) {
    let name = case.name;
    let map = bed.file("map.js", MAP).display().to_string();
    let out = format!("{name}_out");
    let target = format!("replace:{out}");
    let (stop, moved) = (Arc::new(AtomicBool::new(false)), AtomicUsize::new(0));
    let moves_min = given("AVIARY_MOTION_MOVES").unwrap_or(MOVES_DEFAULT);
    let writes = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (1..=2)
        .map(|seed| tokio::spawn(write(bed.coll(name), seed, count, stop.clone(), writes.clone())))
        .collect();
    let workers: Vec<Paused> =
        (0..3).map(|shard| bed.paused_worker_of(shard, "map.read")).collect();
    let job = async {
        let args = ["submit", "-c", name, "--map", &map, "--reduce", "_sum", "--out", &target];
        let id = bed.aviary(&[&args[..], &["--detach", "-o", "name"]].concat()).await.ok();
        let id = id.stdout.trim().to_owned();
        for worker in &workers {
            worker.arrived().await;
        }
        // Every worker is in the middle of its first task.
        let before = (moved.load(Ordering::Acquire), writes.load(Ordering::Relaxed));
        wait_for("migrations", || async {
            (moved.load(Ordering::Acquire) >= before.0 + moves_min).then_some(())
        })
        .await;
        workers.iter().for_each(Paused::go_on);
        let ended = bed.aviary(&["status", &id, "-w", "-o", "json", "--quiet"]).await.ok();
        let during =
            (moved.load(Ordering::Acquire) - before.0, writes.load(Ordering::Relaxed) - before.1);
        stop.store(true, Ordering::Release);
        (ended.json().remove(0), during)
    };
    let ((job, (moves, written)), ()) =
        tokio::join!(job, shuffle(bed, name, case.movers, &stop, &moved));
    for writer in writers {
        writer.await.expect("a writer");
    }

    let time = &job["snapshot"];
    let part = |name: &str| u32::try_from(time[name].as_u64().expect("a number")).expect("small");
    let time = Timestamp { time: part("t"), increment: part("i") };
    let expected = recount(bed, name, time).await;
    let documents: i64 = expected.iter().filter(|(group, _)| **group < 0).map(|(_, n)| n).sum();
    let found: BTreeMap<i64, i64> = bed
        .all(&out)
        .await
        .iter()
        .map(|row| (number(row.get("_id")), number(row.get("value"))))
        .collect();
    let input = job["counters"]["input"].as_i64().expect("a counter");
    println!(
        "{name}: {input} documents read, {documents} there at the snapshot; {moves} migrations and \
         {written} writes while the job ran, {} map tasks",
        job["phases"]["map"]["total"]
    );
    assert_eq!(input, documents, "{name}");
    assert_eq!(found, expected, "{name}");
    assert!(moves >= moves_min, "{moves} migrations");
    assert!(written > 100, "{written} writes");
    for Paused { process, .. } in &workers {
        process.terminate().expect("it runs");
        process.wait_gone(crate::common::ceiling()).await.expect("it ends");
    }
}
