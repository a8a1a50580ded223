//! Whose turn it is to publish into a target.
//!
//! A job that publishes reads its target, or replaces or changes it in more than one step. So at most one
//! job at a time may publish into a collection: the one that the collection's *turn* names, a small document
//! with the target's name for an `_id`. A job takes the turn before its first look at the target, and
//! everything that it does to the target is over when the turn is released:
//!
//! * The turn belongs to the job, not to a worker: attempts of one job fence each other by the token of
//!   the publish task.
//! * It is released when the job has ended *and* has been cleaned up after, since cleaning up ends whatever
//!   an earlier publisher may still have on its way.
//! * If whoever should release it dies first, the holder's own state says that it is free.

use crate::job::JobState;

/// What is known of the job that holds a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Holder {
    /// Nobody holds it.
    Nobody,
    /// The asking job itself.
    Myself,
    /// Another job, in this state, cleaned up after or not.
    Other(JobState, bool),
    /// Another job, which has been removed.
    Removed,
}

/// What an asking job does about a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ask {
    /// The turn is the job's.
    Mine,
    /// The job may take it, if it is still held as it was seen.
    Take,
    /// The job has to wait.
    Wait,
}

/// Decides whether a job may publish.
pub fn ask(holder: Holder) -> Ask {
    match holder {
        Holder::Myself => Ask::Mine,
        Holder::Nobody | Holder::Removed => Ask::Take,
        Holder::Other(state, cleaned)
            if state.is_terminal() && (cleaned || crate::planted::planted("turn-early")) =>
        {
            Ask::Take
        }
        Holder::Other(..) => Ask::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_free_only_once_its_holder_is_cleaned_up_after() {
        for state in JobState::ALL {
            assert_eq!(ask(Holder::Other(state, false)), Ask::Wait, "{state}");
            let free = if state.is_terminal() { Ask::Take } else { Ask::Wait };
            assert_eq!(ask(Holder::Other(state, true)), free, "{state}");
        }
        assert_eq!(ask(Holder::Removed), Ask::Take);
        assert_eq!(ask(Holder::Nobody), Ask::Take);
        assert_eq!(ask(Holder::Myself), Ask::Mine);
    }
}
