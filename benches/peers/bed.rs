//! One server, and Aviary's daemons as real processes of the release binary.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use aviary_testcontainers::{Managed, ManagedCommand, ReplicaSet, ReplicaSetOptions};
use mongodb::{Client, Database};

/// The binary that `cargo bench` has built, optimized.
pub const AVIARY: &str = env!("CARGO_BIN_EXE_aviary");
/// The database that everything happens in.
const DB: &str = "bench";
/// Large enough to hold the input: the peers are compared, not the disk.
const CACHE_GB: f64 = 3.0;
/// Tasks that a worker runs at once.
const SLOTS: &str = "2";

/// A replica set of one member and a place for files.
pub struct Bed {
    /// The server.
    pub set: ReplicaSet,
    dir: tempfile::TempDir,
    client: Client,
}

/// A coordinator and a worker.
pub struct Daemons {
    /// The coordinator's process.
    pub coordinator: Managed,
    /// The worker's process.
    pub worker: Managed,
}

impl Bed {
    /// Starts the server.
    pub async fn start() -> Result<Self> {
        let options = ReplicaSetOptions { cache_gb: CACHE_GB, ..ReplicaSetOptions::default() };
        let set = ReplicaSet::start(options).await?;
        let client = Client::with_uri_str(set.uri()).await?;
        Ok(Self { set, dir: tempfile::tempdir()?, client })
    }

    /// The database.
    pub fn db(&self) -> Database {
        self.client.database(DB)
    }

    /// The server's process.
    pub fn mongod(&self) -> Result<u32> {
        self.set.pids().first().copied().context("no server runs")
    }

    /// The deployment's address.
    pub fn uri(&self) -> String {
        self.set.uri()
    }

    /// Starts a coordinator and a worker of a binary; they end when they are dropped.
    pub fn daemons(&self, program: &str, name: &str) -> Result<Daemons> {
        let worker = ["worker", "--slots", SLOTS];
        Ok(Daemons {
            coordinator: self.spawn(
                program,
                &format!("{name}-coordinator"),
                &["coordinator"],
                &[],
            )?,
            worker: self.spawn(program, &format!("{name}-worker"), &worker, &[])?,
        })
    }

    /// Removes what Aviary keeps of jobs and functions, for another binary to begin with nothing.
    pub async fn forget(&self) -> Result<()> {
        let db = self.db();
        for name in db.list_collection_names().await? {
            if name.starts_with("aviary") {
                db.collection::<bson::Document>(&name).drop().await?;
            }
        }
        Ok(())
    }

    /// Starts a daemon with more environment; an empty value takes a variable away.
    pub fn spawn(
        &self,
        program: &str,
        name: &str,
        args: &[&str],
        env: &[(&str, String)],
    ) -> Result<Managed> {
        let mut command = ManagedCommand::new(program, self.dir.path().join(format!("{name}.log")))
            .name(name)
            .args(args)
            .env("AVIARY_URI", self.set.uri())
            .env("AVIARY_DB", DB)
            .env_remove("AVIARY_CONFIG");
        for (name, value) in env {
            command = match value.as_str() {
                "" => command.env_remove(*name),
                value => command.env(*name, value),
            };
        }
        let process = command.spawn()?;
        self.set.adopt(&process)?;
        Ok(process)
    }

    /// Writes a function to a file.
    pub fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// Runs a job from submission to the collection in place. Returns its id.
    pub async fn submit(
        &self,
        program: &str,
        input: &str,
        map: &Path,
        reduce: &str,
        out: &str,
        more: &[&str],
    ) -> Result<String> {
        let output = tokio::process::Command::new(program)
            .args(["submit", "--quiet", "-o", "name", "-c", input, "--reduce", reduce])
            .args(["--out", &format!("replace:{out}")])
            .arg("--map")
            .arg(map)
            .args(more)
            .env("AVIARY_URI", self.set.uri())
            .env("AVIARY_DB", DB)
            .env_remove("AVIARY_CONFIG")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        if !output.status.success() {
            bail!("aviary submit: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }
}
