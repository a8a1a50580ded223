//! Going on with cursors, and giving them up.

use std::collections::BTreeMap;

use mongodb::bson::{Bson, Document, doc};

use super::data::cursor_id;
use super::failure::{Code, Failure, Result};
use super::message::{Reply, Request, encode};
use super::rewrite::Rewrite;
use super::session::{Safety, Session, Target, batch};
use super::shared::CursorHome;
use super::streams;

/// `getMore`: to the server that has the cursor, and to no other.
pub(super) async fn get_more(session: &mut Session, request: &Request) -> Result<Reply> {
    let id = request.body.get_i64("getMore").unwrap_or(0);
    if let Some(shelf) = session.shared.stream(id) {
        return streams::get_more(session, request, id, shelf).await;
    }
    let home = session.shared.cursor(id).ok_or_else(|| not_found(id))?;
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
            session.shared.remove_cursor(id);
            return Err(not_found(id));
        }
        Err(failure) => return Err(failure),
    };
    if cursor_id(&reply.body).is_none() {
        session.shared.remove_cursor(id);
    }
    Ok(reply)
}

fn not_found(id: i64) -> Failure {
    Failure::command(Code::CursorNotFound, format!("cursor id {id} not found"))
}

/// `killCursors`. There is no command that ends a cursor of a router command, so its parts on the
/// shards are ended: they are what holds up the deletion of ranges that moved away.
pub(super) async fn kill(session: &mut Session, request: &Request) -> Result<Reply> {
    let command = request.document()?;
    let ids = command.get_array("cursors").map(Vec::as_slice).unwrap_or_default();
    let (mut killed, mut missing) = (Vec::new(), Vec::new());
    for id in ids.iter().filter_map(Bson::as_i64) {
        if let Some(shelf) = session.shared.remove_stream(id) {
            streams::kill(session, shelf).await?;
            killed.push(Bson::Int64(id));
            continue;
        }
        match session.shared.remove_cursor(id) {
            Some(home) => {
                kill_one(session, request, id, &home).await?;
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

async fn kill_one(
    session: &mut Session,
    request: &Request,
    id: i64,
    home: &CursorHome,
) -> Result<()> {
    if !home.cluster {
        let command =
            doc! { "killCursors": request.argument(), "cursors": [id], "$db": request.db() };
        session.send_to(&home.host, &encode(&command)?, &[], Safety::Repeatable).await?;
        return Ok(());
    }
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

/// The idle cursors that carry `tag`, by shard and collection.
async fn parts_by_shard(session: &mut Session, tag: &str) -> Result<BTreeMap<String, Parts>> {
    let pipeline = [
        doc! { "$currentOp": { "idleCursors": true, "allUsers": true } },
        doc! { "$match": { "type": "idleCursor", "cursor.originatingCommand.comment": tag } },
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
