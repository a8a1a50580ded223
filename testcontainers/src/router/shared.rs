//! What all client connections of one router share: what is known of the cluster, its clock, and
//! where cursors live. All of it can be lost and found again, cursors excepted.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mongodb::bson::{DateTime, RawBsonRef, RawDocument, RawDocumentBuf, Timestamp};

use super::ledger::Ledger;
use super::login::Login;
use super::placement::{Database, Placement};

/// Spoken until a server has said what it speaks: that of MongoDB 6.0.
const WIRE_VERSION: i32 = 17;

#[derive(Debug, Default)]
pub(super) struct Catalog {
    /// The hosts of each shard.
    pub(super) shards: BTreeMap<String, Vec<String>>,
    /// The primaries of shards, and of the config servers under the name `config`.
    pub(super) primaries: HashMap<String, String>,
    pub(super) databases: HashMap<String, Database>,
    pub(super) collections: HashMap<String, Placement>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config_hosts: Vec<String>,
    /// For servers that ask who their clients are.
    pub(super) login: Option<Login>,
    catalog: Mutex<Catalog>,
    ledger: Mutex<Ledger>,
    clock: Mutex<Option<(Timestamp, RawDocumentBuf)>>,
    wire_version: AtomicI32,
    connections: AtomicU64,
    tags: AtomicU64,
    clock_ahead_ms: AtomicI64,
}

impl Shared {
    pub(super) fn new(config_hosts: Vec<String>, login: Option<Login>) -> Self {
        Self {
            config_hosts,
            login,
            catalog: Mutex::default(),
            ledger: Mutex::default(),
            clock: Mutex::default(),
            wire_version: AtomicI32::new(WIRE_VERSION),
            connections: AtomicU64::new(1),
            tags: AtomicU64::new(1),
            clock_ahead_ms: AtomicI64::new(0),
        }
    }

    /// The time as this router tells it.
    pub(super) fn local_time(&self) -> DateTime {
        let ahead = self.clock_ahead_ms.load(Ordering::Relaxed);
        DateTime::from_millis(DateTime::now().timestamp_millis().saturating_add(ahead))
    }

    pub(super) fn set_clock_ahead(&self, ms: i64) {
        self.clock_ahead_ms.store(ms, Ordering::Relaxed);
    }

    /// Not to be held across an await.
    pub(super) fn catalog(&self) -> MutexGuard<'_, Catalog> {
        lock(&self.catalog)
    }

    pub(super) fn forget_primary(&self, host: &str) {
        self.catalog().primaries.retain(|_, primary| primary != host);
    }

    /// Has a collection, and its database, looked up anew.
    pub(super) fn forget_placement(&self, namespace: &str) {
        let mut catalog = self.catalog();
        catalog.collections.remove(namespace);
        let db = namespace.split('.').next().unwrap_or_default();
        catalog.databases.remove(db);
    }

    pub(super) fn forget_all_placements(&self) {
        let mut catalog = self.catalog();
        catalog.collections.clear();
        catalog.databases.clear();
    }

    /// Not to be held across an await.
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    pub(super) fn next_tag(&self) -> String {
        let number = self.tags.fetch_add(1, Ordering::Relaxed);
        format!("aviary-test-router {} {number}", std::process::id())
    }

    pub(super) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn wire_version(&self) -> i32 {
        self.wire_version.load(Ordering::Relaxed)
    }

    pub(super) fn set_wire_version(&self, version: i32) {
        self.wire_version.store(version, Ordering::Relaxed);
    }

    /// Takes note of the cluster's time in a command or a reply.
    pub(super) fn hear_time(&self, body: &RawDocument) {
        let Ok(Some(RawBsonRef::Document(heard))) = body.get("$clusterTime") else {
            return;
        };
        let Ok(time) = heard.get_timestamp("clusterTime") else {
            return;
        };
        let mut clock = lock(&self.clock);
        if clock.as_ref().is_none_or(|(known, _)| *known < time) {
            *clock = Some((time, heard.to_owned()));
        }
    }

    /// The latest time heard, in the form it is passed on.
    pub(super) fn time(&self) -> Option<RawDocumentBuf> {
        lock(&self.clock).as_ref().map(|(_, form)| form.clone())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
