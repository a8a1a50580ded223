//! Whatever is wrong with a job, a person gets one line that says so, a script gets the documented
//! exit code, and nothing is left behind.

use crate::common::{Bed, Ran, run, wait_for};
use aviary_testcontainers::{ReplicaSetOptions, Standalone, StandaloneOptions};
use bson::{Document, doc};

/// A database in which no coordinator works: whatever appears there, a refused job has left.
const REFUSED_DB: &str = "refused";

const GOOD_MAP: &str = "function () { emit(this.g, 1); }";

/// Checks the contract of an error: its exit code, nothing but JSON on standard output, one line
/// that says what is wrong. Returns the line; what follows it may only be a function's stack.
fn one_line(ran: &Ran, code: i32, what: &str) -> String {
    assert_eq!(ran.code, code, "{what}: {ran:#?}");
    let mut lines = ran.stderr.lines();
    let first = lines.next().unwrap_or_default();
    assert!(first.starts_with("error: "), "{what}: {ran:#?}");
    assert_eq!(
        ran.stderr.lines().filter(|line| line.starts_with("error: ")).count(),
        1,
        "{what}: {ran:#?}"
    );
    for line in lines {
        assert!(
            line.trim_start().starts_with("at ") || line.starts_with("(task "),
            "{what}: a line that is no stack: {line:?} in {ran:#?}"
        );
    }
    first.to_owned()
}

fn says(line: &str, words: &[&str]) {
    for word in words {
        assert!(line.contains(word), "{word:?} is missing in: {line}");
    }
}

/// A module with everything but its stages.
fn wat(imports: &str, body: &str) -> String {
    format!(
        r#"(module
            (import "aviary" "emit" (func $emit (param i32 i32 i32 i32)))
            {imports}
            (memory (export "memory") 2)
            (func (export "aviary_abi_v1"))
            (func (export "aviary_alloc") (param i32) (result i32) (i32.const 65536))
            {body})"#
    )
}

async fn names(bed: &Bed, db: &str) -> Vec<String> {
    let mut names = bed.client.database(db).list_collection_names().await.unwrap();
    names.retain(|name| !name.starts_with("system."));
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_job_says_why_and_leaves_nothing() {
    let bed = Bed::start(1).await;
    let db = bed.client.database(REFUSED_DB);
    db.collection::<Document>("texts")
        .insert_many((0..10).map(|n| doc! { "_id": n, "g": n % 3 }))
        .await
        .unwrap();
    db.run_command(doc! { "create": "cut", "viewOn": "texts", "pipeline": [] }).await.unwrap();
    db.run_command(doc! { "create": "ticks", "timeseries": { "timeField": "t" } }).await.unwrap();
    db.run_command(doc! { "create": "ring", "capped": true, "size": 4096 }).await.unwrap();
    let before = names(&bed, REFUSED_DB).await;

    let path = |name: &str, text: &str| bed.file(name, text).display().to_string();
    let good = path("good.js", GOOD_MAP);
    let no_wasm = path("text.wasm", "this is no module");
    let no_function = path("notes.txt", "some notes");
    let forbidden = path(
        "forbidden.wat",
        &wat(
            r#"(import "env" "open_socket" (func (param i32)))"#,
            r#"(func (export "map") (param i32 i32))"#,
        ),
    );
    let no_map = path("no_map.wat", &wat("", r#"(func (export "reduce") (param i32 i32))"#));
    let too_long = path("long.js", "");
    let file = std::fs::File::options().write(true).open(&too_long).unwrap();
    file.set_len((64 << 20) + 1).unwrap();
    let syntax = path("syntax.js", "function () {\n  emit(this.g, 1;\n}\n");
    let no_js_function = path("value.js", "42");

    let submit = ["submit", "--quiet", "-d", REFUSED_DB, "--reduce", "_sum"];
    struct Case<'a> {
        what: &'a str,
        more: Vec<&'a str>,
        code: i32,
        words: Vec<&'a str>,
    }
    let case = |what, more: &[&'static str], code, words: &[&'static str]| Case {
        what,
        more: more.to_vec(),
        code,
        words: words.to_vec(),
    };
    // `GOOD` and the like stand for paths that only this run knows.
    let cases = [
        case(
            "unknown collection",
            &["-c", "nowhere", "--map", "GOOD"],
            5,
            &["refused.nowhere", "not found", "check the name"],
        ),
        case("view", &["-c", "cut", "--map", "GOOD"], 8, &["refused.cut is a view", "--query"]),
        case(
            "time series",
            &["-c", "ticks", "--map", "GOOD"],
            8,
            &["refused.ticks is a time series"],
        ),
        case(
            "not wasm",
            &["-c", "texts", "--map", "NO_WASM"],
            8,
            &["text.wasm", "neither a WebAssembly module nor", "1:1"],
        ),
        case(
            "not a function",
            &["-c", "texts", "--map", "NO_FUNCTION"],
            8,
            &["notes.txt", ".js, .go, .rs, .c, .cpp, .zig, .ts, .wasm or .wat"],
        ),
        case(
            "a map that is too long",
            &["-c", "texts", "--map", "TOO_LONG"],
            8,
            &["long.js is too long", "at most 67108864 bytes"],
        ),
        case(
            "a query without an end",
            &["-c", "texts", "--map", "GOOD", "--query", "/dev/zero"],
            8,
            &["/dev/zero is too long"],
        ),
        case(
            "a configuration without an end",
            &["-c", "texts", "--map", "GOOD", "--config", "/dev/zero"],
            8,
            &["/dev/zero is too long", "at most 1048576 bytes"],
        ),
        case("forbidden import", &["-c", "texts", "--map", "FORBIDDEN"], 8, &["env.open_socket"]),
        case("no map", &["-c", "texts", "--map", "NO_MAP"], 8, &["no_map.wat", "map"]),
        case(
            "JavaScript syntax",
            &["-c", "texts", "--map", "SYNTAX"],
            8,
            &["syntax.js", "line 2, column 17"],
        ),
        case(
            "a script without function",
            &["-c", "texts", "--map", "NO_JS_FUNCTION"],
            8,
            &["value.js", "function"],
        ),
        case(
            "no such function",
            &["-c", "texts", "--map", "missing.js"],
            5,
            &["missing.js", "not found"],
        ),
        case(
            "no such built-in",
            &["-c", "texts", "--map", "GOOD", "--reduce", "_median"],
            8,
            &["_median", "_sum"],
        ),
        case(
            "output is input",
            &["-c", "texts", "--map", "GOOD", "--out", "replace:texts"],
            8,
            &["refused.texts is the input itself", "name another"],
        ),
        case(
            "output is a view",
            &["-c", "texts", "--map", "GOOD", "--out", "replace:cut"],
            8,
            &["refused.cut is a view"],
        ),
        case(
            "output is capped",
            &["-c", "texts", "--map", "GOOD", "--out", "replace:ring"],
            8,
            &["refused.ring is a capped collection"],
        ),
        case(
            "output is Aviary's",
            &["-c", "texts", "--map", "GOOD", "--out", "replace:aviary"],
            8,
            &["refused.aviary cannot be an output"],
        ),
        case(
            "output mode",
            &["-c", "texts", "--map", "GOOD", "--out", "append:x"],
            2,
            &["append:x"],
        ),
        case(
            "text of a function that is none",
            &["-c", "texts", "--map", "function () { emit(1, }"],
            8,
            &["inline text", "SyntaxError"],
        ),
        case(
            "collation that the server does not know",
            &["-c", "texts", "--map", "GOOD", "--collation", r#"{"locale": "klingon"}"#],
            2,
            &["--collation", "klingon"],
        ),
        case(
            "query is no JSON",
            &["-c", "texts", "--map", "GOOD", "--query", "{g: }"],
            2,
            &["--query is no document"],
        ),
        case(
            "query is no document",
            &["-c", "texts", "--map", "GOOD", "--query", "[1]"],
            2,
            &["--query", "object"],
        ),
        case(
            "unknown operator",
            &["-c", "texts", "--map", "GOOD", "--query", r#"{"g": {"$near-by": 1}}"#],
            2,
            &["--query", "$near-by"],
        ),
        case(
            "unknown order",
            &["-c", "texts", "--map", "GOOD", "--sort", r#"{"g": 7}"#],
            2,
            &["--sort"],
        ),
        case(
            "a query that no range of _id can answer",
            &["-c", "texts", "--map", "GOOD", "--query", r#"{"$text": {"$search": "x"}}"#],
            2,
            &["--query", "text"],
        ),
        case("limit", &["-c", "texts", "--map", "GOOD", "--limit", "0"], 2, &["--limit"]),
        case("below 0", &["-c", "texts", "--map", "GOOD", "--limit", "-3"], 2, &["at least 1"]),
    ];
    for Case { what, more, code, words } in cases {
        let mut args: Vec<&str> = submit.to_vec();
        if more.contains(&"--reduce") {
            args.truncate(args.len() - 2);
        }
        args.extend(more.into_iter().map(|arg| match arg {
            "GOOD" => good.as_str(),
            "NO_WASM" => &no_wasm,
            "NO_FUNCTION" => &no_function,
            "FORBIDDEN" => &forbidden,
            "NO_MAP" => &no_map,
            "SYNTAX" => &syntax,
            "TOO_LONG" => &too_long,
            "NO_JS_FUNCTION" => &no_js_function,
            other => other,
        }));
        let ran = bed.aviary(&args).await;
        says(&one_line(&ran, code, what), &words);
        assert_eq!(ran.stdout, "", "{what}");
        assert_eq!(names(&bed, REFUSED_DB).await, before, "{what}");
    }

    // Whatever clap refuses: usage on standard error, 2.
    for args in [
        &["frobnicate"][..],
        &["submit", "-c", "texts", "--map", &good, "--frobnicate"],
        &["submit", "--map", &good],
        &["status"],
        &["list", "-o", "xml"],
    ] {
        let ran = bed.aviary(args).await;
        assert_eq!(ran.code, 2, "{ran:#?}");
        says(ran.stderr.lines().next().unwrap_or_default(), &["error: "]);
        assert_eq!(ran.stdout, "");
    }

    // A job that is not there, in a database that has none.
    for args in [["status", "0123456789abcdef01234567"], ["results", "last"], ["cancel", "zz"]] {
        let mut args = args.to_vec();
        args.extend(["-d", REFUSED_DB]);
        let ran = bed.aviary(&args).await;
        says(&one_line(&ran, 5, "unknown job"), &["job", "not found"]);
    }
    assert_eq!(names(&bed, REFUSED_DB).await, before);

    let dry = [&submit[..], &["-c", "texts", "--map", &good, "--dry-run"]].concat();
    let dry = bed.aviary(&dry).await.ok();
    assert_eq!(dry.json()[0]["input"]["collection"], "texts");
    assert_eq!(names(&bed, REFUSED_DB).await, before, "a dry run writes nothing");
}

/// Submits, expects failure 3, and returns the error's first line and all of standard error.
async fn fails(bed: &Bed, what: &str, more: &[&str], code: i32, words: &[&str]) -> Ran {
    let mut args = vec!["submit", "--quiet", "-c", "docs"];
    args.extend(more);
    let ran = bed.aviary(&args).await;
    says(&one_line(&ran, code, what), words);
    assert_eq!(ran.stdout, "", "{what}");
    bed.nothing_left(what).await;
    ran
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_fails_says_where_and_leaves_nothing() {
    let bed = Bed::start(1).await;
    let docs: Vec<Document> = (0..200)
        .map(|n| match n {
            137 => doc! { "_id": n, "g": n % 3, "bad": true },
            _ => doc! { "_id": n, "g": n % 3, "name": format!("n{n}") },
        })
        .collect();
    bed.load("docs", docs).await;
    let path = |name: &str, text: &str| bed.file(name, text).display().to_string();
    let good = path("good.js", GOOD_MAP);

    // Nobody works yet: a wait runs out, the job stays.
    let _coordinator = bed.coordinator();
    let timed = bed
        .aviary(&[
            "submit",
            "--quiet",
            "-c",
            "docs",
            "--map",
            &good,
            "--reduce",
            "_sum",
            "--timeout",
            "200ms",
            "--tag",
            "late",
        ])
        .await;
    says(&one_line(&timed, 7, "timeout"), &["stopped waiting"]);
    let late = crate::common::wait_for("the job to be taken in", || async {
        let listed = bed.aviary(&["list", "--tag", "late", "-o", "name"]).await.ok();
        Some(listed.stdout.trim().to_owned()).filter(|job| !job.is_empty())
    })
    .await;

    // Cancelled before anybody works on it.
    let cancelled = bed
        .aviary(&["submit", "--detach", "-c", "docs", "--map", &good, "--reduce", "_sum"])
        .await
        .ok();
    let cancelled = cancelled.stdout.trim().to_owned();
    let open = bed.aviary(&["results", &cancelled]).await;
    says(&one_line(&open, 5, "results too early"), &["wait for it"]);
    bed.aviary(&["cancel", &cancelled]).await.ok();
    let watched = bed.aviary(&["status", "-w", "-o", "json", &cancelled]).await;
    says(&one_line(&watched, 4, "cancelled"), &[&cancelled, "was cancelled"]);
    assert_eq!(watched.json()[0]["state"], "cancelled");
    let none = bed.aviary(&["results", &cancelled]).await;
    says(&one_line(&none, 4, "results of a cancelled job"), &["was cancelled"]);

    let _worker = bed.worker();
    // The job whose wait ran out goes on to its end.
    bed.aviary(&["status", "-w", &late]).await.ok();
    let results = bed.aviary(&["results", &late]).await.ok();
    let sum: f64 = results.json().iter().map(|row| row["value"].as_f64().unwrap()).sum();
    assert!((sum - 200.0).abs() < 1e-9, "{results:#?}");
    bed.aviary(&["rm", &late]).await.ok();

    let thrower = path("thrower.js", "function () {\n  emit(this.name.length, 1);\n}\n");
    let threw =
        fails(&bed, "exception", &["--map", &thrower, "--reduce", "_sum"], 3, &["137", "map"])
            .await;
    says(&threw.stderr, &["TypeError", "137", "\n    at ", ":2:"]);

    let looper = path("looper.js", "function () { for (;;) {} }");
    fails(
        &bed,
        "infinite loop",
        &["--map", &looper, "--reduce", "_sum", "--record-timeout", "1s", "--limit", "3"],
        3,
        &["ran out of time", "1000 ms", "_id 0", "--record-timeout"],
    )
    .await;

    let bomb = path(
        "bomb.js",
        "function () { const a = []; for (;;) a.push('x'.repeat(1e6) + a.length); }",
    );
    fails(
        &bed,
        "memory bomb",
        &["--map", &bomb, "--reduce", "_sum", "--memory-mb", "32"],
        3,
        &["ran out of memory", "32 MiB", "--memory-mb"],
    )
    .await;

    let arrays = path("arrays.js", "function () { emit([1, 'two'], 1); }");
    fails(
        &bed,
        "array key",
        &["--map", &arrays, "--reduce", "_sum", "--out", "replace:target"],
        3,
        &["the key [1.0,\"two\"]", "array", "_id"],
    )
    .await;

    let reduce = path(
        "reduce.js",
        "function (key, values) {\n  if (key === 2) null.x;\n  return Array.sum(values);\n}\n",
    );
    let broken =
        fails(&bed, "reduce", &["--map", &good, "--reduce", &reduce], 3, &["reduce", "the key 2"])
            .await;
    says(&broken.stderr, &["TypeError", "\n    at "]);

    let large = path("large.js", "function () { emit('k', 'x'.repeat(17e6)); }");
    fails(
        &bed,
        "a result beyond 16 MiB",
        &["--map", &large, "--reduce", "_max", "--limit", "1"],
        3,
        &["16"],
    )
    .await;

    // A key that is a string of 9 bytes, of which one is there.
    let malformed = path(
        "malformed.wat",
        &wat(
            "",
            r#"(data (i32.const 0) "\02\09\00\00\00a") (data (i32.const 16) "\10\01\00\00\00")
            (func (export "map") (param i32 i32)
                (call $emit (i32.const 0) (i32.const 6) (i32.const 16) (i32.const 5)))"#,
        ),
    );
    fails(
        &bed,
        "malformed BSON",
        &["--map", &malformed, "--reduce", "_sum"],
        3,
        &["emitted something impossible", "the key"],
    )
    .await;

    // The same failure for a script that reads JSON.
    let json = bed
        .aviary(&[
            "submit",
            "--quiet",
            "-c",
            "docs",
            "--map",
            &thrower,
            "--reduce",
            "_sum",
            "-o",
            "json",
            "--client",
            "c1",
            "--tag",
            "t1",
            "--out",
            "replace:target",
            "--query",
            r#"{"_id": {"$gte": 100}}"#,
        ])
        .await;
    one_line(&json, 3, "JSON");
    assert_eq!(json.json().len(), 1, "{json:#?}");
    let job = &json.json()[0];
    for field in [
        "id", "state", "client", "tag", "input", "output", "created", "started", "finished",
        "snapshot", "phases", "counters", "error",
    ] {
        assert!(job.get(field).is_some(), "{field} is missing in {job}");
    }
    assert_eq!(job["state"], "failed");
    assert_eq!((&job["client"], &job["tag"]), (&"c1".into(), &"t1".into()));
    assert_eq!(job["input"]["query"]["_id"]["$gte"], 100);
    assert_eq!(
        job["output"],
        serde_json::json!({"mode": "replace", "db": "test", "collection": "target"})
    );
    assert_eq!(job["error"]["code"], "function");
    assert!(job["error"]["message"].as_str().unwrap().contains("137"), "{job}");
    assert!(job["error"]["task"].is_string(), "{job}");
    for field in ["total", "ready", "leased", "done", "quarantined"] {
        assert!(job["phases"]["map"][field].is_u64() && job["phases"]["reduce"][field].is_u64());
    }
    assert_eq!(job["phases"]["map"]["quarantined"], 1);
    let id = job["id"].as_str().unwrap();
    let results = bed.aviary(&["results", id]).await;
    one_line(&results, 3, "results of a failed job");
    assert_eq!(results.stdout, "");
    let shown = bed.aviary(&["status", id, "-o", "json"]).await.ok();
    assert_eq!(shown.json()[0]["state"], "failed");

    assert!(bed.all("target").await.is_empty());
    assert!(!names(&bed, "test").await.contains(&"target".to_owned()), "no target was made");
    bed.nothing_left("bad input").await;

    // And the deployment still works.
    bed.aviary(&[
        "submit",
        "-c",
        "docs",
        "--map",
        &good,
        "--reduce",
        "_sum",
        "--out",
        "replace:target",
    ])
    .await
    .ok();
    assert_eq!(bed.all("target").await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_cannot_be_used_says_why_and_never_shows_a_password() {
    const PASSWORD: &str = "pa55word-of-the-reader";
    let bed = Bed::with(ReplicaSetOptions { auth: true, ..ReplicaSetOptions::default() }).await;
    bed.load("docs", vec![doc! { "_id": 1, "g": 1 }]).await;
    bed.set()
        .create_user("reader", PASSWORD, vec![doc! { "role": "read", "db": "test" }.into()])
        .await
        .unwrap();
    let good = bed.file("good.js", GOOD_MAP).display().to_string();
    let submit =
        ["submit", "--quiet", "-d", "test", "-c", "docs", "--map", &good, "--reduce", "_sum"];
    let root_password = bed.set().root().unwrap().password.clone();
    let before = names(&bed, "test").await;

    let secretive = |ran: &Ran, what: &str| {
        for secret in [PASSWORD, "wr0ng-pass", root_password.as_str(), "reader:", "reader@"] {
            assert!(!ran.stdout.contains(secret), "{what}: {ran:#?}");
            assert!(!ran.stderr.contains(secret), "{what}: {ran:#?}");
        }
    };
    let reader = bed.set().uri_for_user("reader", PASSWORD);
    let wrong = bed.set().uri_for_user("reader", "wr0ng-pass");
    let anonymous = bed.set().uri_without_user();
    // Bound and let go at once: nobody listens there.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody =
        format!("mongodb://reader:{PASSWORD}@127.0.0.1:{closed}/?serverSelectionTimeoutMS=1000");
    let malformed = format!("mongodb://reader:{PASSWORD}@127.0.0.1:port/");
    let standalone = Standalone::start(StandaloneOptions::default()).await.unwrap();

    let cases = [
        (
            "no permission",
            reader.clone(),
            8,
            vec!["not permitted", "grant", "readWrite", "dbAdmin", "test"],
        ),
        (
            "wrong password",
            wrong,
            8,
            vec!["refused the credentials", "check the user", "mongodb://127.0.0.1:"],
        ),
        ("no credentials", anonymous, 8, vec!["grant"]),
        ("no server", nobody, 6, vec!["cannot connect", "mongodb://127.0.0.1:"]),
        ("malformed", malformed, 2, vec!["not a usable MongoDB URI"]),
        ("standalone", standalone.uri(), 8, vec!["standalone", "replica set", "--replSet"]),
    ];
    for (what, uri, code, words) in cases {
        let ran = run(&submit, &[("AVIARY_URI".into(), uri.clone())]).await;
        says(&one_line(&ran, code, what), &words);
        secretive(&ran, what);
        // As a flag, and with all that can be said.
        let args = [&submit[..], &["--uri", &uri, "-vv"]].concat();
        let ran = run(&args, &[]).await;
        assert_eq!(ran.code, code, "{what}: {ran:#?}");
        secretive(&ran, what);
    }
    assert_eq!(names(&bed, "test").await, before, "nothing was made by any of them");

    let env = [("AVIARY_URI".to_owned(), reader.clone())];
    for args in [
        &["submit", "--help"][..],
        &["--help"],
        &["list", "-d", "test"],
        &["workers", "-d", "test"],
    ] {
        let ran = run(args, &env).await;
        secretive(&ran, "help and listings");
    }

    // Daemons and jobs of somebody who may, with the password in the environment.
    let worker = bed.worker();
    let coordinator = bed.coordinator();
    let ran = bed.aviary(&submit).await.ok();
    secretive(&ran, "a job that works");
    let json = bed.aviary(&["list", "-o", "json"]).await.ok();
    secretive(&json, "the list");
    let logs = wait_for("both daemons to have logged", async || {
        let logs = worker.log().unwrap() + &coordinator.log().unwrap();
        (logs.contains("worker started") && logs.contains("coordinator started")).then_some(logs)
    })
    .await;
    assert!(!logs.contains(&root_password), "{logs}");
    let stored: Vec<Document> = bed.all("aviary").await;
    assert!(!format!("{stored:?}").contains(&root_password));
}
