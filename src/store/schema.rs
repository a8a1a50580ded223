//! `aviary init`: collections, validators, indexes; on a sharded cluster, their places too. Idempotent.

use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::IndexModel;
use mongodb::options::IndexOptions;

use super::error::{self, Action, classify};
use super::failed::{self, FAILED};
use super::logs::LogBatch;
use super::settings::SETTINGS;
use super::{AVIARY, FUNCTIONS, INTERMEDIATES, Store};
use crate::error::{Error, Result, StoreErrorKind};
use crate::job::JobState;
use crate::request::{REQUESTS, is_requests};
use crate::settings::stored::VALUES;
use crate::task::{TaskKind, TaskState};

/// BackgroundOperationInProgressForNamespace.
const INDEX_BUILD_RUNNING: i32 = 12_587;
/// How long one look for the end of an index build is put off.
const INDEX_BUILD_LOOK: std::time::Duration = std::time::Duration::from_millis(50);
/// After so many looks, 10 seconds, the server's refusal is the answer.
const INDEX_BUILD_LOOKS_MAX: u32 = 200;

impl Store {
    /// Creates and validates Aviary's collections and indexes; does nothing that is done already.
    ///
    /// # Errors
    /// [`Error::Refused`] naming the missing privilege, or [`Error::Store`].
    pub async fn init(&self) -> Result<()> {
        for (name, validator) in [
            (AVIARY, aviary_validator()),
            (FUNCTIONS, functions_validator()),
            (INTERMEDIATES, intermediates_validator()),
            (FAILED, failed::validator()),
        ] {
            self.ensure_collection(name, validator).await?;
        }
        self.init_requests(REQUESTS).await?;
        if self.is_sharded() {
            self.pin().await?;
        }
        self.aviary()
            .create_indexes(aviary_indexes())
            .await
            .action(format!("create the indexes of {AVIARY}"))
            .map_err(|e| self.explain(e))?;
        Ok(())
    }

    /// Whether [`init`](Store::init) has been run in this database.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn is_initialised(&self) -> Result<bool> {
        self.is_set_up().await.map_err(|e| self.explain(e))
    }

    /// Whether a user who stores functions has nothing to set up first: everything is there, or setting up is not
    /// for this user, who may not even look.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn takes_functions(&self) -> Result<bool> {
        match self.is_set_up().await {
            Err(Error::Store { source, .. }) if source.kind == StoreErrorKind::Unauthorized => {
                Ok(true)
            }
            outcome => outcome.map_err(|e| self.explain(e)),
        }
    }

    async fn is_set_up(&self) -> Result<bool> {
        let found: Vec<_> = self
            .database()
            .list_collections()
            .filter(
                doc! { "name": { "$in": [AVIARY, FUNCTIONS, INTERMEDIATES, FAILED, REQUESTS] } },
            )
            .await
            .action("list collections")?
            .try_collect()
            .await
            .action("list collections")?;
        if found.len() < 5 {
            return Ok(false);
        }
        // An older version's knows fewer kinds of documents.
        let current = |row: &mongodb::results::CollectionSpecification| {
            let wanted = match row.name.as_str() {
                AVIARY => aviary_validator(),
                REQUESTS => crate::request::schema::validator(),
                _ => return true,
            };
            row.options.validator.as_ref() == Some(&wanted)
        };
        if !found.iter().all(current) {
            return Ok(false);
        }
        if self.is_sharded() && !self.is_pinned().await? {
            return Ok(false);
        }
        // The indexes come last, so an init that was cut short is found out by them.
        let indexes = self.aviary().list_index_names().await.action("list indexes")?;
        Ok(aviary_indexes().iter().all(|index| {
            let name = index.options.as_ref().and_then(|options| options.name.as_ref());
            name.is_some_and(|name| indexes.contains(name))
        }))
    }

    /// Brings the validator of a collection that an older version has set up up to date: it knows fewer kinds of
    /// documents. Where there is none, nothing is done. Says whether the collection is there.
    ///
    /// # Errors
    /// [`Error::Refused`] naming the missing privilege, or [`Error::Store`].
    pub async fn refresh_validator(&self) -> Result<bool> {
        let found = self
            .database()
            .list_collections()
            .filter(doc! { "name": AVIARY })
            .await
            .action("list collections")?
            .try_next()
            .await
            .action("list collections")?;
        let is_there = found.is_some();
        let validator = found.and_then(|row| row.options.validator);
        if validator.is_none_or(|validator| validator == aviary_validator()) {
            return Ok(is_there);
        }
        self.change_validator(AVIARY, aviary_validator())
            .await
            .action(format!("change the validator of {AVIARY}"))
            .map_err(|e| self.explain(e))?;
        Ok(is_there)
    }

    pub(super) async fn ensure_collection(&self, name: &str, validator: Document) -> Result<()> {
        let mut create = doc! { "create": name, "validator": &validator };
        if is_requests(name) {
            // Whatever got in without its validator can still be answered.
            create.insert("validationLevel", "moderate");
        }
        let created = self.database().run_command(create).await;
        let outcome = match created {
            Ok(_) => return Ok(()),
            Err(e) if classify(&e).kind == StoreErrorKind::NamespaceExists => {
                self.change_validator(name, validator).await
            }
            Err(e) => Err(e),
        };
        outcome.action(format!("set up the collection {name}")).map_err(|e| self.explain(e))
    }

    /// Waits for somebody else who sets the collection up right now: nothing can be changed while its
    /// indexes are built.
    async fn change_validator(
        &self,
        name: &str,
        validator: Document,
    ) -> std::result::Result<(), mongodb::error::Error> {
        for _ in 0..INDEX_BUILD_LOOKS_MAX {
            let change = doc! { "collMod": name, "validator": &validator };
            match self.database().run_command(change).await {
                Err(e) if classify(&e).code == Some(INDEX_BUILD_RUNNING) => {
                    tokio::time::sleep(INDEX_BUILD_LOOK).await;
                }
                changed => return changed.map(|_| ()),
            }
        }
        self.database()
            .run_command(doc! { "collMod": name, "validator": validator })
            .await
            .map(|_| ())
    }

    /// Says which role is missing when the server refuses for lack of one.
    pub(crate) fn explain(&self, error: Error) -> Error {
        let other = error::refused_on(&error).filter(|db| db != self.db_name() && db != "admin");
        error::not_permitted(error, || {
            let grant = match other {
                Some(other) => format!(
                    "grant the user read on the database {other} if it is the input's, readWrite and dbAdmin if results \
                     go there"
                ),
                None => format!(
                    "grant the user readWrite and dbAdmin on the database {}, and read on the input's",
                    self.db_name()
                ),
            };
            format!("{grant}, or a role of deploy/roles.js; on Atlas, under Database Access")
        })
    }
}

fn aviary_validator() -> Document {
    let job_states: Vec<&str> = JobState::ALL.iter().map(|s| s.as_str()).collect();
    let task_states: Vec<&str> = TaskState::ALL.iter().map(|s| s.as_str()).collect();
    doc! { "$jsonSchema": {
        "bsonType": "object",
        "required": ["_id", "kind", "shard"],
        "properties": {
            "_id": { "bsonType": "string" },
            "shard": { "bsonType": "string" },
        },
        "oneOf": [
            {
                "required": ["state", "spec", "created", "plan"],
                "properties": {
                    "kind": { "enum": ["job"] },
                    "state": { "enum": job_states },
                    "spec": { "bsonType": "object" },
                    "created": { "bsonType": "date" },
                    "snapshot": { "bsonType": "timestamp" },
                },
            },
            {
                "required": ["job", "plan", "n", "state", "epoch", "attempts"],
                "properties": {
                    "kind": { "enum": TaskKind::ALL.map(TaskKind::as_str).to_vec() },
                    "state": { "enum": task_states },
                    "job": { "bsonType": "string" },
                    "until": { "bsonType": "date" },
                    "token": { "bsonType": "string" },
                },
            },
            {
                "required": ["job", "plan", "task", "attempt", "lines"],
                "properties": {
                    "kind": { "enum": ["log"] },
                    "job": { "bsonType": "string" },
                    "task": { "bsonType": "string" },
                    "lines": { "bsonType": "array" },
                },
            },
            {
                "required": [VALUES],
                "properties": {
                    "kind": { "enum": [SETTINGS] },
                    VALUES: { "bsonType": "object" },
                },
            },
            { "properties": {
                "kind": { "enum": ["worker", "coordinator", "clock", "turn", "removed"] },
            } },
        ],
    } }
}

fn functions_validator() -> Document {
    doc! { "$jsonSchema": {
        "bsonType": "object",
        "required": ["_id", "kind"],
        "properties": {
            "_id": { "bsonType": "string" },
            "kind": { "enum": ["function", "chunk", "name"] },
        },
    } }
}

fn intermediates_validator() -> Document {
    doc! { "$jsonSchema": {
        "bsonType": "object",
        "required": ["_id", "shard", "data", "crc32", "records"],
        "properties": { "_id": { "bsonType": "string" }, "data": { "bsonType": "binData" } },
    } }
}

/// The index that leads to the tasks and jobs of one shard, kind and state.
pub(super) const CLAIM_INDEX: &str = "claim";
/// The index of the jobs that are not cleaned up after yet.
pub(super) const UNCLEANED_INDEX: &str = "jobs_not_cleaned_up";

fn aviary_indexes() -> Vec<IndexModel> {
    let named = |keys: Document, name: &str| {
        IndexModel::builder()
            .keys(keys)
            .options(IndexOptions::builder().name(name.to_owned()).build())
            .build()
    };
    let mut expiry = named(doc! { "expires": 1 }, "expiry");
    if let Some(options) = expiry.options.as_mut() {
        options.expire_after = Some(std::time::Duration::ZERO);
    }
    // Only log lines are in it, which most jobs have none of.
    let mut logs = named(doc! { "kind": 1, "job": 1, "_id": 1 }, "logs_of_job");
    if let Some(options) = logs.options.as_mut() {
        options.partial_filter_expression = Some(doc! { "kind": LogBatch::KIND });
    }
    let mut uncleaned = named(doc! { "priority": -1, "_id": 1 }, UNCLEANED_INDEX);
    if let Some(options) = uncleaned.options.as_mut() {
        options.partial_filter_expression = Some(doc! { "kind": "job", "cleaned": false });
    }
    vec![
        named(doc! { "shard": 1, "kind": 1, "state": 1, "priority": -1, "_id": 1 }, CLAIM_INDEX),
        named(doc! { "job": 1, "kind": 1, "plan": 1, "state": 1 }, "tasks_of_job"),
        named(doc! { "kind": 1, "created": -1 }, "jobs_by_age"),
        expiry,
        logs,
        uncleaned,
    ]
}
