//! Why a command got no reply from a server, and which error replies mean "try again".

use std::io;

use mongodb::bson::{Document, doc};

use super::message::Reply;

pub(super) type Result<T, E = Failure> = std::result::Result<T, E>;

/// What keeps a command from having a reply of a server's.
#[derive(Debug)]
pub(super) enum Failure {
    /// A server refused a step on the way; its reply is the client's.
    Refused(Reply),
    /// The router itself refuses, in the words a mongos would use.
    Command { code: Code, reason: String },
    /// A server went away after it was sent a command that must not be sent twice.
    Lost { host: String, source: io::Error },
    /// Something that was received or is to be sent makes no sense.
    Malformed(io::Error),
    /// Nobody waits for the reply any more.
    ClientGone,
}

/// The error codes the router uses itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Code {
    BadValue = 2,
    HostUnreachable = 6,
    FailedToParse = 9,
    NamespaceNotFound = 26,
    CursorNotFound = 43,
    ShardKeyNotFound = 61,
    ShardNotFound = 70,
    CommandNotSupported = 115,
    FailedToSatisfyReadPreference = 133,
    NamespaceNotSharded = 118,
}

impl Failure {
    pub(super) fn command(code: Code, reason: impl Into<String>) -> Self {
        Self::Command { code, reason: reason.into() }
    }

    /// The reply a client gets. `None` when there is no client to get it.
    pub(super) fn into_reply(self) -> Option<io::Result<Reply>> {
        let (code, reason) = match self {
            Self::Refused(reply) => return Some(Ok(reply)),
            Self::Command { code, reason } => (code, reason),
            Self::Lost { host, source } => {
                (Code::HostUnreachable, format!("the connection to {host} was lost: {source}"))
            }
            Self::Malformed(source) => (Code::FailedToParse, source.to_string()),
            Self::ClientGone => return None,
        };
        Some(Reply::of(&error_document(code, &reason)))
    }
}

impl From<io::Error> for Failure {
    fn from(source: io::Error) -> Self {
        Self::Malformed(source)
    }
}

fn error_document(code: Code, reason: &str) -> Document {
    doc! { "ok": 0.0, "errmsg": reason, "code": code as i32, "codeName": format!("{code:?}") }
}

/// The server asked is not the primary and has done nothing.
pub(super) fn is_not_primary(code: i32) -> bool {
    matches!(code, 10107 | 13435 | 13436)
}

/// The server is going away, or lost its own way to another; a read may be tried again.
pub(super) fn is_passing(code: i32) -> bool {
    is_not_primary(code) || matches!(code, 6 | 7 | 89 | 91 | 189 | 9001 | 11600 | 11602)
}

/// Somebody along the way knew an old placement of the data: `StaleConfig`, `StaleDbVersion`,
/// `StaleEpoch`.
pub(super) fn is_stale(code: i32) -> bool {
    matches!(code, 13388 | 249 | 150)
}

/// Whether a command failed as a whole because of an old placement.
pub(super) fn refused_as_stale(reply: &Reply) -> bool {
    reply.error_code().is_some_and(is_stale)
}

/// Errors after which a change stream is resumed from its last token.
pub(super) fn is_resumable(code: i32) -> bool {
    is_passing(code) || is_stale(code) || matches!(code, 43 | 63 | 133 | 234 | 262)
}
