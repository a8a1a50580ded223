//! A sharded cluster of containers, from the image that `deploy/image` builds: each shard is one container
//! with a mongod and a worker beside it, so that both can be given a share of the processors together.
//!
//! It is for measuring and for tests; `deploy/compose.yaml` is what a cluster looks like. It takes an engine
//! that `DOCKER_HOST` names, pulls nothing when the image is there, and uses the crate `testcontainers`,
//! which removes the containers when they are dropped.

use std::net::TcpListener;

use testcontainers::core::{CmdWaitFor, ContainerPort, ExecCommand, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt};

use crate::assemble::Members;
use crate::error::{At, Error, Result};

const CONFIG_PORT: u16 = 27_019;
const SHARD_PORT: u16 = 27_018;
const ROUTER_PORT: u16 = 27_017;
const NANOS: f64 = 1e9;

/// What a cluster of containers is started with.
#[derive(Debug, Clone)]
pub struct ContainersOptions {
    /// The image, as `name:tag`.
    pub image: String,
    /// How many shards, named `s0`, `s1`, and so on, of one container each.
    pub shards: usize,
    /// The share of processors that a shard's container may use, its mongod and its worker together.
    pub shard_cpus: Option<f64>,
    /// Tasks that a worker runs at once.
    pub slots: usize,
    /// Whether the image holds a mongos to be used; the test-only router otherwise.
    pub mongos: bool,
    /// Environment of the coordinator and of the shards.
    pub env: Vec<(String, String)>,
}

impl Default for ContainersOptions {
    fn default() -> Self {
        Self {
            image: "aviary:latest".to_owned(),
            shards: 1,
            shard_cpus: None,
            slots: 1,
            mongos: false,
            env: Vec::new(),
        }
    }
}

/// A running cluster of containers. Dropping it removes them.
#[derive(Debug)]
pub struct Containers {
    shards: Vec<ContainerAsync<GenericImage>>,
    coordinator: ContainerAsync<GenericImage>,
    // Held for as long as the cluster is.
    _others: [ContainerAsync<GenericImage>; 2],
    port: u16,
}

/// How a program ended that was run in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// Its exit code.
    pub code: i64,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Containers {
    /// Starts all containers and makes a cluster of them, ready for jobs in the database `test`.
    ///
    /// # Errors
    ///
    /// When the engine does not start a container, or when the servers do not form a cluster.
    pub async fn start(options: ContainersOptions) -> Result<Self> {
        let port = free_port()?;
        let make = Making { prefix: format!("aviary{}", port), options: &options };
        let config_host = make.host("config");
        let config =
            Members { name: "cfg".to_owned(), hosts: vec![format!("{config_host}:{CONFIG_PORT}")] };
        let config_server = make.start("config", &["config", "cfg"], None, None).await?;
        let mut shards = Vec::new();
        let mut members = Vec::new();
        for index in 0..options.shards {
            let name = format!("s{index}");
            members.push(format!("{name}/{}:{SHARD_PORT}", make.host(&name)));
            shards.push(make.start(&name, &["shard", &name], options.shard_cpus, None).await?);
        }
        let config = config.to_string();
        let stand_in = ["test-router", "--configdb", &config, "--port", "27017", "--bind_ip_all"];
        let router: &[&str] = if options.mongos { &["router", &config] } else { &stand_in };
        let router = make.start("router", router, None, Some(port)).await?;
        let coordinator = make.start("coordinator", &["coordinator"], None, None).await?;
        let cluster = Self { shards, coordinator, _others: [config_server, router], port };
        let mut assemble =
            vec!["aviary".to_owned(), "assemble".to_owned(), "--config-servers".to_owned(), config];
        assemble.extend(members.into_iter().flat_map(|shard| ["--shard".to_owned(), shard]));
        let done = cluster.exec(None, assemble).await?;
        if done.code != 0 {
            return Err(Error::Containers { reason: done.stderr });
        }
        Ok(cluster)
    }

    /// The address of the router.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/test?retryWrites=false", self.port)
    }

    /// How many shards there are.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// Runs the command line in the coordinator's container.
    ///
    /// # Errors
    ///
    /// When the engine cannot run it; not when it fails.
    pub async fn aviary(&self, args: &[&str]) -> Result<Executed> {
        let command = ["aviary"].iter().chain(args).map(|arg| (*arg).to_owned());
        self.exec(None, command.collect()).await
    }

    /// Writes a file into the coordinator's container, for a function to submit.
    ///
    /// # Errors
    ///
    /// When it cannot be written there.
    pub async fn write(&self, path: &str, text: &str) -> Result<()> {
        let script = "printf %s \"$1\" > \"$0\"";
        let command = ["sh", "-c", script, path, text].map(str::to_owned).to_vec();
        let done = self.exec(None, command).await?;
        if done.code != 0 {
            return Err(Error::Containers { reason: done.stderr });
        }
        Ok(())
    }

    /// The processor time that a shard's container has used, in seconds: its mongod and its worker.
    ///
    /// # Errors
    ///
    /// When there is no such shard, or when the container does not tell.
    pub async fn shard_cpu_seconds(&self, index: usize) -> Result<f64> {
        let script = "cat /sys/fs/cgroup/cpuacct/cpuacct.usage 2>/dev/null \
                      || sed -n 's/^usage_usec \\(.*\\)/\\1000/p' /sys/fs/cgroup/cpu.stat";
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        let told = self.exec(Some(index), command).await?;
        let nanos = told.stdout.trim().parse::<f64>();
        nanos
            .map(|nanos| nanos / NANOS)
            .map_err(|_| Error::Containers { reason: format!("{told:?}") })
    }

    async fn exec(&self, shard: Option<usize>, command: Vec<String>) -> Result<Executed> {
        let count = self.shards.len();
        let container = match shard {
            Some(index) => self.shards.get(index).ok_or(Error::NoShard { index, count })?,
            None => &self.coordinator,
        };
        let command = ExecCommand::new(command).with_cmd_ready_condition(CmdWaitFor::exit());
        let mut ended = container.exec(command).await.map_err(engine)?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Executed {
            stdout: text(ended.stdout_to_vec().await.map_err(engine)?),
            stderr: text(ended.stderr_to_vec().await.map_err(engine)?),
            code: ended.exit_code().await.map_err(engine)?.unwrap_or(-1),
        })
    }
}

/// What the containers of one cluster have in common.
struct Making<'a> {
    prefix: String,
    options: &'a ContainersOptions,
}

impl Making<'_> {
    /// Containers of a network know each other by their names.
    fn host(&self, service: &str) -> String {
        format!("{}-{service}", self.prefix)
    }

    async fn start(
        &self,
        service: &str,
        command: &[&str],
        cpus: Option<f64>,
        port: Option<u16>,
    ) -> Result<ContainerAsync<GenericImage>> {
        let (name, tag) =
            self.options.image.rsplit_once(':').unwrap_or((&self.options.image, "latest"));
        let image = GenericImage::new(name, tag).with_wait_for(WaitFor::Nothing);
        let mut request: ContainerRequest<GenericImage> = image
            .with_cmd(command.iter().copied())
            .with_container_name(self.host(service))
            .with_hostname(self.host(service))
            .with_network(&self.prefix)
            .with_env_var("AVIARY_SLOTS", self.options.slots.to_string())
            .with_env_var(
                "AVIARY_URI",
                format!("mongodb://{}:{ROUTER_PORT}/test?retryWrites=false", self.host("router")),
            );
        for (name, value) in &self.options.env {
            request = request.with_env_var(name, value);
        }
        if let Some(cpus) = cpus {
            #[expect(clippy::cast_possible_truncation, reason = "a few processors")]
            let nano_cpus = (cpus * NANOS) as i64;
            request =
                request.with_host_config_modifier(move |host| host.nano_cpus = Some(nano_cpus));
        }
        if let Some(port) = port {
            request = request.with_mapped_port(port, ContainerPort::Tcp(ROUTER_PORT));
        }
        request.start().await.map_err(engine)
    }
}

/// A port that is free now, for the router; it also tells clusters apart.
fn free_port() -> Result<u16> {
    let anywhere = std::path::Path::new("127.0.0.1:0");
    let listener = TcpListener::bind("127.0.0.1:0").at("listen on", anywhere)?;
    listener.local_addr().map(|address| address.port()).at("listen on", anywhere)
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn engine(error: testcontainers::TestcontainersError) -> Error {
    Error::Containers { reason: error.to_string() }
}
