//! The table of times.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bson::{Bson, Document, RawDocumentBuf, doc};
use futures_util::{StreamExt, TryStreamExt};

use super::bed::{AVIARY, Bed, Daemons};
use super::figures::{Cost, Figures, Row};
use super::jobs::{JOBS, Job, REDUCE};
use super::peer::{Binary, Peer, With};
use super::{data, process, python};

/// Orders and texts at scale 1.
const ORDERS: f64 = 2_000_000.0;
const TEXTS: f64 = 400_000.0;
/// What is promised against `mapReduce`, in the same run.
const WASM_TIMES_MIN: f64 = 5.0;
const JS_TIMES_MIN: f64 = 2.0;
/// Another `aviary`, to hold this one against.
const OTHER: &str = "AVIARY_BENCH_AGAINST";
/// Where the C functions are, for another `aviary` that cannot run this one's.
const GUESTS: &str = "AVIARY_BENCH_GUESTS";
/// Where the figures go.
const FILE: &str = "target/peers.json";

/// Loads, measures, checks and prints; says whether every promise was kept.
pub async fn run(scale: f64, runs: usize, slow: bool) -> Result<bool> {
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    let bed = Bed::start().await?;
    let (orders, texts) = ((ORDERS * scale) as u32, (TEXTS * scale) as u32);
    eprintln!("loading {orders} orders and {texts} texts");
    data::load_orders(&bed.db(), "orders", orders).await?;
    data::load_texts(&bed.db(), "texts", texts).await?;
    let python = if slow { python::python().await } else { None };
    let other = std::env::var(OTHER).ok().filter(|other| !other.is_empty());
    let peers = Peer::all(slow, python.is_some(), other.is_some());
    let mut bench = Bench { bed, python, other, fleet: None };
    let mut rows = Vec::new();
    for job in &JOBS {
        rows.extend(bench.measure_job(job, &peers, runs).await?);
    }
    bench.change_fleet(None).await?;
    let figures = Figures { processors, load, orders, texts, runs, rows };
    println!("{}", figures.table());
    println!(
        "{orders} orders, {texts} texts, warm cache, {runs} runs of each in turn: the median, and in parentheses the \
         least and the most; every peer's output is equal.\nWall time of Aviary is that of `aviary submit`."
    );
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    std::fs::write(&file, serde_json::to_string_pretty(&figures)?)?;
    println!("written to {FILE}");
    if bench.other.is_some() {
        against(&figures)?;
    }
    bench.bed.set.shutdown().await?;
    if slow { promises(&figures) } else { Ok(true) }
}

/// Says what this binary takes beside the other one.
fn against(figures: &Figures) -> Result<()> {
    let (mut this, mut that) = (0.0, 0.0);
    for job in &JOBS {
        for with in With::ALL {
            let cpu =
                |binary| row(figures, job, Peer::Aviary(with, binary)).map(|row| row.cpu.median);
            let (mine, others) = (cpu(Binary::This)?, cpu(Binary::Other)?);
            (this, that) = (this + mine, that + others);
            let title = Peer::Aviary(with, Binary::This).title();
            println!("{}, {title}: {:.3} of the other's CPU", job.name, mine / others);
        }
    }
    println!("all together: {:.3} of the other's CPU", this / that);
    Ok(())
}

fn row<'a>(figures: &'a Figures, job: &Job, peer: Peer) -> Result<&'a Row> {
    let title = peer.title();
    let found = figures.rows.iter().find(|row| row.job == job.name && row.peer == title);
    found.context("not measured")
}

fn promises(figures: &Figures) -> Result<bool> {
    let mut all_kept = true;
    for job in &JOBS {
        for with in With::ALL {
            let least = if with == With::Wasm { WASM_TIMES_MIN } else { JS_TIMES_MIN };
            let row = row(figures, job, Peer::Aviary(with, Binary::This))?;
            let kept = row.times_map_reduce >= least;
            all_kept &= kept;
            println!(
                "{}: {}, {}: {:.1} times as fast as mapReduce, at least {least} promised",
                if kept { "kept" } else { "MISSED" },
                job.name,
                row.peer,
                row.times_map_reduce
            );
        }
    }
    Ok(all_kept)
}

/// What the peers need.
struct Bench {
    bed: Bed,
    python: Option<PathBuf>,
    other: Option<String>,
    /// The daemons that run now, and of which binary they are.
    fleet: Option<(Binary, Daemons)>,
}

const OUT: &str = "out";

impl Bench {
    async fn measure_job(&mut self, job: &Job, peers: &[Peer], runs: usize) -> Result<Vec<Row>> {
        // Everything is read once before anything is measured.
        drain(&self.bed, job).await?;
        let functions = Functions::of(&self.bed, job)?;
        let mut reference: Option<Vec<(String, f64)>> = None;
        let mut costs: Vec<Vec<Cost>> = vec![Vec::new(); peers.len()];
        for _ in 0..runs {
            for (peer, costs) in peers.iter().zip(&mut costs) {
                let cost = self.measure(job, *peer, &functions).await?;
                eprintln!("{}, {}: {cost:?}", job.name, peer.title());
                costs.push(cost);
                if *peer == Peer::Drain {
                    continue;
                }
                let results = results(&self.bed).await?;
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
        }
        let rows =
            peers.iter().zip(&costs).map(|(peer, costs)| Row::of(job.name, peer.title(), costs));
        let mut rows: Vec<Row> = rows.collect::<Result<_>>()?;
        let wall = |peer: Peer| {
            let of = rows.iter().find(|row| row.peer == peer.title());
            of.map(|row| row.wall.median).context("not measured")
        };
        let (drain, group) = (wall(Peer::Drain)?, wall(Peer::Group)?);
        let map_reduce = match peers.contains(&Peer::MapReduce) {
            true => wall(Peer::MapReduce)?,
            false => f64::NAN,
        };
        for row in &mut rows {
            row.of_drain = row.wall.median / drain;
            row.times_map_reduce = map_reduce / row.wall.median;
            row.times_aggregation = group / row.wall.median;
        }
        Ok(rows)
    }

    fn program(&self, binary: Binary) -> &str {
        match (binary, &self.other) {
            (Binary::Other, Some(other)) => other,
            _ => AVIARY,
        }
    }

    /// Has the daemons of one binary run, and no others.
    async fn change_fleet(&mut self, wanted: Option<Binary>) -> Result<()> {
        if self.fleet.as_ref().map(|(binary, _)| *binary) == wanted {
            return Ok(());
        }
        if let Some((_, daemons)) = self.fleet.take() {
            const GRACE: Duration = Duration::from_secs(30);
            for daemon in [&daemons.worker, &daemons.coordinator] {
                daemon.stop(GRACE).await?;
            }
            self.bed.forget().await?;
        }
        if let Some(binary) = wanted {
            let daemons = self.bed.daemons(self.program(binary), &format!("{binary:?}"))?;
            self.fleet = Some((binary, daemons));
        }
        Ok(())
    }

    async fn measure(&mut self, job: &Job, peer: Peer, functions: &Functions) -> Result<Cost> {
        if let Peer::Aviary(with, binary) = peer {
            self.change_fleet(Some(binary)).await?;
            // Every function is compiled once before anything is measured.
            self.submit(job, with, binary, functions, "warm", &["--limit", "100"]).await?;
        }
        self.bed.db().collection::<Document>(OUT).drop().await?;
        let clocks = || -> Result<[f64; 5]> {
            let of = |daemon: fn(&Daemons) -> u32| match &self.fleet {
                Some((_, daemons)) => process::cpu_s(daemon(daemons)),
                None => Ok(0.0),
            };
            Ok([
                process::cpu_s(self.bed.mongod()?)?,
                of(|daemons| daemons.worker.pid())?,
                of(|daemons| daemons.coordinator.pid())?,
                process::own_cpu_s()?,
                process::ended_children_cpu_s()?,
            ])
        };
        let before = clocks()?;
        let began = Instant::now();
        match peer {
            Peer::Drain => drain(&self.bed, job).await?,
            Peer::Group => {
                let mut pipeline = (job.pipeline)();
                pipeline.push(doc! { "$out": OUT });
                let collection = self.bed.db().collection::<Document>(job.input);
                collection.aggregate(pipeline).allow_disk_use(true).await?;
            }
            Peer::MapReduce => {
                let command = doc! {
                    "mapReduce": job.input,
                    "map": Bson::JavaScriptCode(job.map.into()),
                    "reduce": Bson::JavaScriptCode(REDUCE.into()),
                    "out": { "replace": OUT },
                };
                self.bed.db().run_command(command).await?;
            }
            Peer::Pymongo => self.by_hand("pymongo", job).await?,
            Peer::Polars => self.by_hand("polars", job).await?,
            Peer::Aviary(with, binary) => {
                self.submit(job, with, binary, functions, OUT, &[]).await?;
            }
        }
        let wall = began.elapsed().as_secs_f64();
        let after = clocks()?;
        let [mongod, worker, coordinator, own, children] =
            std::array::from_fn(|i| after.get(i).unwrap_or(&0.0) - before.get(i).unwrap_or(&0.0));
        Ok(Cost { wall, mongod, worker, coordinator, client: own + children })
    }

    async fn submit(
        &self,
        job: &Job,
        with: With,
        binary: Binary,
        functions: &Functions,
        out: &str,
        more: &[&str],
    ) -> Result<()> {
        let map = if with == With::Wasm { &functions.module } else { &functions.map };
        let reduce = functions.reduce.to_string_lossy();
        let reduce = if with == With::JsReduce { reduce.as_ref() } else { "_sum" };
        self.bed.submit(self.program(binary), job.input, map, reduce, out, more).await.map(|_| ())
    }

    /// Runs the script that does the job.
    async fn by_hand(&self, how: &str, job: &Job) -> Result<()> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/by_hand.py");
        let database = self.bed.db();
        let ran = tokio::process::Command::new(self.python.as_ref().context("no Python")?)
            .arg(script)
            .args([how, &self.bed.uri(), database.name(), job.name, job.input, OUT])
            .kill_on_drop(true)
            .output()
            .await?;
        ensure!(ran.status.success(), "{how}: {}", String::from_utf8_lossy(&ran.stderr));
        Ok(())
    }
}

/// The functions of a job as files.
struct Functions {
    module: PathBuf,
    map: PathBuf,
    reduce: PathBuf,
}

impl Functions {
    fn of(bed: &Bed, job: &Job) -> Result<Self> {
        let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests/c");
        let guests = std::env::var_os(GUESTS).map_or(own, PathBuf::from);
        Ok(Self {
            module: guests.join(job.module),
            map: bed.file("map.js", job.map)?,
            reduce: bed.file("reduce.js", REDUCE)?,
        })
    }
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
