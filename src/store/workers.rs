//! Worker daemons as documents: who is alive, and what they run.

use bson::raw::RawDocumentBuf;
use bson::{DateTime, Document, doc};
use mongodb::options::{Acknowledgment, WriteConcern};
use serde::{Deserialize, Serialize};

use super::Store;
use super::error::Action;
use super::readable::{Listed, list};
use super::retry::twice;
use crate::error::Result;
use crate::ids::WorkerId;

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
        self.silent_ms <= crate::config::WORKER_GONE_MS
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
