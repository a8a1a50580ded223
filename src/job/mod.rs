//! A job: what was asked for ([`spec`]), what it may touch ([`authority`]), where it stands ([`state`]) and its document;
//! what of a collection outlives its replacement ([`target`]); how much it may ask for ([`limits`]); what becomes of records that its
//! functions fail on ([`on_error`]); which versions may do it ([`requires`]).

pub mod authority;
pub mod document;
pub mod limits;
pub mod on_error;
pub mod requires;
pub mod spec;
pub mod state;
pub mod target;
pub(crate) mod validate;

pub use document::{Job, JobError, RequestRef, Results};

pub use on_error::OnError;
pub use spec::{FunctionRef, Input, JobSpec, Limits, Output, OutputMode, ReadMode, Reducer};
pub use state::{JobEvent, JobState};
