//! What the tests here ask for, and how they look at it.

use std::time::Duration;

use aviary_testcontainers::Managed;
use bson::{Bson, Document, doc};
use mongodb::options::ReadConcern;

use crate::common::{Bed, wait_for};

/// How long a daemon may take to end in good order.
const GRACE: Duration = Duration::from_secs(60);

/// Emits a 1 for each document under each of so many keys.
pub const COUNT_IN: &str = "function () { emit(this._id % this.keys, 1); }";

/// `documents` documents whose keys are the numbers below `keys`.
pub async fn load(bed: &Bed, name: &str, documents: i32, keys: i32) {
    bed.load(name, (0..documents).map(|n| doc! { "_id": n, "keys": keys }).collect()).await;
}

/// Submits a job that counts by key, and returns its id.
pub async fn submit(bed: &Bed, input: &str, out: &str, more: &[&str]) -> String {
    let map = bed.file("count.js", COUNT_IN).display().to_string();
    let mut args = vec!["submit", "--detach", "-o", "name", "-c", input, "--out", out];
    args.extend(["--map", &map, "--partitions", "1"]);
    if !more.contains(&"--map-only") {
        args.extend(["--reduce", "_sum"]);
    }
    args.extend(more.iter().filter(|flag| **flag != "--map-only"));
    bed.aviary(&args).await.ok().stdout.trim().to_owned()
}

/// A job's document.
pub async fn job(bed: &Bed, id: &str) -> Document {
    wait_for("the job's document", || async {
        bed.coll("aviary").find_one(doc! { "_id": id }).await.ok().flatten()
    })
    .await
}

/// Waits until a job is wished to be cancelled, so that whoever reads it sees that: daemons read what a majority has.
pub async fn wished_cancelled(bed: &Bed, id: &str) {
    wait_for("the wish", || async {
        let wished = doc! { "_id": id, "cancel": true };
        let aviary = bed.coll("aviary");
        let read = aviary.find_one(wished).read_concern(ReadConcern::majority());
        read.await.ok().flatten()
    })
    .await;
}

/// The state that a job is in.
pub async fn state(bed: &Bed, id: &str) -> String {
    job(bed, id).await.get_str("state").expect("a state").to_owned()
}

/// Waits until a job is in one of these states, and cleaned up after if it ended.
pub async fn reaches(bed: &Bed, id: &str, states: &[&str]) -> Document {
    wait_for(&format!("job {id} to be {states:?}"), || async {
        let job = job(bed, id).await;
        let state = job.get_str("state").expect("a state").to_owned();
        let ended = ["succeeded", "failed", "cancelled"].contains(&state.as_str());
        assert!(!ended || states.contains(&state.as_str()), "{job:#?}");
        let settled = !ended || job.get_bool("cleaned").expect("a flag");
        (states.contains(&state.as_str()) && settled).then_some(job)
    })
    .await
}

/// Waits until a job has succeeded and been cleaned up after.
pub async fn succeeded(bed: &Bed, id: &str) -> Document {
    reaches(bed, id, &["succeeded"]).await
}

/// The sum of a target's values.
pub async fn total(bed: &Bed, target: &str) -> i64 {
    bed.all(target).await.iter().map(|row| number(row, "value")).sum()
}

/// A field that holds a whole number, of whatever type.
pub fn number(document: &Document, field: &str) -> i64 {
    match document.get(field) {
        Some(Bson::Int32(number)) => i64::from(*number),
        Some(Bson::Int64(number)) => *number,
        Some(Bson::Double(number)) if number.fract() == 0.0 => *number as i64,
        other => panic!("{field} is {other:?} in {document}"),
    }
}

/// Kills a process that has halted.
pub async fn kill(process: &Managed) {
    process.wait_for_log("halted").await.expect("it reaches the place");
    process.kill().expect("killed");
    process.wait_gone(GRACE).await.expect("gone");
}

/// Ends a daemon as an operator would.
pub async fn stop(process: &Managed) {
    process.terminate().expect("it runs");
    process.wait_gone(GRACE).await.expect("it ends");
}

/// How the attempts of a job's publish task ended.
pub async fn publish_history(bed: &Bed, id: &str) -> Vec<String> {
    let task = doc! { "job": id, "kind": "publish" };
    let task = bed.coll("aviary").find_one(task).await.expect("read").expect("a publish task");
    let history = task.get_array("history").expect("a history").iter();
    history
        .map(|entry| entry.as_document().expect("a document").get_str("outcome").expect("a word"))
        .map(str::to_owned)
        .collect()
}

/// Makes sure that nothing of any job's is left, turns included.
pub async fn nothing_left(bed: &Bed) {
    wait_for("leftovers to go", || async { bed.leftovers().await.is_empty().then_some(()) }).await;
    wait_for("turns to be released", || async {
        let turn = bed.coll("aviary").find_one(doc! { "kind": "turn" }).await.expect("read");
        turn.is_none().then_some(())
    })
    .await;
}
