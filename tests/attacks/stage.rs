//! A deployment with daemons at work, an honest job beside the attacks, and what harm is.

use std::ffi::OsStr;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aviary_testcontainers::Managed;
use bson::{Bson, Document, doc};

use crate::common::{Bed, Ran, attacked, ceiling, insert};
use crate::forged::{Forger, peak_mb};
use crate::submitter::Guarded;

/// More memory than this, in MiB and beyond what it had when its honest job ran, no attack makes a coordinator and a
/// worker take.
const GROWTH_MAX_MB: [u64; 2] = [200, 350];
/// How long another program than that under test is given to come to an end that may never come, at least.
const PATIENCE_MIN: Duration = Duration::from_secs(25);
/// And at most.
const PATIENCE_MAX: Duration = Duration::from_secs(90);
/// And how many times as long as its honest job took, between these.
const PATIENCE_JOBS: u32 = 10;

/// The honest map, which does other documents as well.
const MAP: &str = "function () { emit(this.g ?? this._id ?? this.ts, 1); }";

/// The daemons of a stage.
#[derive(Clone)]
pub struct Daemons {
    pub coordinator: Arc<Managed>,
    pub worker: Arc<Managed>,
    /// What each had taken before anything happened.
    peaks_mb: [u64; 2],
}

/// Where attacks take place.
pub struct Stage {
    pub bed: Bed,
    forger: Mutex<Forger>,
    daemons: Mutex<Option<Daemons>>,
    patience: Mutex<Duration>,
    jobs: AtomicU32,
    /// Another one that asks its clients who they are, once it is needed.
    pub guarded: tokio::sync::OnceCell<Option<Guarded>>,
}

impl Stage {
    /// A deployment of which an honest job has been run.
    pub async fn open() -> Self {
        let mut bed = Bed::start(1).await;
        if let Some(program) = attacked() {
            bed.program = program;
        }
        let stage = Self {
            bed,
            forger: Mutex::default(),
            daemons: Mutex::default(),
            patience: Mutex::new(ceiling()),
            jobs: 0.into(),
            guarded: tokio::sync::OnceCell::new(),
        };
        stage.prepare().await;
        stage
    }

    async fn prepare(&self) {
        let few = (0..40).map(|n| doc! { "_id": n, "g": n % 4 }).collect();
        self.bed.load("few", few).await;
        self.bed.file("by-g.js", MAP);
        let daemons = self.start();
        *self.daemons.lock().unwrap() = Some(daemons);
        *self.patience.lock().unwrap() = ceiling();
        let began = Instant::now();
        self.honest().await.expect("an honest job succeeds without an attack");
        if attacked().is_some() {
            let patience = began.elapsed() * PATIENCE_JOBS;
            let patience = patience.clamp(PATIENCE_MIN, PATIENCE_MAX);
            *self.patience.lock().unwrap() = patience;
        }
        *self.forger.lock().unwrap() = Forger::learn(&self.bed).await;
        self.measure();
    }

    fn start(&self) -> Daemons {
        Daemons {
            coordinator: Arc::new(self.bed.coordinator()),
            worker: Arc::new(self.bed.spawn("worker", &["worker", "--slots", "1"], &[])),
            peaks_mb: [0; 2],
        }
    }

    /// Takes what the daemons have taken until now for what they need.
    fn measure(&self) {
        let mut daemons = self.daemons.lock().unwrap();
        if let Some(daemons) = daemons.as_mut() {
            daemons.peaks_mb = [peak_mb(&daemons.coordinator), peak_mb(&daemons.worker)];
        }
    }

    /// Starts over after harm: with other daemons and without anything that was written.
    pub async fn begin_again(&self) {
        let gone = self.daemons.lock().unwrap().take();
        if let Some(daemons) = gone {
            for daemon in [&daemons.coordinator, &daemons.worker] {
                let _ = daemon.kill();
            }
        }
        for name in self.bed.client.list_database_names().await.expect("listed") {
            if !["admin", "config", "local"].contains(&name.as_str()) {
                self.bed.client.database(&name).drop().await.expect("dropped");
            }
        }
        self.prepare().await;
    }

    /// The daemons at work.
    pub fn daemons(&self) -> Daemons {
        self.daemons.lock().unwrap().clone().expect("they were started")
    }

    /// Another worker instead, after an attack that ends with its end.
    pub fn replace_worker(&self) {
        let mut daemons = self.daemons.lock().unwrap();
        let _ = daemons.as_ref().expect("started").worker.kill();
        let worker = self.bed.spawn("worker", &["worker", "--slots", "1"], &[]);
        daemons.as_mut().expect("started").worker = Arc::new(worker);
    }

    /// Somebody who knows what documents look like.
    pub fn forger(&self) -> Forger {
        self.forger.lock().unwrap().clone()
    }

    /// Runs the program. None if it does not end.
    pub async fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Option<Ran> {
        self.run_with(args, &[]).await
    }

    /// The same with more environment.
    pub async fn run_with<S: AsRef<OsStr>>(&self, args: &[S], env: &[(&str, &str)]) -> Option<Ran> {
        let mut command = tokio::process::Command::new(&self.bed.program);
        command.args(args).envs(self.bed.env()).envs(env.iter().copied());
        self.ended(&mut command).await
    }

    /// Runs a command to its end, if it has one.
    pub async fn ended(&self, command: &mut tokio::process::Command) -> Option<Ran> {
        let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
        let ended = tokio::time::timeout(self.patience(), running).await.ok()?;
        let ended = ended.expect("the program runs");
        Some(Ran {
            code: ended.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&ended.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&ended.stderr).into_owned(),
        })
    }

    /// How long anything is waited for: for ever, but for a program that is to be attacked with success.
    pub fn patience(&self) -> Duration {
        *self.patience.lock().unwrap()
    }

    /// Waits until a condition gives something. None if it does not.
    pub async fn within<T, F, W>(&self, condition: F) -> Option<T>
    where
        F: Fn() -> W,
        W: Future<Output = Option<T>>,
    {
        let began = Instant::now();
        while began.elapsed() < self.patience() {
            if let Some(found) = condition().await {
                return Some(found);
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        None
    }

    /// Submits a job over the few documents; `more` says what is not honest of it.
    pub async fn submit(&self, more: &[&str]) -> Option<Ran> {
        let args = ["submit", "-q", "-o", "name", "-c", "few"];
        self.run(&[&args, more].concat()).await
    }

    /// The file of the honest map.
    pub fn map(&self) -> String {
        self.bed.dir.path().join("by-g.js").display().to_string()
    }

    /// Runs an honest job to its right result, or says how it failed.
    async fn honest(&self) -> Result<(), String> {
        let target = format!("honest{}", self.jobs.fetch_add(1, Ordering::Relaxed));
        let out = format!("replace:{target}");
        let map = self.map();
        let ran = self.submit(&["--map", &map, "--reduce", "_count", "--out", &out]).await;
        let ran = ran.ok_or("an honest job does not end any more")?;
        if ran.code != 0 {
            let said =
                ran.stderr.lines().find(|line| line.starts_with("error")).unwrap_or_default();
            return Err(format!("an honest job ends with {}: {said}", ran.code));
        }
        let number = |value: Option<&Bson>| match value {
            Some(Bson::Int32(n)) => f64::from(*n),
            Some(Bson::Int64(n)) => *n as f64,
            other => other.and_then(Bson::as_f64).unwrap_or(f64::NAN),
        };
        let rows = self.bed.all(&target).await;
        let rows: Vec<(f64, f64)> =
            rows.iter().map(|row| (number(row.get("_id")), number(row.get("value")))).collect();
        let right: Vec<(f64, f64)> = (0..4).map(|g| (f64::from(g), 10.0)).collect();
        (rows == right).then_some(()).ok_or_else(|| format!("an honest job's result is {rows:?}"))
    }

    /// Whether all is as well as before: the same daemons live, have not taken much memory, and do an honest job.
    pub async fn unharmed(&self) -> Result<(), String> {
        self.alive()?;
        let honest = self.honest().await;
        // Of what went wrong, this says more.
        self.alive()?;
        honest
    }

    /// Whether the same daemons live as before and have not taken much memory.
    pub fn alive(&self) -> Result<(), String> {
        let daemons = self.daemons();
        let both = [&daemons.coordinator, &daemons.worker];
        for ((daemon, before), most) in both.into_iter().zip(daemons.peaks_mb).zip(GROWTH_MAX_MB) {
            let name = daemon.name();
            let log = daemon.log().expect("a log");
            if let Some(line) = log.lines().find(|line| line.contains("panicked")) {
                return Err(format!("the {name} panicked: {line}"));
            }
            if !daemon.is_running() {
                return Err(format!("the {name} died"));
            }
            let taken = peak_mb(daemon).saturating_sub(before);
            if taken > most {
                return Err(format!("the {name} took {taken} MiB more"));
            }
        }
        Ok(())
    }

    /// Writes documents into a collection of the fleet, as they are.
    pub async fn insert(&self, collection: &str, documents: Vec<Document>) {
        insert(&self.bed.coll(collection), &documents).await;
    }

    /// Takes the validator away, as somebody may who has the rights of an administrator of the database.
    pub async fn unchecked(&self, collection: &str) {
        let bare = doc! { "collMod": collection, "validator": {} };
        self.bed.db().run_command(bare).await.expect("no validator");
    }

    /// Waits until a job has ended, and gives its document.
    pub async fn settled(&self, id: &str) -> Option<Document> {
        self.within(|| async {
            let job = self.bed.coll("aviary").find_one(doc! { "_id": id }).await.ok().flatten()?;
            let state = job.get_str("state").ok()?;
            ["succeeded", "failed", "stopped", "cancelled"].contains(&state).then_some(job)
        })
        .await
    }

    /// How many documents a collection of any database has.
    pub async fn count(&self, db: &str, collection: &str) -> u64 {
        let collection = self.bed.client.database(db).collection::<Document>(collection);
        collection.count_documents(doc! {}).await.expect("counted")
    }

    /// Makes a collection of one document that nobody has a right to.
    pub async fn precious(&self, db: &str, collection: &str) {
        let victim = self.bed.client.database(db).collection::<Document>(collection);
        let document = doc! { "_id": "precious", "g": 1 };
        victim.replace_one(doc! { "_id": "precious" }, document).upsert(true).await.expect("kept");
    }
}
