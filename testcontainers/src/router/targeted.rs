//! Commands that go to the shards that own the data, with the versions the shards should be at.
//!
//! A shard refuses a command with an old version (`StaleConfig`); the placement is then read anew
//! and the command sent again, as by a mongos. So a command never reaches a former owner.

use mongodb::bson::{Bson, Document, doc};

use super::data::{cursor_id, holder};
use super::failure::{Code, Failure, Result, is_stale};
use super::ledger::{CursorHome, Open};
use super::message::{Reply, Request};
use super::placement::{Placement, unsharded_version};
use super::rewrite::Rewrite;
use super::session::{Patience, Safety, Session, Target};

/// A shard, and the versions a command to it carries.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    pub(super) shard: String,
    versions: Vec<(&'static str, Bson)>,
}

impl Owner {
    /// A server asked without versions.
    pub(super) fn plain(shard: &str) -> Self {
        Self { shard: shard.to_owned(), versions: Vec::new() }
    }

    pub(super) fn target(&self) -> Target {
        Target::Shard(self.shard.clone())
    }
}

/// The databases that are kept on the config servers.
pub(super) fn is_internal(db: &str) -> bool {
    matches!(db, "admin" | "config")
}

/// The shards a collection is on. None for a database that does not exist.
pub(super) async fn owners(session: &mut Session, namespace: &str) -> Result<Vec<Owner>> {
    let db = namespace.split('.').next().unwrap_or_default();
    if is_internal(db) {
        return Ok(vec![Owner::plain(super::session::CONFIG)]);
    }
    if let Placement::Sharded(sharded) = session.placement(namespace).await? {
        let owners = sharded.owners().into_iter();
        let owner = |(shard, version): (&str, Document)| Owner {
            shard: shard.to_owned(),
            versions: vec![("shardVersion", Bson::from(version))],
        };
        return Ok(owners.map(owner).collect());
    }
    Ok(match session.database(db).await? {
        Some(database) => vec![Owner {
            shard: database.primary,
            versions: vec![
                ("shardVersion", Bson::from(unsharded_version())),
                ("databaseVersion", Bson::from(database.version)),
            ],
        }],
        None => Vec::new(),
    })
}

/// Sends a command to one owner. `None` when the placement proved old and is forgotten.
pub(super) async fn send(
    session: &mut Session,
    owner: &Owner,
    request: &Request,
    safety: Safety,
) -> Result<Option<(String, Reply)>> {
    let rewrite = Rewrite {
        keep_transaction_number: request.name().eq_ignore_ascii_case("findandmodify"),
        without: &["shardVersion", "databaseVersion"],
        with: owner.versions.clone(),
        time: session.shared.time(),
        ..Rewrite::default()
    };
    let body = rewrite.apply(&request.body)?;
    let sent = session.send(&owner.target(), &body, &request.sequences, safety).await?;
    if sent.1.error_code().is_some_and(is_stale) {
        session.shared.forget_placement(&request.namespace());
        return Ok(None);
    }
    Ok(Some(sent))
}

/// Sends a command to all owners and returns their replies; to all of them again when one of
/// them has changed meanwhile.
pub(super) async fn send_to_all(
    session: &mut Session,
    request: &Request,
    safety: Safety,
) -> Result<Vec<(String, Reply)>> {
    let mut patience = Patience::new();
    'placement: loop {
        let mut replies = Vec::new();
        for owner in owners(session, &request.namespace()).await? {
            match send(session, &owner, request, safety).await? {
                Some((_, reply)) => replies.push((owner.shard, reply)),
                None if patience.wait().await => continue 'placement,
                None => return Err(still_stale(request)),
            }
        }
        return Ok(replies);
    }
}

/// `findAndModify`: to the shard that owns the shard key its filter names.
pub(super) async fn find_and_modify(session: &mut Session, request: &Request) -> Result<Reply> {
    let namespace = request.namespace();
    let query = request.document()?.get_document("query").cloned().unwrap_or_default();
    let mut patience = Patience::new();
    loop {
        if let Some(owner) = owner_of(session, &namespace, &query).await? {
            if let Some((_, reply)) = send(session, &owner, request, Safety::Once).await? {
                return Ok(reply);
            }
        } else {
            super::ddl::create_database(session, request.db()).await?;
        }
        if !patience.wait().await {
            return Err(still_stale(request));
        }
    }
}

/// The owner of the shard key that `query` names. None for a database that does not exist.
pub(super) async fn owner_of(
    session: &mut Session,
    namespace: &str,
    query: &Document,
) -> Result<Option<Owner>> {
    let mut owners = owners(session, namespace).await?;
    let Placement::Sharded(sharded) = session.placement(namespace).await? else {
        return Ok(owners.pop());
    };
    let key = sharded.key_of(query)?.ok_or_else(|| {
        Failure::command(
            Code::ShardKeyNotFound,
            "Query for sharded findAndModify must contain the shard key",
        )
    })?;
    let shard = &sharded.chunk_of(&key)?.shard;
    Ok(owners.into_iter().find(|owner| owner.shard == *shard))
}

/// `listIndexes`: from one owner, for all have the same.
pub(super) async fn list_indexes(session: &mut Session, request: &Request) -> Result<Reply> {
    let mut patience = Patience::new();
    loop {
        let owner = owners(session, &request.namespace()).await?.into_iter().next();
        let Some(owner) = owner else {
            return Err(Failure::command(
                Code::NamespaceNotFound,
                format!("ns does not exist: {}", request.namespace()),
            ));
        };
        if let Some((host, reply)) = send(session, &owner, request, Safety::Repeatable).await? {
            remember_plain_cursor(session, request, host, &reply);
            return Ok(reply);
        }
        if !patience.wait().await {
            return Err(still_stale(request));
        }
    }
}

/// `createIndexes`: on every owner.
pub(super) async fn create_indexes(session: &mut Session, request: &Request) -> Result<Reply> {
    if !is_internal(request.db()) {
        super::ddl::create_database(session, request.db()).await?;
    }
    let replies = send_to_all(session, request, Safety::Repeatable).await?;
    merged(replies)
}

/// The first reply, or the first that is an error, with all of them under `raw`.
pub(super) fn merged(replies: Vec<(String, Reply)>) -> Result<Reply> {
    let mut raw = Document::new();
    let mut whole: Option<Document> = None;
    for (shard, reply) in replies {
        let document = reply.document()?;
        if whole.is_none() || (!reply.is_ok() && !raw.is_empty()) {
            whole = Some(document.clone());
        }
        raw.insert(shard, document);
    }
    let mut whole = whole.unwrap_or_else(|| doc! { "ok": 1.0 });
    whole.insert("raw", raw);
    Ok(Reply::of(&whole)?)
}

/// A cursor of one server alone.
pub(super) fn remember_plain_cursor(
    session: &Session,
    request: &Request,
    host: String,
    reply: &Reply,
) {
    if let Some((id, namespace)) = cursor_id(&reply.body) {
        let home = CursorHome { host, namespace, cluster: false, tag: None };
        session.shared.ledger().add(id, Open::Cursor(home), holder(session, request));
    }
}

fn still_stale(request: &Request) -> Failure {
    Failure::command(
        Code::FailedToSatisfyReadPreference,
        format!("the placement of {} keeps changing", request.namespace()),
    )
}
