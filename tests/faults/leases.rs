//! Leases that are lost without anybody's death, blocks that vanish, and workers told to stop.

use bson::{Document, doc};
use futures_util::TryStreamExt;

use crate::common::{Bed, wait_for};
use crate::jobs::{self, Ask};

/// Nothing here hurts a server, so the cases share a deployment and follow each other.
pub async fn leases_are_lost_and_handed_back_without_harm(bed: &Bed) {
    jobs::load_few(bed).await;
    jobs::load_many(bed).await;
    polling_alone_suffices(bed).await;

    let coordinator = jobs::coordinator(bed);
    let worker = bed.worker();
    for input in ["few", "many"] {
        let id = Ask::new(input, &format!("{input}-calm")).submit(bed).await;
        jobs::succeeded(bed, &id).await;
    }
    assert_eq!(bed.all("polled").await, bed.all("many-calm").await);
    // Now that these two may watch, they do, and the server says so.
    wait_for("two change streams", || async { (change_streams(bed).await >= 2).then_some(()) })
        .await;
    jobs::stop(&worker).await;

    for place in ["map.call", "map.commit"] {
        a_worker_frozen_past_its_lease_is_fenced(bed, place).await;
    }
    a_late_commit_is_fenced_by_its_token(bed).await;
    a_worker_told_to_stop_hands_its_task_back(bed).await;
    jobs::stop(&coordinator).await;
    a_lost_block_is_made_again(bed).await;
}

/// In the middle of its work a worker finds out by itself that its lease is over; past its last look at the lease
/// it sends the commit, and the servers refuse it.
async fn a_worker_frozen_past_its_lease_is_fenced(bed: &Bed, place: &str) {
    let paused = bed.paused_worker(place);
    let first = &paused.process;
    let (frozen, thawed) = (format!("frozen-{place}"), format!("thawed-{place}"));
    let id = Ask::new("few", &frozen).submit(bed).await;
    paused.arrived().await;
    first.freeze().expect("frozen");
    let held = jobs::held_by(bed, &id, first).await;
    let first_token = held.get_str("token").expect("a token");

    let second = bed.worker();
    jobs::succeeded(bed, &id).await;
    let expected = bed.all("few-calm").await;
    assert_eq!(bed.all(&frozen).await, expected);
    paused.go_on();
    first.thaw().expect("thawed");
    first.wait_for_log("fenced").await.expect("the first worker learns that it lost the lease");

    let task = jobs::again(bed, &held).await;
    assert_eq!(jobs::outcomes(&task), ["lost", "done"]);
    let worker_of = |n: usize| jobs::history(&task)[n].get_str("worker").expect("a worker");
    assert!(jobs::is_of(worker_of(0), first) && jobs::is_of(worker_of(1), &second));
    assert_eq!(jobs::number(&task, "epoch"), 2);
    let result = task.get_document("result").expect("a result");
    assert_ne!(jobs::text(result, "token"), first_token, "the second attempt's result counts");
    assert!(!first.log().expect("its log").contains("committed"), "the first committed nothing");
    assert_eq!(bed.all(&frozen).await, expected);
    jobs::nothing_left(bed).await;

    // It is as good a worker as any other afterwards.
    jobs::stop(&second).await;
    let again = Ask::new("few", &thawed).submit(bed).await;
    jobs::succeeded(bed, &again).await;
    assert!(first.log().expect("its log").contains("committed"));
    assert_eq!(bed.all(&thawed).await, expected);
    jobs::stop(first).await;
    jobs::nothing_left(bed).await;
}

/// The task is on lease again when the commit arrives, so that nothing but the token tells the two attempts apart.
async fn a_late_commit_is_fenced_by_its_token(bed: &Bed) {
    let late = bed.paused_worker("map.commit");
    let id = Ask::new("few", "late-commit").submit(bed).await;
    late.arrived().await;
    late.process.freeze().expect("frozen");
    let held = jobs::held_by(bed, &id, &late.process).await;
    let holder = bed.paused_worker("map.commit");
    holder.arrived().await;
    let now = jobs::held_by(bed, &id, &holder.process).await;
    assert_eq!(now.get("_id"), held.get("_id"), "it is the same task");
    late.go_on();
    late.process.thaw().expect("thawed");
    late.process.wait_for_log("fenced").await.expect("its commit is refused");
    let now = jobs::held_by(bed, &id, &holder.process).await;
    assert!(now.get("result").is_none(), "nothing was committed: {now:#?}");
    // Only now, so that it could not take the task once more.
    jobs::stop(&late.process).await;
    holder.go_on();
    jobs::succeeded(bed, &id).await;
    let task = jobs::again(bed, &held).await;
    assert_eq!(jobs::outcomes(&task), ["lost", "done"]);
    assert_eq!(bed.all("late-commit").await, bed.all("few-calm").await);
    jobs::stop(&holder.process).await;
    jobs::nothing_left(bed).await;
}

async fn a_worker_told_to_stop_hands_its_task_back(bed: &Bed) {
    let paused = bed.paused_worker("map.call");
    let first = &paused.process;
    let id = Ask::new("few", "drained").submit(bed).await;
    paused.arrived().await;
    let held = jobs::held_by(bed, &id, first).await;
    first.terminate().expect("it runs");
    first.wait_for_log("draining").await.expect("it obeys");
    paused.go_on();
    jobs::stopped(first).await;
    let task = jobs::again(bed, &held).await;
    assert_eq!(jobs::text(&task, "state"), "ready", "{task:#?}");
    assert_eq!(jobs::number(&task, "attempts"), 0, "the attempt is not burnt");
    assert_eq!(jobs::outcomes(&task), ["drained"]);
    assert!(jobs::is_of(jobs::history(&task)[0].get_str("worker").expect("a worker"), first));

    let second = bed.worker();
    jobs::succeeded(bed, &id).await;
    let task = jobs::again(bed, &held).await;
    assert_eq!(jobs::outcomes(&task), ["drained", "done"]);
    assert_eq!(jobs::number(&task, "attempts"), 1);
    assert_eq!(bed.all("drained").await, bed.all("few-calm").await);
    jobs::stop(&second).await;
    jobs::nothing_left(bed).await;
}

async fn a_lost_block_is_made_again(bed: &Bed) {
    let doomed = bed.spawn(
        "coordinator",
        &["coordinator"],
        &[("AVIARY_HALT_AT", "reducing"), ("AVIARY_SPLIT_BYTES", jobs::SPLIT_BYTES)],
    );
    let worker = bed.worker();
    let id = Ask::new("many", "lost-block").submit(bed).await;
    jobs::kill_at(&doomed, "reducing").await;
    let before = jobs::tasks(bed, &id).await;
    let is_map = |task: &&Document| jobs::text(task, "kind") == "map";
    assert!(before.iter().filter(is_map).all(|task| jobs::text(task, "state") == "done"));
    let blocks = bed.coll("aviary-intermediates");
    let block = blocks.find_one(doc! { "_id": { "$regex": format!("^{id}/") } }).await;
    let block = block.expect("read").expect("a block");
    let this = doc! { "_id": block.get("_id"), "shard": block.get("shard") };
    assert_eq!(blocks.delete_one(this).await.expect("deleted").deleted_count, 1);
    // JOB/pPARTITION/TASK/TOKEN/RUN.SEQ
    let name = block.get_str("_id").expect("a name");
    let n: i64 = name.split('/').nth(2).expect("a task").parse().expect("a number");

    let coordinator = jobs::coordinator(bed);
    jobs::succeeded(bed, &id).await;
    let tasks = jobs::tasks(bed, &id).await;
    for task in tasks.iter().filter(is_map) {
        let expected: &[&str] =
            if jobs::number(task, "n") == n { &["done", "done"] } else { &["done"] };
        assert_eq!(jobs::outcomes(task), expected, "{task:#?}");
    }
    let waited =
        tasks.iter().any(|task| jobs::outcomes(task).contains(&"block missing".to_owned()));
    assert!(waited, "a reduce task found the block missing");
    assert_eq!(bed.all("lost-block").await, bed.all("many-calm").await);
    jobs::nothing_left(bed).await;
    jobs::stop(&worker).await;
    jobs::stop(&coordinator).await;
}

/// Runs before any daemon that watches: a stream outlives its process on the server for minutes.
async fn polling_alone_suffices(bed: &Bed) {
    let mute = [("AVIARY_WATCH", "0"), ("AVIARY_SPLIT_BYTES", jobs::SPLIT_BYTES)];
    let coordinator = bed.spawn("coordinator", &["coordinator"], &mute);
    let worker = bed.spawn("worker", &["worker", "--slots", "1"], &mute);
    let id = Ask::new("many", "polled").submit(bed).await;
    jobs::succeeded(bed, &id).await;
    assert_eq!(change_streams(bed).await, 0);
    jobs::nothing_left(bed).await;
    jobs::stop(&worker).await;
    jobs::stop(&coordinator).await;
}

/// How many change streams the servers have open for anybody.
async fn change_streams(bed: &Bed) -> usize {
    let mut count = 0;
    for server in bed.servers().await {
        let cursors: Vec<Document> = server
            .database("admin")
            .aggregate([
                doc! { "$currentOp": { "allUsers": true, "idleCursors": true } },
                doc! { "$match": { "cursor.originatingCommand.pipeline.0.$changeStream": { "$exists": true } } },
            ])
            .await
            .expect("asked")
            .try_collect()
            .await
            .expect("read");
        count += cursors.len();
    }
    count
}
