//! A replica set of one or three members, and what can be done to it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use mongodb::Client;
use mongodb::bson::{Document, doc};
use tokio::task::JoinSet;

use crate::error::{Error, Result};
use crate::home::Home;
use crate::launch::{self, CONDITION, Launch, PORT_TRIES_MAX, STOP_GRACE};
use crate::ports::{self, Lease};
use crate::process::{Managed, POLL, Record};
use crate::state::{self, Credentials, FORMAT, State};
use crate::uri::{host, replica_set_uri, uri_of};
use crate::{Progress, wire};

mod faults;
mod users;

pub use faults::FailCommand;
use users::secret;
pub(crate) use users::{KEY_FILE, key_file};

/// The size of a server's cache unless told otherwise, in GB: the smallest it accepts.
pub const CACHE_GB: f64 = 0.25;

/// The size of the replication log unless told otherwise, in MB. A member that is away for more
/// writes than this copies everything anew.
pub const OPLOG_MB: u32 = 990;

/// How long a silent primary is put up with unless told otherwise, in milliseconds. The server's
/// own default is ten times this; tests wait for elections.
pub const ELECTION_TIMEOUT_MS: u32 = 1_000;

const HEARTBEAT_INTERVAL_MS: u32 = 300;
/// A frozen member is asked for its vote, and the election waits for it this long.
const HEARTBEAT_TIMEOUT_S: i32 = 2;
const ALREADY_INITIALIZED: i32 = 23;

/// What a replica set is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// To be used by itself.
    #[default]
    Plain,
    /// To be a shard of a sharded cluster.
    Shard,
    /// To be the config servers of a sharded cluster.
    Config,
}

/// What a replica set is started with.
#[derive(Debug, Clone)]
pub struct ReplicaSetOptions {
    /// The replica set's name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// How many members: 1 or 3.
    pub members: usize,
    /// Where data and logs are; a temporary directory otherwise, which is removed at the end. A
    /// directory that an earlier replica set left behind is served again, on the same ports.
    pub dir: Option<PathBuf>,
    /// The first of the members' consecutive ports; free ports otherwise.
    pub ports: Option<u16>,
    /// The size of each member's cache, in GB.
    pub cache_gb: f64,
    /// The size of the replication log, in MB.
    pub oplog_mb: u32,
    /// How long a silent primary is put up with, in milliseconds.
    pub election_timeout_ms: u32,
    /// Whether clients have to say who they are. An administrator `root` is made.
    pub auth: bool,
    /// The secret that members know each other by, for several replica sets of one cluster; one of its own
    /// otherwise.
    pub key_file: Option<PathBuf>,
    /// Whether commands meant for tests, such as fail points, are allowed.
    pub test_commands: bool,
    /// Whether it outlives this program. [`state::down`] ends it then.
    pub persistent: bool,
    /// Server parameters to set.
    pub parameters: Vec<(String, String)>,
    /// Further arguments for each server.
    pub extra_args: Vec<String>,
    /// The server program; [`crate::mongod::locate`] finds one otherwise.
    pub mongod: Option<PathBuf>,
    /// Told about steps that take long.
    pub progress: Progress,
}

impl Default for ReplicaSetOptions {
    fn default() -> Self {
        Self {
            name: "rs0".to_owned(),
            role: Role::Plain,
            members: 1,
            dir: None,
            ports: None,
            cache_gb: CACHE_GB,
            oplog_mb: OPLOG_MB,
            election_timeout_ms: ELECTION_TIMEOUT_MS,
            auth: false,
            key_file: None,
            test_commands: false,
            persistent: false,
            parameters: Vec::new(),
            extra_args: Vec::new(),
            mongod: None,
            progress: Progress::silent(),
        }
    }
}

/// A running replica set. Dropping it ends it, unless it is persistent.
#[derive(Debug)]
pub struct ReplicaSet {
    members: Vec<Mutex<Arc<Managed>>>,
    state: Mutex<State>,
    name: String,
    ports: Vec<u16>,
    root: Option<Credentials>,
    persistent: bool,
    _leases: Vec<Lease>,
    // Last, so that the directory goes after the processes in it.
    home: Home,
}

impl ReplicaSet {
    /// Starts the members and waits until one is primary and the others are secondaries.
    ///
    /// # Errors
    ///
    /// When no server program is found, when the options contradict each other, when a
    /// deployment already runs in the directory, or when a member does not start; the error shows
    /// the telling lines of its log.
    pub async fn start(options: ReplicaSetOptions) -> Result<Self> {
        let known = known_state(&options)?;
        let program = launch::program(options.mongod.as_deref(), &options.progress).await?;
        let home = Home::create(options.dir.as_deref(), options.persistent)?;
        let root = match &known {
            Some(state) => state.root.clone(),
            None if options.auth => {
                Some(Credentials { user: "root".to_owned(), password: secret()? })
            }
            None => None,
        };
        let key_file = match (&root, &options.key_file) {
            (Some(_), Some(shared)) => Some(shared.clone()),
            (Some(_), None) => Some(key_file(home.path())?),
            (None, _) => None,
        };
        let mut tries = 0;
        let (leases, members) = loop {
            tries += 1;
            let leases = choose_ports(&options, known.as_ref())?;
            let started = start_members(&options, &program, &home, key_file.as_deref(), &leases);
            match started.await {
                Ok(members) => break (leases, members),
                Err(Error::PortTaken { .. })
                    if options.ports.is_none() && known.is_none() && tries < PORT_TRIES_MAX => {}
                Err(error) => return Err(error),
            }
        };
        let ports: Vec<u16> = leases.iter().map(|lease| lease.port).collect();
        let state = State {
            format: FORMAT,
            name: options.name.clone(),
            uri: replica_set_uri(&options.name, root.as_ref(), &ports),
            ports: ports.clone(),
            root: root.clone(),
            boot: state::boot(),
            members: members.iter().map(|one| one.record().clone()).collect(),
            others: Vec::new(),
            old_logs: known.as_ref().map(State::logs).unwrap_or_default(),
        };
        let mut set = Self {
            members: members.into_iter().map(|one| Mutex::new(Arc::new(one))).collect(),
            state: Mutex::new(state),
            name: options.name.clone(),
            ports,
            root,
            persistent: false,
            _leases: leases,
            home,
        };
        if known.is_none() {
            set.initiate(&options).await?;
        }
        set.wait_healthy().await?;
        if known.is_none() {
            set.create_root().await?;
        }
        set.lock_state().write(set.dir())?;
        if options.persistent {
            set.leave();
        }
        Ok(set)
    }

    /// Lets the members outlive this program.
    pub(crate) fn leave(&mut self) {
        self.persistent = true;
        for member in &self.members {
            member.lock().unwrap_or_else(PoisonError::into_inner).detach();
        }
        self.home.leave();
    }

    /// Takes hold of a replica set that another program started in `dir`. Dropping the value
    /// leaves it running.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn attach(dir: &Path) -> Result<Self> {
        let home = Home::attach(dir)?;
        let state = State::read(home.path())?;
        let members = state.members.iter().cloned();
        Ok(Self {
            members: members.map(|record| Mutex::new(Arc::new(Managed::attach(record)))).collect(),
            name: state.name.clone(),
            ports: state.ports.clone(),
            root: state.root.clone(),
            persistent: true,
            _leases: Vec::new(),
            home,
            state: Mutex::new(state),
        })
    }

    /// The replica set's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory that holds the data, the logs (`member-N/mongod.log`) and the state.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.home.path()
    }

    /// The address of the replica set, with the administrator's credentials if there are any.
    #[must_use]
    pub fn uri(&self) -> String {
        replica_set_uri(&self.name, self.root.as_ref(), &self.ports)
    }

    /// The address of the replica set without credentials.
    #[must_use]
    pub fn uri_without_user(&self) -> String {
        replica_set_uri(&self.name, None, &self.ports)
    }

    /// The address of the replica set for a user of the database `admin`.
    #[must_use]
    pub fn uri_for_user(&self, user: &str, password: &str) -> String {
        let credentials = Credentials { user: user.to_owned(), password: password.to_owned() };
        replica_set_uri(&self.name, Some(&credentials), &self.ports)
    }

    /// The address of one member alone.
    ///
    /// # Errors
    ///
    /// When there is no such member.
    pub fn member_uri(&self, index: usize) -> Result<String> {
        let options = match self.root {
            Some(_) => "directConnection=true&authSource=admin",
            None => "directConnection=true",
        };
        Ok(uri_of(self.root.as_ref(), &[self.port(index)?], options))
    }

    /// A member's port on 127.0.0.1.
    ///
    /// # Errors
    ///
    /// When there is no such member.
    pub fn port(&self, index: usize) -> Result<u16> {
        self.ports.get(index).copied().ok_or(Error::NoMember { index, count: self.ports.len() })
    }

    /// A member's unix socket, when the directory is not too deep to have one.
    ///
    /// # Errors
    ///
    /// When there is no such member.
    pub fn socket(&self, index: usize) -> Result<Option<PathBuf>> {
        Ok(launch::socket_path(self.dir(), self.port(index)?))
    }

    /// The number of members.
    #[must_use]
    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    /// A member's process: for its id and its log.
    ///
    /// # Errors
    ///
    /// When there is no such member.
    pub fn member(&self, index: usize) -> Result<Arc<Managed>> {
        Ok(Arc::clone(&*self.member_slot(index)?))
    }

    /// The process ids of the members, whether they run or not.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let slots = self.members.iter();
        slots.map(|slot| slot.lock().unwrap_or_else(PoisonError::into_inner).pid()).collect()
    }

    /// The administrator, when there is one.
    #[must_use]
    pub fn root(&self) -> Option<&Credentials> {
        self.root.as_ref()
    }

    /// The number of the primary, as of now. Of two that claim to be it, the later elected.
    pub async fn primary(&self) -> Option<usize> {
        let states = self.hellos().await;
        let claims = states.into_iter().enumerate().filter_map(|(index, state)| {
            let hello = state.ok().filter(|hello| hello.primary)?;
            Some((hello.election, index))
        });
        claims.max().map(|(_, index)| index)
    }

    /// Waits until there is a primary, and says which member it is.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] when there is none after two minutes.
    pub async fn wait_primary(&self) -> Result<usize> {
        let deadline = Instant::now() + CONDITION;
        loop {
            if let Some(index) = self.primary().await {
                return Ok(index);
            }
            give_up_after(deadline, "a primary", &"none")?;
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until every member serves and all agree who is primary.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] when it is not so after two minutes; an error of a member that ended.
    pub async fn wait_healthy(&self) -> Result<()> {
        let deadline = Instant::now() + CONDITION;
        loop {
            let states = self.hellos().await;
            if self.is_healthy(&states) {
                return Ok(());
            }
            give_up_after(deadline, "all members in service", &states)?;
            tokio::time::sleep(POLL).await;
        }
    }

    /// Runs a command on the database `admin` of the primary, as administrator.
    ///
    /// # Errors
    ///
    /// When the server refuses it.
    pub async fn run_admin(&self, command: Document) -> Result<Document> {
        let client = Client::with_uri_str(self.uri()).await?;
        Ok(client.database("admin").run_command(command).await?)
    }

    /// Runs a command on the database `admin` of one member, as administrator.
    ///
    /// # Errors
    ///
    /// When the server refuses it.
    pub async fn run_on_member(&self, index: usize, command: Document) -> Result<Document> {
        let client = Client::with_uri_str(self.member_uri(index)?).await?;
        Ok(client.database("admin").run_command(command).await?)
    }

    /// Ties another process, such as a worker, to the replica set: it is listed in the state, and
    /// ends when the owner is killed or with [`state::down`]. With a persistent replica set it
    /// outlives this program.
    ///
    /// # Errors
    ///
    /// When it cannot be recorded.
    pub fn adopt(&self, process: &Managed) -> Result<()> {
        if self.persistent {
            process.detach();
        }
        self.home.watch(process.record())?;
        self.change_state(|state| state.others.push(process.record().clone()))
    }

    /// What is known of the deployment, as in its state file.
    #[must_use]
    pub fn state(&self) -> State {
        self.lock_state().clone()
    }

    /// Ends all members, persistent or not; in good order when their data are kept.
    ///
    /// # Errors
    ///
    /// When a member cannot be ended.
    pub async fn shutdown(self) -> Result<()> {
        if self.home.is_temporary() {
            return Ok(());
        }
        let records: Vec<Record> = self.lock_state().members.clone();
        crate::process::end_all(&records, STOP_GRACE).await
    }

    async fn initiate(&self, options: &ReplicaSetOptions) -> Result<()> {
        let hosts = (0_i32..).zip(&self.ports);
        let members: Vec<Document> =
            hosts.map(|(id, port)| doc! { "_id": id, "host": host(*port) }).collect();
        let mut config = doc! {
            "_id": &self.name,
            "members": members,
            "settings": {
                "electionTimeoutMillis": i64::from(options.election_timeout_ms),
                "heartbeatIntervalMillis": i64::from(HEARTBEAT_INTERVAL_MS),
                "heartbeatTimeoutSecs": HEARTBEAT_TIMEOUT_S,
            },
        };
        if options.role == Role::Config {
            config.insert("configsvr", true);
        }
        let command = doc! { "replSetInitiate": config, "$db": "admin" };
        match wire::command(self.port(0)?, command, CONDITION).await {
            Err(Error::Command { code, .. }) if code == ALREADY_INITIALIZED => Ok(()),
            other => other.map(|_| ()),
        }
    }

    async fn hellos(&self) -> Vec<Result<wire::Hello>> {
        let mut asking = JoinSet::new();
        for (index, port) in self.ports.iter().copied().enumerate() {
            asking.spawn(async move { (index, wire::hello(port).await) });
        }
        let mut answers = asking.join_all().await;
        answers.sort_by_key(|(index, _)| *index);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    fn is_healthy(&self, states: &[Result<wire::Hello>]) -> bool {
        let mut primary = None;
        for (state, port) in states.iter().zip(&self.ports) {
            match state {
                Ok(hello) if hello.primary && primary.is_none() => primary = Some(host(*port)),
                Ok(hello) if hello.secondary => {}
                _ => return false,
            }
        }
        primary.is_some()
            && states
                .iter()
                .all(|state| state.as_ref().is_ok_and(|hello| hello.sees_primary == primary))
    }

    fn member_slot(&self, index: usize) -> Result<MutexGuard<'_, Arc<Managed>>> {
        let slot =
            self.members.get(index).ok_or(Error::NoMember { index, count: self.members.len() })?;
        Ok(slot.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change_state(&self, change: impl FnOnce(&mut State)) -> Result<()> {
        let mut state = self.lock_state();
        change(&mut state);
        state.write(self.dir())
    }
}

fn give_up_after(deadline: Instant, what: &str, seen: &dyn std::fmt::Debug) -> Result<()> {
    if Instant::now() < deadline {
        return Ok(());
    }
    Err(Error::Timeout { what: what.to_owned(), limit: CONDITION, seen: format!("{seen:?}") })
}

/// What an earlier replica set left in the directory.
fn known_state(options: &ReplicaSetOptions) -> Result<Option<State>> {
    let refuse = |option, reason: String| Err(Error::Options { option, reason });
    if !matches!(options.members, 1 | 3) {
        return refuse("members", format!("1 or 3, not {}", options.members));
    }
    let Some(dir) = options.dir.as_deref() else {
        return Ok(None);
    };
    if !State::path(dir).exists() {
        return Ok(None);
    }
    let state = State::read(dir)?;
    if state.running().next().is_some() {
        return Err(Error::AlreadyRunning { dir: dir.to_path_buf() });
    }
    if state.name != options.name || state.ports.len() != options.members {
        return refuse(
            "dir",
            format!(
                "it holds the data of the replica set {:?}, whose number of members is {}",
                state.name,
                state.ports.len()
            ),
        );
    }
    if state.root.is_some() != options.auth {
        return refuse("auth", "the directory was begun the other way".to_owned());
    }
    if options.ports.is_some() && options.ports != state.ports.first().copied() {
        return refuse("ports", format!("the directory keeps {:?}", state.ports));
    }
    Ok(Some(state))
}

fn choose_ports(options: &ReplicaSetOptions, known: Option<&State>) -> Result<Vec<Lease>> {
    if let Some(state) = known {
        return Ok(state.ports.iter().copied().map(Lease::fixed).collect());
    }
    match options.ports {
        Some(base) => Ok((base..).take(options.members).map(Lease::fixed).collect()),
        None => ports::lease(options.members),
    }
}

async fn start_members(
    options: &ReplicaSetOptions,
    mongod: &Path,
    home: &Home,
    key_file: Option<&Path>,
    leases: &[Lease],
) -> Result<Vec<Managed>> {
    let mut members = Vec::with_capacity(leases.len());
    let role = match options.role {
        Role::Plain => None,
        Role::Shard => Some("--shardsvr".to_owned()),
        Role::Config => Some("--configsvr".to_owned()),
    };
    let extra_args: Vec<String> = role.into_iter().chain(options.extra_args.clone()).collect();
    for (index, lease) in leases.iter().enumerate() {
        let launch = Launch {
            mongod,
            dir: home.path(),
            index,
            port: lease.port,
            cache_gb: options.cache_gb,
            replication: Some((&options.name, options.oplog_mb)),
            key_file,
            parameters: &options.parameters,
            test_commands: options.test_commands,
            extra_args: &extra_args,
        };
        let member = launch.spawn()?;
        home.watch(member.record())?;
        members.push(member);
    }
    // All are starting by now; waiting for one after the other costs nothing.
    for (member, lease) in members.iter().zip(leases) {
        launch::wait_serving(member, lease.port).await?;
    }
    Ok(members)
}
