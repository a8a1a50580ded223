//! Nothing outlives its owner, and a child does as it is told.
#![cfg(test)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use aviary_testcontainers::{ManagedCommand, mongod};

const CEILING: Duration = Duration::from_secs(60);

async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + CEILING;
    while !check() {
        assert!(Instant::now() < deadline, "{what}: not within {CEILING:?}");
        tokio::task::yield_now().await;
    }
}

fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.starts_with(" Z"))
}

struct Owner {
    child: Child,
    dir: PathBuf,
    pids: Vec<String>,
}

/// The example program, which cargo builds along with the tests.
fn start_owner() -> Owner {
    let test = std::env::current_exe().unwrap();
    let program =
        test.parent().and_then(Path::parent).unwrap().join("examples").join("start_and_wait");
    assert!(program.exists(), "run cargo build --examples first");
    let mut child =
        Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut dir = PathBuf::new();
    let mut pids = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        match line.split_once(' ') {
            Some(("dir", path)) => dir = PathBuf::from(path),
            Some(("pid", pid)) => pids.push(pid.to_owned()),
            _ if line == "ready" => break,
            _ => {}
        }
    }
    assert!(dir.join("pids").exists());
    assert!(!pids.is_empty() && pids.iter().all(|pid| runs(pid)));
    Owner { child, dir, pids }
}

#[tokio::test]
async fn nothing_is_left_of_an_owner_that_was_killed() {
    let mut owner = start_owner();
    owner.child.kill().unwrap();
    owner.child.wait().unwrap();
    eventually("servers gone", || !owner.pids.iter().any(|pid| runs(pid))).await;
    eventually("directory gone", || !owner.dir.exists()).await;
}

#[tokio::test]
async fn an_unlisted_server_of_a_killed_owner_is_ended_too() {
    let mut owner = start_owner();
    std::fs::write(owner.dir.join("pids"), "").unwrap();
    owner.child.kill().unwrap();
    owner.child.wait().unwrap();
    eventually("servers gone", || !owner.pids.iter().any(|pid| runs(pid))).await;
    eventually("directory gone", || !owner.dir.exists()).await;
}

#[tokio::test]
async fn nothing_is_left_of_an_owner_that_ended_in_good_order() {
    let mut owner = start_owner();
    drop(owner.child.stdin.take());
    assert!(owner.child.wait().unwrap().success());
    assert!(!owner.pids.iter().any(|pid| runs(pid)));
    assert!(!owner.dir.exists());
}

#[tokio::test]
async fn a_managed_process_logs_freezes_and_ends_with_its_value() {
    let dir = tempfile::tempdir().unwrap();
    let script =
        "trap 'echo asked; exit 7' TERM; echo hello $NAME; while :; do read -r x < fifo; done";
    let fifo = dir.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let command = ManagedCommand::new("sh", dir.path().join("log"))
        .args(["-c", script])
        .env("NAME", "there")
        .current_dir(dir.path());

    let process = command.spawn().unwrap();
    process.wait_for_log("hello there").await.unwrap();
    process.freeze().unwrap();
    let stat = format!("/proc/{}/stat", process.pid());
    eventually("frozen", || std::fs::read_to_string(&stat).unwrap().contains(") T ")).await;
    process.terminate().unwrap();
    process.thaw().unwrap();
    let status = process.wait().await.unwrap();
    assert_eq!(status.code(), Some(7));
    assert!(process.log().unwrap().ends_with("asked\n"));
    assert!(process.kill().is_err());

    let second = command.spawn().unwrap();
    second.wait_for_log("hello there").await.unwrap();
    assert!(!second.log().unwrap().contains("asked"));
    let pid = second.pid().to_string();
    drop(second);
    assert!(!runs(&pid));
}

#[tokio::test]
async fn waiting_for_a_log_line_ends_with_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let process = ManagedCommand::new("sh", dir.path().join("log"))
        .args(["-c", "echo an error was met; exit 3"])
        .spawn()
        .unwrap();
    let error = process.wait_for_log("ready").await.unwrap_err().to_string();
    assert!(error.contains("an error was met"), "{error}");
    assert!(error.contains('3'), "{error}");
}

#[test]
fn the_located_server_tells_its_version() {
    let path = mongod::locate(&aviary_testcontainers::Progress::silent()).unwrap();
    let version = mongod::version(&path).unwrap();
    assert!(version.split('.').count() >= 3, "{version}");
}
