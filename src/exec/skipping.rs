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
        let (mut is_fresh, mut any_failed) = (true, false);
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
                Some(fault) => {
                    any_failed = true;
                    failed(doc, fault.error)?;
                }
                None => is_fresh = false,
            }
        }
        if !any_failed {
            self.pace.shrink();
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

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;
    use crate::exec::prepare::{self, ExecEnv};
    use crate::wasm::{Host, HostOptions, Level, Limits, SinkError};

    /// Counts the emits it is given, and those that count.
    #[derive(Default)]
    struct Counting {
        given: u64,
        waiting: u64,
        kept: u64,
        instances: u64,
        lines: u64,
    }

    impl Sink for Counting {
        fn emit(&mut self, _: &[u8], _: &[u8]) -> std::result::Result<(), SinkError> {
            self.given += 1;
            self.waiting += 1;
            Ok(())
        }
        fn count(&mut self, _: &str, _: i64) {}
        fn log(&mut self, _: Level, _: &str) {
            self.lines += 1;
        }
    }

    impl Undo for Counting {
        fn keep(&mut self) -> Result<()> {
            self.kept += std::mem::take(&mut self.waiting);
            Ok(())
        }
        fn undo(&mut self, _: bool) {
            self.waiting = 0;
        }
        fn moved(&mut self) -> Self {
            let instances = self.instances + 1;
            Self { instances, ..std::mem::take(self) }
        }
    }

    #[tokio::test]
    async fn one_failure_in_a_million_costs_next_to_nothing() {
        const DOCUMENTS: i32 = 1_000_000;
        const BAD: i32 = 700_001;
        let host = Host::new(HostOptions::default()).unwrap();
        let around = ExecEnv {
            now_ms: 0,
            seed: [0; 32],
            scope: doc! {}.to_vec().unwrap(),
            limits: Limits::default(),
            deadline: None,
            careful: false,
            interrupt: crate::wasm::Interrupt::default(),
        };
        let map = format!(
            "function () {{ emit(this._id, 1); if (this._id === {BAD}) throw new Error('bad'); }}"
        );
        let loaded =
            prepare::compile(&host, "js", map.into_bytes(), Stage::Map, &around).await.unwrap();
        let mut guest = Guest::start(loaded, Counting::default()).unwrap();
        let mut batch = Batch::default();
        let mut failed = Vec::new();
        for n in 0..DOCUMENTS {
            batch.push(&doc! { "_id": n, "text": "x".repeat(50) }.to_vec().unwrap());
            if batch.bytes().len() >= guest.bytes_target() || n + 1 == DOCUMENTS {
                guest
                    .call_skipping(&batch, &mut |record, error| {
                        failed.push((record.to_vec(), error.to_string()));
                        Ok(())
                    })
                    .unwrap();
                batch.clear();
            }
        }
        let sink = guest.into_sink();
        assert_eq!(sink.kept, u64::from(DOCUMENTS.unsigned_abs()) - 1);
        assert!(sink.given < sink.kept + sink.kept / 20, "{} emits of {}", sink.given, sink.kept);
        assert_eq!(sink.instances, 2, "one after the batch, one after the record");
        assert_eq!(failed.len(), 1);
        let (record, error) = failed.remove(0);
        let record = bson::RawDocument::from_bytes(&record).unwrap();
        assert_eq!(record.get_i32("_id").unwrap(), BAD);
        assert!(error.contains("Error: bad") && error.contains(&BAD.to_string()), "{error}");
    }
}
