//! Nothing that other people wrote makes the terminal do anything: no verb prints a control character, in any
//! format, and JSON stays JSON.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;

use crate::common::{AVIARY, Bed, wait_for};
use bson::{DateTime, doc};

/// A window title, a color in C1, text that runs backwards, line separators, and what overwrites a line.
const HOSTILE: &str =
    "\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}\u{2066}\u{200f}\u{2028}\u{85}\u{7f}\u{8}\r";
/// How the first of them is shown.
const SHOWN: &str = "\\u001b]0;owned\\u0007";
const FORMATS: [&str; 4] = ["table", "wide", "json", "name"];

fn is_obeyed(c: char) -> bool {
    let bidi = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}');
    c.is_control() && c != '\n' && c != '\t' || bidi || matches!(c, '\u{2028}' | '\u{2029}')
}

fn check(what: &str, bytes: &[u8]) -> String {
    let text =
        String::from_utf8(bytes.to_vec()).unwrap_or_else(|e| panic!("{what}: {e}: {bytes:?}"));
    let found: Vec<char> = text.chars().filter(|c| is_obeyed(*c)).collect();
    assert!(found.is_empty(), "{what} printed {found:?}: {text:?}");
    text
}

struct Shown {
    out: String,
    err: String,
    code: i32,
}

impl Shown {
    fn both(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

/// Runs the binary and makes sure that it printed no control character.
async fn shows<S: AsRef<OsStr>>(bed: &Bed, args: &[S], env: &[(&str, &str)]) -> Shown {
    let args: Vec<&OsStr> = args.iter().map(AsRef::as_ref).collect();
    let mut command = tokio::process::Command::new(AVIARY);
    command.args(&args).envs(bed.env()).envs(env.iter().copied());
    let ended = command.stdin(std::process::Stdio::null()).output().await.unwrap();
    let what = format!("{args:?} {env:?}");
    Shown {
        out: check(&what, &ended.stdout),
        err: check(&what, &ended.stderr),
        code: ended.status.code().unwrap_or(-1),
    }
}

/// The same in every format; JSON must be JSON.
async fn shows_in_every_format(bed: &Bed, args: &[&str], told_in: &[&str]) {
    for format in FORMATS {
        let shown = shows(bed, &[args, &["-o", format]].concat(), &[]).await;
        let both = shown.both();
        assert!(!both.is_empty() || format == "name", "{args:?} in {format} printed nothing");
        if told_in.contains(&format) {
            assert!(both.contains(SHOWN), "{args:?} in {format} does not tell it: {both}");
        }
        if format == "json" {
            for line in shown.out.lines() {
                serde_json::from_str::<serde_json::Value>(line)
                    .unwrap_or_else(|e| panic!("{args:?}: {e}: {line}"));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_verb_prints_a_control_character() {
    let bed = Bed::start(1).await;
    let coordinator = bed.coordinator();
    let worker = bed.worker();
    let input = format!("docs{HOSTILE}");
    let docs = [1, 2].map(|n| doc! { "_id": format!("{n}{HOSTILE}"), "g": HOSTILE, HOSTILE: n });
    bed.load(&input, docs.to_vec()).await;

    // JavaScript takes a line separator in a comment for a line's end, so it is a comment of several lines.
    let map = format!(
        "/* {HOSTILE} */ function () {{ console.log('said', this.g); count('seen' + this.g.slice(0, 4)); \
         emit(this.g, {{ [this.g]: 1 }}); }}"
    );
    let map = bed.file(&format!("map{HOSTILE}.js"), &map).display().to_string();
    let thrown = "function () { throw new Error('thrown ' + this.g + '\\nerror: forged'); }";
    let thrown = bed.file(&format!("throw{HOSTILE}.js"), thrown).display().to_string();
    let reduce = "function (key, values) { return values[0]; }";
    let (tag, query) =
        (["--tag", HOSTILE, "--client", HOSTILE], ["--query", "{\"g\": {\"$gt\": \"\"}}"]);
    let submit = |map: &str, more: &[&str]| -> Vec<String> {
        let args = ["submit", "-c", &input, "--map", map, "--reduce", reduce];
        args.iter().chain(&tag).chain(&query).chain(more).map(|arg| (*arg).to_owned()).collect()
    };
    for format in FORMATS {
        let ran = shows(&bed, &submit(&map, &["-o", format]), &[]).await;
        assert_eq!(ran.code, 0, "{}", ran.both());
        assert!(format != "table" || ran.out.contains(SHOWN), "{}", ran.out);
    }
    let out = format!("replace:results{HOSTILE}");
    let ran = shows(&bed, &submit(&map, &["--out", &out]), &[]).await;
    assert_eq!(ran.code, 0, "{}", ran.both());
    for verb in ["status", "tasks", "logs", "counters", "results"] {
        let told: &[&str] = match verb {
            "tasks" => &[],
            "counters" => &["table", "json"],
            "logs" => &FORMATS,
            _ => &["table", "json"],
        };
        let told = if verb == "counters" { &[][..] } else { told };
        shows_in_every_format(&bed, &[verb, "last"], told).await;
    }
    shows_in_every_format(&bed, &["status", "-w", "last"], &["table", "json"]).await;
    shows(&bed, &submit(&map, &["--dry-run"]), &[]).await;

    let failed = shows(&bed, &submit(&thrown, &[]), &[]).await;
    assert_eq!(failed.code, 3, "{}", failed.both());
    assert!(failed.err.contains(SHOWN), "{}", failed.err);
    shows_in_every_format(&bed, &["status", "last"], &["table", "json"]).await;
    shows_in_every_format(&bed, &["status", "-w", "last"], &["table", "json"]).await;
    shows_in_every_format(&bed, &["tasks", "last"], &["wide", "json"]).await;
    shows_in_every_format(&bed, &["results", "last"], &[]).await;
    shows_in_every_format(&bed, &["list"], &["table", "wide", "json"]).await;
    shows_in_every_format(&bed, &["cancel", "last"], &[]).await;
    let tasks = shows(&bed, &["tasks", "last", "-o", "wide"], &[]).await;
    assert!(
        !tasks.out.lines().any(|line| line.trim_start().starts_with("error: forged")),
        "{}",
        tasks.out
    );

    shows_in_every_format(&bed, &["insert", &map], &["json"]).await;
    shows_in_every_format(&bed, &["functions", "list"], &["wide", "json"]).await;
    let all = shows(&bed, &["functions", "list", "-o", "json"], &[]).await;
    for line in all.out.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let digest = row["digest"].as_str().unwrap();
        shows_in_every_format(&bed, &["functions", "show", digest], &[]).await;
        if row["file"].as_str().is_some_and(|file| file.starts_with("map\u{1b}")) {
            let shown = shows(&bed, &["functions", "show", digest], &[]).await;
            assert!(shown.out.contains(SHOWN) && shown.err.contains(SHOWN), "{}", shown.both());
        }
        shows(&bed, &["functions", "rm", digest], &[]).await;
    }

    // A worker that anybody who may write to the database could have made up.
    let now = DateTime::now();
    let shard = bed.set().name().to_owned();
    let id = format!("worker/{HOSTILE}");
    let made_up = doc! {
        "_id": id, "kind": "worker", "shard": shard, "host": HOSTILE, "pid": 1_i64, "slots": 1,
        "busy": 0, "version": HOSTILE, "started": now, "seen": now,
    };
    bed.coll("aviary").insert_one(made_up).await.unwrap();
    shows_in_every_format(&bed, &["workers"], &FORMATS).await;
    bed.coll("aviary").insert_one(doc! { "_id": format!("worker/2{HOSTILE}"), "kind": "worker", "shard": bed.set().name() }).await.unwrap();
    shows_in_every_format(&bed, &["workers"], &FORMATS).await;

    // A trial, whose functions print to the terminal themselves.
    let docs =
        bed.file(&format!("docs{HOSTILE}.jsonl"), &serde_json::json!({ "g": HOSTILE }).to_string());
    let docs = docs.display().to_string();
    let ran = shows(&bed, &["try", "--docs", &docs, "--map", &map, "--reduce", reduce], &[]).await;
    assert!(ran.out.contains(SHOWN) && ran.err.contains(SHOWN), "{}", ran.both());
    shows(&bed, &["try", "--docs", &docs, "--map", &thrown], &[]).await;
    let command =
        format!("console.log({0}), {{ mapReduce: {0}, nothing: {0} }}", serde_json::json!(HOSTILE));
    shows(&bed, &["try", "--command", &command], &[]).await;

    // Errors that quote what was asked for, and help that quotes the environment.
    for (args, env) in [
        (vec!["status", HOSTILE], vec![]),
        (vec!["functions", "show", HOSTILE], vec![]),
        (vec!["list", "--config", HOSTILE], vec![]),
        (vec!["list", "--state", HOSTILE], vec![]),
        (vec!["list", "-d", HOSTILE], vec![]),
        (vec!["list", "--uri", HOSTILE], vec![]),
        (vec!["new", "c", "/proc/\u{1b}[31m/x"], vec![]),
        (vec!["submit", "-c", HOSTILE, "--map", &map], vec![]),
        (vec![HOSTILE], vec![]),
        (vec!["list", "--help"], vec![("AVIARY_DB", HOSTILE)]),
        (vec!["list", "-vv"], vec![("AVIARY_DB", HOSTILE)]),
    ] {
        let shown = shows(&bed, &args, &env).await;
        assert!(!shown.both().is_empty(), "{args:?}");
    }
    for bytes in [&b"\xff\x1b[31m\x9b.js"[..], b"\xc2.wasm", b"/\xe2\x80.c"] {
        let file = OsString::from_vec(bytes.to_vec());
        shows(&bed, &[OsStr::new("insert"), &file], &[]).await;
        shows(&bed, &[&file], &[]).await;
    }
    shows(&bed, &["rm", &last(&bed).await], &[]).await;

    for daemon in [&worker, &coordinator] {
        let log = daemon.log().unwrap();
        check("a daemon's log", log.as_bytes());
        for line in log.lines() {
            serde_json::from_str::<serde_json::Value>(line)
                .unwrap_or_else(|e| panic!("{e}: {line}"));
        }
    }
    wait_for("the worker to have logged what failed", async || {
        worker.log().unwrap().contains("thrown").then_some(())
    })
    .await;
}

async fn last(bed: &Bed) -> String {
    shows(bed, &["status", "last", "-o", "name"], &[]).await.out.trim().to_owned()
}
