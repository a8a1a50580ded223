//! `count` and `distinct`, which the servers have no router command for: as aggregations.

use mongodb::bson::{Bson, Document, doc};

use super::failure::{Failure, Result, refused_as_stale};
use super::message::{Reply, Request, decode, encode};
use super::session::{Safety, Session, batch};

/// The fields of both commands that an aggregation has too.
const SHARED_FIELDS: [&str; 7] =
    ["hint", "collation", "maxTimeMS", "readConcern", "comment", "lsid", "$readPreference"];

/// `count`.
pub(super) async fn count(session: &mut Session, request: &Request) -> Result<Reply> {
    let command = request.document()?;
    let found = run(session, aggregation(&command, "clusterAggregate"), request.db()).await?;
    let n = found.first().and_then(|first| first.get("n")).cloned().unwrap_or(Bson::Int32(0));
    Ok(Reply::of(&doc! { "n": n, "ok": 1.0 })?)
}

/// `distinct`.
pub(super) async fn distinct(session: &mut Session, request: &Request) -> Result<Reply> {
    let command = request.document()?;
    let found = run(session, aggregation(&command, "clusterAggregate"), request.db()).await?;
    let values = found.first().and_then(|first| first.get("values"));
    let values = values.cloned().unwrap_or_else(|| Bson::Array(Vec::new()));
    Ok(Reply::of(&doc! { "values": values, "ok": 1.0 })?)
}

/// The aggregation, under the name `name`, that answers a `count` or `distinct`.
pub(super) fn aggregation(command: &Document, name: &str) -> Document {
    let collection = command.values().next().cloned().unwrap_or(Bson::Null);
    let query = command.get_document("query").cloned().unwrap_or_default();
    let mut pipeline = vec![doc! { "$match": query }];
    if let Ok(key) = command.get_str("key") {
        pipeline.extend([
            doc! { "$project": { "_id": 0, "value": format!("${key}") } },
            doc! { "$unwind": { "path": "$value", "preserveNullAndEmptyArrays": true } },
            // What is missing has no value, what is null has one.
            doc! { "$match": { "value": { "$exists": true } } },
            doc! { "$group": { "_id": "$value" } },
            doc! { "$group": { "_id": null, "values": { "$push": "$_id" } } },
        ]);
    } else {
        for (field, stage) in [("skip", "$skip"), ("limit", "$limit")] {
            let number = match command.get(field) {
                Some(Bson::Int32(number)) => i64::from(*number),
                Some(Bson::Int64(number)) => *number,
                #[expect(clippy::cast_possible_truncation, reason = "a whole number, from a shell")]
                Some(Bson::Double(number)) => *number as i64,
                _ => 0,
            };
            if number != 0 {
                pipeline.push(doc! { stage: number.saturating_abs() });
            }
        }
        pipeline.push(doc! { "$count": "n" });
    }
    let mut aggregation = doc! { name: collection, "pipeline": pipeline, "cursor": {} };
    for field in SHARED_FIELDS {
        if let Some(value) = command.get(field) {
            aggregation.insert(field, value.clone());
        }
    }
    aggregation
}

async fn run(session: &mut Session, mut command: Document, db: &str) -> Result<Vec<Document>> {
    command.insert("$db", db);
    if let Some(time) = session.shared.time() {
        command.insert("$clusterTime", decode(&time)?);
    }
    let body = encode(&command)?;
    let (_, reply) = session.send_routed(&body, &[], Safety::Repeatable, refused_as_stale).await?;
    if reply.is_ok() { batch(&reply.document()?) } else { Err(Failure::Refused(reply)) }
}
