//! How many of a job's tasks are in which state.

use super::TaskState;

/// How many tasks of one phase are in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct PhaseCounts {
    /// All of them.
    pub total: u64,
    /// Written, the phase has not begun.
    pub planned: u64,
    /// May be claimed.
    pub ready: u64,
    /// Being worked on.
    pub leased: u64,
    /// Committed.
    pub done: u64,
    /// Given up.
    pub quarantined: u64,
    /// Ended with the job.
    pub cancelled: u64,
}

impl PhaseCounts {
    /// Counts `n` more tasks in a state, beside the total: that holds tasks of unknown states too.
    pub fn add(&mut self, state: TaskState, n: u64) {
        *match state {
            TaskState::Planned => &mut self.planned,
            TaskState::Ready => &mut self.ready,
            TaskState::Leased => &mut self.leased,
            TaskState::Done => &mut self.done,
            TaskState::Quarantined => &mut self.quarantined,
            TaskState::Cancelled => &mut self.cancelled,
        } += n;
    }
}

/// Where a job's tasks stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct JobPhases {
    /// Map tasks.
    pub map: PhaseCounts,
    /// Reduce tasks.
    pub reduce: PhaseCounts,
}
