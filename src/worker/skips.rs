//! Records that an attempt leaves out: written in batches, counted by the commit.

use std::sync::Arc;
use std::time::Duration;

use bson::raw::{RawDocument, RawDocumentBuf};
use tokio::runtime::Handle;

use super::attempt::Attempt;
use crate::config;
use crate::error::{Error, FunctionError, Result};
use crate::exec::rereduce::field_of;
use crate::job::{FunctionRef, Reducer};
use crate::store::failed::Failing;
use crate::wasm::Stage;

/// The records that one attempt leaves out.
pub(super) struct Skips {
    attempt: Arc<Attempt>,
    count: u64,
    /// How many an earlier stage of the same attempt has left out.
    before: u64,
    first: Option<String>,
    waiting: Vec<RawDocumentBuf>,
    waiting_bytes: usize,
}

impl Skips {
    /// None yet; `before` were left out by an earlier stage of the same attempt.
    pub(super) fn new(attempt: &Arc<Attempt>, before: u64) -> Self {
        Self {
            attempt: attempt.clone(),
            count: before,
            before,
            first: None,
            waiting: Vec::new(),
            waiting_bytes: 0,
        }
    }

    /// Whether records may be left out at all.
    pub(super) fn are_allowed(attempt: &Attempt) -> bool {
        !attempt.job.spec.on_error.is_fail()
    }

    /// Leaves a record out, which lies in the document that the function was given. It is called on a thread that may
    /// block.
    ///
    /// # Errors
    /// [`Error::Refused`] when they are too many, and what keeps them from being written.
    pub(super) fn take(&mut self, stage: Stage, record: &[u8], error: &Error) -> Result<()> {
        let attempt = self.attempt.clone();
        attempt.check()?;
        let shown = first_line(error);
        let (what, text, stack) = match error {
            Error::Function(error) => {
                let FunctionError { what, message, stack, .. } = error.as_ref();
                (*what, message.clone(), stack.as_str())
            }
            other => ("emitted what cannot be taken", other.to_string(), ""),
        };
        let function = function_of(&attempt, stage);
        let doc = RawDocument::from_bytes(record).ok();
        let field = if stage == Stage::Map { "_id" } else { "k" };
        let id = doc.and_then(|doc| field_of(doc, field).ok().flatten());
        let task = &attempt.task;
        let document = Failing {
            task: &task.id,
            job: &task.job,
            plan: task.plan,
            attempt: task.epoch,
            token: &attempt.lease.token,
            n: self.count,
            stage: stage.name(),
            function: function.map_or("", |function| function.digest.as_str()),
            name: function.and_then(|function| function.name.as_deref()),
            what,
            error: &text,
            stack,
            id,
            record: doc,
            bytes: record.len(),
        }
        .to_document();
        tracing::debug!(task = %task.id, error = %shown, "leaving a record out");
        self.first.get_or_insert(shown);
        self.count += 1;
        self.waiting_bytes += document.as_bytes().len();
        self.waiting.push(document);
        let policy = attempt.job.spec.on_error;
        if self.count > policy.in_one_task() {
            self.flush()?;
            // The map of a one-task job has told of its own.
            let which = if self.before > 0 { "after those of the map" } else { "the first" };
            let more = format!("; {which}: {}", self.first.as_deref().unwrap_or("?"));
            return Err(policy.refusal(self.count, " in one task", &more, &task.job));
        }
        if self.waiting_bytes >= config::WRITE_BATCH_BYTES
            || self.waiting.len() >= config::WRITE_BATCH_DOCS
        {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes what is left, and says how many the attempt has left out in all.
    ///
    /// # Errors
    /// What keeps them from being written.
    pub(super) fn finish(mut self) -> Result<u64> {
        self.flush()?;
        Ok(self.count)
    }

    /// Writes what waits, through failovers as long as the lease lasts.
    fn flush(&mut self) -> Result<()> {
        const PAUSE: Duration = Duration::from_millis(200);
        if self.waiting.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        loop {
            self.attempt.check()?;
            let store = self.attempt.store.clone();
            match Handle::current().block_on(store.insert_failed(&batch)) {
                Err(error) if error.is_transient() => std::thread::sleep(PAUSE),
                written => break written?,
            }
        }
        crate::halt::point_blocking("skip.write");
        Ok(())
    }
}

/// An error without its stack.
fn first_line(error: &Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// The function that runs as this stage.
fn function_of(attempt: &Attempt, stage: Stage) -> Option<&FunctionRef> {
    let spec = &attempt.job.spec;
    match stage {
        Stage::Map => Some(&spec.map),
        Stage::Combine => spec.combine.as_ref(),
        Stage::Reduce => match &spec.reduce {
            Some(Reducer::Function(function)) => Some(function),
            Some(Reducer::Builtin(_)) | None => None,
        },
        Stage::Finalize => spec.finalize.as_ref(),
    }
}
