//! The state that a guest's store holds: what the host functions and the limits work on.

use std::time::{Duration, Instant};

use blake3::OutputReader;
use wasmtime::{Memory, ResourceLimiter};

use super::error::{EmitFault, SinkError};
use super::limits::{MEMORIES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX};
use super::log::LineLog;

/// What the monotonic clock shows at the start. Go's runtime gives up where it shows nothing.
pub(crate) const MONOTONIC_START_NS: u64 = 1_000_000;

/// Why a host function ended the call. The reason is kept here rather than in the runtime's error,
/// so that a sink's error comes back as it was.
pub(crate) enum Stop {
    Failed {
        message: String,
        stack: String,
    },
    Exit(i32),
    Fault(EmitFault),
    /// More was emitted than may be; the limit that counts is the instance's.
    Output,
    /// The call has used up its time.
    Overdue,
    Sink(SinkError),
}

/// What the runtime is given when a host function ends the call; the reason is in [`Guest::stop`].
#[derive(Debug, thiserror::Error)]
#[error("stopped by the host")]
struct Stopped;

/// The data of a store.
pub(crate) struct Guest<S> {
    pub(crate) sink: S,
    pub(crate) log: LineLog,
    /// The exported memory, as soon as it is known.
    pub(crate) memory: Option<Memory>,
    pub(crate) stop: Option<Stop>,
    /// Whether a stage runs: outside of one, nothing may be emitted.
    pub(crate) in_stage: bool,
    /// Whether memory was refused during the current call.
    pub(crate) memory_refused: bool,
    pub(crate) memory_bytes_max: usize,
    /// What the current call has of its time, after the slice that it is in.
    pub(crate) ticks_left: u64,
    /// Bytes emitted by the records of the current call, and how many they may emit.
    pub(crate) output_bytes: u64,
    pub(crate) output_bytes_max: u64,
    /// When the current call must have ended; none for a time that no clock reaches.
    deadline: Option<Instant>,
    pub(crate) scope: Vec<u8>,
    /// The job's snapshot time, in nanoseconds since 1970.
    pub(crate) now_ns: u64,
    /// The guest's own monotonic clock, in nanoseconds: it moves only while the guest sleeps, and
    /// sleeping takes no time.
    pub(crate) monotonic_ns: u64,
    pub(crate) seed: [u8; 32],
    random: Option<OutputReader>,
}

impl<S> Guest<S> {
    pub(crate) fn new(sink: S, options: GuestOptions) -> Self {
        Self {
            sink,
            log: LineLog::new(options.log_bytes_max),
            memory: None,
            stop: None,
            in_stage: false,
            memory_refused: false,
            memory_bytes_max: options.memory_bytes_max,
            ticks_left: 0,
            output_bytes: 0,
            output_bytes_max: u64::MAX,
            deadline: None,
            scope: options.scope,
            now_ns: u64::try_from(options.now_ms).unwrap_or(0).saturating_mul(1_000_000),
            monotonic_ns: MONOTONIC_START_NS,
            seed: options.seed,
            random: None,
        }
    }

    /// Ends the call with this reason.
    pub(crate) fn stop(&mut self, reason: Stop) -> wasmtime::Error {
        self.stop = Some(reason);
        wasmtime::Error::new(Stopped)
    }

    /// Begins a call that may take so long.
    pub(crate) fn begin(&mut self, timeout: Duration) {
        self.deadline = Instant::now().checked_add(timeout);
    }

    /// Ends a call that is overdue. The runtime looks only where functions and loops begin, and a function may call the
    /// host many thousand times between two of these; so what takes the host long looks by itself.
    pub(crate) fn check_time(&mut self) -> wasmtime::Result<()> {
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(self.stop(Stop::Overdue)),
            _ => Ok(()),
        }
    }

    /// The guest's source of randomness: the same seed gives the same bytes.
    pub(crate) fn random(&mut self) -> &mut OutputReader {
        let seed = &self.seed;
        self.random.get_or_insert_with(|| blake3::Hasher::new_keyed(seed).finalize_xof())
    }
}

/// What a [`Guest`] is made of, besides the sink.
pub(crate) struct GuestOptions {
    pub(crate) memory_bytes_max: usize,
    pub(crate) log_bytes_max: usize,
    pub(crate) scope: Vec<u8>,
    pub(crate) now_ms: i64,
    pub(crate) seed: [u8; 32],
}

impl<S: Send> ResourceLimiter for Guest<S> {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let granted =
            desired <= self.memory_bytes_max && maximum.is_none_or(|maximum| desired <= maximum);
        self.memory_refused |= !granted;
        Ok(granted)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        tracing::debug!(%error, "memory did not grow");
        self.memory_refused = true;
        Ok(())
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX && maximum.is_none_or(|maximum| desired <= maximum))
    }

    fn instances(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}
