//! What more costs: `cargo bench --bench scale`.
//!
//! * `-- --tasks`: jobs of more and more map tasks that do nothing, by what one task costs.
//! * `-- --jobs`: the same tasks in more and more jobs at once.
//! * `-- --data`: the same job over ten times as many small documents (20 million).
//! * `-- --keys`: ten times as many distinct keys (5 million).
//! * `-- --latency`: a job over 100 documents from `aviary submit` to its result, in a new database and in one where 10,000
//!   jobs have ended.
//! * `-- --databases`: what 200 databases cost in which nothing happens, and how soon a job in one of them begins.
//! * `-- --shares`: 50 small jobs alone, and beside a large one of the same client and of another one.
//!
//! `AVIARY_BENCH_TASKS=640,10000` says how many tasks, `AVIARY_BENCH_JOBS=1,8,32` how many jobs,
//! `AVIARY_BENCH_DATABASES=200` how many databases. One replica set of
//! one member, one coordinator, one worker of two slots. `AVIARY_BENCH_AGAINST=PATH` measures another `aviary` in turn.

#[path = "peers/bed.rs"]
#[expect(dead_code, reason = "the peers' bench needs more of it")]
mod bed;
#[path = "peers/data.rs"]
#[expect(dead_code, reason = "the peers' bench needs more of it")]
mod data;
#[path = "scale/databases.rs"]
mod databases;
#[path = "scale/latency.rs"]
mod latency;
#[path = "scale/data.rs"]
mod more;
#[path = "peers/process.rs"]
#[expect(dead_code, reason = "the peers' bench needs more of it")]
mod process;
#[path = "scale/shares.rs"]
mod shares;
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
    let (mut tasks, mut jobs, mut more_data, mut keys, mut latency, mut databases, mut shares) =
        (false, false, false, false, false, false, false);
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "--tasks" => tasks = true,
            "--jobs" => jobs = true,
            "--data" => more_data = true,
            "--keys" => keys = true,
            "--latency" => latency = true,
            "--databases" => databases = true,
            "--shares" => shares = true,
            // What cargo itself passes.
            "--bench" => {}
            other => {
                bail!(
                    "{other} is none of --tasks, --jobs, --data, --keys, --latency, --databases and --shares"
                )
            }
        }
    }
    let all = !(tasks || jobs || more_data || keys || latency || databases || shares);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        if tasks || all {
            tasks::more_tasks(&numbers("AVIARY_BENCH_TASKS", &[640, 10_000])?).await?;
        }
        if jobs || all {
            tasks::more_jobs(&numbers("AVIARY_BENCH_JOBS", &[1, 8, 32])?).await?;
        }
        if more_data || all {
            more::more_data().await?;
        }
        if keys || all {
            more::more_keys().await?;
        }
        if latency || all {
            latency::run().await?;
        }
        if databases || all {
            for count in numbers("AVIARY_BENCH_DATABASES", &[200])? {
                databases::run(count).await?;
            }
        }
        if shares || all {
            shares::run().await?;
        }
        Ok(())
    })
}

/// What is measured: this binary, and another one if there is one to be compared with.
fn programs() -> Vec<(&'static str, String)> {
    let mut programs = vec![("", bed::AVIARY.to_owned())];
    programs.extend(std::env::var("AVIARY_BENCH_AGAINST").ok().map(|other| ("the other: ", other)));
    programs
}

fn numbers(name: &str, default: &[u32]) -> Result<Vec<u32>> {
    let Ok(text) = std::env::var(name) else { return Ok(default.to_vec()) };
    text.split(',')
        .map(|n| n.trim().parse().with_context(|| format!("{name} holds no number: {n}")))
        .collect()
}
