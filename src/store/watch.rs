//! Change streams as an alarm clock: they wake, they never decide.
//!
//! One task owns the stream for its whole life. When it breaks, it is opened afresh from now: what
//! was missed is found by the poll, which always runs.
//!
//! The server looks at every write of the deployment for every stream, also at those of results, which costs as much as a
//! tenth of writing them. So a worker that has all hands full has no stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bson::{Document, doc};
use futures_util::StreamExt;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{AVIARY, Store};
use crate::request::REQUESTS;

/// Which changes are worth waking for.
#[derive(Debug, Clone, Copy)]
pub enum WakeFor {
    /// A task became ready.
    Workers,
    /// A request was inserted, a job was submitted or ended or its plan lost, or a task was committed or given up.
    Coordinator,
}

impl Store {
    /// Rings `bell` whenever something that matters to `audience` changes, until `stop`; with `wanted` only while that
    /// is true, and once whenever it has become so.
    pub fn watch(
        &self,
        audience: WakeFor,
        bell: Arc<Notify>,
        mut wanted: Option<watch::Receiver<bool>>,
        stop: CancellationToken,
    ) {
        const REOPEN_PAUSE: Duration = Duration::from_secs(1);
        let store = self.clone();
        tokio::spawn(async move {
            while !stop.is_cancelled() {
                tokio::select! {
                    () = until(&mut wanted) => {}
                    () = stop.cancelled() => return,
                }
                // That something has changed is all that is asked for; the driver wants to know by what.
                let least = doc! { "$project": { "_id": 1, "operationType": 1 } };
                let pipeline = [doc! { "$match": matters(audience) }, least];
                let opened = match audience {
                    // A stream on the own shard is spared the wait for the slowest of all.
                    WakeFor::Workers => store.aviary_of_served().watch().pipeline(pipeline).await,
                    // One of a database costs less than two of collections.
                    WakeFor::Coordinator => store.database().watch().pipeline(pipeline).await,
                };
                match opened {
                    Ok(mut stream) => {
                        // Something may have changed before the stream was open.
                        bell.notify_one();
                        loop {
                            // A stream whose read is given up half-way is dropped whole, which
                            // closes it on the server.
                            let event = tokio::select! {
                                event = stream.next() => event,
                                () = until_not(&mut wanted) => break,
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
                if wanted.as_ref().is_some_and(|wanted| !*wanted.borrow()) {
                    continue;
                }
                tokio::select! {
                    () = tokio::time::sleep(REOPEN_PAUSE) => {}
                    () = stop.cancelled() => return,
                }
            }
        });
    }
}

impl Store {
    /// Calls `woken` with the name of each database in which something that matters to `audience` changes, or in which there
    /// is something new to do, and `missed` when something may have been missed, until `stop`. What is returned says
    /// whether that is so now: it takes a right to all databases.
    pub fn watch_all(
        &self,
        audience: WakeFor,
        woken: impl Fn(String) + Send + 'static,
        missed: impl Fn() + Send + 'static,
        stop: CancellationToken,
    ) -> Arc<AtomicBool> {
        /// A user who may not have the stream now may be given the right to.
        const REOPEN_PAUSE: Duration = Duration::from_secs(5);
        /// How long the server waits for a change before it answers. Each answer costs another question.
        const AWAIT: Duration = Duration::from_secs(10);
        let is_open = Arc::new(AtomicBool::new(false));
        let (client, open) = (self.client().clone(), is_open.clone());
        let of_tenants = doc! { "ns.coll": { "$regex": format!("^{REQUESTS}-") } };
        let ours = vec![doc! { "ns.coll": { "$in": [AVIARY, REQUESTS] } }, of_tenants];
        let pipeline = [
            doc! { "$match": {
                "$and": [doc! { "$or": ours }],
                "$or": [
                    matters(audience),
                    { "operationType": "insert", "fullDocument.kind": "job" },
                    { "operationType": "insert", "ns.coll": { "$ne": AVIARY } },
                    { "updateDescription.updatedFields.state": {
                        "$in": ["submitted", "mapping", "reducing", "publishing"],
                    } },
                ],
            } },
            doc! { "$project": { "_id": 1, "operationType": 1, "ns": 1 } },
        ];
        tokio::spawn(async move {
            let mut was_refused = false;
            while !stop.is_cancelled() {
                let opened = client.watch().pipeline(pipeline.clone()).max_await_time(AWAIT).await;
                match opened {
                    Ok(mut stream) => {
                        was_refused = false;
                        open.store(true, Ordering::Relaxed);
                        missed();
                        loop {
                            let event = tokio::select! {
                                event = stream.next() => event,
                                () = stop.cancelled() => return,
                            };
                            match event {
                                Some(Ok(event)) => event.ns.into_iter().for_each(|ns| woken(ns.db)),
                                Some(Err(error)) => {
                                    tracing::debug!(%error, "the deployment's change stream broke");
                                    break;
                                }
                                None => break,
                            }
                        }
                    }
                    Err(error) if !was_refused => {
                        was_refused = true;
                        tracing::warn!(
                            %error,
                            "cannot watch all databases at once, so jobs in databases that rest begin late; the right \
                             to is in the role that deploy/roles.js makes with ALL=1"
                        );
                    }
                    Err(error) => tracing::debug!(%error, "still no stream of all databases"),
                }
                open.store(false, Ordering::Relaxed);
                tokio::select! {
                    () = tokio::time::sleep(REOPEN_PAUSE) => {}
                    () = stop.cancelled() => {}
                }
            }
        });
        is_open
    }
}

/// Waits until a stream is wanted.
async fn until(wanted: &mut Option<watch::Receiver<bool>>) {
    if let Some(wanted) = wanted {
        // Whoever is gone wants no more than before.
        let _ = wanted.wait_for(|wanted| *wanted).await;
    }
}

/// Waits until no stream has been wanted for a while: opening one costs more than having it for so long.
async fn until_not(wanted: &mut Option<watch::Receiver<bool>>) {
    const KEPT: Duration = Duration::from_millis(200);
    let Some(wanted) = wanted else { return std::future::pending().await };
    loop {
        if wanted.wait_for(|wanted| !*wanted).await.is_err() {
            return std::future::pending().await;
        }
        tokio::select! {
            () = tokio::time::sleep(KEPT) => return,
            _ = wanted.wait_for(|wanted| *wanted) => {}
        }
    }
}

fn matters(audience: WakeFor) -> Document {
    match audience {
        WakeFor::Workers => doc! { "$or": [
            { "fullDocument.state": "ready" },
            { "updateDescription.updatedFields.state": "ready" },
        ] },
        WakeFor::Coordinator => {
            doc! {
                // Exact names: with these, servers sort out writes to other collections before they make events of them.
                "ns.coll": { "$in": [AVIARY, REQUESTS] },
                "$or": [
                    { "fullDocument.kind": "job" },
                    { "updateDescription.updatedFields.state": {
                        "$in": ["done", "quarantined", "cancelled", "failed", "submitted"],
                    } },
                    { "updateDescription.updatedFields.plan_lost": { "$exists": true } },
                    { "ns.coll": REQUESTS, "operationType": "insert" },
                ],
            }
        }
    }
}
