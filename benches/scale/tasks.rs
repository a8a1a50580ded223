//! Tasks that do nothing, many of them: in one job, and in several at once.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result};
use bson::{Bson, Document, doc};
use futures_util::future::try_join_all;

use crate::bed::Bed;
use crate::{process, programs};

/// A map that does nothing, as small as the contract allows.
const NOTHING: &str = r#"(module
  (memory (export "memory") 1)
  (func (export "aviary_abi_v1"))
  (func (export "aviary_alloc") (param i32) (result i32) (i32.const 1024))
  (func (export "map") (param i32 i32)))"#;
/// Bytes of one document of the input: so many make a split.
const DOC_BYTES: usize = 100;
/// Tasks of all jobs together, where the number of jobs grows.
const TASKS_OF_JOBS: u32 = 640;

/// One measurement.
struct Cost {
    tasks: u32,
    wall: f64,
    mongod: f64,
    worker: f64,
    coordinator: f64,
    commands: BTreeMap<String, i64>,
}

impl Cost {
    fn print(&self, what: &str) {
        let each = |seconds: f64| seconds * 1_000.0 / f64::from(self.tasks);
        println!(
            "{what}: {:.0} tasks a second; ms of CPU each: mongod {:.2}, worker {:.2}, coordinator {:.2}",
            f64::from(self.tasks) / self.wall,
            each(self.mongod),
            each(self.worker),
            each(self.coordinator)
        );
        let commands: Vec<String> = self
            .commands
            .iter()
            .map(|(name, count)| (name, *count as f64 / f64::from(self.tasks)))
            .filter(|(_, each)| *each >= 0.005)
            .map(|(name, each)| format!("{name} {each:.2}"))
            .collect();
        println!("    commands each: {}", commands.join(", "));
    }
}

/// Jobs of more and more tasks.
pub async fn more_tasks(counts: &[u32]) -> Result<()> {
    println!("tasks that do nothing, in one job");
    for count in counts {
        for (name, program) in programs() {
            let cost = measure(&program, *count, 1).await?;
            cost.print(&format!("{name}{count} tasks"));
        }
    }
    Ok(())
}

/// The same number of tasks in more and more jobs.
pub async fn more_jobs(counts: &[u32]) -> Result<()> {
    println!("{TASKS_OF_JOBS} tasks that do nothing, in several jobs at once");
    for count in counts {
        for (name, program) in programs() {
            let cost = measure(&program, TASKS_OF_JOBS / count, *count).await?;
            cost.print(&format!("{name}{count} jobs"));
        }
    }
    Ok(())
}

async fn measure(program: &str, tasks: u32, jobs: u32) -> Result<Cost> {
    let bed = Bed::start().await?;
    let pad = "x".repeat(DOC_BYTES - 30);
    let documents: Vec<Document> =
        (0..i64::from(tasks)).map(|n| doc! { "_id": n, "pad": &pad }).collect();
    for chunk in documents.chunks(10_000) {
        bed.db().collection::<Document>("input").insert_many(chunk).await?;
    }
    let map = bed.file("nothing.wat", NOTHING)?;
    let split = vec![("AVIARY_SPLIT_BYTES", (DOC_BYTES - 20).to_string())];
    let coordinator = bed.spawn(program, "coordinator", &["coordinator"], &split)?;
    let worker = bed.spawn(program, "worker", &["worker", "--slots", "2"], &[])?;
    // The first job of a fleet pays for what is done once.
    bed.submit(program, "input", &map, "_count", "first", &["--limit", "1"]).await?;
    let mongod = bed.mongod()?;
    let now = || -> Result<[f64; 3]> {
        let pids = [mongod, worker.pid(), coordinator.pid()];
        let all: Result<Vec<f64>> = pids.iter().map(|pid| process::cpu_s(*pid)).collect();
        all?.try_into().ok().context("three processes")
    };
    let commands_before = commands(&bed).await?;
    let (before, began) = (now()?, Instant::now());
    let outs: Vec<String> = (0..jobs).map(|n| format!("out{n}")).collect();
    let submit = |out| bed.submit(program, "input", &map, "_count", out, &[]);
    let jobs_done = try_join_all(outs.iter().map(|out| submit(out))).await?;
    let (after, wall) = (now()?, began.elapsed().as_secs_f64());
    let mut commands = commands(&bed).await?;
    for (name, count) in &mut commands {
        *count -= commands_before.get(name).copied().unwrap_or_default();
    }
    let mut done = 0;
    for id in jobs_done {
        let job = bed.db().collection::<Document>("aviary").find_one(doc! { "_id": id }).await?;
        let job = job.context("the job is there")?;
        done += count_of(job.get("map_tasks"));
    }
    let done = u32::try_from(done)?;
    Ok(Cost {
        tasks: done,
        wall,
        mongod: after[0] - before[0],
        worker: after[1] - before[1],
        coordinator: after[2] - before[2],
        commands,
    })
}

fn count_of(value: Option<&Bson>) -> i64 {
    match value {
        Some(Bson::Int32(n)) => i64::from(*n),
        Some(Bson::Int64(n)) => *n,
        _ => 0,
    }
}

/// How often the server has been given each command.
async fn commands(bed: &Bed) -> Result<BTreeMap<String, i64>> {
    let status = bed.db().run_command(doc! { "serverStatus": 1 }).await?;
    let metrics = status.get_document("metrics")?.get_document("commands")?;
    let total = |value: &Bson| count_of(value.as_document().and_then(|of| of.get("total")));
    Ok(metrics.iter().map(|(name, of)| (name.clone(), total(of))).collect())
}
