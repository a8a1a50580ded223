//! Claiming: from candidates to leases.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use bson::raw::RawDocumentBuf;
use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use futures_util::future::join_all;
use mongodb::options::{Acknowledgment, ReadConcern, ReturnDocument, WriteConcern};

use super::HandBack;
use super::expressions::{closed_attempt, lost, ttl};
use crate::config::{self, Settings};
use crate::error::{Error, Result, StoreErrorKind};
use crate::ids::{JobId, TaskId, Token, WorkerId};
use crate::planted::planted;
use crate::store::charge::Charge;
use crate::store::claims::{Candidate, has_room};
use crate::store::error::{Action, classify, is_transient_code};
use crate::store::readable::read;
use crate::store::{Store, batches, retry};
use crate::task::{Lease, Task, TaskKind, TaskState};

/// A claim that succeeded: the task as claimed, and the lease on it.
#[derive(Debug)]
pub struct Claimed {
    /// The task.
    pub task: Task,
    /// The lease.
    pub lease: Arc<Lease>,
    /// What it costs the job's client.
    pub charge: Charge,
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

impl Store {
    /// Claims tasks for this shard: ready ones whose time has come, and leased ones whose lease has run out. Publish tasks
    /// belong to no shard: every worker claims them. Tasks of jobs that this process leaves to others are
    /// not among them, nor is what is no task of an open job.
    ///
    /// Claimers read a few candidates of each job and try them in random order, so that many of them do not all
    /// hit the first. Which job's come first is a matter of fair shares.
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
        match read::<Task>("task", raw) {
            Ok(task) => {
                let charge = Charge::claimed(&self.accounts, &task.job);
                Ok(Some(Claimed { task, lease, charge }))
            }
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
}

/// Tasks of these shards that may be claimed now.
pub(in crate::store) fn claimable(shards: Bson) -> Document {
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
