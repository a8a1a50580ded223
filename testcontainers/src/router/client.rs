//! One client's connection, from the first command to the last.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use mongodb::bson::RawDocumentBuf;
use mongodb::bson::raw::cstr;
use tokio::net::TcpStream;

use super::dispatch;
use super::failure::Failure;
use super::message::{Reply, Request};
use super::rewrite::Rewrite;
use super::session::Session;
use super::shared::Shared;

/// Serves a client until it goes away or sends what is no message.
pub(super) async fn serve(shared: Arc<Shared>, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut session = Session::new(shared);
    let _leaving = Leaving { shared: Arc::clone(&session.shared), number: session.number };
    while let Some(request) = Request::read(&mut stream).await? {
        let done = tokio::select! {
            done = dispatch::run(&mut session, &request) => done,
            // Dropping the command closes its connection, and the server ends its work.
            () = until_gone(&stream) => Err(Failure::ClientGone),
        };
        let reply = match done {
            Ok(reply) => reply,
            Err(failure) => match failure.into_reply() {
                Some(reply) => reply?,
                None => return Ok(()),
            },
        };
        let reply = with_time(&session.shared, reply)?;
        request.answer(&mut stream, &reply).await?;
    }
    Ok(())
}

/// Takes note of the end of a connection, whatever ends it.
struct Leaving {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.shared.ledger().leave(self.number, Instant::now());
    }
}

/// Resolves when the client closes its end.
async fn until_gone(stream: &TcpStream) {
    let mut byte = [0];
    match stream.peek(&mut byte).await {
        Ok(0) | Err(_) => {}
        // It is there, and has sent its next command already.
        Ok(_) => std::future::pending().await,
    }
}

/// A reply with the cluster's time.
///
/// `operationTime` is what a client that wants to read its own write asks for, of whichever shard. A
/// server's reply to a router command names the time of the shard that routed it, which may be
/// before the write on the shard that did it; by the latest time that was heard, it was done.
fn with_time(shared: &Shared, reply: Reply) -> io::Result<RawDocumentBuf> {
    let Some(time) = shared.time() else {
        return Ok(reply.body);
    };
    let Ok(now) = time.get_timestamp("clusterTime") else {
        return Ok(reply.body);
    };
    let replaced = Rewrite { without: &["operationTime", "$clusterTime"], ..Rewrite::default() };
    let mut body = replaced.apply(&reply.body)?;
    body.append(cstr!("operationTime"), now);
    body.append(cstr!("$clusterTime"), time);
    Ok(body)
}
