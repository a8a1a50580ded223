//! Servers, Aviary's daemons as real processes, and what the database says of their work.

use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use aviary_testcontainers::{Managed, ManagedCommand, ReplicaSet, ReplicaSetOptions};
use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::{Client, Collection};

/// The binary that cargo has built beside the bench.
const AVIARY: &str = env!("CARGO_BIN_EXE_aviary");
/// The database that everything happens in.
const DB: &str = "bench";
/// No condition is waited for longer than this.
const CEILING: Duration = Duration::from_secs(300);

/// A replica set and a place for files.
pub struct Bed {
    pub set: ReplicaSet,
    pub client: Client,
    env: Vec<(String, String)>,
    dir: tempfile::TempDir,
    started: AtomicUsize,
}

impl Bed {
    /// Starts the servers. Every daemon will have this environment.
    pub async fn start(members: usize, env: &[(&str, &str)]) -> Result<Self> {
        let options = ReplicaSetOptions { members, ..ReplicaSetOptions::default() };
        let set = ReplicaSet::start(options).await?;
        let client = Client::with_uri_str(set.uri()).await?;
        let mut of_all =
            vec![("AVIARY_URI".to_owned(), set.uri()), ("AVIARY_DB".to_owned(), DB.to_owned())];
        of_all.extend(env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let dir = tempfile::tempdir()?;
        Ok(Self { set, client, env: of_all, dir, started: AtomicUsize::new(0) })
    }

    pub fn coll(&self, name: &str) -> Collection<Document> {
        self.client.database(DB).collection(name)
    }

    /// Loads `count` documents whose keys are 0 to 9, with so many bytes beside.
    pub async fn load(&self, collection: &str, count: i32, pad_bytes: usize) -> Result<()> {
        let pad = "x".repeat(pad_bytes);
        let docs: Vec<Document> =
            (0..count).map(|n| doc! { "_id": n, "k": n % 10, "pad": &pad }).collect();
        self.coll(collection).insert_many(docs).await?;
        Ok(())
    }

    /// Starts a daemon.
    pub fn spawn(&self, args: &[&str], env: &[(&str, &str)]) -> Result<Managed> {
        let n = self.started.fetch_add(1, Ordering::Relaxed);
        let name = args.first().copied().unwrap_or("aviary");
        let mut command =
            ManagedCommand::new(AVIARY, self.dir.path().join(format!("{n}-{name}.log")))
                .name(name)
                .args(args)
                .env_remove("AVIARY_CONFIG");
        for (name, value) in &self.env {
            command = command.env(name, value);
        }
        for (name, value) in env {
            command = command.env(*name, *value);
        }
        let process = command.spawn()?;
        self.set.adopt(&process)?;
        Ok(process)
    }

    /// Waits until a worker is known to the others.
    pub async fn known(&self, worker: &Managed) -> Result<()> {
        let row = doc! { "kind": "worker", "pid": i64::from(worker.pid()) };
        self.wait_for("a worker to report", async || {
            self.coll("aviary").find_one(row.clone()).await.ok().flatten()
        })
        .await?;
        Ok(())
    }

    /// Submits a job that counts the documents of each key, and returns its id.
    pub async fn submit(&self, input: &str, output: &str) -> Result<String> {
        self.submit_with(input, output, "function () { emit(this.k, 1); }").await
    }

    /// The same with a map function that does so in its own way.
    pub async fn submit_with(&self, input: &str, output: &str, map: &str) -> Result<String> {
        let file = self.dir.path().join(format!("{output}.js"));
        std::fs::write(&file, map)?;
        let ended = tokio::process::Command::new(AVIARY)
            .args(["submit", "--quiet", "--detach", "-o", "name", "-c", input])
            .args(["--reduce", "_sum", "--partitions", "1", "--out", &format!("replace:{output}")])
            .arg("--map")
            .arg(&file)
            .envs(self.env.iter().cloned())
            .env_remove("AVIARY_CONFIG")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        ensure!(ended.status.success(), "submit: {}", String::from_utf8_lossy(&ended.stderr));
        Ok(String::from_utf8_lossy(&ended.stdout).trim().to_owned())
    }

    /// Waits until a job has succeeded, and returns its document.
    pub async fn succeeded(&self, id: &str) -> Result<Document> {
        let job = self
            .wait_for("a job to end", async || {
                let ended = doc! { "_id": id, "finished": { "$exists": true } };
                self.coll("aviary").find_one(ended).await.ok().flatten()
            })
            .await?;
        ensure!(
            job.get_str("state").is_ok_and(|state| state == "succeeded"),
            "the job ended otherwise: {job}"
        );
        Ok(job)
    }

    /// Makes sure that a job's output is right: an answer that comes soon must be one.
    pub async fn check(&self, output: &str, documents: i32) -> Result<()> {
        let found: Vec<Document> =
            self.coll(output).find(doc! {}).await?.try_collect().await.context("read output")?;
        let sum: f64 = found.iter().filter_map(|row| row.get("value").and_then(number)).sum();
        ensure!(
            found.len() == 10 && (sum - f64::from(documents)).abs() < 0.5,
            "{output} holds {found:?}"
        );
        Ok(())
    }

    /// The job's tasks.
    pub async fn tasks(&self, job: &str) -> Result<Vec<Document>> {
        let of_job = doc! { "job": job, "kind": { "$in": ["map", "reduce", "publish"] } };
        Ok(self.coll("aviary").find(of_job).await?.try_collect().await?)
    }

    /// Waits until `condition` gives something.
    pub async fn wait_for<T>(
        &self,
        what: &str,
        condition: impl AsyncFn() -> Option<T>,
    ) -> Result<T> {
        let began = Instant::now();
        loop {
            if let Some(found) = condition().await {
                return Ok(found);
            }
            if began.elapsed() > CEILING {
                bail!("waited too long for {what}");
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }
}

/// Whether the id of a worker or coordinator is that of a process.
pub fn is_of(id: &str, process: &Managed) -> bool {
    id.contains(&format!("-{}-", process.pid()))
}

/// A date of a document, in milliseconds.
pub fn millis(document: &Document, name: &str) -> Result<i64> {
    let date = document.get_datetime(name).with_context(|| format!("no {name}: {document}"))?;
    Ok(date.timestamp_millis())
}

/// Waits a time between nothing and `most_ms`.
pub async fn pause(most_ms: i64) {
    let share = rand::random::<f64>();
    let most = Duration::from_millis(u64::try_from(most_ms).unwrap_or_default());
    tokio::time::sleep(most.mul_f64(share)).await;
}

/// Ends a daemon in good order.
pub async fn stop(process: &Managed) -> Result<()> {
    const GRACE: Duration = Duration::from_secs(60);
    process.terminate()?;
    Ok(process.wait_gone(GRACE).await?)
}

fn number(value: &bson::Bson) -> Option<f64> {
    match value {
        bson::Bson::Int32(n) => Some(f64::from(*n)),
        bson::Bson::Int64(n) => Some(*n as f64),
        bson::Bson::Double(n) => Some(*n),
        _ => None,
    }
}
