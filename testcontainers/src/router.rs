//! A test-only stand-in for `mongos`, for machines that have no `mongos` program.
//!
//! Every `mongod` of a sharded cluster carries the router code of `mongos` and offers it under
//! internal names (`clusterFind`, `clusterInsert`, …). This proxy speaks MongoDB's wire protocol to
//! clients, says of itself what a mongos would, turns clients' commands into those and passes them
//! to the primary of a shard. So placement, migration, zones, merging of results and refusal of old
//! placements are the server's own; what is missing is only the door.
//!
//! It is not a part of Aviary, and never meant for data anybody wants to keep:
//!
//! * Retryable writes are not: their numbers are removed, since they end a server of 6.0. A client
//!   should say `retryWrites=false`, or a write that is sent twice may be done twice
//!   (`findAndModify` excepted).
//! * There are no transactions, and nobody has to say who they are: with a key file the router does so itself,
//!   to servers that ask, and its clients may do what it may.
//! * `findAndModify` needs the shard key in its filter, as with a mongos of 6.0.
//!
//! Layout, in reading order: `dispatch` says which command goes where. `client` is one connection
//! of a client's, `session` its ways to servers (`upstream`), and what is retried. `data`,
//! `cursors` and `counting` are the commands the servers' own router code does, `ledger` says who
//! has cursors open; `streams` merges
//! change streams, the one thing that code cannot do outside of a mongos; `targeted` are those
//! sent to the owners of data with the versions of `placement`; `ddl`, `sharding`, `gather` and
//! `explain` the rest. `shared` is what is known of the cluster. `message`, `bytes` and `rewrite`
//! are the wire; `order` compares and hashes shard keys; `failure` is every error.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

mod bytes;
mod client;
mod counting;
mod cursors;
mod data;
mod ddl;
mod dispatch;
mod explain;
mod failure;
mod gather;
mod ledger;
mod login;
mod message;
mod order;
mod placement;
pub mod program;
mod rewrite;
mod session;
mod sharding;
mod shared;
mod streams;
mod targeted;
mod upstream;

use login::Login;
use shared::Shared;

/// Accepting fails while too many files are open; after this pause it is tried again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often it is looked for cursors that nobody uses any more.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// A router that listens, and serves once it is run.
#[derive(Debug)]
pub struct Router {
    listener: TcpListener,
    shared: Arc<Shared>,
}

impl Router {
    /// Listens on `address` for a cluster whose config servers are `config_db`, written as for
    /// mongos: `name/host:port,host:port`. With a key file its servers ask who their clients are.
    ///
    /// # Errors
    ///
    /// When `config_db` names no host, when the key file cannot be read, or when the address cannot
    /// be listened on.
    pub async fn bind(
        config_db: &str,
        address: SocketAddr,
        key_file: Option<&Path>,
    ) -> io::Result<Self> {
        let hosts = config_db.split_once('/').map_or(config_db, |(_, hosts)| hosts);
        let hosts: Vec<String> =
            hosts.split(',').filter(|host| !host.is_empty()).map(str::to_owned).collect();
        if hosts.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the config servers are to be given as name/host:port,host:port",
            ));
        }
        let login = match key_file {
            Some(path) => Some(Login::new(&std::fs::read_to_string(path)?)),
            None => None,
        };
        let listener = TcpListener::bind(address).await?;
        Ok(Self { listener, shared: Arc::new(Shared::new(hosts, login)) })
    }

    /// Tells its clients a time that is so far ahead.
    pub fn tell_time_ahead(&self, ms: i64) {
        self.shared.set_clock_ahead(ms);
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves clients for as long as it is polled. Dropping the future closes all connections.
    pub async fn run(self) {
        let mut clients = JoinSet::new();
        let mut sweep = tokio::time::interval(SWEEP_PAUSE);
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = sweep.tick() => {
                    clients.spawn(cursors::end_abandoned(Arc::clone(&self.shared)));
                    continue;
                }
            };
            match accepted {
                // What a client does wrong concerns nobody but itself.
                Ok((stream, _)) => {
                    let serving = client::serve(Arc::clone(&self.shared), stream);
                    clients.spawn(async move { serving.await.unwrap_or_default() });
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
            while clients.try_join_next().is_some() {}
        }
    }

    /// Serves clients as a task of this program, which aborting the task ends.
    #[must_use]
    pub fn spawn(self) -> JoinHandle<()> {
        tokio::spawn(self.run())
    }
}
