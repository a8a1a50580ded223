//! Databases, collections and their indexes: each change is coordinated by the shard that is the
//! database's primary, which has a command of its own for it.

use mongodb::bson::{Bson, Document, doc};

use super::failure::{Code, Failure, Result, is_stale};
use super::message::{Reply, Request};
use super::placement::{Database, unsharded_version};
use super::session::{Patience, Safety, Session, Target};
use super::targeted::{is_internal, remember_plain_cursor};

/// Fields of a client's command that are not for the coordinator's.
const NOT_FOR_COORDINATORS: [&str; 9] = [
    "$db",
    "$clusterTime",
    "$readPreference",
    "lsid",
    "txnNumber",
    "apiVersion",
    "apiStrict",
    "apiDeprecationErrors",
    "writeConcern",
];

/// Makes sure that a database exists, and says where.
pub(super) async fn create_database(session: &mut Session, db: &str) -> Result<Database> {
    if let Some(known) = session.database(db).await? {
        return Ok(known);
    }
    let command = doc! { "_configsvrCreateDatabase": db, "$db": "admin" };
    session.run(&Target::config(), majority(command), Safety::Repeatable).await?;
    session.database(db).await?.ok_or_else(|| database_missing(db))
}

pub(super) fn database_missing(db: &str) -> Failure {
    Failure::command(Code::NamespaceNotFound, format!("database {db} not found"))
}

pub(super) fn majority(mut command: Document) -> Document {
    command.insert("writeConcern", doc! { "w": "majority" });
    command
}

/// A client's command under the coordinator's name, without what clients add to every command.
pub(super) fn renamed(command: &Document, name: &str, argument: impl Into<Bson>) -> Document {
    let mut renamed = doc! { name: argument.into() };
    let fields = command.iter().skip(1);
    for (key, value) in fields.filter(|(key, _)| !NOT_FOR_COORDINATORS.contains(&key.as_str())) {
        renamed.insert(key, value.clone());
    }
    renamed
}

/// Has the primary shard of `db` coordinate a change of `namespace`. `None` when there is no such
/// database.
pub(super) async fn coordinate(
    session: &mut Session,
    db: &str,
    namespace: &str,
    command: Document,
) -> Result<Option<Document>> {
    let mut patience = Patience::new();
    loop {
        let Some(database) = session.database(db).await? else {
            return Ok(None);
        };
        let mut command = majority(command.clone());
        command.insert("databaseVersion", database.version);
        if command.contains_key("create") {
            command.insert("shardVersion", unsharded_version());
        }
        command.insert("$db", db);
        let target = Target::Shard(database.primary);
        let done = session.run(&target, command, Safety::Repeatable).await;
        session.shared.forget_placement(namespace);
        match done {
            Err(Failure::Refused(reply))
                if reply.error_code().is_some_and(is_stale) && patience.wait().await => {}
            other => return other.map(Some),
        }
    }
}

/// `create`.
pub(super) async fn create(session: &mut Session, request: &Request) -> Result<Reply> {
    create_database(session, request.db()).await?;
    let command = renamed(&request.document()?, "create", request.argument());
    let done = coordinate(session, request.db(), &request.namespace(), command).await?;
    reply_of(done, request)
}

/// `drop`.
pub(super) async fn drop_collection(session: &mut Session, request: &Request) -> Result<Reply> {
    let command = doc! { "_shardsvrDropCollection": request.argument() };
    let done = coordinate(session, request.db(), &request.namespace(), command).await?;
    reply_of(done, request)
}

/// `dropDatabase`.
pub(super) async fn drop_database(session: &mut Session, request: &Request) -> Result<Reply> {
    let db = request.db();
    let done = coordinate(session, db, db, doc! { "_shardsvrDropDatabase": 1 }).await?;
    session.shared.forget_all_placements();
    let info = if done.is_some() { "dropped" } else { "info" };
    Ok(Reply::of(&doc! { info: db, "ok": 1.0 })?)
}

/// `renameCollection`, within one database or to one with the same primary shard.
pub(super) async fn rename(session: &mut Session, request: &Request) -> Result<Reply> {
    let command = request.document()?;
    let from = request.argument();
    let to = command.get_str("to").unwrap_or_default();
    let Some((db, collection)) = from.split_once('.') else {
        return Err(Failure::command(Code::BadValue, format!("{from} is no collection")));
    };
    let command = doc! {
        "_shardsvrRenameCollection": collection,
        "to": to,
        "dropTarget": command.get_bool("dropTarget").unwrap_or(false),
    };
    let done = coordinate(session, db, from, command).await?;
    session.shared.forget_placement(to);
    match done {
        Some(_) => Ok(Reply::of(&doc! { "ok": 1.0 })?),
        None => Err(database_missing(db)),
    }
}

/// `dropIndexes`.
pub(super) async fn drop_indexes(session: &mut Session, request: &Request) -> Result<Reply> {
    on_all_owners(session, request, "_shardsvrDropIndexes").await
}

/// `collMod`.
pub(super) async fn change(session: &mut Session, request: &Request) -> Result<Reply> {
    on_all_owners(session, request, "_shardsvrCollMod").await
}

async fn on_all_owners(session: &mut Session, request: &Request, name: &str) -> Result<Reply> {
    let command = renamed(&request.document()?, name, request.argument());
    let done = coordinate(session, request.db(), &request.namespace(), command).await?;
    reply_of(done, request)
}

fn reply_of(done: Option<Document>, request: &Request) -> Result<Reply> {
    match done {
        Some(reply) => Ok(Reply::of(&reply)?),
        None => Err(Failure::command(
            Code::NamespaceNotFound,
            format!("ns not found: {}", request.namespace()),
        )),
    }
}

/// `listCollections`: the primary shard knows the sharded ones too.
pub(super) async fn list_collections(session: &mut Session, request: &Request) -> Result<Reply> {
    let db = request.db();
    let shard = if is_internal(db) {
        super::session::CONFIG.to_owned()
    } else {
        match session.database(db).await? {
            Some(database) => database.primary,
            None => return empty_cursor(db),
        }
    };
    let rewrite = super::rewrite::Rewrite { time: session.shared.time(), ..Default::default() };
    let body = rewrite.apply(&request.body)?;
    let (host, reply) = session.send(&Target::Shard(shard), &body, &[], Safety::Repeatable).await?;
    remember_plain_cursor(session, request, host, &reply);
    Ok(reply)
}

fn empty_cursor(db: &str) -> Result<Reply> {
    let namespace = format!("{db}.$cmd.listCollections");
    let none: Vec<Document> = Vec::new();
    Ok(Reply::of(&doc! {
        "cursor": { "id": 0_i64, "ns": namespace, "firstBatch": none },
        "ok": 1.0,
    })?)
}
