//! `aviary demo` ends by itself, counts right, and leaves nothing behind.

#![cfg(test)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use aviary::cli::corpus::{self, Text};
use common::{Ran, run, wait_for};

const BYTES: u64 = 8_000_000;

/// The demo's word count, without any of the demo.
fn recount(texts: &[Text]) -> BTreeMap<String, u64> {
    let mut words = BTreeMap::new();
    for text in texts {
        let lower = text.text.to_lowercase();
        for word in lower.split(|c: char| !c.is_ascii_lowercase()).filter(|w| !w.is_empty()) {
            *words.entry(word.to_owned()).or_default() += 1;
        }
    }
    words
}

fn exported(path: &Path) -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(path).expect("the export");
    text.lines()
        .map(|line| {
            let row: serde_json::Value = serde_json::from_str(line).expect("a JSON line");
            let count = row["value"].as_f64().expect("a count");
            assert!(count.fract() == 0.0, "{line}");
            (row["_id"].as_str().expect("a word").to_owned(), count as u64)
        })
        .collect()
}

/// Processes whose command line or working directory lies in `dir`.
fn processes_in(dir: &Path) -> Vec<String> {
    let wanted = dir.to_str().expect("a path in UTF-8");
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        // A process may end while it is looked at.
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let environ = String::from_utf8_lossy(&environ);
        if command.contains(wanted) || environ.contains(&format!("TMPDIR={wanted}")) {
            found.push(format!("{name}: {command}"));
        }
    }
    found
}

/// Runs the demo with a temporary directory of its own, which must be empty afterwards.
async fn demo(temporary: &Path, more: &[&str]) -> Ran {
    let bytes = BYTES.to_string();
    let mut args = vec!["demo", "--bytes", &bytes];
    args.extend(more);
    let env = [("TMPDIR".to_owned(), temporary.display().to_string())];
    run(&args, &env).await
}

async fn left_nothing(temporary: &Path) {
    // The watchdog of the deployment ends on its own once its owner has.
    wait_for("every process of the demo to be gone", async || {
        processes_in(temporary).is_empty().then_some(())
    })
    .await;
    let left: Vec<_> = std::fs::read_dir(temporary).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

fn check(ran: &Ran, export: &Path, texts: &[Text]) {
    assert!(!texts.is_empty());
    let expected = recount(texts);
    assert_eq!(exported(export), expected);
    // Standard output holds a heading and the ten commonest, with their counts.
    let mut top: Vec<(&String, &u64)> = expected.iter().collect();
    top.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let shown: Vec<Vec<&str>> =
        ran.stdout.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    let wanted: Vec<Vec<String>> = top
        .iter()
        .take(10)
        .map(|(word, count)| vec![word.to_string(), count.to_string()])
        .collect();
    assert_eq!(shown, wanted, "{}", ran.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_counts_right_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let temporary = dir.path().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let export = dir.path().join("words.jsonl");
    let file = export.to_str().unwrap();

    let sources = corpus::sources(BYTES);
    let texts = if sources.is_empty() { corpus::generated(BYTES) } else { sources };
    let ran = demo(&temporary, &["--export", file]).await.ok();
    assert!(ran.stderr.contains("succeeded"), "{ran:#?}");
    check(&ran, &export, &texts);
    left_nothing(&temporary).await;

    let ran = demo(&temporary, &["--generated", "--quiet", "--export", file]).await.ok();
    assert_eq!(ran.stderr, "", "quiet is quiet");
    check(&ran, &export, &corpus::generated(BYTES));
    left_nothing(&temporary).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_demo_leaves_nothing() {
    use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
    let dir = tempfile::tempdir().unwrap();
    let mut demo = tokio::process::Command::new(common::AVIARY)
        .args(["demo", "--generated"])
        .env("TMPDIR", dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = BufReader::new(demo.stderr.take().unwrap());
    let mut seen = String::new();
    while !seen.contains("submitted") {
        assert!(said.read_line(&mut seen).await.unwrap() > 0, "it ended early: {seen}");
    }
    assert!(!processes_in(dir.path()).is_empty());
    let pid = demo.id().unwrap().to_string();
    let sent = std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap();
    assert!(sent.success());
    let status = demo.wait().await.unwrap();
    said.read_to_string(&mut seen).await.unwrap();
    assert_eq!(status.code(), Some(4), "{seen}");
    assert_eq!(seen.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{seen}");
    left_nothing(dir.path()).await;
}
