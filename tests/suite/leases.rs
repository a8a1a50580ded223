//! The lease protocol on a real server: who may claim, who may write, what a commit leaves.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use crate::common::{Bed, wait_for};
use aviary::config::{ATTEMPTS_MAX, LOST_MAX, Settings};
use aviary::error::Error;
use aviary::ids::{JobId, TaskId, Token, WorkerId};
use aviary::store::leases::{Claimed, Failure, HandBack, Want};
use aviary::store::{ConnectOptions, Store};
use aviary::task::{Lease, Task, TaskKind, TaskResult, TaskState};
use bson::{Document, doc};

/// Long enough never to run out while a test needs it.
fn long() -> Settings {
    Settings { lease_ttl_ms: 3_600_000, ..Settings::default() }
}

/// Runs out by itself, soon.
fn short() -> Settings {
    Settings { lease_ttl_ms: 50, lease_margin_ms: 0, ..Settings::default() }
}

async fn store(bed: &Bed) -> Store {
    let (shard, shard_uri) = bed.first_shard();
    let options = ConnectOptions {
        uri: bed.uri(),
        db: Some("test".into()),
        any_db: false,
        app_name: "leases".into(),
        shard,
        shard_uri,
        trusted: Default::default(),
    };
    let store = Store::connect(&options).await.unwrap();
    store.init().await.unwrap();
    assert_eq!(store.verify_placement().await.unwrap(), bed.first_shard().1.is_some());
    store
}

fn ready(store: &Store, job: &JobId, n: u32) -> Task {
    Task { state: TaskState::Ready, ..Task::planned(TaskKind::Map, job, 1, n, store.served_name()) }
}

async fn fresh(bed: &Bed, store: &Store, count: u32) -> JobId {
    bed.coll("aviary").delete_many(doc! { "kind": { "$in": ["map", "job"] } }).await.unwrap();
    let job = JobId::generate();
    // Only tasks of open jobs are claimed.
    let open = doc! {
        "_id": job.as_str(), "kind": "job", "shard": store.home(), "state": "mapping", "priority": 0, "plan": 1,
        "map_tasks": i64::from(count), "reduce_tasks": 0_i64, "spec": {}, "created": bson::DateTime::now(),
    };
    bed.coll("aviary").insert_one(open).await.unwrap();
    let tasks: Vec<Task> = (0..count).map(|n| ready(store, &job, n)).collect();
    store.insert_tasks(&tasks).await.unwrap();
    job
}

async fn one(store: &Store, settings: &Settings) -> Claimed {
    wait_for("a claim", || async {
        store.claim(&WorkerId::generate("w"), Want::now(1), settings).await.unwrap().pop()
    })
    .await
}

fn result(lease: &Lease) -> TaskResult {
    TaskResult { token: lease.token.clone(), parts: Vec::new(), counters: doc! { "input": 1_i64 } }
}

async fn document(bed: &Bed, id: &TaskId) -> Document {
    bed.coll("aviary").find_one(doc! { "_id": id.as_str() }).await.unwrap().unwrap()
}

fn outcomes(task: &Document) -> Vec<String> {
    let history = task.get_array("history").unwrap();
    history
        .iter()
        .map(|entry| entry.as_document().unwrap().get_str("outcome").unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_protocol_holds_on_a_real_server() {
    let bed = Bed::start(1).await;
    let store = store(&bed).await;
    for want in [Want::now(3), Want { now: 2, ahead: 10 }] {
        no_task_is_claimed_twice_by_many_claimers(&bed, &store, want).await;
    }
    half_of_what_may_wait_is_left_to_others(&bed, &store).await;
    what_was_lost_is_not_claimed_ahead(&bed, &store).await;
    a_task_that_cannot_be_claimed_keeps_no_other_from_it(&bed, &store).await;
    a_fenced_commit_takes_no_other_along(&bed, &store).await;
    a_late_commit_after_a_reclaim_is_fenced(&bed, &store).await;
    a_repeated_commit_is_recognised_as_done(&bed, &store).await;
    a_held_lease_is_not_given_away_and_renewal_is_fenced(&bed, &store).await;
    failures_back_off_and_end_in_quarantine(&bed, &store).await;
    a_drained_task_keeps_its_attempts(&bed, &store).await;
    a_task_that_loses_its_worker_too_often_is_given_up(&bed, &store).await;
    a_lost_lease_is_no_failure(&bed, &store).await;
    a_cancelled_task_fences_its_holder(&bed, &store).await;
    one_holder_has_the_role_of_coordinator(&store).await;
}

async fn no_task_is_claimed_twice_by_many_claimers(bed: &Bed, store: &Store, want: Want) {
    const TASKS: u32 = 60;
    fresh(bed, store, TASKS).await;
    let claimers = (0..8).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let worker = WorkerId::generate(&format!("w{n}"));
            let mut mine = Vec::new();
            // A claimer that loses every race of one look tries again while there is any left.
            let mut empty = 0;
            while empty < 20 {
                let claimed = store.claim(&worker, want, &long()).await.unwrap();
                empty = if claimed.is_empty() { empty + 1 } else { 0 };
                mine.extend(claimed.into_iter().map(|c| (c.task.id, c.task.epoch)));
            }
            mine
        })
    });
    let mut seen = HashSet::new();
    for claimer in claimers.collect::<Vec<_>>() {
        for (id, epoch) in claimer.await.unwrap() {
            assert_eq!(epoch, 1, "{id} was claimed before");
            assert!(seen.insert(id.clone()), "{id} was claimed twice");
        }
    }
    assert_eq!(seen.len(), TASKS as usize);
}

async fn half_of_what_may_wait_is_left_to_others(bed: &Bed, store: &Store) {
    fresh(bed, store, 10).await;
    let worker = WorkerId::generate("w");
    let claimed = store.claim(&worker, Want { now: 2, ahead: 64 }, &long()).await.unwrap();
    assert_eq!(claimed.len(), 2 + (10 - 2) / 2);
    for one in claimed {
        assert_eq!(one.task.state, TaskState::Leased);
        assert_eq!(one.task.token.as_ref(), Some(&one.lease.token));
        assert!(one.lease.is_trusted());
    }
    let rest = store.claim(&worker, Want::now(10), &long()).await.unwrap();
    assert_eq!(rest.len(), 4, "the others are still there");
}

/// What ends a worker may end the next one too, and would take along whatever waits behind it.
async fn what_was_lost_is_not_claimed_ahead(bed: &Bed, store: &Store) {
    const TASKS: i32 = 10;
    fresh(bed, store, TASKS as u32).await;
    let worker = WorkerId::generate("w");
    let lost = store.claim(&worker, Want::now(4), &short()).await.unwrap();
    assert_eq!(lost.len(), 4);
    wait_for("the leases to run out", || async {
        lost.iter().all(|one| !one.lease.is_trusted()).then_some(())
    })
    .await;
    let ahead = Want { now: 0, ahead: 64 };
    let mut claimed = Vec::new();
    while let more @ [_, ..] = &store.claim(&worker, ahead, &long()).await.unwrap()[..] {
        claimed.extend(more.iter().map(|one| (one.task.id.clone(), one.task.lost)));
    }
    assert_eq!(claimed.len(), 6, "{claimed:?}");
    assert!(claimed.iter().all(|(_, lost)| *lost == 0), "{claimed:?}");
    let rest = store.claim(&worker, Want::now(10), &long()).await.unwrap();
    assert_eq!(rest.iter().map(|one| one.task.lost).collect::<Vec<_>>(), [1; 4]);
}

async fn a_task_that_cannot_be_claimed_keeps_no_other_from_it(bed: &Bed, store: &Store) {
    let job = fresh(bed, store, 5).await;
    let stuck = TaskId::map(&job, 1, 2);
    let validate = async |validator: Document| {
        let change = doc! { "collMod": "aviary", "validator": validator };
        bed.db().run_command(change).await.unwrap();
    };
    let only = bed.db().list_collections().filter(doc! { "name": "aviary" }).await.unwrap();
    let before: Vec<_> = futures_util::TryStreamExt::try_collect(only).await.unwrap();
    let before: mongodb::results::CollectionSpecification = before.into_iter().next().unwrap();
    // Somebody's own idea of what a task may be.
    validate(doc! { "$or": [{ "_id": { "$ne": stuck.as_str() } }, { "state": "ready" }] }).await;
    let worker = WorkerId::generate("w");
    let claimed = store.claim(&worker, Want::now(5), &long()).await.unwrap();
    validate(before.options.validator.unwrap()).await;
    assert_eq!(claimed.len(), 4);
    assert!(claimed.iter().all(|one| one.task.id != stuck));
    assert_eq!(document(bed, &stuck).await.get_str("state").unwrap(), "ready");
}

async fn a_fenced_commit_takes_no_other_along(bed: &Bed, store: &Store) {
    fresh(bed, store, 1).await;
    let zombie = one(store, &short()).await;
    let heir = one(store, &long()).await;
    assert_eq!(zombie.task.id, heir.task.id);
    let job = heir.task.job.clone();
    let more: Vec<Task> = (1..4).map(|n| ready(store, &job, n)).collect();
    store.insert_tasks(&more).await.unwrap();
    let counts = doc! { "$set": { "map_tasks": 4_i64 } };
    bed.coll("aviary").update_one(doc! { "_id": job.as_str() }, counts).await.unwrap();
    let others = store.claim(&WorkerId::generate("w"), Want::now(3), &long()).await.unwrap();
    assert_eq!(others.len(), 3);
    let commit = |claimed: &Claimed| (claimed.lease.clone(), Arc::new(result(&claimed.lease)));

    let with_zombie = [commit(&zombie), commit(&others[0]), commit(&others[1])];
    assert!(!store.commit_batch(&with_zombie).await);
    let late = store.commit(&zombie.lease, &result(&zombie.lease)).await;
    assert!(matches!(late, Err(Error::LeaseLost(_))), "{late:?}");
    for other in &others[..2] {
        store.commit(&other.lease, &result(&other.lease)).await.unwrap();
        assert_eq!(outcomes(&document(bed, &other.task.id).await), ["done"]);
    }
    let task = document(bed, &zombie.task.id).await;
    assert_eq!(task.get_str("state").unwrap(), "leased", "it is the heir's");
    assert!(store.commit_batch(&[commit(&heir), commit(&others[2])]).await);
    for done in [&heir, &others[2]] {
        let task = document(bed, &done.task.id).await;
        let committed = task.get_document("result").unwrap().get_str("token").unwrap();
        assert_eq!(committed, done.lease.token.as_str());
        assert!(!task.contains_key("token"));
    }
}

async fn a_late_commit_after_a_reclaim_is_fenced(bed: &Bed, store: &Store) {
    fresh(bed, store, 1).await;
    let zombie = one(store, &short()).await;
    let heir = one(store, &long()).await;
    assert_eq!(zombie.task.id, heir.task.id);
    assert_ne!(zombie.lease.token, heir.lease.token);
    assert!(!zombie.lease.is_trusted(), "the zombie must not trust its own clock either");

    let late = store.commit(&zombie.lease, &result(&zombie.lease)).await;
    assert!(matches!(late, Err(Error::LeaseLost(_))), "{late:?}");
    let failure = Failure {
        code: "x".into(),
        message: "x".into(),
        retryable: true,
        attempts_max: ATTEMPTS_MAX,
    };
    assert!(!store.fail(&zombie.lease, &failure).await.unwrap());
    assert!(!store.release(&zombie.lease, &HandBack::drained()).await.unwrap());
    assert!(!store.renew(&zombie.lease, 0, &long()).await.unwrap());

    store.commit(&heir.lease, &result(&heir.lease)).await.unwrap();
    let task = document(bed, &heir.task.id).await;
    assert_eq!(task.get_str("state").unwrap(), "done");
    let committed = task.get_document("result").unwrap().get_str("token").unwrap();
    assert_eq!(committed, heir.lease.token.as_str());
    assert_eq!(outcomes(&task), ["lost", "done"]);
    assert!(!task.contains_key("token"), "a committed task holds no lease");
}

async fn a_repeated_commit_is_recognised_as_done(bed: &Bed, store: &Store) {
    fresh(bed, store, 1).await;
    let claimed = one(store, &long()).await;
    store.commit(&claimed.lease, &result(&claimed.lease)).await.unwrap();
    // As after a commit whose reply was lost.
    store.commit(&claimed.lease, &result(&claimed.lease)).await.unwrap();
    assert_eq!(outcomes(&document(bed, &claimed.task.id).await), ["done"]);
}

async fn a_held_lease_is_not_given_away_and_renewal_is_fenced(bed: &Bed, store: &Store) {
    fresh(bed, store, 1).await;
    let held = one(store, &long()).await;
    assert!(
        store.claim(&WorkerId::generate("other"), Want::now(1), &long()).await.unwrap().is_empty()
    );
    let before = document(bed, &held.task.id).await;
    assert!(
        store
            .renew(&held.lease, 42, &Settings { lease_ttl_ms: 7_200_000, ..long() })
            .await
            .unwrap()
    );
    let after = document(bed, &held.task.id).await;
    assert!(after.get_datetime("until").unwrap() > before.get_datetime("until").unwrap());
    assert_eq!(after.get_i64("progress").unwrap(), 42);
    let stranger = Lease::new(
        held.task.id.clone(),
        &held.task.shard,
        Token::generate(),
        Instant::now(),
        &long(),
    );
    assert!(!store.renew(&stranger, 0, &long()).await.unwrap());
}

async fn failures_back_off_and_end_in_quarantine(bed: &Bed, store: &Store) {
    fresh(bed, store, 1).await;
    let failure = |retryable| Failure {
        code: "io".into(),
        message: "the disk is tired".into(),
        retryable,
        attempts_max: ATTEMPTS_MAX,
    };
    for attempt in 1..=ATTEMPTS_MAX {
        let claimed = one(store, &long()).await;
        assert_eq!(claimed.task.attempts, attempt);
        assert!(store.fail(&claimed.lease, &failure(true)).await.unwrap());
        let task = document(bed, &claimed.task.id).await;
        assert_eq!(task.get_document("error").unwrap().get_str("code").unwrap(), "io");
        if attempt < ATTEMPTS_MAX {
            assert_eq!(task.get_str("state").unwrap(), "ready");
            let failed = task.get_array("history").unwrap().last().unwrap().as_document().unwrap();
            let (ended, again) =
                (failed.get_datetime("ended").unwrap(), task.get_datetime("not_before").unwrap());
            assert!(again > ended, "a failed task waits before it is tried again");
        } else {
            assert_eq!(task.get_str("state").unwrap(), "quarantined");
            assert_eq!(outcomes(&task), vec!["failed"; ATTEMPTS_MAX as usize]);
        }
    }
    assert!(store.claim(&WorkerId::generate("w"), Want::now(1), &long()).await.unwrap().is_empty());

    fresh(bed, store, 1).await;
    let claimed = one(store, &long()).await;
    assert!(store.fail(&claimed.lease, &failure(false)).await.unwrap());
    let task = document(bed, &claimed.task.id).await;
    assert_eq!(
        task.get_str("state").unwrap(),
        "quarantined",
        "what would fail again is not tried again"
    );
}

async fn a_drained_task_keeps_its_attempts(bed: &Bed, store: &Store) {
    fresh(bed, store, 1).await;
    let claimed = one(store, &long()).await;
    assert!(store.release(&claimed.lease, &HandBack::drained()).await.unwrap());
    let task = document(bed, &claimed.task.id).await;
    assert_eq!(task.get_i32("attempts").unwrap(), 0);
    assert_eq!(outcomes(&task), ["drained"]);
    let again = one(store, &long()).await;
    assert_eq!((again.task.attempts, again.task.epoch), (1, 2));
}

async fn a_task_that_loses_its_worker_too_often_is_given_up(bed: &Bed, store: &Store) {
    fresh(bed, store, 1).await;
    let mut last = None;
    for _ in 0..LOST_MAX {
        last = Some(one(store, &short()).await);
    }
    let id = last.unwrap().task.id;
    wait_for("the task is given up", || async {
        (store.quarantine_exhausted().await.unwrap() > 0).then_some(())
    })
    .await;
    let task = document(bed, &id).await;
    assert_eq!(task.get_str("state").unwrap(), "quarantined");
    assert_eq!(task.get_document("error").unwrap().get_str("code").unwrap(), "worker_lost");
    assert_eq!(outcomes(&task), vec!["lost"; LOST_MAX as usize]);
    assert!(store.claim(&WorkerId::generate("w"), Want::now(1), &long()).await.unwrap().is_empty());
}

async fn a_lost_lease_is_no_failure(bed: &Bed, store: &Store) {
    fresh(bed, store, 1).await;
    let failure = Failure {
        code: "io".into(),
        message: "the disk is tired".into(),
        retryable: true,
        attempts_max: ATTEMPTS_MAX,
    };
    for _ in 1..LOST_MAX {
        one(store, &short()).await;
    }
    for failures in 1..=ATTEMPTS_MAX {
        let claimed = one(store, &long()).await;
        assert_eq!(
            (claimed.task.attempts, claimed.task.lost),
            (LOST_MAX - 1 + failures, LOST_MAX - 1)
        );
        assert!(store.fail(&claimed.lease, &failure).await.unwrap());
        assert_eq!(store.quarantine_exhausted().await.unwrap(), 0);
        let task = document(bed, &claimed.task.id).await;
        let state = if failures < ATTEMPTS_MAX { "ready" } else { "quarantined" };
        assert_eq!(task.get_str("state").unwrap(), state);
    }
}

async fn a_cancelled_task_fences_its_holder(bed: &Bed, store: &Store) {
    let job = fresh(bed, store, 2).await;
    let held = one(store, &long()).await;
    assert_eq!(store.cancel_tasks(&job).await.unwrap(), 2);
    assert!(!store.renew(&held.lease, 0, &long()).await.unwrap());
    let late = store.commit(&held.lease, &result(&held.lease)).await;
    assert!(matches!(late, Err(Error::LeaseLost(_))), "{late:?}");
    assert!(store.claim(&WorkerId::generate("w"), Want::now(2), &long()).await.unwrap().is_empty());
}

async fn one_holder_has_the_role_of_coordinator(store: &Store) {
    let (a, b) = (WorkerId::generate("a"), WorkerId::generate("b"));
    let (ta, tb) = (Token::generate(), Token::generate());
    // The first call may only create the document.
    let _ = store.hold_role(&a, &ta, &long()).await.unwrap();
    assert!(store.hold_role(&a, &ta, &long()).await.unwrap().is_some());
    assert!(store.hold_role(&b, &tb, &long()).await.unwrap().is_none());
    assert!(store.hold_role(&a, &ta, &long()).await.unwrap().is_some(), "the holder may stay");
    store.release_role(&tb).await.unwrap();
    assert!(
        store.hold_role(&b, &tb, &long()).await.unwrap().is_none(),
        "only the holder gives it up"
    );
    store.release_role(&ta).await.unwrap();
    assert!(store.hold_role(&b, &tb, &short()).await.unwrap().is_some());
    wait_for("the role falls free", || async { store.hold_role(&a, &ta, &long()).await.unwrap() })
        .await;
}

/// Short tasks are claimed ahead. When one of them turns out to be long, what was claimed behind it is not kept from others.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_too_long_behind_a_task_is_handed_back() {
    const TASKS: i32 = 300;
    let bed = Bed::start(1).await;
    bed.aviary(&["init"]).await.ok();
    bed.load("input", (0..TASKS).map(|n| doc! { "_id": n, "n": n }).collect()).await;
    let small = [("AVIARY_SPLIT_BYTES", "1")];
    let _coordinator = bed.spawn("coordinator", &["coordinator"], &small);
    let _worker = bed.spawn("worker", &["worker", "--slots", "1"], &[]);
    let map = "function () { if (this.n === 200) { console.log('begun'); while (true); } }";
    let args = ["submit", "-q", "-o", "name", "-c", "input", "--map", map, "--detach"];
    let submitted = bed.aviary(&[&args[..], &["--record-timeout", "12h"]].concat()).await.ok();
    let id = submitted.stdout.trim().to_owned();
    wait_for("the endless task", || async {
        bed.coll("aviary").find_one(doc! { "job": &id, "kind": "log" }).await.unwrap()
    })
    .await;
    // With one slot, nothing else runs from here on.
    let tasks = wait_for("all others to be free", || async {
        let mine = doc! { "job": &id, "kind": "map" };
        let mine = bed.coll("aviary").find(mine).await.unwrap();
        let tasks: Vec<Document> = futures_util::TryStreamExt::try_collect(mine).await.unwrap();
        let leased = tasks.iter().filter(|task| is_in(task, "leased")).count();
        (leased == 1).then_some(tasks)
    })
    .await;
    let handed_back = tasks.iter().filter(|task| {
        is_in(task, "ready")
            && task.contains_key("history")
            && outcomes(task).last().is_some_and(|last| last == "drained")
    });
    println!("{} tasks, {} of them handed back", tasks.len(), handed_back.count());
    bed.aviary(&["cancel", &id]).await.ok();
}

fn is_in(task: &Document, state: &str) -> bool {
    task.get_str("state").is_ok_and(|now| now == state)
}
