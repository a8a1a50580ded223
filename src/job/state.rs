//! The states of a job, and the only ways between them.
//!
//! ```text
//!   submitted ──▶ planning ──▶ mapping ──▶ reducing ──▶ publishing ──▶ succeeded
//!       │            │            │ └──────────────────────▲ │
//!       │            │            │      (map-only)          │
//!       └────────────┴────────────┴──────────┴───────────────┴──▶ failed | cancelled
//! ```
//!
//! Every arrow is one conditional update of the job document whose filter names the state it
//! leaves, so two coordinators cannot both take it, and one that crashes half-way leaves the job in
//! a state from which the next one goes on. A job that has begun to publish can no longer be
//! cancelled: its result may already be visible.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Written by a client, not yet seen by a coordinator.
    Submitted,
    /// The snapshot is being fixed and the input cut into splits.
    Planning,
    /// Map tasks run.
    Mapping,
    /// Every map task has committed; reduce tasks run.
    Reducing,
    /// The hidden output collection is being put in place.
    Publishing,
    /// The output is in place.
    Succeeded,
    /// The job ended with an error and changed nothing that a user owns.
    Failed,
    /// A person ended the job; it changed nothing that a user owns.
    Cancelled,
}

/// What can happen to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobEvent {
    /// A coordinator takes the job up.
    Taken,
    /// The map tasks of a plan are all written.
    Planned,
    /// Every map task has committed, and there is something to reduce.
    Mapped,
    /// Every map task has committed its output itself: the job has no reduce.
    MappedOnly,
    /// Every reduce task has committed.
    Reduced,
    /// The output is in place.
    Published,
    /// The job cannot go on.
    Failed,
    /// A person wants it to end.
    CancelRequested,
}

impl JobState {
    /// All states, in the order a job passes through them.
    pub const ALL: [JobState; 8] = [
        JobState::Submitted,
        JobState::Planning,
        JobState::Mapping,
        JobState::Reducing,
        JobState::Publishing,
        JobState::Succeeded,
        JobState::Failed,
        JobState::Cancelled,
    ];

    /// The state after `event`, or `None` when the event has no meaning in this state.
    pub fn after(self, event: JobEvent) -> Option<JobState> {
        use JobEvent as E;
        use JobState as S;
        match (self, event) {
            (S::Submitted, E::Taken) => Some(S::Planning),
            (S::Planning, E::Planned) => Some(S::Mapping),
            (S::Mapping, E::Mapped) => Some(S::Reducing),
            (S::Mapping, E::MappedOnly) => Some(S::Publishing),
            (S::Reducing, E::Reduced) => Some(S::Publishing),
            (S::Publishing, E::Published) => Some(S::Succeeded),

            (S::Submitted | S::Planning | S::Mapping | S::Reducing | S::Publishing, E::Failed) => {
                Some(S::Failed)
            }
            (S::Submitted | S::Planning | S::Mapping | S::Reducing, E::CancelRequested) => {
                Some(S::Cancelled)
            }
            (S::Publishing, E::CancelRequested) => None,

            (S::Submitted, E::Planned | E::Mapped | E::MappedOnly | E::Reduced | E::Published)
            | (S::Planning, E::Taken | E::Mapped | E::MappedOnly | E::Reduced | E::Published)
            | (S::Mapping, E::Taken | E::Planned | E::Reduced | E::Published)
            | (S::Reducing, E::Taken | E::Planned | E::Mapped | E::MappedOnly | E::Published)
            | (S::Publishing, E::Taken | E::Planned | E::Mapped | E::MappedOnly | E::Reduced)
            | (
                S::Succeeded | S::Failed | S::Cancelled,
                E::Taken
                | E::Planned
                | E::Mapped
                | E::MappedOnly
                | E::Reduced
                | E::Published
                | E::Failed
                | E::CancelRequested,
            ) => None,
        }
    }

    /// Whether nothing will happen to the job any more.
    pub fn is_terminal(self) -> bool {
        match self {
            JobState::Succeeded | JobState::Failed | JobState::Cancelled => true,
            JobState::Submitted
            | JobState::Planning
            | JobState::Mapping
            | JobState::Reducing
            | JobState::Publishing => false,
        }
    }

    /// The word in the database and on the screen.
    pub fn as_str(self) -> &'static str {
        match self {
            JobState::Submitted => "submitted",
            JobState::Planning => "planning",
            JobState::Mapping => "mapping",
            JobState::Reducing => "reducing",
            JobState::Publishing => "publishing",
            JobState::Succeeded => "succeeded",
            JobState::Failed => "failed",
            JobState::Cancelled => "cancelled",
        }
    }

    /// The states in which `event` has a meaning: the filter of its conditional update.
    pub fn sources_of(event: JobEvent) -> Vec<JobState> {
        Self::ALL.into_iter().filter(|state| state.after(event).is_some()).collect()
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [JobEvent; 8] = [
        JobEvent::Taken,
        JobEvent::Planned,
        JobEvent::Mapped,
        JobEvent::MappedOnly,
        JobEvent::Reduced,
        JobEvent::Published,
        JobEvent::Failed,
        JobEvent::CancelRequested,
    ];

    #[test]
    fn terminal_states_are_final() {
        for state in JobState::ALL.into_iter().filter(|s| s.is_terminal()) {
            for event in EVENTS {
                assert_eq!(state.after(event), None, "{state} after {event:?}");
            }
        }
    }

    #[test]
    fn every_event_leads_to_one_state_whatever_state_it_leaves() {
        // A conditional update writes one target state, so an event must not branch.
        for event in EVENTS {
            let targets: std::collections::HashSet<_> =
                JobState::ALL.into_iter().filter_map(|s| s.after(event)).collect();
            assert_eq!(targets.len(), 1, "{event:?}");
        }
    }

    #[test]
    fn every_running_state_can_fail_and_reach_success() {
        for state in JobState::ALL.into_iter().filter(|s| !s.is_terminal()) {
            assert_eq!(state.after(JobEvent::Failed), Some(JobState::Failed));
            let mut seen = vec![state];
            let mut open = vec![state];
            while let Some(at) = open.pop() {
                for next in EVENTS.iter().filter_map(|e| at.after(*e)) {
                    if !seen.contains(&next) {
                        seen.push(next);
                        open.push(next);
                    }
                }
            }
            assert!(seen.contains(&JobState::Succeeded), "{state}");
        }
    }

    #[test]
    fn a_publishing_job_cannot_be_cancelled() {
        assert_eq!(JobState::Publishing.after(JobEvent::CancelRequested), None);
    }
}
