//! Makes a sharded cluster of servers that run already, wherever they are: what an operator would type
//! into a shell once, for deployments that have none, such as containers.
//!
//! Every step may have been done before, so all of it can be repeated.

use std::str::FromStr;
use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};
use mongodb::error::ErrorKind;
use mongodb::{Client, options::ClientOptions};
use tokio::task::JoinSet;

use crate::error::{Error, Result};

/// How long a step may take: servers that were started at the same time may not serve yet.
const STEP: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(500);
/// How long one attempt to reach a server may take.
const REACH: Duration = Duration::from_secs(5);
const ALREADY_INITIALIZED: i32 = 23;

/// A replica set's name and the addresses of its members, written `name/host:port,host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    /// The replica set's name; a shard is named after it.
    pub name: String,
    /// `host:port` of each member, as all others and all clients can reach it.
    pub hosts: Vec<String>,
}

impl FromStr for Members {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("{text} is not of the form NAME/HOST:PORT,HOST:PORT");
        let (name, hosts) = text.split_once('/').ok_or_else(expected)?;
        let hosts: Vec<String> = hosts.split(',').map(str::to_owned).collect();
        let complete =
            hosts.iter().all(|host| host.split_once(':').is_some_and(|(h, _)| !h.is_empty()));
        if name.is_empty() || !complete {
            return Err(expected());
        }
        Ok(Self { name: name.to_owned(), hosts })
    }
}

impl std::fmt::Display for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.name, self.hosts.join(","))
    }
}

/// Initiates the replica sets and adds the shards to the cluster behind the router.
///
/// # Errors
///
/// When a server or the router is not reached within five minutes, or refuses.
pub async fn assemble(router: &str, config: &Members, shards: &[Members]) -> Result<()> {
    let mut initiating = JoinSet::new();
    for (set, is_config) in shards.iter().map(|shard| (shard, false)).chain([(config, true)]) {
        let set = set.clone();
        initiating.spawn(async move { initiate(&set, is_config).await });
    }
    for initiated in initiating.join_all().await {
        initiated?;
    }
    let router =
        Client::with_options(patient(ClientOptions::parse(router).await?)).map_err(Error::from)?;
    for shard in shards {
        let command = doc! { "addShard": shard.to_string(), "name": &shard.name };
        persist(&format!("the shard {} in the cluster", shard.name), || async {
            router.database("admin").run_command(command.clone()).await.map(Some)
        })
        .await?;
    }
    Ok(())
}

/// Initiates a replica set through its first member, and waits until it has a primary.
async fn initiate(set: &Members, is_config: bool) -> Result<()> {
    let first = set.hosts.first().map(String::as_str).unwrap_or_default();
    let uri = format!("mongodb://{first}/?directConnection=true");
    let client = Client::with_options(patient(ClientOptions::parse(uri).await?))?;
    let admin = client.database("admin");
    let members: Vec<Document> =
        (0_i32..).zip(&set.hosts).map(|(id, host)| doc! { "_id": id, "host": host }).collect();
    let mut config = doc! { "_id": &set.name, "members": members };
    if is_config {
        config.insert("configsvr", true);
    }
    persist(&format!("the replica set {} initiated", set.name), || async {
        match admin.run_command(doc! { "replSetInitiate": config.clone() }).await {
            Err(error) if code(&error) == Some(ALREADY_INITIALIZED) => Ok(Some(doc! {})),
            other => other.map(Some),
        }
    })
    .await?;
    persist(&format!("a primary of {}", set.name), || async {
        let hello = admin.run_command(doc! { "hello": 1 }).await?;
        Ok(hello.contains_key("primary").then_some(hello))
    })
    .await?;
    Ok(())
}

fn patient(mut options: ClientOptions) -> ClientOptions {
    options.server_selection_timeout = Some(REACH);
    options.connect_timeout = Some(REACH);
    options
}

fn code(error: &mongodb::error::Error) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(error) => Some(error.code),
        _ => None,
    }
}

/// Tries until there is an answer. What a server refuses now it may accept once the others serve, so
/// every error is tried again.
async fn persist<F, A>(what: &str, attempt: F) -> Result<Document>
where
    F: Fn() -> A,
    A: Future<Output = mongodb::error::Result<Option<Document>>>,
{
    let deadline = Instant::now() + STEP;
    loop {
        let seen = match attempt().await {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => "not yet".to_owned(),
            Err(error) => error.to_string(),
        };
        if Instant::now() > deadline {
            return Err(Error::Timeout { what: what.to_owned(), limit: STEP, seen });
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_written_as_for_mongos() {
        let members: Members = "s0/a:1,b:2".parse().unwrap();
        assert_eq!(members.hosts, ["a:1", "b:2"]);
        assert_eq!(members.to_string(), "s0/a:1,b:2");
        for wrong in ["s0", "/a:1", "s0/", "s0/a", "s0/a:1,,b:2", "s0/:1"] {
            assert!(wrong.parse::<Members>().is_err(), "{wrong}");
        }
    }
}
