//! What comes late, and what is removed too early: found by `tests/explorer`, claimed here on a real server.

use crate::common::Bed;
use aviary::config::Settings;
use aviary::coordinator::gc;
use aviary::error::Error;
use aviary::ids::{JobId, WorkerId};
use aviary::job::{FunctionRef, Job, JobSpec};
use aviary::store::leases::Want;
use aviary::store::turns::Turn;
use aviary::store::{ConnectOptions, Store};
use aviary::task::{Marks, Publish, Task, TaskKind, TaskState};
use bson::{Bson, doc};

async fn store(bed: &Bed) -> Store {
    let (shard, shard_uri) = bed.first_shard();
    let options = ConnectOptions {
        uri: bed.uri(),
        db: Some("test".into()),
        any_db: false,
        app_name: "late".into(),
        shard,
        shard_uri,
        trusted: Default::default(),
    };
    let store = Store::connect(&options).await.unwrap();
    store.init().await.unwrap();
    store
}

/// A job that no coordinator sees.
async fn submitted(store: &Store) -> Job {
    let map = FunctionRef { digest: "0".repeat(64), language: "js".into(), name: None };
    let spec = doc! {
        "input": { "db": "test", "collection": "docs" },
        "map": bson::serialize_to_bson(&map).unwrap(),
        "reduce": { "builtin": "_sum" },
        "output": { "mode": "reduce", "db": "test", "collection": "totals" },
    };
    let spec: JobSpec = bson::deserialize_from_document(spec).unwrap();
    let job = Job::new(JobId::generate(), store.home(), spec, bson::DateTime::now());
    store.insert_job(&job).await.unwrap();
    store.job(&job.id).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_late_takes_nothing_back_and_what_is_needed_stays() {
    let bed = Bed::start(1).await;
    let store = store(&bed).await;
    bed.load("docs", vec![doc! { "_id": 1 }]).await;
    a_late_note_takes_no_later_one_back(&bed, &store).await;
    a_turn_outlives_the_tasks_of_abandoned_plans(&bed, &store).await;
    tasks_of_a_removed_job_are_swept(&bed, &store).await;
}

async fn a_late_note_takes_no_later_one_back(bed: &Bed, store: &Store) {
    let job = submitted(store).await;
    // Only tasks of open jobs are claimed.
    let of_job = doc! { "_id": job.id.as_str() };
    let publishing = doc! { "$set": { "state": "publishing", "plan": 1 } };
    bed.coll("aviary").update_one(of_job.clone(), publishing).await.unwrap();
    let job = store.job(&job.id).await.unwrap().unwrap();
    let uuid = Bson::String("the results".into());
    let noted = |counted, completed| Publish {
        uuid: uuid.clone(),
        rows: 1,
        marks: Marks { counted, completed, ..Marks::default() },
    };
    let task = Task {
        state: TaskState::Ready,
        publish: Some(noted(false, false)),
        ..Task::planned(TaskKind::Publish, &job.id, job.plan, 0, store.home())
    };
    store.insert_tasks(&[task]).await.unwrap();
    let worker = WorkerId::generate("w");
    let settings = Settings { lease_ttl_ms: 3_600_000, ..Settings::default() };
    let claimed = store.claim(&worker, Want::now(1), &settings).await.unwrap().remove(0);
    store.note_publish(&claimed.lease, &noted(true, false)).await.unwrap();
    let whole = Publish { uuid: Bson::String("the whole".into()), ..noted(true, true) };
    store.note_publish(&claimed.lease, &whole).await.unwrap();
    // The same attempt's first note, sent again by a connection that was slow.
    let late = store.note_publish(&claimed.lease, &noted(true, false)).await;
    assert!(matches!(late, Err(Error::LeaseLost(_))), "{late:?}");
    store.note_publish(&claimed.lease, &whole).await.expect("a repeat is harmless");
    let now = store.publish_task(&job).await.unwrap().unwrap();
    assert_eq!(now.publish, Some(whole));
    let submitted = doc! { "$set": { "state": "submitted" } };
    bed.coll("aviary").update_one(of_job, submitted).await.unwrap();
    bed.aviary(&["cancel", job.id.as_str()]).await.ok();
}

async fn a_turn_outlives_the_tasks_of_abandoned_plans(bed: &Bed, store: &Store) {
    let job = submitted(store).await;
    assert_eq!(store.take_turn(&job).await.unwrap(), Turn::Mine);
    let abandoned = Task::planned(TaskKind::Map, &job.id, job.plan + 1, 0, store.home());
    store.insert_tasks(&[abandoned]).await.unwrap();
    assert_eq!(
        store.delete_stale_plans(job.plan, &job.id).await.unwrap(),
        1,
        "the task, and nothing else"
    );
    let held = store.turns("").await.unwrap();
    assert!(held.iter().any(|(_, holder)| *holder == job.id), "{held:?}");
    bed.aviary(&["cancel", job.id.as_str()]).await.ok();
}

async fn tasks_of_a_removed_job_are_swept(bed: &Bed, store: &Store) {
    let job = submitted(store).await;
    bed.aviary(&["cancel", job.id.as_str()]).await.ok();
    bed.aviary(&["rm", job.id.as_str()]).await.ok();
    // A coordinator that was frozen while it planned.
    let late = Task::planned(TaskKind::Map, &job.id, 1, 0, store.home());
    store.insert_tasks(&[late]).await.unwrap();
    gc::Sweeper::new(store.clone()).sweep().await;
    let left = bed.coll("aviary").count_documents(doc! { "job": job.id.as_str() }).await.unwrap();
    assert_eq!(left, 0);
}
