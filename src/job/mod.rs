//! A job: what was asked for ([`spec`]), what it may touch ([`authority`]), where it stands ([`state`]) and its document;
//! what of a collection outlives its replacement ([`target`]); how much it may ask for ([`limits`]).

pub mod authority;
pub mod document;
pub mod limits;
pub mod spec;
pub mod state;
pub mod target;

pub use document::{Job, JobError, RequestRef, Results};

pub use spec::{FunctionRef, Input, JobSpec, Limits, Output, OutputMode, ReadMode, Reducer};
pub use state::{JobEvent, JobState};
