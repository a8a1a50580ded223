//! Reads and writes: the servers have router code of their own, under other command names.

use mongodb::bson::{Bson, RawBsonRef, RawDocument};

use super::failure::{Result, is_resumable, is_stale};
use super::message::{Reply, Request};
use super::rewrite::Rewrite;
use super::session::{Patience, Safety, Session, Target};
use super::shared::CursorHome;
use super::streams;

/// The name of the servers' own router command, for the commands that have one.
pub(super) fn cluster_name(command: &str) -> Option<&'static str> {
    Some(match command {
        "find" => "clusterFind",
        "insert" => "clusterInsert",
        "update" => "clusterUpdate",
        "delete" => "clusterDelete",
        "aggregate" => "clusterAggregate",
        _ => return None,
    })
}

/// Runs a `find`, `insert`, `update`, `delete` or `aggregate` on all shards it concerns.
pub(super) async fn run(session: &mut Session, request: &Request, name: &str) -> Result<Reply> {
    if name == "clusterAggregate" && is_change_stream(&request.body) {
        return streams::open(session, request).await;
    }
    let reads = match name {
        "clusterFind" => true,
        "clusterAggregate" => !writes(&request.body),
        _ => false,
    };
    let safety = if reads { Safety::Repeatable } else { Safety::Once };
    // A cursor that is given up is found again on the shards by its comment.
    let tag = (reads && !request.has("comment")).then(|| session.shared.next_tag());
    let rewrite = Rewrite {
        name: Some(name),
        with: tag.iter().map(|tag| ("comment", Bson::from(tag.as_str()))).collect(),
        time: session.shared.time(),
        ..Rewrite::default()
    };
    let body = rewrite.apply(&request.body)?;
    let mut patience = Patience::new();
    let (host, reply) = loop {
        let sent = session.send(&Target::Any, &body, &request.sequences, safety).await?;
        if !(did_nothing_as_stale(&sent.1) && patience.wait().await) {
            break sent;
        }
        session.look_anew(&request.namespace()).await?;
    };
    if let Some(id) = cursor_id(&reply.body) {
        session.shared.add_cursor(id, CursorHome { host, cluster: true, tag });
    }
    Ok(reply)
}

/// The id of the cursor a reply leaves open.
pub(super) fn cursor_id(reply: &RawDocument) -> Option<i64> {
    let cursor = reply.get_document("cursor").ok()?;
    match cursor.get("id") {
        Ok(Some(RawBsonRef::Int64(id))) if id != 0 => Some(id),
        _ => None,
    }
}

/// A driver resumes a stream after errors with this label only; servers give it to some of them.
pub(super) fn label_resumable(reply: Reply) -> Result<Reply> {
    let resumable = reply.error_code().is_some_and(is_resumable);
    if !resumable || matches!(reply.body.get("errorLabels"), Ok(Some(_))) {
        return Ok(reply);
    }
    let mut document = reply.document()?;
    document.insert("errorLabels", vec!["ResumableChangeStreamError"]);
    Ok(Reply::of(&document)?)
}

/// Whether a command failed because of an old placement, and has not changed anything.
fn did_nothing_as_stale(reply: &Reply) -> bool {
    if let Some(code) = reply.error_code() {
        return is_stale(code);
    }
    let Ok(errors) = reply.body.get_array("writeErrors") else {
        return false;
    };
    let all_stale = errors.into_iter().all(|error| match error {
        Ok(RawBsonRef::Document(error)) => error.get_i32("code").is_ok_and(is_stale),
        _ => false,
    });
    all_stale && matches!(reply.body.get_i32("n"), Ok(0))
}

fn writes(aggregate: &RawDocument) -> bool {
    let Ok(pipeline) = aggregate.get_array("pipeline") else {
        return false;
    };
    let last = pipeline.into_iter().last();
    matches!(first_key(last), Some("$out" | "$merge"))
}

fn is_change_stream(aggregate: &RawDocument) -> bool {
    let pipeline = aggregate.get_array("pipeline");
    pipeline.is_ok_and(|stages| first_key(stages.into_iter().next()) == Some("$changeStream"))
}

fn first_key<E>(stage: Option<std::result::Result<RawBsonRef<'_>, E>>) -> Option<&str> {
    let Some(Ok(RawBsonRef::Document(stage))) = stage else {
        return None;
    };
    let (key, _) = stage.iter().next()?.ok()?;
    Some(key.as_str())
}
