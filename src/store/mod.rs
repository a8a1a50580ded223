//! The only module that speaks to MongoDB.
//!
//! It knows the names of collections and fields, the read and write concerns, and every filter and
//! update; what they *mean* is decided by the pure modules above ([`job`](crate::job),
//! [`task`](crate::task)). Reads that decide something are `majority`, writes are `majority`
//! unless said otherwise, and whatever compares times does so on the server.

mod batches;
pub mod blocks;
pub mod capabilities;
pub mod catalogue;
pub mod charge;
mod claims;
pub mod coordinator_role;
pub mod databases;
pub mod error;
pub mod failed;
pub mod grants;
pub mod incarnation;
pub mod input;
pub mod jobs;
pub mod leases;
mod links;
pub mod logs;
pub mod manifests;
mod members;
pub mod merging;
pub mod natural;
pub mod output;
mod placement_copy;
pub mod querying;
pub mod readable;
mod refusal;
pub mod requests;
pub mod retry;
pub mod schema;
pub mod settings;
pub mod shape;
pub mod tasks;
pub mod topology;
pub mod turns;
mod unreachable;
pub mod uri;
pub mod watch;
pub mod workers;
mod zones;

use std::collections::BTreeSet;
use std::sync::Arc;

use bson::{Document, doc};
use mongodb::options::{
    ClientOptions, ConnectionString, ReadConcern, ReadPreference, SelectionCriteria, WriteConcern,
};
use mongodb::{Client, Collection, Database};

use crate::config;
use crate::error::{Error, Result, StoreErrorKind};
use error::{Action, classify};
use links::Direct;
use topology::Topology;
use uri::redact;

/// Jobs, tasks, workers, the coordinator's lease.
pub const AVIARY: &str = "aviary";
/// The function catalogue.
pub const FUNCTIONS: &str = "aviary-funcs";
/// The blocks of the shuffle.
pub const INTERMEDIATES: &str = "aviary-intermediates";

/// The oldest wire version that reads at a given cluster time outside transactions: MongoDB 5.0.
const WIRE_VERSION_MIN: i32 = 13;
/// The oldest wire version that reads capped collections at a cluster time: MongoDB 8.0.
const WIRE_VERSION_CAPPED: i32 = 25;

/// A connection to one deployment, bound to the database that holds Aviary's collections.
#[derive(Debug, Clone)]
pub struct Store {
    client: Client,
    /// What the client was made from, to make others for single members.
    options: Arc<ClientOptions>,
    db: Database,
    topology: Arc<Topology>,
    /// The shard that this process works for; every shard, without one.
    served: Option<String>,
    direct: Option<Arc<Direct>>,
    avoided: Arc<readable::Avoided>,
    open_jobs: Arc<claims::OpenJobs>,
    accounts: Arc<charge::Accounts>,
    trusted: Arc<BTreeSet<String>>,
    /// The member whose own order of an input was read last.
    natural: Arc<tokio::sync::Mutex<Option<(String, Client)>>>,
    wire_version: i32,
}

/// What [`Store::connect`] needs.
#[derive(Clone)]
pub struct ConnectOptions {
    /// The deployment's URI.
    pub uri: String,
    /// The database that holds Aviary's collections; the URI's own by default.
    pub db: Option<String>,
    /// Whether neither has to name one: [`Store::of_database`] binds the connection later.
    pub any_db: bool,
    /// What the server's logs and fail points call this process.
    pub app_name: String,
    /// In a sharded cluster, the shard whose tasks this process works on; every shard's, without one.
    pub shard: Option<String>,
    /// In a sharded cluster, a member of that shard, to be asked without a router between.
    pub shard_uri: Option<String>,
    /// Databases that jobs of this one may use without a grant: one team owns them all.
    pub trusted: BTreeSet<String>,
}

impl std::fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectOptions")
            .field("uri", &redact(&self.uri))
            .field("db", &self.db)
            .field("app_name", &self.app_name)
            .field("shard", &self.shard)
            .field("shard_uri", &self.shard_uri.as_deref().map(redact))
            .finish()
    }
}

impl Store {
    /// Connects, and makes sure that the deployment can carry Aviary.
    ///
    /// # Errors
    /// [`Error::Usage`] for a malformed URI, [`Error::Connect`] when no server answers,
    /// [`Error::Refused`] for a standalone server, a server before 5.0, what is no MongoDB server, or bad credentials.
    pub async fn connect(options: &ConnectOptions) -> Result<Self> {
        let shown = redact(&options.uri);
        let client_options = prepared(&options.uri, &options.app_name).await?;
        let named = options.db.clone().or_else(|| client_options.default_database.clone());
        // A URI may name the server's own database for the sake of its users.
        let named = named.filter(|name| !options.any_db || databases::is_of_users(name));
        let is_named = named.is_some();
        // Nothing is read or written there before another one is chosen.
        let name =
            named.or_else(|| options.any_db.then(|| "admin".to_owned())).ok_or_else(|| {
                Error::Usage("no database given; name one with -d NAME or in the URI".into())
            })?;
        let client = links::client(client_options.clone(), &shown)?;
        let options_kept = Arc::new(client_options);
        let db = database_of(&client, &name);
        let hello = hello(&client, &shown, &options_kept).await?;
        let topology = match deployment(&hello, &shown)? {
            Deployment::Set(name) => {
                links::refuse_part_of_cluster(&client, &hello, &shown).await?;
                Topology::of_set(name)
            }
            Deployment::Cluster => Topology::of_cluster(&client).await?,
        };
        let wire_version = hello.get_i32("maxWireVersion").unwrap_or(WIRE_VERSION_MIN);
        let topology = Arc::new(topology);
        let store = Self {
            client,
            options: options_kept,
            db,
            topology,
            served: None,
            direct: None,
            avoided: Arc::default(),
            open_jobs: Arc::default(),
            accounts: Arc::default(),
            trusted: Arc::new(options.trusted.clone()),
            natural: Arc::default(),
            wire_version,
        };
        if is_named {
            store.refuse_strangers(&shown).await?;
        }
        store.serving(options, &name).await
    }

    /// Binds the store to the shard that the options name.
    async fn serving(mut self, options: &ConnectOptions, db: &str) -> Result<Self> {
        if !self.is_sharded() {
            if options.shard.is_some() || options.shard_uri.is_some() {
                return Err(Error::Usage(format!(
                    "{} is no sharded cluster; leave --shard and --shard-uri out",
                    redact(&options.uri)
                )));
            }
            self.served = Some(self.home().to_owned());
            return Ok(self);
        }
        if let Some(uri) = &options.shard_uri {
            let direct = Direct::connect(options, uri, db, &self).await?;
            if options.shard.as_ref().is_some_and(|shard| *shard != direct.shard) {
                return Err(Error::Usage(format!(
                    "--shard-uri {} leads to the shard {}, not to --shard {}",
                    redact(uri),
                    direct.shard,
                    options.shard.as_deref().unwrap_or_default()
                )));
            }
            self.served = Some(direct.shard.clone());
            self.direct = Some(Arc::new(direct));
        } else if let Some(shard) = &options.shard {
            let known = self.known_shards();
            if !known.contains(shard) {
                return Err(Error::NotFound {
                    what: format!("shard {shard}"),
                    hint: format!("the cluster's shards are {}", known.join(", ")),
                });
            }
            self.served = Some(shard.clone());
        }
        Ok(self)
    }

    /// That no daemon of this kind runs, and how to start one.
    pub fn missing(&self, daemon: &str) -> String {
        format!("no {daemon} is running; start one with: aviary {daemon} -d {}", self.db_name())
    }

    /// The database that holds Aviary's collections.
    pub fn db_name(&self) -> &str {
        self.db.name()
    }

    /// The latest operation time of the deployment, majority-committed: a snapshot read at this
    /// time sees every write acknowledged before the call.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn cluster_time(&self) -> Result<bson::Timestamp> {
        let mut latest = None;
        // Each shard has a clock of its own, and they only agree on what they have told each other.
        for shard in self.known_shards() {
            let mut session = self.client.start_session().await.action("start a session")?;
            // A majority write moves the operation time past everything acknowledged before it.
            loop {
                let written = self
                    .aviary()
                    .update_one(
                        doc! { "_id": format!("clock/{shard}"), "shard": &shard },
                        doc! { "$set": { "kind": "clock" }, "$currentDate": { "seen": true } },
                    )
                    .upsert(true)
                    .session(&mut session)
                    .await;
                match written {
                    // Another process was faster to create it, so by now it is there.
                    Err(e) if classify(&e).kind == StoreErrorKind::DuplicateKey => {}
                    written => {
                        written.action("read the cluster time")?;
                        break;
                    }
                }
            }
            let time = session
                .operation_time()
                .ok_or_else(|| Error::refused("the server reports no operation time", NEEDS_SET))?;
            latest = latest.max(Some((time.time, time.increment)));
        }
        latest
            .map(|(time, increment)| bson::Timestamp { time, increment })
            .ok_or_else(|| Error::refused("the cluster has no shards", "add one: sh.addShard()"))
    }

    /// Loads documents into a collection of the database, for demonstrations.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn load(&self, collection: &str, docs: &[bson::RawDocumentBuf]) -> Result<()> {
        self.db
            .collection::<bson::RawDocumentBuf>(collection)
            .insert_many(docs)
            .ordered(false)
            .await
            .action("load documents")?;
        Ok(())
    }

    /// Whether capped collections can be read at a cluster time.
    pub(crate) fn reads_capped_snapshots(&self) -> bool {
        self.wire_version >= WIRE_VERSION_CAPPED
    }

    /// Closes what is open on the server, as far as that is quickly done.
    pub async fn close(self) {
        const LIMIT: std::time::Duration = std::time::Duration::from_secs(2);
        // Dropped cursors are closed in the background, and a process that ends at once would leave
        // them open until they time out.
        let closing = tokio::spawn(self.client.shutdown().into_future());
        if tokio::time::timeout(LIMIT, closing).await.is_err() {
            tracing::debug!("left connections to be closed by the end of the process");
        }
    }

    pub(crate) fn aviary(&self) -> Collection<Document> {
        self.db.collection(AVIARY)
    }

    pub(crate) fn database(&self) -> &Database {
        &self.db
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Another database under the same concerns.
    pub(crate) fn other_db(&self, name: &str) -> Database {
        database_of(&self.client, name)
    }
}

/// A database under Aviary's concerns: what decides something is read and written by a majority.
fn database_of(client: &Client, name: &str) -> Database {
    client.database_with_options(
        name,
        mongodb::options::DatabaseOptions::builder()
            .read_concern(ReadConcern::majority())
            .write_concern(WriteConcern::majority())
            .build(),
    )
}

/// A URI's options with Aviary's defaults.
async fn prepared(uri: &str, app_name: &str) -> Result<ClientOptions> {
    let mut options =
        ClientOptions::parse(&*uri::for_driver(uri)).await.map_err(|e| match &*e.kind {
            // The hosts of mongodb+srv:// are looked up right here.
            mongodb::error::ErrorKind::DnsResolve { message, .. } => {
                Error::Connect { uri: redact(uri), why: unreachable::first_line(message) }
            }
            _ => unusable(uri, &unreachable::reason(&e)),
        })?;
    options.app_name.get_or_insert_with(|| app_name.to_owned());
    options.server_selection_timeout.get_or_insert(config::CONNECT_TIMEOUT);
    options.connect_timeout.get_or_insert(config::CONNECT_TIMEOUT);
    options.max_pool_size.get_or_insert(64);
    // What decides something is read from primaries and by a majority, whatever else the URI is used for: a
    // member that lags behind would tell of a job that is not there yet, or of a result that is not whole.
    options.selection_criteria = None;
    options.read_concern = None;
    options.write_concern = None;
    Ok(options)
}

/// Refuses a URI that the driver does not take, before anything else sees it.
///
/// # Errors
/// [`Error::Usage`] with no part of the URI in it.
pub fn check_uri(uri: &str) -> Result<()> {
    match ConnectionString::parse(&*uri::for_driver(uri)) {
        Ok(_) => Ok(()),
        Err(e) => Err(unusable(uri, &unreachable::reason(&e))),
    }
}

fn unusable(uri: &str, said: &str) -> Error {
    let (shown, why) = (redact(uri), uri::objection(uri, said));
    Error::Usage(format!("{shown} is not a usable MongoDB URI: {why}"))
}

const NEEDS_SET: &str = "Aviary needs a replica set (one member is enough): start mongod with \
                         --replSet NAME and run rs.initiate()";

async fn hello(client: &Client, shown: &str, options: &ClientOptions) -> Result<Document> {
    let any = SelectionCriteria::ReadPreference(ReadPreference::PrimaryPreferred { options: None });
    let answer =
        client.database("admin").run_command(doc! { "hello": 1 }).selection_criteria(any).await;
    answer.map_err(|e| unreachable::explain(&e, shown, options))
}

/// What a URI leads to.
enum Deployment {
    /// A replica set of this name.
    Set(String),
    /// A sharded cluster's router.
    Cluster,
}

fn deployment(hello: &Document, shown: &str) -> Result<Deployment> {
    let is_old = hello.get_i32("maxWireVersion").unwrap_or(0) < WIRE_VERSION_MIN;
    // Servers of every replica set have told the cluster's time since long before.
    if is_old && hello.contains_key("setName") && !hello.contains_key("$clusterTime") {
        return Err(capabilities::stranger(shown, "its answers name no cluster time"));
    }
    if is_old {
        return Err(Error::refused(
            format!("{shown} runs a MongoDB older than 5.0"),
            "Aviary reads its input at one cluster time, which needs MongoDB 5.0 or newer",
        ));
    }
    if hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid") {
        return Ok(Deployment::Cluster);
    }
    match hello.get_str("setName") {
        Ok(name) => Ok(Deployment::Set(name.to_owned())),
        Err(_) => Err(Error::refused(format!("{shown} is a standalone server"), NEEDS_SET)),
    }
}
