//! What more data costs, and more distinct keys.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bson::{Document, doc};

use crate::bed::Bed;
use crate::{data, process, programs};

/// Documents of the smaller input.
const DOCUMENTS: u32 = 2_000_000;
/// Distinct keys of the smaller job over many keys.
const KEYS: u32 = 500_000;
/// How many times as large the larger ones are.
const TIMES: u32 = 10;
/// Distinct keys where it is the data that grows.
const KEYS_OF_DATA: u32 = 50_000;
const IDS: &str = "function () { emit(this._id, 1); }";

/// One job's cost.
struct Cost {
    units: u32,
    cpu: f64,
    wall: f64,
    peak_mib: u64,
}

impl Cost {
    fn each(&self) -> f64 {
        self.cpu * 1e6 / f64::from(self.units)
    }

    fn print(&self, what: &str, unit: &str) {
        println!(
            "{what}: {:.2} µs of CPU for each {unit}, {:.1} s, the worker's peak {} MiB",
            self.each(),
            self.wall,
            self.peak_mib
        );
    }
}

/// The same job over more and more small documents.
pub async fn more_data() -> Result<()> {
    println!("a sum by {KEYS_OF_DATA} keys over small documents, C map");
    let map = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests/c/sum_by_customer.wasm");
    for (name, program) in programs() {
        let mut costs = Vec::new();
        for count in [DOCUMENTS, DOCUMENTS * TIMES] {
            let bed = Bed::start().await?;
            eprintln!("loading {count} documents");
            data::load_small(&bed.db(), "input", count, KEYS_OF_DATA).await?;
            let cost = measure(&bed, &program, &map, count, KEYS_OF_DATA).await?;
            cost.print(&format!("{name}{count} documents"), "document");
            costs.push(cost);
            bed.set.shutdown().await?;
        }
        compare(name, &costs);
    }
    Ok(())
}

/// A key for every document, and more and more of them.
pub async fn more_keys() -> Result<()> {
    println!("a key for every document, JavaScript map, _sum");
    for (name, program) in programs() {
        let mut costs = Vec::new();
        for count in [KEYS, KEYS * TIMES] {
            let bed = Bed::start().await?;
            eprintln!("loading {count} documents");
            data::load_small(&bed.db(), "input", count, KEYS_OF_DATA).await?;
            let map = bed.file("ids.js", IDS)?;
            let cost = measure(&bed, &program, &map, count, count).await?;
            cost.print(&format!("{name}{count} keys"), "key");
            costs.push(cost);
            bed.set.shutdown().await?;
        }
        compare(name, &costs);
    }
    Ok(())
}

fn compare(name: &str, costs: &[Cost]) {
    if let [small, large] = costs {
        println!("{name}{TIMES} times as much costs {:.2} times the CPU", large.cpu / small.cpu);
        println!("{name}each costs {:.3} of what it did", large.each() / small.each());
    }
}

async fn measure(bed: &Bed, program: &str, map: &Path, units: u32, keys: u32) -> Result<Cost> {
    let daemons = bed.daemons(program, "scale")?;
    // The first job of a fleet pays for what is done once.
    bed.submit(program, "input", map, "_sum", "first", &["--limit", "100"]).await?;
    let mongod = bed.mongod()?;
    let now = || -> Result<f64> {
        let pids = [mongod, daemons.worker.pid(), daemons.coordinator.pid()];
        pids.iter().map(|pid| process::cpu_s(*pid)).sum()
    };
    let (before, began) = (now()?, Instant::now());
    bed.submit(program, "input", map, "_sum", "out", &[]).await?;
    let (cpu, wall) = (now()? - before, began.elapsed().as_secs_f64());
    let peak_mib = process::peak_rss_bytes(daemons.worker.pid())? >> 20;
    let results = bed.db().collection::<Document>("out").count_documents(doc! {}).await?;
    ensure!(results == u64::from(keys), "{results} results of {keys}");
    for daemon in [&daemons.worker, &daemons.coordinator] {
        daemon.stop(Duration::from_secs(30)).await?;
    }
    Ok(Cost { units, cpu, wall, peak_mib })
}
