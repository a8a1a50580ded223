//! Which command goes where.

use mongodb::bson::{Document, doc};

use super::failure::{Code, Failure, Result};
use super::message::{MESSAGE_BYTES_MAX, Reply, Request};
use super::session::{Session, Target};
use super::{counting, cursors, data, ddl, explain, gather, sharding, targeted};

/// The largest document, and the longest batch of writes, in the words of `hello`.
const DOCUMENT_BYTES_MAX: i32 = 16 * 1024 * 1024;
const BATCH_WRITES_MAX: i32 = 100_000;
const SESSION_MINUTES: i32 = 30;

/// Runs a client's command.
pub(super) async fn run(session: &mut Session, request: &Request) -> Result<Reply> {
    session.shared.hear_time(&request.body);
    if request.has("startTransaction") || request.has("autocommit") {
        // Not `IllegalOperation`, by which drivers guess that retryable writes are at fault.
        return Err(Failure::command(
            Code::CommandNotSupported,
            "the test router has no transactions",
        ));
    }
    let name = request.name();
    if let Some(name) = data::cluster_name(name) {
        return data::run(session, request, name).await;
    }
    if let Some(name) = sharding::config_name(name) {
        return sharding::on_config(session, request, name).await;
    }
    match name {
        "hello" | "isMaster" | "ismaster" => hello(session, request).await,
        "getMore" => cursors::get_more(session, request).await,
        "endSessions" | "killSessions" => cursors::end_sessions(session, request).await,
        "killCursors" => cursors::kill(session, request).await,
        "count" => counting::count(session, request).await,
        "distinct" => counting::distinct(session, request).await,
        "findAndModify" | "findandmodify" => targeted::find_and_modify(session, request).await,
        "explain" => explain::run(session, request).await,
        "createIndexes" => targeted::create_indexes(session, request).await,
        "listIndexes" => targeted::list_indexes(session, request).await,
        "create" => ddl::create(session, request).await,
        "drop" => ddl::drop_collection(session, request).await,
        "dropDatabase" => ddl::drop_database(session, request).await,
        "renameCollection" => ddl::rename(session, request).await,
        "dropIndexes" | "deleteIndexes" => ddl::drop_indexes(session, request).await,
        "collMod" => ddl::change(session, request).await,
        "listCollections" => ddl::list_collections(session, request).await,
        other => run_administration(session, request, other).await,
    }
}

async fn run_administration(session: &mut Session, request: &Request, name: &str) -> Result<Reply> {
    match name {
        "listDatabases" => gather::list_databases(session, request).await,
        "dbStats" | "dbstats" => gather::db_stats(session, request).await,
        "collStats" | "collstats" => gather::coll_stats(session, request).await,
        "validate" => gather::validate(session, request).await,
        "currentOp" => gather::current_op(session, request).await,
        "killOp" => gather::kill_op(session, request).await,
        "setParameter" | "configureFailPoint" | "fsync" | "killAllSessions" | "refreshSessions" => {
            gather::broadcast(session, request).await
        }
        "enableSharding" | "enablesharding" => sharding::enable_sharding(session, request).await,
        "shardCollection" | "shardcollection" => sharding::shard_collection(session, request).await,
        "refineCollectionShardKey" => sharding::refine_shard_key(session, request).await,
        "movePrimary" | "moveprimary" => sharding::move_primary(session, request).await,
        "split" => sharding::split(session, request).await,
        "moveChunk" | "movechunk" => sharding::move_chunk(session, request).await,
        "mergeChunks" => sharding::merge_chunks(session, request).await,
        "listShards" | "listshards" => sharding::list_shards(session).await,
        "flushRouterConfig" => sharding::flush(session),
        "createUser"
        | "updateUser"
        | "dropUser"
        | "usersInfo"
        | "grantRolesToUser"
        | "revokeRolesFromUser"
        | "createRole"
        | "updateRole"
        | "dropRole"
        | "rolesInfo"
        | "setDefaultRWConcern"
        | "getDefaultRWConcern" => gather::pass(session, request, &Target::config()).await,
        "abortTransaction" | "commitTransaction" | "reshardCollection" | "mapReduce"
        | "mapreduce" => Err(Failure::command(
            Code::CommandNotSupported,
            format!("the test router has no {name}"),
        )),
        // Of a server itself: ping, buildInfo, getParameter, sessions, logs. What no server knows
        // either comes back as the server's own "no such command".
        _ => gather::pass(session, request, &Target::Any).await,
    }
}

/// What a client takes the router for: a mongos.
async fn hello(session: &mut Session, request: &Request) -> Result<Reply> {
    if session.client.is_none()
        && let Ok(client) = request.body.get_document("client")
    {
        session.client = super::message::decode(client).ok();
    }
    let legacy = request.name() != "hello";
    let mut reply = Document::new();
    reply.insert(if legacy { "ismaster" } else { "isWritablePrimary" }, true);
    reply.extend(doc! {
        "helloOk": true,
        "msg": "isdbgrid",
        "maxBsonObjectSize": DOCUMENT_BYTES_MAX,
        "maxMessageSizeBytes": i32::try_from(MESSAGE_BYTES_MAX).unwrap_or(i32::MAX),
        "maxWriteBatchSize": BATCH_WRITES_MAX,
        "localTime": session.shared.local_time(),
        "logicalSessionTimeoutMinutes": SESSION_MINUTES,
        "connectionId": i64::try_from(session.number).unwrap_or(i64::MAX),
        "minWireVersion": 0,
        "maxWireVersion": session.shared.wire_version(),
        "readOnly": false,
        "ok": 1.0,
    });
    Ok(Reply::of(&reply)?)
}
