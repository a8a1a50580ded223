//! `aviary-test-router`: the test-only stand-in for mongos as a process, so that tests can kill it.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    aviary_testcontainers::router::program::main(&args).await
}
