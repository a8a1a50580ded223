//! A database user writes documents into Aviary's collections that would stop the fleet, or hold up others' jobs.

use bson::{Bson, DateTime, Document, doc};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::common::attacked;
use crate::forged::{fresh, id_of, spec};
use crate::stage::Stage;
use crate::{Attack, Outcome, Role};

pub const ATTACKS: &[Attack] = &[
    attack("tasks of no job in front of all others", |stage| front(stage).boxed()),
    attack("lost tasks that cannot be given up keep others from it", |stage| lost(stage).boxed()),
    attack("names too long for any reply end the sweep", |stage| long_names(stage).boxed()),
];

const fn attack(
    name: &'static str,
    run: for<'a> fn(&'a Stage) -> BoxFuture<'a, Outcome>,
) -> Attack {
    Attack { role: Role::Database, name, run }
}

/// What the runner sees is what counts.
fn written(what: impl Into<String>) -> Outcome {
    Outcome::Held(format!("{}; an honest job is done as before", what.into()))
}

async fn front(stage: &Stage) -> Outcome {
    stage.unchecked("aviary").await;
    let forger = stage.forger();
    let tasks = (0..8_000).map(|n| {
        let job = fresh();
        let mut task = forger.ready(&job);
        let id = format!("{job}/map/1.{n:05}x");
        task.extend(doc! { "_id": id, "priority": i32::MAX, "epoch": "x" });
        task
    });
    stage.insert("aviary", tasks.collect()).await;
    written("8000 tasks")
}

/// A job whose workers have vanished again and again ends, whatever lies beside its task.
async fn lost(stage: &Stage) -> Outcome {
    let forger = stage.forger();
    stage.unchecked("aviary").await;
    let past = DateTime::from_millis(1);
    let vanished =
        doc! { "state": "leased", "until": past, "lost": 20, "token": "t", "epoch": 20_i64 };
    let tasks =
        [doc! { "worker": 5 }, doc! { "history": "x" }, doc! { "worker": { "a": 1 }, "lost": 9e9 }];
    let tasks = tasks.map(|more| {
        let mut task = forger.ready(&fresh());
        task.extend(vanished.clone());
        task.extend(more);
        task
    });
    stage.insert("aviary", tasks.into()).await;
    let mut job = forger.at_work(doc! { "state": "mapping", "plan": 1, "map_tasks": 1_i64 });
    let id = id_of(&job);
    spec(&mut job).insert(
        "output",
        doc! { "mode": "replace", "db": "test", "collection": format!("out-{id}") },
    );
    let mut task = forger.ready(&id);
    task.extend(vanished);
    stage.insert("aviary", vec![job, task]).await;
    let ended = stage.settled(&id).await;
    stage.bed.coll("aviary").delete_many(doc! { "token": "t" }).await.expect("removed");
    Outcome::if_true(ended.is_none(), format!("the job ends: {}", ended.is_some()))
}

/// What a removed job has left behind goes, and goes with these documents beside it too.
async fn leftovers(stage: &Stage, hostile: Vec<Document>) -> Outcome {
    let map = stage.map();
    let ran = stage.submit(&["--map", &map, "--reduce", "_count", "--out", "replace:gone"]).await;
    let removed = ran.expect("it ends").ok().stdout.trim().to_owned();
    let rm = stage.run(&["rm", &removed]).await;
    rm.expect("it ends").ok();
    stage.unchecked("aviary").await;
    let left = format!("aviary-out-{removed}");
    let goes = async || {
        stage.insert(&left, vec![doc! { "_id": 1 }]).await;
        let gone = || async {
            let names = stage.bed.db().list_collection_names().await.expect("listed");
            (!names.contains(&left)).then_some(())
        };
        // A coordinator looks every 30 seconds.
        for _ in 0..3 {
            if stage.within(gone).await.is_some() {
                return true;
            }
        }
        false
    };
    if attacked().is_some() {
        assert!(goes().await, "what a removed job left goes without an attack");
    }
    stage.insert("aviary", hostile).await;
    let gone = goes().await;
    Outcome::if_true(!gone, format!("what a removed job left goes: {gone}"))
}

async fn long_names(stage: &Stage) -> Outcome {
    let forger = stage.forger();
    let shard = forger.shard();
    let mut hostile: Vec<Document> = Vec::new();
    for n in 0..1_000 {
        let long = format!("{n:05}{}", "x".repeat(20_000));
        let mut task = forger.ready(&long);
        task.extend(doc! { "_id": format!("{n}"), "state": "planned" });
        hostile.push(task);
        let removed =
            doc! { "_id": format!("removed{n}"), "kind": "removed", "shard": shard, "db": long };
        hostile.push(removed);
    }
    hostile.push(doc! { "_id": "removed", "kind": "removed", "shard": shard, "db": Bson::Null });
    leftovers(stage, hostile).await
}
