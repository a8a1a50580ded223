//! Going on with cursors, and giving them up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use mongodb::bson::{Bson, Document, doc};

use super::data::{TAG_VARIABLE, cursor_id};
use super::failure::{Code, Failure, Result};
use super::gather;
use super::ledger::{CursorHome, Open, session_id};
use super::message::{Reply, Request, encode};
use super::rewrite::Rewrite;
use super::session::{Safety, Session, Target, batch};
use super::shared::Shared;
use super::streams;

/// `getMore`: to the server that has the cursor, and to no other.
pub(super) async fn get_more(session: &mut Session, request: &Request) -> Result<Reply> {
    let id = request.body.get_i64("getMore").unwrap_or(0);
    let open = session.shared.ledger().take_up(id, session.number);
    let home = match open.ok_or_else(|| not_found(id))? {
        Open::Stream(shelf) => return streams::get_more(session, request, id, shelf).await,
        Open::Cursor(home) => home,
    };
    let rewrite = Rewrite {
        name: home.cluster.then_some("clusterGetMore"),
        time: session.shared.time(),
        ..Rewrite::default()
    };
    let body = rewrite.apply(&request.body)?;
    let sent = session.send_to(&home.host, &body, &[], Safety::Once).await;
    let reply = match sent {
        Ok(Some(reply)) => reply,
        // The cursor went with its server.
        Ok(None) | Err(Failure::Lost { .. }) => {
            session.shared.ledger().remove(id);
            return Err(not_found(id));
        }
        Err(failure) => return Err(failure),
    };
    if cursor_id(&reply.body).is_none() {
        session.shared.ledger().remove(id);
    }
    Ok(reply)
}

fn not_found(id: i64) -> Failure {
    Failure::command(Code::CursorNotFound, format!("cursor id {id} not found"))
}

/// `killCursors`.
pub(super) async fn kill(session: &mut Session, request: &Request) -> Result<Reply> {
    let command = request.document()?;
    let ids = command.get_array("cursors").map(Vec::as_slice).unwrap_or_default();
    let (mut killed, mut missing) = (Vec::new(), Vec::new());
    for id in ids.iter().filter_map(Bson::as_i64) {
        let open = session.shared.ledger().remove(id);
        match open {
            Some(open) => {
                end(session, id, open).await?;
                killed.push(Bson::Int64(id));
            }
            None => missing.push(Bson::Int64(id)),
        }
    }
    Ok(Reply::of(&doc! {
        "cursorsKilled": killed,
        "cursorsNotFound": missing,
        "cursorsAlive": [],
        "cursorsUnknown": [],
        "ok": 1.0,
    })?)
}

/// `endSessions` and `killSessions`: cursors end with their session. The servers end what they have of
/// it in their own time, and are told as well.
pub(super) async fn end_sessions(session: &mut Session, request: &Request) -> Result<Reply> {
    let command = request.document()?;
    let ended = command.values().next().and_then(Bson::as_array).map(Vec::as_slice);
    for lsid in ended.unwrap_or_default().iter().filter_map(Bson::as_document) {
        if let Some(id) = session_id(&encode(lsid)?) {
            session.shared.ledger().end_session(&id);
        }
    }
    // A client that is on its way out is not kept waiting for a shard that is away.
    match request.name() {
        "endSessions" => gather::pass(session, request, &Target::Any).await,
        _ => gather::broadcast(session, request).await,
    }
}

/// Ends the cursors of sessions that ended, and of clients that went away without a word.
pub(super) async fn end_abandoned(shared: Arc<Shared>) {
    let abandoned = shared.ledger().take_abandoned(Instant::now());
    if abandoned.is_empty() {
        return;
    }
    let mut session = Session::new(shared);
    for (id, open) in abandoned {
        // The servers end what cannot be ended now when it has been idle for ten minutes.
        end(&mut session, id, open).await.ok();
    }
}

async fn end(session: &mut Session, id: i64, open: Open) -> Result<()> {
    match open {
        Open::Stream(shelf) => streams::kill(session, shelf).await,
        Open::Cursor(home) if home.cluster => end_parts(session, &home).await,
        Open::Cursor(home) => {
            let Some((db, collection)) = home.namespace.split_once('.') else {
                return Ok(());
            };
            let command = doc! { "killCursors": collection, "cursors": [id], "$db": db };
            session.send_to(&home.host, &encode(&command)?, &[], Safety::Repeatable).await?;
            Ok(())
        }
    }
}

/// There is no command that ends a cursor of a router command, so its parts on the shards are ended:
/// they are what holds up the deletion of ranges that moved away.
async fn end_parts(session: &mut Session, home: &CursorHome) -> Result<()> {
    let Some(tag) = &home.tag else {
        return Ok(());
    };
    for (shard, parts) in parts_by_shard(session, tag).await? {
        for (namespace, ids) in parts {
            let Some((db, collection)) = namespace.split_once('.') else { continue };
            let command = doc! { "killCursors": collection, "cursors": ids, "$db": db };
            // A part may have ended by itself.
            let target = Target::Shard(shard.clone());
            session.send(&target, &encode(&command)?, &[], Safety::Repeatable).await?;
        }
    }
    Ok(())
}

type Parts = BTreeMap<String, Vec<Bson>>;

/// The cursors that carry `tag`, by shard and collection: idle ones, and those of which a batch is
/// just being fetched ahead.
async fn parts_by_shard(session: &mut Session, tag: &str) -> Result<BTreeMap<String, Parts>> {
    let command = "cursor.originatingCommand";
    let variable = format!("{command}.let.{TAG_VARIABLE}");
    let tagged = [
        doc! { format!("{command}.comment"): tag },
        doc! { &variable: tag },
        // A shard gets the variables of an aggregation as expressions.
        doc! { &variable: { "$eq": { "$literal": tag } } },
    ];
    let pipeline = [
        doc! { "$currentOp": { "idleCursors": true, "allUsers": true } },
        doc! { "$match": { "cursor.cursorId": { "$exists": true }, "$or": tagged.to_vec() } },
    ];
    let command = doc! {
        "clusterAggregate": 1,
        "pipeline": pipeline.to_vec(),
        "cursor": { "batchSize": i32::MAX },
        "$db": "admin",
    };
    let reply = session.run(&Target::Any, command, Safety::Repeatable).await?;
    let mut shards: BTreeMap<String, Parts> = BTreeMap::new();
    for found in batch(&reply)? {
        if let Some((shard, namespace, id)) = part(&found) {
            let parts = shards.entry(shard).or_default();
            parts.entry(namespace).or_default().push(Bson::Int64(id));
        }
    }
    Ok(shards)
}

fn part(found: &Document) -> Option<(String, String, i64)> {
    let shard = found.get_str("shard").ok()?;
    let namespace = found.get_str("ns").ok()?;
    let id = found.get_document("cursor").ok()?.get_i64("cursorId").ok()?;
    Some((shard.to_owned(), namespace.to_owned(), id))
}
