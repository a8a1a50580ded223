//! Splits of one member's own order of its documents: nothing is read twice or left out, and when that member goes
//! away the job is planned anew.

use std::collections::BTreeMap;

use crate::common::{Bed, Paused, wait_for};
use aviary_testcontainers::Managed;
use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;

const DOCS: i32 = 3_000;
const MAP: &str = "function () { emit(this.g, this.n); }";

/// Ids in no order: the order of documents and that of their ids have nothing to do with each other.
fn documents() -> Vec<Document> {
    let pad = "x".repeat(300);
    let id = |n: i32| format!("{:08x}", (n as u32).wrapping_mul(2_654_435_761));
    (0..DOCS).map(|n| doc! { "_id": id(n), "n": n, "g": n % 5, "pad": &pad }).collect()
}

fn sums(of: impl Iterator<Item = i32>) -> BTreeMap<i32, i64> {
    let mut sums = BTreeMap::new();
    for n in of {
        *sums.entry(n % 5).or_default() += i64::from(n);
    }
    sums
}

async fn results(bed: &Bed, out: &str) -> BTreeMap<i32, i64> {
    let number = |value: Option<&Bson>| match value {
        Some(Bson::Double(n)) => *n as i64,
        Some(Bson::Int32(n)) => i64::from(*n),
        Some(Bson::Int64(n)) => *n,
        other => panic!("no number: {other:?}"),
    };
    let rows = bed.all(out).await;
    rows.iter().map(|row| (number(row.get("_id")) as i32, number(row.get("value")))).collect()
}

fn coordinator(bed: &Bed) -> Managed {
    bed.spawn("coordinator", &["coordinator"], &[("AVIARY_SPLIT_BYTES", "65536")])
}

async fn submit(bed: &Bed, out: &str, more: &[&str]) -> String {
    let map = bed.file("sum.js", MAP).display().to_string();
    let out = format!("replace:{out}");
    let args = ["submit", "-c", "docs", "--map", &map, "--reduce", "_sum", "--out", &out];
    let ran = bed.aviary(&[&args[..], &["--detach", "-o", "name"], more].concat()).await.ok();
    ran.stdout.trim().to_owned()
}

async fn ended(bed: &Bed, id: &str) {
    bed.aviary(&["status", id, "-w", "--quiet"]).await.ok();
}

async fn job(bed: &Bed, id: &str) -> Document {
    bed.coll("aviary").find_one(doc! { "_id": id }).await.expect("read").expect("it is there")
}

async fn map_tasks(bed: &Bed, id: &str) -> Vec<Document> {
    let plan = job(bed, id).await.get_i32("plan").expect("planned");
    let mine = doc! { "job": id, "kind": "map", "plan": plan };
    let found = bed.coll("aviary").find(mine).sort(doc! { "n": 1 }).await.expect("found");
    found.try_collect().await.expect("read")
}

fn is_natural(task: &Document) -> bool {
    let split = task.get_document("split").expect("a split");
    split.get_document("by").is_ok_and(|by| by.contains_key("$natural"))
}

/// A job whose worker has read the beginning of its first split.
async fn begun(bed: &Bed, out: &str) -> (String, Paused) {
    let worker = bed.paused_worker("map.call");
    let id = submit(bed, out, &[]).await;
    worker.arrived().await;
    let first = job(bed, &id).await;
    assert!(first.get_str("read_from").is_ok(), "{first}");
    (id, worker)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_document_is_in_one_split_whatever_is_written_and_asked_for() {
    let bed = Bed::start(1).await;
    bed.load("docs", documents()).await;
    let docs = bed.coll("docs");
    let _coordinator = coordinator(&bed);
    let worker = bed.paused_worker("map.call");
    let id = submit(&bed, "all", &[]).await;
    worker.arrived().await;
    // Nothing of this is in the snapshot, though every split would meet it.
    docs.delete_many(doc! { "n": { "$mod": [3, 0] } }).await.expect("deleted");
    let late = |n: i32| doc! { "_id": format!("{n:03}-late"), "n": 1_000_000, "g": 1 };
    bed.load("docs", (0..500).map(late).collect()).await;
    docs.update_many(doc! {}, doc! { "$inc": { "n": 1 } }).await.expect("updated");
    worker.go_on();
    ended(&bed, &id).await;
    assert_eq!(results(&bed, "all").await, sums(0..DOCS));
    let tasks = map_tasks(&bed, &id).await;
    assert!(tasks.len() > 5 && tasks.iter().all(is_natural), "{tasks:#?}");
    let read = |task: &Document| task.get_i32("progress").map_or(0, i64::from);
    println!("{} splits, the first of {} documents", tasks.len(), tasks.first().map_or(0, read));

    // With a query and without most fields, ids among them.
    docs.drop().await.expect("dropped");
    bed.load("docs", documents()).await;
    let few = r#"{"n": {"$mod": [7, 0]}}"#;
    for (query, fields, of) in [
        (
            few,
            r#"{"_id": 0, "g": 1, "n": 1}"#,
            (0..DOCS).filter(|n| n % 7 == 0).collect::<Vec<_>>(),
        ),
        ("{}", r#"{"pad": 0}"#, (0..DOCS).collect()),
        (r#"{"n": 1234}"#, r#"{"g": 1, "n": 1}"#, vec![1_234]),
        (r#"{"n": -1}"#, r#"{"g": 1, "n": 1}"#, Vec::new()),
    ] {
        let id = submit(&bed, "some", &["--query", query, "--projection", fields]).await;
        ended(&bed, &id).await;
        assert_eq!(results(&bed, "some").await, sums(of.into_iter()), "{query}");
        assert!(map_tasks(&bed, &id).await.iter().all(is_natural));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_goes_away_has_the_job_planned_anew() {
    let bed = Bed::start(3).await;
    bed.load("docs", documents()).await;
    let _coordinator = coordinator(&bed);
    let (id, worker) = begun(&bed, "killed").await;
    let primary = bed.set().wait_primary().await.expect("a primary");
    bed.set().member(primary).expect("it runs").kill().expect("killed");
    bed.set().wait_primary().await.expect("another primary");
    worker.go_on();
    ended(&bed, &id).await;
    assert_eq!(results(&bed, "killed").await, sums(0..DOCS));
    let done = job(&bed, &id).await;
    assert_eq!(
        (done.get_bool("by_index").ok(), done.get_i32("plan").ok()),
        (Some(true), Some(2)),
        "{done}"
    );
    assert!(!map_tasks(&bed, &id).await.iter().any(is_natural));
    bed.nothing_left("killed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_steps_down_is_read_on() {
    let bed = Bed::start(3).await;
    bed.load("docs", documents()).await;
    let _coordinator = coordinator(&bed);
    let (id, worker) = begun(&bed, "down").await;
    let primary = bed.set().wait_primary().await.expect("a primary");
    let down = doc! { "replSetStepDown": 60, "secondaryCatchUpPeriodSecs": 10 };
    bed.set().run_on_member(primary, down).await.expect("stepped down");
    wait_for("another primary", async || bed.set().primary().await.filter(|now| *now != primary))
        .await;
    worker.go_on();
    ended(&bed, &id).await;
    assert_eq!(results(&bed, "down").await, sums(0..DOCS));
    let done = job(&bed, &id).await;
    assert_eq!(done.get_i32("plan").ok(), Some(1), "{done}");
    assert!(map_tasks(&bed, &id).await.iter().all(is_natural));
}

/// Whoever can write tasks does not say where workers log in.
#[tokio::test(flavor = "multi_thread")]
async fn only_members_of_the_deployment_are_asked() {
    let bed = Bed::start(1).await;
    bed.load("docs", documents()).await;
    let trap = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let elsewhere = trap.local_addr().expect("an address").to_string();
    let _coordinator = coordinator(&bed);
    let id = submit(&bed, "elsewhere", &[]).await;
    wait_for("the plan", async || {
        let open = doc! { "job": &id, "kind": "map", "state": "ready" };
        bed.coll("aviary").find_one(open).await.expect("read")
    })
    .await;
    let tasks = doc! { "job": &id, "kind": "map" };
    let planted = doc! { "$set": { "split.member": &elsewhere } };
    bed.coll("aviary").update_many(tasks, planted).await.expect("planted");
    let _worker = bed.worker();
    ended(&bed, &id).await;
    assert_eq!(results(&bed, "elsewhere").await, sums(0..DOCS));
    let called = tokio::time::timeout(std::time::Duration::ZERO, trap.accept()).await;
    assert!(called.is_err(), "a worker went to {elsewhere}");
}
