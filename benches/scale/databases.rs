//! What many databases cost a fleet that serves them all, while nothing happens in them, and how soon a job in one of them
//! begins.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bson::{Document, doc};
use futures_util::future::try_join_all;
use mongodb::Client;

use crate::bed::Bed;
use crate::programs;

const DOCS: i32 = 100;
const JOBS: usize = 100;
const MAP: &str = "function () { emit(this.n % 4, 1); }";
/// How long the server counts.
const COUNTED: Duration = Duration::from_secs(60);
/// A fleet that has not come to rest by then does not.
const RESTS_WITHIN: Duration = Duration::from_secs(600);

/// Measures with so many databases, and with none, whose cost is the fleet's own and the bench's.
pub async fn run(databases: u32) -> Result<()> {
    for (name, program) in programs() {
        let bed = Bed::start().await?;
        let client = Client::with_uri_str(bed.uri()).await?;
        let no_db = [("AVIARY_DB", String::new())];
        let start = || -> Result<_> {
            let coordinator = bed.spawn(&program, "coordinator", &["coordinator"], &no_db)?;
            Ok((coordinator, bed.spawn(&program, "worker", &["worker", "--slots", "2"], &no_db)?))
        };
        let fleet = start()?;
        let alone = rate(&client).await?;
        drop(fleet);
        let names: Vec<String> = (0..databases).map(|n| format!("tenant{n:04}")).collect();
        for some in names.chunks(8) {
            try_join_all(some.iter().map(|db| set_up(&bed, &client, &program, db))).await?;
        }
        let _fleet = start()?;
        rest(&client, &names).await?;
        let resting = rate(&client).await?;
        println!("{name}{databases} databases at rest, one coordinator and one worker:");
        println!("  {resting:.1} operations a second in all, {alone:.1} without a database");
        let map = bed.file("small.js", MAP)?;
        let map = std::fs::read_to_string(map)?;
        let mut begins = Vec::new();
        for n in 0..JOBS {
            // Each in a database that rests.
            let db = names.get(n * 7 % names.len()).context("no database")?;
            begins.push(begin(&client, db, n, &map).await?);
        }
        begins.sort_by(f64::total_cmp);
        let at = |part: f64| begins.get((JOBS as f64 * part) as usize).copied().unwrap_or(f64::NAN);
        println!(
            "  from the request to the first task, {JOBS} jobs in turn: p50 {:.0} ms, p90 {:.0} ms, p99 {:.0} ms",
            at(0.5),
            at(0.9),
            at(0.99)
        );
    }
    Ok(())
}

async fn set_up(bed: &Bed, client: &Client, program: &str, db: &str) -> Result<()> {
    let documents: Vec<Document> = (0..DOCS).map(|n| doc! { "_id": n, "n": n }).collect();
    client.database(db).collection::<Document>("small").insert_many(documents).await?;
    let init = tokio::process::Command::new(program)
        .args(["init", "--quiet", "-d", db])
        .env("AVIARY_URI", bed.uri())
        .env_remove("AVIARY_CONFIG")
        .output()
        .await?;
    if !init.status.success() {
        bail!("aviary init: {}", String::from_utf8_lossy(&init.stderr));
    }
    Ok(())
}

/// Waits until no database has a worker.
async fn rest(client: &Client, names: &[String]) -> Result<()> {
    let began = Instant::now();
    loop {
        // First of all it has to have found them.
        tokio::time::sleep(Duration::from_secs(20)).await;
        let mut awake = 0;
        for db in names {
            let aviary = client.database(db).collection::<Document>("aviary");
            awake += u32::from(aviary.find_one(doc! { "kind": "worker" }).await?.is_some());
        }
        if awake == 0 {
            return Ok(());
        }
        if began.elapsed() > RESTS_WITHIN {
            bail!("{awake} databases are awake");
        }
    }
}

/// Operations a second that the server counts, but for how it is watched by its clients.
async fn rate(client: &Client) -> Result<f64> {
    let before = operations(client).await?;
    let began = Instant::now();
    tokio::time::sleep(COUNTED).await;
    let after = operations(client).await?;
    Ok((after - before) as f64 / began.elapsed().as_secs_f64())
}

/// What clients asked for so far. Their heartbeats are none of it: they come with each connection, whatever it is for.
async fn operations(client: &Client) -> Result<i64> {
    let status = client.database("admin").run_command(doc! { "serverStatus": 1 }).await?;
    let number = |document: &Document, name: &str| -> i64 {
        document.get_i64(name).or_else(|_| document.get_i32(name).map(i64::from)).unwrap_or(0)
    };
    let counters = status.get_document("opcounters")?;
    let all: i64 = ["query", "insert", "update", "delete", "getmore", "command"]
        .iter()
        .map(|name| number(counters, name))
        .sum();
    let commands = status.get_document("metrics")?.get_document("commands")?;
    let of = |name: &str| commands.get_document(name).map_or(0, |one| number(one, "total"));
    Ok(all - of("hello") - of("isMaster") - of("ismaster"))
}

/// Inserts a request as any driver does. Returns the milliseconds until a task of its job is leased.
async fn begin(client: &Client, db: &str, n: usize, map: &str) -> Result<f64> {
    const LOOK_EVERY: Duration = Duration::from_millis(5);
    const BEGINS_WITHIN: Duration = Duration::from_secs(600);
    let db = client.database(db);
    let id = format!("bench-{n}");
    let began = Instant::now();
    db.collection::<Document>("aviary-requests")
        .insert_one(doc! {
            "_id": &id,
            "v": 1,
            "input": { "collection": "small" },
            "map": { "js": map },
            "reduce": "_sum",
            "out": { "replace": "counted" },
        })
        .await?;
    let task = doc! { "kind": "map", "state": { "$in": ["leased", "done"] } };
    while began.elapsed() < BEGINS_WITHIN {
        if db.collection::<Document>("aviary").find_one(task.clone()).await?.is_some() {
            return Ok(began.elapsed().as_secs_f64() * 1_000.0);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    bail!("the job of {id} has not begun")
}
