//! `aviary up --detach`, a job against the URI it prints, `aviary down --remove`: nothing left.

use crate::common::{run, wait_for};
use aviary_testcontainers::state::State;
use aviary_testcontainers::{Progress, mongod};
use bson::{Document, doc};
use mongodb::Client;

#[tokio::test(flavor = "multi_thread")]
async fn what_up_started_down_ends_and_removes() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("deployment");
    let at = dir.to_str().unwrap();
    let nothing: [(String, String); 0] = [];

    // Nothing runs there yet.
    let early = run(&["down", "--dir", at], &nothing).await;
    assert_eq!(early.code, 5, "{early:#?}");

    let up = run(&["up", "--detach", "--dir", at, "--workers", "2", "--slots", "1"], &nothing)
        .await
        .ok();
    assert_eq!(up.stdout.lines().count(), 1, "standard output is the URI: {up:#?}");
    let uri = up.stdout.trim().to_owned();
    assert!(up.stderr.contains(&format!("aviary down --dir {at}")), "{up:#?}");
    // One line where the server is older than the fix of what others could use against it.
    let mongod = mongod::locate(&Progress::silent()).unwrap();
    let caution = mongod::caution(&mongod::version(&mongod).unwrap());
    let cautions = up.stderr.lines().filter(|line| line.contains("is for trying things out"));
    assert_eq!(cautions.map(str::to_owned).collect::<Vec<_>>(), Vec::from_iter(caution), "{up:#?}");
    let state = State::read(&dir).unwrap();
    let records: Vec<_> = state.running().cloned().collect();
    assert!(records.len() >= 4, "a server, a coordinator, two workers: {records:#?}");

    // A second deployment cannot be begun on top of it.
    let again = run(&["up", "--detach", "--dir", at], &nothing).await;
    assert_eq!(again.code, 8, "{again:#?}");
    assert!(again.stderr.starts_with("error: "), "{again:#?}");
    assert!(again.stderr.contains(&uri), "it says where: {again:#?}");
    assert!(again.stderr.contains(&format!("aviary down --dir {at}")), "{again:#?}");

    let env = [("AVIARY_URI".to_owned(), uri.clone())];
    let client = Client::with_uri_str(&uri).await.unwrap();
    let db = client.default_database().expect("the URI names the database");
    db.collection::<Document>("docs")
        .insert_many((0..100).map(|n| doc! { "_id": n, "g": n % 4 }))
        .await
        .unwrap();
    let map = parent.path().join("map.js");
    std::fs::write(&map, "function () { emit(this.g, 1); }").unwrap();
    let map = map.to_str().unwrap();
    let submit = ["submit", "-q", "-c", "docs", "--map", map, "--reduce", "_sum"];
    let ran = run(&submit, &env).await.ok();
    let counts: Vec<_> = ran.json().iter().map(|row| row["value"].as_f64().unwrap()).collect();
    assert_eq!(counts, [25.0; 4]);
    wait_for("both workers", async || {
        let workers = run(&["workers", "-o", "json"], &env).await.ok();
        (workers.json().len() == 2).then_some(())
    })
    .await;
    drop((db, client));

    let down = run(&["down", "--dir", at, "--remove"], &nothing).await.ok();
    assert!(down.stderr.contains("processes ended"), "{down:#?}");
    assert!(down.stderr.contains("the data are removed"), "{down:#?}");
    for record in &records {
        assert!(!record.is_running(), "{record:?} still runs");
    }
    assert!(!dir.exists(), "the directory is gone");
    let gone =
        format!("{}{}serverSelectionTimeoutMS=500", uri, if uri.contains('?') { "&" } else { "?" });
    let after = run(&["list"], &[("AVIARY_URI".to_owned(), gone)]).await;
    assert_eq!(after.code, 6, "{after:#?}");
    let early = run(&["down", "--dir", at], &nothing).await;
    assert_eq!(early.code, 5, "{early:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_is_left_alone_by_an_up_in_its_directory() {
    let parent = tempfile::tempdir().unwrap();
    // `up` notes in the cache what it starts. A cache of its own lists nothing but what this test starts.
    let mongod = mongod::locate(&Progress::silent()).unwrap();
    let nothing = [
        ("AVIARY_CACHE".to_owned(), parent.path().join("cache").display().to_string()),
        ("AVIARY_MONGOD".to_owned(), mongod.display().to_string()),
    ];
    let listed = async || {
        let ran = run(&["up", "--list", "-o", "json"], &nothing).await.ok();
        let state = |row: &serde_json::Value| row["state"].as_str().map(str::to_owned).unwrap();
        ran.json().iter().map(state).collect::<Vec<_>>()
    };
    assert_eq!(listed().await, [""; 0]);
    let path = |name: &str| parent.path().join(name).to_str().unwrap().to_owned();
    let (cluster, set) = (path("cluster"), path("set"));
    let ran = run(&["up", "--detach", "--shards", "2", "--dir", &cluster], &nothing).await.ok();
    let has_mongos = aviary_testcontainers::sharded::mongos().is_some();
    assert_eq!(ran.stderr.contains("a stand-in takes its place"), !has_mongos, "{ran:#?}");
    run(&["up", "--detach", "--dir", &set], &nothing).await.ok();
    let states = [&cluster, &set].map(|dir| State::read(dir.as_ref()).unwrap());
    for dir in [&cluster, &set] {
        for shards in ["0", "2"] {
            let ran =
                run(&[&["up", "--detach", "--dir", dir][..], &shape(shards)].concat(), &nothing)
                    .await;
            assert_eq!(ran.code, 8, "{ran:#?}");
            assert!(ran.stderr.contains("already runs there"), "{ran:#?}");
        }
    }
    for state in &states {
        let all: Vec<_> = state.members.iter().chain(&state.others).collect();
        assert!(all.iter().all(|record| record.is_running()), "{all:#?}");
    }
    assert_eq!(listed().await, ["running", "running"]);
    let ran = run(&["list"], &nothing).await;
    assert_eq!(ran.code, 2, "which one is meant? {ran:#?}");
    assert!(ran.stderr.contains("2 run on this machine"), "{ran:#?}");
    // One that has lost its server is of no use any more.
    let server = states[1].members[0].pid;
    let kill = std::process::Command::new("kill").args(["-9", &server.to_string()]).status();
    assert!(kill.unwrap().success());
    wait_for("the end of the server", async || (!states[1].members[0].is_running()).then_some(()))
        .await;
    let ran = run(&["up", "--detach", "--dir", &set], &nothing).await;
    assert_eq!(ran.code, 8, "{ran:#?}");
    for word in ["has lost a server", &format!("aviary down --dir {set}; then aviary up")] {
        assert!(ran.stderr.contains(word), "{word:?} is missing: {ran:#?}");
    }
    assert_eq!(listed().await, ["running", "stopped"]);
    let ran = run(&["list"], &nothing).await.ok();
    assert!(ran.stderr.contains(&format!("aviary up in {cluster}")), "{ran:#?}");
    for dir in [&cluster, &set] {
        let ran = run(&["down", "--dir", dir], &nothing).await.ok();
        assert!(ran.stderr.contains(&format!("the data stay in {dir}")), "{ran:#?}");
        assert!(ran.stderr.contains(&format!("aviary down --remove --dir {dir}")), "{ran:#?}");
    }
    assert_eq!(listed().await, ["stopped", "stopped"]);
    let ran = run(&["list"], &nothing).await;
    assert_eq!(ran.code, 2, "{ran:#?}");
    assert!(ran.stderr.contains("no deployment given; use --uri"), "{ran:#?}");
    // What is kept there is another kind of deployment's.
    for (dir, shards) in [(&cluster, "0"), (&cluster, "1"), (&set, "2")] {
        let ran =
            run(&[&["up", "--detach", "--dir", dir][..], &shape(shards)].concat(), &nothing).await;
        assert_eq!(ran.code, 8, "{ran:#?}");
        assert!(ran.stderr.contains("it holds the data of"), "{ran:#?}");
    }
    run(&["down", "--remove", "--dir", &set], &nothing).await.ok();
    assert_eq!(listed().await, ["stopped"]);
}

/// The flags for so many shards; none for a replica set.
fn shape(shards: &str) -> Vec<&str> {
    if shards == "0" { Vec::new() } else { vec!["--shards", shards] }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_in_the_foreground_ends_with_its_server() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("deployment");
    let at = dir.to_str().unwrap().to_owned();
    let nothing: [(String, String); 0] = [];
    let running = tokio::spawn({
        let args = ["up", "--dir", &at].map(str::to_owned);
        async move { run(&args, &[]).await }
    });
    // It lists everything once its daemons are there.
    wait_for("the deployment", async || {
        let state = State::read(&dir).ok()?;
        (state.others.len() >= 2).then_some(())
    })
    .await;
    run(&["down", "--dir", &at], &nothing).await.ok();
    let ran = running.await.unwrap();
    assert_eq!(ran.code, 8, "{ran:#?}");
    assert!(ran.stderr.contains("of the deployment has ended"), "{ran:#?}");
}
