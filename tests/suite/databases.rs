//! One coordinator and one worker for several databases.

use std::collections::BTreeMap;

use aviary_testcontainers::Managed;
use bson::{Document, doc};
use futures_util::TryStreamExt;

use crate::common::{Bed, LEASE_TTL_MS, wait_for};
use crate::shares::SLOW;

const COUNT: &str = "function () { emit(this._id % 3, 1); }";
/// Has a daemon be told of no database.
const NO_DB: (&str, &str) = ("AVIARY_DB", "");

async fn bed() -> Bed {
    let bed = Bed::start(1).await;
    bed.file("count.js", COUNT);
    bed.file("slow.js", SLOW);
    bed
}

/// A coordinator and a worker with one slot.
fn fleet(bed: &Bed, env: &[(&str, &str)]) -> [Managed; 2] {
    fleet_of(bed, "1", env)
}

fn fleet_of(bed: &Bed, slots: &str, env: &[(&str, &str)]) -> [Managed; 2] {
    let coordinator = bed.spawn("coordinator", &["coordinator"], env);
    [coordinator, bed.spawn("worker", &["worker", "--slots", slots], env)]
}

async fn load(bed: &Bed, db: &str, count: i32, pad: usize) {
    let pad = "x".repeat(pad);
    let docs: Vec<Document> = (0..count).map(|n| doc! { "_id": n, "pad": &pad }).collect();
    bed.client.database(db).collection("docs").insert_many(docs).await.expect("loaded");
}

fn submit(bed: &Bed, db: &str, map: &str, more: &[&str]) -> Vec<String> {
    let map = bed.dir.path().join(map).display().to_string();
    let args = ["submit", "--quiet", "-d", db, "-c", "docs", "--map", &map, "--reduce", "_sum"];
    args.iter().chain(more).map(|arg| (*arg).to_owned()).collect()
}

/// Runs a job to its end. Returns what it counted, and how much.
async fn count(bed: &Bed, db: &str) -> BTreeMap<i64, i64> {
    let ran = bed.aviary(&submit(bed, db, "count.js", &[])).await.ok();
    #[expect(clippy::cast_possible_truncation, reason = "these are whole and small")]
    let number =
        |row: &serde_json::Value, field: &str| row[field].as_f64().expect("a number") as i64;
    let rows = ran.stdout.lines().map(|line| serde_json::from_str(line).expect("a result"));
    rows.map(|row: serde_json::Value| (number(&row, "_id"), number(&row, "value"))).collect()
}

fn of(count: i64) -> BTreeMap<i64, i64> {
    (0..3).map(|rest| (rest, (count + 2 - rest) / 3)).collect()
}

fn log(bed: &Bed, name: &str) -> String {
    let logs = std::fs::read_dir(bed.dir.path()).expect("listed").map(|file| file.expect("a file"));
    let log = logs.map(|file| file.path()).find(|path| path.to_string_lossy().ends_with(name));
    std::fs::read_to_string(log.expect("a log")).expect("read")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_database_that_has_been_set_up_is_served_and_no_other() {
    let bed = bed().await;
    // Somebody's birds.
    bed.client.database("zoo").collection("aviary").insert_one(doc! { "_id": 1 }).await.unwrap();
    load(&bed, "early", 20, 0).await;
    bed.aviary(&["init", "-d", "early"]).await.ok();
    let _fleet = fleet(&bed, &[NO_DB]);
    assert_eq!(count(&bed, "early").await, of(20));
    // One that is new, to databases that run already.
    load(&bed, "late", 50, 0).await;
    assert_eq!(count(&bed, "late").await, of(50));
    assert_eq!(count(&bed, "early").await, of(20));
    let zoo = bed.client.database("zoo");
    let birds: Vec<Document> =
        zoo.collection("aviary").find(doc! {}).await.unwrap().try_collect().await.unwrap();
    assert_eq!(birds, [doc! { "_id": 1 }]);
    assert_eq!(zoo.list_collection_names().await.unwrap(), ["aviary"]);
    // It reports while it works.
    let one = async || {
        let listed = bed.aviary(&["workers", "-d", "late", "-o", "name"]).await.ok();
        (listed.stdout.lines().count() == 1).then_some(())
    };
    wait_for("the worker to be listed", one).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_that_are_named_are_the_only_ones_served() {
    let bed = bed().await;
    for db in ["one", "two", "three"] {
        load(&bed, db, 9, 0).await;
        bed.aviary(&["init", "-d", db]).await.ok();
    }
    let fleet = fleet(&bed, &[("AVIARY_DB", "one,two")]);
    bed.aviary(&submit(&bed, "three", "count.js", &["--detach"])).await.ok();
    for db in ["one", "two", "one"] {
        assert_eq!(count(&bed, db).await, of(9));
    }
    let requests = bed.client.database("three").collection::<Document>("aviary-requests");
    let request = requests.find_one(doc! {}).await.unwrap().expect("a request");
    assert!(!request.contains_key("state"), "nobody may have answered: {request}");
    drop(fleet);
    let _other = bed.spawn("coordinator", &["coordinator", "-d", "three"], &[]);
    let answered = async || requests.find_one(doc! { "state": "accepted" }).await.unwrap();
    wait_for("an answer of a coordinator that serves it", answered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_does_not_wait_for_a_large_one_of_another_database() {
    let bed = bed().await.in_parts();
    const TASKS: i32 = 60;
    load(&bed, "busy", TASKS, 60_000).await;
    load(&bed, "calm", 20, 0).await;
    for db in ["busy", "calm"] {
        bed.aviary(&["init", "-d", db]).await.ok();
    }
    let _fleet = fleet(&bed, &[NO_DB, ("AVIARY_SPLIT_BYTES", "65536")]);
    let large = bed.aviary(&submit(&bed, "busy", "slow.js", &["--detach"])).await.ok();
    let large = large.stdout.trim();
    let tasks = bed.client.database("busy").collection::<Document>("aviary");
    let done = async || {
        let done = doc! { "job": large, "kind": "map", "state": "done" };
        tasks.count_documents(done).await.expect("counted")
    };
    wait_for("the large job to be under way", async || (done().await >= 3).then_some(())).await;
    for _ in 0..3 {
        assert_eq!(count(&bed, "calm").await, of(20));
    }
    let done = done().await;
    assert!(done < TASKS as u64, "three jobs of another database waited for all {done} tasks");
    let state = doc! { "_id": large, "state": "succeeded" };
    let ended = async || tasks.find_one(state.clone()).await.expect("read");
    wait_for("the large job to succeed as well", ended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_dropped_is_left_and_served_again_when_it_is_back() {
    let bed = bed().await;
    load(&bed, "here", 12, 0).await;
    bed.aviary(&["init", "-d", "here"]).await.ok();
    let _fleet = fleet(&bed, &[NO_DB]);
    assert_eq!(count(&bed, "here").await, of(12));
    bed.client.database("here").drop().await.expect("dropped");
    let left = async || {
        let is_left = |name| log(&bed, name).contains("no longer served");
        (is_left("worker.log") && is_left("coordinator.log")).then_some(())
    };
    wait_for("the fleet to leave the database", left).await;
    load(&bed, "here", 15, 0).await;
    assert_eq!(count(&bed, "here").await, of(15));
}

/// More than are served without rest.
const MANY: usize = 10;

/// Sets up many databases, and starts a fleet with so many slots for them.
async fn many(bed: &Bed, slots: &str, env: &[(&str, &str)]) -> [Managed; 2] {
    for n in 0..MANY {
        bed.aviary(&["init", "--quiet", "-d", &format!("db{n}")]).await.ok();
    }
    load(bed, "db3", 20, 0).await;
    let fleet = fleet_of(bed, slots, &[env, &[NO_DB]].concat());
    let is_served = || log(bed, "worker.log").matches("served").count() >= MANY;
    wait_for("the databases to be found", async || is_served().then_some(())).await;
    fleet
}

/// The databases that a worker is awake in.
async fn awake(bed: &Bed) -> Vec<String> {
    let mut awake = Vec::new();
    for n in 0..MANY {
        let db = format!("db{n}");
        let aviary = bed.client.database(&db).collection::<Document>("aviary");
        if aviary.find_one(doc! { "kind": "worker" }).await.expect("read").is_some() {
            awake.push(db);
        }
    }
    awake
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_databases_those_rest_in_which_nothing_happens() {
    let bed = bed().await;
    let _fleet = many(&bed, "1", &[]).await;
    assert_eq!(awake(&bed).await, [""; 0], "nothing has happened yet");
    assert_eq!(count(&bed, "db3").await, of(20));
    // However long this takes: it may rest again by now.
    let log = log(&bed, "worker.log");
    let begun: Vec<&str> = log.lines().filter(|line| line.contains("worker started")).collect();
    assert_eq!(begun.len(), 1, "{log}");
    assert!(begun[0].contains("db3"), "{log}");
    let none = async || awake(&bed).await.is_empty().then_some(());
    wait_for("the database to rest", none).await;
    assert_eq!(count(&bed, "db3").await, of(20));
    // One that is set up by its first job, beside those that rest.
    load(&bed, "new", 30, 0).await;
    assert_eq!(count(&bed, "new").await, of(30));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_rests_is_woken_without_change_streams_too() {
    let bed = bed().await;
    let _fleet = many(&bed, "1", &[("AVIARY_WATCH", "off")]).await;
    assert_eq!(count(&bed, "db3").await, of(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_wakes_its_database_is_planned_for_the_workers_that_wake_with_it() {
    let bed = bed().await;
    let _fleet = many(&bed, "3", &[]).await;
    // So large that it is worth several reduce tasks.
    load(&bed, "db7", 150, 60_000).await;
    assert_eq!(count(&bed, "db7").await, of(150));
    let job = bed.client.database("db7").collection::<Document>("aviary");
    let job = job.find_one(doc! { "kind": "job" }).await.unwrap().expect("a job");
    assert_eq!(job.get_document("spec").unwrap().get_i64("partitions").unwrap(), 3, "{job}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_in_one_of_many_databases_survives_the_fleet_that_began_it() {
    let bed = bed().await.in_parts();
    let brief = [("AVIARY_LEASE_TTL_MS", LEASE_TTL_MS), ("AVIARY_SPLIT_BYTES", "65536")];
    let first = many(&bed, "1", &brief).await;
    const TASKS: i32 = 40;
    load(&bed, "db5", TASKS, 60_000).await;
    let job = bed.aviary(&submit(&bed, "db5", "slow.js", &["--detach"])).await.ok();
    let job = job.stdout.trim();
    let tasks = bed.client.database("db5").collection::<Document>("aviary");
    let done = doc! { "job": job, "kind": "map", "state": "done" };
    let begun = async || tasks.find_one(done.clone()).await.expect("read");
    wait_for("the job to be under way", begun).await;
    // The second one finds it, whether an event tells of it or not.
    let _second = fleet(&bed, &[&brief[..], &[NO_DB]].concat());
    for process in &first {
        process.kill().expect("killed");
    }
    let before = tasks.count_documents(done).await.expect("counted");
    assert!(before < TASKS as u64, "the job was over before the fleet was killed");
    let state = doc! { "_id": job, "state": "succeeded" };
    let ended = async || tasks.find_one(state.clone()).await.expect("read");
    let ended = wait_for("the job to succeed", ended).await;
    let counters = ended.get_document("counters").expect("counters");
    assert_eq!(counters.get_i64("input").expect("a count"), i64::from(TASKS));
    drop(first);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_daemons_take_several_databases() {
    let bed = bed().await;
    let ran = bed.aviary(&["list", "-d", "one,two"]).await;
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("--db names several databases"), "{ran:?}");
    for (db, words) in [
        ("", "\"\" is not a database name; --db"),
        ("one,", "\"\" is not a database name"),
        ("one,a.b", "\"a.b\" is not a database name"),
        ("one,admin", "admin belongs to the server"),
        ("config", "config belongs to the server"),
    ] {
        let ran = bed.aviary(&["worker", "-d", db]).await;
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.stderr.contains(words), "{ran:?}");
    }
}
