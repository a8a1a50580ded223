//! What the integration tests share: a real deployment, the real binary, real processes.
#![allow(dead_code, clippy::allow_attributes, reason = "each test file uses its own part of this")]

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aviary_testcontainers::process::Record;
use aviary_testcontainers::{
    Managed, ManagedCommand, ReplicaSet, ReplicaSetOptions, RouterProgram, ShardedCluster,
    ShardedClusterOptions,
};
use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::error::{ErrorKind, InsertManyError};
use mongodb::{Client, Collection, Database};

mod pool;

use pool::Used;

/// No condition is waited for longer than this; nothing depends on how long it takes.
pub fn ceiling() -> Duration {
    const CEILING_S: u64 = 900;
    let given = std::env::var("AVIARY_TEST_CEILING_S").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(given.unwrap_or(CEILING_S))
}

/// The binary under test.
pub const AVIARY: &str = env!("CARGO_BIN_EXE_aviary");

/// Names another binary for the suite of attacks, one that they are to succeed against.
const ATTACKED: &str = "AVIARY_ATTACKED";

/// The binary that attacks are tried on, if it is another one than that under test.
pub fn attacked() -> Option<PathBuf> {
    let named = std::env::var_os(ATTACKED).filter(|name| !name.is_empty())?;
    Some(std::fs::canonicalize(named).expect("AVIARY_ATTACKED names a program"))
}

/// The lease of a daemon that is about to be killed, stopped or frozen: short, so that what it held is soon
/// given away.
pub const LEASE_TTL_MS: &str = "3000";

/// The lease of any other, which a busy machine should not make it lose.
const LASTING_LEASE_TTL_MS: &str = "15000";

/// A deployment for one test. What the test leaves in it, no other one finds.
pub struct Bed {
    servers: Servers,
    /// The binary that runs as daemons and verbs.
    pub program: PathBuf,
    pub client: Client,
    pub dir: tempfile::TempDir,
    /// How the workers of a sharded cluster get to their shard.
    pub links: Links,
    started: AtomicUsize,
    in_parts: bool,
    /// Workers of the other shards than the one that was asked for.
    companions: Mutex<Vec<Managed>>,
    /// How many members and how many tests before this one, where others may use the servers after it.
    shared: Option<(usize, u32)>,
    /// Whether the test may have done something to the servers themselves.
    is_touched: AtomicBool,
    daemons: Mutex<Vec<Record>>,
}

#[derive(Clone)]
enum Servers {
    Set(Arc<ReplicaSet>),
    Cluster(Arc<ShardedCluster>),
}

impl Servers {
    /// The deployment's address.
    fn uri(&self) -> String {
        match self {
            Self::Set(set) => set.uri(),
            Self::Cluster(cluster) => cluster.uri(),
        }
    }

    /// The addresses of whatever holds data, without a router between.
    fn primaries(&self) -> Vec<String> {
        match self {
            Self::Set(set) => vec![set.uri()],
            Self::Cluster(cluster) => {
                let shards = 0..cluster.shard_count();
                shards.map(|shard| cluster.shard(shard).expect("a shard").uri()).collect()
            }
        }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let Some((members, uses)) = self.shared else { return };
        if self.is_touched.load(Ordering::Relaxed) || std::thread::panicking() {
            return;
        }
        self.companions.lock().expect("a lock").clear();
        let daemons = std::mem::take(&mut *self.daemons.lock().expect("a lock"));
        pool::give_back(Used { servers: self.servers.clone(), members, uses: uses + 1, daemons });
    }
}

/// How workers get to the shard they work for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// One beside each shard's primary, with a link of its own.
    Direct,
    /// One beside a member of each shard that is not its primary.
    Secondary,
    /// Through the router; one worker serves all shards.
    Routed,
}

/// The deployment that [`Bed::start`] gives, so that a suite can be run on each: a replica set without
/// it, else a cluster of two shards whose workers are linked so.
const DEPLOYMENT: &str = "AVIARY_TEST_LINKS";

impl Bed {
    pub async fn start(members: usize) -> Self {
        let links = match std::env::var(DEPLOYMENT).as_deref() {
            Ok("direct") => Some(Links::Direct),
            Ok("routed") => Some(Links::Routed),
            Ok(other) => panic!("{DEPLOYMENT} is direct or routed, not {other}"),
            Err(_) => None,
        };
        let (servers, uses) = match (pool::take(members).await, links) {
            (Some(used), _) => (used.servers, used.uses),
            (None, Some(_)) => {
                let options = ShardedClusterOptions { shard_members: members, ..cluster(2) };
                let cluster = ShardedCluster::start(options).await.expect("a sharded cluster");
                (Servers::Cluster(Arc::new(cluster)), 0)
            }
            (None, None) => {
                let options = ReplicaSetOptions { members, ..ReplicaSetOptions::default() };
                let set = ReplicaSet::start(options).await.expect("a replica set");
                (Servers::Set(Arc::new(set)), 0)
            }
        };
        if let Servers::Cluster(cluster) = &servers {
            // A new database goes to the shard with the least data, and so do its collections that are not sharded;
            // a worker that is to stop somewhere is the first shard's.
            cluster.enable_sharding("test", "s0").await.expect("enabled");
        }
        let mut bed = Self::of(servers, links.unwrap_or(Links::Direct)).await;
        bed.shared = Some((members, uses));
        bed
    }

    pub async fn with(options: ReplicaSetOptions) -> Self {
        let set = ReplicaSet::start(options).await.expect("a replica set");
        Self::of(Servers::Set(Arc::new(set)), Links::Direct).await
    }

    /// A sharded cluster; its router is a process of its own.
    pub async fn sharded(options: ShardedClusterOptions, links: Links) -> Self {
        let cluster = ShardedCluster::start(options).await.expect("a sharded cluster");
        Self::of(Servers::Cluster(Arc::new(cluster)), links).await
    }

    async fn of(servers: Servers, links: Links) -> Self {
        let client = Client::with_uri_str(servers.uri()).await.expect("a client");
        Self {
            servers,
            program: AVIARY.into(),
            client,
            dir: tempfile::tempdir().expect("a directory"),
            links,
            started: 0.into(),
            in_parts: false,
            companions: Vec::new().into(),
            shared: None,
            is_touched: false.into(),
            daemons: Vec::new().into(),
        }
    }

    /// Has every job map and reduce in tasks of their own, with blocks between that are documents, however small it is: for
    /// tests that stop one between, or look at these.
    pub fn in_parts(mut self) -> Self {
        self.in_parts = true;
        self
    }

    /// The replica set. A test that asks for it may do anything to it, so no other test gets it.
    pub fn set(&self) -> &ReplicaSet {
        self.is_touched.store(true, Ordering::Relaxed);
        match &self.servers {
            Servers::Set(set) => set,
            Servers::Cluster(_) => panic!("this is a test of replica sets"),
        }
    }

    /// The sharded cluster, which no other test gets either.
    pub fn cluster(&self) -> &ShardedCluster {
        self.is_touched.store(true, Ordering::Relaxed);
        self.untouched()
    }

    fn untouched(&self) -> &ShardedCluster {
        match &self.servers {
            Servers::Cluster(cluster) => cluster,
            Servers::Set(_) => panic!("this is a test of sharded clusters"),
        }
    }

    /// The sharded cluster, to be changed.
    pub fn cluster_mut(&mut self) -> &mut ShardedCluster {
        match &mut self.servers {
            Servers::Cluster(cluster) => Arc::get_mut(cluster).expect("this test's alone"),
            Servers::Set(_) => panic!("this is a test of sharded clusters"),
        }
    }

    /// The deployment's address.
    pub fn uri(&self) -> String {
        self.servers.uri()
    }

    /// Clients of the primaries of whatever holds data, without a router between.
    pub async fn servers(&self) -> Vec<Client> {
        self.is_touched.store(true, Ordering::Relaxed);
        let mut clients = Vec::new();
        for uri in self.servers.primaries() {
            clients.push(Client::with_uri_str(uri).await.expect("a client"));
        }
        clients
    }

    /// The servers' major and minor version.
    pub async fn version(&self) -> (i32, i32) {
        let asked = self.client.database("admin").run_command(doc! { "buildInfo": 1 }).await;
        let info = asked.expect("asked");
        let numbers = info.get_array("versionArray").expect("numbers");
        let number = |n: usize| numbers[n].as_i32().expect("a number");
        (number(0), number(1))
    }

    /// The database every test works in.
    pub fn db(&self) -> Database {
        self.client.database("test")
    }

    pub fn coll(&self, name: &str) -> Collection<Document> {
        self.db().collection(name)
    }

    /// The environment that points the binary at this deployment.
    pub fn env(&self) -> Vec<(String, String)> {
        vec![
            ("AVIARY_URI".into(), self.uri()),
            ("AVIARY_DB".into(), "test".into()),
            ("AVIARY_LEASE_TTL_MS".into(), LASTING_LEASE_TTL_MS.into()),
            ("AVIARY_POLL_MS".into(), "1000".into()),
        ]
    }

    /// Starts a daemon of the binary, with more environment; an empty value takes a variable away. One that is to
    /// stop at a named place has a short
    /// lease unless it is told otherwise.
    pub fn spawn(&self, name: &str, args: &[&str], env: &[(&str, &str)]) -> Managed {
        let n = self.started.fetch_add(1, Ordering::Relaxed);
        let mut command =
            ManagedCommand::new(&self.program, self.dir.path().join(format!("{n}-{name}.log")))
                .name(name)
                .args(args);
        for (key, value) in self.env() {
            command = command.env(key, value);
        }
        if env.iter().any(|(key, _)| *key == "AVIARY_HALT_AT") {
            command = command.env("AVIARY_LEASE_TTL_MS", LEASE_TTL_MS);
        }
        // However small, so that little data is read in both ways: along an index where there are shards.
        command = command.env("AVIARY_NATURAL_SPLIT_BYTES", "0");
        if self.in_parts {
            command = command.env("AVIARY_ONE_TASK_BYTES", "0").env("AVIARY_KEPT_BYTES", "0");
        }
        for (key, value) in env {
            command = match *value {
                "" => command.env_remove(*key),
                value => command.env(*key, value),
            };
        }
        let process = command.spawn().expect("the binary starts");
        match &self.servers {
            Servers::Set(set) => set.adopt(&process),
            Servers::Cluster(cluster) => cluster.adopt(&process),
        }
        .expect("adopted");
        self.daemons.lock().expect("a lock").push(process.record().clone());
        process
    }

    pub fn coordinator(&self) -> Managed {
        self.spawn("coordinator", &["coordinator"], &[])
    }

    /// A worker with one slot. Where workers have links of their own it is the first shard's, and the
    /// other shards have got one each since this was first asked for.
    pub fn worker(&self) -> Managed {
        if let Servers::Cluster(cluster) = &self.servers
            && self.links != Links::Routed
        {
            let mut companions = self.companions.lock().expect("a lock");
            if companions.is_empty() {
                companions.extend((1..cluster.shard_count()).map(|n| self.worker_of(n, &[])));
            }
        }
        self.one_worker("worker", &[])
    }

    /// A worker with one slot whose map tasks leave no blocks in their own documents, however small these are.
    pub fn worker_apart(&self) -> Managed {
        self.spawn("worker", &["worker", "--slots", "1"], &[("AVIARY_KEPT_BYTES", "0")])
    }

    /// Workers with one slot each, so many that every shard has one.
    pub fn workers(&self) -> Vec<Managed> {
        match &self.servers {
            Servers::Cluster(cluster) if self.links != Links::Routed => {
                (0..cluster.shard_count()).map(|shard| self.worker_of(shard, &[])).collect()
            }
            _ => vec![self.spawn("worker", &["worker", "--slots", "1"], &[])],
        }
    }

    /// A worker with a link of its own to a shard.
    pub fn worker_of(&self, shard: usize, env: &[(&str, &str)]) -> Managed {
        let member = if self.links == Links::Secondary { 1 } else { 0 };
        self.worker_beside(shard, member, env)
    }

    /// A worker beside a certain member of a shard.
    pub fn worker_beside(&self, shard: usize, member: usize, env: &[(&str, &str)]) -> Managed {
        let set = self.untouched().shard(shard).expect("a shard");
        let port = set.port(member).expect("a member");
        let uri = format!("mongodb://127.0.0.1:{port}/?directConnection=true");
        self.spawn("worker", &["worker", "--slots", "1", "--shard-uri", &uri], env)
    }

    /// A worker or coordinator that stops for good at a named place (see `src/halt.rs`).
    pub fn halting(&self, args: &[&str], place: &str) -> Managed {
        self.spawn("halting", args, &[("AVIARY_HALT_AT", place)])
    }

    /// A worker with one slot that stops for good at a named place; the first shard's where workers have
    /// links of their own.
    pub fn halting_worker(&self, place: &str) -> Managed {
        self.one_worker("halting", &[("AVIARY_HALT_AT", place)])
    }

    /// A worker like that which stops until [`Paused::go_on`].
    pub fn paused_worker(&self, place: &str) -> Paused {
        self.pause(place, |env| self.one_worker("paused", env))
    }

    fn one_worker(&self, name: &str, env: &[(&str, &str)]) -> Managed {
        match &self.servers {
            Servers::Cluster(_) if self.links != Links::Routed => self.worker_of(0, env),
            _ => self.spawn(name, &["worker", "--slots", "1"], env),
        }
    }

    /// The same with a link of its own to a shard of choice.
    pub fn paused_worker_of(&self, shard: usize, place: &str) -> Paused {
        self.pause(place, |env| self.worker_of(shard, env))
    }

    /// A process, started by `start` with this more environment, that stops at a named place until
    /// [`Paused::go_on`].
    pub fn pause(&self, place: &str, start: impl FnOnce(&[(&str, &str)]) -> Managed) -> Paused {
        let n = self.started.load(Ordering::Relaxed);
        let until = self.dir.path().join(format!("{n}-go-on"));
        let file = until.to_str().expect("a plain path").to_owned();
        let process = start(&[("AVIARY_HALT_AT", place), ("AVIARY_HALT_UNTIL", &file)]);
        Paused { process, until }
    }

    /// Waits until a worker is known to those who plan.
    pub async fn known(&self, worker: &Managed) {
        let row = doc! { "kind": "worker", "pid": i64::from(worker.pid()) };
        wait_for("a worker to report", || async {
            self.coll("aviary").find_one(row.clone()).await.ok().flatten()
        })
        .await;
    }

    /// Has every shard of a cluster hold a part of a collection that is still empty; elsewhere there
    /// is nothing to spread.
    pub async fn spread(&self, collection: &str) {
        let Servers::Cluster(cluster) = &self.servers else { return };
        // Two for each, which are never adjacent.
        let chunks = i32::try_from(cluster.shard_count() * 2).expect("few");
        cluster.enable_sharding("test", "s0").await.expect("enabled");
        let namespace = format!("test.{collection}");
        let key = doc! { "_id": "hashed" };
        cluster.shard_collection(&namespace, key, Some(chunks)).await.expect("sharded");
    }

    /// Runs the binary to its end.
    pub async fn aviary<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Ran {
        run_program(&self.program, args, &self.env()).await
    }

    /// Writes a file for the binary to read.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    /// Loads documents.
    pub async fn load(&self, collection: &str, docs: Vec<Document>) {
        insert(&self.coll(collection), &docs).await;
    }

    /// Lets the jobs of these tests' database read and write these collections of another one, besides what they may
    /// already.
    pub async fn grant(&self, db: &str, read: &[&str], write: &[&str]) {
        let grants = self.client.database(db).collection::<Document>("aviary-grants");
        let each = |names: &[&str]| doc! { "$each": names.to_vec() };
        let more = doc! { "$addToSet": { "read": each(read), "write": each(write) } };
        grants.update_one(doc! { "_id": "test" }, more).upsert(true).await.expect("granted");
    }

    /// Every document of a collection, in `_id` order.
    pub async fn all(&self, collection: &str) -> Vec<Document> {
        self.coll(collection)
            .find(doc! {})
            .sort(doc! { "_id": 1 })
            .await
            .expect("found")
            .try_collect()
            .await
            .expect("read")
    }

    /// Where there are shards, the first one's name and, over direct links, its address.
    pub fn first_shard(&self) -> (Option<String>, Option<String>) {
        let Servers::Cluster(cluster) = &self.servers else { return (None, None) };
        let set = cluster.shard(0).expect("a shard");
        let direct = (self.links != Links::Routed).then(|| set.uri());
        (Some(set.name().to_owned()), direct)
    }

    /// Waits until no job has anything of its own left. A task that was still writing when its job failed may bring
    /// something back, which a coordinator removes.
    pub async fn nothing_left(&self, what: &str) {
        let gone = || async { self.leftovers().await.is_empty().then_some(()) };
        wait_for(&format!("what jobs have left to go: {what}"), gone).await;
    }

    /// Names of collections that only a job in the making may own.
    pub async fn leftovers(&self) -> Vec<String> {
        let names = self.db().list_collection_names().await.expect("listed");
        let mut left: Vec<String> =
            names.into_iter().filter(|name| name.starts_with("aviary-out-")).collect();
        if self.coll("aviary-intermediates").find_one(doc! {}).await.expect("read").is_some() {
            left.push("blocks in aviary-intermediates".into());
        }
        left
    }
}

/// A process that waits at a named place once it gets there.
pub struct Paused {
    pub process: Managed,
    until: PathBuf,
}

impl Paused {
    /// Waits until the process is at the place.
    pub async fn arrived(&self) {
        self.process.wait_for_log("halted").await.expect("it reaches the place");
    }

    /// Lets the process pass, now and from now on.
    pub fn go_on(&self) {
        std::fs::write(&self.until, "").expect("written");
    }
}

/// A cluster of so many shards of one member each, behind the binary's own router for tests.
pub fn cluster(shards: usize) -> ShardedClusterOptions {
    ShardedClusterOptions {
        shards,
        router: RouterProgram::Program { path: AVIARY.into(), args: vec!["test-router".into()] },
        ..ShardedClusterOptions::default()
    }
}

/// How a run of the binary ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Standard output as JSON lines.
    pub fn json(&self) -> Vec<serde_json::Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Standard output in one line, however it is wrapped.
    pub fn words(&self) -> String {
        self.stdout.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:#?}");
        self
    }
}

/// Runs the binary with an environment.
pub async fn run<S: AsRef<std::ffi::OsStr>>(args: &[S], env: &[(String, String)]) -> Ran {
    run_program(Path::new(AVIARY), args, env).await
}

async fn run_program<S: AsRef<std::ffi::OsStr>>(
    program: &Path,
    args: &[S],
    env: &[(String, String)],
) -> Ran {
    let mut command = tokio::process::Command::new(program);
    command.args(args).envs(env.iter().cloned()).stdin(std::process::Stdio::null());
    let Output { status, stdout, stderr } =
        tokio::time::timeout(ceiling() * 2, command.kill_on_drop(true).output())
            .await
            .expect("the binary ends")
            .expect("the binary runs");
    Ran {
        code: status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

/// Inserts documents in this order. What a server refuses because others have filled its cache is inserted again.
pub async fn insert(collection: &Collection<Document>, documents: &[Document]) {
    const TRANSACTION_TOO_LARGE_FOR_CACHE: i32 = 388;
    const AT_ONCE_MAX: usize = 1_000;
    let began = Instant::now();
    let mut left = documents;
    while !left.is_empty() {
        let now = &left[..left.len().min(AT_ONCE_MAX)];
        let inserted = match collection.insert_many(now).await.map_err(|error| *error.kind) {
            Ok(_) => now.len(),
            Err(ErrorKind::InsertMany(InsertManyError { write_errors: Some(errors), .. }))
                if errors[0].code == TRANSACTION_TOO_LARGE_FOR_CACHE
                    && began.elapsed() < ceiling() =>
            {
                tokio::time::sleep(Duration::from_millis(100)).await;
                errors[0].index
            }
            Err(error) => panic!("insert into {}: {error}", collection.name()),
        };
        left = &left[inserted..];
    }
}

/// Runs a script that prints `done: NAME` after each of its parts, and makes sure that it did all of them.
pub async fn run_parts(script: &mut tokio::process::Command, parts: &[&str]) {
    let ended = script.stdin(std::process::Stdio::null()).output().await.expect("it runs");
    let out = String::from_utf8_lossy(&ended.stdout);
    let err = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{out}\n{err}");
    let done: Vec<&str> = out.lines().filter_map(|line| line.strip_prefix("done: ")).collect();
    assert_eq!(done, parts, "{out}\n{err}");
}

/// Waits until `condition` gives something.
pub async fn wait_for<T, F, W>(what: &str, condition: F) -> T
where
    F: Fn() -> W,
    W: Future<Output = Option<T>>,
{
    let began = Instant::now();
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(began.elapsed() < ceiling(), "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// The repository's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The version that is installed where there is none; `.ci/run` names it too.
const MONGOSH: &str = "mongosh@2.12.0";

/// The real mongosh: on PATH, or installed with npm below `target/`. `None`, with a line that says
/// so, where npm is missing; in CI that is an error.
pub async fn mongosh() -> Option<PathBuf> {
    static ONE_INSTALLS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let on_path = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path).map(|dir| dir.join("mongosh")).find(|file| file.is_file())
    });
    if on_path.is_some() {
        return on_path;
    }
    let _guard = ONE_INSTALLS.lock().await;
    let prefix = root().join("target/mongosh");
    let installed = prefix.join("node_modules/.bin/mongosh");
    if !installed.is_file() {
        // Test binaries run one after the other, so only tests of one binary can race here.
        let npm = tokio::process::Command::new("npm")
            .args(["install", "--silent", "--no-fund", "--no-audit", "--prefix"])
            .arg(&prefix)
            .arg(MONGOSH)
            .output()
            .await;
        let done = npm.is_ok_and(|output| output.status.success()) && installed.is_file();
        if !done {
            assert!(std::env::var_os("CI").is_none(), "mongosh could not be installed with npm");
            println!("skipped: there is no mongosh, and npm cannot install it");
            return None;
        }
    }
    Some(installed)
}
