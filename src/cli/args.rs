//! Verbs and flags. What scripts rely on is a contract: add to it, never change it silently.

use std::path::PathBuf;

use aviary_testcontainers::assemble::Members;
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use serde::Deserialize;

use super::uri_file::{self, Sources};
use crate::config::{self, Caps};
use crate::error::{Error, Result};
use crate::job::{OnError, ReadMode};
use crate::store::uri::has_secret;
use crate::task::TaskState;
use crate::wasm::compile_child::{Orders, VERB as COMPILE_VERB};

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

/// Flags that every verb takes.
#[derive(Debug, Clone, Args)]
pub(super) struct Global {
    /// The deployment: the MongoDB URI of a replica set, or of a sharded cluster's router.
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        env = "AVIARY_URI",
        hide_env_values = true,
        value_name = "URI"
    )]
    pub(super) uri: Option<String>,
    /// A file that holds the URI, and that only its owner can read: `ps` shows the command line to everybody.
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        env = "AVIARY_URI_FILE",
        value_name = "FILE",
        value_parser = path()
    )]
    pub(super) uri_file: Option<PathBuf>,
    /// Where the two came from.
    #[arg(skip)]
    pub(super) sources: Sources,
    /// The database that holds the input and Aviary's collections [default: the URI's].
    #[arg(
        short,
        long,
        global = true,
        help_heading = "Global options",
        env = "AVIARY_DB",
        value_name = "NAME"
    )]
    pub(super) db: Option<String>,
    /// How to print.
    #[arg(
        short,
        long,
        global = true,
        help_heading = "Global options",
        value_enum,
        value_name = "FORMAT"
    )]
    pub(super) output: Option<Format>,
    /// Print nothing but data and errors.
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub(super) quiet: bool,
    /// Say more on standard error; twice for everything.
    #[arg(short, long, global = true, help_heading = "Global options", action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// A TOML file with `uri`, `db` and `output`.
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        env = "AVIARY_CONFIG",
        value_name = "FILE",
        value_parser = path()
    )]
    pub(super) config: Option<PathBuf>,
    /// What a daemon was told of other databases.
    #[arg(skip)]
    pub(super) trusted: Vec<String>,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// Columns for people.
    Table,
    /// More columns.
    Wide,
    /// One JSON document a line.
    Json,
    /// Only names.
    Name,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    uri: Option<String>,
    db: Option<String>,
    output: Option<Format>,
}

impl Global {
    /// Fills what flags and environment left open from the configuration file.
    pub(super) fn with_file(mut self) -> Result<Self> {
        let Some(path) = self.config.as_ref().filter(|path| !path.as_os_str().is_empty()) else {
            return Ok(self);
        };
        let text = std::fs::read_to_string(path).map_err(|e| Error::unreadable(path, e))?;
        let file: File = toml::from_str(&text).map_err(|e| {
            Error::Usage(format!("{} is not a configuration: {}", path.display(), e.message()))
        })?;
        if file.uri.as_deref().is_some_and(has_secret) {
            uri_file::check(path)?;
        }
        self.uri = self.uri.or(file.uri);
        self.db = self.db.or(file.db);
        self.output = self.output.or(file.output);
        Ok(self)
    }

    /// The format, tables by default.
    pub(super) fn format(&self) -> Format {
        self.output.unwrap_or(Format::Table)
    }
}

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
    /// Run a coordinator; any number may run, one holds the role.
    Coordinator(CoordinatorArgs),
    /// Run a worker.
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

    /// The databases that it was told to trust.
    pub(super) fn trusted(&self) -> Vec<String> {
        match self {
            Command::Coordinator(args) => args.fleet.trust_databases.clone(),
            Command::Worker(args) => args.fleet.trust_databases.clone(),
            _ => Vec::new(),
        }
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

#[derive(Debug, Args)]
pub(super) struct AssembleArgs {
    /// The config servers.
    #[arg(long, value_name = "NAME/HOST:PORT,…")]
    pub(super) config_servers: Members,
    /// A shard; once for each.
    #[arg(long = "shard", required = true, value_name = "NAME/HOST:PORT,…")]
    pub(super) shards: Vec<Members>,
}

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Bytes of text to count words in.
    #[arg(long, default_value = "64000000", value_name = "N")]
    pub(super) bytes: u64,
    /// Generate the text even where source text is found.
    #[arg(long)]
    pub(super) generated: bool,
    /// Write every word and its count here, as JSON lines.
    #[arg(long, value_name = "FILE")]
    pub(super) export: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct UpArgs {
    /// A sharded cluster with so many shards, instead of a replica set. Its router is a mongos where
    /// one is on PATH, otherwise a stand-in for trying things out.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) shards: Option<u16>,
    /// Members of the replica set, or of each shard.
    #[arg(long, default_value = "1", value_parser = ["1", "3"], value_name = "M")]
    pub(super) members: String,
    /// Worker processes; in a sharded cluster, for each shard.
    #[arg(long, default_value_t = 1, value_name = "K", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) workers: u16,
    /// Tasks a worker runs at once.
    #[arg(long, default_value_t = 2, value_name = "S", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) slots: u16,
    /// Where the data lives [default: a temporary directory, gone at the end; with --detach, one in
    /// the cache directory].
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
    /// The first member's port; the others follow.
    #[arg(long, value_name = "P")]
    pub(super) port: Option<u16>,
    /// Return at once; `aviary down` stops it.
    #[arg(long)]
    pub(super) detach: bool,
    /// Start nothing: list the deployments that `up` has started on this machine. A verb that is given no URI
    /// uses the one that runs.
    #[arg(long, conflicts_with_all = ["shards", "members", "workers", "slots", "dir", "port", "detach"])]
    pub(super) list: bool,
}

#[derive(Debug, Args)]
pub(super) struct DownArgs {
    /// The directory that `up --detach` was given [default: the one it chose].
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
    /// Remove the data too: logs and the servers' own directories, which go whole, with whatever was put there.
    /// What lies beside them stays.
    #[arg(long)]
    pub(super) remove: bool,
}

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// How far back snapshots can be read, e.g. 1h: raises the servers'
    /// minSnapshotHistoryWindowInSeconds where permitted.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) history_window: Option<humantime::Duration>,
    /// Create a collection of requests for this tenant, aviary-requests-NAME: who may insert there is this one.
    #[arg(long, value_name = "NAME")]
    pub(super) tenant: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct InsertArgs {
    /// Files: .js, .wasm or .wat, each a function; or sources in Go, Rust, C, C++, Zig or
    /// AssemblyScript, compiled to one module for each language.
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// A name under which jobs can find it; only for one function.
    #[arg(long, value_name = "N")]
    pub(super) name: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct NewArgs {
    /// The language of the functions.
    #[arg(value_enum, value_name = "LANGUAGE")]
    pub(super) language: Starter,
    /// A directory that is not there yet, or empty.
    #[arg(value_name = "DIR")]
    pub(super) dir: PathBuf,
}

/// What `new` can begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Starter {
    /// Needs nothing but aviary.
    #[value(alias = "js")]
    Javascript,
    /// Needs Go.
    Go,
    /// Needs Rust.
    #[value(alias = "rs")]
    Rust,
    /// Needs zig.
    C,
    /// Needs zig.
    #[value(alias = "c++")]
    Cpp,
    /// Needs zig.
    Zig,
    /// Needs AssemblyScript.
    #[value(alias = "typescript", alias = "ts", alias = "as")]
    Assemblyscript,
}

#[derive(Debug, Args)]
pub(super) struct FunctionsArgs {
    #[command(subcommand)]
    pub(super) verb: Option<FunctionsVerb>,
}

#[derive(Debug, Subcommand)]
pub(super) enum FunctionsVerb {
    /// List them, the youngest first.
    List,
    /// Show one: the text that it was made from on standard output, the rest on standard error.
    Show {
        /// A name, name@version or digest.
        function: String,
        /// Write its bytes, the module or script itself, to this file.
        #[arg(long, value_name = "FILE")]
        save: Option<PathBuf>,
    },
    /// Remove some; refused for one that a job needs which has not ended.
    Rm {
        /// Names, name@version or digests. The function goes, and every name's version that leads to it.
        #[arg(required = true, value_name = "FUNCTION")]
        functions: Vec<String>,
    },
}

/// What makes up a job's functions, shared by `submit` and `try`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("job").args(["map", "module", "command"]).required(true).multiple(true))]
pub(super) struct JobFunctions {
    /// A whole job as MongoDB takes it: the document of a mapReduce command, or db.COLL.mapReduce(…), in
    /// extended JSON or as typed into mongosh. A file, - for standard input, or the text itself.
    #[arg(
        long,
        value_name = "F",
        conflicts_with_all = [
            "collection", "module", "map", "reduce", "combine", "finalize", "query", "sort", "limit",
            "projection", "collation", "scope",
        ]
    )]
    pub(super) command: Option<String>,
    /// The input collection.
    // Whether it is needed depends on what else is given; the verbs check it.
    #[arg(short, long, value_name = "COLL", default_value = "", hide_default_value = true)]
    pub(super) collection: String,
    /// The input's database [default: -d].
    #[arg(long, value_name = "NAME")]
    pub(super) input_db: Option<String>,
    /// A module that has several stages: stands for --map, --reduce, … as far as it exports them.
    #[arg(long, value_name = "F")]
    pub(super) module: Option<String>,
    /// Map: a file (.js, .go, .rs, .c, .cpp, .zig, .ts, .wasm, .wat), a name or digest in the catalogue,
    /// or the text of a JavaScript function.
    #[arg(long, value_name = "F")]
    pub(super) map: Option<String>,
    /// Reduce: as for --map, or a built-in: _sum _count _min _max _avg _stats.
    /// Without it the job is map-only: each emit becomes a document.
    #[arg(long, value_name = "F")]
    pub(super) reduce: Option<String>,
    /// Shrinks values on the map side; what it emits are the reduce's values [default: the reduce,
    /// unless it streams].
    #[arg(long, value_name = "F")]
    pub(super) combine: Option<String>,
    /// Give the reduce all values of a key in one call, as they were emitted: for a reduce that is
    /// not associative and does not stream. At most 32 MiB of values a key.
    #[arg(long, conflicts_with = "combine")]
    pub(super) no_combine: bool,
    /// Turns a reduced value into the one that is written.
    #[arg(long, value_name = "F")]
    pub(super) finalize: Option<String>,
    /// Only documents that match, in MongoDB's query language: extended JSON, or as typed into mongosh; or a file that
    /// holds it.
    #[arg(long, value_name = "DOC", default_value = "{}")]
    pub(super) query: String,
    /// The order in which --limit counts, as for --query.
    #[arg(long, value_name = "DOC")]
    pub(super) sort: Option<String>,
    /// Read at most this many documents; they are read by one task.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(super) limit: Option<i64>,
    /// Read only these fields, as for --query.
    #[arg(long, value_name = "DOC")]
    pub(super) projection: Option<String>,
    /// How strings compare in --query and --sort: {"locale": "en", "strength": 2}. {"locale": "simple"}, by their bytes,
    /// where the collection has another one.
    #[arg(long, value_name = "DOC")]
    pub(super) collation: Option<String>,
    /// Do not call reduce for a key with one value, as MongoDB did before 4.4: the value is the result.
    #[arg(long)]
    pub(super) skip_single_values: bool,
    /// Parameters for the functions, as for --query; globals in JavaScript.
    #[arg(long, value_name = "DOC", default_value = "{}")]
    pub(super) scope: String,
    /// Memory one function may use, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = config::GUEST_MEMORY_MB_DEFAULT)]
    pub(super) memory_mb: u64,
    /// Time one record may take: a document, or the values of a key that reach a function in one call.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub(super) record_timeout: humantime::Duration,
    /// Time one attempt at a task may take in all [default: as long as it needs].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) task_timeout: Option<humantime::Duration>,
    /// Keys and values that one record (a document, or a key) may emit, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = config::RECORD_OUTPUT_BYTES_DEFAULT)]
    pub(super) record_output: u64,
    /// Lines that the functions of one attempt may log, in bytes; further ones are counted and dropped.
    #[arg(long, value_name = "BYTES", default_value_t = config::LOG_BYTES_DEFAULT)]
    pub(super) log_bytes: u64,
}

#[derive(Debug, Args)]
pub(super) struct SubmitArgs {
    #[command(flatten)]
    pub(super) job: JobFunctions,
    /// Where results go: inline (printed), or to a collection in the database --out-db.
    /// replace:NAME: they become its content, at one instant.
    /// merge:NAME: they are added; one whose _id is there already takes the place of what was.
    /// reduce:NAME: what was there under a result's _id is reduced once more with it.
    /// update:NAME, for a map-only job: each emitted document's fields are set in the document of
    /// that _id; a plain value sets the field `value`. A result whose _id is not there is left out; the
    /// counters `updated` and `unmatched` say how many were there and how many not. The input itself may be named.
    #[arg(long, value_name = "MODE:NAME", default_value = "inline", conflicts_with = "command")]
    pub(super) out: String,
    /// The output's database [default: -d].
    #[arg(long, value_name = "NAME")]
    pub(super) out_db: Option<String>,
    /// Partitions of the shuffle [default: by size].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) partitions: Option<u32>,
    /// snapshot: the whole input as of one instant. committed: each document as its task finds it,
    /// for jobs longer than the servers' snapshot history.
    #[arg(long, value_name = "MODE", default_value = "snapshot")]
    pub(super) read: ReadMode,
    /// What to do when a function fails on a document or a key. fail: the job fails.
    /// skip:N, skip:P%: up to N of them, or P percent of the documents read, are left out and kept for
    /// `aviary failed`.
    #[arg(long, value_name = "POLICY", default_value_t = OnError::Fail)]
    pub(super) on_error: OnError,
    /// A key of your own for this job: submitting it again follows the job that there is.
    #[arg(long, value_name = "KEY")]
    pub(super) id: Option<String>,
    /// Submit as this tenant, by the collection aviary-requests-NAME.
    #[arg(long, value_name = "NAME")]
    pub(super) tenant: Option<String>,
    /// Who asks.
    #[arg(long, value_name = "ID")]
    pub(super) client: Option<String>,
    /// A label for finding jobs again.
    #[arg(long, value_name = "T")]
    pub(super) tag: Option<String>,
    /// Jobs with a higher number go first.
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub(super) priority: i32,
    /// Keep the blocks of the shuffle after the job.
    #[arg(long)]
    pub(super) keep_intermediates: bool,
    /// Check everything and print the job; write nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Wait for the job [default].
    #[arg(long, conflicts_with = "detach")]
    pub(super) wait: bool,
    /// Print the job's id and return at once.
    #[arg(long)]
    pub(super) detach: bool,
    /// Wait at most this long; the job goes on.
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "detach")]
    pub(super) timeout: Option<humantime::Duration>,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only jobs of this client.
    #[arg(long, value_name = "ID")]
    pub(super) client: Option<String>,
    /// Only jobs with this tag.
    #[arg(long, value_name = "T")]
    pub(super) tag: Option<String>,
    /// Only jobs in this state.
    #[arg(long, value_name = "S")]
    pub(super) state: Option<String>,
    /// At most this many; 0 is all of them.
    #[arg(long, value_name = "N", default_value_t = 50)]
    #[arg(value_parser = at_least_none(), allow_negative_numbers = true)]
    pub(super) limit: i64,
}

#[derive(Debug, Args)]
pub(super) struct JobArg {
    /// A job's id, the unambiguous beginning or end of one, or `last`.
    #[arg(value_name = "JOB")]
    pub(super) job: String,
}

#[derive(Debug, Args)]
pub(super) struct RmArgs {
    /// Jobs' ids, or the unambiguous beginning or end of each.
    #[arg(value_name = "JOB", required_unless_present_any = ["tag", "client", "state"])]
    pub(super) jobs: Vec<String>,
    /// All ended jobs with this tag.
    #[arg(long, value_name = "T", conflicts_with = "jobs")]
    pub(super) tag: Option<String>,
    /// All ended jobs of this client.
    #[arg(long, value_name = "ID", conflicts_with = "jobs")]
    pub(super) client: Option<String>,
    /// All jobs in this state: succeeded, failed or cancelled.
    #[arg(long, value_name = "S", conflicts_with = "jobs", value_parser = ["succeeded", "failed", "cancelled"])]
    pub(super) state: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// A job's id, the unambiguous beginning or end of one, or `last`.
    #[arg(value_name = "JOB")]
    pub(super) job: String,
    /// Wait until the job ends; the exit code says how.
    #[arg(short, long)]
    pub(super) watch: bool,
}

#[derive(Debug, Args)]
pub(super) struct TasksArgs {
    /// A job's id, the unambiguous beginning or end of one, or `last`.
    #[arg(value_name = "JOB")]
    pub(super) job: String,
    /// Only tasks in this state.
    #[arg(long, value_name = "S")]
    pub(super) state: Option<TaskState>,
    /// The longest-running first.
    #[arg(long)]
    pub(super) slowest: bool,
    /// Each attempt that has ended, with its worker, its time and what became of it.
    #[arg(long)]
    pub(super) history: bool,
    /// At most this many; 0 is all of them.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    #[arg(value_parser = at_least_none(), allow_negative_numbers = true)]
    pub(super) limit: i64,
}

#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// A job's id, the unambiguous beginning or end of one, or `last`.
    #[arg(value_name = "JOB")]
    pub(super) job: String,
    /// Only lines of this task, as `aviary tasks` names it, e.g. map/1.00003.
    #[arg(long, value_name = "T")]
    pub(super) task: Option<String>,
    /// Go on printing until the job ends.
    #[arg(short, long)]
    pub(super) follow: bool,
}

#[derive(Debug, Args)]
pub(super) struct FailedArgs {
    /// A job's id, the unambiguous beginning or end of one, or `last`.
    #[arg(value_name = "JOB")]
    pub(super) job: String,
    /// At most this many; 0 is all of them.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    #[arg(value_parser = at_least_none(), allow_negative_numbers = true)]
    pub(super) limit: i64,
}

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// A job's id, the unambiguous beginning or end of one, or `last`.
    #[arg(value_name = "JOB")]
    pub(super) job: String,
    /// The record, as `aviary failed` names it, e.g. map/1.00003/0.
    #[arg(value_name = "RECORD")]
    pub(super) record: String,
    /// Another map than the job's: a file, a name or digest in the catalogue, or the text of a JavaScript function.
    #[arg(long, value_name = "F", conflicts_with_all = ["reduce", "finalize"])]
    pub(super) map: Option<String>,
    /// Another reduce, for a key that the reduce failed on.
    #[arg(long, value_name = "F", conflicts_with = "finalize")]
    pub(super) reduce: Option<String>,
    /// Another finalize, for a key that the finalize failed on.
    #[arg(long, value_name = "F")]
    pub(super) finalize: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct ResultsArgs {
    /// A job's id, the unambiguous beginning or end of one, or `last`.
    #[arg(value_name = "JOB")]
    pub(super) job: String,
    /// At most this many; 0 is all of them.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    #[arg(value_parser = at_least_none(), allow_negative_numbers = true)]
    pub(super) limit: i64,
    /// The order, as for submit's --query.
    #[arg(long, value_name = "DOC", default_value = "{\"_id\": 1}")]
    pub(super) sort: String,
}

/// A path that may be empty: a variable that is set to nothing is not set.
fn path() -> impl clap::builder::TypedValueParser<Value = PathBuf> {
    use clap::builder::TypedValueParser as _;
    clap::builder::OsStringValueParser::new().map(PathBuf::from)
}

/// What jobs may ask for in this fleet; a job that asks for more fails and says so. Give every coordinator and
/// worker the same.
#[derive(Debug, Args)]
#[command(next_help_heading = "Caps on what jobs ask for")]
pub(super) struct CapArgs {
    /// Memory of one function, in MiB [default: 4096].
    #[arg(long, env = "AVIARY_CAP_MEMORY_MB", value_name = "MIB")]
    cap_memory_mb: Option<u64>,
    /// Time that one record may take [default: 1day].
    #[arg(long, env = "AVIARY_CAP_RECORD_TIMEOUT", value_name = "DURATION")]
    cap_record_timeout: Option<humantime::Duration>,
    /// Time that one attempt at a task may take, also where the job names none [default: 7days].
    #[arg(long, env = "AVIARY_CAP_TASK_TIMEOUT", value_name = "DURATION")]
    cap_task_timeout: Option<humantime::Duration>,
    /// Bytes that one record may emit [default: 1073741824].
    #[arg(long, env = "AVIARY_CAP_RECORD_OUTPUT", value_name = "BYTES")]
    cap_record_output: Option<u64>,
    /// Bytes of lines that one attempt may log [default: 8388608].
    #[arg(long, env = "AVIARY_CAP_LOG_BYTES", value_name = "BYTES")]
    cap_log_bytes: Option<u64>,
    /// Partitions of the shuffle [default: 1024].
    #[arg(long, env = "AVIARY_CAP_PARTITIONS", value_name = "N")]
    cap_partitions: Option<u64>,
    /// Time that the server may spend on reading one piece of the input [default: 1day].
    #[arg(long, env = "AVIARY_CAP_QUERY_TIME", value_name = "DURATION")]
    cap_query_time: Option<humantime::Duration>,
    /// The same where the query runs JavaScript in the server ($where, $function) [default: 10min].
    #[arg(long, env = "AVIARY_CAP_SCRIPT_TIME", value_name = "DURATION")]
    cap_script_time: Option<humantime::Duration>,
}

impl CapArgs {
    /// The caps with what was given.
    ///
    /// # Errors
    /// [`Error::Usage`] for a cap above what this version allows at all: nothing would keep it.
    pub(super) fn caps(&self) -> Result<Caps> {
        let most = Caps::default();
        let number = |flag, given, most: u64| capped(flag, given, most, most, |n| n.to_string());
        let ms = |flag, given: Option<humantime::Duration>, or, most| {
            let given = given.map(|time| std::time::Duration::from(time).as_millis());
            let given = given.map(|ms| u64::try_from(ms).unwrap_or(u64::MAX));
            let shown =
                |ms| humantime::format_duration(std::time::Duration::from_millis(ms)).to_string();
            capped(flag, given, or, most, shown)
        };
        let time = |flag, given, most| ms(flag, given, most, most);
        let query_time_ms = time("--cap-query-time", self.cap_query_time, most.query_time_ms)?;
        Ok(Caps {
            memory_mb: number("--cap-memory-mb", self.cap_memory_mb, most.memory_mb)?,
            record_timeout_ms: time(
                "--cap-record-timeout",
                self.cap_record_timeout,
                most.record_timeout_ms,
            )?,
            task_timeout_ms: time(
                "--cap-task-timeout",
                self.cap_task_timeout,
                most.task_timeout_ms,
            )?,
            record_output_bytes: number(
                "--cap-record-output",
                self.cap_record_output,
                most.record_output_bytes,
            )?,
            log_bytes: number("--cap-log-bytes", self.cap_log_bytes, most.log_bytes)?,
            partitions: number("--cap-partitions", self.cap_partitions, most.partitions)?,
            query_time_ms,
            script_time_ms: ms(
                "--cap-script-time",
                self.cap_script_time,
                most.script_time_ms.min(query_time_ms),
                query_time_ms,
            )?,
        })
    }
}

/// A cap that was given, or the other. None is above `most`.
fn capped(
    flag: &str,
    given: Option<u64>,
    or: u64,
    most: u64,
    shown: impl Fn(u64) -> String,
) -> Result<u64> {
    match given.filter(|given| *given > most) {
        None => Ok(given.unwrap_or(or)),
        Some(above) => Err(Error::Usage(format!(
            "{flag} {} is above what is allowed at all, {}",
            shown(above),
            shown(most)
        ))),
    }
}

#[derive(Debug, Args)]
pub(super) struct WorkerArgs {
    /// In a sharded cluster, a member of the shard to work for, asked without a router between: the
    /// server that this worker runs beside, by its unix socket where it has one.
    #[arg(long, env = "AVIARY_SHARD_URI", hide_env_values = true, value_name = "U")]
    pub(super) shard_uri: Option<String>,
    /// A file that holds that address, as for --uri-file.
    #[arg(long, env = "AVIARY_SHARD_URI_FILE", value_name = "FILE", value_parser = path())]
    pub(super) shard_uri_file: Option<PathBuf>,
    /// In a sharded cluster, the shard to work for through the router [default: that of --shard-uri,
    /// or all of them].
    #[arg(long, env = "AVIARY_SHARD", value_name = "NAME")]
    pub(super) shard: Option<String>,
    /// Tasks run at once [default: the processors].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) slots: Option<u16>,
    /// Memory that functions may use at most, in MiB, each.
    #[arg(long, value_name = "M", default_value_t = config::WORKER_MEMORY_MB_DEFAULT, value_parser = clap::value_parser!(u64).range(1..=config::GUEST_MEMORY_MB_MAX))]
    pub(super) memory_mb: u64,
    /// Temporary files of all its tasks together, in bytes, in TMPDIR: reduce tasks that merge many runs write
    /// them [default: half of what is free there when the worker starts].
    #[arg(long, env = "AVIARY_SPILL_BYTES", value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) spill_bytes: Option<u64>,
    #[command(flatten)]
    pub(super) caps: CapArgs,
    #[command(flatten)]
    pub(super) fleet: FleetArgs,
}

/// What coordinators and workers of a fleet are told alike.
#[derive(Debug, Args)]
pub(super) struct FleetArgs {
    /// Other databases that jobs of this one may read and write without a grant of their owners: one team
    /// owns them all. Give coordinators and workers the same.
    #[arg(long, env = "AVIARY_TRUST_DATABASES", value_name = "NAME,NAME", value_delimiter = ',')]
    pub(super) trust_databases: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct CoordinatorArgs {
    #[command(flatten)]
    pub(super) fleet: FleetArgs,
    /// Not used any more: coordinators run no functions.
    #[arg(long, value_name = "M", hide = true)]
    pub(super) memory_mb: Option<u64>,
    #[command(flatten)]
    pub(super) caps: CapArgs,
}

#[derive(Debug, Args)]
pub(super) struct TryArgs {
    #[command(flatten)]
    pub(super) job: JobFunctions,
    /// Documents to run over instead of a collection's, without any server: one of extended JSON a
    /// line; `-` for standard input.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["collection", "input_db", "query", "sort", "projection"]
    )]
    pub(super) docs: Option<PathBuf>,
    /// Documents to read.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(super) sample: i64,
}

/// A duration with its units.
fn duration(text: &str) -> std::result::Result<humantime::Duration, String> {
    text.parse().map_err(|error| match text.trim().parse::<f64>() {
        Ok(_) => format!("give a unit: {0}s for seconds, {0}m for minutes", text.trim()),
        Err(_) => format!("{error}; give a number with a unit, like 10s or 5m"),
    })
}

/// A number of things to show; 0 is all of them.
fn at_least_none() -> clap::builder::RangedI64ValueParser<i64> {
    clap::value_parser!(i64).range(0..)
}
