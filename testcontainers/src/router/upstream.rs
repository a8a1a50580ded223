//! Connections from the router to servers.
//!
//! Each client connection has its own, opened under the client's own name, so that fail points and
//! logs on the servers tell clients apart as they would without a router.

use std::io::{self, ErrorKind};
use std::time::Duration;

use mongodb::bson::{Document, RawDocument, doc};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::login::Login;
use super::message::{self, Reply};
use super::shared::Shared;

/// A server that answers at all takes a connection and says `hello` well within this.
const HELLO_LIMIT: Duration = Duration::from_secs(2);

/// A connection on which one command at a time is run.
#[derive(Debug)]
pub(super) struct Upstream {
    stream: TcpStream,
}

impl Upstream {
    /// Connects to `host` in the name of the client that sent `client` with its `hello`.
    pub(super) async fn connect(
        host: &str,
        shared: &Shared,
        client: Option<&Document>,
    ) -> io::Result<Self> {
        let mut hello = doc! { "hello": 1 };
        if let Some(client) = client {
            hello.insert("client", client.clone());
        }
        hello.insert("$db", "admin");
        within(HELLO_LIMIT, async {
            let stream = TcpStream::connect(host).await?;
            stream.set_nodelay(true)?;
            let mut upstream = Self { stream };
            upstream.exchange(&message::encode(&hello)?, &[]).await?;
            if let Some(login) = &shared.login {
                upstream.log_in(login, &shared.next_tag()).await?;
            }
            Ok(upstream)
        })
        .await
    }

    async fn log_in(&mut self, login: &Login, nonce: &str) -> io::Result<()> {
        let nonce = nonce.replace(' ', "-");
        let (first, bare) = login.first(&nonce);
        let answer = self.exchange(&message::encode(&first)?, &[]).await?.document()?;
        let last = login.last(&bare, &nonce, &answer)?;
        let answer = self.exchange(&message::encode(&last)?, &[]).await?;
        if answer.is_ok() { Ok(()) } else { Err(ErrorKind::PermissionDenied.into()) }
    }

    /// Whether the server closed the connection while nothing was asked of it.
    pub(super) fn is_closed(&self) -> bool {
        let mut byte = [0];
        // Nothing is expected between two commands: whatever can be read is an end or a mistake.
        !matches!(self.stream.try_read(&mut byte),
            Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// Sends a command and waits for its reply, however long that takes.
    pub(super) async fn exchange(
        &mut self,
        body: &RawDocument,
        sequences: &[u8],
    ) -> io::Result<Reply> {
        message::send(&mut self.stream, body, sequences).await?;
        Reply::read(&mut self.stream).await
    }
}

/// What members of a replica set say of themselves.
#[derive(Debug, Default)]
pub(super) struct Members {
    pub(super) primary: Option<String>,
    /// One that answers, primary or not.
    pub(super) any: Option<String>,
    /// The newest wire version they speak.
    pub(super) wire_version: Option<i32>,
}

/// Asks all `hosts` at once. Of two that claim to be primary, the later elected is.
pub(super) async fn ask_members(hosts: &[String]) -> Members {
    let mut asking = JoinSet::new();
    for host in hosts.iter().cloned() {
        asking.spawn(async move {
            let hello = hello(&host).await;
            (host, hello)
        });
    }
    let mut members = Members::default();
    let mut latest = None;
    for (host, hello) in asking.join_all().await {
        let Ok(hello) = hello else { continue };
        let serves = |role| hello.get_bool(role).unwrap_or(false);
        members.wire_version = members.wire_version.max(hello.get_i32("maxWireVersion").ok());
        if serves("isWritablePrimary") {
            let election = hello.get_object_id("electionId").ok().map(|id| id.bytes());
            if members.primary.is_none() || election > latest {
                members.primary = Some(host.clone());
                latest = election;
            }
        }
        if serves("isWritablePrimary") || serves("secondary") {
            members.any = Some(host);
        }
    }
    members
}

/// Asks one server for its state, over a connection of its own.
pub(super) async fn hello(host: &str) -> io::Result<Document> {
    let body = message::encode(&doc! { "hello": 1, "$db": "admin" })?;
    within(HELLO_LIMIT, async {
        let mut stream = TcpStream::connect(host).await?;
        message::send(&mut stream, &body, &[]).await?;
        Reply::read(&mut stream).await?.document()
    })
    .await
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}
