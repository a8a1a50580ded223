//! Change streams as an alarm clock: they wake, they never decide.
//!
//! One task owns the stream for its whole life. When it breaks, it is opened afresh from now: what
//! was missed is found by the poll, which always runs.

use std::sync::Arc;
use std::time::Duration;

use bson::{Document, doc};
use futures_util::StreamExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Store;

/// Which changes are worth waking for.
#[derive(Debug, Clone, Copy)]
pub enum WakeFor {
    /// A task became ready.
    Workers,
    /// A request was inserted where everybody's are.
    Intake,
    /// A job was submitted or ended, or a task was committed or given up.
    Coordinator,
}

impl Store {
    /// Rings `bell` whenever something that matters to `audience` changes, until `stop`.
    pub fn watch(&self, audience: WakeFor, bell: Arc<Notify>, stop: CancellationToken) {
        const REOPEN_PAUSE: Duration = Duration::from_secs(1);
        let collection = match audience {
            // A stream on the own shard is spared the wait for the slowest of all.
            WakeFor::Workers => self.aviary_of_served(),
            WakeFor::Coordinator => self.aviary(),
            WakeFor::Intake => self.database().collection(crate::request::REQUESTS),
        };
        tokio::spawn(async move {
            while !stop.is_cancelled() {
                // That something has changed is all that is asked for; the driver wants to know by what.
                let least = doc! { "$project": { "_id": 1, "operationType": 1 } };
                let pipeline = [doc! { "$match": wanted(audience) }, least];
                match collection.watch().pipeline(pipeline).await {
                    Ok(mut stream) => {
                        // Something may have changed before the stream was open.
                        bell.notify_one();
                        loop {
                            // A stream whose read is given up half-way is dropped whole, which
                            // closes it on the server.
                            let event = tokio::select! {
                                event = stream.next() => event,
                                () = stop.cancelled() => return,
                            };
                            match event {
                                Some(Ok(_)) => bell.notify_one(),
                                Some(Err(error)) => {
                                    tracing::debug!(%error, "the change stream broke; opening another");
                                    break;
                                }
                                None => break,
                            }
                        }
                    }
                    Err(error) => tracing::debug!(%error, "no change stream; polling goes on"),
                }
                tokio::select! {
                    () = tokio::time::sleep(REOPEN_PAUSE) => {}
                    () = stop.cancelled() => return,
                }
            }
        });
    }
}

fn wanted(audience: WakeFor) -> Document {
    match audience {
        WakeFor::Workers => doc! { "$or": [
            { "fullDocument.state": "ready" },
            { "updateDescription.updatedFields.state": "ready" },
        ] },
        WakeFor::Intake => doc! { "operationType": "insert" },
        WakeFor::Coordinator => doc! { "$or": [
            { "fullDocument.kind": "job" },
            { "updateDescription.updatedFields.state": {
                "$in": ["done", "quarantined", "cancelled", "failed", "submitted"],
            } },
        ] },
    }
}
