//! What a new user stumbles over: each mistake is told with its cause and the way out, and nothing is done in silence.

use crate::common::{Bed, Ran, run};
use bson::doc;
use tokio::io::{AsyncBufReadExt, BufReader};

const BY_K: &str = "function () { emit(this.k, this.v); }";

#[track_caller]
fn says(ran: &Ran, code: i32, words: &[&str]) {
    assert_eq!(ran.code, code, "{ran:#?}");
    for word in words {
        assert!(ran.stderr.contains(word), "{word:?} is missing in {ran:#?}");
    }
}

/// What needs no server.
#[tokio::test]
async fn mistakes_that_need_no_server_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let nowhere = [("AVIARY_URI".to_owned(), "mongodb://127.0.0.1:1/test".to_owned())];
    let with = |name: &str, value: &str| {
        [nowhere.to_vec(), vec![(name.to_owned(), value.to_owned())]].concat()
    };
    for (args, words) in [
        (&["up", "--shards", "0"][..], "--shards"),
        (&["up", "--workers", "0"], "--workers"),
        (&["submit", "-c", "x", "--map", BY_K, "--partitions", "0"], "--partitions"),
        (&["submit", "-c", "x", "--map", BY_K, "--detach", "--timeout", "1s"], "--timeout"),
        (&["submit", "-c", "x", "--map", BY_K, "--id", ""], "--id has 0 bytes"),
        (&["submit", "-c", "x", "--map", BY_K, "--tag", &"t".repeat(129)], "--tag has 129 bytes"),
        (&["coordinator", "--cap-task-timeout", "8days"], "--cap-task-timeout 8days is above"),
        (&["worker", "--cap-partitions", "1025"], "--cap-partitions 1025 is above"),
        (&["rm", "last"], "last"),
        (&["rm", "--tag", "t", "x"], "--tag"),
    ] {
        says(&run(args, &nowhere).await, 2, &[words]);
    }
    // What the environment gives is not asked for.
    let ran = run(&["submit", "-c", "x"], &nowhere).await;
    says(&ran, 2, &["--map", "Usage: "]);
    assert!(!ran.stderr.contains("--uri"), "{ran:#?}");
    says(&run(&["list"], &with("AVIARY_DB", "")).await, 2, &["AVIARY_DB"]);
    says(
        &run(&["list"], &with("AVIARY_LOG", "aviary=loud")).await,
        2,
        &["AVIARY_LOG", "aviary=debug"],
    );

    let docs = file("docs.jsonl", "{\"_id\": 1, \"k\": \"a\", \"v\": 2}\n");
    let tried = async |more: &[&str]| {
        run(&[&["try", "--docs", docs.as_str()], more].concat(), &nowhere).await
    };
    let python = file("job.py", "print(1)");
    says(&tried(&["--map", &python]).await, 8, &["no Python"]);
    let module = file("module.js", "export function map() { emit(1, 1); }\n");
    says(&tried(&["--map", &module]).await, 8, &["SyntaxError", "remove the words export"]);
    let unnamed = file("unnamed.js", BY_K);
    says(&tried(&["--module", &unnamed]).await, 8, &["name its functions map, reduce"]);
    let ran = run(&["submit", "-c", "a", "-c", "b", "--map", BY_K], &nowhere).await;
    says(&ran, 2, &["a job reads one collection", "--out reduce:NAME"]);
    let twice =
        file("twice.json", r#"{"mapReduce": "c", "query": {"v": {"$gt": 2}, "v": {"$lt": 5}}}"#);
    says(&tried(&["--command", &twice]).await, 2, &["the field v is there twice"]);
    says(&tried(&["--map", BY_K, "--limit", "0"]).await, 2, &["--limit must be at least 1"]);
    let here = dir.path().display().to_string();
    says(&tried(&["--map", BY_K, "--scope", &here]).await, 2, &["is a directory"]);
    // An error of a function names what it is about.
    for (body, words) in [
        ("this.k.toFixd(2);", "TypeError: this.k.toFixd is not a function"),
        ("throw {code: 5};", "{\"code\":5}"),
        ("emit(this.k, {a: [Symbol()]});", "a symbol cannot be written (field a.0)"),
    ] {
        let function = file("wrong.js", &format!("function () {{ {body} }}"));
        says(&tried(&["--map", &function]).await, 3, &[words, "_id 1"]);
    }
    // Several functions of one script, also in one line.
    let whole = file(
        "whole.js",
        "function map() { emit(this.k, this.v); } function reduce(k, v) { return Array.sum(v) + 1; }",
    );
    let ran = tried(&["--module", &whole]).await;
    says(&ran, 0, &[]);
    assert_eq!(ran.stdout, "{\"_id\":\"a\",\"value\":3.0}\n");
    // As a bundler writes them, beside a regular expression that only an interpreter can tell from code.
    let bundle = file(
        "bundle.js",
        "var j=(()=>{var q=/[{\"'`]/g;function combine(){}return{map(d){emit(d.k,d.v)},reduce(k,v){return Array.sum(v)}}})();\
         var map=j.map,reduce=j.reduce;",
    );
    let ran = tried(&["--module", &bundle]).await;
    says(&ran, 0, &["reduce 1"]);
    // A map-only job refuses what a trial can show.
    let ran = tried(&["--map", "function () { emit(1, 1); emit(1, 2); }"]).await;
    says(&ran, 0, &["the key 1 was emitted twice", "--reduce"]);
    // A variable that is set to nothing is not set.
    for name in ["AVIARY_URI_FILE", "AVIARY_CONFIG"] {
        says(
            &run(&["list"], &with(name, "")).await,
            6,
            &["no answer from mongodb://127.0.0.1:1/test yet"],
        );
    }

    // AssemblyScript calls itself TypeScript's dialect where it is begun.
    let begun = dir.path().join("begun").display().to_string();
    says(&run(&["new", "typescript", &begun], &nowhere).await, 0, &["AssemblyScript"]);
    // A server that does not answer is named while it is waited for.
    says(&run(&["list"], &nowhere).await, 6, &["no answer from mongodb://127.0.0.1:1/test yet"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn conveniences_do_what_their_names_say() {
    let bed = Bed::start(1).await;
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    bed.load("docs", (0..6).map(|n| doc! { "_id": n, "k": n % 2, "v": n }).collect()).await;
    let submit = async |more: &[&str]| {
        let args = ["submit", "-q", "-o", "name", "-c", "docs", "--map", BY_K, "--reduce", "_sum"];
        bed.aviary(&[&args[..], more].concat()).await
    };
    let sums = async |query: &str| {
        let id = submit(&["--query", query]).await.ok().stdout.trim().to_owned();
        bed.all(&format!("aviary-out-{id}")).await
    };
    // A query as mongosh takes it, as JSON, or in a file.
    let in_file =
        bed.file("query.js", "{ v: { $gt: 2 },\n  k: NumberInt(1) }").display().to_string();
    let expected = vec![doc! { "_id": 1.0, "value": 8.0 }];
    for query in ["{v: {$gt: 2}, k: 1}", r#"{"v": {"$gt": 2}, "k": 1}"#, &in_file] {
        assert_eq!(sums(query).await, expected, "{query}");
    }
    says(&submit(&["--query", "{v: {$gt 2}}"]).await, 2, &["--query", "SyntaxError"]);
    says(&submit(&["--query", r#"{"v": 1, "v": 2}"#]).await, 2, &["the field v is there twice"]);
    says(&submit(&["--query", "no-such-file"]).await, 2, &["there is no file no-such-file"]);

    // A script in the catalogue is a module like one in a file.
    let whole =
        "function map() { emit(this.k, this.v); }\nfunction reduce(k, v) { return Array.sum(v); }";
    let whole = bed.file("whole.js", whole).display().to_string();
    bed.aviary(&["insert", &whole, "--name", "whole"]).await.ok();
    let args = ["submit", "-q", "-c", "docs", "--module", "whole", "--query", "{k: 1}"];
    assert_eq!(bed.aviary(&args).await.ok().stdout, "{\"_id\":1.0,\"value\":9.0}\n");

    // A refused emit names its document, also where many are mapped in one call.
    let map = "function () { emit(this.k, this._id == 4 ? 'x' : 1); }";
    let args = ["submit", "-q", "-c", "docs", "--map", map, "--reduce", "_sum", "--tag", "bad"];
    says(&bed.aviary(&args).await, 3, &["on the document with _id 4", "_sum takes numbers"]);

    // When each was made, what became of each attempt, and several away at once.
    let table = bed.aviary(&["list"]).await.ok().stdout;
    assert!(table.contains("CREATED"), "{table}");
    let history = bed.aviary(&["tasks", "last", "--history"]).await.ok().stdout;
    assert!(history.contains("failed") && history.contains("_sum takes numbers"), "{history}");
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(submit(&["--tag", "mine"]).await.ok().stdout.trim().to_owned());
    }
    let removed = bed.aviary(&["rm", &ids[0], &ids[1]]).await.ok();
    assert_eq!(removed.stderr.lines().count(), 2, "{removed:#?}");
    bed.aviary(&["rm", "--tag", "mine"]).await.ok();
    let left = bed.aviary(&["list", "-o", "name"]).await.ok().stdout;
    assert!(!ids.iter().any(|id| left.contains(id)), "{left}");
    assert_eq!(left.lines().count(), 5, "{left}");
}

/// In mongosh's notation `{$date: …}` is a document, in extended JSON a date.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_in_a_flag_is_read_alike_by_try_and_submit() {
    let bed = Bed::start(1).await;
    let _coordinator = bed.coordinator();
    let _worker = bed.worker();
    let at = |ms| bson::DateTime::from_millis(ms);
    let late = at(1_800_000_000_000);
    bed.load("docs", vec![doc! { "_id": 1, "at": at(0) }, doc! { "_id": 2, "at": late }]).await;
    let is_date = "function () { emit(typeof s.getTime === 'function', 1); }";
    let each = "function () { emit(this._id, 1); }";
    for (map, flag, text, expected) in [
        (
            is_date,
            "--scope",
            r#"{s: {$date: "2026-06-01T00:00:00Z"}}"#,
            "{\"_id\":false,\"value\":2.0}\n",
        ),
        (
            is_date,
            "--scope",
            r#"{"s": {"$date": "2026-06-01T00:00:00Z"}}"#,
            "{\"_id\":true,\"value\":2.0}\n",
        ),
        (each, "--query", r#"{at: {$gt: {$date: "2026-06-01T00:00:00Z"}}}"#, ""),
        (
            each,
            "--query",
            r#"{at: {$gt: ISODate("2026-06-01T00:00:00Z")}}"#,
            "{\"_id\":2.0,\"value\":1.0}\n",
        ),
        (
            each,
            "--query",
            r#"{"at": {"$gt": {"$date": "2026-06-01T00:00:00Z"}}}"#,
            "{\"_id\":2.0,\"value\":1.0}\n",
        ),
    ] {
        for verb in ["try", "submit"] {
            let args = [verb, "-q", "-c", "docs", "--map", map, "--reduce", "_sum", flag, text];
            let ran = bed.aviary(&args).await.ok();
            assert_eq!(ran.stdout, expected, "{verb} {flag} {text}");
        }
    }
}

/// Watching ends with Ctrl-C, the job goes on, and the exit code says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_is_interrupted_ends_as_documented() {
    let bed = Bed::start(1).await;
    bed.load("docs", vec![doc! { "_id": 1 }]).await;
    let coordinator = bed.coordinator();
    let args = ["submit", "-q", "--detach", "-c", "docs", "--map", BY_K, "--reduce", "_sum"];
    let id = bed.aviary(&args).await.ok().stdout.trim().to_owned();
    let mut watch = tokio::process::Command::new(crate::common::AVIARY)
        .args(["status", "-w", &id])
        .envs(bed.env())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stderr.take().unwrap()).lines();
    while !lines.next_line().await.unwrap().expect("a line").contains("no worker is running") {}
    let pid = nix::unistd::Pid::from_raw(i32::try_from(watch.id().unwrap()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let told = lines.next_line().await.unwrap().expect("a line");
    assert_eq!(watch.wait().await.unwrap().code(), Some(7), "{told}");
    assert!(told.contains("goes on"), "{told}");
    drop(coordinator);
}
