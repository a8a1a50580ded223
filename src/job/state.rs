//! The states of a job, and the only ways between them.
//!
//! ```text
//!   submitted ──▶ planning ◀──▶ mapping ──▶ reducing ──▶ publishing ──▶ succeeded
//!       │            │             │ └──────────────────────▲ │  ▲│
//!       │            │             │      (map-only)          │  │▼
//!       │            │             │          │               │ stopped ──▶ cancelled
//!       └────────────┴─────────────┴──────────┴───────────────┴──▶ failed | cancelled
//! ```
//!
//! Every arrow is one conditional update of the job document. Its filter names the state it leaves, the
//! plan, and the epoch of the coordinator that takes it, so two coordinators cannot both take it, one that
//! was superseded takes none, and one that crashes half-way leaves the job in a state from which the next
//! one goes on.
//!
//! A job that publishes is not cancelled directly, since its result may be going into place right now:
//! the request is noted in the job, the holder of the publish task obeys it, and then the job ends. A job
//! whose results were refused by the target half-way is *stopped*: somebody mends the cause and resumes it,
//! or cancels it. It does not fail, because a job that failed has changed nothing a user owns, and doing it
//! again from the start would count what was merged twice.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Written, and not planned yet.
    Submitted,
    /// The snapshot is being fixed and the input cut into splits.
    Planning,
    /// Map tasks run.
    Mapping,
    /// Every map task has committed; reduce tasks run.
    Reducing,
    /// The hidden output collection is being put in place.
    Publishing,
    /// A part of the results may be in the target, and the rest was refused. A person resumes or cancels.
    Stopped,
    /// The output is in place.
    Succeeded,
    /// The job ended with an error and changed nothing that a user owns.
    Failed,
    /// A person ended the job. It changed nothing that a user owns, unless its error says so.
    Cancelled,
}

/// What can happen to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobEvent {
    /// A coordinator takes the job up.
    Taken,
    /// The map tasks of a plan are all written.
    Planned,
    /// The input cannot be read any more by the plan: as it was then, or from the member that the plan goes by.
    PlanLost,
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
    /// A person wants it to end, and nothing is being published.
    CancelRequested,
    /// The publisher has obeyed a person who wants it to end.
    PublishCancelled,
    /// The target refused a result after others may have been merged.
    PublishStopped,
    /// A person has mended what stopped the publishing.
    Resumed,
}

impl JobEvent {
    /// All events.
    pub const ALL: [JobEvent; 12] = [
        JobEvent::Taken,
        JobEvent::Planned,
        JobEvent::PlanLost,
        JobEvent::Mapped,
        JobEvent::MappedOnly,
        JobEvent::Reduced,
        JobEvent::Published,
        JobEvent::Failed,
        JobEvent::CancelRequested,
        JobEvent::PublishCancelled,
        JobEvent::PublishStopped,
        JobEvent::Resumed,
    ];
}

impl JobState {
    /// All states, in the order a job passes through them.
    pub const ALL: [JobState; 9] = [
        JobState::Submitted,
        JobState::Planning,
        JobState::Mapping,
        JobState::Reducing,
        JobState::Publishing,
        JobState::Stopped,
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
            (S::Mapping, E::PlanLost) => Some(S::Planning),
            (S::Mapping, E::Mapped) => Some(S::Reducing),
            (S::Mapping, E::MappedOnly) => Some(S::Publishing),
            (S::Reducing, E::Reduced) => Some(S::Publishing),
            (S::Publishing, E::Published) => Some(S::Succeeded),

            (S::Publishing, E::PublishStopped) => Some(S::Stopped),
            (S::Stopped, E::Resumed) => Some(S::Publishing),

            (S::Submitted | S::Planning | S::Mapping | S::Reducing | S::Publishing, E::Failed) => {
                Some(S::Failed)
            }
            (
                S::Submitted | S::Planning | S::Mapping | S::Reducing | S::Stopped,
                E::CancelRequested,
            )
            | (S::Publishing, E::PublishCancelled) => Some(S::Cancelled),

            (
                S::Submitted,
                E::PlanLost
                | E::Planned
                | E::Mapped
                | E::MappedOnly
                | E::Reduced
                | E::Published
                | E::PublishCancelled
                | E::PublishStopped
                | E::Resumed,
            )
            | (
                S::Planning,
                E::Taken
                | E::PlanLost
                | E::Mapped
                | E::MappedOnly
                | E::Reduced
                | E::Published
                | E::PublishCancelled
                | E::PublishStopped
                | E::Resumed,
            )
            | (
                S::Mapping,
                E::Taken
                | E::Planned
                | E::Reduced
                | E::Published
                | E::PublishCancelled
                | E::PublishStopped
                | E::Resumed,
            )
            | (
                S::Reducing,
                E::Taken
                | E::PlanLost
                | E::Planned
                | E::Mapped
                | E::MappedOnly
                | E::Published
                | E::PublishCancelled
                | E::PublishStopped
                | E::Resumed,
            )
            | (
                S::Publishing,
                E::Taken
                | E::PlanLost
                | E::Planned
                | E::Mapped
                | E::MappedOnly
                | E::Reduced
                | E::CancelRequested
                | E::Resumed,
            )
            | (
                S::Stopped,
                E::Taken
                | E::PlanLost
                | E::Planned
                | E::Mapped
                | E::MappedOnly
                | E::Reduced
                | E::Published
                | E::Failed
                | E::PublishCancelled
                | E::PublishStopped,
            )
            | (
                S::Succeeded | S::Failed | S::Cancelled,
                E::Taken
                | E::PlanLost
                | E::Planned
                | E::Mapped
                | E::MappedOnly
                | E::Reduced
                | E::Published
                | E::Failed
                | E::CancelRequested
                | E::PublishCancelled
                | E::PublishStopped
                | E::Resumed,
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
            | JobState::Publishing
            | JobState::Stopped => false,
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
            JobState::Stopped => "stopped",
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

    const EVENTS: [JobEvent; 12] = JobEvent::ALL;

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
            // What has stopped has changed a collection that a user owns, so it must not look as if it had not.
            let failed = (state != JobState::Stopped).then_some(JobState::Failed);
            assert_eq!(state.after(JobEvent::Failed), failed);
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
    fn only_its_publisher_cancels_a_job_that_publishes() {
        assert_eq!(JobState::Publishing.after(JobEvent::CancelRequested), None);
        let sources = JobState::sources_of(JobEvent::PublishCancelled);
        assert_eq!(sources, [JobState::Publishing]);
    }
}
