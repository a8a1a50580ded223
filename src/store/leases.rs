//! The lease protocol's filters and updates; what they mean is told in [`crate::task`].
//!
//! `claim` gives out leases; here is what their holders write; `without` is what others do to a task.

mod claim;
mod expressions;
mod without;

use std::sync::Arc;
use std::time::Duration;

use bson::{Bson, Document, doc};
use mongodb::options::{Acknowledgment, ReadConcern, WriteConcern};

use super::error::{self, Action};
use super::retry;
use super::{Store, batches};
use crate::config::{self, Settings};
use crate::error::{Error, Result};
use crate::planted::planted;
use crate::task::{Lease, Marks, Publish, TaskResult, TaskState};

pub(super) use claim::claimable;
pub use claim::{Claimed, Want};
use expressions::{backoff_ms, closed_attempt, failures, met};
pub(super) use expressions::{ttl, waiting_for};

/// How an attempt ended that did not commit.
#[derive(Debug, Clone)]
pub struct Failure {
    /// A stable word.
    pub code: String,
    /// For a person.
    pub message: String,
    /// Whether another attempt may succeed.
    pub retryable: bool,
    /// Failures after which the task is given up.
    pub attempts_max: i32,
}

/// How a lease is handed back.
#[derive(Debug, Clone)]
pub struct HandBack {
    /// The history's word for it.
    pub outcome: &'static str,
    /// What the task waits for, if something is in the way.
    pub why: Option<String>,
    /// How long nobody may claim the task, in milliseconds: the first time.
    pub pause_ms: i64,
    /// The same at most.
    pub pause_ms_max: i64,
}

impl HandBack {
    /// The worker stops, and anybody may go on at once.
    pub fn drained() -> Self {
        Self { outcome: "drained", why: None, pause_ms: 0, pause_ms_max: 0 }
    }

    /// What the task needs is not there yet.
    pub fn waiting(outcome: &'static str, why: impl Into<String>) -> Self {
        /// The first pause.
        const PAUSE_MS: i64 = 500;
        /// No longer, so that a failover costs little more than itself.
        const PAUSE_MS_MAX: i64 = 4_000;
        Self { outcome, why: Some(why.into()), pause_ms: PAUSE_MS, pause_ms_max: PAUSE_MS_MAX }
    }
}

impl Store {
    /// Extends a lease. `false` means that it is lost.
    ///
    /// # Errors
    /// [`Error::Store`]: whether the lease was extended is unknown, so trust goes on running out.
    pub async fn renew(&self, lease: &Lease, progress: i64, settings: &Settings) -> Result<bool> {
        let update = vec![doc! { "$set": {
            "until": { "$add": ["$$NOW", ttl(settings)] },
            "progress": progress,
        } }];
        let outcome = self
            .aviary_at(&lease.shard)
            .update_one(fence(lease, "renewal-unfenced"), update)
            .write_concern(WriteConcern::builder().w(Acknowledgment::Nodes(1)).build())
            .await
            .action("renew a lease")?;
        Ok(outcome.matched_count == 1)
    }

    /// Makes a claim durable: afterwards no failover can roll it back, so the next one counts one epoch more.
    ///
    /// # Errors
    /// [`Error::LeaseLost`], [`Error::Store`].
    pub async fn confirm(&self, lease: &Lease) -> Result<()> {
        let update = vec![doc! { "$set": { "confirmed": "$$NOW" } }];
        self.fenced(lease, doc! {}, update, "confirm a claim").await
    }

    /// Notes how far a publish task has come. A later attempt, if there has to be one, goes on from there.
    ///
    /// A note whose outcome is unknown is sent again, so the first may arrive after the attempt has noted more. It
    /// takes nothing back: it matches only as long as no mark is set that it lacks.
    ///
    /// # Errors
    /// [`Error::LeaseLost`], [`Error::Store`].
    pub async fn note_publish(&self, lease: &Lease, publish: &Publish) -> Result<()> {
        let noted = bson::serialize_to_bson(publish)
            .map_err(|e| Error::Internal(format!("a mark does not serialize: {e}")))?;
        let update = vec![doc! { "$set": { "publish": { "$literal": noted } } }];
        let Marks { counted, completed, begun } = publish.marks;
        let mut no_more = Document::new();
        for (mark, is_set) in [("counted", counted), ("completed", completed), ("begun", begun)] {
            if !is_set {
                no_more.insert(format!("publish.{mark}"), doc! { "$ne": true });
            }
        }
        self.fenced(lease, no_more, update, "note how far publishing has come").await
    }

    /// Notes how many results a target may hold once the next piece is merged. A later attempt, which merges from the
    /// beginning, lowers it no more.
    ///
    /// # Errors
    /// [`Error::LeaseLost`], [`Error::Store`].
    pub async fn note_reached(&self, lease: &Lease, rows: i64) -> Result<()> {
        let update = vec![doc! { "$set": { "reached": { "$max": ["$reached", rows] } } }];
        self.fenced(lease, doc! {}, update, "note how much is merged").await
    }

    /// A holder's write that a majority holds once it returns. It must be one that can be repeated. `and` narrows
    /// the filter.
    async fn fenced(
        &self,
        lease: &Lease,
        and: Document,
        update: Vec<Document>,
        action: &str,
    ) -> Result<()> {
        let mut filter = fence(lease, "record-unfenced");
        filter.extend(and);
        let write = || self.fenced_once(lease, filter.clone(), update.clone(), action);
        retry::while_transient(retry::HOLDER, write).await
    }

    async fn fenced_once(
        &self,
        lease: &Lease,
        filter: Document,
        update: Vec<Document>,
        action: &str,
    ) -> Result<()> {
        lease.check()?;
        let outcome = self
            .aviary_at(&lease.shard)
            .update_one(filter, update)
            .write_concern(WriteConcern::majority())
            .await
            .action(action)?;
        match outcome.matched_count {
            1 => Ok(()),
            _ => Err(Error::LeaseLost(lease.task.to_string())),
        }
    }

    /// Ends the holder's own attempt and the task with it: a person has cancelled the job.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn cancel_own(&self, lease: &Lease) -> Result<bool> {
        let update = vec![
            doc! { "$set": {
                "state": TaskState::Cancelled.as_str(),
                "history": closed_attempt("cancelled", None),
            } },
            doc! { "$unset": ["token", "until", "waiting"] },
        ];
        let outcome = self
            .aviary_at(&lease.shard)
            .update_one(fence(lease, ""), update)
            .await
            .action("end a cancelled task")?;
        Ok(outcome.matched_count == 1)
    }

    /// Commits a task. Whatever it names must have been written with `w: majority` before.
    ///
    /// A reply that gets lost is resolved by reading the task again, so `Ok` means committed by
    /// this attempt and [`Error::LeaseLost`] means that it never will be.
    ///
    /// # Errors
    /// [`Error::LeaseLost`], or [`Error::Store`] when the outcome could not be learnt.
    pub async fn commit(&self, lease: &Lease, result: &TaskResult) -> Result<()> {
        let update = commit_update(result)?;
        loop {
            let written = self
                .aviary_at(&lease.shard)
                .update_one(fence(lease, "commit-unfenced"), update.clone())
                .write_concern(WriteConcern::majority())
                .await;
            match written {
                Ok(outcome) if outcome.matched_count == 1 => return Ok(()),
                // Either fenced, or an earlier try of this loop took effect, or the task no longer lives
                // where it was looked for.
                Ok(_) => {
                    let was_trusted = self.trusts_direct();
                    if was_trusted && !self.verify_placement().await? {
                        continue;
                    }
                    return self.was_committed(lease).await;
                }
                Err(error) => {
                    let error = error::of("commit a task", &error);
                    if !error.is_transient() {
                        return Err(error);
                    }
                    tracing::debug!(task = %lease.task, %error, "commit's outcome is unknown");
                    if !lease.is_trusted() {
                        return self.was_committed(lease).await;
                    }
                    tokio::time::sleep(retry::patience(&error, Duration::from_millis(50))).await;
                }
            }
        }
    }

    /// Whether one command has committed all of these tasks of one shard. If it has not, some may be committed, and
    /// [`commit`](Self::commit) tells which.
    pub async fn commit_batch(&self, commits: &[(Arc<Lease>, Arc<TaskResult>)]) -> bool {
        let Some((first, _)) = commits.first() else { return true };
        let statements: Option<Vec<Document>> = commits
            .iter()
            .map(|(lease, result)| {
                let update = commit_update(result).ok()?;
                Some(batches::statement(fence(lease, "commit-unfenced"), update))
            })
            .collect();
        let Some(statements) = statements else { return false };
        let majority = doc! { "w": "majority" };
        match batches::update_each(self.near(&first.shard), statements, majority).await {
            Ok(applied) => applied.failed.is_empty() && applied.matched == commits.len(),
            Err(error) => {
                tracing::debug!(%error, "the outcome of some commits is unknown");
                false
            }
        }
    }

    async fn was_committed(&self, lease: &Lease) -> Result<()> {
        let committed = self
            .aviary()
            .find_one(doc! {
                "_id": &lease.task,
                "shard": &lease.shard,
                "state": TaskState::Done.as_str(),
                "result.token": &lease.token,
            })
            .read_concern(ReadConcern::majority())
            .await
            .action("learn whether a task was committed")?;
        match committed {
            Some(_) => Ok(()),
            None => Err(Error::LeaseLost(lease.task.to_string())),
        }
    }

    /// Ends an attempt that failed: back to ready after a pause, or quarantined.
    /// `false` means that the lease was lost and nothing was written.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn fail(&self, lease: &Lease, failure: &Failure) -> Result<bool> {
        let error = doc! { "code": &failure.code, "message": &failure.message };
        let give_up: Bson = if failure.retryable {
            doc! { "$gte": [failures(), failure.attempts_max.min(config::ATTEMPTS_MAX)] }.into()
        } else {
            Bson::Boolean(true)
        };
        let update = vec![
            doc! { "$set": {
                "state": { "$cond": [
                    give_up,
                    TaskState::Quarantined.as_str(),
                    TaskState::Ready.as_str(),
                ] },
                "not_before": { "$add": ["$$NOW", backoff_ms()] },
                "error": { "$literal": &error },
                "history": closed_attempt("failed", Some(&failure.message)),
            } },
            doc! { "$unset": ["token", "until", "waiting"] },
        ];
        let outcome = self
            .aviary_at(&lease.shard)
            .update_one(fence(lease, "failure-unfenced"), update)
            .await
            .action("record a failed attempt")?;
        Ok(outcome.matched_count == 1)
    }

    /// Hands a lease back without burning the attempt. The task may be claimed again after a pause, which
    /// doubles as often as it was handed back in a row.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn release(&self, lease: &Lease, back: &HandBack) -> Result<bool> {
        let HandBack { outcome, why, pause_ms, pause_ms_max } = back;
        let mut set = doc! {
            "state": TaskState::Ready.as_str(),
            "attempts": { "$subtract": ["$attempts", 1] },
            "not_before": { "$add": ["$$NOW", { "$toLong": { "$min": [
                *pause_ms_max,
                { "$multiply": [*pause_ms, { "$pow": [2, { "$min": [met(), 16_i64] }] }] },
            ] } }] },
            "history": closed_attempt(outcome, why.as_deref()),
        };
        if let Some(why) = why {
            set.insert("waiting", waiting_for(why));
        }
        let update = vec![doc! { "$set": set }, doc! { "$unset": ["token", "until"] }];
        let outcome = self
            .aviary_at(&lease.shard)
            .update_one(fence(lease, ""), update)
            .await
            .action("hand a lease back")?;
        Ok(outcome.matched_count == 1)
    }
}

/// The filter behind which every write of a holder stands; `mutant` is what it is called to leave that out.
fn fence(lease: &Lease, mutant: &str) -> Document {
    if planted(mutant) {
        return doc! { "_id": &lease.task, "shard": &lease.shard };
    }
    doc! {
        "_id": &lease.task,
        "shard": &lease.shard,
        "token": &lease.token,
        "state": TaskState::Leased.as_str(),
    }
}

fn commit_update(result: &TaskResult) -> Result<Vec<Document>> {
    let result = bson::serialize_to_bson(result)
        .map_err(|e| Error::Internal(format!("a task result does not serialize: {e}")))?;
    Ok(vec![
        doc! { "$set": {
            "state": TaskState::Done.as_str(),
            "finished": "$$NOW",
            "result": { "$literal": result },
            "history": closed_attempt("done", None),
        } },
        doc! { "$unset": ["token", "until", "not_before", "error", "progress", "waiting"] },
    ])
}
