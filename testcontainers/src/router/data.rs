//! Reads and writes: the servers have router code of their own, under other command names.

use mongodb::bson::{Bson, Document, RawBsonRef, RawDocument};

use super::failure::{Result, is_resumable, is_stale};
use super::ledger::{CursorHome, Holder, Open, session_id};
use super::message::{Reply, Request};
use super::rewrite::Rewrite;
use super::session::{Safety, Session};
use super::streams;

/// The variable of the client's command that carries a tag.
pub(super) const TAG_VARIABLE: &str = "testRouterTag";

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
    let tag = reads.then(|| session.shared.next_tag());
    let tagged = tag.as_deref().map(|tag| tagged(request, tag)).transpose()?;
    let rewrite = Rewrite {
        name: Some(name),
        without: if tagged.is_some() { &["let"] } else { &[] },
        with: tagged.into_iter().flatten().collect(),
        time: session.shared.time(),
        ..Rewrite::default()
    };
    let body = rewrite.apply(&request.body)?;
    let (host, reply) =
        session.send_routed(&body, &request.sequences, safety, did_nothing_as_stale).await?;
    if let Some((id, namespace)) = cursor_id(&reply.body) {
        let home = CursorHome { host, namespace, cluster: true, tag };
        session.shared.ledger().add(id, Open::Cursor(home), holder(session, request));
    }
    Ok(reply)
}

/// A cursor that is given up is found again on the shards by its comment; by a variable, where the
/// comment is the client's.
fn tagged(request: &Request, tag: &str) -> Result<Vec<(&'static str, Bson)>> {
    let given = request.body.get_document("let").ok().map(super::message::decode).transpose()?;
    if !request.has("comment") {
        let given = given.map(|given| ("let", Bson::from(given)));
        return Ok(given.into_iter().chain([("comment", Bson::from(tag))]).collect());
    }
    let mut variables: Document = given.unwrap_or_default();
    variables.insert(TAG_VARIABLE, tag);
    Ok(vec![("let", Bson::from(variables))])
}

/// Who sent a command that opens a cursor.
pub(super) fn holder(session: &Session, request: &Request) -> Holder {
    let lsid = request.body.get_document("lsid").ok();
    Holder { connection: session.number, session: lsid.and_then(session_id) }
}

/// The id and the namespace of the cursor a reply leaves open.
pub(super) fn cursor_id(reply: &RawDocument) -> Option<(i64, String)> {
    let cursor = reply.get_document("cursor").ok()?;
    match cursor.get("id") {
        Ok(Some(RawBsonRef::Int64(id))) if id != 0 => {
            Some((id, cursor.get_str("ns").unwrap_or_default().to_owned()))
        }
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
