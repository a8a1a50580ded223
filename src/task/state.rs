//! The states of a task.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a task stands; the diagram is in the [module above](crate::task).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Written, but its phase has not begun: nobody may claim it.
    Planned,
    /// May be claimed once `not_before` has passed.
    Ready,
    /// Claimed; may be claimed again once `until` has passed.
    Leased,
    /// Committed.
    Done,
    /// Failed too often or for good; the job fails with it.
    Quarantined,
    /// The job ended before the task did.
    Cancelled,
}

/// What can happen to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskEvent {
    /// The task's phase begins.
    Opened,
    /// Somebody claims it, or claims it again after its lease ran out.
    Claimed,
    /// Its holder commits.
    Committed,
    /// Its holder failed and another attempt may succeed, or its holder is told to stop.
    HandedBack,
    /// It failed for good or too often.
    GivenUp,
    /// Its committed blocks are gone or damaged, so it must run again.
    BlocksLost,
    /// Its job ended.
    JobEnded,
    /// A person has mended what it was given up for.
    Resumed,
}

impl TaskState {
    /// All states.
    pub const ALL: [TaskState; 6] = [
        TaskState::Planned,
        TaskState::Ready,
        TaskState::Leased,
        TaskState::Done,
        TaskState::Quarantined,
        TaskState::Cancelled,
    ];

    /// The state after `event`, or `None` when the event has no meaning in this state.
    pub fn after(self, event: TaskEvent) -> Option<TaskState> {
        use TaskEvent as E;
        use TaskState as S;
        match (self, event) {
            (S::Planned, E::Opened) => Some(S::Ready),
            (S::Ready | S::Leased, E::Claimed) => Some(S::Leased),
            (S::Leased, E::Committed) => Some(S::Done),
            (S::Leased, E::HandedBack) => Some(S::Ready),
            (S::Leased, E::GivenUp) => Some(S::Quarantined),
            (S::Done, E::BlocksLost) => Some(S::Ready),
            (S::Planned | S::Ready | S::Leased, E::JobEnded) => Some(S::Cancelled),
            (S::Quarantined, E::Resumed) => Some(S::Ready),

            (
                S::Planned,
                E::Claimed | E::Committed | E::HandedBack | E::GivenUp | E::BlocksLost | E::Resumed,
            )
            | (
                S::Ready,
                E::Opened | E::Committed | E::HandedBack | E::GivenUp | E::BlocksLost | E::Resumed,
            )
            | (S::Leased, E::Opened | E::BlocksLost | E::Resumed)
            | (
                S::Done,
                E::Opened
                | E::Claimed
                | E::Committed
                | E::HandedBack
                | E::GivenUp
                | E::JobEnded
                | E::Resumed,
            )
            | (
                S::Quarantined,
                E::Opened
                | E::Claimed
                | E::Committed
                | E::HandedBack
                | E::GivenUp
                | E::BlocksLost
                | E::JobEnded,
            )
            | (
                S::Cancelled,
                E::Opened
                | E::Claimed
                | E::Committed
                | E::HandedBack
                | E::GivenUp
                | E::BlocksLost
                | E::JobEnded
                | E::Resumed,
            ) => None,
        }
    }

    /// The word in the database and on the screen.
    pub fn as_str(self) -> &'static str {
        match self {
            TaskState::Planned => "planned",
            TaskState::Ready => "ready",
            TaskState::Leased => "leased",
            TaskState::Done => "done",
            TaskState::Quarantined => "quarantined",
            TaskState::Cancelled => "cancelled",
        }
    }

    /// The states in which `event` has a meaning: the filter of its conditional update.
    pub fn sources_of(event: TaskEvent) -> Vec<TaskState> {
        Self::ALL.into_iter().filter(|state| state.after(event).is_some()).collect()
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for TaskState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| {
            format!(
                "{text:?} is not a task state; use one of {}",
                Self::ALL.map(TaskState::as_str).join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_leased_task_commits() {
        assert_eq!(TaskState::sources_of(TaskEvent::Committed), vec![TaskState::Leased]);
    }

    #[test]
    fn an_ended_job_opens_no_task_again() {
        for state in TaskState::sources_of(TaskEvent::JobEnded) {
            assert_eq!(state.after(TaskEvent::JobEnded), Some(TaskState::Cancelled));
        }
        assert_eq!(TaskState::Cancelled.after(TaskEvent::Claimed), None);
        assert_eq!(TaskState::Cancelled.after(TaskEvent::Committed), None);
    }

    #[test]
    fn words_round_trip() {
        for state in TaskState::ALL {
            assert_eq!(state.as_str().parse::<TaskState>(), Ok(state));
        }
        assert!("finished".parse::<TaskState>().is_err());
    }
}
