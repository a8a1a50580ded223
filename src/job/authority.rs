//! What a job may touch.
//!
//! A document is no authority: a server does not say who wrote it. So the principal of a job is the database that
//! its request lies in. There it may read and write; in another database only what that one's owner has granted,
//! in its collection `aviary-grants`, or everything if whoever runs the fleet says that one team owns both.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::spec::{JobSpec, Output};
use crate::error::{Error, Result};

/// Where the owner of a database says what others may touch.
pub const GRANTS: &str = "aviary-grants";

/// What of a database another one's jobs may touch: the document whose `_id` is the other database's name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Collections they may read.
    #[serde(default)]
    pub read: Vec<String>,
    /// Collections they may write to.
    #[serde(default)]
    pub write: Vec<String>,
}

/// What a job does with a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Its input.
    Read,
    /// Its target.
    Write,
}

/// A collection of another database that a job needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The other database.
    pub db: String,
    /// The collection.
    pub collection: String,
    /// What for.
    pub access: Access,
}

impl Grant {
    /// Whether it covers this.
    pub fn covers(&self, need: &Need) -> bool {
        let granted = match need.access {
            Access::Read => &self.read,
            Access::Write => &self.write,
        };
        granted.contains(&need.collection)
    }
}

impl Need {
    /// The refusal of a job of the database `home`.
    pub fn refused(&self, home: &str) -> Error {
        let Self { db, collection, access } = self;
        let (verb, field) = match access {
            Access::Read => ("read", "read"),
            Access::Write => ("write to", "write"),
        };
        Error::refused(
            format!("jobs of the database {home} may not {verb} {db}.{collection}"),
            format!(
                "the owner of {db} allows it with db.getSiblingDB({db:?}).getCollection({GRANTS:?})\
                 .updateOne({{_id: {home:?}}}, {{$addToSet: {{{field}: {collection:?}}}}}, {{upsert: true}}); or whoever \
                 runs the fleet starts its coordinators and workers with --trust-databases {db}"
            ),
        )
    }
}

/// What a job needs beyond its own database, `home`, and the trusted ones.
pub fn needs(spec: &JobSpec, home: &str, trusted: &BTreeSet<String>) -> Vec<Need> {
    let foreign = |db: &str| db != home && !trusted.contains(db);
    let mut needs = Vec::new();
    if foreign(&spec.input.db) {
        needs.push(Need {
            db: spec.input.db.clone(),
            collection: spec.input.collection.clone(),
            access: Access::Read,
        });
    }
    let Output { mode, db, collection } = &spec.output;
    if foreign(db) {
        // What is kept with a job is kept in the job's own database, so this is of nobody's making but a forger's.
        let collection = if mode.has_target() { collection.clone() } else { String::new() };
        needs.push(Need { db: db.clone(), collection, access: Access::Write });
    }
    needs
}

/// Refuses input and output that no grant can allow: what belongs to MongoDB or to Aviary.
///
/// # Errors
/// [`Error::Refused`].
pub fn refuse_reserved(spec: &JobSpec) -> Result<()> {
    let (input, output) = (&spec.input, &spec.output);
    if is_servers(&input.db, &input.collection) {
        return Err(Error::refused(
            format!("{}.{} cannot be an input", input.db, input.collection),
            "it belongs to MongoDB itself; name another",
        ));
    }
    let reserved = output.mode.has_target() && is_aviarys(&output.collection)
        || is_servers(&output.db, &output.collection);
    if reserved {
        return Err(Error::refused(
            format!("{}.{} cannot be an output", output.db, output.collection),
            "it belongs to MongoDB or to Aviary itself; name another",
        ));
    }
    Ok(())
}

fn is_servers(db: &str, collection: &str) -> bool {
    matches!(db, "admin" | "config" | "local") || collection.starts_with("system.")
}

/// Whether a name is kept for Aviary's own collections: jobs and functions, requests, grants, results in the
/// making.
pub fn is_aviarys(collection: &str) -> bool {
    collection == "aviary" || collection.starts_with("aviary-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::OutputMode;
    use crate::job::validate::tests::spec;

    fn none() -> BTreeSet<String> {
        BTreeSet::new()
    }

    #[test]
    fn a_job_needs_nothing_beyond_its_own_database() {
        assert_eq!(needs(&spec(), "shop", &none()), []);
    }

    #[test]
    fn what_is_elsewhere_is_needed_unless_it_is_trusted() {
        let mut job = spec();
        job.output.db = "reports".into();
        let input = Need { db: "shop".into(), collection: "orders".into(), access: Access::Read };
        let output =
            Need { db: "reports".into(), collection: "totals".into(), access: Access::Write };
        assert_eq!(needs(&job, "home", &none()), [input, output.clone()]);
        let trusted = BTreeSet::from(["shop".to_owned()]);
        assert_eq!(needs(&job, "home", &trusted), [output]);
    }

    #[test]
    fn an_inline_result_elsewhere_can_never_be_granted() {
        let mut job = spec();
        job.output.mode = OutputMode::Inline;
        job.output.db = "victim".into();
        job.output.collection = "orders".into();
        let needed = needs(&job, "shop", &none());
        assert_eq!(needed.len(), 1);
        let all = Grant { read: vec!["orders".into()], write: vec!["orders".into()] };
        assert!(!all.covers(&needed[0]));
    }

    #[test]
    fn reading_is_not_writing() {
        let need = |access| Need { db: "b".into(), collection: "orders".into(), access };
        let grant = Grant { read: vec!["orders".into()], write: vec![] };
        assert!(grant.covers(&need(Access::Read)));
        assert!(!grant.covers(&need(Access::Write)));
        assert!(!Grant::default().covers(&need(Access::Read)));
    }

    #[test]
    fn what_belongs_to_the_server_or_to_aviary_is_refused() {
        for db in ["admin", "config", "local"] {
            let mut job = spec();
            job.input.db = db.into();
            assert!(refuse_reserved(&job).is_err(), "{db} as input");
            let mut job = spec();
            job.output.db = db.into();
            assert!(refuse_reserved(&job).is_err(), "{db} as output");
        }
        let mut job = spec();
        job.input.collection = "system.users".into();
        assert!(refuse_reserved(&job).is_err());
        for name in ["aviary", "aviary-funcs", "aviary-grants", "aviary-requests-x", "aviary-out-1"]
        {
            let mut job = spec();
            job.output.collection = name.into();
            assert!(refuse_reserved(&job).is_err(), "{name}");
            job.output.db = "elsewhere".into();
            assert!(refuse_reserved(&job).is_err(), "{name} elsewhere");
        }
    }
}
