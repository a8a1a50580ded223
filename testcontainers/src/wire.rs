//! One command, one reply, over a fresh connection.
//!
//! Asking a server for its state must work before it has users, while it has no primary, and must
//! give up at once when it is frozen. A driver waits, retries and authenticates; this does not.

use std::time::Duration;

use mongodb::bson::{Document, doc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::error::{Error, Result};

const OP_MSG: i32 = 2013;
const HEADER_BYTES: usize = 16;
/// Flag bits and the section's kind.
const PREFIX_BYTES: usize = 5;
const REPLY_BYTES_MAX: usize = 1024 * 1024;
/// A server that answers at all answers `hello` well within this; a frozen one holds up each look
/// at its replica set for as long.
const HELLO_MS_MAX: u64 = 1_000;

/// What a member says of itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hello {
    pub(crate) primary: bool,
    pub(crate) secondary: bool,
    /// Whom it holds to be the primary, as `host:port`.
    pub(crate) sees_primary: Option<String>,
    /// The term's identity; a later term has the greater one.
    pub(crate) election: Option<[u8; 12]>,
}

/// Asks a server for its state.
pub(crate) async fn hello(port: u16) -> Result<Hello> {
    let limit = Duration::from_millis(HELLO_MS_MAX);
    let reply = command(port, doc! { "hello": 1, "$db": "admin" }, limit).await?;
    Ok(Hello {
        primary: reply.get_bool("isWritablePrimary").unwrap_or(false),
        secondary: reply.get_bool("secondary").unwrap_or(false),
        sees_primary: reply.get_str("primary").ok().map(str::to_owned),
        election: reply.get_object_id("electionId").ok().map(|id| id.bytes()),
    })
}

/// Runs `command` (with its `$db`) without authentication.
pub(crate) async fn command(port: u16, command: Document, limit: Duration) -> Result<Document> {
    let name = command.keys().next().cloned().unwrap_or_default();
    let exchange = exchange(port, &command);
    let reply = match tokio::time::timeout(limit, exchange).await {
        Ok(result) => result.map_err(|error| wire(port, error.to_string()))?,
        Err(_) => return Err(wire(port, format!("no reply to {name} in time"))),
    };
    let ok = match reply.get("ok") {
        Some(mongodb::bson::Bson::Double(ok)) => *ok >= 1.0,
        Some(mongodb::bson::Bson::Int32(ok)) => *ok >= 1,
        _ => false,
    };
    if ok {
        return Ok(reply);
    }
    Err(Error::Command {
        command: name,
        port,
        code: reply.get_i32("code").unwrap_or(0),
        reason: reply.get_str("errmsg").unwrap_or("no message").to_owned(),
    })
}

fn wire(port: u16, reason: String) -> Error {
    Error::Wire { port, reason }
}

async fn exchange(port: u16, command: &Document) -> std::io::Result<Document> {
    let invalid = |reason: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, reason);
    let mut body = Vec::new();
    command.to_writer(&mut body).map_err(|error| invalid(&error.to_string()))?;
    let length = i32::try_from(HEADER_BYTES + PREFIX_BYTES + body.len())
        .map_err(|_| invalid("the command is too long"))?;
    let mut message = Vec::new();
    for word in [length, 1, 0, OP_MSG, 0] {
        message.extend_from_slice(&word.to_le_bytes());
    }
    message.push(0);
    message.extend_from_slice(&body);

    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(&message).await?;
    let length = usize::try_from(stream.read_i32_le().await?).unwrap_or(0);
    if !(HEADER_BYTES + PREFIX_BYTES..=REPLY_BYTES_MAX).contains(&length) {
        return Err(invalid("the reply has an impossible length"));
    }
    let mut reply = vec![0; length - size_of::<i32>()];
    stream.read_exact(&mut reply).await?;
    let document = reply.get(HEADER_BYTES + PREFIX_BYTES - size_of::<i32>()..).unwrap_or_default();
    Document::from_reader(document).map_err(|error| invalid(&error.to_string()))
}
