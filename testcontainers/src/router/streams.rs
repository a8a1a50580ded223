//! Change streams: one opened on each shard, merged here in the order of their tokens.
//!
//! The servers' own merging cannot be used for them: a server of 6.0 that merges for a router
//! command ends itself (an invariant about its authorization) once a shard has no event to report.
//!
//! An event is passed on when no shard can report an earlier one any more, which each shard says
//! with the token that comes with its batches. As with a mongos, a quiet shard says so only when
//! it writes its periodic no-op. A resumed stream is opened at the time in its token, and what the
//! client has seen is left out.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mongodb::bson::raw::cstr;
use mongodb::bson::{Bson, Document, RawArrayBuf, RawDocumentBuf, Timestamp, doc};
use tokio::sync::Mutex;

use super::data::{holder, label_resumable};
use super::failure::{Code, Failure, Result, is_passing};
use super::ledger::Open;
use super::message::{Reply, Request, encode, invalid};
use super::session::{Patience, Session};
use super::upstream::Upstream;

mod merge;
mod token;

use merge::{Merge, Part};
use token::{position_of, time_in};

/// How long a client that names no time waits for an event; a server's own default.
const AWAIT: Duration = Duration::from_secs(1);
/// How often it is looked whether there is a new shard.
const TOPOLOGY_CHECK: Duration = Duration::from_secs(1);
/// Fields of the client's command that parts do not get.
const NOT_FOR_PARTS: [&str; 10] = [
    "pipeline",
    "cursor",
    "lsid",
    "txnNumber",
    "$clusterTime",
    "$readPreference",
    "apiVersion",
    "apiStrict",
    "apiDeprecationErrors",
    "maxTimeMS",
];

/// An open stream. One command at a time is run on it.
pub(super) type Shelf = Arc<Mutex<Stream>>;

#[derive(Debug)]
pub(super) struct Stream {
    /// What each shard is asked, but for when to begin.
    command: Document,
    begin: Timestamp,
    merge: Merge,
    namespace: String,
    checked: Instant,
}

/// Opens a stream on every shard.
pub(super) async fn open(session: &mut Session, request: &Request) -> Result<Reply> {
    let given = request.document()?;
    let stage = given.get_array("pipeline").ok().and_then(|pipeline| pipeline.first());
    let stage = stage.and_then(Bson::as_document);
    let spec = stage.and_then(|stage| stage.get_document("$changeStream").ok());
    let mut spec = spec
        .cloned()
        .ok_or_else(|| Failure::command(Code::BadValue, "$changeStream must be a document"))?;
    let resumed = spec.remove("resumeAfter").or_else(|| spec.remove("startAfter"));
    let seen = resumed.as_ref().and_then(Bson::as_document).map(|token| token.get_str("_data"));
    let seen = seen.transpose().map_err(|error| invalid(&error.to_string()))?.map(str::to_owned);
    let begin = match (&seen, spec.remove("startAtOperationTime")) {
        (Some(token), _) => time_in(token)?,
        (None, Some(Bson::Timestamp(time))) => time,
        (None, _) => after_now(session).await?,
    };
    let mut stream = Stream {
        command: part_command(&given, spec),
        begin,
        merge: Merge::new(seen),
        namespace: String::new(),
        checked: Instant::now(),
    };
    let shards: Vec<String> = session.load_shards().await?.into_keys().collect();
    for shard in shards {
        stream.add(session, &shard, begin).await?;
    }
    let id = new_id();
    let reply = stream.reply("firstBatch", id, &[])?;
    let open = Open::Stream(Arc::new(Mutex::new(stream)));
    session.shared.ledger().add(id, open, holder(session, request));
    Ok(reply)
}

/// `getMore` on a stream: waits for an event for as long as the client asks.
pub(super) async fn get_more(
    session: &mut Session,
    request: &Request,
    id: i64,
    shelf: Shelf,
) -> Result<Reply> {
    let number = |key| match request.body.get(key) {
        Ok(Some(value)) => {
            let value = value.as_i64().or_else(|| value.as_i32().map(i64::from));
            value.and_then(|value| u64::try_from(value).ok())
        }
        _ => None,
    };
    let deadline = Instant::now() + number("maxTimeMS").map_or(AWAIT, Duration::from_millis);
    let count = number("batchSize").filter(|count| *count > 0);
    let count = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    let mut stream = shelf.lock().await;
    if stream.checked.elapsed() > TOPOLOGY_CHECK {
        stream.add_new_shards(session).await?;
    }
    match stream.merge.next(count, deadline).await {
        Ok(events) => {
            let ended = stream.merge.is_ended();
            if ended {
                session.shared.ledger().remove(id);
            }
            stream.reply("nextBatch", if ended { 0 } else { id }, &events)
        }
        Err(failure) => {
            session.shared.ledger().remove(id);
            match failure {
                Failure::Refused(reply) => Err(Failure::Refused(label_resumable(reply)?)),
                // Its server went away; after this error a driver resumes.
                Failure::Lost { .. } => {
                    Err(Failure::command(Code::CursorNotFound, format!("cursor id {id} not found")))
                }
                other => Err(other),
            }
        }
    }
}

/// Ends a stream that is given up.
pub(super) async fn kill(session: &mut Session, shelf: Shelf) -> Result<()> {
    let stream = shelf.lock().await;
    let (db, collection) = stream.namespace.split_once('.').unwrap_or_default();
    for (host, cursor) in stream.merge.cursors() {
        let command = doc! { "killCursors": collection, "cursors": [cursor], "$db": db };
        let safety = super::session::Safety::Repeatable;
        session.send_to(&host, &encode(&command)?, &[], safety).await?;
    }
    Ok(())
}

impl Stream {
    async fn add(&mut self, session: &mut Session, shard: &str, begin: Timestamp) -> Result<()> {
        let mut command = self.command.clone();
        if let Ok(pipeline) = command.get_array_mut("pipeline")
            && let Some(Bson::Document(stage)) = pipeline.first_mut()
            && let Ok(spec) = stage.get_document_mut("$changeStream")
        {
            spec.insert("startAtOperationTime", begin);
        }
        if let Some(time) = session.shared.time() {
            command.insert("$clusterTime", super::message::decode(&time)?);
        }
        let command = encode(&command)?;
        let mut patience = Patience::new();
        loop {
            if let Some(host) = session.primary_of(shard).await? {
                if let Ok((reply, upstream)) = open_part(session, &host, &command).await {
                    match reply.error_code() {
                        None => return self.take(shard, host, upstream, &reply),
                        Some(code) if is_passing(code) => {}
                        Some(_) => return Err(Failure::Refused(label_resumable(reply)?)),
                    }
                }
                session.shared.forget_primary(&host);
            }
            if !patience.wait().await {
                return Err(Failure::command(
                    Code::FailedToSatisfyReadPreference,
                    format!("no primary of {shard} opens a stream"),
                ));
            }
        }
    }

    fn take(&mut self, shard: &str, host: String, upstream: Upstream, reply: &Reply) -> Result<()> {
        let part = Part::of(shard, host, upstream, reply)?;
        if self.namespace.is_empty() {
            part.namespace.clone_into(&mut self.namespace);
        }
        self.merge.add(part);
        Ok(())
    }

    /// A shard that came later is asked for everything since it was added.
    async fn add_new_shards(&mut self, session: &mut Session) -> Result<()> {
        self.checked = Instant::now();
        let found = session.read_config("shards", doc! {}, doc! {}).await?;
        for shard in found {
            let name = shard.get_str("_id").unwrap_or_default();
            if !self.merge.has(name) {
                session.load_shards().await?;
                let added = shard.get_timestamp("topologyTime").unwrap_or(self.begin);
                self.add(session, name, added.max(self.begin)).await?;
            }
        }
        Ok(())
    }

    fn reply(&self, batch: &str, id: i64, events: &[RawDocumentBuf]) -> Result<Reply> {
        let mut documents = RawArrayBuf::new();
        for event in events {
            documents.push(event.clone());
        }
        let mut cursor = RawDocumentBuf::new();
        let batch = if batch == "firstBatch" { cstr!("firstBatch") } else { cstr!("nextBatch") };
        cursor.append(batch, documents);
        if let Some(token) = self.merge.position() {
            cursor.append(cstr!("postBatchResumeToken"), encode(&doc! { "_data": token })?);
        }
        cursor.append(cstr!("id"), id);
        cursor.append(cstr!("ns"), self.namespace.as_str());
        let mut body = RawDocumentBuf::new();
        body.append(cstr!("cursor"), cursor);
        body.append(cstr!("ok"), 1.0);
        Ok(Reply { body })
    }
}

async fn open_part(
    session: &Session,
    host: &str,
    command: &RawDocumentBuf,
) -> std::io::Result<(Reply, Upstream)> {
    let mut upstream = Upstream::connect(host, &session.shared, session.client.as_ref()).await?;
    let reply = upstream.exchange(command, &[]).await?;
    session.shared.hear_time(&reply.body);
    Ok((reply, upstream))
}

/// The moment after everything this router has heard of.
async fn after_now(session: &mut Session) -> Result<Timestamp> {
    // Has the config servers tell the time, should nothing have been heard yet.
    session.read_config("shards", doc! {}, doc! {}).await?;
    let time = session.shared.time();
    let now = time.and_then(|time| time.get_timestamp("clusterTime").ok());
    let now = now.ok_or_else(|| Failure::command(Code::BadValue, "the cluster has no time"))?;
    Ok(Timestamp { time: now.time, increment: now.increment.saturating_add(1) })
}

fn part_command(given: &Document, spec: Document) -> Document {
    let mut command = Document::new();
    for (key, value) in given {
        if !NOT_FOR_PARTS.contains(&key.as_str()) {
            command.insert(key, value.clone());
        }
    }
    let rest = given.get_array("pipeline").map(Vec::as_slice).unwrap_or_default();
    let first = Bson::from(doc! { "$changeStream": spec });
    let pipeline: Vec<Bson> = std::iter::once(first).chain(rest.iter().skip(1).cloned()).collect();
    command.insert("pipeline", pipeline);
    command.insert("cursor", doc! { "batchSize": 0 });
    command
}

fn new_id() -> i64 {
    let random = RandomState::new().hash_one(std::process::id());
    i64::try_from(random >> 1).unwrap_or(1).max(1)
}

/// Where a reply says its stream is.
fn position_in(reply: &Reply) -> Result<String> {
    let cursor = reply.body.get_document("cursor");
    let token = cursor.and_then(|cursor| cursor.get_document("postBatchResumeToken"));
    Ok(position_of(token.map_err(|error| invalid(&error.to_string()))?)?.to_owned())
}
