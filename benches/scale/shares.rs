//! Small jobs beside a large one: what the large one costs them, on one worker of two slots.

use anyhow::{Context, Result};
use bson::{Document, doc};

use crate::bed::Bed;
use crate::programs;

/// Small jobs, all of them requested at once.
const JOBS: usize = 50;
const DOCS: i32 = 100;
const LARGE_DOCS: i32 = 60_000;
/// Each document of the large input takes some milliseconds, and a task of it about a second.
const SLOW: &str = "function () {
  let h = this._id;
  for (let i = 0; i < 100000; i++) h = (h * 31 + i) % 1000003;
  emit(h % 7, 1);
}";
const QUICK: &str = "function () { emit(this.n % 4, 1); }";
const SPLIT_BYTES: usize = 100_000;

/// Measures the small jobs alone, then beside a large job of the same client, then beside one of another client.
pub async fn run() -> Result<()> {
    println!("{JOBS} jobs over {DOCS} documents, requested at once");
    for (name, program) in programs() {
        let bed = Bed::start().await?;
        let small: Vec<Document> = (0..DOCS).map(|n| doc! { "_id": n, "n": n }).collect();
        bed.db().collection::<Document>("small").insert_many(small).await?;
        let pad = "x".repeat(400);
        let large = (0..LARGE_DOCS).map(|n| doc! { "_id": n, "pad": &pad });
        bed.db().collection::<Document>("large").insert_many(large).await?;
        let split = vec![("AVIARY_SPLIT_BYTES", SPLIT_BYTES.to_string())];
        let _coordinator = bed.spawn(&program, "coordinator", &["coordinator"], &split)?;
        let _worker = bed.spawn(&program, "worker", &["worker", "--slots", "2"], &[])?;
        // The first jobs of a fleet pay for what is done once.
        small_jobs(&bed, "first").await?;
        let alone = small_jobs(&bed, "alone").await?;
        print(&format!("{name}alone"), &alone, &alone);
        for client in ["ann", "bob"] {
            let large = format!("large-{client}");
            let requests = bed.db().collection::<Document>("aviary-requests");
            requests.insert_one(request(&large, client, "large", SLOW)).await?;
            until_running(&bed, &large).await?;
            let beside = small_jobs(&bed, &format!("beside-{client}")).await?;
            let state = job_of(&bed, &large).await?.context("the large job")?;
            let done = bed.db().collection::<Document>("aviary");
            let tasks = doc! { "job": state.get_str("_id")?, "kind": "map" };
            let total = done.count_documents(tasks.clone()).await?;
            let mut ended = tasks;
            ended.insert("state", "done");
            let ended = done.count_documents(ended).await?;
            print(&format!("{name}beside a large job of {client}"), &beside, &alone);
            println!("    the large job has done {ended} of {total} tasks");
            let cancel = doc! { "_id": format!("cancel-{client}"), "v": 1, "cancel": &large };
            requests.insert_one(cancel).await?;
        }
    }
    Ok(())
}

fn print(what: &str, sorted: &[f64], alone: &[f64]) {
    let at = |all: &[f64], part: f64| {
        all.get((all.len() as f64 * part) as usize).copied().unwrap_or(f64::NAN)
    };
    println!(
        "{what}: p50 {:.2} s, p95 {:.2} s; p95 is {:.2} of that alone",
        at(sorted, 0.5),
        at(sorted, 0.95),
        at(sorted, 0.95) / at(alone, 0.95)
    );
}

fn request(id: &str, client: &str, input: &str, map: &str) -> Document {
    doc! {
        "_id": id, "v": 1, "client": client, "input": { "collection": input },
        "map": { "js": map }, "reduce": "_sum", "out": { "replace": format!("out-{id}") },
    }
}

/// Runs the small jobs of a client, and gives the seconds that each took from the insert to its end.
async fn small_jobs(bed: &Bed, name: &str) -> Result<Vec<f64>> {
    let requests = bed.db().collection::<Document>("aviary-requests");
    let began = bson::DateTime::now();
    let all = (0..JOBS).map(|n| request(&format!("{name}-{n}"), "ann", "small", QUICK));
    requests.insert_many(all).await?;
    let mut took = Vec::new();
    for n in 0..JOBS {
        let finished = loop {
            let job = job_of(bed, &format!("{name}-{n}")).await?;
            if let Some(finished) = job.and_then(|job| job.get_datetime("finished").ok().copied()) {
                break finished;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        };
        took.push((finished.timestamp_millis() - began.timestamp_millis()) as f64 / 1_000.0);
    }
    took.sort_by(f64::total_cmp);
    Ok(took)
}

async fn job_of(bed: &Bed, request: &str) -> Result<Option<Document>> {
    let of_request = doc! { "kind": "job", "request.id": request };
    Ok(bed.db().collection::<Document>("aviary").find_one(of_request).await?)
}

/// Waits until a good part of the job's tasks has been done.
async fn until_running(bed: &Bed, request: &str) -> Result<()> {
    loop {
        if let Some(job) = job_of(bed, request).await? {
            let done = doc! { "job": job.get_str("_id")?, "kind": "map", "state": "done" };
            if bed.db().collection::<Document>("aviary").count_documents(done).await? >= 6 {
                return Ok(());
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
