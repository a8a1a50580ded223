//! Servers that tests of one binary use one after the other: to start some costs more than most tests.

use std::sync::Mutex;

use aviary_testcontainers::Managed;
use aviary_testcontainers::process::Record;
use bson::doc;
use mongodb::Client;

use super::{Servers, wait_for};

/// What was dropped is kept for its history, and makes a server ever slower.
const USES_MAX: u32 = 16;

/// Those that nobody uses, the longest idle first. The last of them end with the program, by their watchdogs.
static IDLE: Mutex<Vec<Used>> = Mutex::new(Vec::new());

/// Servers that can be used again.
pub struct Used {
    pub servers: Servers,
    /// How many members each replica set of them has.
    pub members: usize,
    /// How many tests have used them.
    pub uses: u32,
    /// The daemons of the last one.
    pub daemons: Vec<Record>,
}

/// Some that are as new, if any are idle.
pub async fn take(members: usize) -> Option<Used> {
    let mut used = {
        let mut idle = IDLE.lock().expect("a lock");
        let place = idle.iter().position(|used| used.members == members)?;
        idle.remove(place)
    };
    for daemon in std::mem::take(&mut used.daemons) {
        let daemon = Managed::attach(daemon);
        let ended = || async { (!daemon.is_running()).then_some(()) };
        wait_for("a daemon of an earlier test to end", ended).await;
    }
    clean(&used.servers).await;
    Some(used)
}

/// Gives some back whose test went well and did nothing to the servers themselves.
pub fn give_back(used: Used) {
    if used.uses < USES_MAX {
        IDLE.lock().expect("a lock").push(used);
    }
}

/// Removes everything that an earlier test may have left, its transactions first: they hold locks.
async fn clean(servers: &Servers) {
    for uri in servers.primaries() {
        let client = Client::with_uri_str(uri).await.expect("a client");
        let kill = doc! { "killAllSessions": [] };
        client.database("admin").run_command(kill).await.expect("sessions ended");
    }
    let client = Client::with_uri_str(servers.uri()).await.expect("a client");
    for name in client.list_database_names().await.expect("listed") {
        if !["admin", "config", "local"].contains(&name.as_str()) {
            client.database(&name).drop().await.expect("dropped");
        }
    }
}
