//! Starts a replica set, prints its directory and process ids, and waits to be killed.

use std::io::{Read, Write};

use aviary_testcontainers::{Progress, ReplicaSet, ReplicaSetOptions};

#[tokio::main(flavor = "current_thread")]
async fn main() -> aviary_testcontainers::Result<()> {
    let set = ReplicaSet::start(ReplicaSetOptions {
        members: if std::env::args().any(|arg| arg == "3") { 3 } else { 1 },
        progress: Progress::new(|line| eprintln!("{line}")),
        ..ReplicaSetOptions::default()
    })
    .await?;
    println!("dir {}", set.dir().display());
    println!("uri {}", set.uri());
    for pid in set.pids() {
        println!("pid {pid}");
    }
    println!("ready");
    std::io::stdout().flush().ok();
    // A byte or the end of the input ends it in good order.
    std::io::stdin().read_exact(&mut [0]).ok();
    Ok(())
}
