//! A sharded cluster: config servers, shards, and a router in front of them.
//!
//! Config servers and shards are replica sets of real servers. The router is a `mongos` where one
//! is installed, and the test-only stand-in [`crate::router`] otherwise.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use mongodb::bson::{Document, doc};
use tokio::task::JoinSet;

use crate::error::{Error, Result};
use crate::home::Home;
use crate::launch::{self, CONDITION};
use crate::process::Record;
use crate::replica_set::{CACHE_GB, ELECTION_TIMEOUT_MS, KEY_FILE, Role, key_file};
use crate::state::{self, FORMAT, State};
use crate::uri::{host, uri_of};
use crate::{Managed, Progress, ReplicaSet, ReplicaSetOptions, wire};

mod administration;
mod front;

pub use administration::Chunk;
pub use front::{Front, MONGOS_VARIABLE, ROUTER_VARIABLE, RouterProgram, mongos};

/// The name of the config servers' replica set.
const CONFIG_SET: &str = "cfg";
/// The size of each member's replication log, in MB: the smallest the server accepts.
const OPLOG_MB: u32 = 990;
/// What a cluster is called in the state of its directory.
const STATE_NAME: &str = "sharded";
/// What a test cannot wait for. By default a shard leaves what moved away where it was for a quarter
/// of an hour, in which the range cannot move back; and a shard without writes keeps the events of
/// all others from a change stream's reader for ten seconds.
const SHARD_PARAMETERS: [(&str, &str); 2] =
    [("orphanCleanupDelaySecs", "0"), ("periodicNoopIntervalSecs", "1")];

/// What a sharded cluster is started with.
#[derive(Debug, Clone)]
pub struct ShardedClusterOptions {
    /// How many shards, named `s0`, `s1`, and so on.
    pub shards: usize,
    /// How many members each shard has: 1 or 3.
    pub shard_members: usize,
    /// How many config servers: 1 or 3.
    pub config_members: usize,
    /// Where data and logs are; a temporary directory otherwise, which is removed at the end. A
    /// directory that an earlier cluster left behind is served again.
    pub dir: Option<PathBuf>,
    /// The router's port; a free one otherwise.
    pub port: Option<u16>,
    /// The size of each server's cache, in GB.
    pub cache_gb: f64,
    /// How long a silent primary is put up with, in milliseconds.
    pub election_timeout_ms: u32,
    /// Whether servers ask who their clients are. Each shard has an administrator of its own; whoever comes
    /// through the stand-in for a router may do anything.
    pub auth: bool,
    /// Whether chunks are moved without being asked for.
    pub balancer: bool,
    /// Whether commands meant for tests, such as fail points, are allowed.
    pub test_commands: bool,
    /// Whether it outlives this program. [`state::down`] ends it then.
    pub persistent: bool,
    /// Parameters to set on every server. Unless they are among them, `orphanCleanupDelaySecs` is
    /// 0 on shards (what moved away is deleted at once) and `periodicNoopIntervalSecs` is 1 (a
    /// quiet shard delays change streams by a second at most).
    pub parameters: Vec<(String, String)>,
    /// Further arguments for each shard's servers.
    pub shard_args: Vec<String>,
    /// The server program; [`crate::mongod::locate`] finds one otherwise.
    pub mongod: Option<PathBuf>,
    /// What to use as the router.
    pub router: RouterProgram,
    /// Told about steps that take long.
    pub progress: Progress,
}

impl Default for ShardedClusterOptions {
    fn default() -> Self {
        Self {
            shards: 2,
            shard_members: 1,
            config_members: 1,
            dir: None,
            port: None,
            cache_gb: CACHE_GB,
            election_timeout_ms: ELECTION_TIMEOUT_MS,
            auth: false,
            balancer: false,
            test_commands: false,
            persistent: false,
            parameters: Vec::new(),
            shard_args: Vec::new(),
            mongod: None,
            router: RouterProgram::Auto,
            progress: Progress::silent(),
        }
    }
}

/// A running sharded cluster. Dropping it ends it, unless it is persistent.
#[derive(Debug)]
pub struct ShardedCluster {
    front: Front,
    shards: Vec<ReplicaSet>,
    config: ReplicaSet,
    options: ShardedClusterOptions,
    adopted: Mutex<Vec<Record>>,
    /// Of an earlier run in the same directory.
    old_logs: Vec<PathBuf>,
    // Last, so that the directory goes after the processes in it.
    home: Home,
}

impl ShardedCluster {
    /// Starts all servers at once, then the router, and makes the shards known to each other.
    ///
    /// # Errors
    ///
    /// When no server program is found, when the options contradict each other, or when a server
    /// does not start; the error shows the telling lines of its log.
    pub async fn start(mut options: ShardedClusterOptions) -> Result<Self> {
        if options.shards == 0 {
            return Err(Error::Options { option: "shards", reason: "at least 1".to_owned() });
        }
        let old_logs = check_dir(&options)?;
        let mongod = launch::program(options.mongod.as_deref(), &options.progress).await?;
        options.mongod = Some(mongod);
        let home = Home::create(options.dir.as_deref(), options.persistent)?;
        let key_file = if options.auth { Some(key_file(home.path())?) } else { None };
        let (config, shards) = start_sets(&options, home.path()).await?;
        let servers = config_db(&config)?;
        let front = Front::start(&options, &servers, key_file.as_deref(), &home).await?;
        let mut cluster =
            Self { front, shards, config, options, adopted: Mutex::default(), old_logs, home };
        for shard in &cluster.shards {
            cluster.register(shard).await?;
        }
        if !cluster.options.balancer {
            cluster.stop_balancer().await?;
        }
        cluster.write_state()?;
        // Only now, so that a start that fails half-way leaves nothing running.
        if cluster.options.persistent {
            cluster.shards.iter_mut().chain([&mut cluster.config]).for_each(ReplicaSet::leave);
            cluster.front.detach()?;
            cluster.home.leave();
        }
        Ok(cluster)
    }

    /// The address of the router. Writes are not retried: the stand-in cannot tell a write it has
    /// done from a new one.
    #[must_use]
    pub fn uri(&self) -> String {
        uri_of(None, &[self.front.port()], "retryWrites=false")
    }

    /// The directory that holds the replica sets' directories and the router's log.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.home.path()
    }

    /// A shard, with all that can be done to a replica set.
    ///
    /// # Errors
    ///
    /// When there is no such shard.
    pub fn shard(&self, index: usize) -> Result<&ReplicaSet> {
        let count = self.shards.len();
        self.shards.get(index).ok_or(Error::NoShard { index, count })
    }

    /// The shards' names, which are those of their replica sets.
    #[must_use]
    pub fn shard_names(&self) -> Vec<String> {
        self.shards.iter().map(|shard| shard.name().to_owned()).collect()
    }

    /// How many shards there are.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// The config servers, with all that can be done to a replica set.
    #[must_use]
    pub fn config(&self) -> &ReplicaSet {
        &self.config
    }

    /// The router: to kill it, to start it again, and to see its process.
    #[must_use]
    pub fn router(&self) -> &Front {
        &self.front
    }

    /// Starts another shard, adds it, and says which number it has.
    ///
    /// # Errors
    ///
    /// When it does not start or cannot be added.
    pub async fn add_shard(&mut self) -> Result<usize> {
        let index = self.shards.len();
        let options = set_options(&self.options, self.home.path(), Some(index));
        let mut shard = ReplicaSet::start(options).await?;
        self.register(&shard).await?;
        if self.options.persistent {
            shard.leave();
        }
        self.shards.push(shard);
        self.write_state()?;
        Ok(index)
    }

    /// Runs a command on the database `admin` through the router.
    ///
    /// # Errors
    ///
    /// When it is refused.
    pub async fn run_admin(&self, command: Document) -> Result<Document> {
        self.run_on("admin", command).await
    }

    /// Runs a command on a database through the router.
    ///
    /// # Errors
    ///
    /// When it is refused.
    pub async fn run_on(&self, db: &str, mut command: Document) -> Result<Document> {
        command.insert("$db", db);
        wire::command(self.front.port(), command, CONDITION).await
    }

    /// Ends everything, persistent or not; in good order when the data are kept.
    ///
    /// # Errors
    ///
    /// When a process cannot be ended.
    pub async fn shutdown(self) -> Result<()> {
        let keep = !self.home.is_temporary();
        let dir = self.home.path().to_path_buf();
        self.front.kill().await.ok();
        if keep {
            state::down(&dir, false).await?;
        }
        Ok(())
    }

    /// Lets a process end with the cluster: when the handle is dropped, when this program dies, or
    /// with [`state::down`].
    ///
    /// # Errors
    ///
    /// When it cannot be recorded.
    pub fn adopt(&self, process: &Managed) -> Result<()> {
        if self.options.persistent {
            process.detach();
        }
        self.home.watch(process.record())?;
        self.adopted.lock().unwrap_or_else(PoisonError::into_inner).push(process.record().clone());
        self.write_state()
    }

    async fn register(&self, shard: &ReplicaSet) -> Result<()> {
        let hosts: Vec<String> = ports_of(shard)?.into_iter().map(host).collect();
        let address = format!("{}/{}", shard.name(), hosts.join(","));
        self.run_admin(doc! { "addShard": address, "name": shard.name() }).await.map(|_| ())
    }

    /// One file for all, so that [`state::down`] ends a cluster like any other deployment.
    fn write_state(&self) -> Result<()> {
        let sets = self.shards.iter().chain([&self.config]);
        State {
            format: FORMAT,
            name: STATE_NAME.to_owned(),
            uri: self.uri(),
            ports: vec![self.front.port()],
            root: None,
            boot: state::boot(),
            // The router ends with the servers, after what was adopted, which may need it to the last.
            members: sets.flat_map(|set| set.state().members).chain(self.front.record()).collect(),
            others: self.adopted.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            old_logs: self.old_logs.clone(),
        }
        .write(self.home.path())
    }
}

/// Refuses a directory in which something runs, or which holds something else, before it is touched. Says which
/// logs an earlier run left there.
fn check_dir(options: &ShardedClusterOptions) -> Result<Vec<PathBuf>> {
    let Some(dir) = options.dir.as_deref().filter(|dir| State::path(dir).exists()) else {
        return Ok(Vec::new());
    };
    let state = State::read(dir)?;
    if state.running().next().is_some() {
        return Err(Error::AlreadyRunning { dir: dir.to_path_buf() });
    }
    let reason = if state.name != STATE_NAME {
        format!("it holds the data of the replica set {:?}", state.name)
    } else if dir.join(format!("s{}", options.shards)).exists() {
        format!("it holds the data of more than {} shards", options.shards)
    } else {
        return Ok(state.logs());
    };
    Err(Error::Options { option: "dir", reason })
}

/// Starts the config servers and all shards at the same time.
async fn start_sets(
    options: &ShardedClusterOptions,
    dir: &Path,
) -> Result<(ReplicaSet, Vec<ReplicaSet>)> {
    let mut starting = JoinSet::new();
    for index in 0..options.shards {
        let options = set_options(options, dir, Some(index));
        starting.spawn(async move { (index, ReplicaSet::start(options).await) });
    }
    let config = ReplicaSet::start(set_options(options, dir, None)).await;
    // All of them are waited for, whatever becomes of one, so that none is left half started.
    let mut started = starting.join_all().await;
    started.sort_by_key(|(index, _)| *index);
    let shards = started.into_iter().map(|(_, shard)| shard).collect::<Result<_>>()?;
    Ok((config?, shards))
}

fn set_options(
    options: &ShardedClusterOptions,
    dir: &Path,
    shard: Option<usize>,
) -> ReplicaSetOptions {
    let (name, role, members) = match shard {
        Some(index) => (format!("s{index}"), Role::Shard, options.shard_members),
        None => (CONFIG_SET.to_owned(), Role::Config, options.config_members),
    };
    let mut parameters = options.parameters.clone();
    for (name, value) in SHARD_PARAMETERS {
        if role == Role::Shard && !parameters.iter().any(|(set, _)| set == name) {
            parameters.push((name.to_owned(), value.to_owned()));
        }
    }
    ReplicaSetOptions {
        dir: Some(dir.join(&name)),
        key_file: options.auth.then(|| dir.join(KEY_FILE)),
        name,
        role,
        members,
        auth: options.auth,
        cache_gb: options.cache_gb,
        oplog_mb: OPLOG_MB,
        election_timeout_ms: options.election_timeout_ms,
        test_commands: options.test_commands,
        persistent: false,
        parameters,
        extra_args: if role == Role::Shard { options.shard_args.clone() } else { Vec::new() },
        mongod: options.mongod.clone(),
        progress: options.progress.clone(),
        ..ReplicaSetOptions::default()
    }
}

fn ports_of(set: &ReplicaSet) -> Result<Vec<u16>> {
    (0..set.member_count()).map(|index| set.port(index)).collect()
}

/// The config servers in the form `mongos --configdb` takes.
fn config_db(config: &ReplicaSet) -> Result<String> {
    let hosts: Vec<String> = ports_of(config)?.into_iter().map(host).collect();
    Ok(format!("{}/{}", config.name(), hosts.join(",")))
}
