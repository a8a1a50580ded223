//! Data, functions and questions that the fault tests share.

use std::time::Duration;

use aviary_testcontainers::Managed;
use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;

use crate::common::{Bed, wait_for};

/// Small splits, so that little data makes several map tasks.
pub const SPLIT_BYTES: &str = "262144";

/// How long a daemon may take to end in good order.
const GRACE: Duration = Duration::from_secs(60);

const MAP: &str = "function () { emit(this.k, {n: 1, total: this.v, max: this.v}); }";

const REDUCE: &str = "function (key, values) {
  const sum = {n: 0, total: 0, max: 0};
  for (const value of values) {
    sum.n += value.n;
    sum.total += value.total;
    sum.max = Math.max(sum.max, value.max);
  }
  return sum;
}";

/// What a job is made of.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    pub input: &'static str,
    pub output: String,
    /// Another map and reduce than the usual.
    pub functions: Option<(&'static str, &'static str)>,
    /// Another way to the output than replacing it.
    pub mode: Option<&'static str>,
    /// More flags.
    pub flags: Vec<&'static str>,
}

impl Ask {
    pub fn new(input: &'static str, output: &str) -> Self {
        Self { input, output: output.to_owned(), ..Self::default() }
    }

    /// Submits the job and returns its id.
    pub async fn submit(&self, bed: &Bed) -> String {
        let (map, reduce) = self.functions.unwrap_or((MAP, REDUCE));
        let out = &self.output;
        let map = bed.file(&format!("{out}-map.js"), map).display().to_string();
        let reduce = bed.file(&format!("{out}-reduce.js"), reduce).display().to_string();
        let target = format!("{}:{out}", self.mode.unwrap_or("replace"));
        let mut args = vec!["submit", "-c", self.input, "--out", &target, "--partitions", "3"];
        args.extend(["--map", &map, "--reduce", &reduce]);
        args.extend(["--detach", "-o", "name"]);
        args.extend(&self.flags);
        bed.aviary(&args).await.ok().stdout.trim().to_owned()
    }
}

/// 24,000 small documents: every partition gets more keys than one write takes.
pub async fn load_many(bed: &Bed) {
    const KEYS: i32 = 18_000;
    if has(bed, "many").await {
        return;
    }
    bed.spread("many").await;
    let docs = (0..24_000).map(|i| doc! { "_id": i, "k": i * 7_919 % KEYS, "v": i % 1_000 });
    bed.load("many", docs.collect()).await;
}

/// 600 documents of 60 keys.
pub async fn load_few(bed: &Bed) {
    if has(bed, "few").await {
        return;
    }
    bed.spread("few").await;
    let docs = (0..600).map(|i| doc! { "_id": i, "k": i * 7 % 60, "v": i % 100 });
    bed.load("few", docs.collect()).await;
}

async fn has(bed: &Bed, collection: &str) -> bool {
    bed.coll(collection).find_one(doc! {}).await.expect("read").is_some()
}

/// A coordinator that plans small splits.
pub fn coordinator(bed: &Bed) -> Managed {
    bed.spawn("coordinator", &["coordinator"], &[("AVIARY_SPLIT_BYTES", SPLIT_BYTES)])
}

/// Ends a daemon as an operator would; it must obey and say that all went well.
pub async fn stop(process: &Managed) {
    process.terminate().expect("it runs");
    stopped(process).await;
}

/// Waits for the end of a daemon that was told to stop, which must be a good one.
pub async fn stopped(process: &Managed) {
    process.wait_gone(GRACE).await.expect("it ends");
    let status = process.wait().await.expect("waited");
    assert!(status.success(), "{status}: {}", process.log().expect("its log"));
}

/// Kills a process that has halted at `place`, and makes sure of both.
pub async fn kill_at(process: &Managed, place: &str) {
    process.wait_for_log("halted").await.expect("it reaches the place");
    assert!(process.is_running());
    process.kill().expect("killed");
    process.wait_gone(GRACE).await.expect("gone");
    let log = process.log().expect("its log");
    let halted = log.lines().find(|line| line.contains("halted")).expect("a line");
    assert!(halted.contains(place), "{halted}");
}

/// The job's document, asked for until the servers answer.
pub async fn job(bed: &Bed, id: &str) -> Document {
    wait_for("the job's document", || async {
        bed.coll("aviary").find_one(doc! { "_id": id }).await.ok().flatten()
    })
    .await
}

/// The job's tasks of the plan that counts.
pub async fn tasks(bed: &Bed, id: &str) -> Vec<Document> {
    let plan = job(bed, id).await.get_i32("plan").expect("a plan");
    wait_for("the job's tasks", || async {
        let filter = doc! { "job": id, "plan": plan };
        let found = bed.coll("aviary").find(filter).sort(doc! { "_id": 1 }).await.ok()?;
        found.try_collect().await.ok()
    })
    .await
}

/// The task of a job that a process has on lease.
pub async fn held_by(bed: &Bed, id: &str, process: &Managed) -> Document {
    let held = tasks(bed, id)
        .await
        .into_iter()
        .find(|task| text(task, "state") == "leased" && is_of(text(task, "worker"), process));
    held.expect("its lease stands")
}

/// A task as it is now.
pub async fn again(bed: &Bed, task: &Document) -> Document {
    let this = doc! { "_id": task.get("_id"), "shard": task.get("shard") };
    bed.coll("aviary").find_one(this).await.expect("read").expect("the task")
}

/// Waits until the job has succeeded and been cleaned up after.
pub async fn succeeded(bed: &Bed, id: &str) -> Document {
    let job = wait_for("the end of the job", || async {
        let ended = doc! { "$in": ["succeeded", "failed", "cancelled"] };
        let ended = doc! { "_id": id, "cleaned": true, "state": ended };
        bed.coll("aviary").find_one(ended).await.ok().flatten()
    })
    .await;
    assert_eq!(text(&job, "state"), "succeeded", "{job:#?}");
    for task in tasks(bed, id).await {
        assert_eq!(text(&task, "state"), "done", "{task:#?}");
    }
    let stale = doc! { "job": id, "plan": { "$ne": job.get_i32("plan").expect("a plan") } };
    let stale = bed.coll("aviary").count_documents(stale).await.expect("counted");
    assert_eq!(stale, 0, "tasks of plans that were given up are gone");
    job
}

/// Waits until nothing is left that only a job in the making may own.
pub async fn nothing_left(bed: &Bed) {
    wait_for("leftovers to go", || async { bed.leftovers().await.is_empty().then_some(()) }).await;
}

/// How the attempts of a task ended, oldest first.
pub fn outcomes(task: &Document) -> Vec<String> {
    history(task).iter().map(|h| h.get_str("outcome").expect("an outcome").to_owned()).collect()
}

/// Earlier attempts of a task.
pub fn history(task: &Document) -> Vec<&Document> {
    let history = task.get_array("history").expect("a history");
    history.iter().map(|h| h.as_document().expect("a document")).collect()
}

/// Whether a worker's name is that of this process.
pub fn is_of(worker: &str, process: &Managed) -> bool {
    worker.contains(&format!("-{}-", process.pid()))
}

/// The number of how many times the role of coordinator has changed hands.
pub async fn role_epoch(bed: &Bed) -> i64 {
    let role = bed.coll("aviary").find_one(doc! { "_id": "coordinator" }).await.expect("read");
    role.expect("a role").get_i64("epoch").expect("an epoch")
}

/// A field that holds text.
pub fn text<'a>(document: &'a Document, field: &str) -> &'a str {
    document.get_str(field).expect(field)
}

/// A field that holds a whole number, of whatever type.
pub fn number(document: &Document, field: &str) -> i64 {
    match document.get(field) {
        Some(Bson::Int32(number)) => i64::from(*number),
        Some(Bson::Int64(number)) => *number,
        Some(Bson::Double(number)) if number.fract() == 0.0 => *number as i64,
        other => panic!("{field} is {other:?}"),
    }
}

/// Makes sure that results of the usual functions are what the servers themselves count.
pub async fn assert_recounted(bed: &Bed, input: &str, results: &[Document]) {
    let group = doc! {
        "_id": "$k",
        "n": { "$sum": 1 },
        "total": { "$sum": "$v" },
        "max": { "$max": "$v" },
    };
    let pipeline = [doc! { "$group": group }, doc! { "$sort": { "_id": 1 } }];
    let recount = bed.coll(input).aggregate(pipeline).await.expect("asked");
    let recount: Vec<Document> = recount.try_collect().await.expect("read");
    assert_eq!(recount.len(), results.len());
    for (expected, found) in recount.iter().zip(results) {
        let value = found.get_document("value").expect("a value");
        assert_eq!(number(found, "_id"), number(expected, "_id"));
        for field in ["n", "total", "max"] {
            assert_eq!(number(value, field), number(expected, field), "{field} of {found}");
        }
    }
}
