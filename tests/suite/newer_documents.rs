//! A document that this version cannot read stops nothing but what it belongs to, and is left as it is.

use crate::common::{Bed, Ran, ceiling, wait_for};
use aviary_testcontainers::Managed;
use bson::{Bson, DateTime, Document, doc};

const NEWER: &str = "ffffffffffffffffffffffff";
/// Of this one there is only a task.
const UNKNOWN: &str = "dddddddddddddddddddddddd";
const DIGEST: &str = "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee";

async fn insert(bed: &Bed, collection: &str, document: Document) {
    bed.coll(collection).insert_one(document).await.expect("inserted");
}

async fn find(bed: &Bed, id: &str) -> Document {
    bed.coll("aviary").find_one(doc! { "_id": id }).await.expect("asked").expect("it is there")
}

/// Submits a job that logs, and waits for it.
async fn job(bed: &Bed, target: &str) -> String {
    let map = bed.file("map.js", "function () { console.log('seen', this._id); emit(this.g, 1); }");
    let out = format!("replace:{target}");
    let map = map.to_str().unwrap();
    let args = [
        "submit", "-q", "-o", "name", "-c", "few", "--map", map, "--reduce", "_count", "--out",
        &out,
    ];
    bed.aviary(&args).await.ok().stdout.trim().to_owned()
}

async fn stop(daemon: Managed) {
    daemon.terminate().expect("it runs");
    daemon.wait_gone(ceiling()).await.expect("it ends");
}

fn tells(ran: &Ran, what: &str) {
    let told = ran
        .stderr
        .lines()
        .any(|line| line.contains(what) && line.contains("is of a newer version"));
    assert!(told, "{what}: {ran:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_version_wrote_stops_nothing_else_and_is_left_alone() {
    let bed = Bed::start(1).await;
    bed.load("few", (0..40).map(|n| doc! { "_id": n, "g": n % 4 }).collect()).await;
    let coordinator = bed.coordinator();
    let worker = bed.worker();
    let first = job(&bed, "first").await;
    stop(coordinator).await;
    stop(worker).await;

    // A job, the blocks and two tasks of it, one of which looks like ours.
    let mut newer = find(&bed, &first).await;
    let shard = newer.get_str("shard").unwrap().to_owned();
    newer.extend(doc! { "_id": NEWER, "state": "mapping", "priority": 100, "cleaned": false });
    newer
        .get_document_mut("spec")
        .unwrap()
        .get_document_mut("output")
        .unwrap()
        .insert("mode", "hologram");
    insert(&bed, "aviary", newer).await;
    let task = bed
        .coll("aviary")
        .find_one(doc! { "job": &first, "kind": "map" })
        .await
        .expect("asked")
        .expect("a task");
    let names = [NEWER, UNKNOWN].map(|job| format!("{job}/map/1.00000"));
    for (job, name) in [NEWER, UNKNOWN].iter().zip(&names) {
        let mut task = task.clone();
        for gone in ["result", "finished", "history", "token", "until", "lost"] {
            task.remove(gone);
        }
        task.extend(
            doc! { "_id": name, "job": job, "state": "ready", "attempts": 0, "priority": 100 },
        );
        if *job == UNKNOWN {
            task.insert("n", "first");
        }
        insert(&bed, "aviary", task).await;
    }
    for id in [NEWER, "000000000000000000000000"] {
        let data = Bson::Binary(bson::Binary {
            subtype: bson::spec::BinarySubtype::Generic,
            bytes: vec![1],
        });
        let block = doc! { "_id": format!("{id}/block"), "shard": task.get_str("shard").unwrap(), "data": data, "crc32": 0, "records": 0 };
        insert(&bed, "aviary-intermediates", block).await;
    }
    // A worker, a function, a name, and lines beside ours.
    insert(&bed, "aviary", doc! { "_id": "worker/newer", "kind": "worker", "shard": &shard, "seen": DateTime::now(), "slots": "many" }).await;
    let mut function = bed
        .all("aviary-funcs")
        .await
        .into_iter()
        .find(|f| f.get_str("kind").is_ok_and(|kind| kind == "function"))
        .expect("a function");
    function.extend(doc! { "_id": DIGEST, "stages": "all" });
    insert(&bed, "aviary-funcs", function).await;
    let mut lines =
        bed.coll("aviary").find_one(doc! { "kind": "log" }).await.expect("asked").expect("lines");
    let log = format!("{}x", lines.get_str("_id").unwrap());
    lines.extend(doc! { "_id": &log, "lines": [{ "sung": true }] });
    insert(&bed, "aviary", lines).await;

    let coordinator = bed.coordinator();
    let worker = bed.worker();
    let second = job(&bed, "second").await;
    assert_eq!(bed.all("second").await, bed.all("first").await);

    let list = bed.aviary(&["list", "-o", "json"]).await.ok();
    tells(&list, &format!("job {NEWER}"));
    let listed: Vec<_> =
        list.json().iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(listed, [second.clone(), first.clone()]);
    for verb in ["status", "cancel", "rm", "tasks", "logs", "results"] {
        let refused = bed.aviary(&[verb, NEWER]).await;
        assert_eq!(refused.code, 8, "{verb}: {refused:#?}");
        tells(&refused, &format!("job {NEWER}"));
    }
    assert!(bed.aviary(&["status", NEWER]).await.stderr.contains("hologram"));
    tells(&bed.aviary(&["workers"]).await.ok(), "worker worker/newer");
    tells(&bed.aviary(&["functions"]).await.ok(), DIGEST);
    let logs = bed.aviary(&["logs", &first]).await.ok();
    tells(&logs, &log);
    assert!(logs.stdout.contains("seen"), "{logs:#?}");

    // Both roles said so once, and went on.
    coordinator.wait_for_log("is of a newer version").await.expect("told");
    worker.wait_for_log("is of a newer version").await.expect("told");
    // The job is open, so its task was tried and handed back; the other one is of no job that anybody knows.
    let newer = wait_for("the task to be handed back", || async {
        let task = find(&bed, &names[0]).await;
        let given_back = task.get_array("history").is_ok_and(|history| !history.is_empty());
        let ready = task.get_str("state").is_ok_and(|state| state == "ready");
        (given_back && ready).then_some(task)
    })
    .await;
    let unknown = find(&bed, &names[1]).await;
    assert!(!unknown.contains_key("history"), "{unknown:#?}");
    for task in [newer, unknown] {
        assert_eq!(task.get_i32("attempts").unwrap(), 0, "{task:#?}");
        assert!(!task.contains_key("token"), "{task:#?}");
    }
    // The sweep has been by.
    wait_for("blocks that nobody knows to go", || async {
        let stray = doc! { "_id": "000000000000000000000000/block" };
        bed.coll("aviary-intermediates")
            .find_one(stray)
            .await
            .expect("asked")
            .is_none()
            .then_some(())
    })
    .await;
    let block = doc! { "_id": format!("{NEWER}/block") };
    assert!(bed.coll("aviary-intermediates").find_one(block).await.expect("asked").is_some());
    assert_eq!(find(&bed, NEWER).await.get_str("state").unwrap(), "mapping");
    let warned = coordinator.log().expect("a log").matches("is of a newer version").count();
    assert!(warned <= 5, "{warned} warnings");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_an_older_worker_would_do_otherwise_waits_for_a_newer_one() {
    let bed = Bed::start(1).await;
    bed.load("few", (0..40).map(|n| doc! { "_id": n, "g": n % 4 }).collect()).await;
    let _coordinator = bed.coordinator();
    let older = bed.spawn("older", &["worker", "--slots", "1"], &[("AVIARY_TEST_LEVEL", "0")]);
    let map = "function () { if (this._id === 7) throw new Error('bad'); emit(this.g, 1); }";
    let map = bed.file("bad.js", map);
    let args = ["submit", "-q", "-o", "name", "--detach", "-c", "few", "--reduce", "_count"];
    let rest = ["--map", map.to_str().unwrap(), "--out", "replace:most", "--on-error", "skip:1"];
    let skips = bed.aviary(&[&args[..], &rest].concat()).await.ok().stdout.trim().to_owned();
    // What any version can do is done meanwhile.
    let plain = job(&bed, "plain").await;
    assert_eq!(find(&bed, &plain).await.get_str("state").unwrap(), "succeeded");
    let told = wait_for("status to say why", || async {
        let status = bed.aviary(&["status", &skips]).await.ok().stdout;
        status.contains("no worker that runs is of a version that can do this job").then_some(())
    });
    told.await;
    let claimed = doc! { "job": &skips, "epoch": { "$gt": 0 } };
    let tried = bed.coll("aviary").find_one(claimed).await.expect("asked");
    assert!(tried.is_none(), "no task of it was claimed: {tried:#?}");

    let _newer = bed.worker();
    wait_for("the newer worker to do it", || async {
        let ended = find(&bed, &skips).await;
        let state = ended.get_str("state").expect("a state");
        assert_ne!(state, "failed", "{ended:#?}");
        (state == "succeeded").then_some(())
    })
    .await;
    let rows = bed.all("most").await;
    let count = |row: &Document| match row.get("value") {
        Some(Bson::Int32(n)) => i64::from(*n),
        Some(Bson::Int64(n)) => *n,
        Some(Bson::Double(n)) => *n as i64,
        other => panic!("{other:?}"),
    };
    let counts: Vec<i64> = rows.iter().map(count).collect();
    assert_eq!(counts, [10, 10, 10, 9], "without document 7: {rows:#?}");
    stop(older).await;
}
