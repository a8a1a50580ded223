//! What becomes of a group: reduced, finalized, handed on as a result.
//!
//! Small groups travel to the function many at a time. What becomes of a group with more values than
//! one buffer takes depends on the job ([`OversizePolicy`]): as a rule it is reduced piece by piece, each piece
//! beginning with the result of the one before, for reduce functions are associative, as MongoDB's
//! must be. A function that streams takes groups of any length.

use std::collections::VecDeque;

use super::combiner::boxed;
use super::function::{self, Batch, Guest};
use super::log_buffer::LogSink;
use super::skipping::Undo;
use super::streaming_reduce;
use super::values_chunk::ValuesChunk;
use crate::config;
use crate::error::{Error, Result};
use crate::shuffle::builtin::{Accumulator, Builtin};
use crate::task::Counters;
use crate::value::key;
use crate::value::{RawVal, RawValBuf, close_document};
use crate::wasm::{Level, Sink, SinkError, Stage};

/// How values become one.
pub enum How {
    /// By a native function; values are its partial states, or raw values for `try`.
    Builtin(Builtin),
    /// By a user's function.
    Function(Box<Guest<Pairs>>),
}

/// How a group gets shorter that has more values than one call takes, where the function does not stream.
pub enum OversizePolicy {
    /// By the function itself, which is associative.
    Reduce,
    /// By the job's combine, which is there for this.
    Combine(Box<Guest<Pairs>>),
    /// Not at all: the function must see every value in one call.
    Never,
}

/// Takes a result: its key and value.
pub type ResultSink<'a> = &'a mut dyn FnMut(RawVal<'_>, RawVal<'_>) -> Result<()>;

/// Reduces groups that come in key order.
pub struct Reducer {
    how: How,
    long: OversizePolicy,
    finalize: Option<Guest<Pairs>>,
    /// Whether a key's only value is its result.
    skip_single: bool,
    batch: Batch,
    /// The encoded keys in `batch`, in order.
    expected: VecDeque<Vec<u8>>,
    finalize_batch: Batch,
    finalize_expected: VecDeque<Vec<u8>>,
    /// Where groups go that a function fails on, if they do not end the attempt.
    left_out: Option<TakeGroup>,
}

/// Collects emitted pairs in order.
pub struct Pairs {
    pairs: Vec<(RawValBuf, RawValBuf)>,
    /// How many more are taken.
    room: usize,
    counters: Counters,
    tap: LogSink,
    /// Pairs of calls that have ended well, and what the one since has counted, where calls may fail.
    kept: usize,
    counts: Option<Counters>,
}

impl Pairs {
    /// An empty collection for a task's function.
    pub fn new(tap: LogSink) -> Self {
        let counters = Counters::default();
        Self { pairs: Vec::new(), room: 0, counters, tap, kept: 0, counts: None }
    }

    /// The same where the function may fail on some keys.
    #[must_use]
    pub fn holding(self, holds: bool) -> Self {
        Self { counts: holds.then(Counters::default), ..self }
    }

    /// Makes room for the results of so many groups, and one more: which of them is too many is found
    /// by their keys. A function that emits without end is stopped.
    pub(crate) fn expect(&mut self, groups: usize) {
        self.room = groups + 1;
    }

    /// Takes out what was emitted.
    pub(crate) fn take(&mut self) -> Vec<(RawValBuf, RawValBuf)> {
        self.kept = 0;
        std::mem::take(&mut self.pairs)
    }
}

impl Sink for Pairs {
    fn emit(&mut self, key: &[u8], value: &[u8]) -> std::result::Result<(), SinkError> {
        let key = function::raw(key).map_err(boxed)?;
        let value = function::raw(value).map_err(boxed)?;
        let key = RawValBuf::from(key);
        if self.room == 0 {
            let why = "it has emitted more than one result for each group already";
            return Err(boxed(other_key(self.tap.stage(), &key, why)));
        }
        self.room -= 1;
        self.pairs.push((key, RawValBuf::from(value)));
        Ok(())
    }
    fn count(&mut self, name: &str, delta: i64) {
        let counters = self.counts.as_mut().unwrap_or(&mut self.counters);
        if !counters.count(name, delta) {
            self.tap.counter_refused(name);
        }
    }
    fn log(&mut self, level: Level, text: &str) {
        self.tap.line(level, text);
    }
}

impl Undo for Pairs {
    fn keep(&mut self) -> Result<()> {
        self.kept = self.pairs.len();
        let counts = self.counts.as_mut().map(|counts| std::mem::take(&mut counts.user));
        for (name, delta) in counts.into_iter().flatten() {
            if !self.counters.count(&name, delta) {
                self.tap.counter_refused(&name);
            }
        }
        Ok(())
    }

    fn undo(&mut self, _again: bool) {
        self.room += self.pairs.len() - self.kept;
        self.pairs.truncate(self.kept);
        if let Some(counts) = &mut self.counts {
            counts.user.clear();
        }
    }

    fn moved(&mut self) -> Self {
        let fresh = Self::new(self.tap.clone());
        std::mem::replace(self, fresh)
    }
}

/// Takes a group that a function failed on, as that was given it.
pub type TakeGroup = Box<dyn FnMut(Stage, &[u8], Error) -> Result<()> + Send>;

/// Calls a function that may fail on some groups, where that is allowed.
fn called(
    function: &mut Guest<Pairs>,
    stage: Stage,
    batch: &Batch,
    left_out: &mut Option<TakeGroup>,
) -> Result<()> {
    match left_out {
        None => function.call(batch),
        Some(take) => function.call_skipping(batch, &mut |group, error| take(stage, group, error)),
    }
}

impl Reducer {
    /// A reducer for one task.
    pub fn new(how: How, long: OversizePolicy, finalize: Option<Guest<Pairs>>) -> Self {
        Self {
            how,
            long,
            finalize,
            skip_single: false,
            batch: Batch::default(),
            expected: VecDeque::new(),
            finalize_batch: Batch::default(),
            finalize_expected: VecDeque::new(),
            left_out: None,
        }
    }

    /// The same reducer, but a group that a function fails on is given to `take`, and has no result.
    #[must_use]
    pub fn leaving_out(self, take: Option<TakeGroup>) -> Self {
        Self { left_out: take, ..self }
    }

    /// The same reducer, but a key's only value is its result if `skip` says so.
    #[must_use]
    pub fn skipping_single_values(self, skip: bool) -> Self {
        Self { skip_single: skip, ..self }
    }

    /// Reduces one group. Results may reach `out` now or with a later call.
    ///
    /// `next` gives the group's values one by one. `partials` says whether they are a built-in's
    /// partial states.
    ///
    /// # Errors
    /// [`Error::Function`], [`Error::Refused`], and whatever `next` and `out` return.
    pub fn group(
        &mut self,
        key: &RawValBuf,
        encoded: &[u8],
        partials: bool,
        mut next: impl FnMut(&mut RawValBuf) -> Result<bool>,
        out: ResultSink<'_>,
    ) -> Result<()> {
        let mut value = RawValBuf::new();
        if let How::Builtin(builtin) = self.how {
            let mut state = Accumulator::new(builtin);
            while next(&mut value)? {
                let taken =
                    if partials { state.merge(value.as_raw()) } else { state.add(value.as_raw()) };
                taken.map_err(|e| Error::refused(format!("key {key}: {e}"), ""))?;
            }
            let result = state.finish();
            return self.reduced(key.as_raw(), encoded, result.as_raw(), out);
        }
        if let How::Function(function) = &mut self.how
            && function.streams()
        {
            let failed = &mut self.left_out;
            let pairs = streaming_reduce::reduce(function, key.as_raw(), next, failed)?;
            let mut expected = VecDeque::from([encoded.to_vec()]);
            for (emitted, value) in &pairs {
                let encoded = matching(Stage::Reduce, &mut expected, emitted)?;
                self.reduced(emitted.as_raw(), &encoded, value.as_raw(), out)?;
            }
            return Ok(());
        }
        let mut room = match self.long {
            OversizePolicy::Reduce | OversizePolicy::Combine(_) => config::VALUES_BYTES_MAX,
            OversizePolicy::Never => config::WHOLE_VALUES_BYTES_MAX,
        };
        let mut chunk = ValuesChunk::begin(key.as_raw());
        let mut more = next(&mut value)?;
        if let How::Function(function) = &self.how
            && let Some(fold) = function.fold()
        {
            let mut joined = None;
            while more && let Some(number) = fold.join(joined, value.as_raw()) {
                joined = Some(number);
                more = next(&mut value)?;
            }
            if let Some(number) = joined {
                let mut first = RawValBuf::new();
                first.set_f64(number);
                if !more {
                    return self.reduced(key.as_raw(), encoded, first.as_raw(), out);
                }
                chunk.push(first.as_raw());
            }
        }
        while more {
            if chunk.bytes() + value.as_raw().len() > room && chunk.count() > 1 {
                self.flush(out)?;
                let Some(shorter) = self.shorten(key, encoded, chunk)? else {
                    while next(&mut value)? {}
                    return Ok(());
                };
                chunk = shorter;
                // A combine may leave more than one value; the next call is worth its while all the same.
                room = room.max(chunk.bytes() * 2);
            }
            chunk.push(value.as_raw());
            more = next(&mut value)?;
        }
        if self.skip_single && chunk.count() == 1 {
            return self.reduced(key.as_raw(), encoded, value.as_raw(), out);
        }
        chunk.end(&mut self.batch);
        self.expected.push_back(encoded.to_vec());
        let How::Function(function) = &self.how else { return Ok(()) };
        if self.batch.bytes().len() >= function.bytes_target() {
            self.flush(out)?;
        }
        Ok(())
    }

    /// Hands on everything that is still waiting.
    ///
    /// # Errors
    /// As [`Reducer::group`].
    pub fn finish(&mut self, out: ResultSink<'_>) -> Result<()> {
        self.flush(out)?;
        self.flush_finalize(out)
    }

    /// The counters of the functions.
    pub fn counters(&mut self) -> Vec<Counters> {
        let reduce = match &mut self.how {
            How::Builtin(_) => None,
            How::Function(guest) => Some(std::mem::take(&mut guest.sink_mut().counters)),
        };
        let combine = match &mut self.long {
            OversizePolicy::Combine(guest) => Some(std::mem::take(&mut guest.sink_mut().counters)),
            OversizePolicy::Reduce | OversizePolicy::Never => None,
        };
        let finalize = self.finalize.as_mut().map(|g| std::mem::take(&mut g.sink_mut().counters));
        reduce.into_iter().chain(combine).chain(finalize).collect()
    }

    /// Shortens a piece of a long group; what comes of it are the first values of the next piece. Nothing if the function
    /// fails on it, and the group is left out.
    fn shorten(
        &mut self,
        key: &RawValBuf,
        encoded: &[u8],
        chunk: ValuesChunk,
    ) -> Result<Option<ValuesChunk>> {
        let too_long = |why: &str| {
            Error::refused(
                format!(
                    "{} has more than {} bytes of values{why}",
                    function::name_key(key.as_raw()),
                    config::WHOLE_VALUES_BYTES_MAX
                ),
                "give a reduce that streams (reduce_begin, reduce_next, reduce_end)",
            )
        };
        let values = usize::try_from(chunk.count()).unwrap_or(usize::MAX);
        let (stage, function, room) = match (&mut self.how, &mut self.long) {
            (How::Builtin(_), _) => {
                return Err(Error::Internal("only functions reduce in pieces".into()));
            }
            (_, OversizePolicy::Never) => {
                return Err(too_long(", which --no-combine gives in one call"));
            }
            // A combine may give several values, though hardly more than it was given.
            (_, OversizePolicy::Combine(combine)) => (Stage::Combine, combine.as_mut(), values),
            (How::Function(reduce), OversizePolicy::Reduce) => (Stage::Reduce, reduce.as_mut(), 1),
        };
        let mut batch = Batch::default();
        chunk.end(&mut batch);
        function.sink_mut().expect(room);
        let mut has_failed = false;
        match &mut self.left_out {
            None => function.call(&batch)?,
            Some(take) => function.call_skipping(&batch, &mut |group, error| {
                has_failed = true;
                take(stage, group, error)
            })?,
        }
        if has_failed {
            return Ok(None);
        }
        let mut next = ValuesChunk::begin(key.as_raw());
        for (emitted, value) in function.sink_mut().take() {
            same_key(stage, encoded, &emitted)?;
            next.push(value.as_raw());
        }
        if next.bytes() > config::WHOLE_VALUES_BYTES_MAX {
            return Err(too_long(&format!(" after {stage}")));
        }
        Ok(Some(next))
    }

    fn flush(&mut self, out: ResultSink<'_>) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let How::Function(function) = &mut self.how else { return Ok(()) };
        function.sink_mut().expect(self.batch.len());
        called(function, Stage::Reduce, &self.batch, &mut self.left_out)?;
        self.batch.clear();
        let pairs = function.sink_mut().take();
        let mut expected = std::mem::take(&mut self.expected);
        for (key, value) in &pairs {
            let encoded = matching(Stage::Reduce, &mut expected, key)?;
            self.reduced(key.as_raw(), &encoded, value.as_raw(), out)?;
        }
        Ok(())
    }

    fn reduced(
        &mut self,
        key: RawVal<'_>,
        encoded: &[u8],
        value: RawVal<'_>,
        out: ResultSink<'_>,
    ) -> Result<()> {
        let Some(finalize) = &self.finalize else {
            return out(key, value);
        };
        let bytes_target = finalize.bytes_target();
        self.finalize_batch.push_with(|body| {
            let start = body.len();
            body.extend_from_slice(&[0; 4]);
            key.append_element("k", body);
            value.append_element("v", body);
            close_document(body, start);
        });
        self.finalize_expected.push_back(encoded.to_vec());
        if self.finalize_batch.bytes().len() >= bytes_target {
            self.flush_finalize(out)?;
        }
        Ok(())
    }

    fn flush_finalize(&mut self, out: ResultSink<'_>) -> Result<()> {
        let Some(function) = self.finalize.as_mut() else { return Ok(()) };
        if self.finalize_batch.is_empty() {
            return Ok(());
        }
        function.sink_mut().expect(self.finalize_batch.len());
        called(function, Stage::Finalize, &self.finalize_batch, &mut self.left_out)?;
        self.finalize_batch.clear();
        let pairs = function.sink_mut().take();
        let mut expected = std::mem::take(&mut self.finalize_expected);
        for (key, value) in &pairs {
            matching(Stage::Finalize, &mut expected, key)?;
            out(key.as_raw(), value.as_raw())?;
        }
        Ok(())
    }
}

/// Finds the key that a result belongs to. Results come in the order of the keys, at most one for
/// each; a function may leave a key out, and so out of the output.
fn matching(
    stage: Stage,
    expected: &mut VecDeque<Vec<u8>>,
    emitted: &RawValBuf,
) -> Result<Vec<u8>> {
    let mut encoded = Vec::new();
    key::encode(emitted.as_raw(), &mut encoded)
        .map_err(|e| other_key(stage, emitted, &e.to_string()))?;
    while let Some(next) = expected.pop_front() {
        if next == encoded {
            return Ok(encoded);
        }
    }
    Err(other_key(stage, emitted, "no group of this key is at hand"))
}

fn same_key(stage: Stage, expected: &[u8], emitted: &RawValBuf) -> Result<()> {
    matching(stage, &mut VecDeque::from([expected.to_vec()]), emitted).map(|_| ())
}

fn other_key(stage: Stage, emitted: &RawValBuf, why: &str) -> Error {
    Error::refused(
        format!("{stage} emitted the key {emitted}: {why}"),
        format!("{stage} must emit the key it was given, once"),
    )
}
