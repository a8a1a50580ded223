//! One client's way to the servers: finding primaries, sending, and trying again.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mongodb::bson::{Bson, Document, RawDocument, doc};

use super::failure::{Code, Failure, Result, is_not_primary, is_passing};
use super::message::{Reply, encode};
use super::placement::{Database, Placement, Sharded};
use super::shared::Shared;
use super::upstream::{Upstream, ask_members, hello};

/// How long a primary is looked for, and a passing error is put up with; a mongos does the same.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(300);
/// How often a server that takes long is asked whether it is there at all.
const LIFE_CHECK: Duration = Duration::from_secs(2);
/// How many questions in a row it may leave unanswered; on a busy machine one is soon missed.
const SILENCES_MAX: u32 = 3;

/// The name the config servers go by among the shards, as in the server itself.
pub(super) const CONFIG: &str = "config";

/// Whom a command is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// The primary of any shard: its own router code does the rest.
    Any,
    /// The primary of this shard, or of the config servers.
    Shard(String),
}

impl Target {
    pub(super) fn config() -> Self {
        Self::Shard(CONFIG.to_owned())
    }
}

/// Whether a command may be sent again when it is not known if it ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Safety {
    Repeatable,
    Once,
}

/// The time left for trying again, and longer and longer pauses meanwhile.
#[derive(Debug)]
pub(super) struct Patience {
    deadline: Instant,
    pause: Duration,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { deadline: Instant::now() + PATIENCE, pause: PAUSE }
    }

    /// Pauses; false when the time is up.
    pub(super) async fn wait(&mut self) -> bool {
        if Instant::now() > self.deadline {
            return false;
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        true
    }
}

/// One client's connections to servers.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    pub(super) number: u64,
    /// What the client said of itself in its `hello`.
    pub(super) client: Option<Document>,
    upstreams: HashMap<String, Upstream>,
    /// The shard whose primary does this client's routing.
    home: Option<String>,
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let number = shared.next_connection();
        Self { shared, number, client: None, upstreams: HashMap::new(), home: None }
    }

    /// Sends a command until a server takes it, and says which one did.
    pub(super) async fn send(
        &mut self,
        target: &Target,
        body: &RawDocument,
        sequences: &[u8],
        safety: Safety,
    ) -> Result<(String, Reply)> {
        let mut patience = Patience::new();
        loop {
            let sent = match self.resolve(target).await? {
                Some(host) => {
                    self.send_to(&host, body, sequences, safety).await?.map(|r| (host, r))
                }
                None => None,
            };
            if let Some((host, reply)) = sent {
                let Some(code) = reply.error_code() else {
                    return Ok((host, reply));
                };
                let again =
                    is_not_primary(code) || (safety == Safety::Repeatable && is_passing(code));
                if !again {
                    return Ok((host, reply));
                }
                self.leave(&host);
            }
            if !patience.wait().await {
                return Err(Failure::command(
                    Code::FailedToSatisfyReadPreference,
                    format!("no primary of {target:?} took the command within {PATIENCE:?}"),
                ));
            }
        }
    }

    /// Sends one of the servers' router commands until it is not `refused` for an old placement any
    /// more.
    ///
    /// A mongos forgets its placements on such an error. A server that routes does not always: it
    /// may go on with one that a move, a rename or a drop has ended for as long as it is asked, and
    /// has to be told.
    pub(super) async fn send_routed(
        &mut self,
        body: &RawDocument,
        sequences: &[u8],
        safety: Safety,
        refused: fn(&Reply) -> bool,
    ) -> Result<(String, Reply)> {
        let mut patience = Patience::new();
        loop {
            let (host, reply) = self.send(&Target::Any, body, sequences, safety).await?;
            if !(refused(&reply) && patience.wait().await) {
                return Ok((host, reply));
            }
            let flush = encode(&doc! { "flushRouterConfig": 1, "$db": "admin" })?;
            self.send_to(&host, &flush, &[], Safety::Repeatable).await?;
        }
    }

    /// Sends a command to one server. `None` when it cannot have run and may be sent again.
    pub(super) async fn send_to(
        &mut self,
        host: &str,
        body: &RawDocument,
        sequences: &[u8],
        safety: Safety,
    ) -> Result<Option<Reply>> {
        let kept = self.upstreams.remove(host).filter(|upstream| !upstream.is_closed());
        let mut upstream = match kept {
            Some(upstream) => upstream,
            None => match Upstream::connect(host, &self.shared, self.client.as_ref()).await {
                Ok(upstream) => upstream,
                Err(_) => {
                    self.leave(host);
                    return Ok(None);
                }
            },
        };
        let reply = tokio::select! {
            reply = upstream.exchange(body, sequences) => reply,
            () = until_dead(host) => Err(io::ErrorKind::TimedOut.into()),
        };
        match reply {
            Ok(reply) => {
                self.shared.hear_time(&reply.body);
                self.upstreams.insert(host.to_owned(), upstream);
                Ok(Some(reply))
            }
            Err(source) => {
                self.leave(host);
                match safety {
                    Safety::Repeatable => Ok(None),
                    Safety::Once => Err(Failure::Lost { host: host.to_owned(), source }),
                }
            }
        }
    }

    /// Runs a command of the router's own; an error reply is a failure.
    pub(super) async fn run(
        &mut self,
        target: &Target,
        mut command: Document,
        safety: Safety,
    ) -> Result<Document> {
        if let Some(time) = self.shared.time() {
            command.insert("$clusterTime", super::message::decode(&time)?);
        }
        let (_, reply) = self.send(target, &encode(&command)?, &[], safety).await?;
        if reply.is_ok() { Ok(reply.document()?) } else { Err(Failure::Refused(reply)) }
    }

    /// Takes a server for gone or no longer primary.
    fn leave(&mut self, host: &str) {
        self.upstreams.remove(host);
        self.shared.forget_primary(host);
        self.home = None;
    }

    async fn resolve(&mut self, target: &Target) -> Result<Option<String>> {
        match target {
            Target::Shard(shard) => self.primary_of(shard).await,
            Target::Any => {
                if let Some(home) = self.home.clone()
                    && let Some(host) = self.primary_of(&home).await?
                {
                    return Ok(Some(host));
                }
                let shards: Vec<String> = self.shards().await?.into_keys().collect();
                // Clients begin at different shards, so that each shard does some routing.
                let count = u64::try_from(shards.len()).unwrap_or(1).max(1);
                let first = usize::try_from(self.number % count).unwrap_or(0);
                let (before, from) = shards.split_at_checked(first).unwrap_or((&[], &shards));
                for shard in from.iter().chain(before) {
                    if let Some(host) = self.primary_of(shard).await? {
                        self.home = Some(shard.clone());
                        return Ok(Some(host));
                    }
                }
                Ok(None)
            }
        }
    }

    pub(super) async fn primary_of(&mut self, shard: &str) -> Result<Option<String>> {
        if let Some(host) = self.shared.catalog().primaries.get(shard) {
            return Ok(Some(host.clone()));
        }
        let hosts = if shard == CONFIG {
            self.shared.config_hosts.clone()
        } else {
            let known = self.shards().await?.remove(shard);
            match known {
                Some(hosts) => hosts,
                None => {
                    let found = self.load_shards().await?.remove(shard);
                    found.ok_or_else(|| {
                        Failure::command(Code::ShardNotFound, format!("Shard {shard} not found"))
                    })?
                }
            }
        };
        let members = ask_members(&hosts).await;
        if let Some(version) = members.wire_version {
            self.shared.set_wire_version(version);
        }
        if let Some(host) = &members.primary {
            self.shared.catalog().primaries.insert(shard.to_owned(), host.clone());
        }
        Ok(members.primary)
    }

    /// All shards with their hosts.
    pub(super) async fn shards(&mut self) -> Result<BTreeMap<String, Vec<String>>> {
        let known = self.shared.catalog().shards.clone();
        if known.is_empty() { self.load_shards().await } else { Ok(known) }
    }

    /// Reads anew which shards there are.
    pub(super) async fn load_shards(&mut self) -> Result<BTreeMap<String, Vec<String>>> {
        let found = self.read_config("shards", doc! {}, doc! {}).await?;
        let shard = |shard: &Document| {
            let hosts = shard.get_str("host").ok()?;
            let (_, hosts) = hosts.split_once('/')?;
            let hosts = hosts.split(',').map(str::to_owned).collect();
            Some((shard.get_str("_id").ok()?.to_owned(), hosts))
        };
        let shards: BTreeMap<_, _> = found.iter().filter_map(shard).collect();
        self.shared.catalog().shards = shards.clone();
        Ok(shards)
    }

    /// Reads from the config servers: from their primary, or from any of them while there is none.
    pub(super) async fn read_config(
        &mut self,
        collection: &str,
        filter: Document,
        sort: Document,
    ) -> Result<Vec<Document>> {
        let command = encode(&doc! {
            "find": collection,
            "filter": filter,
            "sort": sort,
            "batchSize": i32::MAX,
            "singleBatch": true,
            "readConcern": { "level": "majority" },
            "$readPreference": { "mode": "primaryPreferred" },
            "$db": "config",
        })?;
        let mut patience = Patience::new();
        loop {
            if let Some(host) = self.config_host().await
                && let Some(reply) = self.send_to(&host, &command, &[], Safety::Repeatable).await?
            {
                match reply.error_code() {
                    None => return batch(&reply.document()?),
                    Some(code) if is_passing(code) => self.leave(&host),
                    Some(_) => return Err(Failure::Refused(reply)),
                }
            }
            if !patience.wait().await {
                return Err(Failure::command(
                    Code::FailedToSatisfyReadPreference,
                    format!("no config server answered within {PATIENCE:?}"),
                ));
            }
        }
    }

    async fn config_host(&mut self) -> Option<String> {
        if let Some(host) = self.shared.catalog().primaries.get(CONFIG) {
            return Some(host.clone());
        }
        let members = ask_members(&self.shared.config_hosts).await;
        if let Some(host) = &members.primary {
            self.shared.catalog().primaries.insert(CONFIG.to_owned(), host.clone());
        }
        members.primary.or(members.any)
    }

    /// A database's place; `None` when it does not exist.
    pub(super) async fn database(&mut self, db: &str) -> Result<Option<Database>> {
        if let Some(known) = self.shared.catalog().databases.get(db) {
            return Ok(Some(known.clone()));
        }
        let found = self.read_config("databases", doc! { "_id": db }, doc! {}).await?;
        let database = found.first().and_then(Database::parse);
        if let Some(database) = &database {
            self.shared.catalog().databases.insert(db.to_owned(), database.clone());
        }
        Ok(database)
    }

    /// A collection's place. One that does not exist is unsharded.
    pub(super) async fn placement(&mut self, namespace: &str) -> Result<Placement> {
        if let Some(known) = self.shared.catalog().collections.get(namespace) {
            return Ok(known.clone());
        }
        let placement = match self.load_sharded(namespace).await? {
            Some(sharded) => Placement::Sharded(Arc::new(sharded)),
            None => Placement::Unsharded,
        };
        self.shared.catalog().collections.insert(namespace.to_owned(), placement.clone());
        Ok(placement)
    }

    async fn load_sharded(&mut self, namespace: &str) -> Result<Option<Sharded>> {
        let by_name = doc! { "_id": namespace, "dropped": { "$ne": true } };
        let found = self.read_config("collections", by_name, doc! {}).await?;
        let Some(collection) = found.first() else {
            return Ok(None);
        };
        let uuid = collection.get("uuid").cloned().unwrap_or(Bson::Null);
        let chunks = self.read_config("chunks", doc! { "uuid": uuid }, doc! { "min": 1 }).await?;
        Ok(Sharded::parse(collection, &chunks))
    }
}

/// Resolves once the server no longer answers: frozen, or cut off.
async fn until_dead(host: &str) {
    let mut silences = 0;
    while silences < SILENCES_MAX {
        tokio::time::sleep(LIFE_CHECK).await;
        silences = if hello(host).await.is_err() { silences + 1 } else { 0 };
    }
}

/// The documents of a first batch.
pub(super) fn batch(reply: &Document) -> Result<Vec<Document>> {
    let cursor = reply.get_document("cursor");
    let batch = cursor.and_then(|cursor| cursor.get_array("firstBatch"));
    let batch = batch.map_err(|error| super::message::invalid(&error.to_string()))?;
    Ok(batch.iter().filter_map(Bson::as_document).cloned().collect())
}
