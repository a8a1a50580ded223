//! Worker daemons as documents: who is alive, and what they run.

use bson::raw::RawDocumentBuf;
use bson::{DateTime, Document, doc};
use futures_util::TryStreamExt;
use mongodb::options::{Acknowledgment, WriteConcern};
use serde::{Deserialize, Serialize};

use super::Store;
use super::error::Action;
use super::readable::{Listed, list};
use super::retry::twice;
use crate::config::WORKER_GONE_MS;
use crate::error::Result;
use crate::ids::WorkerId;
use crate::job::limits::{FLEET_SLOTS_MAX, SLOTS_MAX};

/// One worker daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkerRow {
    /// `worker/ID`.
    #[serde(rename = "_id")]
    pub id: String,
    /// The shard it works for.
    pub shard: String,
    /// The machine's name.
    pub host: String,
    /// The process.
    pub pid: i64,
    /// Tasks it runs at once.
    pub slots: i32,
    /// Tasks it runs now.
    pub busy: i32,
    /// Memory that it gives a function at most, in MiB; what older workers do not say is not known.
    #[serde(default)]
    pub memory_mb: Option<i64>,
    /// What it found out about its deployment; older workers do not say.
    #[serde(default)]
    pub can: Option<Document>,
    /// The level of the jobs that it can do; older workers do not say, and theirs is 0.
    #[serde(default)]
    pub level: i32,
    /// Its version of Aviary.
    pub version: String,
    /// When it started.
    pub started: DateTime,
    /// When it was last heard of.
    pub seen: DateTime,
    /// Milliseconds since then, by the server's clock.
    #[serde(default)]
    pub silent_ms: i64,
}

impl WorkerRow {
    /// Its name, as tasks have it.
    pub fn name(&self) -> &str {
        self.id.strip_prefix("worker/").unwrap_or(&self.id)
    }

    /// Whether it was heard of lately.
    pub fn is_alive(&self) -> bool {
        self.silent_ms <= WORKER_GONE_MS
    }
}

impl Store {
    /// Says that a worker is alive; its document goes away by itself an hour after the last time.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn worker_alive(&self, id: &WorkerId, facts: Document) -> Result<()> {
        const KEPT_MS: i64 = 3_600_000;
        let set = doc! {
            "kind": "worker",
            "seen": "$$NOW",
            "expires": { "$add": ["$$NOW", KEPT_MS] },
            "started": { "$ifNull": ["$started", "$$NOW"] },
        };
        let literals: Document = facts
            .into_iter()
            .map(|(name, value)| (name, doc! { "$literal": value }.into()))
            .collect();
        self.aviary()
            .update_one(
                doc! { "_id": format!("worker/{id}"), "shard": self.served_name() },
                vec![doc! { "$set": set }, doc! { "$set": literals }],
            )
            .upsert(true)
            .write_concern(WriteConcern::builder().w(Acknowledgment::Nodes(1)).build())
            .await
            .action("report the worker alive")?;
        Ok(())
    }

    /// Removes a worker that stops in order.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn worker_gone(&self, id: &WorkerId) -> Result<()> {
        let this = doc! { "_id": format!("worker/{id}"), "shard": self.served_name() };
        let aviary = self.aviary();
        twice(|| aviary.delete_one(this.clone()).into_future())
            .await
            .action("sign the worker off")?;
        Ok(())
    }

    /// The slots of the workers that are alive, by the shard they work for.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn slots_by_shard(&self) -> Result<Vec<(String, u32)>> {
        const ACTION: &str = "count slots";
        /// More than there are shards.
        const ROWS_MAX: i64 = 2_000;
        let slots = i32::try_from(SLOTS_MAX).unwrap_or(i32::MAX);
        let rows: Vec<Document> = self
            .aviary()
            .aggregate(vec![
                doc! { "$match": {
                    "kind": "worker",
                    "slots": { "$type": "int", "$gte": 0 },
                    "seen": { "$type": "date" },
                    "$expr": { "$lte": [{ "$subtract": ["$$NOW", "$seen"] }, WORKER_GONE_MS] },
                } },
                doc! { "$group": {
                    "_id": "$shard",
                    "slots": { "$sum": { "$min": [{ "$toLong": "$slots" }, slots] } },
                } },
                doc! { "$limit": ROWS_MAX },
            ])
            .await
            .action(ACTION)?
            .try_collect()
            .await
            .action(ACTION)?;
        let row = |row: &Document| {
            let slots = u32::try_from(row.get_i64("slots").ok()?).unwrap_or(u32::MAX);
            Some((row.get_str("_id").ok()?.to_owned(), slots.min(FLEET_SLOTS_MAX)))
        };
        Ok(rows.iter().filter_map(row).collect())
    }

    /// Lists the workers heard of within the last hour.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn workers(&self) -> Result<Listed<WorkerRow>> {
        let found = self
            .aviary()
            .aggregate(vec![
                doc! { "$match": { "kind": "worker" } },
                doc! { "$addFields": { "silent_ms": { "$subtract": ["$$NOW", "$seen"] } } },
                doc! { "$sort": { "_id": 1 } },
            ])
            .with_type::<RawDocumentBuf>()
            .await
            .action("list workers")?;
        list("worker", found, "list workers").await
    }
}
