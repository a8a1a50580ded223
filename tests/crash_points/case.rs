//! One run: a job, a process behind a gate, a point and a fault, and what came of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aviary_testcontainers::Managed;
use bson::{Document, doc};
use mongodb::Database;

use crate::common::Bed;
use crate::gate::{Fault, Gate, Point, Trap};
use crate::jobs::{Kind, OWNERS, SOURCE, SPLIT_BYTES, TARGET, content, source};
use crate::outcome::{self, CEILING, Verdict};

/// The daemon behind the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Process {
    Worker,
    Coordinator,
}

impl Process {
    pub const ALL: [Self; 2] = [Self::Worker, Self::Coordinator];

    pub fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Coordinator => "coordinator",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Worker => Self::Coordinator,
            Self::Coordinator => Self::Worker,
        }
    }

    fn args(self) -> &'static [&'static str] {
        match self {
            Self::Worker => &["worker", "--slots", "1"],
            Self::Coordinator => &["coordinator"],
        }
    }
}

/// What came of a run.
pub struct Ended {
    pub verdict: Verdict,
    pub trace: Vec<Point>,
    /// How the jobs ended, in words.
    pub states: String,
    /// Where the daemons' logs are.
    pub db: String,
}

/// Runs a scenario, with a trap or without.
pub async fn run(
    bed: &Bed,
    server: u16,
    process: Process,
    kind: Kind,
    trap: Option<Trap>,
) -> Ended {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("case{n}");
    let signals = Arc::new(tokio::sync::Mutex::new(()));
    let gate = Gate::open(server, trap.clone(), signals.clone()).await;
    let db = bed.client.database(&name);
    let case = Case {
        bed,
        server,
        db,
        process,
        kind,
        gate,
        signals,
        daemons: Daemons::default(),
        asked: None.into(),
    };
    let mut states = String::new();
    let verdict = match case.through(trap.map(|trap| trap.fault), &mut states).await {
        Ok(()) if case.gate.has_fired() => Verdict::Exact,
        Ok(()) => Verdict::NotReached,
        Err(verdict) => verdict,
    };
    for daemon in case.daemons.all() {
        let _ = daemon.kill();
    }
    if !verdict.is_bad() {
        case.db.drop().await.expect("dropped");
    }
    Ended { verdict, trace: case.gate.trace(), states, db: name }
}

/// A job's state just before it was asked to be cancelled, and the job just after.
#[derive(Debug, Clone)]
struct Asked {
    before: String,
    after: Document,
}

struct Case<'a> {
    bed: &'a Bed,
    server: u16,
    db: Database,
    process: Process,
    kind: Kind,
    gate: Gate,
    signals: Arc<tokio::sync::Mutex<()>>,
    daemons: Daemons,
    asked: std::sync::Mutex<Option<Asked>>,
}

#[derive(Default)]
struct Daemons(std::sync::Mutex<Vec<Arc<Managed>>>);

impl Daemons {
    fn add(&self, process: Managed) -> Arc<Managed> {
        let process = Arc::new(process);
        self.0.lock().expect("a lock").push(process.clone());
        process
    }

    fn all(&self) -> Vec<Arc<Managed>> {
        self.0.lock().expect("a lock").clone()
    }
}

impl Case<'_> {
    async fn through(&self, fault: Option<Fault>, states: &mut String) -> Result<(), Verdict> {
        let ids = self.prepared().await;
        let subject = self.spawn(self.process, Some(&self.gate));
        if self.kind != Kind::Sweep {
            self.spawn(self.process.other(), None);
        }
        let jobs = {
            let rescue = self.rescue(fault);
            let end = async {
                self.meddle(&ids).await;
                self.end(&ids).await
            };
            tokio::select! {
                jobs = end => jobs?,
                () = rescue => unreachable!("it waits for ever"),
            }
        };
        let jobs = self.removed(&ids, jobs).await?;
        let ends = jobs.iter().map(|job| outcome::text(job, "state"));
        *states = ends.collect::<Vec<_>>().join("+");
        if let Some(asked) = self.asked.lock().expect("a lock").as_ref() {
            *states = format!("{states}, asked to be cancelled while {}", asked.before);
        }
        let may_be = outcome::expected(self.kind, &jobs)?;
        self.compare(&may_be, &ids).await?;
        let succeeded = jobs.iter().all(|job| outcome::text(job, "state") == "succeeded");
        // The target is its owner's now, who changes it; a job that is over may change nothing of it.
        let owned = fault == Some(Fault::Frozen) && self.kind.has_target();
        let may_be = match owned && succeeded && self.kind != Kind::Remove {
            true => self.owners(may_be).await,
            false => may_be,
        };
        if fault == Some(Fault::Frozen) && self.gate.has_fired() {
            self.awaken(&subject).await?;
        }
        self.stop(&subject, fault).await?;
        // The next coordinator finds at its start what the last moments have left.
        if !self.left(&ids).await.is_empty() {
            self.spawn(Process::Coordinator, None);
        }
        self.nothing_left(&ids).await?;
        for daemon in self.daemons.all() {
            self.stop(&daemon, None).await?;
        }
        self.compare(&may_be, &ids).await?;
        // Nobody has swept since a worker, which may not have noticed the job's end, wrote its last block.
        if !self.left(&ids).await.is_empty() {
            let last = self.spawn(Process::Coordinator, None);
            self.nothing_left(&ids).await?;
            self.stop(&last, None).await?;
        }
        if self.kind == Kind::Inline {
            self.aviary(&["rm", &ids[0]]).await;
            let left = outcome::leftovers(&self.db, None).await;
            if !left.is_empty() {
                return Err(Verdict::Leftovers(left.join(", ")));
            }
        }
        Ok(())
    }

    /// Loads what the scenario needs and submits its jobs.
    async fn prepared(&self) -> Vec<String> {
        self.db.collection(SOURCE).insert_many(source()).await.expect("loaded");
        let before: Vec<Document> = self.kind.before().into_values().collect();
        if !before.is_empty() {
            self.db.collection(TARGET).insert_many(before).await.expect("loaded");
        }
        let mut ids = Vec::new();
        for line in self.kind.submissions() {
            ids.push(self.aviary(&line).await.ok().stdout.trim().to_owned());
        }
        match self.kind {
            Kind::Replan => self.plan_in_vain().await,
            Kind::Sweep => self.plant(&ids).await,
            _ => {}
        }
        ids
    }

    /// Has a coordinator die as soon as it has written a plan's tasks.
    async fn plan_in_vain(&self) {
        // A plan's map tasks are the first that are written of it.
        let point = Point { label: "insert aviary map".into(), occurrence: 1 };
        let trap = Trap { point, fault: Fault::KilledAfter };
        let gate = Gate::open(self.server, Some(trap), Arc::default()).await;
        let doomed = self.spawn(Process::Coordinator, Some(&gate));
        tokio::time::timeout(CEILING, gate.fired()).await.expect("it plans");
        doomed.wait_gone(CEILING).await.expect("gone");
    }

    /// Has the job end, and brings back what zombies of it could.
    async fn plant(&self, ids: &[String]) {
        let daemons = Process::ALL.map(|process| self.spawn(process, None));
        outcome::ended(&self.db, ids).await.expect("it ends");
        for daemon in daemons {
            daemon.stop(CEILING).await.expect("stopped");
        }
        let aviary = self.db.collection::<Document>("aviary");
        let task = aviary.find_one(doc! { "kind": "map" }).await.expect("read");
        let mut task = task.expect("a task");
        let shard = outcome::text(&task, "shard").to_owned();
        task.insert("_id", format!("{}/map/9.00000", ids[0]));
        task.insert("plan", 9);
        task.insert("state", "ready");
        aviary.insert_one(task).await.expect("planted");
        let block = doc! {
            "_id": format!("{}/p0000/00000/late/0000.00000", ids[0]),
            "shard": shard,
            "job": &ids[0],
            "data": bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![0] },
            "crc32": 0_i64,
            "records": 1_i64,
        };
        self.db.collection("aviary-intermediates").insert_one(block).await.expect("planted");
        let hidden = self.db.collection(&format!("aviary-out-{}", ids[0]));
        hidden.insert_one(doc! { "_id": "late" }).await.expect("planted");
    }

    /// Starts another process in the place of one that was killed or frozen. Never returns.
    async fn rescue(&self, fault: Option<Fault>) {
        self.gate.fired().await;
        if fault.is_some_and(|fault| fault.kills() || fault == Fault::Frozen) {
            self.spawn(self.process, None);
        }
        std::future::pending().await
    }

    /// Cancels the job, and removes it, while every daemon holds still.
    async fn meddle(&self, ids: &[String]) {
        let Some(state) = self.kind.cancelled_in() else { return };
        // Often, because tiny jobs are soon over.
        let wanted = outcome::until_every(Duration::from_millis(5), async || {
            let job = outcome::job(&self.db, &ids[0]).await?;
            let now = outcome::text(&job, "state");
            let is_over = ["succeeded", "failed", "cancelled"].contains(&now);
            let blocks = self.db.collection::<Document>("aviary-intermediates");
            let has_begun =
                state != "mapping" || blocks.find_one(doc! {}).await.expect("read").is_some();
            (is_over || now == state && has_begun).then_some(())
        });
        if wanted.await.is_none() {
            return;
        }
        let _signals = self.signals.lock().await;
        let held = if self.gate.is_holding() { self.gate.pid() } else { None };
        let mut daemons = self.daemons.all();
        daemons.retain(|daemon| Some(daemon.pid()) != held);
        for daemon in &daemons {
            let _ = daemon.freeze();
        }
        let before = outcome::job(&self.db, &ids[0]).await;
        self.aviary(&["cancel", &ids[0]]).await;
        let after = outcome::job(&self.db, &ids[0]).await;
        let before = before.map(|job| outcome::text(&job, "state").to_owned());
        *self.asked.lock().expect("a lock") =
            Some(Asked { before: before.unwrap_or_default(), after: after.unwrap_or_default() });
        if self.kind == Kind::Remove {
            self.aviary(&["rm", &ids[0]]).await;
        }
        for daemon in &daemons {
            let _ = daemon.thaw();
        }
    }

    /// The jobs as they ended, though they may be removed by now; one that was to be removed is.
    async fn removed(
        &self,
        ids: &[String],
        jobs: Vec<Option<Document>>,
    ) -> Result<Vec<Document>, Verdict> {
        let asked = self.asked.lock().expect("a lock").clone();
        let mut ends = Vec::new();
        for (id, job) in ids.iter().zip(jobs) {
            ends.push(match (job, &asked) {
                // It went on to its end before it could be cancelled, and cannot be removed any earlier.
                (Some(job), _) if self.kind == Kind::Remove => {
                    self.aviary(&["rm", id]).await;
                    if outcome::job(&self.db, id).await.is_some() {
                        return Err(Verdict::Wrong("the job is still there after rm".into()));
                    }
                    job
                }
                (Some(job), _) => job,
                (None, Some(asked)) if self.kind == Kind::Remove => asked.after.clone(),
                (None, _) => return Err(Verdict::Wrong("a job is gone".into())),
            });
        }
        Ok(ends)
    }

    async fn end(&self, ids: &[String]) -> Result<Vec<Option<Document>>, Verdict> {
        if self.kind == Kind::Sweep {
            // It has ended before; what is waited for is the end of the planted things.
            let swept = async || outcome::leftovers(&self.db, None).await.is_empty().then_some(());
            outcome::until(swept).await;
        }
        outcome::ended(&self.db, ids).await
    }

    async fn compare(
        &self,
        may_be: &[crate::jobs::Content],
        ids: &[String],
    ) -> Result<(), Verdict> {
        outcome::compare(may_be, &outcome::found(&self.db, self.kind, ids).await)
    }

    /// Changes the target as its owner may, and returns what it holds then.
    async fn owners(&self, may_be: Vec<crate::jobs::Content>) -> Vec<crate::jobs::Content> {
        let target = self.db.collection::<Document>(TARGET);
        target.insert_one(doc! { "_id": OWNERS }).await.expect("written");
        let own = doc! { "$set": { "value": OWNERS } };
        target.update_one(doc! { "_id": 3 }, own).await.expect("written");
        target.delete_one(doc! { "_id": 4 }).await.expect("deleted");
        drop(may_be);
        vec![content(outcome::all(&self.db, TARGET).await)]
    }

    /// Lets the held command go and its sender go on, and gives that a while to do harm.
    async fn awaken(&self, subject: &Managed) -> Result<(), Verdict> {
        const A_FEW: usize = 6;
        const A_WHILE: Duration = Duration::from_secs(2);
        let answered = tokio::time::timeout(CEILING, self.gate.let_go()).await;
        if answered.is_err() {
            return Err(Verdict::Stuck("the held command has no answer".into()));
        }
        let before = self.gate.passed();
        let _ = subject.thaw();
        let went_on = outcome::until(async || (self.gate.passed() > before + A_FEW).then_some(()));
        let _ = tokio::time::timeout(A_WHILE, went_on).await;
        Ok(())
    }

    /// Ends a daemon in good order, which it must obey, whatever happens at its last commands.
    async fn stop(&self, daemon: &Managed, fault: Option<Fault>) -> Result<(), Verdict> {
        if !daemon.is_running() {
            return Ok(());
        }
        let had_fired = self.gate.has_fired();
        let _ = daemon.terminate();
        let gone = outcome::until(async || {
            if fault == Some(Fault::Frozen) && !had_fired && self.gate.has_fired() {
                // Frozen while it said good-bye; nobody takes over what is over.
                self.gate.let_go().await;
                let _ = daemon.thaw();
            }
            (!daemon.is_running()).then_some(())
        });
        match gone.await {
            Some(()) => Ok(()),
            None => Err(Verdict::Stuck(format!("{} does not end", daemon.name()))),
        }
    }

    /// What of the jobs is still there.
    async fn left(&self, ids: &[String]) -> Vec<String> {
        let kept = (self.kind == Kind::Inline).then(|| format!("aviary-out-{}", ids[0]));
        let mut left = outcome::leftovers(&self.db, kept.as_deref()).await;
        if self.kind == Kind::Remove {
            left.extend(outcome::of_removed(&self.db, &ids[0]).await);
        }
        left
    }

    async fn nothing_left(&self, ids: &[String]) -> Result<(), Verdict> {
        let gone = async || self.left(ids).await.is_empty().then_some(());
        match outcome::until(gone).await {
            Some(()) => Ok(()),
            None => Err(Verdict::Leftovers(self.left(ids).await.join(", "))),
        }
    }

    fn env(&self) -> Vec<(String, String)> {
        let uri = format!("mongodb://127.0.0.1:{}/?directConnection=true", self.server);
        let env = [
            ("AVIARY_URI", uri.as_str()),
            ("AVIARY_DB", self.db.name()),
            ("AVIARY_LEASE_TTL_MS", "2000"),
            // Change streams wake them; many polls of many runs at once would leave no time for anything else.
            ("AVIARY_POLL_MS", "1000"),
            ("AVIARY_SPLIT_BYTES", SPLIT_BYTES),
        ];
        env.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn spawn(&self, process: Process, gate: Option<&Gate>) -> Arc<Managed> {
        let mut env = self.env();
        env.extend(gate.map(|gate| ("AVIARY_URI".to_owned(), gate.uri())));
        let env: Vec<(&str, &str)> =
            env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let name = format!("{}-{}", self.db.name(), process.name());
        let daemon = self.daemons.add(self.bed.spawn(&name, process.args(), &env));
        if let Some(gate) = gate {
            gate.of(daemon.clone());
        }
        daemon
    }

    async fn aviary<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> crate::common::Ran {
        crate::common::run(args, &self.env()).await
    }
}
