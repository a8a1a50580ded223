//! Settings on a real deployment: what the database holds counts without a restart, what is wrong is refused in each
//! place, and a document that is nonsense stops nothing.

use std::path::Path;

use aviary_testcontainers::{Managed, ManagedCommand};
use bson::{Document, doc};
use serde_json::Value;

use crate::common::{Bed, Ran, run, wait_for};

const DOCS: i32 = 400;

/// Some 100 kB of documents.
async fn load(bed: &Bed) {
    let pad = "x".repeat(250);
    bed.load("docs", (0..DOCS).map(|n| doc! { "_id": n, "pad": &pad }).collect()).await;
}

/// Runs a job to its end, and says how many map tasks it had.
async fn map_tasks(bed: &Bed) -> usize {
    let map = bed.file("map.js", "function () { emit(1, 1); }").display().to_string();
    let args = ["submit", "-c", "docs", "--map", &map, "--reduce", "_sum", "--out", "replace:sums"];
    let ran = bed.aviary(&[&args[..], &["-o", "json"]].concat()).await.ok();
    let sums = bed.all("sums").await;
    assert_eq!(sums.len(), 1, "{sums:?}");
    let total = sums[0].get("value").and_then(|n| n.as_f64().or(n.as_i64().map(|n| n as f64)));
    let total = total.or(sums[0].get_i32("value").ok().map(f64::from));
    assert_eq!(total, Some(f64::from(DOCS)), "{sums:?}");
    let id = ran.json().remove(0)["id"].as_str().unwrap().to_owned();
    let tasks = bed.aviary(&["tasks", &id, "-o", "json"]).await.ok().json();
    tasks.iter().filter(|task| task["id"].as_str().unwrap().contains("map/")).count()
}

async fn logs(daemon: &Managed, words: &str) {
    wait_for(words, || async { daemon.log().unwrap().contains(words).then_some(()) }).await;
}

#[track_caller]
fn says(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, code, "{ran:#?}");
    for word in words {
        assert!(ran.stderr.contains(word), "{word:?} is missing in {ran:#?}");
    }
}

/// The row of a setting.
fn shown(ran: &Ran, setting: &str) -> Value {
    ran.json().into_iter().find(|row| row["setting"] == setting).expect("it is listed")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_size_in_the_database_counts_without_a_restart() {
    let bed = Bed::start(1).await.in_parts();
    load(&bed).await;
    let coordinator = bed.coordinator();
    let _workers = bed.workers();
    let whole = map_tasks(&bed).await;
    bed.aviary(&["config", "set", "split-bytes", "10000"]).await.ok();
    logs(&coordinator, "split_bytes: 10000").await;
    let cut = map_tasks(&bed).await;
    assert!(cut >= 8 && cut > whole * 2, "{whole}, then {cut}");
    let ran = bed.aviary(&["config", "show", "-o", "json"]).await.ok();
    let row = shown(&ran, "split-bytes");
    assert_eq!((&row["value"], &row["origin"]), (&10_000.into(), &"database".into()), "{row}");
    // Whoever has removed it finds the default again.
    bed.aviary(&["config", "unset", "split_bytes"]).await.ok();
    logs(&coordinator, "split_bytes: 50331648").await;
    assert_eq!(map_tasks(&bed).await, whole);
}

#[tokio::test]
async fn what_is_wrong_is_refused_in_each_place() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = [("AVIARY_URI".to_owned(), "mongodb://127.0.0.1:1/test".to_owned())];
    let with = |name: &str, value: &str| {
        [nowhere.to_vec(), vec![(name.to_owned(), value.to_owned())]].concat()
    };
    let file = |text: &str| {
        let path = dir.path().join("aviary.toml");
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    for verb in ["coordinator", "worker"] {
        let ran = run(&[verb, "--split-bytes", "0"], &nowhere).await;
        says(&ran, 2, &["--split-bytes 0 is below what is allowed at all, 1"]);
        let ran = run(&[verb], &with("AVIARY_LEASE_TTL_MS", "1")).await;
        says(&ran, 2, &["AVIARY_LEASE_TTL_MS 1 is below what is allowed at all, 600"]);
    }
    let ran = run(&["worker"], &with("AVIARY_SLOTS", "many")).await;
    says(&ran, 2, &["AVIARY_SLOTS must be a whole number from 1 to 256, not \"many\""]);
    let ran = run(&["list", "-o", "jsn"], &nowhere).await;
    says(&ran, 2, &["--output must be one of table, wide, json, name, not \"jsn\""]);
    // What is wrong in the file is an error of any verb.
    for (text, words) in [
        ("split_byte = 5", "unknown key split_byte; did you mean split_bytes?"),
        ("poll_ms = 1", "aviary.toml 1 is below what is allowed at all, 5"),
        ("watch = 5", "watch in "),
    ] {
        says(&run(&["list", "--config", &file(text)], &nowhere).await, 2, &[words]);
    }
    let uris = file("uri = \"mongodb://a/\"\nuri_file = \"b\"");
    says(&run(&["list", "--config", &uris], &[]).await, 2, &["--uri and --uri-file both"]);
    // What the database would hold: it is refused before anybody is asked.
    for (key, value, words) in [
        ("split-bytes", "0", "split-bytes 0 is below what is allowed at all, 1"),
        ("split-bytes", "48MiB", "split-bytes must be a whole number"),
        ("retention", "1h", "retention 1h is below what is allowed at all, 1day"),
        ("split-byte", "5", "did you mean split-bytes?"),
        ("poll-ms", "5", "give it to the process itself, by --poll-ms, AVIARY_POLL_MS"),
        ("nothing", "5", "the database holds lease-ttl-ms, split-bytes"),
    ] {
        says(&run(&["config", "set", key, value], &nowhere).await, 2, &[words]);
    }
    says(
        &run(&["config", "unset", "uri"], &nowhere).await,
        2,
        &["not a setting of the deployment"],
    );
    let ran = run(&["init", "--kept-bytes", "65537"], &nowhere).await;
    says(&ran, 2, &["--kept-bytes 65537 is above what is allowed at all, 65536"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_was_told_otherwise_says_so_once() {
    let bed = Bed::start(1).await;
    bed.aviary(&["init", "--lease-ttl-ms", "20000"]).await.ok();
    let coordinator = bed.coordinator();
    let worker = bed.spawn("worker", &["worker", "--slots", "1", "--lease-ttl-ms", "16000"], &[]);
    let (variable, flag) = (
        "lease-ttl-ms is 15000 for this daemon, from its variable, and 20000 in the database",
        "lease-ttl-ms is 16000 for this daemon, from its flag, and 20000 in the database",
    );
    logs(&coordinator, variable).await;
    logs(&worker, flag).await;
    // It has looked again once it knows something newer.
    bed.aviary(&["config", "set", "kept-bytes", "1000"]).await.ok();
    for (daemon, said) in [(&coordinator, variable), (&worker, flag)] {
        logs(daemon, "kept_bytes_max: 1000").await;
        assert_eq!(daemon.log().unwrap().matches(said).count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_is_nonsense_stops_nothing() {
    let bed = Bed::start(1).await.in_parts();
    load(&bed).await;
    bed.aviary(&["init", "--split-bytes", "10000"]).await.ok();
    let settings = bed.coll("aviary");
    let this = doc! { "_id": "settings" };
    // Nobody can write just anything by accident.
    let nonsense = doc! { "$set": { "values": "lots" } };
    settings.update_one(this.clone(), nonsense.clone()).await.unwrap_err();
    settings.update_one(this.clone(), nonsense).bypass_document_validation(true).await.unwrap();
    let coordinator = bed.coordinator();
    let workers = bed.workers();
    logs(&coordinator, "the database's settings cannot be read").await;
    logs(&workers[0], "the database's settings cannot be read").await;
    let whole = map_tasks(&bed).await;
    let ran = bed.aviary(&["config", "show"]).await.ok();
    assert!(ran.stderr.contains("run aviary config set"), "{ran:#?}");
    // One value that is wrong leaves the others.
    let hand = doc! { "$set": { "values": { "split_bytes": 10_000.0, "kept_bytes": "few" } } };
    settings.update_one(this.clone(), hand).await.unwrap();
    logs(&coordinator, "kept_bytes in the database's settings must be a whole number").await;
    logs(&coordinator, "split_bytes: 10000").await;
    assert!(map_tasks(&bed).await > whole * 2);
    // Setting one mends a document that was none.
    let nonsense = doc! { "$set": { "values": [{ "split_bytes": 5 }] } };
    settings.update_one(this.clone(), nonsense).bypass_document_validation(true).await.unwrap();
    bed.aviary(&["config", "set", "split-bytes", "20000"]).await.ok();
    let mended = settings.find_one(this).await.unwrap().unwrap();
    assert_eq!(mended.get_document("values").unwrap(), &doc! { "split_bytes": 20_000_i64 });
    let ran = bed.aviary(&["config", "show"]).await.ok();
    assert_eq!(ran.stderr, "");
}

/// A lease that was renewed for less than it is trusted for would be lost while its holder still writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_keeps_the_length_that_it_was_claimed_with() {
    let bed = Bed::start(1).await.in_parts();
    load(&bed).await;
    bed.aviary(&["init", "--lease-ttl-ms", "15000"]).await.ok();
    let _coordinator = bed.coordinator();
    // One that goes by what the database says.
    let worker = ManagedCommand::new(&bed.program, bed.dir.path().join("worker.log"))
        .args(["worker", "--slots", "1"])
        .env("AVIARY_URI", bed.uri())
        .env("AVIARY_DB", "test")
        .env("AVIARY_HALT_AT", "map.commit")
        .spawn()
        .unwrap();
    let map = bed.file("map.js", "function () { emit(1, 1); }").display().to_string();
    let args = ["submit", "-c", "docs", "--map", &map, "--reduce", "_sum", "--detach"];
    bed.aviary(&args).await.ok();
    logs(&worker, "halted").await;
    let until = async || {
        let task = bed.coll("aviary").find_one(doc! { "kind": "map", "state": "leased" }).await;
        task.unwrap().expect("the worker holds it").get_datetime("until").unwrap().to_owned()
    };
    bed.aviary(&["config", "set", "lease-ttl-ms", "600"]).await.ok();
    logs(&worker, "lease_ttl_ms: 600").await;
    let before = until().await;
    let after = wait_for("the lease to be renewed", async || {
        let now = until().await;
        (now != before).then_some(now)
    })
    .await;
    assert!(after > before, "{before}, then {after}");
}

/// The document that `init` and `config set` write.
async fn document(bed: &Bed) -> Option<Document> {
    bed.coll("aviary").find_one(doc! { "_id": "settings" }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_asked_for_is_written() {
    let bed = Bed::start(1).await;
    let ran = bed.aviary(&["config", "set", "split-bytes", "5"]).await;
    says(&ran, 8, &["test is not set up for Aviary", "run aviary init first"]);
    assert_eq!(bed.db().list_collection_names().await.unwrap(), Vec::<String>::new());
    // Variables are this process's own.
    bed.aviary(&["init"]).await.ok();
    assert_eq!(document(&bed).await, None);
    bed.aviary(&["init", "--retention", "2days", "--one-task-bytes", "0"]).await.ok();
    let values = doc! { "retention": "2days", "one_task_bytes": 0_i64 };
    assert_eq!(document(&bed).await.unwrap().get_document("values").unwrap(), &values);
    bed.aviary(&["config", "unset", "one-task-bytes"]).await.ok();
    let values = doc! { "retention": "2days" };
    assert_eq!(document(&bed).await.unwrap().get_document("values").unwrap(), &values);

    // What is left of a removed job stays as long as was said.
    load(&bed).await;
    let _daemons = (bed.coordinator(), bed.workers());
    map_tasks(&bed).await;
    let job = bed.aviary(&["list", "-o", "name"]).await.ok().stdout.trim().to_owned();
    bed.aviary(&["rm", &job]).await.ok();
    let left = bed.coll("aviary").find_one(doc! { "_id": &job }).await.unwrap().unwrap();
    let at = |name: &str| left.get_datetime(name).unwrap().timestamp_millis();
    assert_eq!(at("expires") - at("removed"), 2 * 86_400_000);
    let requests = bed.coll("aviary-requests");
    let request = requests.find_one(doc! { "job": &job }).await.unwrap().unwrap();
    let expires = request.get_datetime("expires").unwrap().timestamp_millis();
    assert!((0..86_400_000).contains(&(expires - at("expires") + 3_600_000)), "{request}");
}

/// Runs `config show` where only this environment counts.
async fn show(args: &[&str], env: &[(&str, &str)]) -> Ran {
    let args = [&["config", "show", "-o", "json"], args].concat();
    let output = tokio::process::Command::new(crate::common::AVIARY)
        .args(args)
        .env_clear()
        .envs(env.iter().copied())
        .output()
        .await
        .unwrap();
    Ran {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn write(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_listed_with_where_they_come_from() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("aviary.toml");
    write(
        &file,
        "split_bytes = 1\nkept_bytes = 2\npoll_ms = 30\nslots = 3\nlog = \"debug\"\ndb = \"from_file\"\n\
         cap_query_time = \"2h\"\ntrust_databases = [\"a\", \"b\"]\nwatch = false\n",
    );
    let file = file.to_str().unwrap();
    let env = [("AVIARY_KEPT_BYTES", "4"), ("AVIARY_POLL_MS", "50"), ("AVIARY_OUTPUT", "table")];
    let flags = ["--config", file, "--poll-ms", "60", "--db", "from_flag"];
    let ran = show(&flags, &env).await.ok();
    assert!(ran.stderr.contains("the database was not asked"), "{ran:#?}");
    for (setting, value, origin) in [
        ("split-bytes", Value::from(1), "file"),
        ("kept-bytes", 4.into(), "variable"),
        ("poll-ms", 60.into(), "flag"),
        ("slots", 3.into(), "file"),
        ("log", "debug".into(), "file"),
        ("db", vec!["from_flag"].into(), "flag"),
        ("output", "json".into(), "flag"),
        ("config", file.into(), "flag"),
        ("cap-query-time", "2h".into(), "file"),
        ("trust-databases", vec!["a", "b"].into(), "file"),
        ("watch", false.into(), "file"),
        ("lease-ttl-ms", 15_000.into(), "default"),
        ("retention", "7days".into(), "default"),
        ("memory-mb", 1_024.into(), "default"),
        ("uri", Value::Null, "default"),
    ] {
        let row = shown(&ran, setting);
        assert_eq!((&row["value"], &row["origin"]), (&value, &origin.into()), "{row}");
        assert_eq!(row["database_asked"], false, "{row}");
    }
    let names = show(&["-o", "name"], &[]).await;
    assert_eq!(names.code, 2, "twice the same flag: {names:#?}");

    // A file with a password; and one in a place where nobody expects it.
    let bed = Bed::start(1).await;
    bed.aviary(&["init", "--split-bytes", "7", "--kept-bytes", "7"]).await.ok();
    let secret = dir.path().join("secret.toml");
    write(
        &secret,
        "uri = \"mongodb://s3cuser:s3cret@127.0.0.1:1/?serverSelectionTimeoutMS=100\"\n",
    );
    let shard = ("AVIARY_SHARD_URI", "mongodb://s3cuser:s3cret@127.0.0.1:2/");
    let ran = show(&["--config", secret.to_str().unwrap(), "-d", "test"], &[shard]).await.ok();
    assert!(!format!("{ran:?}").contains("s3c"), "{ran:#?}");
    assert!(shown(&ran, "uri")["value"].as_str().unwrap().contains("127.0.0.1:1"), "{ran:#?}");
    assert!(ran.stderr.contains("the database was not asked"), "{ran:#?}");
    let uri = bed.uri();
    let ran = show(&["-d", "test"], &[("AVIARY_URI", &uri), env[0]]).await.ok();
    assert_eq!(ran.stderr, "");
    for (setting, value, origin) in [("split-bytes", 7, "database"), ("kept-bytes", 4, "variable")]
    {
        let row = shown(&ran, setting);
        assert_eq!((&row["value"], &row["origin"]), (&value.into(), &origin.into()), "{row}");
        assert_eq!(row["database_asked"], true, "{row}");
    }
}
