//! Where a guest's output goes.

use super::abi::Level;
use super::error::SinkError;

/// Which sums a sink takes in place of a key's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sums {
    /// Any that are exact: what becomes of them depends on no order.
    InAnyOrder,
    /// Those of the values before the first one of the instance that cannot be added exactly: a function adds the others, in
    /// the order in which they are emitted.
    InOrder,
}

/// Takes what a guest emits, counts and logs. It is called on the thread of the call, in the order
/// in which the guest does it, and its time counts as the guest's.
pub trait Sink: Send + 'static {
    /// Takes one pair. Each slice is a BSON type byte followed by the value's bytes, and has been
    /// checked to be well-formed.
    ///
    /// # Errors
    /// An error stops the guest; the call returns it unchanged in [`super::GuestError::Sink`].
    fn emit(&mut self, key: &[u8], value: &[u8]) -> Result<(), SinkError>;

    /// Whether sums are all that is wanted of the values of a key, so that [`Sink::emit_sum`] may be called.
    fn wants_sums(&self) -> Option<Sums> {
        None
    }

    /// Takes so many emits of one key at once, whose values are doubles with this exact sum. The key is as for
    /// [`Sink::emit`].
    ///
    /// # Errors
    /// As [`Sink::emit`].
    fn emit_sum(&mut self, _key: &[u8], _sum: f64, _emits: u32) -> Result<(), SinkError> {
        Ok(())
    }

    /// Takes so many emits of one key at once, whose values are numbers of one type with this exact sum. Each slice is as for
    /// [`Sink::emit`]; it is called only where [`Sums::InAnyOrder`] is wanted.
    ///
    /// # Errors
    /// As [`Sink::emit`].
    fn emit_total(&mut self, _key: &[u8], _value: &[u8], _emits: u32) -> Result<(), SinkError> {
        Ok(())
    }

    /// Says of a pair by itself whether this sink would refuse it. With this, the record is found whose emit was refused.
    fn judge(&self) -> Judge {
        Box::new(|_, _| Ok(()))
    }

    /// Adds to a counter. The guest chooses the names, so the sink must bound how many it keeps.
    fn count(&mut self, name: &str, delta: i64);

    /// Takes one line of the guest's log. The total is bounded by the instance's limits.
    fn log(&mut self, level: Level, text: &str);
}

/// Whether a sink would refuse a pair, given as for [`Sink::emit`].
pub type Judge = Box<dyn Fn(&[u8], &[u8]) -> Result<(), SinkError> + Send>;

/// Takes what a judge lets pass, keeps nothing.
pub struct Judged(pub Judge);

impl Sink for Judged {
    fn emit(&mut self, key: &[u8], value: &[u8]) -> Result<(), SinkError> {
        (self.0)(key, value)
    }
    fn count(&mut self, _name: &str, _delta: i64) {}
    fn log(&mut self, _level: Level, _text: &str) {}
}

/// Takes everything, keeps nothing: for functions that are only tried.
#[derive(Debug, Clone, Copy)]
pub struct Nowhere;

impl Sink for Nowhere {
    fn emit(&mut self, _key: &[u8], _value: &[u8]) -> Result<(), SinkError> {
        Ok(())
    }
    fn count(&mut self, _name: &str, _delta: i64) {}
    fn log(&mut self, _level: Level, _text: &str) {}
}
