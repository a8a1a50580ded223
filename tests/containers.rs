//! The cluster of `deploy/compose.yaml`, three shards of three containers with a worker in each, loses one
//! container and finds another cut off from the network while it runs a job; the output is right.
//!
//! It needs Docker and the image that `deploy/image` builds, so it runs only when `AVIARY_CONTAINERS` names
//! the image; `.ci/containers` sees to all of that.

#![cfg(test)]

mod common;

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use bson::{Document, doc};
use common::{root, wait_for};
use futures_util::{FutureExt, TryStreamExt};
use mongodb::options::ReadConcern;
use mongodb::{Client, Collection, Database};

/// The image to run; without it, nothing is.
const IMAGE: &str = "AVIARY_CONTAINERS";
/// A file for all that the containers said.
const LOGS: &str = "AVIARY_CONTAINERS_LOGS";
/// A job may take this long; nothing depends on how long it does.
const CEILING: Duration = Duration::from_secs(900);

const DOCS: i64 = 30_000;
const GROUPS: i64 = 50;
/// So many rounds for each document that a map task takes a second of a processor or more.
const ROUNDS: u64 = 12_000;
const MAP: &str = "function () {
  let h = this.n;
  for (let i = 0; i < rounds; i++) h = (h * 31 + i) % 1000003;
  emit(this.n % groups, h);
}";

fn docker(args: &[&str]) -> Output {
    let mut command = Command::new("docker");
    command.args(args).stdin(Stdio::null()).output().expect("docker runs")
}

fn docker_ok(args: &[&str]) -> String {
    let output = docker(args);
    assert!(output.status.success(), "docker {args:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// The cluster; its containers, networks and volumes are gone with it.
struct Compose {
    project: String,
    port: u16,
    image: String,
}

impl Compose {
    fn up(image: String) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let project = format!("aviarytest{}", std::process::id());
        let compose = Self { project, port, image };
        compose.run(&["up", "-d"]);
        compose
    }

    /// `docker compose` where the plugin is installed, otherwise the program that came before it.
    fn command(&self) -> Command {
        let plugin = docker(&["compose", "version"]).status.success();
        let mut command = Command::new(if plugin { "docker" } else { "docker-compose" });
        if plugin {
            command.arg("compose");
        }
        for file in ["compose.yaml", "compose.test-router.yaml"] {
            command.arg("-f").arg(root().join("deploy").join(file));
        }
        command
            .args(["-p", &self.project])
            .env("AVIARY_IMAGE", &self.image)
            .env("AVIARY_PORT", self.port.to_string())
            .env("AVIARY_SPLIT_BYTES", "100000")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> String {
        let output = self.command().args(args).output().expect("docker-compose runs");
        assert!(output.status.success(), "docker-compose {args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    /// A service's container.
    fn container(&self, service: &str) -> String {
        self.run(&["ps", "-q", service])
    }

    /// Runs aviary in the coordinator's container.
    fn aviary(&self, args: &[&str]) -> String {
        let coordinator = self.container("coordinator");
        docker_ok(&[&["exec", &coordinator, "aviary"], args].concat())
    }

    /// All that the containers have said.
    fn logs(&self) -> String {
        let logs = self.command().args(["logs", "--no-color"]).output();
        logs.map(|logs| String::from_utf8_lossy(&logs.stdout).into_owned()).unwrap_or_default()
    }

    fn network(&self) -> String {
        format!("{}_default", self.project)
    }

    async fn db(&self) -> Database {
        let uri = format!("mongodb://127.0.0.1:{}/?retryWrites=false", self.port);
        Client::with_uri_str(uri).await.expect("a client").database("test")
    }

    /// What all containers hold in memory, in MiB, and how many they are.
    fn memory_mib(&self) -> (f64, usize) {
        let ids = self.run(&["ps", "-q"]);
        let mut args = vec!["stats", "--no-stream", "--format", "{{.MemUsage}}"];
        args.extend(ids.lines());
        let usage = docker_ok(&args);
        let running = usage.lines().filter(|line| !line.starts_with("0B"));
        let each: Vec<f64> = running.map(mib).collect();
        (each.iter().sum(), each.len())
    }

    /// Makes sure that a service's processes have no privileges, and a server and its worker another user each.
    fn is_confined(&self, service: &str) {
        const LOOK: &str = r#"for p in /proc/[0-9]*; do
            c=$(cat $p/comm) && [ "$c" = mongod -o "$c" = aviary ] || continue
            echo "$c" $(sed -n 's/^Uid:\t\([0-9]*\).*/\1/p; s/^\(CapEff\|NoNewPrivs\):\t//p' $p/status)
        done"#;
        let container = self.container(service);
        let seen = docker_ok(&["exec", "-u", "0", &container, "sh", "-c", LOOK]);
        let mut seen: Vec<&str> = seen.lines().collect();
        seen.sort_unstable();
        let expected: &[&str] = match service {
            "coordinator" => &["aviary 10001 0000000000000000 1"],
            "config0" => &["mongod 10001 0000000000000000 1"],
            _ => &["aviary 10001 0000000000000000 1", "mongod 10002 0000000000000000 1"],
        };
        assert_eq!(seen, expected, "{service}");
        let write = docker(&["exec", &container, "touch", "/usr/local/bin/more"]);
        assert!(!write.status.success(), "{service}: {write:?}");
    }

    /// The service whose member is primary of a shard, as the member `ask` sees it.
    fn primary(&self, shard: &str) -> Option<String> {
        ["a", "b", "c"].map(|member| format!("{shard}{member}")).into_iter().find(|service| {
            let log = docker(&["logs", &self.container(service)]);
            // The last change of state that the server logged.
            let text = String::from_utf8_lossy(&log.stdout);
            let last = text.lines().rfind(|line| line.contains("\"Replica set state transition\""));
            last.is_some_and(|line| line.contains("\"newState\":\"PRIMARY\""))
        })
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        let down = ["down", "--volumes", "--remove-orphans", "--timeout=1"];
        let ended = self.command().args(down).output();
        if !ended.as_ref().is_ok_and(|ended| ended.status.success()) {
            println!("docker-compose {down:?} failed: {ended:?}");
        }
    }
}

/// The last that Aviary's processes warned of; the servers say too much.
fn warnings(logs: &str) -> Vec<&str> {
    const LINES_MAX: usize = 60;
    let harmless = ["INFO", "DEBUG", "TRACE"].map(|level| format!("\"level\":\"{level}\""));
    let warned = logs.lines().filter(|line| {
        line.contains("\"target\":\"aviary") && !harmless.iter().any(|level| line.contains(level))
    });
    let warned: Vec<&str> = warned.collect();
    warned[warned.len().saturating_sub(LINES_MAX)..].to_vec()
}

/// `81.7MiB / 23.5GiB` in MiB.
fn mib(usage: &str) -> f64 {
    let used = usage.split(" /").next().expect("a figure");
    let digits = used.trim_end_matches(char::is_alphabetic);
    let value: f64 = digits.parse().expect("a number");
    match &used[digits.len()..] {
        "GiB" => value * 1024.0,
        "MiB" => value,
        "KiB" => value / 1024.0,
        "B" => value / 1024.0 / 1024.0,
        other => panic!("a unit: {other}"),
    }
}

fn expected() -> BTreeMap<i64, i64> {
    let mut sums = BTreeMap::new();
    for n in 0..DOCS {
        let hash = (0..ROUNDS).fold(n as u64, |h, i| (h * 31 + i) % 1_000_003);
        *sums.entry(n % GROUPS).or_insert(0) += hash as i64;
    }
    sums
}

async fn load(db: &Database) {
    let admin = db.client().database("admin");
    admin.run_command(doc! { "enableSharding": "test" }).await.expect("enabled");
    let shard =
        doc! { "shardCollection": "test.input", "key": { "_id": "hashed" }, "numInitialChunks": 6 };
    admin.run_command(shard).await.expect("sharded");
    let coll: Collection<Document> = db.collection("input");
    let pad = "x".repeat(250);
    for first in (0..DOCS).step_by(5_000) {
        let docs = (first..first + 5_000).map(|n| doc! { "_id": n, "n": n, "pad": &pad });
        coll.insert_many(docs).ordered(false).await.expect("loaded");
    }
}

/// The leases that workers hold, as (task, token, service of the worker). One that its server may still
/// forget when it is killed is none: who comes after it would know of no attempt.
async fn leases(db: &Database) -> Option<HashSet<(String, String, String)>> {
    let filter = doc! { "kind": "map", "state": "leased" };
    let coll = db.collection::<Document>("aviary");
    let leased = coll.find(filter).read_concern(ReadConcern::majority());
    let found: Vec<Document> = leased.await.ok()?.try_collect().await.ok()?;
    let lease = |task: &Document| {
        let worker = task.get_str("worker").ok()?;
        let service = worker.split('-').next()?.to_owned();
        Some((task.get("_id")?.to_string(), task.get("token")?.to_string(), service))
    };
    Some(found.iter().filter_map(lease).collect())
}

/// Waits until the service's worker has just claimed a task: a lease that was not there at one look and is
/// at the next two.
async fn wait_for_fresh_lease(db: &Database, service: &str) {
    let mut looks: [Option<HashSet<_>>; 2] = [None, None];
    let began = Instant::now();
    loop {
        let now = leases(db).await;
        if let ([Some(before), Some(then)], Some(now)) = (&looks, &now) {
            let fresh = |lease: &&(String, String, String)| {
                lease.2 == service && then.contains(*lease) && !before.contains(*lease)
            };
            if now.iter().any(|lease| fresh(&lease)) {
                return;
            }
        }
        assert!(began.elapsed() < CEILING, "{service} claims nothing");
        let [_, last] = looks;
        looks = [last, now];
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How many attempts of a service's worker were lost.
async fn lost_of(db: &Database, service: &str) -> Option<usize> {
    let coll = db.collection::<Document>("aviary");
    let filter = doc! { "kind": { "$in": ["map", "reduce"] } };
    let tasks: Vec<Document> = coll.find(filter).await.ok()?.try_collect().await.ok()?;
    let attempts = tasks.iter().filter_map(|task| task.get_array("history").ok()).flatten();
    let lost = attempts.filter_map(|attempt| attempt.as_document()).filter(|attempt| {
        let worker = attempt.get_str("worker").unwrap_or_default();
        attempt.get_str("outcome").is_ok_and(|outcome| outcome == "lost")
            && worker.split('-').next() == Some(service)
    });
    Some(lost.count())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_survives_a_killed_and_a_cut_off_shard_container() {
    let Some(image) = std::env::var(IMAGE).ok().filter(|image| !image.is_empty()) else {
        // Past the harness, which keeps what a passing test prints to itself.
        writeln!(
            std::io::stderr(),
            "skipped: {IMAGE} names no image; .ci/containers builds one and runs this"
        )
        .expect("written");
        return;
    };
    let compose = Compose::up(image);
    let outcome = AssertUnwindSafe(a_job_survives(&compose)).catch_unwind().await;
    if let Some(path) = std::env::var_os(LOGS) {
        std::fs::write(path, compose.logs()).expect("the logs are written");
    }
    if let Err(panic) = outcome {
        println!("{}", warnings(&compose.logs()).join("\n"));
        // Once more, at the end, where it is found below all that was said before.
        let why = panic.downcast_ref::<String>().cloned();
        let why = why.or_else(|| panic.downcast_ref::<&str>().map(|&why| why.to_owned()));
        panic!("{}", why.unwrap_or_default());
    }
}

async fn a_job_survives(compose: &Compose) {
    wait_for("nine workers, three of each shard", || async {
        let workers =
            docker(&["exec", &compose.container("coordinator"), "aviary", "workers", "-o", "json"]);
        let workers = String::from_utf8(workers.stdout).ok()?;
        let workers: Vec<serde_json::Value> =
            workers.lines().map(serde_json::from_str).collect::<Result<_, _>>().ok()?;
        let hosts: HashSet<&str> =
            workers.iter().filter_map(|worker| worker["host"].as_str()).collect();
        let beside = workers.iter().all(|worker| {
            let (host, shard) = (worker["host"].as_str(), worker["shard"].as_str());
            worker["state"] == "alive" && host.zip(shard).is_some_and(|(h, s)| h.starts_with(s))
        });
        (beside && hosts.len() == 9).then_some(())
    })
    .await;
    for service in ["s0a", "config0", "coordinator"] {
        compose.is_confined(service);
    }
    let (idle, containers) = compose.memory_mib();
    let db = compose.db().await;
    load(&db).await;

    // The job is submitted from the coordinator's container, with a function that was written into it: nothing can be
    // copied into a container whose file system is read-only.
    let coordinator = compose.container("coordinator");
    let write = "printf %s \"$1\" >/tmp/map.js";
    docker_ok(&["exec", &coordinator, "sh", "-c", write, "sh", MAP]);
    let scope = format!("{{\"rounds\": {ROUNDS}, \"groups\": {GROUPS}}}");
    let submit =
        ["submit", "-c", "input", "--map", "/tmp/map.js", "--reduce", "_sum", "--scope", &scope];
    // All that takes time is found out first: the job does not wait for the faults.
    let killed = wait_for("a primary of s0", || async { compose.primary("s0") }).await;
    let cut = wait_for("a primary of s1", || async { compose.primary("s1") }).await;
    let (killed_container, cut_container) = (compose.container(&killed), compose.container(&cut));
    let job = compose
        .aviary(&[&submit[..], &["--out", "replace:sums", "--detach", "-o", "name"]].concat());

    wait_for_fresh_lease(&db, &killed).await;
    docker_ok(&["kill", &killed_container]);
    wait_for_fresh_lease(&db, &cut).await;
    docker_ok(&["network", "disconnect", &compose.network(), &cut_container]);
    let state = docker_ok(&["inspect", "-f", "{{.State.Running}}", &killed_container]);
    assert_eq!(state, "false", "{killed} is dead");
    let networks = docker_ok(&[
        "inspect",
        "-f",
        "{{len .NetworkSettings.Networks}} {{.State.Running}}",
        &cut_container,
    ]);
    assert_eq!(networks, "0 true", "{cut} runs on and reaches nobody");
    println!(
        "killed {killed} and cut off {cut}, the primaries of their shards, each with a fresh lease"
    );

    let mut busiest: f64 = 0.0;
    let ended = async {
        let began = Instant::now();
        loop {
            // A look while a primary is away may fail.
            let shown = docker(&["exec", &coordinator, "aviary", "status", &job, "-o", "json"]);
            let shown: serde_json::Value =
                serde_json::from_slice(&shown.stdout).unwrap_or_default();
            let state = shown["state"].as_str().unwrap_or_default();
            if ["succeeded", "failed", "cancelled"].contains(&state) {
                return shown;
            }
            busiest = busiest.max(compose.memory_mib().0);
            assert!(began.elapsed() < CEILING, "the job does not end: {shown}");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    .await;
    assert_eq!(ended["state"], "succeeded", "{:?}: {ended}", ended["error"]);
    let lost = async |service: &str| {
        wait_for("the attempts that were lost", || lost_of(&db, service)).await
    };
    let (of_killed, of_cut) = (lost(&killed).await, lost(&cut).await);
    let right = |found: &BTreeMap<i64, i64>| assert_eq!(*found, expected(), "the output is right");
    right(&sums(&db).await);
    assert_eq!(ended["counters"]["input"], DOCS);

    // Who was cut off comes back, late, and changes nothing.
    let alias = format!("--alias={cut}");
    docker_ok(&["network", "connect", &alias, &compose.network(), &cut_container]);
    docker_ok(&["start", &killed_container]);
    for service in [&killed, &cut] {
        wait_for("the worker back at work", || async {
            let shown = docker(&["exec", &coordinator, "aviary", "workers", "-o", "json"]);
            let shown = String::from_utf8(shown.stdout).ok()?;
            let alive = |line: &str| {
                line.contains(&format!("\"host\":\"{service}\"")) && line.contains("\"alive\"")
            };
            shown.lines().any(alive).then_some(())
        })
        .await;
    }
    right(&sums(&db).await);
    println!(
        "{} map tasks; attempts lost: {of_killed} of {killed}, {of_cut} of {cut}; memory of {containers} \
         containers: {idle:.0} MiB idle, {busiest:.0} MiB at most after the faults",
        ended["phases"]["map"]["total"]
    );
    assert!(of_killed > 0, "the kill hit a task");
    assert!(of_cut > 0, "the cut hit a task");
}

async fn sums(db: &Database) -> BTreeMap<i64, i64> {
    let coll = db.collection::<Document>("sums");
    // A read while a primary is away may fail.
    let rows: Vec<Document> = wait_for("the output", || async {
        coll.find(doc! {}).await.ok()?.try_collect().await.ok()
    })
    .await;
    let number = |value: Option<&bson::Bson>| match value {
        Some(bson::Bson::Int32(n)) => i64::from(*n),
        Some(bson::Bson::Int64(n)) => *n,
        Some(bson::Bson::Double(n)) => *n as i64,
        other => panic!("no number: {other:?}"),
    };
    rows.iter().map(|row| (number(row.get("_id")), number(row.get("value")))).collect()
}
