//! The administration of sharding: what a mongos turns into commands to the config servers.

use mongodb::bson::{Bson, Document, doc};

use super::ddl::{coordinate, create_database, database_missing, majority, renamed};
use super::failure::{Code, Failure, Result, refused_as_stale};
use super::message::{Reply, Request};
use super::order::compare_keys;
use super::placement::{Chunk, Placement, Sharded};
use super::session::{Patience, Safety, Session, Target};

/// Commands that the config servers have under another name, fields unchanged.
pub(super) fn config_name(command: &str) -> Option<&'static str> {
    Some(match command {
        "addShard" | "addshard" => "_configsvrAddShard",
        "removeShard" | "removeshard" => "_configsvrRemoveShard",
        "addShardToZone" => "_configsvrAddShardToZone",
        "removeShardFromZone" => "_configsvrRemoveShardFromZone",
        "updateZoneKeyRange" => "_configsvrUpdateZoneKeyRange",
        "moveRange" => "_configsvrMoveRange",
        "balancerStart" => "_configsvrBalancerStart",
        "balancerStop" => "_configsvrBalancerStop",
        "balancerStatus" => "_configsvrBalancerStatus",
        "balancerCollectionStatus" => "_configsvrBalancerCollectionStatus",
        "configureCollectionBalancing" => "_configsvrConfigureCollectionBalancing",
        "clearJumboFlag" => "_configsvrClearJumboFlag",
        _ => return None,
    })
}

/// Runs one of them. The write concern is majority, save for those that take none.
pub(super) async fn on_config(
    session: &mut Session,
    request: &Request,
    name: &str,
) -> Result<Reply> {
    let command = request.document()?;
    let argument = command.values().next().cloned().unwrap_or(Bson::Int32(1));
    let mut command = renamed(&command, name, argument);
    if !name.contains("Balancer") && name != "_configsvrConfigureCollectionBalancing" {
        command = majority(command);
    }
    command.insert("$db", "admin");
    let done = session.run(&Target::config(), command, Safety::Repeatable).await;
    if name.ends_with("Shard") {
        session.load_shards().await?;
    }
    session.shared.forget_placement(request.argument());
    Ok(Reply::of(&done?)?)
}

/// `enableSharding`: makes the database, on the shard asked for.
pub(super) async fn enable_sharding(session: &mut Session, request: &Request) -> Result<Reply> {
    let db = request.argument();
    let mut command = doc! { "_configsvrCreateDatabase": db };
    if let Ok(primary) = request.body.get_str("primaryShard") {
        command.insert("primaryShardId", primary);
    }
    let mut command = majority(command);
    command.insert("$db", "admin");
    session.run(&Target::config(), command, Safety::Repeatable).await?;
    session.shared.forget_placement(db);
    Ok(Reply::of(&doc! { "ok": 1.0 })?)
}

/// `movePrimary`.
pub(super) async fn move_primary(session: &mut Session, request: &Request) -> Result<Reply> {
    let db = request.argument();
    let to = request.body.get_str("to").unwrap_or_default();
    let mut patience = Patience::new();
    loop {
        let database = session.database(db).await?.ok_or_else(|| database_missing(db))?;
        let mut command = majority(doc! { "_shardsvrMovePrimary": db, "to": to });
        command.insert("databaseVersion", database.version);
        command.insert("$db", "admin");
        let done = session.run(&Target::Shard(database.primary), command, Safety::Repeatable).await;
        session.shared.forget_all_placements();
        match done {
            Err(Failure::Refused(reply)) if refused_as_stale(&reply) && patience.wait().await => {}
            other => return Ok(Reply::of(&other?)?),
        }
    }
}

/// `shardCollection`.
pub(super) async fn shard_collection(session: &mut Session, request: &Request) -> Result<Reply> {
    let namespace = request.argument();
    let (db, collection) = split_namespace(namespace)?;
    create_database(session, db).await?;
    let given = request.document()?;
    let mut command = doc! { "_shardsvrCreateCollection": collection };
    let fields = [
        ("key", "shardKey"),
        ("unique", "unique"),
        ("numInitialChunks", "numInitialChunks"),
        ("presplitHashedZones", "presplitHashedZones"),
        ("initialSplitPoints", "initialSplitPoints"),
        ("collation", "collation"),
        ("timeseries", "timeseries"),
    ];
    for (from, to) in fields {
        if let Some(value) = given.get(from) {
            command.insert(to, value.clone());
        }
    }
    let done = coordinate(session, db, namespace, command).await?;
    let mut reply = done.ok_or_else(|| database_missing(db))?;
    reply.insert("collectionsharded", namespace);
    Ok(Reply::of(&reply)?)
}

/// `refineCollectionShardKey`.
pub(super) async fn refine_shard_key(session: &mut Session, request: &Request) -> Result<Reply> {
    let namespace = request.argument();
    let (db, collection) = split_namespace(namespace)?;
    let key = request.document()?.get("key").cloned().unwrap_or(Bson::Null);
    let command = doc! { "_shardsvrRefineCollectionShardKey": collection, "key": key };
    let done = coordinate(session, db, namespace, command).await?;
    Ok(Reply::of(&done.ok_or_else(|| database_missing(db))?)?)
}

/// `split` at a given key (`middle`), or in two halves (`find`, `bounds`).
pub(super) async fn split(session: &mut Session, request: &Request) -> Result<Reply> {
    let namespace = request.argument();
    let command = request.document()?;
    let sharded = fresh(session, namespace).await?;
    let chunk = chosen_chunk(&sharded, &command)?;
    let target = Target::Shard(chunk.shard.clone());
    let at = match command.get_document("middle") {
        Ok(middle) => middle.clone(),
        Err(_) => median(session, namespace, &sharded, &chunk, &target).await?,
    };
    let split = doc! {
        "splitChunk": namespace,
        "from": &chunk.shard,
        "keyPattern": sharded.key.clone(),
        "epoch": sharded.epoch,
        "timestamp": sharded.timestamp,
        "min": chunk.min,
        "max": chunk.max,
        "splitKeys": [at],
        "$db": "admin",
    };
    let done = session.run(&target, split, Safety::Once).await;
    session.shared.forget_placement(namespace);
    done?;
    Ok(Reply::of(&doc! { "ok": 1.0 })?)
}

async fn median(
    session: &mut Session,
    namespace: &str,
    sharded: &Sharded,
    chunk: &Chunk,
    target: &Target,
) -> Result<Document> {
    let command = doc! {
        "splitVector": namespace,
        "keyPattern": sharded.key.clone(),
        "min": chunk.min.clone(),
        "max": chunk.max.clone(),
        "force": true,
        "$db": "admin",
    };
    let reply = session.run(target, command, Safety::Repeatable).await?;
    let keys = reply.get_array("splitKeys").map(Vec::as_slice).unwrap_or_default();
    keys.first().and_then(Bson::as_document).cloned().ok_or_else(|| {
        Failure::command(Code::BadValue, "the chunk holds too little to be split in two")
    })
}

/// `moveChunk`: one whole chunk.
pub(super) async fn move_chunk(session: &mut Session, request: &Request) -> Result<Reply> {
    let namespace = request.argument();
    let command = request.document()?;
    let sharded = fresh(session, namespace).await?;
    let chunk = chosen_chunk(&sharded, &command)?;
    let mut moving = doc! {
        "_configsvrMoveRange": namespace,
        "min": chunk.min,
        "max": chunk.max,
        "toShard": command.get_str("to").unwrap_or_default(),
        "$db": "admin",
    };
    if let Some(wait) = command.get("_waitForDelete").or_else(|| command.get("waitForDelete")) {
        moving.insert("waitForDelete", wait.clone());
    }
    let done = session.run(&Target::config(), majority(moving), Safety::Repeatable).await;
    session.shared.forget_placement(namespace);
    Ok(Reply::of(&done?)?)
}

/// `mergeChunks`.
pub(super) async fn merge_chunks(session: &mut Session, request: &Request) -> Result<Reply> {
    let namespace = request.argument();
    let command = request.document()?;
    let sharded = fresh(session, namespace).await?;
    let bounds = command.get_array("bounds").map(Vec::as_slice).unwrap_or_default();
    let min = bounds.first().and_then(Bson::as_document);
    let min = min.ok_or_else(|| Failure::command(Code::BadValue, "bounds are missing"))?;
    let chunk = sharded.chunk_of(min)?;
    let merge = doc! {
        "mergeChunks": namespace,
        "bounds": bounds.to_vec(),
        "epoch": sharded.epoch,
        "timestamp": sharded.timestamp,
        "$db": "admin",
    };
    let done = session.run(&Target::Shard(chunk.shard.clone()), merge, Safety::Once).await;
    session.shared.forget_placement(namespace);
    Ok(Reply::of(&done?)?)
}

/// `listShards`.
pub(super) async fn list_shards(session: &mut Session) -> Result<Reply> {
    let shards = session.read_config("shards", doc! {}, doc! { "_id": 1 }).await?;
    Ok(Reply::of(&doc! { "shards": shards, "ok": 1.0 })?)
}

/// `flushRouterConfig`: everything known of the cluster is looked up anew.
pub(super) fn flush(session: &Session) -> Result<Reply> {
    session.shared.forget_all_placements();
    let mut catalog = session.shared.catalog();
    catalog.shards.clear();
    catalog.primaries.clear();
    Ok(Reply::of(&doc! { "flushed": true, "ok": 1.0 })?)
}

async fn fresh(session: &mut Session, namespace: &str) -> Result<std::sync::Arc<Sharded>> {
    session.shared.forget_placement(namespace);
    match session.placement(namespace).await? {
        Placement::Sharded(sharded) => Ok(sharded),
        Placement::Unsharded => {
            Err(Failure::command(Code::NamespaceNotSharded, format!("{namespace} is not sharded")))
        }
    }
}

/// The chunk that a command names by a key in it, by a filter, or by its bounds.
fn chosen_chunk(sharded: &Sharded, command: &Document) -> Result<Chunk> {
    if let Ok(middle) = command.get_document("middle") {
        return sharded.chunk_of(middle).cloned();
    }
    if let Ok(find) = command.get_document("find") {
        let key = sharded.key_of(find)?.ok_or_else(|| {
            Failure::command(Code::ShardKeyNotFound, "find does not name the shard key")
        })?;
        return sharded.chunk_of(&key).cloned();
    }
    let bounds = command.get_array("bounds").map(Vec::as_slice).unwrap_or_default();
    let [Bson::Document(min), Bson::Document(max)] = bounds else {
        return Err(Failure::command(Code::BadValue, "one of find, bounds or middle is needed"));
    };
    let is_it = |chunk: &&Chunk| {
        compare_keys(&chunk.min, min).is_eq() && compare_keys(&chunk.max, max).is_eq()
    };
    sharded
        .chunks
        .iter()
        .find(is_it)
        .cloned()
        .ok_or_else(|| Failure::command(Code::BadValue, format!("no chunk from {min} to {max}")))
}

fn split_namespace(namespace: &str) -> Result<(&str, &str)> {
    namespace.split_once('.').ok_or_else(|| {
        Failure::command(Code::BadValue, format!("{namespace} is no name of a collection"))
    })
}
