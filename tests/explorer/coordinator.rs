//! What moves a job on: a coordinator's look at one job, and what a person asks for.
//!
//! The order of commands is that of `src/coordinator` and `src/cli`. Which moves are made is asked of
//! [`aviary::protocol::coordinate`] itself.

use aviary::job::{JobEvent, JobState};
use aviary::protocol::coordinate::{Move, PublishTask, View, moves};
use aviary::task::{JobPhases, TaskState};

use crate::command::{ANY, Arrow, Cmd, Reply};
use crate::scenario::Scenario;
use crate::world::{Bag, J, Kind, Name, Snap, Uuid, World};

/// The lane of people. The others belong to coordinator `lane / 2` and job `lane % 2`.
pub const PERSON: usize = 4;

/// Which command a lane sends next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pc {
    Idle,
    Adopt,
    View,
    Reread,
    Move(Arrow),
    /// Reads the task that was given up, then moves.
    GivenUp(JobEvent),
    /// Reads the publish task for the message, then moves.
    ReadForCancel,
    DescribeHidden(JobEvent),
    InsertPublish,
    Withdraw,
    Open(Kind),
    PlanSnapshot,
    PlanCreate,
    PlanBegin,
    PlanInsert,
    CleanTasks,
    CleanPlans,
    CleanBlocks,
    CleanList,
    CleanDrop,
    CleanMerges,
    CleanTurn,
    Clean,
    // A person's.
    CancelTasks,
    RequestCancel,
    Resume,
    RemoveBlocks,
    RemoveTasks,
    Remove,
}

/// What is remembered between two commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lane {
    pub pc: Pc,
    pub job: J,
    /// The epoch under which a coordinator began this look.
    pub epoch: u8,
    pub snap: Snap,
    /// The number of the plan that is being written.
    number: u8,
    pub names: Bag<Name, 4>,
    pub uuid: Uuid,
}

impl Lane {
    pub const IDLE: Lane = Lane {
        pc: Pc::Idle,
        job: 0,
        epoch: 0,
        snap: Snap {
            state: JobState::Submitted,
            cancel: false,
            cleaned: false,
            plan_lost: false,
            role: 0,
            plan: 0,
            snapshot: 0,
            uuid: 0,
        },
        number: 0,
        names: Bag::EMPTY,
        uuid: 0,
    };

    fn arrow(&self, event: JobEvent) -> Arrow {
        let event = JobEvent::ALL.iter().position(|one| *one == event).unwrap();
        Arrow {
            job: self.job,
            event: u8::try_from(event).unwrap(),
            plan: self.snap.plan,
            role: self.snap.role,
            snapshot: ANY,
            state: ANY,
            uuid: 0,
            says: false,
        }
    }

    pub fn command(&self) -> Option<Cmd> {
        let Lane { job, snap, number, .. } = *self;
        let Snap { plan, role, .. } = snap;
        Some(match self.pc {
            Pc::Idle => return None,
            Pc::Adopt => Cmd::Adopt(job, self.epoch),
            Pc::View => Cmd::ReadTasks(job, plan),
            Pc::Reread => Cmd::ReadJob(job),
            Pc::Move(arrow) => Cmd::Transition(arrow),
            Pc::GivenUp(_) => Cmd::Quarantined(job, plan),
            Pc::ReadForCancel => Cmd::ReadTasks(job, plan),
            Pc::DescribeHidden(_) => Cmd::Describe(Name::Hidden(job)),
            Pc::InsertPublish => Cmd::InsertPublish { job, plan, uuid: snap.uuid },
            Pc::Withdraw => Cmd::Withdraw(job, plan),
            Pc::Open(kind) => Cmd::OpenPhase(job, plan, kind),
            Pc::PlanSnapshot => Cmd::SetSnapshot { job, plan, role, to: self.epoch },
            Pc::PlanCreate => Cmd::Create(Name::Hidden(job)),
            Pc::PlanBegin => Cmd::BeginPlan { job, plan, role },
            Pc::PlanInsert => Cmd::InsertTasks(job, number),
            Pc::CleanTasks | Pc::CancelTasks => Cmd::CancelTasks(job),
            Pc::CleanPlans => Cmd::DeleteStale(job, plan),
            Pc::CleanBlocks | Pc::RemoveBlocks => Cmd::DeleteBlocks(job),
            Pc::CleanList => Cmd::ListHidden(job),
            Pc::CleanDrop => Cmd::Drop(*self.names.iter().next().unwrap()),
            Pc::CleanMerges => Cmd::EndMerges(job),
            Pc::CleanTurn => Cmd::ReleaseTurn(job),
            Pc::Clean => Cmd::Cleaned(job),
            Pc::RequestCancel => Cmd::RequestCancel(job),
            Pc::Resume => Cmd::ResumeTask(job, plan),
            Pc::RemoveTasks => Cmd::DeleteTasks(job),
            Pc::Remove => Cmd::Tombstone(job),
        })
    }

    /// Whether the next command touches nothing that another job sees.
    pub fn is_private(&self) -> bool {
        matches!(
            self.pc,
            Pc::CleanTasks | Pc::CleanPlans | Pc::CleanBlocks | Pc::CleanList | Pc::CleanDrop
        )
    }

    /// Decides the job's next move, as `reconcile` does.
    fn decide(
        &mut self,
        scenario: &Scenario,
        trusted: bool,
        phases: JobPhases,
        publish: Option<PublishTask>,
    ) {
        let snap = self.snap;
        let counts = matches!(snap.state, JobState::Mapping | JobState::Reducing);
        let view = View {
            state: snap.state,
            mode: scenario.mode(self.job),
            cancel: snap.cancel,
            cleaned: snap.cleaned,
            plan_lost: snap.plan_lost,
            map_tasks: u64::from(scenario.map_tasks),
            reduce_tasks: u64::from(scenario.reduce_tasks),
            phases: if counts { phases } else { JobPhases::default() },
            publish: publish.filter(|_| snap.state == JobState::Publishing),
        };
        let planned = moves(&view);
        assert!(planned.len() < 2, "the model makes one move a look: {planned:?}");
        let mut one = planned.first().copied();
        let waits = publish.is_some_and(|task| task.state == TaskState::Ready);
        if scenario.bugs.withdrawn_after_begin && view.cancel && waits {
            one = Some(Move::WithdrawPublish);
        }
        let Some(one) = one.filter(|_| trusted) else { return self.idle() };

        self.pc = match one {
            Move::Take => Pc::Move(self.arrow(JobEvent::Taken)),
            Move::PlanAnew => Pc::Move(self.arrow(JobEvent::PlanLost)),
            Move::Plan => Pc::PlanSnapshot,
            Move::OpenMap => Pc::Open(Kind::Map),
            Move::OpenReduce => Pc::Open(Kind::Reduce),
            Move::Reduce => Pc::Move(self.arrow(JobEvent::Mapped)),
            Move::Publish(event) => Pc::DescribeHidden(event),
            Move::OpenPublish => Pc::InsertPublish,
            Move::WithdrawPublish => Pc::Withdraw,
            Move::Succeed => Pc::Move(self.arrow(JobEvent::Published)),
            Move::Fail => Pc::GivenUp(JobEvent::Failed),
            Move::Stop => Pc::GivenUp(JobEvent::PublishStopped),
            Move::Cancel => Pc::ReadForCancel,
            Move::CleanUp => Pc::CleanTasks,
        };
    }

    fn idle(&mut self) {
        *self = Lane::IDLE;
    }

    /// Fails the job, if the coordinator may. (`may_fail` and `fail` in `reconcile`.)
    fn fail(&mut self) {
        let state = JobState::ALL.iter().position(|one| *one == self.snap.state).unwrap();
        let state = u8::try_from(state).unwrap();
        self.pc = Pc::Move(Arrow { state, ..self.arrow(JobEvent::Failed) });
    }

    /// What comes after the names of the hidden collections are known or dropped.
    fn after_drop(&mut self, scenario: &Scenario) {
        let adds = scenario.mode(self.job).adds();
        let bugs = scenario.bugs;
        self.pc = if self.names.is_empty() {
            match () {
                () if adds && self.snap.uuid != 0 && !bugs.merges_not_ended => Pc::CleanMerges,
                () if bugs.turn_released_early => Pc::Clean,
                () => Pc::CleanTurn,
            }
        } else {
            Pc::CleanDrop
        };
    }

    fn answered(&mut self, scenario: &Scenario, person: bool, trusted: bool, reply: Reply) {
        match (self.pc, reply) {
            (Pc::Adopt, Reply::Job(Some(snap))) => {
                self.snap = snap;
                self.pc = Pc::View;
            }
            (Pc::Adopt, _) => self.idle(),
            (Pc::View, Reply::Tasks(phases, publish)) => {
                self.decide(scenario, trusted, phases, publish);
            }
            (Pc::Reread, Reply::Job(now)) => match now {
                Some(now) if now.role == self.epoch => {
                    let moved = now.state != self.snap.state || now.cleaned != self.snap.cleaned;
                    self.snap = now;
                    self.pc = Pc::View;
                    if !moved {
                        self.idle();
                    }
                }
                _ => self.idle(),
            },
            (Pc::Move(arrow), Reply::Matched(moved)) if person => {
                let event = JobEvent::ALL[usize::from(arrow.event)];
                match event {
                    JobEvent::CancelRequested if moved => self.pc = Pc::CancelTasks,
                    JobEvent::CancelRequested => self.pc = Pc::RequestCancel,
                    _ => self.idle(),
                }
            }
            (Pc::GivenUp(_), Reply::Matched(false)) => self.pc = Pc::Reread,
            (Pc::GivenUp(event), _) => {
                let says = event == JobEvent::PublishStopped;
                self.pc = Pc::Move(Arrow { says, ..self.arrow(event) });
            }
            (Pc::ReadForCancel, Reply::Tasks(_, publish)) => {
                let says =
                    publish.is_some_and(|task| task.marks.begun) && scenario.mode(self.job).adds();
                self.pc = Pc::Move(Arrow { says, ..self.arrow(JobEvent::PublishCancelled) });
            }
            (Pc::DescribeHidden(_), Reply::Number(0)) => self.fail(),
            (Pc::DescribeHidden(event), Reply::Number(uuid)) => {
                self.pc = Pc::Move(Arrow { uuid, ..self.arrow(event) });
            }
            (Pc::PlanSnapshot, Reply::Matched(true)) => self.pc = Pc::PlanCreate,
            (Pc::PlanCreate, _) => self.pc = Pc::PlanBegin,
            (Pc::PlanBegin, Reply::Number(number)) if number > 0 => {
                self.number = number;
                self.pc = Pc::PlanInsert;
            }
            (Pc::PlanInsert, _) => {
                let arrow = self.arrow(JobEvent::Planned);
                self.pc = Pc::Move(Arrow { plan: self.number, snapshot: self.epoch, ..arrow });
                self.number = 0;
            }
            (Pc::CleanTasks, _) => self.pc = Pc::CleanPlans,
            (Pc::CleanPlans, _) => self.pc = Pc::CleanBlocks,
            (Pc::CleanBlocks, _) if scenario.bugs.turn_released_early => self.pc = Pc::CleanTurn,
            (Pc::CleanBlocks, _) => self.pc = Pc::CleanList,
            (Pc::CleanTurn, _) if scenario.bugs.turn_released_early => self.pc = Pc::CleanList,
            (Pc::CleanList, Reply::Names(names)) => {
                self.names = names;
                self.after_drop(scenario);
            }
            (Pc::CleanDrop, _) => {
                self.names.pop();
                self.after_drop(scenario);
            }
            (Pc::CleanMerges, _) if scenario.bugs.turn_released_early => self.pc = Pc::Clean,
            (Pc::CleanMerges, _) => self.pc = Pc::CleanTurn,
            (Pc::CleanTurn, _) => self.pc = Pc::Clean,
            (Pc::Clean, _) if person => self.pc = Pc::RemoveBlocks,
            (Pc::RemoveBlocks, _) => self.pc = Pc::RemoveTasks,
            (Pc::RemoveTasks, _) => self.pc = Pc::Remove,
            (Pc::Resume, _) => {
                self.pc = Pc::Move(Arrow { role: ANY, ..self.arrow(JobEvent::Resumed) });
            }
            (Pc::CancelTasks | Pc::RequestCancel | Pc::Remove, _) => self.idle(),
            // Whatever came of the move, the job is read again.
            _ => self.pc = Pc::Reread,
        }
    }
}

/// Whether the coordinator whose lane this is trusts that it has the role under the lane's epoch.
fn is_trusted(world: &World, lane: usize) -> bool {
    lane != PERSON && world.role.trusted[lane / 2] == world.lanes[lane].epoch
}

/// Has a lane go on with an answer, or without one.
pub fn resume(world: &mut World, scenario: &Scenario, lane: usize, reply: Option<Reply>) {
    let trusted = is_trusted(world, lane);
    let one = &mut world.lanes[lane];
    match reply {
        Some(reply) => one.answered(scenario, lane == PERSON, trusted, reply),
        // The job has to wait for the next look.
        None => one.idle(),
    }
    rest(one);
}

/// Forgets what is not needed any more, so that fewer worlds differ.
fn rest(lane: &mut Lane) {
    match lane.pc {
        Pc::Idle => *lane = Lane::IDLE,
        Pc::Adopt => lane.snap = Lane::IDLE.snap,
        _ => {}
    }
}

/// Whether a coordinator has anything to do for a job.
fn is_tended(snap: &Snap) -> bool {
    !snap.state.is_terminal() || !snap.cleaned
}

/// Begins a look at a job: reads it. With coarse reads everything up to the first write is one step. `false` when
/// there is nothing to do.
pub fn look(world: &mut World, scenario: &Scenario, lane: usize) -> bool {
    let epoch = world.role.trusted[lane / 2];
    let job = u8::try_from(lane % 2).unwrap();
    let there = world.jobs[lane % 2];
    if epoch == 0 || world.lanes[lane].pc != Pc::Idle || !there.there || !is_tended(&there.snap) {
        return false;
    }
    let snap = there.snap;
    let pc = if snap.role == epoch { Pc::View } else { Pc::Adopt };
    world.lanes[lane] = Lane { pc, job, epoch, snap, ..Lane::IDLE };
    rest(&mut world.lanes[lane]);
    if scenario.coarse {
        coarse(world, scenario, lane);
    }
    world.lanes[lane].pc != Pc::Idle
}

/// Goes on through what only reads.
pub fn coarse(world: &mut World, scenario: &Scenario, lane: usize) {
    loop {
        let reads = matches!(
            world.lanes[lane].pc,
            Pc::View | Pc::Reread | Pc::GivenUp(_) | Pc::ReadForCancel | Pc::DescribeHidden(_)
        );
        let Some(cmd) = world.lanes[lane].command().filter(|_| reads) else { return };
        let reply = crate::server::exec(world, scenario, cmd);
        resume(world, scenario, lane, Some(reply));
    }
}

/// A person begins to cancel a job.
pub fn cancel(world: &mut World, job: J) {
    let mut lane = Lane { job, ..Lane::IDLE };
    let arrow = lane.arrow(JobEvent::CancelRequested);
    lane.pc = Pc::Move(Arrow { plan: ANY, role: ANY, ..arrow });
    world.lanes[PERSON] = lane;
}

/// A person begins to resume a job that has stopped.
pub fn resume_job(world: &mut World, job: J) {
    let snap = world.jobs[usize::from(job)].snap;
    world.lanes[PERSON] = Lane { job, snap, pc: Pc::Resume, ..Lane::IDLE };
}

/// A person begins to remove a job that has ended.
pub fn remove(world: &mut World, job: J) {
    let snap = world.jobs[usize::from(job)].snap;
    world.lanes[PERSON] = Lane { job, snap, pc: Pc::CleanTasks, ..Lane::IDLE };
}
