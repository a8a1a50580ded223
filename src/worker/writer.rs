//! From a thread that computes to the database: batches through a bounded channel, written behind
//! the lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bson::RawDocumentBuf;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle, JoinSet};

use super::attempt::Attempt;
use crate::config;
use crate::error::{Error, Result};
use crate::job::Output;

/// Where batches go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Blocks into the shuffle.
    Blocks,
    /// Results into the job's hidden collection.
    Output,
}

/// The computing side: gathers documents into batches.
pub(super) struct Writer {
    tx: mpsc::Sender<Vec<RawDocumentBuf>>,
    batch: Vec<RawDocumentBuf>,
    bytes: usize,
    met_end: Arc<AtomicBool>,
}

/// The writing side, to be awaited after the computing side is done.
pub(super) struct Written {
    task: JoinHandle<Result<()>>,
    /// Whether the computing side failed because the writing side had ended.
    met_end: Arc<AtomicBool>,
}

/// Starts a writer. Batches are written in the background with `w: majority`, each only while the
/// lease is trusted.
pub(super) fn start(attempt: &Arc<Attempt>, target: Target) -> (Writer, Written) {
    let (tx, rx) = mpsc::channel(config::BATCHES_WAITING_MAX);
    let task = tokio::spawn(write_all(attempt.clone(), target, rx));
    let met_end = Arc::new(AtomicBool::new(false));
    (
        Writer { tx, batch: Vec::new(), bytes: 0, met_end: met_end.clone() },
        Written { task, met_end },
    )
}

impl Writer {
    /// Takes a document; waits when too many are on their way.
    ///
    /// # Errors
    /// [`Error::Internal`] when the writing side has ended; its own error says why.
    pub(super) fn push(&mut self, doc: RawDocumentBuf) -> Result<()> {
        self.bytes += doc.as_bytes().len();
        self.batch.push(doc);
        if self.bytes >= config::WRITE_BATCH_BYTES || self.batch.len() >= config::WRITE_BATCH_DOCS {
            self.flush()?;
        }
        Ok(())
    }

    /// Sends what is gathered and ends the stream of batches.
    ///
    /// # Errors
    /// As [`Writer::push`].
    pub(super) fn finish(mut self) -> Result<()> {
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        self.tx.blocking_send(std::mem::take(&mut self.batch)).map_err(|_| {
            self.met_end.store(true, Ordering::Release);
            Error::Internal("the writer has ended".into())
        })
    }
}

impl Written {
    /// Waits until everything is written, and picks the error that tells more: `computed`, or the
    /// writer's own.
    pub(super) async fn and<T>(self, computed: Result<T>) -> Result<T> {
        let written = match self.task.await {
            Ok(written) => written,
            Err(error) => Err(Error::Internal(format!("the writer panicked: {error}"))),
        };
        match (computed, written) {
            (Err(_), Err(error)) if self.met_end.load(Ordering::Acquire) => Err(error),
            (Err(error), _) | (Ok(_), Err(error)) => Err(error),
            (Ok(value), Ok(())) => Ok(value),
        }
    }
}

/// Writes what arrives, a few batches at a time: each waits for a majority of the servers, and the waits
/// may overlap. Returns only when nothing is on its way any more, whether it went well or not.
async fn write_all(
    attempt: Arc<Attempt>,
    target: Target,
    mut rx: mpsc::Receiver<Vec<RawDocumentBuf>>,
) -> Result<()> {
    let mut writes = JoinSet::new();
    let mut outcome = Ok(());
    while outcome.is_ok() {
        let Some(batch) = rx.recv().await else { break };
        if writes.len() >= config::WRITES_IN_FLIGHT {
            outcome = written(writes.join_next().await);
        }
        writes.spawn(write_batch(attempt.clone(), target, batch));
    }
    while let Some(ended) = writes.join_next().await {
        outcome = outcome.and(written(Some(ended)));
    }
    outcome
}

fn written(ended: Option<std::result::Result<Result<()>, JoinError>>) -> Result<()> {
    match ended {
        None => Ok(()),
        Some(Ok(outcome)) => outcome,
        Some(Err(error)) => Err(Error::Internal(format!("the writer panicked: {error}"))),
    }
}

/// Writes a batch, through failovers as long as the lease lasts.
async fn write_batch(
    attempt: Arc<Attempt>,
    target: Target,
    batch: Vec<RawDocumentBuf>,
) -> Result<()> {
    const PAUSE: Duration = Duration::from_millis(200);
    let mut again = attempt.is_repeat();
    if target == Target::Output {
        attempt.confirm_claim().await?;
    }
    loop {
        attempt.check()?;
        let written = match target {
            Target::Blocks => attempt.store.insert_blocks(&batch).await,
            Target::Output => {
                let output = &attempt.job.spec.output;
                let hidden = Output::hidden(&attempt.job.id);
                attempt.store.insert_output(output, &hidden, &batch, again).await
            }
        };
        match written {
            Err(error) if error.is_transient() => {
                tracing::debug!(task = %attempt.task.id, %error, "could not write; trying again");
                // Part of the batch may have been written.
                again = true;
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error),
            Ok(()) => break,
        }
    }
    crate::halt::point(match target {
        Target::Blocks => "map.write",
        Target::Output => "reduce.write",
    })
    .await;
    Ok(())
}
