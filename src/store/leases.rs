//! The lease protocol's filters and updates; what they mean is told in [`crate::task`].

use std::time::Instant;

use bson::raw::RawDocumentBuf;
use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use futures_util::future::join_all;
use mongodb::options::{Acknowledgment, ReadConcern, ReturnDocument, WriteConcern};
use rand::seq::SliceRandom;

use super::Store;
use super::error::{Action, classify, twice};
use super::readable::read;
use crate::config::{self, Settings};
use crate::error::{Error, Result, StoreErrorKind};
use crate::ids::{TaskId, Token, WorkerId};
use crate::task::state::TaskEvent;
use crate::task::{Lease, Task, TaskKind, TaskResult, TaskState};

/// A claim that succeeded: the task as claimed, and the lease on it.
#[derive(Debug)]
pub struct Claimed {
    /// The task.
    pub task: Task,
    /// The lease.
    pub lease: std::sync::Arc<Lease>,
}

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

impl Store {
    /// Claims up to `want` tasks for this shard: ready ones whose time has come, and leased ones
    /// whose lease has run out.
    ///
    /// Claimers read a few candidates and try them in random order, so that many of them do not all
    /// hit the first.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn claim(
        &self,
        worker: &WorkerId,
        want: usize,
        settings: &Settings,
    ) -> Result<Vec<Claimed>> {
        let mut candidates: Vec<(TaskId, String)> = self
            .aviary_of_served()
            .find(self.without_avoided(claimable(self.served())))
            .projection(doc! { "_id": 1, "shard": 1 })
            .sort(doc! { "priority": -1, "_id": 1 })
            .limit(config::CLAIM_CANDIDATES_MAX.max(i64::try_from(want).unwrap_or(0)))
            .read_concern(ReadConcern::local())
            .await
            .action("look for tasks")?
            .try_filter_map(async |found| {
                let (id, shard) = (found.get_str("_id").ok(), found.get_str("shard").ok());
                Ok(id.zip(shard).map(|(id, shard)| (TaskId::from_text(id), shard.to_owned())))
            })
            .try_collect()
            .await
            .action("look for tasks")?;
        candidates.shuffle(&mut rand::rng());
        let mut claimed = Vec::new();
        let mut failed = None;
        let mut open = candidates.into_iter();
        while claimed.len() < want {
            let missing = want - claimed.len();
            let tries: Vec<_> = open
                .by_ref()
                .take(missing)
                .map(|(id, shard)| self.claim_one(id, shard, worker, settings))
                .collect();
            if tries.is_empty() {
                break;
            }
            for outcome in join_all(tries).await {
                match outcome {
                    Ok(one) => claimed.extend(one),
                    Err(error) => failed = Some(error),
                }
            }
            if failed.is_some() {
                break;
            }
        }
        match failed {
            // What was claimed is worked on, whatever became of the rest.
            Some(error) if claimed.is_empty() => Err(error),
            _ => Ok(claimed),
        }
    }

    async fn claim_one(
        &self,
        id: TaskId,
        shard: String,
        worker: &WorkerId,
        settings: &Settings,
    ) -> Result<Option<Claimed>> {
        let token = Token::generate();
        let mut filter = claimable(Bson::String(shard.clone()));
        filter.insert("_id", &id);
        let sent = Instant::now();
        let found = self
            .aviary_at(&shard)
            .clone_with_type::<RawDocumentBuf>()
            .find_one_and_update(filter, claim_update(worker, &token, settings))
            .return_document(ReturnDocument::After)
            .write_concern(WriteConcern::builder().w(Acknowledgment::Nodes(1)).build())
            .await;
        match found {
            Ok(Some(raw)) => {
                let lease = std::sync::Arc::new(Lease::new(id, &shard, token, sent, settings));
                match read("task", &raw) {
                    Ok(task) => Ok(Some(Claimed { task, lease })),
                    Err(error) => self.leave_to_others(&lease, &error).await.map(|()| None),
                }
            }
            Ok(None) => Ok(None),
            // What the server cannot claim either must not keep this worker from all other tasks.
            Err(error) if classify(&error).kind == StoreErrorKind::Fatal => {
                tracing::warn!(task = %id, %error, "the task cannot be claimed; leaving its job alone for now");
                self.avoid_job_of(&id);
                Ok(None)
            }
            Err(error) => Err(error).action("claim a task"),
        }
    }

    /// Hands back what this version cannot read, and lets others have the job for a while.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn leave_to_others(&self, lease: &Lease, why: &Error) -> Result<()> {
        const PAUSE_MS: i64 = 1_000;
        const TRIES_MAX: u32 = 40;
        const TRY_AGAIN: std::time::Duration = std::time::Duration::from_millis(250);
        self.avoid_job_of(&lease.task);
        let why = why.to_string();
        let mut tries = 0;
        loop {
            tries += 1;
            match self.release(lease, "not readable", Some(&why), PAUSE_MS).await {
                Err(error) if error.is_transient() && tries < TRIES_MAX => {
                    tokio::time::sleep(TRY_AGAIN).await;
                }
                outcome => return outcome.map(|_| ()),
            }
        }
    }

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
            .update_one(fence(lease, TaskState::Leased), update)
            .write_concern(WriteConcern::builder().w(Acknowledgment::Nodes(1)).build())
            .await
            .action("renew a lease")?;
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
        let result = bson::serialize_to_bson(result)
            .map_err(|e| Error::Internal(format!("a task result does not serialise: {e}")))?;
        let update = vec![
            doc! { "$set": {
                "state": TaskState::Done.as_str(),
                "finished": "$$NOW",
                "result": { "$literal": result },
                "history": closed_attempt("done", None),
            } },
            doc! { "$unset": ["token", "until", "not_before", "error", "progress"] },
        ];
        loop {
            let written = self
                .aviary_at(&lease.shard)
                .update_one(fence(lease, TaskState::Leased), update.clone())
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
                Err(error) if classify(&error).kind == StoreErrorKind::Transient => {
                    tracing::debug!(task = %lease.task, %error, "commit's outcome is unknown");
                    if !lease.is_trusted() {
                        return self.was_committed(lease).await;
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
                Err(error) => return Err(error).action("commit a task"),
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
            doc! { "$unset": ["token", "until"] },
        ];
        let outcome = self
            .aviary_at(&lease.shard)
            .update_one(fence(lease, TaskState::Leased), update)
            .await
            .action("record a failed attempt")?;
        Ok(outcome.matched_count == 1)
    }

    /// Hands a lease back without burning the attempt: the worker stops, or what the task needs is
    /// not there yet. The task may be claimed again after `pause_ms`. The history keeps `why`, and what
    /// went wrong if anything did.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn release(
        &self,
        lease: &Lease,
        why: &str,
        error: Option<&str>,
        pause_ms: i64,
    ) -> Result<bool> {
        let update = vec![
            doc! { "$set": {
                "state": TaskState::Ready.as_str(),
                "attempts": { "$subtract": ["$attempts", 1] },
                "not_before": { "$add": ["$$NOW", pause_ms] },
                "history": closed_attempt(why, error),
            } },
            doc! { "$unset": ["token", "until"] },
        ];
        let outcome = self
            .aviary_at(&lease.shard)
            .update_one(fence(lease, TaskState::Leased), update)
            .await
            .action("hand a lease back")?;
        Ok(outcome.matched_count == 1)
    }

    /// Sends a committed map task back because blocks of its attempt `token` are gone.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn reopen_lost(&self, task: &TaskId, shard: &str, token: &Token) -> Result<bool> {
        let sources: Vec<&str> = TaskState::sources_of(TaskEvent::BlocksLost)
            .into_iter()
            .map(TaskState::as_str)
            .collect();
        let outcome = self
            .aviary()
            .update_one(
                doc! {
                    "_id": task,
                    "shard": shard,
                    "state": { "$in": sources },
                    "result.token": token,
                },
                doc! {
                    "$set": { "state": TaskState::Ready.as_str(), "attempts": 0, "lost": 0 },
                    "$unset": { "result": "", "finished": "" },
                },
            )
            .await
            .action("send a map task back")?;
        Ok(outcome.matched_count == 1)
    }

    /// Gives up leased tasks whose lease ran out once too often.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn quarantine_exhausted(&self) -> Result<u64> {
        let update = vec![
            doc! { "$set": {
                "state": TaskState::Quarantined.as_str(),
                "lost": { "$add": [lost(), 1] },
                "error": { "code": "worker_lost", "message": {
                    "$concat": [
                        "the worker vanished in ",
                        { "$toString": { "$add": [lost(), 1] } },
                        " attempts, the last time ",
                        { "$ifNull": ["$worker", "?"] },
                    ],
                } },
                "history": closed_attempt("lost", None),
            } },
            doc! { "$unset": ["token", "until"] },
        ];
        let outcome = self
            .aviary()
            .update_many(
                doc! {
                    "kind": { "$in": [TaskKind::Map.as_str(), TaskKind::Reduce.as_str()] },
                    "shard": self.every_shard(),
                    "state": TaskState::Leased.as_str(),
                    "lost": { "$gte": config::LOST_MAX - 1 },
                    "$expr": { "$lt": ["$until", "$$NOW"] },
                },
                update,
            )
            .await
            .action("give up exhausted tasks")?;
        Ok(outcome.modified_count)
    }

    /// Claims or keeps the role of coordinator. `None` means that another holds it.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn hold_role(
        &self,
        holder: &WorkerId,
        token: &Token,
        settings: &Settings,
    ) -> Result<Option<Lease>> {
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
    ) -> Result<Option<Lease>> {
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
                { "$add": [{ "$ifNull": ["$epoch", 0_i64] }, 1_i64] },
            ] },
        } }];
        let filter = doc! {
            "_id": ROLE,
            "shard": self.home(),
            "$or": [
                { "token": token },
                { "token": null },
                { "$expr": { "$lt": ["$until", "$$NOW"] } },
            ],
        };
        let matched = self
            .aviary()
            .update_one(filter, update)
            .write_concern(WriteConcern::majority())
            .await
            .action("hold the role of coordinator")?
            .matched_count;
        let lease =
            || Lease::new(TaskId::from_text(ROLE), self.home(), token.clone(), sent, settings);
        Ok((matched == 1).then(lease))
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

    /// Whether some process holds the role of coordinator now.
    ///
    /// # Errors
    /// [`Error::Store`].
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
    /// [`Error::Store`].
    pub async fn release_role(&self, token: &Token) -> Result<()> {
        let mine = doc! { "_id": ROLE, "shard": self.home(), "token": token };
        let given_up = doc! { "$unset": { "token": "", "until": "" } };
        twice(async || self.aviary().update_one(mine.clone(), given_up.clone()).await)
            .await
            .action("give up the role of coordinator")?;
        Ok(())
    }
}

/// The `_id` and kind of the coordinator's lease.
const ROLE: &str = "coordinator";

/// Tasks of these shards that may be claimed now.
fn claimable(shards: Bson) -> Document {
    doc! {
        "shard": shards,
        "kind": { "$in": [TaskKind::Map.as_str(), TaskKind::Reduce.as_str()] },
        "state": { "$in": [TaskState::Ready.as_str(), TaskState::Leased.as_str()] },
        "$expr": { "$cond": [
            { "$eq": ["$state", TaskState::Ready.as_str()] },
            { "$lte": [{ "$ifNull": ["$not_before", "$$NOW"] }, "$$NOW"] },
            { "$and": [
                { "$lt": ["$until", "$$NOW"] },
                // The last one is the coordinator's, to give up.
                { "$lt": [lost(), config::LOST_MAX - 1] },
            ] },
        ] },
    }
}

/// The filter behind which every write of a holder stands.
fn fence(lease: &Lease, state: TaskState) -> Document {
    doc! {
        "_id": &lease.task,
        "shard": &lease.shard,
        "token": &lease.token,
        "state": state.as_str(),
    }
}

fn claim_update(worker: &WorkerId, token: &Token, settings: &Settings) -> Vec<Document> {
    vec![
        doc! { "$set": {
            "state": TaskState::Leased.as_str(),
            "worker": { "$literal": worker.as_str() },
            "token": token,
            "leased": "$$NOW",
            "until": { "$add": ["$$NOW", ttl(settings)] },
            "epoch": { "$add": ["$epoch", 1_i64] },
            "attempts": { "$add": ["$attempts", 1] },
            "progress": 0_i64,
            // A stage sees the document as it was before it, so these close the attempt before.
            "lost": { "$add": [
                lost(),
                { "$cond": [{ "$eq": ["$state", TaskState::Leased.as_str()] }, 1, 0] },
            ] },
            "history": { "$cond": [
                { "$eq": ["$state", TaskState::Leased.as_str()] },
                closed_attempt("lost", None),
                "$history",
            ] },
        } },
        doc! { "$unset": ["not_before"] },
    ]
}

/// An expression: how many attempts have lost their lease.
fn lost() -> Document {
    doc! { "$ifNull": ["$lost", 0] }
}

/// An expression: the history with the current attempt appended.
fn closed_attempt(outcome: &str, error: Option<&str>) -> Document {
    let mut entry = doc! {
        "epoch": "$epoch",
        "worker": "$worker",
        "began": "$leased",
        "ended": "$$NOW",
        "outcome": { "$literal": outcome },
    };
    if let Some(error) = error {
        const MESSAGE_CHARS_MAX: usize = 300;
        let short: String = error.chars().take(MESSAGE_CHARS_MAX).collect();
        entry.insert("error", doc! { "$literal": short });
    }
    doc! { "$slice": [
        { "$concatArrays": [{ "$ifNull": ["$history", []] }, [entry]] },
        -config::HISTORY_MAX,
    ] }
}

/// An expression: how many attempts have failed, together with the one that just did.
fn failures() -> Document {
    doc! { "$subtract": ["$attempts", lost()] }
}

/// An expression: milliseconds to wait, doubling with every failure, between half and all of it.
fn backoff_ms() -> Document {
    doc! { "$toLong": { "$multiply": [
        { "$min": [
            config::BACKOFF_MAX_MS,
            { "$multiply": [config::BACKOFF_BASE_MS, { "$pow": [2, { "$subtract": [failures(), 1] }] }] },
        ] },
        { "$add": [0.5, { "$multiply": [0.5, { "$rand": {} }] }] },
    ] } }
}

fn ttl(settings: &Settings) -> i64 {
    i64::try_from(settings.lease_ttl_ms).unwrap_or(i64::MAX)
}
