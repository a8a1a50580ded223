//! The table of times.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use bson::{Bson, Document, RawDocumentBuf, doc};
use comfy_table::{CellAlignment, Table, presets};
use futures_util::{StreamExt, TryStreamExt};

use super::bed::{Bed, Daemons};
use super::jobs::{JOBS, Job, REDUCE};
use super::{data, process};

/// Orders and texts at scale 1.
const ORDERS: f64 = 2_000_000.0;
const TEXTS: f64 = 400_000.0;
/// What is promised against `mapReduce`, in the same run.
const WASM_TIMES_MIN: f64 = 5.0;
const JS_TIMES_MIN: f64 = 2.0;

/// Who does the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peer {
    Drain,
    Group,
    MapReduce,
    Wasm,
    JsSum,
    JsReduce,
}

const PEERS: [Peer; 6] =
    [Peer::Drain, Peer::Group, Peer::MapReduce, Peer::Wasm, Peer::JsSum, Peer::JsReduce];

impl Peer {
    fn title(self) -> &'static str {
        match self {
            Peer::Drain => "cursor drain, no job",
            Peer::Group => "aggregation with $out",
            Peer::MapReduce => "mapReduce command",
            Peer::Wasm => "Aviary: C map, _sum",
            Peer::JsSum => "Aviary: JS map, _sum",
            Peer::JsReduce => "Aviary: JS map, JS reduce",
        }
    }
}

/// What one run of one peer took, in seconds.
#[derive(Debug, Clone, Copy)]
struct Cost {
    wall: f64,
    mongod: f64,
    worker: f64,
    coordinator: f64,
    /// Whoever asked: this process, or `aviary submit`.
    client: f64,
}

/// Loads, measures, checks and prints; says whether every promise was kept.
pub async fn run(scale: f64, runs: usize) -> Result<bool> {
    let bed = Bed::start().await?;
    let (orders, texts) = ((ORDERS * scale) as u32, (TEXTS * scale) as u32);
    eprintln!("loading {orders} orders and {texts} texts");
    data::load_orders(&bed.db(), "orders", orders).await?;
    data::load_texts(&bed.db(), "texts", texts).await?;
    let daemons = bed.daemons("speed")?;

    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header([
        "job",
        "peer",
        "wall s",
        "mongod CPU s",
        "worker CPU s",
        "coordinator CPU s",
        "client CPU s",
        "× mapReduce",
        "× aggregation",
    ]);
    let (mut verdicts, mut kept) = (Vec::new(), true);
    for job in &JOBS {
        let measured = measure_job(&bed, &daemons, job, runs).await?;
        let wall = |peer: Peer| {
            measured.iter().find(|(of, _)| *of == peer).map(|(_, c)| c.wall).context("not measured")
        };
        let (map_reduce, group) = (wall(Peer::MapReduce)?, wall(Peer::Group)?);
        for (peer, cost) in &measured {
            let times = |base: f64| format!("{:.2}", base / cost.wall);
            table.add_row([
                job.name.to_owned(),
                peer.title().to_owned(),
                format!("{:.2}", cost.wall),
                format!("{:.2}", cost.mongod),
                format!("{:.2}", cost.worker),
                format!("{:.2}", cost.coordinator),
                format!("{:.2}", cost.client),
                times(map_reduce),
                times(group),
            ]);
        }
        for (peer, least) in [
            (Peer::Wasm, WASM_TIMES_MIN),
            (Peer::JsSum, JS_TIMES_MIN),
            (Peer::JsReduce, JS_TIMES_MIN),
        ] {
            let times = map_reduce / wall(peer)?;
            kept &= times >= least;
            let word = if times >= least { "kept" } else { "MISSED" };
            verdicts.push(format!(
                "{word}: {}, {}: {times:.1} times as fast as mapReduce, at least {least} promised",
                job.name,
                peer.title()
            ));
        }
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
    println!(
        "{orders} orders, {texts} texts, warm cache, {runs} runs (the median by wall time is \
         shown); every peer's output is equal.\nWall time of Aviary is that of `aviary submit`."
    );
    for verdict in verdicts {
        println!("{verdict}");
    }
    bed.set.shutdown().await?;
    Ok(kept)
}

async fn measure_job(
    bed: &Bed,
    daemons: &Daemons,
    job: &Job,
    runs: usize,
) -> Result<Vec<(Peer, Cost)>> {
    let functions = Functions::of(bed, job)?;
    // Everything is read once, and every function compiled once, before anything is measured.
    drain(bed, job).await?;
    for peer in [Peer::Wasm, Peer::JsSum, Peer::JsReduce] {
        functions.submit(bed, job, peer, "warm", &["--limit", "100"]).await?;
    }
    let mut reference: Option<Vec<(String, f64)>> = None;
    let mut measured = Vec::new();
    for peer in PEERS {
        let mut costs = Vec::new();
        for _ in 0..runs {
            let cost = measure(bed, daemons, job, peer, &functions).await?;
            eprintln!("{}, {}: {cost:?}", job.name, peer.title());
            costs.push(cost);
            if peer == Peer::Drain {
                continue;
            }
            let results = results(bed).await?;
            match &reference {
                None => reference = Some(results),
                Some(first) => ensure!(
                    *first == results,
                    "{}: the results of {} differ from those of the first peer: {}",
                    job.name,
                    peer.title(),
                    difference(first, &results)
                ),
            }
        }
        costs.sort_by(|a, b| a.wall.total_cmp(&b.wall));
        measured.push((peer, *costs.get(costs.len() / 2).context("no run")?));
    }
    Ok(measured)
}

/// The functions of a job as files.
struct Functions {
    module: PathBuf,
    map: PathBuf,
    reduce: PathBuf,
}

impl Functions {
    fn of(bed: &Bed, job: &Job) -> Result<Self> {
        let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests/c");
        Ok(Self {
            module: guests.join(job.module),
            map: bed.file("map.js", job.map)?,
            reduce: bed.file("reduce.js", REDUCE)?,
        })
    }

    async fn submit(
        &self,
        bed: &Bed,
        job: &Job,
        peer: Peer,
        out: &str,
        more: &[&str],
    ) -> Result<()> {
        let map = if peer == Peer::Wasm { &self.module } else { &self.map };
        let reduce = self.reduce.to_string_lossy();
        let reduce = if peer == Peer::JsReduce { reduce.as_ref() } else { "_sum" };
        bed.submit(job.input, map, reduce, out, more).await
    }
}

const OUT: &str = "out";

async fn measure(
    bed: &Bed,
    daemons: &Daemons,
    job: &Job,
    peer: Peer,
    functions: &Functions,
) -> Result<Cost> {
    bed.db().collection::<Document>(OUT).drop().await?;
    let clocks = || -> Result<[f64; 5]> {
        Ok([
            process::cpu_s(bed.mongod()?)?,
            process::cpu_s(daemons.worker.pid())?,
            process::cpu_s(daemons.coordinator.pid())?,
            process::own_cpu_s()?,
            process::ended_children_cpu_s()?,
        ])
    };
    let before = clocks()?;
    let began = Instant::now();
    match peer {
        Peer::Drain => drain(bed, job).await?,
        Peer::Group => {
            let mut pipeline = (job.pipeline)();
            pipeline.push(doc! { "$out": OUT });
            let collection = bed.db().collection::<Document>(job.input);
            collection.aggregate(pipeline).allow_disk_use(true).await?;
        }
        Peer::MapReduce => {
            let command = doc! {
                "mapReduce": job.input,
                "map": Bson::JavaScriptCode(job.map.into()),
                "reduce": Bson::JavaScriptCode(REDUCE.into()),
                "out": { "replace": OUT },
            };
            bed.db().run_command(command).await?;
        }
        Peer::Wasm | Peer::JsSum | Peer::JsReduce => {
            functions.submit(bed, job, peer, OUT, &[]).await?;
        }
    }
    let wall = began.elapsed().as_secs_f64();
    let after = clocks()?;
    let [mongod, worker, coordinator, own, children] =
        std::array::from_fn(|i| after.get(i).unwrap_or(&0.0) - before.get(i).unwrap_or(&0.0));
    Ok(Cost { wall, mongod, worker, coordinator, client: own + children })
}

/// Reads the whole input as raw batches over the same socket that Aviary uses.
async fn drain(bed: &Bed, job: &Job) -> Result<()> {
    let collection = bed.db().collection::<RawDocumentBuf>(job.input);
    let mut batches = collection.find(doc! {}).batch_size(10_000).batch().await?;
    let mut count = 0_u64;
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        for doc in batch.doc_slices()? {
            doc?;
            count += 1;
        }
    }
    let expected = collection.estimated_document_count().await?;
    ensure!(count == expected, "{count} documents of {expected} were read");
    Ok(())
}

/// What a peer has written, in the order of its keys.
async fn results(bed: &Bed) -> Result<Vec<(String, f64)>> {
    let collection = bed.db().collection::<Document>(OUT);
    let mut rows = collection.find(doc! {}).await?;
    let mut results = Vec::new();
    while let Some(row) = rows.try_next().await? {
        let value = match row.get("value") {
            Some(Bson::Double(n)) => *n,
            Some(Bson::Int32(n)) => f64::from(*n),
            Some(Bson::Int64(n)) => *n as f64,
            other => bail!("a result is no number: {other:?}"),
        };
        results.push((row.get_str("_id")?.to_owned(), value));
    }
    ensure!(!results.is_empty(), "there are no results");
    results.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(results)
}

fn difference(first: &[(String, f64)], other: &[(String, f64)]) -> String {
    let pair = first.iter().zip(other).find(|(a, b)| a != b);
    format!("{} keys and {} keys, first {pair:?}", first.len(), other.len())
}
