//! Commands whose reply is put together from those of several shards.

use std::collections::BTreeMap;

use mongodb::bson::{Bson, Document, doc};

use super::failure::{Failure, Result};
use super::message::{Reply, Request};
use super::placement::Placement;
use super::rewrite::Rewrite;
use super::session::{CONFIG, Safety, Session, Target};
use super::targeted::{merged, send_to_all};

/// Sizes and counts that add up over shards.
const SUMS: [&str; 17] = [
    "count",
    "size",
    "storageSize",
    "freeStorageSize",
    "totalIndexSize",
    "totalSize",
    "numOrphanDocs",
    "collections",
    "views",
    "objects",
    "dataSize",
    "indexes",
    "indexSize",
    "fileSize",
    "fsUsedSize",
    "fsTotalSize",
    "indexFreeStorageSize",
];

/// Sends the command as it is to the primary of every shard.
pub(super) async fn to_all_shards(
    session: &mut Session,
    request: &Request,
) -> Result<Vec<(String, Reply)>> {
    let shards: Vec<String> = session.load_shards().await?.into_keys().collect();
    let mut replies = Vec::new();
    for shard in shards {
        let reply = pass(session, request, &Target::Shard(shard.clone())).await?;
        replies.push((shard, reply));
    }
    Ok(replies)
}

/// Sends the command as it is to one server.
pub(super) async fn pass(
    session: &mut Session,
    request: &Request,
    target: &Target,
) -> Result<Reply> {
    let rewrite = Rewrite { time: session.shared.time(), ..Rewrite::default() };
    let body = rewrite.apply(&request.body)?;
    let sent = session.send(target, &body, &request.sequences, Safety::Repeatable).await?;
    Ok(sent.1)
}

/// Commands that every shard runs for itself, such as `setParameter`.
pub(super) async fn broadcast(session: &mut Session, request: &Request) -> Result<Reply> {
    merged(to_all_shards(session, request).await?)
}

/// `listDatabases`: the sizes of a database add up over shards.
pub(super) async fn list_databases(session: &mut Session, request: &Request) -> Result<Reply> {
    let mut replies = to_all_shards(session, request).await?;
    let config = pass(session, request, &Target::config()).await?;
    replies.push((CONFIG.to_owned(), config));
    let mut databases: BTreeMap<String, Document> = BTreeMap::new();
    let mut total = 0;
    for (shard, reply) in replies {
        if !reply.is_ok() {
            return Err(Failure::Refused(reply));
        }
        let reply = reply.document()?;
        let found = reply.get_array("databases").map(Vec::as_slice).unwrap_or_default();
        for found in found.iter().filter_map(Bson::as_document) {
            let name = found.get_str("name").unwrap_or_default();
            // A shard's own settings, and the config servers' copies of them, are no user's data.
            if name == "local" || ((name == "config" || name == "admin") && shard != CONFIG) {
                continue;
            }
            let size = found.get("sizeOnDisk").map_or(0, whole);
            total += size;
            let database =
                databases.entry(name.to_owned()).or_insert_with(|| doc! { "name": name });
            if found.contains_key("sizeOnDisk") {
                let sum = database.get("sizeOnDisk").map_or(0, whole) + size;
                database.insert("sizeOnDisk", sum);
                database.insert("empty", sum == 0);
            }
        }
    }
    let databases: Vec<Document> = databases.into_values().collect();
    Ok(Reply::of(&doc! {
        "databases": databases,
        "totalSize": total,
        "totalSizeMb": total / 1024 / 1024,
        "ok": 1.0,
    })?)
}

/// `dbStats`.
pub(super) async fn db_stats(session: &mut Session, request: &Request) -> Result<Reply> {
    let replies = to_all_shards(session, request).await?;
    let mut whole = summed(replies, "raw")?;
    whole.insert("db", request.db());
    Ok(Reply::of(&whole)?)
}

/// `collStats`.
pub(super) async fn coll_stats(session: &mut Session, request: &Request) -> Result<Reply> {
    let replies = send_to_all(session, request, Safety::Repeatable).await?;
    let primary = replies.first().map(|(shard, _)| shard.clone());
    let mut whole = summed(replies, "shards")?;
    whole.insert("ns", request.namespace());
    match session.placement(&request.namespace()).await? {
        Placement::Sharded(sharded) => {
            whole.insert("sharded", true);
            whole.insert("nchunks", i64::try_from(sharded.chunks.len()).unwrap_or(i64::MAX));
        }
        Placement::Unsharded => {
            whole.insert("sharded", false);
            whole.insert("primary", primary);
        }
    }
    Ok(Reply::of(&whole)?)
}

/// `validate`: good when it is on every shard.
pub(super) async fn validate(session: &mut Session, request: &Request) -> Result<Reply> {
    let replies = send_to_all(session, request, Safety::Repeatable).await?;
    let valid = replies.iter().all(|(_, reply)| matches!(reply.body.get_bool("valid"), Ok(true)));
    let mut whole = merged(replies)?.document()?;
    whole.insert("valid", valid);
    Ok(Reply::of(&whole)?)
}

/// `currentOp`, the old form of the aggregation stage.
pub(super) async fn current_op(session: &mut Session, request: &Request) -> Result<Reply> {
    let mut stage = Document::new();
    let mut filter = Document::new();
    for (key, value) in request.document()?.into_iter().skip(1) {
        match key.as_str() {
            "$all" => {
                stage.insert("idleConnections", true);
            }
            "$ownOps" => {
                stage.insert("allUsers", false);
            }
            "$db" | "lsid" | "$clusterTime" | "$readPreference" => {}
            _ => {
                filter.insert(key, value);
            }
        }
    }
    let command = doc! {
        "clusterAggregate": 1,
        "pipeline": [{ "$currentOp": stage }, { "$match": filter }],
        "cursor": { "batchSize": i32::MAX },
        "$db": "admin",
    };
    let reply = session.run(&Target::Any, command, Safety::Repeatable).await?;
    let running = super::session::batch(&reply)?;
    Ok(Reply::of(&doc! { "inprog": running, "ok": 1.0 })?)
}

/// `killOp`: the shard stands in the operation's name, as in `s0:1234`.
pub(super) async fn kill_op(session: &mut Session, request: &Request) -> Result<Reply> {
    let named = request.body.get_str("op").ok().and_then(|op| op.split_once(':'));
    let number = named.and_then(|(shard, op)| Some((shard.to_owned(), op.parse::<i32>().ok()?)));
    let Some((shard, op)) = number else {
        return pass(session, request, &Target::Any).await;
    };
    let command = doc! { "killOp": 1, "op": op, "$db": "admin" };
    let reply = session.run(&Target::Shard(shard), command, Safety::Repeatable).await?;
    Ok(Reply::of(&reply)?)
}

/// Adds up what adds up, and keeps the replies under `details`.
fn summed(replies: Vec<(String, Reply)>, details: &str) -> Result<Document> {
    let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
    let mut kept = Document::new();
    for (shard, reply) in replies {
        if !reply.is_ok() {
            return Err(Failure::Refused(reply));
        }
        let mut reply = reply.document()?;
        for sum in SUMS {
            if let Some(value) = reply.get(sum) {
                *sums.entry(sum).or_default() += whole(value);
            }
        }
        for common in ["$clusterTime", "operationTime", "lastCommittedOpTime", "$gleStats"] {
            reply.remove(common);
        }
        kept.insert(shard, reply);
    }
    let mut whole = Document::new();
    for (key, sum) in &sums {
        whole.insert(*key, *sum);
    }
    let objects = sums.get("count").or_else(|| sums.get("objects")).copied().unwrap_or(0);
    let bytes = sums.get("size").or_else(|| sums.get("dataSize")).copied().unwrap_or(0);
    whole.insert("avgObjSize", if objects == 0 { 0 } else { bytes / objects });
    whole.insert(details, kept);
    whole.insert("ok", 1.0);
    Ok(whole)
}

/// A number of the server's, cut to a whole one.
fn whole(value: &Bson) -> i64 {
    match value {
        Bson::Int32(value) => i64::from(*value),
        Bson::Int64(value) => *value,
        #[expect(clippy::cast_possible_truncation, reason = "sizes are whole numbers")]
        Bson::Double(value) => *value as i64,
        _ => 0,
    }
}
