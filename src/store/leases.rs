//! The lease protocol's filters and updates; what they mean is told in [`crate::task`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::raw::RawDocumentBuf;
use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use futures_util::future::join_all;
use mongodb::options::{Acknowledgment, ReadConcern, ReturnDocument, WriteConcern};
use rand::seq::SliceRandom;

use super::Store;
use super::batches;
use super::claims::{Candidate, has_room, well_typed};
use super::error::{self, Action, classify, is_transient_code};
use super::readable::read;
use super::retry::{self, twice};
use crate::config::{self, Settings};
use crate::error::{Error, Result, StoreErrorKind};
use crate::ids::{JobId, TaskId, Token, WorkerId};
use crate::planted::planted;
use crate::task::state::TaskEvent;
use crate::task::{Lease, Marks, Publish, Task, TaskKind, TaskResult, TaskState};

/// A claim that succeeded: the task as claimed, and the lease on it.
#[derive(Debug)]
pub struct Claimed {
    /// The task.
    pub task: Task,
    /// The lease.
    pub lease: Arc<Lease>,
}

/// How many tasks a worker would like to have.
#[derive(Debug, Clone, Copy)]
pub struct Want {
    /// That it can begin at once.
    pub now: usize,
    /// That it can begin soon, so that it need not look again for each. Others may have as many of those that it
    /// sees, and what is publishing, or was lost by a worker before, waits for nobody.
    pub ahead: usize,
}

impl Want {
    /// Tasks to be begun at once.
    pub fn now(now: usize) -> Self {
        Self { now, ahead: 0 }
    }

    /// How many of these candidates to try at first; they come in the order in which they are tried.
    fn of(self, candidates: &[Candidate]) -> usize {
        let may_wait = candidates.iter().skip(self.now);
        let may_wait = may_wait.take_while(|one| !one.publishes && !one.was_lost).count();
        let rest = candidates.len().saturating_sub(self.now);
        self.now + self.ahead.min(rest / 2).min(may_wait)
    }
}

/// The role of coordinator, as its holder sees it.
#[derive(Debug)]
pub struct Role {
    /// For how long it may be trusted.
    pub lease: Lease,
    /// How often the role has changed hands: what one of a lower epoch asks of a job is refused.
    pub epoch: i64,
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
    /// Claims tasks for this shard: ready ones whose time has come, and leased ones whose lease has run out. Publish tasks
    /// belong to no shard: every worker claims them, and first. Tasks of jobs that this process leaves to others are
    /// not among them, nor is what is no task of an open job.
    ///
    /// Claimers read a few candidates and try them in random order, so that many of them do not all
    /// hit the first.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn claim(
        &self,
        worker: &WorkerId,
        want: Want,
        settings: &Settings,
    ) -> Result<Vec<Claimed>> {
        let least = usize::try_from(config::CLAIM_CANDIDATES_MAX).unwrap_or(0);
        let mut candidates = self.candidates(least.max(want.now + want.ahead * 2)).await?;
        candidates.shuffle(&mut rand::rng());
        candidates.sort_by_key(|candidate| !candidate.publishes);
        if let Some(may_wait) = candidates.get_mut(want.now..) {
            may_wait.sort_by_key(|candidate| candidate.was_lost);
        }
        let (mut claimed, mut failed) = (Vec::new(), None);
        let mut wanted = want.of(&candidates);
        while !candidates.is_empty() && wanted > 0 {
            let rest = candidates.split_off(wanted.min(candidates.len()));
            for outcome in self.claim_all(candidates, worker, settings).await {
                match outcome {
                    Ok(some) => claimed.extend(some),
                    Err(error) => failed = Some(error),
                }
            }
            if failed.is_some() {
                break;
            }
            candidates = rest;
            wanted = want.now.saturating_sub(claimed.len());
        }
        match failed {
            // What was claimed is worked on, whatever became of the rest.
            Some(error) if claimed.is_empty() => Err(error),
            _ => Ok(claimed),
        }
    }

    /// Tries all of these, those of a shard in one command.
    async fn claim_all(
        &self,
        candidates: Vec<Candidate>,
        worker: &WorkerId,
        settings: &Settings,
    ) -> Vec<Result<Vec<Claimed>>> {
        let mut by_shard: BTreeMap<String, Vec<TaskId>> = BTreeMap::new();
        for Candidate { id, shard, .. } in candidates {
            by_shard.entry(shard).or_default().push(id);
        }
        let claims = by_shard.into_iter().flat_map(|(shard, mut ids)| {
            let mut batches = Vec::new();
            while !ids.is_empty() {
                let rest = ids.split_off(config::TASKS_TOGETHER_MAX.min(ids.len()));
                batches.push((shard.clone(), std::mem::replace(&mut ids, rest)));
            }
            batches
        });
        join_all(claims.map(|(shard, mut ids)| async move {
            if ids.len() > 1 {
                return self.claim_batch(ids, &shard, worker, settings).await;
            }
            match ids.pop() {
                Some(id) => {
                    let one = self.claim_one(id, shard, worker, settings).await;
                    one.map(|one| one.into_iter().collect())
                }
                None => Ok(Vec::new()),
            }
        }))
        .await
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
                let lease = Arc::new(Lease::new(id, &shard, token, sent, settings));
                self.claimed(lease, &raw).await
            }
            Ok(None) => Ok(None),
            // What the server cannot claim either must not keep this worker from all other tasks.
            Err(error) if classify(&error).kind == StoreErrorKind::Fatal => {
                tracing::warn!(task = %id, %error, "the task cannot be claimed; leaving it alone for now");
                self.avoid_task(&id);
                Ok(None)
            }
            Err(error) => Err(error).action("claim a task"),
        }
    }

    /// Claims several tasks of one shard with one update each, then reads those that it has got: they bear the tokens
    /// that only this call knows. That also tells what a lost reply did not.
    async fn claim_batch(
        &self,
        ids: Vec<TaskId>,
        shard: &str,
        worker: &WorkerId,
        settings: &Settings,
    ) -> Result<Vec<Claimed>> {
        const ACTION: &str = "claim tasks";
        let mut tokens: HashMap<TaskId, Token> =
            ids.iter().map(|id| (id.clone(), Token::generate())).collect();
        let statements = ids.iter().filter_map(|id| {
            let mut filter = claimable(Bson::String(shard.to_owned()));
            filter.insert("_id", id);
            Some(batches::statement(filter, claim_update(worker, tokens.get(id)?, settings)))
        });
        let statements = statements.collect();
        let sent = Instant::now();
        let db = self.near(shard);
        match batches::update_each(db, statements, doc! { "w": 1 }).await {
            Ok(applied) => {
                for (place, code) in applied.failed {
                    // What the server cannot claim must not keep this worker from all other tasks.
                    if let Some(id) = ids.get(place).filter(|_| !is_transient_code(code)) {
                        tracing::warn!(task = %id, code, "the task cannot be claimed; leaving it alone for now");
                        self.avoid_task(id);
                    }
                }
                if applied.matched == 0 {
                    return Ok(Vec::new());
                }
            }
            Err(error) if classify(&error).kind == StoreErrorKind::Transient => {
                tracing::debug!(%error, "which tasks were claimed is unknown; looking");
            }
            Err(error) => return Err(error).action(ACTION),
        }
        let mine: Vec<&str> = tokens.values().map(Token::as_str).collect();
        let filter = doc! {
            "_id": { "$in": &ids },
            "shard": shard,
            "state": TaskState::Leased.as_str(),
            "token": { "$in": mine },
        };
        let found: Vec<RawDocumentBuf> = self
            .aviary_at(shard)
            .clone_with_type::<RawDocumentBuf>()
            .find(filter)
            .read_concern(ReadConcern::local())
            .await
            .action(ACTION)?
            .try_collect()
            .await
            .action(ACTION)?;
        let mut claimed = Vec::new();
        for raw in found {
            let id = raw.get_str("_id").map(TaskId::from_text);
            let Ok(Some((id, token))) = id.map(|id| tokens.remove_entry(&id)) else { continue };
            let lease = Arc::new(Lease::new(id, shard, token, sent, settings));
            claimed.extend(self.claimed(lease, &raw).await?);
        }
        Ok(claimed)
    }

    /// Reads a task that was claimed. One that this version cannot read is handed back.
    async fn claimed(&self, lease: Arc<Lease>, raw: &RawDocumentBuf) -> Result<Option<Claimed>> {
        match read("task", raw) {
            Ok(task) => Ok(Some(Claimed { task, lease })),
            // It says nothing of the job's other tasks.
            Err(error) => {
                self.avoid_task(&lease.task);
                self.hand_to_others(&lease, &error).await.map(|_| None)
            }
        }
    }

    /// Hands back what this worker cannot do, and lets others have the job for a while.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn leave_to_others(&self, lease: &Lease, why: &Error) -> Result<bool> {
        let job = lease.task.as_str().split('/').next().unwrap_or_default();
        self.avoid_job(&JobId::from_text(job));
        self.hand_to_others(lease, why).await
    }

    async fn hand_to_others(&self, lease: &Lease, why: &Error) -> Result<bool> {
        let back = HandBack::waiting("left to others", why.to_string());
        retry::while_transient(retry::FAREWELL, || self.release(lease, &back)).await
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

    /// Sends a committed map task back because blocks of its attempt `token` are gone or damaged.
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

    /// Gives up leased tasks whose lease ran out once too often. A publish task is given up by the next worker
    /// that claims it, once it has disarmed the one before.
    ///
    /// A shard that is away holds up its own tasks and no others.
    ///
    /// # Errors
    /// [`Error::Store`] when no shard can be asked.
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
        let (mut given_up, mut answered, mut failed) = (0, false, None);
        for shard in self.known_shards() {
            let mut exhausted = doc! {
                "kind": { "$in": [TaskKind::Map.as_str(), TaskKind::Reduce.as_str()] },
                "shard": shard,
                "state": TaskState::Leased.as_str(),
                "lost": { "$gte": config::LOST_MAX - 1 },
                "$expr": { "$and": [{ "$lt": ["$until", "$$NOW"] }, has_room()] },
            };
            exhausted.extend(well_typed());
            match self.aviary().update_many(exhausted, update.clone()).await {
                Ok(outcome) => {
                    answered = true;
                    given_up += outcome.modified_count;
                }
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if !answered => Err(error).action("give up exhausted tasks"),
            Some(error) => {
                tracing::debug!(%error, "a shard could not be asked for exhausted tasks");
                Ok(given_up)
            }
            None => Ok(given_up),
        }
    }

    /// Claims or keeps the role of coordinator, and says for how long it may be trusted and which epoch of the
    /// role this is. `None` means that another holds it.
    ///
    /// # Errors
    /// [`Error::Store`].
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
    /// [`Error::Store`].
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

/// Tasks of these shards that may be claimed now.
pub(super) fn claimable(shards: Bson) -> Document {
    let now: Bson =
        if planted("client-clock") { bson::DateTime::now().into() } else { "$$NOW".into() };
    doc! {
        "shard": shards,
        "kind": { "$in": TaskKind::ALL.map(TaskKind::as_str).to_vec() },
        "state": { "$in": [TaskState::Ready.as_str(), TaskState::Leased.as_str()] },
        "$expr": { "$and": [has_room(), { "$cond": [
            { "$eq": ["$state", TaskState::Ready.as_str()] },
            { "$lte": [{ "$ifNull": ["$not_before", "$$NOW"] }, "$$NOW"] },
            { "$and": [
                { "$lt": ["$until", now] },
                // The last one is the coordinator's, to give up. Whoever gives up a publish task has to disarm
                // the one before first, which takes a claim.
                { "$or": [
                    { "$lt": [lost(), config::LOST_MAX - 1] },
                    { "$eq": ["$kind", TaskKind::Publish.as_str()] },
                ] },
            ] },
        ] }] },
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

/// An expression: what a task or a job waits for, since when, and how often that was met in a row.
pub(super) fn waiting_for(why: &str) -> Document {
    doc! {
        "why": { "$literal": why },
        "since": { "$ifNull": ["$waiting.since", "$$NOW"] },
        "times": { "$add": [met(), 1_i64] },
    }
}

/// An expression: how often the task was handed back in a row because something was in the way.
fn met() -> Document {
    doc! { "$ifNull": ["$waiting.times", 0_i64] }
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
