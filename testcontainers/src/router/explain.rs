//! `explain`: of the servers' router command, so that the plan shows the shards.

use mongodb::bson::{Bson, Document, doc};

use super::counting::aggregation;
use super::data::cluster_name;
use super::failure::{Code, Failure, Result, refused_as_stale};
use super::message::{Reply, Request, encode};
use super::session::{Safety, Session, Target};
use super::targeted::owner_of;

/// `explain`.
pub(super) async fn run(session: &mut Session, request: &Request) -> Result<Reply> {
    let command = request.document()?;
    let inner = command.get_document("explain");
    let inner = inner.map_err(|_| Failure::command(Code::BadValue, "nothing to explain"))?;
    let name = inner.keys().next().map(String::as_str).unwrap_or_default();
    let mut target = Target::Any;
    let explained = match (name, cluster_name(name)) {
        (_, Some(cluster)) => with_name(inner, cluster),
        ("count" | "distinct", _) => aggregation(inner, "clusterAggregate"),
        ("findAndModify" | "findandmodify", _) => {
            let collection = inner.get_str(name).unwrap_or_default();
            let namespace = format!("{}.{collection}", request.db());
            let query = inner.get_document("query").cloned().unwrap_or_default();
            if let Some(owner) = owner_of(session, &namespace, &query).await? {
                target = owner.target();
            }
            inner.clone()
        }
        _ => {
            return Err(Failure::command(
                Code::CommandNotSupported,
                format!("{name} cannot be explained"),
            ));
        }
    };
    let mut outer = doc! { "explain": explained };
    for field in ["verbosity", "maxTimeMS", "lsid", "$readPreference"] {
        if let Some(value) = command.get(field) {
            outer.insert(field, value.clone());
        }
    }
    outer.insert("$db", request.db());
    let body = encode(&outer)?;
    let sent = match target {
        Target::Any => {
            session.send_routed(&body, &[], Safety::Repeatable, refused_as_stale).await?
        }
        Target::Shard(_) => session.send(&target, &body, &[], Safety::Repeatable).await?,
    };
    Ok(sent.1)
}

fn with_name(command: &Document, name: &str) -> Document {
    let argument = command.values().next().cloned().unwrap_or(Bson::Null);
    let mut renamed = doc! { name: argument };
    for (key, value) in command.iter().skip(1) {
        renamed.insert(key, value.clone());
    }
    renamed
}
