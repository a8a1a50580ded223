//! Text that other people wrote tries to make a terminal do something.

use bson::{DateTime, doc};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::stage::Stage;
use crate::{Attack, Outcome, Role};

/// A window title, a color in C1, text that runs backwards, and what overwrites a line.
const HOSTILE: &str = "\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}\u{2028}\u{85}\u{7f}\u{8}\r";

pub const ATTACKS: &[Attack] = &[
    attack("a function's log line, by logs", |stage| logged(stage).boxed()),
    attack("a function's error, by submit and status", |stage| thrown(stage).boxed()),
    attack("a function's error, by tasks", |stage| tasks(stage).boxed()),
    attack("a function's counter, by counters", |stage| counted(stage).boxed()),
    attack("a job's tag and client, by list and status", |stage| tagged(stage).boxed()),
    attack("a collection's name, by list", |stage| collection(stage).boxed()),
    attack("keys and values, by results as JSON", |stage| results(stage).boxed()),
    attack("a function's text, by functions show", |stage| text(stage).boxed()),
    attack("a file's name, by insert and functions list", |stage| file(stage).boxed()),
    attack("a worker's host, by workers", |stage| host(stage).boxed()),
    attack("a function that prints, by try", |stage| tried(stage).boxed()),
    attack("a name that is not there, by the error", |stage| absent(stage).boxed()),
    attack("a function's error, in a worker's log", |stage| log_of_worker(stage).boxed()),
];

const fn attack(
    name: &'static str,
    run: for<'a> fn(&'a Stage) -> BoxFuture<'a, Outcome>,
) -> Attack {
    Attack { role: Role::Terminal, name, run }
}

fn is_obeyed(c: char) -> bool {
    let bidi = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}');
    c.is_control() && c != '\n' && c != '\t' || bidi || matches!(c, '\u{2028}' | '\u{2029}')
}

/// What a terminal would obey of a text. It must hold the attack in some form, or nothing was tried.
fn obeyed(what: &str, text: &str) -> Outcome {
    assert!(text.contains("owned"), "{what} does not show the text: {text:?}");
    let found: Vec<char> = text.chars().filter(|c| is_obeyed(*c)).collect();
    let evidence = format!("{what} prints {} characters that a terminal obeys", found.len());
    Outcome::if_true(!found.is_empty(), evidence)
}

/// What verbs print, one after the other.
async fn printed(stage: &Stage, commands: &[&[&str]]) -> String {
    let mut text = String::new();
    for args in commands {
        let ran = stage.run(args).await.expect("the verb ends");
        text += &format!("{}{}", ran.stdout, ran.stderr);
    }
    text
}

async fn shown(stage: &Stage, commands: &[&[&str]]) -> Outcome {
    let names: Vec<&str> = commands.iter().map(|args| args[0]).collect();
    obeyed(&names.join(" and "), &printed(stage, commands).await)
}

/// A job over one document that holds the text; its id. It ends as `code` says.
async fn job(stage: &Stage, map: &str, more: &[&str], code: i32) -> String {
    let hostile = doc! { "_id": 1, "g": HOSTILE };
    let input = stage.bed.coll("hostile");
    input.replace_one(doc! { "_id": 1 }, hostile).upsert(true).await.expect("kept");
    let args =
        ["submit", "-q", "-c", "hostile", "--map", map, "--out", "replace:shown", "--detach"];
    let ran = stage.run(&[&args[..], more, &["-o", "name"]].concat()).await;
    let id = ran.expect("it ends").ok().stdout.trim().to_owned();
    let ended = stage.run(&["status", "-w", &id, "-o", "name"]).await.expect("it ends");
    assert_eq!(ended.code, code, "{ended:?}");
    id
}

const THROWS: &str = "function () { throw new Error('thrown ' + this.g); }";

async fn logged(stage: &Stage) -> Outcome {
    let map = "function () { console.log('said', this.g); emit(1, 1); }";
    let id = job(stage, map, &[], 0).await;
    shown(stage, &[&["logs", &id]]).await
}

async fn thrown(stage: &Stage) -> Outcome {
    let id = job(stage, THROWS, &[], 3).await;
    shown(stage, &[&["status", &id], &["status", "-w", &id]]).await
}

async fn tasks(stage: &Stage) -> Outcome {
    let id = job(stage, THROWS, &[], 3).await;
    shown(stage, &[&["tasks", &id, "-o", "wide"]]).await
}

async fn counted(stage: &Stage) -> Outcome {
    let map = "function () { count('seen' + this.g); emit(1, 1); }";
    let id = job(stage, map, &[], 0).await;
    shown(stage, &[&["counters", &id]]).await
}

async fn tagged(stage: &Stage) -> Outcome {
    let map = "function () { emit(1, 1); }";
    let id = job(stage, map, &["--tag", HOSTILE, "--client", HOSTILE], 0).await;
    shown(stage, &[&["list"], &["list", "-o", "wide"], &["status", &id]]).await
}

async fn collection(stage: &Stage) -> Outcome {
    let input = format!("input{HOSTILE}");
    stage.bed.load(&input, vec![doc! { "_id": 1 }]).await;
    let map = "function () { emit(1, 1); }";
    let ran = stage.run(&["submit", "-c", &input, "--map", map, "-q", "-o", "name"]).await;
    let id = ran.expect("it ends").ok().stdout.trim().to_owned();
    let shown = shown(stage, &[&["list"], &["list", "-o", "wide"], &["status", &id]]).await;
    stage.bed.coll(&input).drop().await.expect("gone");
    shown
}

async fn results(stage: &Stage) -> Outcome {
    let map = "function () { emit('key' + this.g, { [this.g]: this.g }); }";
    let id = job(stage, map, &[], 0).await;
    shown(stage, &[&["results", &id], &["results", &id, "-o", "json"]]).await
}

async fn text(stage: &Stage) -> Outcome {
    let map = format!("function () {{ /* {} */ emit(1, 1); }}", HOSTILE.replace('\u{2028}', ""));
    let file = stage.bed.file("text.js", &map).display().to_string();
    let args = ["insert", &file, "--name", "text"];
    stage.run(&args).await.expect("it ends").ok();
    shown(stage, &[&["functions", "show", "text"]]).await
}

async fn file(stage: &Stage) -> Outcome {
    let file = stage.bed.file(&format!("f{HOSTILE}.js"), "function () { emit(2, 2); }");
    let file = file.display().to_string();
    shown(stage, &[&["insert", &file], &["functions", "list", "-o", "wide"]]).await
}

async fn host(stage: &Stage) -> Outcome {
    let now = DateTime::now();
    let row = doc! {
        "_id": "worker/owned", "kind": "worker", "shard": stage.forger().shard(), "host": HOSTILE, "pid": 1_i64,
        "slots": 1, "busy": 0, "version": HOSTILE, "started": now, "seen": now,
    };
    stage.insert("aviary", vec![row]).await;
    shown(stage, &[&["workers"], &["workers", "-o", "wide"]]).await
}

async fn tried(stage: &Stage) -> Outcome {
    let docs = serde_json::json!({ "g": HOSTILE }).to_string();
    let docs = stage.bed.file("docs.jsonl", &docs).display().to_string();
    let map = "function () { console.log('said', this.g); emit(1, 1); }";
    shown(stage, &[&["try", "--docs", &docs, "--map", map]]).await
}

async fn absent(stage: &Stage) -> Outcome {
    shown(stage, &[&["status", HOSTILE], &["functions", "show", HOSTILE]]).await
}

/// Daemons log JSON, which escapes C0 by itself; all else has to be escaped besides.
async fn log_of_worker(stage: &Stage) -> Outcome {
    job(stage, THROWS, &[], 3).await;
    let worker = stage.daemons().worker;
    let said = || async {
        let log = worker.log().ok()?;
        log.lines().find(|line| line.contains("thrown")).map(str::to_owned)
    };
    let line = stage.within(said).await.expect("the worker logs what failed");
    obeyed("the worker's log", &line)
}
