//! A publish task: puts a job's results in place, the one step that touches a collection users own.
//!
//! What comes next is decided by [`crate::protocol::publish`]; this executes it. Reduce tasks (or, map-only,
//! map tasks) have written a hidden collection of the job, whose identity the task's document holds. Every
//! attempt first gives it a name of its own, so that earlier attempts find nothing to rename or merge.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bson::Bson;

use super::attempt::Attempt;
use super::complete;
use crate::config;
use crate::error::{Error, Result};
use crate::job::{JobState, Output, OutputMode};
use crate::planted::planted;
use crate::protocol::publish::{Place, Step, View, next};
use crate::store::Store;
use crate::store::merging::Piece;
use crate::store::retry;
use crate::store::turns::Turn;
use crate::task::counters::{UNMATCHED, UPDATED};
use crate::task::{Marks, Publish, TaskResult};

/// Runs the task's work; the caller commits.
pub(super) async fn run(attempt: &Arc<Attempt>) -> Result<TaskResult> {
    let publish = attempt.task.publish.clone().ok_or_else(|| {
        Error::Internal(format!("publish task {} does not say what it publishes", attempt.task.id))
    })?;
    let staged = Output::staged(&attempt.job.id, attempt.lease.token.as_str());
    let mut publisher = Publisher {
        attempt,
        output: &attempt.job.spec.output,
        publish,
        staged,
        seen: None,
        has_turn: false,
        indexed: false,
        unsure: false,
        updated: 0,
    };
    publisher.publish().await?;
    let counters = match attempt.job.spec.output.mode {
        OutputMode::Update => bson::doc! {
            UPDATED: publisher.updated,
            UNMATCHED: publisher.publish.rows.saturating_sub(publisher.updated),
        },
        _ => bson::Document::new(),
    };
    Ok(TaskResult { token: attempt.lease.token.clone(), parts: Vec::new(), counters })
}

struct Publisher<'a> {
    attempt: &'a Arc<Attempt>,
    output: &'a Output,
    /// As the task's document has it.
    publish: Publish,
    /// The name that only this attempt gives the results.
    staged: String,
    /// The name that the results bore before the last confirmation, until the next look.
    seen: Option<Option<String>>,
    has_turn: bool,
    indexed: bool,
    /// Whether a rename or a merge of this attempt may still be on its way.
    unsure: bool,
    /// Documents of the target that results have been merged into, for `update`.
    updated: i64,
}

impl Publisher<'_> {
    fn store(&self) -> &Store {
        &self.attempt.store
    }

    /// Takes step after step until the results are in place.
    async fn publish(&mut self) -> Result<()> {
        loop {
            self.attempt.check()?;
            let (cancel, name) = tokio::join!(self.is_cancelled(), self.look());
            let (cancel, name) = (cancel?, name?);
            let view = View {
                mode: self.output.mode,
                marks: self.publish.marks,
                place: self.place(name.as_deref()),
                sure: self.seen.take().is_some_and(|seen| seen == name),
                has_turn: self.has_turn,
                indexed: self.indexed,
                cancel,
                exhausted: self.attempt.task.lost >= config::LOST_MAX - 1,
            };
            let step = next(&view);
            tracing::debug!(task = %self.attempt.task.id, ?step, "publishing");
            match step {
                Step::MakeSure => {
                    if !planted("failure-unfenced") {
                        self.confirm().await?;
                    }
                    self.seen = Some(name);
                }
                Step::Gone => return Err(self.vanished()),
                Step::TakeOver { end_merges } => {
                    self.take_over(name.as_deref().unwrap_or_default(), end_merges).await?;
                }
                Step::TakeTurn => self.take_turn().await?,
                Step::Count => self.count().await?,
                Step::Complete => self.complete().await?,
                Step::CopyIndexes => {
                    self.store().catch_up(self.output, &self.staged).await?;
                    self.store().copy_indexes(self.output, &self.staged).await?;
                    self.indexed = true;
                }
                Step::Begin => {
                    crate::halt::point(match self.output.mode {
                        OutputMode::Replace => "publish.rename",
                        _ => "publish.merge",
                    })
                    .await;
                    if self.output.mode.adds() {
                        // What the target would refuse by now is told while nothing is merged.
                        self.store().catch_up(self.output, &self.staged).await?;
                    }
                    self.note(Marks { begun: true, ..self.publish.marks }).await?;
                }
                Step::Rename => self.rename().await?,
                Step::Merge => {
                    if self.merge().await? && self.is_settled().await? {
                        crate::halt::point("publish.merged").await;
                        return Ok(());
                    }
                }
                Step::Commit => {
                    crate::halt::point("publish.renamed").await;
                    return Ok(());
                }
                Step::Cancel if self.unsure => self.disarm().await?,
                Step::Cancel => return Err(Error::JobCancelled(self.attempt.job.id.to_string())),
                Step::GiveUp => return Err(self.exhausted()),
            }
        }
    }

    /// Whether a person wants the job to end.
    ///
    /// # Errors
    /// [`Error::JobCancelled`] when it has ended already, [`Error::NotYet`] while it is stopped.
    async fn is_cancelled(&self) -> Result<bool> {
        let mine = &self.attempt.job;
        let ended = || Error::JobCancelled(mine.id.to_string());
        let job = self.store().job(&mine.id).await?.ok_or_else(ended)?;
        match job.state {
            JobState::Publishing if job.plan == self.attempt.task.plan => Ok(job.cancel),
            JobState::Stopped => Err(Error::NotYet(format!("job {} is stopped", job.id))),
            _ => Err(ended()),
        }
    }

    /// The name that the results bear now.
    async fn look(&self) -> Result<Option<String>> {
        let name = self.store().name_of(&self.output.db, &self.publish.uuid).await?;
        if let Some(name) = &name {
            let own = Output::hidden(&self.attempt.job.id);
            let is_own = name
                .strip_prefix(&own)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
            // Nothing that belongs to anybody else is ever moved or dropped, whatever a document says.
            if !is_own && *name != self.output.collection {
                return Err(Error::refused(
                    format!(
                        "the identity of the job's results is that of {}.{name}",
                        self.output.db
                    ),
                    "it is not the job's, and was left alone",
                ));
            }
        }
        Ok(name)
    }

    fn place(&self, name: Option<&str>) -> Place {
        match name {
            None => Place::Gone,
            // An inline result stays where its tasks wrote it.
            Some(name) if self.output.mode == OutputMode::Inline => {
                let own = name == self.output.collection;
                if own { Place::Mine } else { Place::Elsewhere }
            }
            Some(name) if name == self.staged => Place::Mine,
            Some(name) if name == self.output.collection => Place::Target,
            Some(_) => Place::Elsewhere,
        }
    }

    /// Where the results are read from now.
    fn source(&self) -> &str {
        match self.output.mode {
            OutputMode::Inline => &self.output.collection,
            _ => &self.staged,
        }
    }

    async fn note(&mut self, marks: Marks) -> Result<()> {
        let unmarked = marks.begun && planted("begin-unmarked")
            || marks.counted && !marks.begun && planted("count-unmarked");
        if unmarked {
            self.publish.marks = marks;
            return Ok(());
        }
        let publish = Publish { marks, ..self.publish.clone() };
        self.store().note_publish(&self.attempt.lease, &publish).await?;
        self.publish = publish;
        Ok(())
    }

    /// Makes sure that the task is still this attempt's, and that what is read from here on is no older than
    /// this: both writes are acknowledged by a majority, and reads of a server that has not seen them fail.
    async fn confirm(&self) -> Result<()> {
        let store = self.store();
        tokio::try_join!(store.cluster_time(), store.confirm(&self.attempt.lease)).map(|_| ())
    }

    async fn take_over(&mut self, name: &str, end_merges: bool) -> Result<()> {
        let store = self.store();
        // What is found under the own name is a ghost, or the results before they were completed.
        store.drop_collection(&self.output.db, &self.staged).await?;
        let to = match self.output.mode {
            OutputMode::Inline => &self.output.collection,
            _ => &self.staged,
        };
        store.rename(&self.output.db, name, to, false).await?;
        if end_merges {
            // Nobody else can begin to merge from here on; what has begun ends first.
            store.end_merges(self.attempt.job.id.as_str()).await?;
        }
        crate::halt::point("publish.staged").await;
        Ok(())
    }

    async fn confirm_lease(&self) -> Result<()> {
        self.store().confirm(&self.attempt.lease).await
    }

    async fn take_turn(&mut self) -> Result<()> {
        match self.store().take_turn(&self.attempt.job).await? {
            Turn::Mine => {
                self.has_turn = true;
                Ok(())
            }
            Turn::Taken(other) => {
                let Output { db, collection, .. } = self.output;
                Err(Error::NotYet(format!("job {other} publishes into {db}.{collection}")))
            }
        }
    }

    async fn count(&mut self) -> Result<()> {
        self.check_count(self.source()).await?;
        if self.output.mode.adds() {
            self.store().refuse_null_key(self.output, self.source()).await?;
        }
        self.note(Marks { counted: true, ..self.publish.marks }).await
    }

    /// What the tasks say they wrote must be what is there, to the document.
    async fn check_count(&self, name: &str) -> Result<()> {
        let (db, rows) = (&self.output.db, self.publish.rows);
        let is_right = |found: u64| u64::try_from(rows) == Ok(found);
        if is_right(self.store().count_exactly(db, name).await?) {
            return Ok(());
        }
        // Right after a failover, a majority read may lag behind what was acknowledged before.
        self.confirm().await?;
        let found = self.store().count_exactly(db, name).await?;
        if is_right(found) {
            return Ok(());
        }
        self.confirm_lease().await?;
        let why = if self.attempt.job.spec.reduce.is_none() {
            "a map-only job must emit each key once"
        } else {
            "a function is not deterministic, or somebody wrote to the job's hidden collection"
        };
        Err(Error::refused(
            format!("the tasks wrote {rows} results, the collection holds {found}"),
            format!("{why}; nothing was published"),
        ))
    }

    /// Computes what the target is to hold, and makes that the result.
    async fn complete(&mut self) -> Result<()> {
        let whole = complete::complete(self.attempt, &self.staged).await?;
        self.check_count(&whole.name).await?;
        crate::halt::point("publish.completed").await;
        let publish = Publish {
            uuid: whole.uuid,
            marks: Marks { completed: true, ..self.publish.marks },
            ..self.publish.clone()
        };
        self.store().note_publish(&self.attempt.lease, &publish).await?;
        self.publish = publish;
        crate::halt::point("publish.recorded").await;
        Ok(())
    }

    async fn rename(&mut self) -> Result<()> {
        let Output { db, collection, .. } = self.output;
        match self.store().rename(db, &self.staged, collection, true).await {
            // Not there any more: looking for it again tells where it is.
            Ok(_) => Ok(()),
            Err(error) if error.is_transient() => {
                tracing::debug!(%error, "the rename's outcome is unknown; looking for it");
                self.unsure = true;
                tokio::time::sleep(retry::HOLDER.pause).await;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// A rename or a merge that this attempt has sent may still be on its way. Behind another rename it has either
    /// taken effect, or finds nothing to rename or merge.
    async fn disarm(&mut self) -> Result<()> {
        let (db, other) = (&self.output.db, format!("{}-kept", self.staged));
        self.store().drop_collection(db, &other).await?;
        self.store().rename(db, &self.staged, &other, false).await?;
        self.staged = other;
        if self.output.mode.adds() {
            self.store().end_merges(self.attempt.job.id.as_str()).await?;
        }
        self.unsure = false;
        Ok(())
    }

    /// Merges the results into the target, a piece at a time. `false` when a person wants the job to end.
    async fn merge(&mut self) -> Result<bool> {
        let store = self.store().clone();
        let (mut merged, mut updated): (Option<Piece>, i64) = (None, 0);
        let mut target = self.target().await?;
        let unsure = AtomicBool::new(self.unsure);
        loop {
            self.attempt.check()?;
            if self.is_cancelled().await? {
                self.unsure = unsure.into_inner();
                return Ok(false);
            }
            let piece = retry::while_transient(retry::HOLDER, || {
                store.next_piece(self.output, &self.staged, merged.as_ref())
            })
            .await?;
            // Noted before it is merged, so that nobody ever says less than what is there.
            let reached = if piece.is_last() { self.publish.rows } else { piece.rows };
            store.note_reached(&self.attempt.lease, reached).await?;
            retry::while_transient(retry::HOLDER, async || {
                let done = self.merge_piece(&piece).await;
                let is_unsure = done.as_ref().is_err_and(Error::is_transient);
                unsure.fetch_or(is_unsure, Ordering::Relaxed);
                done
            })
            .await?;
            let now = self.target().await?;
            if target.is_some() && now != target {
                return Err(self.target_moved());
            }
            target = now;
            self.attempt.progress.store(reached, Ordering::Relaxed);
            if self.output.mode == OutputMode::Update {
                updated += retry::while_transient(retry::HOLDER, || {
                    store.count_matched(self.output, &self.staged, &piece)
                })
                .await?;
            }
            if piece.is_last() {
                self.updated = updated;
                self.unsure = unsure.into_inner();
                return Ok(true);
            }
            crate::halt::point("publish.piece").await;
            merged = Some(piece);
        }
    }

    /// Whether what was merged is all there was, and nothing is on its way any more: a merge finds nothing where
    /// the results have gone from.
    async fn is_settled(&mut self) -> Result<bool> {
        if self.look().await?.as_ref() != Some(&self.staged) {
            return Ok(false);
        }
        if self.unsure {
            self.disarm().await?;
        }
        Ok(true)
    }

    /// The identity of the target, if it is there.
    async fn target(&self) -> Result<Option<Bson>> {
        self.store().identity(&self.output.db, &self.output.collection).await
    }

    async fn merge_piece(&self, piece: &Piece) -> Result<()> {
        self.attempt.check()?;
        let job = &self.attempt.job.id;
        self.store().merge_piece(self.output, &self.staged, job, piece).await
    }

    fn exhausted(&self) -> Error {
        let task = &self.attempt.task;
        Error::refused(
            format!(
                "the worker vanished in {} attempts to publish, the last time before {}",
                task.lost,
                task.worker.as_deref().unwrap_or("?")
            ),
            "see the workers' logs: reduce and finalize run while publishing, or memory ran out",
        )
    }

    fn vanished(&self) -> Error {
        let job = &self.attempt.job.id;
        let hint = if self.publish.marks.begun && self.output.mode.adds() {
            format!(
                "somebody dropped it when a part of it may have been merged already, so do not submit the job again \
                 as it is; aviary cancel {job} ends it"
            )
        } else {
            "somebody dropped it; nothing was published, so the job can be submitted again"
                .to_owned()
        };
        Error::refused(format!("the job's hidden collection {} is gone", Output::hidden(job)), hint)
    }

    fn target_moved(&self) -> Error {
        let (Output { db, collection, .. }, job) = (self.output, &self.attempt.job.id);
        Error::refused(
            format!(
                "{db}.{collection} was dropped, renamed or replaced while results were merged into it"
            ),
            format!(
                "a part of them went with it: aviary resume {job} merges them all into what bears the name by then; \
                 aviary cancel {job} leaves it at that"
            ),
        )
    }
}
