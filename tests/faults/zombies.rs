//! Writes that arrive after their time: one is held up on its way to the server while its sender is
//! frozen, others finish the job, and then it lands.

use aviary_testcontainers::Managed;
use bson::{Document, doc};

use crate::common::{Bed, LEASE_TTL_MS, wait_for};
use crate::gate::Gate;
use crate::jobs::{self, Ask};

#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_late_changes_nothing() {
    let bed = Bed::start(3).await.in_parts();
    jobs::load_few(&bed).await;
    let coordinator = jobs::coordinator(&bed);
    let worker = bed.worker();
    let id = Ask::new("few", "calm").submit(&bed).await;
    jobs::succeeded(&bed, &id).await;
    jobs::stop(&worker).await;
    jobs::stop(&coordinator).await;

    let gate = Gate::to_primary(&bed).await;
    blocks_of_a_zombie_are_swept(&bed, &gate).await;
    output_of_a_zombie_is_swept(&bed, &gate).await;
    a_rename_of_a_zombie_moves_nothing(&bed, &gate).await;
}

async fn blocks_of_a_zombie_are_swept(bed: &Bed, gate: &Gate) {
    gate.hold("insert");
    let coordinator = jobs::coordinator(bed);
    let zombie = worker_through(bed, gate);
    let id = Ask::new("few", "late-blocks").submit(bed).await;
    let worker = others_finish(bed, gate, &zombie, &id).await;
    // Nobody may sweep before it has been seen that there is something to sweep.
    jobs::stop(&coordinator).await;
    jobs::nothing_left(bed).await;
    gate.let_go().await;
    brought_back(bed, "blocks in aviary-intermediates").await;

    let coordinator = jobs::coordinator(bed);
    jobs::nothing_left(bed).await;
    zombie.thaw().expect("thawed");
    zombie.wait_for_log("fenced").await.expect("it learns that its lease is lost");
    assert_eq!(bed.all("late-blocks").await, bed.all("calm").await);
    for daemon in [&worker, &zombie, &coordinator] {
        jobs::stop(daemon).await;
    }
}

async fn output_of_a_zombie_is_swept(bed: &Bed, gate: &Gate) {
    let doomed = bed.halting(&["coordinator"], "reducing");
    let zombie = worker_through(bed, gate);
    let id = Ask::new("few", "late-output").submit(bed).await;
    // Every block is written: the next insert of a worker is one of results.
    jobs::kill_at(&doomed, "reducing").await;
    gate.hold("insert");
    let coordinator = jobs::coordinator(bed);
    let worker = others_finish(bed, gate, &zombie, &id).await;
    jobs::stop(&coordinator).await;
    jobs::nothing_left(bed).await;
    gate.let_go().await;
    brought_back(bed, &format!("aviary-out-{id}")).await;
    assert_eq!(bed.all("late-output").await, bed.all("calm").await);

    let coordinator = jobs::coordinator(bed);
    jobs::nothing_left(bed).await;
    zombie.thaw().expect("thawed");
    zombie.wait_for_log("fenced").await.expect("it learns that its lease is lost");
    assert_eq!(bed.all("late-output").await, bed.all("calm").await);
    for daemon in [&worker, &zombie, &coordinator] {
        jobs::stop(daemon).await;
    }
}

/// The first rename takes the results over, the second puts them in place.
async fn a_rename_of_a_zombie_moves_nothing(bed: &Bed, gate: &Gate) {
    for (which, output) in [(1, "late-takeover"), (2, "late-rename")] {
        gate.hold("renameCollection");
        let coordinator = jobs::coordinator(bed);
        let zombie = worker_through(bed, gate);
        let id = Ask::new("few", output).submit(bed).await;
        for _ in 1..which {
            gate.holds().await;
            gate.pass_and_hold("renameCollection").await;
        }
        let worker = others_finish(bed, gate, &zombie, &id).await;
        // The result is its owner's now, who changes it.
        let owners = doc! { "_id": "mine" };
        bed.coll(output).insert_one(owners.clone()).await.expect("inserted");
        gate.let_go().await;
        zombie.thaw().expect("thawed");
        zombie.wait_for_log("fenced").await.expect("it learns that its lease is lost");

        let mut expected = bed.all("calm").await;
        expected.push(owners);
        assert_eq!(bed.all(output).await, expected);
        jobs::nothing_left(bed).await;
        for daemon in [&worker, &zombie, &coordinator] {
            jobs::stop(daemon).await;
        }
        assert_eq!(bed.all(output).await, expected);
    }
}

/// A worker whose every command passes the gate, and which will be frozen.
fn worker_through(bed: &Bed, gate: &Gate) -> Managed {
    let env = [("AVIARY_URI", gate.uri()), ("AVIARY_LEASE_TTL_MS", LEASE_TTL_MS.to_owned())];
    let env = env.each_ref().map(|(name, value)| (*name, value.as_str()));
    bed.spawn("worker", &["worker", "--slots", "1"], &env)
}

/// Waits for what the late write leaves; nobody sweeps meanwhile.
async fn brought_back(bed: &Bed, what: &str) {
    wait_for(what, || async { (bed.leftovers().await == [what]).then_some(()) }).await;
}

/// Freezes the worker whose insert is held up, and has another finish the job meanwhile.
async fn others_finish(bed: &Bed, gate: &Gate, zombie: &Managed, id: &str) -> Managed {
    gate.holds().await;
    zombie.freeze().expect("frozen");
    let ids = |tasks: Vec<Document>, is_one: &dyn Fn(&Document) -> bool| -> Vec<String> {
        tasks
            .iter()
            .filter(|task| is_one(task))
            .map(|task| jobs::text(task, "_id").to_owned())
            .collect()
    };
    // The one that it is at, and maybe one that it has claimed for later.
    let held = ids(jobs::tasks(bed, id).await, &|task| {
        jobs::text(task, "state") == "leased" && jobs::is_of(jobs::text(task, "worker"), zombie)
    });
    assert!(!held.is_empty(), "it is at a task");
    let worker = bed.worker();
    jobs::succeeded(bed, id).await;
    let lost = ids(jobs::tasks(bed, id).await, &|task| {
        let first = jobs::history(task)[0];
        jobs::is_of(jobs::text(first, "worker"), zombie) && jobs::text(first, "outcome") == "lost"
    });
    assert_eq!(lost, held, "the zombie lost what it held");
    worker
}
