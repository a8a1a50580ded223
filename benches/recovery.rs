//! How soon a job goes on after a fault, on real servers with real processes: `cargo bench --bench recovery`.
//!
//! 1. A worker is killed (`kill -9`) while it holds a task: how long until another worker has the task.
//! 2. The primary steps down: how long a running job stands still, against how long nothing could be written.
//! 3. The coordinator is killed: how much later a job of 100 documents ends than an undisturbed one.
//!
//! `-- --worker`, `--primary` and `--coordinator` run one part. `AVIARY_BENCH_KILLS` says how many workers are
//! killed (default 50), `AVIARY_BENCH_STEPDOWNS` how often the primary steps down (6), `AVIARY_BENCH_COORDINATORS`
//! how many coordinators are killed (20). Servers, daemons and the bench share one machine and so one clock.
//! Every promise is judged by what was measured in the same run; the exit code says whether all were kept.

#[path = "recovery/bed.rs"]
mod bed;
#[path = "recovery/coordinator.rs"]
mod coordinator;
#[path = "recovery/figures.rs"]
mod figures;
#[path = "recovery/primary.rs"]
mod primary;
#[path = "recovery/worker.rs"]
mod worker;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("recovery: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the parts that were asked for; says whether every promise was kept.
fn run() -> Result<bool> {
    let (mut worker, mut primary, mut coordinator) = (false, false, false);
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "--worker" => worker = true,
            "--primary" => primary = true,
            "--coordinator" => coordinator = true,
            // What cargo itself passes.
            "--bench" => {}
            other => bail!("{other} is none of --worker, --primary and --coordinator"),
        }
    }
    let all = !worker && !primary && !coordinator;
    let kills = setting("AVIARY_BENCH_KILLS", 50)?;
    let step_downs = setting("AVIARY_BENCH_STEPDOWNS", 6)?;
    let coordinators = setting("AVIARY_BENCH_COORDINATORS", 20)?;
    let build = if cfg!(debug_assertions) { "not optimized" } else { "optimized" };
    println!("the binary is {build}; {}", figures::machine());
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let mut kept = true;
        if worker || all {
            kept &= worker::run(kills).await.context("killed workers")?;
        }
        if primary || all {
            kept &= primary::run(step_downs).await.context("primaries that step down")?;
        }
        if coordinator || all {
            kept &= coordinator::run(coordinators).await.context("killed coordinators")?;
        }
        Ok(kept)
    })
}

fn setting(name: &str, default: usize) -> Result<usize> {
    let given = match std::env::var(name) {
        Err(_) => default,
        Ok(text) => text.parse().with_context(|| format!("{name} is no number: {text}"))?,
    };
    anyhow::ensure!(given > 0, "{name} must be at least 1");
    Ok(given)
}
