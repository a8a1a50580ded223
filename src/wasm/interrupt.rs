//! Ends a guest before its time is over, when nobody wants what it computes any more.
//!
//! A call may have hours. The process that runs it may be told to stop at any moment, or lose the right to the work, and
//! must not have to wait. So a call's time is given in slices, and between two of them somebody is asked.

use std::sync::Arc;

use wasmtime::{Store, UpdateDeadline};

use super::error::SinkError;
use super::guest::{Guest, Stop};
use super::sink::Sink;

/// Ticks between two questions: a tenth of a second by default.
const SLICE_TICKS: u64 = 10;

type Ask = dyn Fn() -> Result<(), SinkError> + Send + Sync;

/// Whom to ask whether a guest may go on.
#[derive(Clone, Default)]
pub struct Interrupt(Option<Arc<Ask>>);

impl Interrupt {
    /// Asks this, on the thread of the call. Its error ends the call, which returns it unchanged in
    /// [`super::GuestError::Sink`].
    pub fn new(ask: impl Fn() -> Result<(), SinkError> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(ask)))
    }
}

impl std::fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Interrupt").field(&self.0.is_some()).finish()
    }
}

/// Has a store ask, for as long as it lives.
pub(crate) fn watch<S: Sink>(store: &mut Store<Guest<S>>, interrupt: &Interrupt) {
    let ask = interrupt.0.clone();
    store.epoch_deadline_callback(move |mut context| {
        let guest = context.data_mut();
        if let Some(Err(error)) = ask.as_ref().map(|ask| ask()) {
            return Err(guest.stop(Stop::Sink(error)));
        }
        match guest.ticks_left {
            0 => Ok(UpdateDeadline::Interrupt),
            left => {
                let slice = left.min(SLICE_TICKS);
                guest.ticks_left = left - slice;
                Ok(UpdateDeadline::Continue(slice))
            }
        }
    });
}

/// Gives a call so many ticks from now.
pub(crate) fn allow<S: Sink>(store: &mut Store<Guest<S>>, ticks: u64) {
    let slice = ticks.min(SLICE_TICKS);
    store.data_mut().ticks_left = ticks - slice;
    store.set_epoch_deadline(slice);
}
