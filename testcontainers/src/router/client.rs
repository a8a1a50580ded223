//! One client's connection, from the first command to the last.

use std::io;
use std::sync::Arc;

use mongodb::bson::raw::cstr;
use mongodb::bson::{RawDocumentBuf, Timestamp};
use tokio::net::TcpStream;

use super::dispatch;
use super::failure::Failure;
use super::message::{Reply, Request};
use super::session::Session;
use super::shared::Shared;

/// Serves a client until it goes away or sends what is no message.
pub(super) async fn serve(shared: Arc<Shared>, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut session = Session::new(shared);
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
        let reply = with_time(&session.shared, reply);
        request.answer(&mut stream, &reply).await?;
    }
    Ok(())
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

/// Replies made here carry the cluster's time like any other.
fn with_time(shared: &Shared, reply: Reply) -> RawDocumentBuf {
    let mut body = reply.body;
    let Some(time) = shared.time() else {
        return body;
    };
    if matches!(body.get("operationTime"), Ok(None))
        && let Ok(Timestamp { time: seconds, increment }) = time.get_timestamp("clusterTime")
    {
        body.append(cstr!("operationTime"), Timestamp { time: seconds, increment });
    }
    if matches!(body.get("$clusterTime"), Ok(None)) {
        body.append(cstr!("$clusterTime"), time);
    }
    body
}
