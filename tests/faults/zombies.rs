//! Writes that arrive after their time: the server holds one up while its sender is frozen, others
//! finish the job, and then it lands.

use aviary_testcontainers::{FailCommand, Managed, ReplicaSetOptions};
use bson::doc;

use crate::common::{Bed, wait_for};
use crate::jobs::{self, Ask};

/// How long the server holds a command up; the others need a fraction of it to finish the job.
const HELD_UP_MS: u32 = 25_000;

#[tokio::test(flavor = "multi_thread")]
async fn what_arrives_late_changes_nothing() {
    let bed =
        Bed::with(ReplicaSetOptions { members: 3, test_commands: true, ..Default::default() })
            .await;
    jobs::load_few(&bed).await;
    let coordinator = jobs::coordinator(&bed);
    let worker = bed.worker();
    let id = Ask::new("few", "calm").submit(&bed).await;
    jobs::succeeded(&bed, &id).await;
    jobs::stop(&worker).await;
    jobs::stop(&coordinator).await;

    blocks_of_a_zombie_are_swept(&bed).await;
    output_of_a_zombie_is_swept(&bed).await;
    a_rename_of_a_zombie_moves_nothing(&bed).await;
}

async fn blocks_of_a_zombie_are_swept(bed: &Bed) {
    let held = HeldUp::next(bed, "insert", "aviary-worker").await;
    let coordinator = jobs::coordinator(bed);
    let zombie = bed.worker();
    let id = Ask::new("few", "late-blocks").submit(bed).await;
    let worker = others_finish(bed, &held, &zombie, &id).await;
    // Nobody may sweep before it has been seen that there is something to sweep.
    jobs::stop(&coordinator).await;
    jobs::nothing_left(bed).await;
    held.let_go(bed).await;
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

async fn output_of_a_zombie_is_swept(bed: &Bed) {
    let doomed = bed.halting(&["coordinator"], "reducing");
    let zombie = bed.worker();
    let id = Ask::new("few", "late-output").submit(bed).await;
    // Every block is written: the next insert of a worker is one of results.
    jobs::kill_at(&doomed, "reducing").await;
    let held = HeldUp::next(bed, "insert", "aviary-worker").await;
    let coordinator = jobs::coordinator(bed);
    let worker = others_finish(bed, &held, &zombie, &id).await;
    jobs::stop(&coordinator).await;
    jobs::nothing_left(bed).await;
    held.let_go(bed).await;
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

async fn a_rename_of_a_zombie_moves_nothing(bed: &Bed) {
    let held = HeldUp::next(bed, "renameCollection", "aviary-coordinator").await;
    let zombie = jobs::coordinator(bed);
    let worker = bed.worker();
    let id = Ask::new("few", "late-rename").submit(bed).await;
    held.began(bed).await;
    zombie.freeze().expect("frozen");
    let epoch = jobs::role_epoch(bed).await;
    let coordinator = jobs::coordinator(bed);
    jobs::succeeded(bed, &id).await;
    assert!(jobs::role_epoch(bed).await > epoch, "the role changed hands");
    held.is_still_held(bed);
    // The result is its owner's now, who changes it.
    let owners = doc! { "_id": "mine" };
    bed.coll("late-rename").insert_one(owners.clone()).await.expect("inserted");
    held.let_go(bed).await;
    zombie.thaw().expect("thawed");
    zombie.wait_for_log("\"holds\":false").await.expect("it learns that it lost the role");

    let mut expected = bed.all("calm").await;
    expected.push(owners);
    assert_eq!(bed.all("late-rename").await, expected);
    jobs::nothing_left(bed).await;
    for daemon in [&worker, &zombie, &coordinator] {
        jobs::stop(daemon).await;
    }
    assert_eq!(bed.all("late-rename").await, expected);
}

/// Waits for what the late write leaves; nobody sweeps meanwhile.
async fn brought_back(bed: &Bed, what: &str) {
    wait_for(what, || async { (bed.leftovers().await == [what]).then_some(()) }).await;
}

/// Freezes the worker whose insert is held up, and has another finish the job meanwhile.
async fn others_finish(bed: &Bed, held: &HeldUp, zombie: &Managed, id: &str) -> Managed {
    held.began(bed).await;
    zombie.freeze().expect("frozen");
    let worker = bed.worker();
    jobs::succeeded(bed, id).await;
    held.is_still_held(bed);
    let lost = jobs::tasks(bed, id).await.into_iter().filter(|task| {
        let first = jobs::history(task)[0];
        jobs::is_of(jobs::text(first, "worker"), zombie) && jobs::text(first, "outcome") == "lost"
    });
    assert_eq!(lost.count(), 1, "the zombie lost the task it was at");
    worker
}

/// One command that the primary holds up before it runs.
struct HeldUp {
    primary: usize,
    before: (usize, usize),
}

impl HeldUp {
    /// Holds up the next such command of a client.
    async fn next(bed: &Bed, command: &str, app_name: &str) -> Self {
        let primary = bed.set.wait_primary().await.expect("a primary");
        let fail = FailCommand {
            commands: vec![command.to_owned()],
            app_name: Some(app_name.to_owned()),
            times: Some(1),
            block_ms: Some(HELD_UP_MS),
            ..FailCommand::default()
        };
        let before = Self::seen(bed, primary);
        bed.set.fail_command(primary, &fail).await.expect("set");
        Self { primary, before }
    }

    /// How many commands the server says to have held up, and let go.
    fn seen(bed: &Bed, primary: usize) -> (usize, usize) {
        let log = bed.set.member(primary).expect("a member").log().expect("its log");
        let count = |text: &str| log.matches(text).count();
        (
            count("\"Blocking command via 'failCommand'"),
            count("\"Unblocking command via 'failCommand'"),
        )
    }

    fn now(&self, bed: &Bed) -> (usize, usize) {
        let (held, let_go) = Self::seen(bed, self.primary);
        (held - self.before.0, let_go - self.before.1)
    }

    async fn began(&self, bed: &Bed) {
        wait_for("a command to be held up", || async { (self.now(bed).0 == 1).then_some(()) })
            .await;
    }

    fn is_still_held(&self, bed: &Bed) {
        assert_eq!(self.now(bed), (1, 0), "the command is held up until others are done");
    }

    /// Waits until the server goes on with the command.
    async fn let_go(&self, bed: &Bed) {
        wait_for("the command to be let go", || async { (self.now(bed).1 == 1).then_some(()) })
            .await;
    }
}
