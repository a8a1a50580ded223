//! Verbs and flags. What scripts rely on is a contract: add to it, never change it silently.
//!
//! The flags of a verb are beside the verb; here are those that several share.

mod daemon;
mod global;
mod job;
mod setting;

use clap::{Args, Parser, Subcommand};

use super::cluster::{DownArgs, UpArgs};
use super::config::ConfigArgs;
use super::containers::AssembleArgs;
use super::demo::DemoArgs;
use super::failed::FailedArgs;
use super::functions::{FunctionsArgs, InsertArgs};
use super::init::InitArgs;
use super::list::ListArgs;
use super::logs::LogsArgs;
use super::new::NewArgs;
use super::replay::ReplayArgs;
use super::results::ResultsArgs;
use super::rm::RmArgs;
use super::status::StatusArgs;
use super::tasks::TasksArgs;
use super::trial::TryArgs;
use crate::wasm::compile_child::{Orders, VERB as COMPILE_VERB};

pub(super) use daemon::{CoordinatorArgs, WorkerArgs};
pub(super) use global::{Format, Global};
pub(super) use job::{JobArg, JobFunctions, SubmitArgs};
pub(super) use setting::{Given, Init, Worker};

/// MapReduce over MongoDB: sandboxed WebAssembly functions; the database is queue, shuffle and
/// journal.
#[derive(Debug, Parser)]
#[command(
    name = "aviary",
    version,
    max_term_width = 100,
    after_help = AFTER_HELP,
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 unexpected, 2 usage, 3 job failed, 4 cancelled, 5 not found,
6 cannot connect, 7 wait timed out or interrupted, 8 refused (invalid function, permission, unusable deployment),
9 job stopped while publishing (aviary resume or aviary cancel).

Start with `aviary demo`, then `aviary up` for a deployment to play with.";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show it all: start a throw-away deployment, count words with two workers, clean up.
    Demo(DemoArgs),
    /// Start a local deployment with coordinator and workers, and print its URI.
    Up(UpArgs),
    /// Stop a deployment that `up --detach` started.
    Down(DownArgs),
    /// Create and check Aviary's collections and indexes; harmless to repeat.
    Init(InitArgs),
    /// Show settings, and change those that the deployment shares.
    Config(ConfigArgs),
    /// Check functions and store them in the catalogue.
    Insert(InsertArgs),
    /// Begin a job of one's own: functions, a sample and how to run them.
    New(NewArgs),
    /// Look at the function catalogue.
    Functions(FunctionsArgs),
    /// Submit a job, and wait for it.
    #[command(alias = "begin")]
    Submit(Box<SubmitArgs>),
    /// List jobs, the youngest first.
    List(ListArgs),
    /// Show one job.
    #[command(alias = "show")]
    Status(StatusArgs),
    /// List a job's tasks and their leases.
    Tasks(TasksArgs),
    /// Print what a job's functions logged.
    Logs(LogsArgs),
    /// List the documents and keys that a job's functions failed on, and that were left out.
    Failed(FailedArgs),
    /// Run a function on such a record once more, in this process, and print what it emits and logs.
    Replay(ReplayArgs),
    /// Show a job's counters.
    Counters(JobArg),
    /// Print a job's results as JSON lines; of a collection that it wrote to, what that holds now.
    Results(ResultsArgs),
    /// End a job. What is merged into its target already stays there.
    Cancel(JobArg),
    /// Go on publishing a job that stopped because its target refused a result.
    Resume(JobArg),
    /// Remove ended jobs, their tasks and their inline results.
    Rm(RmArgs),
    /// List worker daemons; those that are gone for some minutes only with -o json.
    Workers,
    /// Run a coordinator: for the databases that --db names, else for every one. Any number may run; one holds the role.
    Coordinator(CoordinatorArgs),
    /// Run a worker: for the databases that --db names, else for every one.
    Worker(WorkerArgs),
    /// Run functions over a sample in this process: no workers, no writes.
    Try(Box<TryArgs>),
    /// The stand-in for mongos that `up --shards` and tests start. For trying things out only.
    #[command(name = ROUTER_VERB, hide = true)]
    TestRouter {
        /// Those of mongos.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Make a sharded cluster of servers that run already: the one-shot step of deploy/compose.yaml.
    /// --uri is the router. Harmless to repeat.
    #[command(hide = true)]
    Assemble(AssembleArgs),
    /// Print the path of the mongod, and of the mongos if there is one, that `up` would start.
    #[command(hide = true)]
    Servers,
    /// Compile the module on standard input, for the process that started this one.
    #[command(name = COMPILE_VERB, hide = true)]
    CompileModule(CompileModuleArgs),
}

/// The hidden verb that runs the stand-in for mongos.
pub(super) const ROUTER_VERB: &str = "test-router";

impl Command {
    /// Whether the verb runs until it is told to stop, and logs.
    pub(super) fn is_daemon(&self) -> bool {
        matches!(self, Command::Coordinator(_) | Command::Worker(_))
    }
}

#[derive(Debug, Args)]
pub(super) struct CompileModuleArgs {
    /// Address space, in bytes.
    #[arg(long, value_name = "BYTES")]
    memory_bytes: u64,
    /// Processor time, in seconds.
    #[arg(long, value_name = "S")]
    cpu_seconds: u64,
    /// For a process without room for a pool of instances.
    #[arg(long)]
    scarce: bool,
}

impl CompileModuleArgs {
    pub(super) fn orders(&self) -> Orders {
        let Self { memory_bytes, cpu_seconds, scarce } = *self;
        Orders { memory_bytes, cpu_seconds, scarce }
    }
}

/// A duration with its units.
pub(super) fn duration(text: &str) -> std::result::Result<humantime::Duration, String> {
    text.parse().map_err(|error| match text.trim().parse::<f64>() {
        Ok(_) => format!("give a unit: {0}s for seconds, {0}m for minutes", text.trim()),
        Err(_) => format!("{error}; give a number with a unit, like 10s or 5m"),
    })
}

/// A number of things to show; 0 is all of them.
pub(super) fn at_least_none() -> clap::builder::RangedI64ValueParser<i64> {
    clap::value_parser!(i64).range(0..)
}
