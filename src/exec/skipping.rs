//! Calls that may fail on some of their records: what those emitted is taken back, all others' emits count once.
//!
//! A call gives its sink everything of all its records, and ends at the first that fails: what came before it is in
//! the sink, in the middle of it may be a part of the failed one, and sums that the instance has kept for the end of the
//! call are lost with it. So a sink that can be used so ([`Undo`]) holds what one call gives until the call has ended
//! well. If it has not, all of it is dropped, and the records go one by one through a fresh instance, each in a call of
//! its own; those that fail again are left out. A batch is small (256 KiB), so rare failures cost little.

use std::time::Instant;

use super::function::{
    Batch, Guest, StreamCall, describe, from_sink, instance, is_over, name_one_of, name_record,
    too_late,
};
use crate::error::{Error, Result};
use crate::wasm::{GuestError, Sink, Stage};

/// A sink that holds what a call gives it until it is told what becomes of it.
pub trait Undo: Sink {
    /// The call has ended well: what it gave counts.
    ///
    /// # Errors
    /// What keeps it from being taken, which is no fault of one record's.
    fn keep(&mut self) -> Result<()>;

    /// What the call gave is dropped. `again` says that the same records follow once more, so that what they log
    /// was heard already.
    fn undo(&mut self, again: bool);

    /// The sink for the next instance, with all that counts so far; this one is used no more.
    fn moved(&mut self) -> Self;
}

/// Takes a record that failed, as the function was given it, and why.
pub type TakeFailed<'a> = &'a mut dyn FnMut(&[u8], Error) -> Result<()>;

/// How a call failed on a record.
struct Fault {
    error: Error,
    /// Whether what the instance has kept of earlier records may be to blame.
    may_be_of_others: bool,
}

impl<S: Undo> Guest<S> {
    /// Runs the function over a batch, and gives each record that it fails on to `failed`.
    ///
    /// # Errors
    /// What is no record's fault (no time left for the task, no room for an instance, a lost lease), and what `failed`
    /// and the sink return.
    pub fn call_skipping(&mut self, batch: &Batch, failed: TakeFailed<'_>) -> Result<()> {
        let name = |stage| name_one_of(stage, batch);
        let Some(fault) = self.tried(batch.bytes(), batch.len() > 1, name)? else { return Ok(()) };
        // How long a record took alone was learnt from it; how long a failed call took says nothing.
        let alone = batch.len() == 1 && !fault.may_be_of_others;
        self.start_again(!alone)?;
        if alone {
            let doc = batch.documents().next().unwrap_or_default();
            return failed(doc, fault.error);
        }
        let mut is_fresh = true;
        for doc in batch.documents() {
            let name = |stage| name_record(stage, doc);
            let mut fault = self.tried(doc, false, name)?;
            if let Some(found) = &fault {
                let once_more = found.may_be_of_others && !is_fresh;
                self.start_again(once_more)?;
                is_fresh = true;
                if once_more {
                    fault = self.tried(doc, false, name)?;
                    if fault.is_some() {
                        self.start_again(false)?;
                    }
                }
            }
            match fault {
                Some(fault) => failed(doc, fault.error)?,
                None => is_fresh = false,
            }
        }
        Ok(())
    }

    /// One call, whose emits count if it ends well. All its records together may emit as much as one of them, so that
    /// none of them emits more than it may.
    fn tried(
        &mut self,
        input: &[u8],
        is_several: bool,
        name: impl Fn(Stage) -> Option<String>,
    ) -> Result<Option<Fault>> {
        let stage = self.loaded.stage;
        self.begin_call(|| name(stage))?;
        let started = Instant::now();
        let called = self.instance.call(stage, input);
        if called.is_ok() || is_several {
            self.pace.took(started.elapsed());
        }
        match called {
            Ok(()) => self.sink_mut().keep().map(|()| None),
            Err(error) => self.fault(error, name(stage)).map(Some),
        }
    }

    /// Runs one step of a reduce that streams; a failure ends its group, and leaves an instance that is of no use.
    ///
    /// # Errors
    /// As [`Guest::call_skipping`].
    pub fn stream_skipping(&mut self, call: StreamCall<'_>, group: &[u8]) -> Result<Option<Error>> {
        match self.stream(call, group) {
            Ok(()) => Ok(None),
            Err(error @ (Error::Function(_) | Error::Refused { .. })) => Ok(Some(error)),
            Err(error) => Err(error),
        }
    }

    /// Drops what the last call gave, and goes on with a fresh instance.
    ///
    /// # Errors
    /// When there is none to be had.
    pub fn start_again(&mut self, again: bool) -> Result<()> {
        self.sink_mut().undo(again);
        let sink = self.sink_mut().moved();
        self.instance = instance(&self.loaded, sink)?;
        Ok(())
    }

    /// What a record is to blame for, and what ends the attempt.
    fn fault(&self, error: GuestError, record: Option<String>) -> Result<Fault> {
        if is_over(&self.loaded, &error) {
            return Err(too_late(&self.loaded, record));
        }
        match error {
            // Only what the rules for emits refuse; everything else is a lost lease, a full disk and the like.
            GuestError::Sink { error, .. } => match from_sink(error) {
                error @ Error::Refused { .. } => Ok(Fault { error, may_be_of_others: false }),
                error => Err(error),
            },
            GuestError::Memory { .. } | GuestError::BadAlloc { .. } => {
                let error = describe(&self.loaded, error, record);
                Ok(Fault { error, may_be_of_others: true })
            }
            GuestError::Failed { .. }
            | GuestError::Trap { .. }
            | GuestError::Timeout { .. }
            | GuestError::Output { .. }
            | GuestError::BadEmit { .. }
            | GuestError::Exit { .. }
            | GuestError::Input { .. } => {
                let error = describe(&self.loaded, error, record);
                Ok(Fault { error, may_be_of_others: false })
            }
            GuestError::NotExported { .. }
            | GuestError::Script { .. }
            | GuestError::Busy { .. }
            | GuestError::Instantiate { .. }
            | GuestError::Poisoned { .. } => Err(describe(&self.loaded, error, record)),
        }
    }
}
