//! What Aviary costs beside its peers, on one server and in one run: `cargo bench --bench peers`.
//!
//! Three jobs over the same collections are done by Aviary (functions in WebAssembly and in
//! JavaScript), by MongoDB's own `mapReduce` command with the same JavaScript, by the aggregation that a
//! person would write instead, and by scripts: pymongo in two processes, and polars with pymongoarrow, where
//! Python is there to install them with. A bare cursor drain is the floor. Every peer writes a collection, and the
//! collections must be equal. After that, the peak memory of workers that shuffle a collection several times
//! their limit.
//!
//! `-- --speed` and `-- --memory` run one part, `-- --quick` the first without `mapReduce` and the scripts; `-- --page FILE` prints what the first has written to
//! `target/peers.json` as a page. `AVIARY_BENCH_SCALE` scales the data (default 1.0: 2,000,000 orders, 400,000 texts,
//! 1.5 GB), `AVIARY_BENCH_RUNS` says how often each peer is measured, in turn with the others (default 5).
//! `AVIARY_BENCH_AGAINST=PATH` measures another `aviary` beside this one and prints what they cost relative to
//! each other; one that is too old for the C functions here comes with `AVIARY_BENCH_GUESTS=ITS-CHECKOUT/guests/c`.

#[path = "peers/bed.rs"]
mod bed;
#[path = "peers/data.rs"]
#[expect(dead_code, reason = "the scale bench needs more of it")]
mod data;
#[path = "peers/figures.rs"]
mod figures;
#[path = "peers/jobs.rs"]
mod jobs;
#[path = "peers/memory.rs"]
mod memory;
#[path = "peers/peer.rs"]
mod peer;
#[path = "peers/process.rs"]
mod process;
#[path = "peers/python.rs"]
mod python;
#[path = "peers/speed.rs"]
mod speed;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("peers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the parts that were asked for; says whether every limit was kept.
fn run() -> Result<bool> {
    let (mut speed, mut memory, mut quick) = (false, false, false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--page" => {
                let file = args.next().context("--page FILE")?;
                let figures: figures::Figures = serde_json::from_slice(&std::fs::read(file)?)?;
                print!("{}", figures.page()?);
                return Ok(true);
            }
            "--speed" => speed = true,
            "--memory" => memory = true,
            "--quick" => quick = true,
            // What cargo itself passes.
            "--bench" => {}
            other => bail!("{other} is none of --speed, --quick, --memory and --page FILE"),
        }
    }
    let all = !(speed || memory || quick);
    let scale: f64 = setting("AVIARY_BENCH_SCALE", 1.0)?;
    let runs: usize = setting("AVIARY_BENCH_RUNS", 5)?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let mut kept = true;
        if speed || quick || all {
            kept &= speed::run(scale, runs.max(1), !quick).await?;
        }
        if memory || all {
            kept &= memory::run(scale).await?;
        }
        Ok(kept)
    })
}

fn setting<T: std::str::FromStr>(name: &str, default: T) -> Result<T> {
    match std::env::var(name) {
        Err(_) => Ok(default),
        Ok(text) => text.parse().ok().with_context(|| format!("{name} is no number: {text}")),
    }
}
