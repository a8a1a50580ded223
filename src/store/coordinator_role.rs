//! The role of coordinator: a lease that one process holds at a time, with an epoch that counts its holders.

use std::time::{Duration, Instant};

use bson::doc;
use mongodb::options::{ReturnDocument, WriteConcern};

use super::Store;
use super::error::{Action, classify};
use super::leases::ttl;
use super::retry::twice;
use crate::config::Settings;
use crate::error::{Result, StoreErrorKind};
use crate::ids::{TaskId, Token, WorkerId};
use crate::task::Lease;

/// The role of coordinator, as its holder sees it.
#[derive(Debug)]
pub struct Role {
    /// For how long it may be trusted.
    pub lease: Lease,
    /// How often the role has changed hands: what one of a lower epoch asks of a job is refused.
    pub epoch: i64,
}

impl Store {
    /// Claims or keeps the role of coordinator, and says for how long it may be trusted and which epoch of the
    /// role this is. `None` means that another holds it.
    ///
    /// # Errors
    /// [`Error::Store`](crate::error::Error::Store).
    pub async fn hold_role(
        &self,
        holder: &WorkerId,
        token: &Token,
        settings: &Settings,
    ) -> Result<Option<Role>> {
        loop {
            let held = self.try_role(holder, token, settings).await?;
            // Only a document that was not there before is worth a second try.
            if held.is_some() || !self.ensure_role().await? {
                return Ok(held);
            }
        }
    }

    async fn try_role(
        &self,
        holder: &WorkerId,
        token: &Token,
        settings: &Settings,
    ) -> Result<Option<Role>> {
        let sent = Instant::now();
        let update = vec![doc! { "$set": {
            "kind": ROLE,
            "worker": { "$literal": holder.as_str() },
            "token": token,
            "until": { "$add": ["$$NOW", ttl(settings)] },
            "leased": { "$cond": [{ "$eq": ["$token", token.as_str()] }, "$leased", "$$NOW"] },
            "epoch": { "$cond": [
                { "$eq": ["$token", token.as_str()] },
                "$epoch",
                { "$add": [{ "$cond": [
                    { "$and": [
                        { "$in": [{ "$type": "$epoch" }, ["int", "long"]] },
                        { "$lt": ["$epoch", EPOCH_MAX] },
                    ] },
                    "$epoch",
                    0_i64,
                ] }, 1_i64] },
            ] },
        } }];
        let filter = doc! {
            "_id": ROLE,
            "shard": self.home(),
            "$or": [
                { "token": token },
                { "token": null },
                { "$expr": { "$lt": ["$until", "$$NOW"] } },
                // What no coordinator wrote, in a document that no coordinator made.
                { "token": { "$not": { "$type": "string" } } },
                { "until": { "$not": { "$type": "date" } } },
                { "$expr": { "$gt": ["$until", { "$add": ["$$NOW", ROLE_TTL_MS_MAX] }] } },
            ],
        };
        let held = self
            .aviary()
            .find_one_and_update(filter, update)
            .return_document(ReturnDocument::After)
            .write_concern(WriteConcern::majority())
            .await
            .action("hold the role of coordinator")?;
        Ok(held.map(|held| Role {
            lease: Lease::new(TaskId::from_text(ROLE), self.home(), token.clone(), sent, settings),
            epoch: held.get_i64("epoch").unwrap_or_default(),
        }))
    }

    /// Creates the role's document, held by nobody, and says whether it was missing: an upsert cannot
    /// compare with the server's clock, so the document has to be there before it can be claimed.
    async fn ensure_role(&self) -> Result<bool> {
        let created = self
            .aviary()
            .update_one(
                doc! { "_id": ROLE, "shard": self.home() },
                doc! { "$setOnInsert": { "kind": ROLE } },
            )
            .upsert(true)
            .await;
        match created {
            Ok(outcome) => Ok(outcome.upserted_id.is_some()),
            // Another process was faster.
            Err(e) if classify(&e).kind == StoreErrorKind::DuplicateKey => Ok(true),
            Err(e) => Err(e).action("create the role of coordinator"),
        }
    }

    /// How long the role of coordinator still is its holder's unless it is renewed.
    ///
    /// # Errors
    /// [`Error::Store`](crate::error::Error::Store).
    pub async fn role_lasts(&self) -> Result<Duration> {
        let found = self
            .aviary()
            .find_one(doc! { "_id": ROLE, "shard": self.home() })
            .projection(doc! { "left": { "$subtract": ["$until", "$$NOW"] } })
            .await
            .action("learn how long the role of coordinator is held")?;
        let left = found.and_then(|role| role.get_i64("left").ok()).unwrap_or_default();
        Ok(Duration::from_millis(u64::try_from(left).unwrap_or_default()))
    }

    /// Whether some process holds the role of coordinator now.
    ///
    /// # Errors
    /// [`Error::Store`](crate::error::Error::Store).
    pub async fn has_coordinator(&self) -> Result<bool> {
        let held = doc! {
            "_id": ROLE,
            "shard": self.home(),
            "$expr": { "$gt": ["$until", "$$NOW"] },
        };
        Ok(self.aviary().find_one(held).await.action("look for a coordinator")?.is_some())
    }

    /// Gives the role of coordinator back, so that the next one need not wait.
    ///
    /// # Errors
    /// [`Error::Store`](crate::error::Error::Store).
    pub async fn release_role(&self, token: &Token) -> Result<()> {
        let mine = doc! { "_id": ROLE, "shard": self.home(), "token": token };
        let given_up = doc! { "$unset": { "token": "", "until": "" } };
        let aviary = self.aviary();
        twice(|| aviary.update_one(mine.clone(), given_up.clone()).into_future())
            .await
            .action("give up the role of coordinator")?;
        Ok(())
    }
}

/// The `_id` and kind of the coordinator's lease.
const ROLE: &str = "coordinator";
/// No coordinator holds the role for longer without renewing it.
const ROLE_TTL_MS_MAX: i64 = 24 * 3_600_000;
/// The role does not change hands as often as that.
const EPOCH_MAX: i64 = 1 << 53;
