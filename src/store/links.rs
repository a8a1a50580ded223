//! Links to the servers that documents live on.
//!
//! A store has a *routed* link: a router, or the replica set itself. A worker beside a shard's server may
//! have a *direct* link to that shard too, and then claims, commits and reads there, without a router
//! between. What a direct link says is only worth something while everything that Aviary files under the
//! shard really lives on it, which [`Store::verify_placement`] makes sure of before the link is trusted,
//! every few seconds from then on, and when a write finds nothing to write to.
//!
//! A shard may refuse whoever does not come through a router: from MongoDB 8.0 on servers with access control do, as
//! soon as their cluster has two shards. Then the router serves, for as long as that is so.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bson::{Document, doc};
use mongodb::options::{ClientOptions, ServerAddress};
use mongodb::{Client, Collection, Database};

use super::capabilities::Link;
use super::error::{Action, not_permitted};
use super::retry::within;
use super::topology::{config as cluster_config, one_of};
use super::uri::redact;
use super::{AVIARY, ConnectOptions, Store, database_of, hello, prepared};
use crate::config;
use crate::error::{Error, Result, StoreError, StoreErrorKind};

/// A direct link to one shard.
#[derive(Debug)]
pub(super) struct Direct {
    /// The shard's name.
    pub(super) shard: String,
    /// Aviary's database, through the shard's primary.
    db: Database,
    /// The member that this process is beside: input is read there.
    beside: Client,
    trusted: AtomicBool,
    /// Whether it was said that it is not trusted.
    said: AtomicBool,
    /// Whether the shard does not let this process in.
    shut: AtomicBool,
    /// How often it has begun not to.
    times_shut: AtomicU64,
}

/// Identifies a shard to its own members: written by the cluster that it was added to.
struct Identity {
    shard: String,
    cluster: Option<bson::oid::ObjectId>,
}

impl Direct {
    /// Connects to a shard's member and to its primary, and makes sure that it belongs to the cluster
    /// behind `routed`.
    pub(super) async fn connect(
        options: &ConnectOptions,
        uri: &str,
        db: &str,
        routed: &Store,
    ) -> Result<Self> {
        let shown = redact(uri);
        let mut member = prepared(uri, &options.app_name).await?;
        // Whoever speaks TLS to the cluster does so to its shards, with the same certificates, unless told otherwise.
        if member.tls.is_none() {
            member.tls.clone_from(&routed.options.tls);
        }
        if member.hosts.len() == 1 {
            member.direct_connection = Some(true);
        }
        let beside = client(member.clone(), &shown)?;
        let hello = hello(&beside, &shown, &member).await?;
        if hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid") {
            return Err(not_a_shard(&shown, "it is a router"));
        }
        let (Ok(set), Ok(hosts)) = (hello.get_str("setName"), hello.get_array("hosts")) else {
            return Err(not_a_shard(&shown, "it is no member of a replica set"));
        };
        let identity = identity(&beside, &shown).await?;
        let cluster = cluster_id(routed).await?;
        let known = routed.known_shards().contains(&identity.shard);
        if !known || identity.cluster.is_some() && identity.cluster != cluster {
            return Err(not_a_shard(
                &shown,
                &format!("it is the shard {} of another cluster than --uri", identity.shard),
            ));
        }
        let mut primary = member.clone();
        primary.direct_connection = None;
        primary.repl_set_name = Some(set.to_owned());
        primary.hosts =
            hosts.iter().filter_map(|host| ServerAddress::parse(host.as_str()?).ok()).collect();
        let db = database_of(&client(primary, &shown)?, db);
        let beside = client(impatient(member), &shown)?;
        Ok(Self::new(identity.shard, db, beside))
    }

    fn new(shard: String, db: Database, beside: Client) -> Self {
        Self {
            shard,
            db,
            beside,
            trusted: AtomicBool::new(false),
            said: AtomicBool::new(false),
            shut: AtomicBool::new(false),
            times_shut: AtomicU64::new(0),
        }
    }

    /// The same link for another database. It is not trusted until it has been verified.
    pub(super) fn of_database(&self, name: &str) -> Self {
        let db = database_of(self.db.client(), name);
        Self::new(self.shard.clone(), db, self.beside.clone())
    }

    /// Asks the shard for something small, as tasks are asked for, and notes whether it answers.
    async fn is_open(&self) -> Result<bool> {
        /// One that is away is no reason to keep a worker from reporting.
        const ANSWER_MAX: Duration = Duration::from_secs(5);
        const ACTION: &str = "ask the own shard";
        let tasks = self.db.collection::<Document>(AVIARY);
        let nothing = doc! { "_id": "clock/", "shard": &self.shard };
        let asking = async move { tasks.find_one(nothing).await.action(ACTION) };
        match within(ANSWER_MAX, ACTION, asking).await {
            Ok(_) => {
                if self.shut.swap(false, Ordering::AcqRel) {
                    tracing::info!(shard = self.shard, "the own shard answers again");
                }
                Ok(true)
            }
            Err(error) if is_unauthorized(&error) => {
                self.note_shut(&error);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Notes that the shard does not let this process in, and says so once.
    fn note_shut(&self, error: &Error) {
        if !self.shut.swap(true, Ordering::AcqRel) {
            self.times_shut.fetch_add(1, Ordering::AcqRel);
            tracing::warn!(
                shard = self.shard,
                %error,
                "the own shard does not let this process in; using the router. {ADMIT}"
            );
        }
    }
}

/// What lets a process in that does not come through a router.
const ADMIT: &str = "Grant the user of --shard-uri on this shard the role aviary-shard, which SHARD=1 deploy/roles.js \
                     makes and which from MongoDB 8.0 on contains directShardOperations; or leave --shard-uri out, as on \
                     Atlas, and the worker asks the router for everything";

pub(super) fn is_unauthorized(error: &Error) -> bool {
    matches!(error, Error::Store { source, .. } if source.kind == StoreErrorKind::Unauthorized)
}

impl Store {
    /// Verifies that what is filed under the own shard lives there, and trusts the direct link as far
    /// as that is so.
    ///
    /// # Errors
    /// [`Error::Store`]; the link is trusted or not as before.
    pub async fn verify_placement(&self) -> Result<bool> {
        let Some(direct) = &self.direct else { return Ok(false) };
        let placed = self.is_placed(&direct.shard).await?;
        if placed {
            direct.said.store(false, Ordering::Release);
        } else {
            direct.trusted.store(false, Ordering::Release);
            if !direct.said.swap(true, Ordering::AcqRel) {
                tracing::warn!(
                    shard = direct.shard,
                    "Aviary's collections are not where they belong (run aviary init); using the router"
                );
            }
        }
        let is_open = direct.is_open().await?;
        let trusted = placed && is_open;
        direct.trusted.store(trusted, Ordering::Release);
        Ok(trusted)
    }

    /// How often the own shard has begun not to let this process in.
    pub fn times_shut(&self) -> u64 {
        self.direct.as_ref().map_or(0, |direct| direct.times_shut.load(Ordering::Acquire))
    }

    /// What to make of an error that an attempt ended with, which began when the own shard had been shut so many times:
    /// one that is due to that is nobody's fault, since the router serves from now on.
    pub async fn reconsidered(&self, error: Error, times_shut: u64) -> Error {
        if self.direct.is_none() || !is_unauthorized(&error) {
            return error;
        }
        let asked = self.verify_placement().await;
        let is_away = asked.is_err_and(|error| error.is_transient());
        let is_due = is_away || self.times_shut() != times_shut;
        if is_due { passing(error) } else { error }
    }

    /// What to make of a read of the input that a member refused: the router may serve. The own shard may be shut to
    /// this process, or just the input.
    pub(super) async fn found_shut(&self, error: Error) -> Error {
        if let Some(direct) = &self.direct
            && !matches!(direct.is_open().await, Ok(false))
        {
            tracing::warn!(
                shard = direct.shard,
                %error,
                "the own shard does not let this process read the input; using the router. {ADMIT}"
            );
        }
        passing(error)
    }

    /// Whether claims and commits go to the own shard without a router between.
    pub fn trusts_direct(&self) -> bool {
        self.direct.as_ref().is_some_and(|direct| direct.trusted.load(Ordering::Acquire))
    }

    /// What has become of the link to the own shard.
    pub fn link(&self) -> Link {
        match &self.direct {
            None => Link::None,
            Some(direct) if direct.shut.load(Ordering::Acquire) => Link::Shut,
            Some(_) if self.trusts_direct() => Link::Used,
            Some(_) => Link::Input,
        }
    }

    /// The member that this process is beside, whichever shard's it is.
    pub(super) fn beside_any(&self) -> Option<&Client> {
        self.direct.as_ref().map(|direct| &direct.beside)
    }

    fn trusted(&self, shard: &str) -> Option<&Direct> {
        let direct = self.direct.as_deref()?;
        (direct.shard == shard && direct.trusted.load(Ordering::Acquire)).then_some(direct)
    }

    /// Aviary's database by the shortest way to what is filed under `shard`.
    pub(super) fn near(&self, shard: &str) -> &Database {
        self.trusted(shard).map_or(&self.db, |direct| &direct.db)
    }

    /// Where to read the input that is on `shard`, without a router between: from the member that this
    /// process is beside, and from the primary when that one is away.
    pub(super) fn beside(&self, shard: &str) -> Option<[&Client; 2]> {
        let direct = self.direct.as_ref()?;
        // Input is bounded by what the shard owned, wherever Aviary's own collections are.
        let serves = direct.shard == shard && !direct.shut.load(Ordering::Acquire);
        serves.then_some([&direct.beside, direct.db.client()])
    }

    /// Tasks of `shard`.
    pub(super) fn aviary_at(&self, shard: &str) -> Collection<Document> {
        self.near(shard).collection(AVIARY)
    }

    /// Tasks of the shards that this process works for.
    pub(super) fn aviary_of_served(&self) -> Collection<Document> {
        match &self.served {
            Some(shard) => self.aviary_at(shard),
            None => self.aviary(),
        }
    }

    /// The shard that this process works for; [`home`](Store::home) when it works for all.
    pub fn served_name(&self) -> &str {
        self.served.as_deref().unwrap_or_else(|| self.home())
    }

    /// Whether what is filed under [`home`](Store::home) is among what this process works for, on the same link.
    pub(super) fn serves_home(&self) -> bool {
        !self.is_sharded()
    }

    /// A condition on the field `shard` that holds for the shards that this process works for.
    pub(super) fn served(&self) -> bson::Bson {
        match &self.served {
            Some(shard) => shard.as_str().into(),
            None => one_of(self.known_shards()),
        }
    }
}

/// The same error, as one that does not come again.
fn passing(error: Error) -> Error {
    match error {
        Error::Store { action, source } => Error::Store {
            action,
            source: StoreError { kind: StoreErrorKind::Transient, ..source },
        },
        other => other,
    }
}

/// The options of a client that soon takes a server for away: there is another to ask.
pub(super) fn impatient(mut options: ClientOptions) -> ClientOptions {
    let limit = options.server_selection_timeout.unwrap_or(config::CONNECT_TIMEOUT);
    options.server_selection_timeout = Some(limit.min(config::BESIDE_TIMEOUT));
    options
}

/// A client from options.
pub(super) fn client(options: ClientOptions, shown: &str) -> Result<Client> {
    Client::with_options(options).map_err(|e| {
        Error::Usage(format!(
            "{shown} is not a usable MongoDB URI: {}",
            super::unreachable::reason(&e)
        ))
    })
}

/// Refuses a replica set that is a shard of a cluster, or its config servers: what was written there would
/// not be found through the cluster's routers.
///
/// # Errors
/// [`Error::Refused`].
pub(super) async fn refuse_part_of_cluster(
    client: &Client,
    hello: &Document,
    shown: &str,
) -> Result<()> {
    let what = if hello.contains_key("configsvr") {
        "the config servers".to_owned()
    } else {
        // Who may not read this may be a user of a plain replica set with few privileges.
        match shard_identity(client).await.ok().flatten() {
            Some(identity) => format!("the shard {}", identity.shard),
            None => return Ok(()),
        }
    };
    Err(Error::refused(
        format!("--uri {shown} leads to {what} of a sharded cluster"),
        "give the address of the cluster's router (mongos); a worker takes its shard's own address with \
         --shard-uri",
    ))
}

async fn identity(member: &Client, shown: &str) -> Result<Identity> {
    let found = shard_identity(member).await.action(format!("ask {shown} for its shard"));
    let found = found.map_err(|e| {
        not_permitted(e, || {
            "users of a cluster are not users of its shards: make one on this shard, with the role aviary-shard, which \
             SHARD=1 deploy/roles.js makes and which has find on admin.system.version; or leave --shard-uri out, as on \
             Atlas, and the worker asks the router for everything"
                .into()
        })
    })?;
    found.ok_or_else(|| not_a_shard(shown, "it was never added to a cluster"))
}

async fn shard_identity(member: &Client) -> mongodb::error::Result<Option<Identity>> {
    let found = member
        .database("admin")
        .collection::<Document>("system.version")
        .find_one(doc! { "_id": "shardIdentity" })
        .await?;
    Ok(found.map(|found| Identity {
        shard: found.get_str("shardName").unwrap_or_default().to_owned(),
        cluster: found.get_object_id("clusterId").ok(),
    }))
}

async fn cluster_id(routed: &Store) -> Result<Option<bson::oid::ObjectId>> {
    let version = cluster_config(routed.client(), "version")
        .find_one(doc! {})
        .await
        .action("ask for the cluster's identity")?;
    Ok(version.and_then(|version| version.get_object_id("clusterId").ok()))
}

fn not_a_shard(shown: &str, why: &str) -> Error {
    Error::refused(
        format!("--shard-uri {shown} is no shard of the cluster: {why}"),
        "name a mongod of one of the shards that sh.status() lists, or leave the flag out",
    )
}
