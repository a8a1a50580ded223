//! What more costs: `cargo bench --bench scale`.
//!
//! * `-- --tasks`: jobs of more and more map tasks that do nothing, by what one task costs.
//! * `-- --jobs`: the same tasks in more and more jobs at once.
//!
//! `AVIARY_BENCH_TASKS=640,10000` says how many tasks, `AVIARY_BENCH_JOBS=1,8,32` how many jobs. One replica set of
//! one member, one coordinator, one worker of two slots. `AVIARY_BENCH_AGAINST=PATH` measures another `aviary` in turn.

#[path = "peers/bed.rs"]
mod bed;
#[path = "peers/process.rs"]
mod process;
#[path = "scale/tasks.rs"]
mod tasks;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scale: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let (mut tasks, mut jobs) = (false, false);
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "--tasks" => tasks = true,
            "--jobs" => jobs = true,
            // What cargo itself passes.
            "--bench" => {}
            other => bail!("{other} is none of --tasks and --jobs"),
        }
    }
    let all = !tasks && !jobs;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        if tasks || all {
            tasks::more_tasks(&numbers("AVIARY_BENCH_TASKS", &[640, 10_000])?).await?;
        }
        if jobs || all {
            tasks::more_jobs(&numbers("AVIARY_BENCH_JOBS", &[1, 8, 32])?).await?;
        }
        Ok(())
    })
}

fn numbers(name: &str, default: &[u32]) -> Result<Vec<u32>> {
    let Ok(text) = std::env::var(name) else { return Ok(default.to_vec()) };
    text.split(',')
        .map(|n| n.trim().parse().with_context(|| format!("{name} holds no number: {n}")))
        .collect()
}
