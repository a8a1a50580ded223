//! A job that is held in one of its phases while something is done to the cluster.

use aviary_testcontainers::{Managed, ReplicaSet};
use bson::Document;

use crate::SHARDS;
use crate::common::{Bed, Paused, wait_for};
use crate::jobs::{self, Ask};

/// Where a job is held.
#[derive(Debug, Clone, Copy)]
pub struct Phase {
    /// The place at which a process stops.
    pub place: &'static str,
    /// The job's state there.
    pub state: &'static str,
    /// The processes that stop there.
    holders: Holders,
    /// What more the workers are told.
    env: &'static [(&'static str, &'static str)],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holders {
    Coordinator,
    /// One worker of each shard, in the middle of a task.
    Workers,
    /// Whichever worker gets the only task there is.
    OneWorker,
}

/// Each phase of a job, from planning to cleaning up.
pub const PHASES: [Phase; 5] = [
    Phase::of_coordinator("plan.written", "planning"),
    Phase::of_workers("map.call", "mapping"),
    Phase::of_workers("reduce.read", "reducing"),
    Phase::of_one_worker("publish.rename", "publishing"),
    Phase::of_coordinator("clean", "succeeded"),
];

/// Each worker has read the beginning of its first task's input, and no lease ends before a primary is elected:
/// a lease that was lost would hide what became of the cursor.
pub const READING: Phase =
    Phase { env: &[("AVIARY_LEASE_TTL_MS", "60000")], ..Phase::of_workers("map.read", "mapping") };

impl Phase {
    /// The usual job, as undisturbed, but for its output, which tells what happened to it.
    pub fn ask(self, what: &str) -> Ask {
        Ask::new("few", &format!("{what}-{}", self.place.replace('.', "-")))
    }

    const fn of_coordinator(place: &'static str, state: &'static str) -> Self {
        Self { place, state, holders: Holders::Coordinator, env: &[] }
    }

    const fn of_workers(place: &'static str, state: &'static str) -> Self {
        Self { place, state, holders: Holders::Workers, env: &[] }
    }

    const fn of_one_worker(place: &'static str, state: &'static str) -> Self {
        Self { place, state, holders: Holders::OneWorker, env: &[] }
    }
}

/// The daemons of a job, and the means to let those that were stopped go on.
struct Daemons {
    whole: Vec<Managed>,
    paused: Vec<Paused>,
}

impl Daemons {
    /// A coordinator, and a worker beside the primary of each shard.
    async fn start(bed: &Bed, phase: Phase) -> Self {
        let mut all = Self { whole: Vec::new(), paused: Vec::new() };
        match phase.holders {
            Holders::Coordinator => {
                all.paused.push(bed.pause(phase.place, |env| coordinator(bed, env)));
            }
            Holders::Workers | Holders::OneWorker => all.whole.push(coordinator(bed, &[])),
        }
        for shard in 0..SHARDS {
            let set = bed.cluster().shard(shard).expect("a shard");
            let member = set.wait_primary().await.expect("a primary");
            let start =
                |env: &[(&str, &str)]| bed.worker_beside(shard, member, &[phase.env, env].concat());
            match phase.holders {
                Holders::Coordinator => all.whole.push(start(&[])),
                Holders::Workers | Holders::OneWorker => {
                    all.paused.push(bed.pause(phase.place, start));
                }
            }
        }
        // The plan gives a shard something to reduce when it has a worker.
        for process in all.processes().filter(|process| process.name() == "worker") {
            bed.known(process).await;
        }
        all
    }

    fn processes(&self) -> impl Iterator<Item = &Managed> {
        self.whole.iter().chain(self.paused.iter().map(|paused| &paused.process))
    }

    async fn stop(self) {
        for process in self.processes() {
            assert!(process.is_running(), "no daemon ended: {}", process.log().expect("its log"));
            jobs::stop(process).await;
        }
    }
}

fn coordinator(bed: &Bed, env: &[(&str, &str)]) -> Managed {
    bed.spawn("coordinator", &["coordinator"], env)
}

/// What the usual job makes of an input when nothing happens, which the servers count again.
pub async fn undisturbed(bed: &Bed, input: &'static str) -> Vec<Document> {
    let coordinator = coordinator(bed, &[]);
    let workers: Vec<Managed> = (0..SHARDS).map(|shard| bed.worker_of(shard, &[])).collect();
    for worker in &workers {
        bed.known(worker).await;
    }
    let ask = Ask::new(input, &format!("{input}-calm"));
    let id = ask.submit(bed).await;
    jobs::succeeded(bed, &id).await;
    let tasks = jobs::tasks(bed, &id).await;
    for kind in ["map", "reduce"] {
        let mut shards: Vec<&str> = tasks
            .iter()
            .filter(|task| jobs::text(task, "kind") == kind)
            .map(|task| jobs::text(task, "shard"))
            .collect();
        shards.sort_unstable();
        shards.dedup();
        assert_eq!(shards, ["s0", "s1", "s2"], "every shard has something to {kind}");
    }
    jobs::nothing_left(bed).await;
    for daemon in workers.iter().chain([&coordinator]) {
        jobs::stop(daemon).await;
    }
    let calm = bed.all(&ask.output).await;
    jobs::assert_recounted(bed, input, &calm).await;
    calm
}

/// Runs a job that is held in `phase` while `fault` is done, and returns its tasks.
pub async fn held_in(
    bed: &Bed,
    phase: Phase,
    ask: &Ask,
    calm: &[Document],
    fault: impl AsyncFnOnce(),
) -> Vec<Document> {
    let daemons = Daemons::start(bed, phase).await;
    let id = ask.submit(bed).await;
    match phase.holders {
        Holders::OneWorker => {
            wait_for("a worker to get there", || async {
                let mut logs = daemons.paused.iter().map(|paused| paused.process.log());
                logs.any(|log| log.expect("its log").contains("halted")).then_some(())
            })
            .await;
        }
        Holders::Coordinator | Holders::Workers => {
            for paused in &daemons.paused {
                paused.arrived().await;
            }
        }
    }
    fault().await;
    let state = jobs::text(&jobs::job(bed, &id).await, "state").to_owned();
    assert_eq!(state, phase.state, "the job was held until the fault had fired");
    daemons.paused.iter().for_each(Paused::go_on);
    jobs::succeeded(bed, &id).await;
    assert_eq!(bed.all(&ask.output).await, calm, "{}", ask.output);
    jobs::nothing_left(bed).await;
    daemons.stop().await;
    jobs::tasks(bed, &id).await
}

/// Kills a replica set's primary, waits until another member is elected, and says who was killed.
pub async fn kill_primary(set: &ReplicaSet) -> usize {
    let old = set.wait_primary().await.expect("a primary");
    set.kill(old).await.expect("killed");
    let new =
        wait_for("another primary", || async { set.primary().await.filter(|new| *new != old) })
            .await;
    assert!(
        !set.member(old).expect("a member").is_running(),
        "member {new} took over from the dead"
    );
    old
}
