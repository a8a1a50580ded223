//! The coordinator's next move for one job.
//!
//! The coordinator opens phases, counts what has committed and moves the job on. It runs no function of a
//! user's and does no long work, so it can be killed at any time and the next one goes on.

use crate::job::{JobEvent, JobState, OutputMode};
use crate::task::{JobPhases, Marks, TaskState};

/// What a coordinator sees of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct View {
    /// Where the job stands.
    pub state: JobState,
    /// How its results get to the target.
    pub mode: OutputMode,
    /// Whether a person wants it to end while it publishes.
    pub cancel: bool,
    /// Whether everything it no longer needs is gone.
    pub cleaned: bool,
    /// Whether the input cannot be read by the plan any more: as it was then, or from the member that the plan goes by.
    pub plan_lost: bool,
    /// Map tasks of the plan.
    pub map_tasks: u64,
    /// Reduce tasks of the plan.
    pub reduce_tasks: u64,
    /// Where the plan's tasks stand.
    pub phases: JobPhases,
    /// The publish task, once it is there.
    pub publish: Option<PublishTask>,
}

/// What a coordinator sees of a publish task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublishTask {
    /// Where it stands.
    pub state: TaskState,
    /// How far publishing has come.
    pub marks: Marks,
}

/// What a coordinator does for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Move {
    /// Take the job up.
    Take,
    /// Fix the snapshot, cut the input, write the tasks.
    Plan,
    /// Plan the job anew: what was mapped is mapped again.
    PlanAnew,
    /// Open the planned map tasks.
    OpenMap,
    /// Open the planned reduce tasks.
    OpenReduce,
    /// Make sure that the input is still the one that was planned for, then begin to reduce.
    Reduce,
    /// Note the identity of the results, and begin to publish. A job without reduce tasks first makes sure of
    /// its input.
    Publish(JobEvent),
    /// Write the publish task.
    OpenPublish,
    /// Take back a publish task that nobody works on.
    WithdrawPublish,
    /// The job has succeeded.
    Succeed,
    /// The job fails with the task that was given up.
    Fail,
    /// The job waits for a person: its target holds a part of the results.
    Stop,
    /// The job ends as a person wishes.
    Cancel,
    /// Remove what the job no longer needs.
    CleanUp,
}

/// Decides a job's next moves, in this order. None: there is nothing to do but wait.
pub fn moves(view: &View) -> Vec<Move> {
    let View { phases, .. } = view;
    match view.state {
        JobState::Submitted => vec![Move::Take],
        JobState::Planning => vec![Move::Plan],
        // Before anything else: its tasks may have been given up for just that reason.
        JobState::Mapping if view.plan_lost => vec![Move::PlanAnew],
        JobState::Mapping if phases.map.quarantined > 0 => vec![Move::Fail],
        JobState::Mapping if phases.map.planned > 0 => vec![Move::OpenMap],
        JobState::Mapping if phases.map.done < needed(view.map_tasks) => Vec::new(),
        JobState::Mapping if view.reduce_tasks == 0 => vec![Move::Publish(JobEvent::MappedOnly)],
        JobState::Mapping => vec![Move::Reduce],
        // A map task whose blocks were lost runs again while others reduce.
        JobState::Reducing if phases.map.quarantined + phases.reduce.quarantined > 0 => {
            vec![Move::Fail]
        }
        JobState::Reducing if phases.reduce.planned > 0 => vec![Move::OpenReduce],
        JobState::Reducing if phases.reduce.done < view.reduce_tasks => Vec::new(),
        JobState::Reducing => vec![Move::Publish(JobEvent::Reduced)],
        JobState::Publishing => publishing(view),
        JobState::Stopped => Vec::new(),
        JobState::Succeeded | JobState::Failed | JobState::Cancelled if view.cleaned => Vec::new(),
        JobState::Succeeded | JobState::Failed | JobState::Cancelled => vec![Move::CleanUp],
    }
}

/// How many of so many tasks have to be done: all of them.
fn needed(tasks: u64) -> u64 {
    if crate::planted::planted("maps-incomplete") { tasks.min(1) } else { tasks }
}

fn publishing(view: &View) -> Vec<Move> {
    let Some(task) = view.publish else {
        // Nothing has begun, and once the job has ended nothing will.
        return vec![if view.cancel { Move::Cancel } else { Move::OpenPublish }];
    };
    match task.state {
        TaskState::Done => vec![Move::Succeed],
        TaskState::Cancelled => vec![Move::Cancel],
        // Who holds the task obeys, or else the next one who claims it.
        TaskState::Leased => Vec::new(),
        // The target may have been replaced already, or a rename may be on its way: the next worker tells.
        TaskState::Ready if task.marks.begun && !view.mode.adds() => Vec::new(),
        TaskState::Planned | TaskState::Ready if view.cancel => vec![Move::WithdrawPublish],
        TaskState::Planned | TaskState::Ready => Vec::new(),
        // A person who wants it to end need not be asked.
        TaskState::Quarantined if task.marks.begun && view.mode.adds() && view.cancel => {
            vec![Move::Cancel]
        }
        // What was replaced was replaced at one instant or not at all.
        TaskState::Quarantined if task.marks.begun && view.mode.adds() => vec![Move::Stop],
        TaskState::Quarantined => vec![Move::Fail],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::PhaseCounts;

    fn view(state: JobState) -> View {
        View {
            state,
            mode: OutputMode::Merge,
            cancel: false,
            cleaned: false,
            plan_lost: false,
            map_tasks: 2,
            reduce_tasks: 1,
            phases: JobPhases::default(),
            publish: None,
        }
    }

    fn phase(done: u64, quarantined: u64) -> PhaseCounts {
        PhaseCounts { total: done + quarantined, done, quarantined, ..PhaseCounts::default() }
    }

    #[test]
    fn a_phase_ends_only_when_each_of_its_tasks_has_committed() {
        let mut mapping = view(JobState::Mapping);
        mapping.phases.map = phase(1, 0);
        assert_eq!(moves(&mapping), []);
        mapping.phases.map = phase(2, 0);
        assert_eq!(moves(&mapping), [Move::Reduce]);
        mapping.reduce_tasks = 0;
        assert_eq!(moves(&mapping), [Move::Publish(JobEvent::MappedOnly)]);
        let mut reducing = view(JobState::Reducing);
        assert_eq!(moves(&reducing), []);
        reducing.phases.reduce = phase(1, 0);
        assert_eq!(moves(&reducing), [Move::Publish(JobEvent::Reduced)]);
    }

    #[test]
    fn a_plan_that_is_lost_is_made_anew_before_anything_fails_or_begins_to_reduce() {
        for (done, quarantined) in [(0, 0), (1, 1), (2, 0)] {
            let mut mapping = View { plan_lost: true, ..view(JobState::Mapping) };
            mapping.phases.map = phase(done, quarantined);
            assert_eq!(moves(&mapping), [Move::PlanAnew]);
        }
        let mut reducing = View { plan_lost: true, ..view(JobState::Reducing) };
        reducing.phases.reduce = phase(1, 0);
        assert_eq!(moves(&reducing), [Move::Publish(JobEvent::Reduced)]);
    }

    #[test]
    fn a_job_that_may_have_merged_a_part_never_fails() {
        for mode in [OutputMode::Merge, OutputMode::Reduce, OutputMode::Update] {
            let marks = Marks { begun: true, ..Marks::default() };
            let publish = Some(PublishTask { state: TaskState::Quarantined, marks });
            let stopped = View { mode, publish, ..view(JobState::Publishing) };
            assert_eq!(moves(&stopped), [Move::Stop]);
            let publish =
                Some(PublishTask { state: TaskState::Quarantined, marks: Marks::default() });
            let failed = View { mode, publish, ..view(JobState::Publishing) };
            assert_eq!(moves(&failed), [Move::Fail]);
        }
    }

    #[test]
    fn a_replacement_that_may_have_taken_place_is_not_withdrawn() {
        for (mode, begun, expected) in [
            (OutputMode::Replace, false, vec![Move::WithdrawPublish]),
            (OutputMode::Replace, true, vec![]),
            // What a merge has changed is told by the job's error.
            (OutputMode::Merge, true, vec![Move::WithdrawPublish]),
        ] {
            let marks = Marks { counted: true, begun, ..Marks::default() };
            let publish = Some(PublishTask { state: TaskState::Ready, marks });
            let waits = View { mode, cancel: true, publish, ..view(JobState::Publishing) };
            assert_eq!(moves(&waits), expected, "{mode} {begun}");
        }
    }

    #[test]
    fn a_merge_that_is_refused_while_a_person_wants_it_to_end_is_cancelled() {
        let marks = Marks { counted: true, begun: true, ..Marks::default() };
        let publish = Some(PublishTask { state: TaskState::Quarantined, marks });
        let refused = View { cancel: true, publish, ..view(JobState::Publishing) };
        assert_eq!(moves(&refused), [Move::Cancel]);
    }

    #[test]
    fn a_lease_on_the_publish_task_is_left_alone() {
        for cancel in [false, true] {
            let publish = Some(PublishTask { state: TaskState::Leased, marks: Marks::default() });
            let held = View { cancel, publish, ..view(JobState::Publishing) };
            assert_eq!(moves(&held), []);
        }
    }
}
