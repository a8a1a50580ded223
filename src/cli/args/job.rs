//! Flags of a job, and how a job is named.

use clap::{ArgGroup, Args};

use super::duration;
use crate::config;
use crate::job::{OnError, ReadMode};

#[derive(Debug, Args)]
pub(in crate::cli) struct JobArg {
    /// A job's id, the unambiguous beginning or end of one, or `last`.
    #[arg(value_name = "JOB")]
    pub(in crate::cli) job: String,
}

/// What makes up a job's functions, shared by `submit` and `try`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("job").args(["map", "module", "command"]).required(true).multiple(true))]
pub(in crate::cli) struct JobFunctions {
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
    pub(in crate::cli) command: Option<String>,
    /// The input collection.
    // Whether it is needed depends on what else is given; the verbs check it.
    #[arg(short, long, value_name = "COLL", default_value = "", hide_default_value = true)]
    pub(in crate::cli) collection: String,
    /// The input's database [default: -d].
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) input_db: Option<String>,
    /// A module that has several stages: stands for --map, --reduce, … as far as it exports them.
    #[arg(long, value_name = "F")]
    pub(in crate::cli) module: Option<String>,
    /// Map: a file (.js, .go, .rs, .c, .cpp, .zig, .ts, .wasm, .wat), a name or digest in the catalogue,
    /// or the text of a JavaScript function.
    #[arg(long, value_name = "F")]
    pub(in crate::cli) map: Option<String>,
    /// Reduce: as for --map, or a built-in: _sum _count _min _max _avg _stats.
    /// Without it the job is map-only: each emit becomes a document.
    #[arg(long, value_name = "F")]
    pub(in crate::cli) reduce: Option<String>,
    /// Shrinks values on the map side; what it emits are the reduce's values [default: the reduce,
    /// unless it streams].
    #[arg(long, value_name = "F")]
    pub(in crate::cli) combine: Option<String>,
    /// Give the reduce all values of a key in one call, as they were emitted: for a reduce that is
    /// not associative and does not stream. At most 32 MiB of values a key.
    #[arg(long, conflicts_with = "combine")]
    pub(in crate::cli) no_combine: bool,
    /// Turns a reduced value into the one that is written.
    #[arg(long, value_name = "F")]
    pub(in crate::cli) finalize: Option<String>,
    /// Only documents that match, in MongoDB's query language: extended JSON, or as typed into mongosh; or a file that
    /// holds it.
    #[arg(long, value_name = "DOC", default_value = "{}")]
    pub(in crate::cli) query: String,
    /// The order in which --limit counts, as for --query.
    #[arg(long, value_name = "DOC")]
    pub(in crate::cli) sort: Option<String>,
    /// Read at most this many documents; they are read by one task.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(in crate::cli) limit: Option<i64>,
    /// Read only these fields, as for --query.
    #[arg(long, value_name = "DOC")]
    pub(in crate::cli) projection: Option<String>,
    /// How strings compare in --query and --sort: {"locale": "en", "strength": 2}. {"locale": "simple"}, by their bytes,
    /// where the collection has another one.
    #[arg(long, value_name = "DOC")]
    pub(in crate::cli) collation: Option<String>,
    /// Do not call reduce for a key with one value, as MongoDB did before 4.4: the value is the result.
    #[arg(long)]
    pub(in crate::cli) skip_single_values: bool,
    /// Parameters for the functions, as for --query; globals in JavaScript.
    #[arg(long, value_name = "DOC", default_value = "{}")]
    pub(in crate::cli) scope: String,
    /// Memory one function may use, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = config::GUEST_MEMORY_MB_DEFAULT)]
    pub(in crate::cli) memory_mb: u64,
    /// Time one record may take: a document, or the values of a key that reach a function in one call.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub(in crate::cli) record_timeout: humantime::Duration,
    /// Time one attempt at a task may take in all [default: as long as it needs].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(in crate::cli) task_timeout: Option<humantime::Duration>,
    /// Keys and values that one record (a document, or a key) may emit, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = config::RECORD_OUTPUT_BYTES_DEFAULT)]
    pub(in crate::cli) record_output: u64,
    /// Lines that the functions of one attempt may log, in bytes; further ones are counted and dropped.
    #[arg(long, value_name = "BYTES", default_value_t = config::LOG_BYTES_DEFAULT)]
    pub(in crate::cli) log_bytes: u64,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct SubmitArgs {
    #[command(flatten)]
    pub(in crate::cli) job: JobFunctions,
    /// Where results go: inline (printed), or to a collection in the database --out-db.
    /// replace:NAME: they become its content, at one instant.
    /// merge:NAME: they are added; one whose _id is there already takes the place of what was.
    /// reduce:NAME: what was there under a result's _id is reduced once more with it.
    /// update:NAME, for a map-only job: each emitted document's fields are set in the document of
    /// that _id; a plain value sets the field `value`. A result whose _id is not there is left out; the
    /// counters `updated` and `unmatched` say how many were there and how many not. The input itself may be named.
    #[arg(long, value_name = "MODE:NAME", default_value = "inline", conflicts_with = "command")]
    pub(in crate::cli) out: String,
    /// The output's database [default: -d].
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) out_db: Option<String>,
    /// Partitions of the shuffle [default: by size].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(in crate::cli) partitions: Option<u32>,
    /// snapshot: the whole input as of one instant. committed: each document as its task finds it,
    /// for jobs longer than the servers' snapshot history.
    #[arg(long, value_name = "MODE", default_value = "snapshot")]
    pub(in crate::cli) read: ReadMode,
    /// What to do when a function fails on a document or a key. fail: the job fails.
    /// skip:N, skip:P%: up to N of them, or P percent of the documents read, are left out and kept for
    /// `aviary failed`.
    #[arg(long, value_name = "POLICY", default_value_t = OnError::Fail)]
    pub(in crate::cli) on_error: OnError,
    /// A key of your own for this job: submitting it again follows the job that there is.
    #[arg(long, value_name = "KEY")]
    pub(in crate::cli) id: Option<String>,
    /// Submit as this tenant, by the collection aviary-requests-NAME.
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) tenant: Option<String>,
    /// Who asks. Clients that have tasks get the same share of the slots.
    #[arg(long, value_name = "ID")]
    pub(in crate::cli) client: Option<String>,
    /// A label for finding jobs again.
    #[arg(long, value_name = "T")]
    pub(in crate::cli) tag: Option<String>,
    /// Of a client's jobs, those with a higher number go first.
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub(in crate::cli) priority: i32,
    /// Keep the blocks of the shuffle after the job.
    #[arg(long)]
    pub(in crate::cli) keep_intermediates: bool,
    /// Check everything and print the job; write nothing.
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Wait for the job [default].
    #[arg(long, conflicts_with = "detach")]
    pub(in crate::cli) wait: bool,
    /// Print the job's id and return at once.
    #[arg(long)]
    pub(in crate::cli) detach: bool,
    /// Wait at most this long; the job goes on.
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "detach")]
    pub(in crate::cli) timeout: Option<humantime::Duration>,
}
