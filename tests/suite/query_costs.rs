//! What the queries of the protocol cost the server, told by its profiler in documents and keys examined: no more for a
//! task, however many tasks and jobs have ended before it. All tasks of a job are counted only where a phase may have
//! ended, and now and then for people who watch.

use std::collections::BTreeMap;

use crate::common::{Bed, wait_for};
use bson::{Document, doc};
use futures_util::TryStreamExt;

/// Splits are cut at about so many bytes, a few documents.
const SPLIT_BYTES: &str = "4000";
const DOCUMENT_BYTES: usize = 1_000;

struct Scene {
    bed: Bed,
    map: String,
}

/// What a job has cost.
#[derive(Debug)]
struct Cost {
    tasks: u64,
    /// How often all of them were counted.
    counted: i64,
    /// What everything else examined.
    examined: u64,
    /// What the commands that examined most examined together, how often they came and what they asked, for a
    /// person.
    most: Vec<(i64, i64, String)>,
}

impl Cost {
    fn per_task(&self) -> f64 {
        self.examined as f64 / self.tasks as f64
    }
}

/// What a command asks for and how it is found.
fn shape(command: &Document) -> String {
    let plan = command.get_str("planSummary").unwrap_or("?");
    let fields = |of: &Document| of.keys().map(String::as_str).collect::<Vec<_>>().join(",");
    let asked = command.get_document("command").cloned().unwrap_or_default();
    let inner = ["filter", "query", "q"].iter().find_map(|name| asked.get_document(name).ok());
    let pipeline = asked.get_array("pipeline").map(|stages| {
        let stages = stages.iter().filter_map(bson::Bson::as_document);
        stages.map(fields).collect::<Vec<_>>().join(",")
    });
    let op = command.get_str("op").unwrap_or("?");
    let what = inner.map(fields).unwrap_or_else(|| pipeline.unwrap_or_default());
    format!("{op} {{{what}}} by {plan}")
}

impl Scene {
    async fn start() -> Self {
        let bed = Bed::start(1).await;
        let map = bed.file("map.js", "function () { emit(this._id % 3, 1); }");
        let map = map.to_str().unwrap().to_owned();
        // Commands beyond what the profile's collection holds would push the first ones out.
        let profile = doc! { "create": "system.profile", "capped": true, "size": 400 << 20 };
        bed.db().run_command(profile).await.unwrap();
        Self { bed, map }
    }

    async fn profile(&self, level: i32) {
        self.bed.db().run_command(doc! { "profile": level, "slowms": 100_000 }).await.unwrap();
    }

    /// Runs a job over so many documents and tells what its daemons and client asked of Aviary's own collection.
    async fn run(&self, documents: i32) -> Cost {
        let input = format!("input{documents}");
        let pad = "x".repeat(DOCUMENT_BYTES);
        let each = (0..documents).map(|n| doc! { "_id": n, "pad": &pad });
        self.bed.coll(&input).drop().await.unwrap();
        self.bed.load(&input, each.collect()).await;
        let begin = bson::DateTime::now();
        self.profile(2).await;
        let out = format!("replace:of-{input}");
        let args = ["submit", "-q", "--detach", "-o", "name", "-c", &input, "--map", &self.map];
        let args = [&args[..], &["--reduce", "_count", "--out", &out]].concat();
        let job = self.bed.aviary(&args).await.ok().stdout.trim().to_owned();
        let ended = doc! { "_id": &job, "state": "succeeded", "cleaned": true };
        wait_for("the job to succeed", || async {
            self.bed.coll("aviary").find_one(ended.clone()).await.expect("read")
        })
        .await;
        self.profile(0).await;
        let maps = doc! { "job": &job, "kind": { "$in": ["map", "reduce"] }, "state": "done" };
        let tasks = self.bed.coll("aviary").count_documents(maps).await.unwrap();
        // A change stream reads every change of the server once, whatever it is of.
        let op = doc! { "$ne": "getmore" };
        let filter = doc! { "ns": "test.aviary", "ts": { "$gte": begin }, "op": op };
        let profile = self.bed.coll("system.profile");
        let commands: Vec<Document> =
            profile.find(filter).await.unwrap().try_collect().await.unwrap();
        let number = |command: &Document, field: &str| match command.get(field) {
            Some(bson::Bson::Int32(n)) => i64::from(*n),
            Some(bson::Bson::Int64(n)) => *n,
            _ => 0,
        };
        let mut each: BTreeMap<String, (i64, i64)> = BTreeMap::new();
        for command in &commands {
            let examined = number(command, "docsExamined") + number(command, "keysExamined");
            let of = each.entry(shape(command)).or_default();
            *of = (of.0 + examined, of.1 + 1);
        }
        // The sweep for leftovers comes every so many seconds, however many tasks end meanwhile.
        each.retain(|shape, _| !shape.starts_with("command {$match,$group,$sort,$limit} "));
        let counts = each.extract_if(.., |shape, _| shape.starts_with("command {$match,$group} "));
        let counted = counts.map(|(_, (_, times))| times).sum();
        let examined = each.values().map(|(examined, _)| examined).sum::<i64>();
        let mut most: Vec<(i64, i64, String)> =
            each.into_iter().map(|(shape, (examined, times))| (examined, times, shape)).collect();
        most.sort_by_key(|(examined, ..)| std::cmp::Reverse(*examined));
        most.truncate(6);
        Cost { tasks, counted, examined: examined.unsigned_abs(), most }
    }

    /// Ended jobs beside, as if they had been run before.
    async fn history(&self, jobs: usize) {
        let ended = doc! { "kind": "job", "state": "succeeded", "cleaned": true };
        let model =
            self.bed.coll("aviary").find_one(ended).await.unwrap().expect("a job has ended");
        let copies = (0..jobs).map(|_| {
            let mut copy = model.clone();
            copy.insert("_id", bson::oid::ObjectId::new().to_hex());
            copy
        });
        self.bed.load("aviary", copies.collect()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_costs_the_same_however_many_tasks_and_jobs_have_ended() {
    let scene = Scene::start().await;
    let env = [("AVIARY_SPLIT_BYTES", SPLIT_BYTES)];
    let _coordinator = scene.bed.spawn("coordinator", &["coordinator"], &env);
    let _worker = scene.bed.spawn("worker", &["worker", "--slots", "2"], &[]);
    // The first job meets what is still cold.
    scene.run(40).await;
    let few = scene.run(200).await;
    let many = scene.run(2_400).await;
    assert!(many.tasks > 8 * few.tasks, "{} and {} tasks", few.tasks, many.tasks);
    let told = |cost: &Cost| {
        println!(
            "{} tasks: {:.1} documents and keys examined for each, counted {} times",
            cost.tasks,
            cost.per_task(),
            cost.counted
        );
    };
    told(&few);
    told(&many);
    assert!(many.per_task() < 1.5 * few.per_task(), "{:#?}", many.most);
    assert!(many.counted.unsigned_abs() < many.tasks / 4, "counted {} times", many.counted);
    scene.history(5_000).await;
    let later = scene.run(200).await;
    println!("beside 5,000 ended jobs:");
    told(&later);
    assert!(later.per_task() < 1.5 * few.per_task(), "{:#?}", later.most);
}
