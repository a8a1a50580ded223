//! How throughput grows with shards: the same job over the same documents on one shard and on three, each
//! shard a container whose mongod and worker have half a processor together.
//!
//!     .ci/containers cargo bench --bench scaling --features containers
//!
//! `AVIARY_CONTAINERS` names the image, which holds the `aviary` that is measured; `AVIARY_BENCH_SCALE` makes the
//! input larger or smaller.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use aviary_testcontainers::containers::{Containers, ContainersOptions};
use bson::{Document, doc};
use futures_util::TryStreamExt;

/// The share of the processors that a shard has.
const CPUS: f64 = 0.5;
const DOCS: f64 = 60_000.0;
const PAD_BYTES: usize = 400;
const SPLIT_BYTES: &str = "250000";
const GROUPS: i64 = 100;
const ROUNDS: i64 = 12_000;
/// What three shards must do of what one does.
const GAIN_MIN: f64 = 2.6;

const MAP: &str = "function () {
  let h = this.n;
  for (let i = 0; i < rounds; i++) h = (h * 31 + i) % 1000003;
  emit(this.n % groups, h);
}";

/// One run of the job.
struct Run {
    bytes: i64,
    seconds: f64,
    shard_cpu_seconds: Vec<f64>,
}

impl Run {
    fn throughput(&self) -> f64 {
        self.bytes as f64 / self.seconds
    }
}

fn main() -> Result<()> {
    let Some(image) = std::env::var("AVIARY_CONTAINERS").ok().filter(|image| !image.is_empty())
    else {
        println!("not measured: AVIARY_CONTAINERS names no image; .ci/containers builds one");
        return Ok(());
    };
    let scale =
        std::env::var("AVIARY_BENCH_SCALE").ok().map(|text| text.parse::<f64>()).transpose()?;
    let docs = (DOCS * scale.unwrap_or(1.0)) as i64;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut runs = Vec::new();
        for shards in [1, 3] {
            let run = measure(&image, shards, docs).await.with_context(|| format!("{shards} shards"))?;
            let cpu: Vec<String> = run.shard_cpu_seconds.iter().map(|s| format!("{s:.1}")).collect();
            println!(
                "{shards} x {CPUS} CPU: {docs} documents, {} bytes in {:.1} s, {:.0} bytes/s; CPU seconds of each shard: {}",
                run.bytes,
                run.seconds,
                run.throughput(),
                cpu.join(" ")
            );
            runs.push(run);
        }
        let [one, three] = runs.as_slice() else { bail!("two runs") };
        let gain = three.throughput() / one.throughput();
        println!("three shards do {gain:.2} times what one does");
        ensure!(gain >= GAIN_MIN, "less than {GAIN_MIN} times");
        Ok(())
    })
}

async fn measure(image: &str, shards: usize, docs: i64) -> Result<Run> {
    let cluster = Containers::start(ContainersOptions {
        image: image.to_owned(),
        shards,
        shard_cpus: Some(CPUS),
        env: vec![("AVIARY_SPLIT_BYTES".to_owned(), SPLIT_BYTES.to_owned())],
        ..ContainersOptions::default()
    })
    .await?;
    let bytes = load(&cluster, docs).await?;
    cluster.write("/tmp/map.js", MAP).await?;
    // The first job compiles the function, on each worker; what is measured has it compiled.
    submit(&cluster, "{\"n\": {\"$lt\": 50}}", shards).await?;
    let mut before = Vec::new();
    for shard in 0..shards {
        before.push(cluster.shard_cpu_seconds(shard).await?);
    }
    let job = submit(&cluster, "{}", shards).await?;
    let mut shard_cpu_seconds = Vec::new();
    for (shard, before) in before.iter().enumerate() {
        shard_cpu_seconds.push(cluster.shard_cpu_seconds(shard).await? - before);
    }
    check(&cluster, docs).await?;
    Ok(Run { bytes, seconds: seconds_of(&job)?, shard_cpu_seconds })
}

/// Loads the input, spread evenly over the shards, and says how many bytes it has.
async fn load(cluster: &Containers, docs: i64) -> Result<i64> {
    let client = mongodb::Client::with_uri_str(cluster.uri()).await?;
    let admin = client.database("admin");
    admin.run_command(doc! { "enableSharding": "test" }).await?;
    let chunks = i32::try_from(cluster.shard_count() * 2)?;
    let key = doc! { "_id": "hashed" };
    admin
        .run_command(
            doc! { "shardCollection": "test.input", "key": key, "numInitialChunks": chunks },
        )
        .await?;
    let coll = client.database("test").collection::<Document>("input");
    let pad = "x".repeat(PAD_BYTES);
    let mut bytes = 0;
    for first in (0..docs).step_by(5_000) {
        let batch: Vec<Document> = (first..docs.min(first + 5_000))
            .map(|n| doc! { "_id": n, "n": n, "pad": &pad })
            .collect();
        for document in &batch {
            bytes += i64::try_from(document.to_vec()?.len())?;
        }
        coll.insert_many(batch).ordered(false).await?;
    }
    Ok(bytes)
}

/// Submits the job in the coordinator's container, waits for it, and gives what is told of it.
async fn submit(cluster: &Containers, query: &str, shards: usize) -> Result<serde_json::Value> {
    let scope = format!("{{\"rounds\": {ROUNDS}, \"groups\": {GROUPS}}}");
    let partitions = shards.to_string();
    let args =
        ["submit", "-c", "input", "--map", "/tmp/map.js", "--reduce", "_sum", "--scope", &scope];
    let more = [
        "--query",
        query,
        "--partitions",
        &partitions,
        "--out",
        "replace:sums",
        "-o",
        "json",
        "--quiet",
    ];
    let ended = cluster.aviary(&[&args[..], &more].concat()).await?;
    ensure!(ended.code == 0, "the job failed: {ended:?}");
    Ok(serde_json::from_str(&ended.stdout)?)
}

fn seconds_of(job: &serde_json::Value) -> Result<f64> {
    let time = |name: &str| -> Result<jiff::Timestamp> {
        Ok(job[name].as_str().with_context(|| format!("no {name}: {job}"))?.parse()?)
    };
    let elapsed = Duration::try_from(time("finished")?.duration_since(time("created")?))?;
    Ok(elapsed.as_secs_f64())
}

/// Compares the output with a recount.
async fn check(cluster: &Containers, docs: i64) -> Result<()> {
    let mut expected = vec![0_i64; usize::try_from(GROUPS)?];
    for n in 0..docs {
        let hash = (0..ROUNDS).fold(n, |h, i| (h * 31 + i) % 1_000_003);
        let sum = expected.get_mut(usize::try_from(n % GROUPS)?).context("a group")?;
        *sum += hash;
    }
    let client = mongodb::Client::with_uri_str(cluster.uri()).await?;
    let found = client.database("test").collection::<Document>("sums").find(doc! {}).await?;
    let found: Vec<Document> = found.try_collect().await?;
    ensure!(found.len() == expected.len(), "{} groups", found.len());
    for row in found {
        let number = |name: &str| -> Result<i64> {
            Ok(match row.get(name) {
                Some(bson::Bson::Int32(n)) => i64::from(*n),
                Some(bson::Bson::Int64(n)) => *n,
                Some(bson::Bson::Double(n)) => *n as i64,
                other => bail!("no number: {other:?}"),
            })
        };
        let right = expected.get(usize::try_from(number("_id")?)?);
        ensure!(right == Some(&number("value")?), "{row} instead of {right:?}");
    }
    Ok(())
}
