//! The one clock behind every deadline.
//!
//! Guests are interrupted by comparing an engine-wide count of ticks with a deadline of their own.
//! One thread advances that count at a steady pace and for all; a call never does, because that
//! would end its neighbours as well.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::EngineWeak;

/// A thread that advances an engine's epoch; it ends when this is dropped.
pub(crate) struct Ticker {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    tick: Duration,
}

impl Ticker {
    /// Starts the thread.
    pub(crate) fn start(engine: EngineWeak, tick: Duration) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        let thread =
            std::thread::Builder::new().name("aviary-ticker".to_owned()).spawn(move || {
                while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(tick) {
                    let Some(engine) = engine.upgrade() else {
                        break;
                    };
                    engine.increment_epoch();
                }
            })?;
        Ok(Self { stop: Some(stop), thread: Some(thread), tick })
    }

    /// How many ticks from now are at least this long. One is added, since the current tick may be
    /// nearly over: a call may get a little more time than it was promised, never less.
    pub(crate) fn ticks(&self, time: Duration) -> u64 {
        let ticks = time.as_nanos().div_ceil(self.tick.as_nanos().max(1));
        u64::try_from(ticks).unwrap_or(u64::MAX / 4).min(u64::MAX / 4) + 1
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        // Dropping the sender wakes the thread at once.
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the deadline thread panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_never_shorter_than_asked() {
        let engine = wasmtime::Engine::default();
        let ticker = Ticker::start(engine.weak(), Duration::from_millis(10)).unwrap();
        assert_eq!(ticker.ticks(Duration::from_millis(1)), 2);
        assert_eq!(ticker.ticks(Duration::from_millis(100)), 11);
        assert_eq!(ticker.ticks(Duration::MAX), u64::MAX / 4 + 1);
    }

    #[test]
    fn the_thread_ends_with_the_ticker() {
        let engine = wasmtime::Engine::default();
        let ticker = Ticker::start(engine.weak(), Duration::from_secs(3600)).unwrap();
        // The join in drop is what is tested: with an hour between ticks it returns only because
        // the thread is told to end.
        drop(ticker);
    }
}
