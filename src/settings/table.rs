//! The table of all settings.

use super::Fallback::{self, Told};
use super::Group::{self, Caps, Daemons, Deployment, Global, Rare, Worker};
use super::{Kind, Setting};
use crate::config;

/// Names the configuration file.
pub const CONFIG: &str = "config";
/// The deployment's address.
pub const URI: &str = "uri";
/// A file that holds it.
pub const URI_FILE: &str = "uri-file";
/// The database.
pub const DB: &str = "db";
/// How to print.
pub const OUTPUT: &str = "output";
/// The filter of logs.
pub const LOG: &str = "log";
/// Databases that jobs may use without a grant.
pub const TRUST_DATABASES: &str = "trust-databases";
/// The longest pause between two looks for work.
pub const POLL_MS: &str = "poll-ms";
/// Whether change streams wake daemons.
pub const WATCH: &str = "watch";
/// The address of a worker's own shard.
pub const SHARD_URI: &str = "shard-uri";
/// A file that holds it.
pub const SHARD_URI_FILE: &str = "shard-uri-file";
/// A worker's shard.
pub const SHARD: &str = "shard";
/// Tasks that a worker runs at once.
pub const SLOTS: &str = "slots";
/// Memory that a worker gives a function.
pub const MEMORY_MB: &str = "memory-mb";
/// Bytes of a worker's temporary files.
pub const SPILL_BYTES: &str = "spill-bytes";
/// How long a lease lasts.
pub const LEASE_TTL_MS: &str = "lease-ttl-ms";
/// Bytes of a split.
pub const SPLIT_BYTES: &str = "split-bytes";
/// Bytes of a split that is read in a member's own order.
pub const NATURAL_SPLIT_BYTES: &str = "natural-split-bytes";
/// Bytes of an input that one task maps and reduces.
pub const ONE_TASK_BYTES: &str = "one-task-bytes";
/// Bytes of a manifest in a task's document.
pub const MANIFEST_BYTES: &str = "manifest-bytes";
/// Bytes of blocks in a task's document.
pub const KEPT_BYTES: &str = "kept-bytes";
/// How long answers outlive what they are about.
pub const RETENTION: &str = "retention";

/// More than any input has.
const BYTES_MAX: u64 = 1 << 50;
/// The longest pause between two looks that may be chosen: an hour.
const POLL_MS_MAX: u64 = 3_600_000;

/// Every setting. `aviary config show`, the flags and the configuration file are made from it.
pub static ALL: &[Setting] = &[
    of(
        Global,
        URI,
        "AVIARY_URI",
        Kind::Uri,
        "URI",
        NONE,
        "The deployment: the MongoDB URI of a replica set, or of a sharded cluster's router",
    ),
    of(
        Global,
        URI_FILE,
        "AVIARY_URI_FILE",
        Kind::Path,
        "FILE",
        NONE,
        "A file that holds the URI, and that only its owner can read: `ps` shows the command line to everybody",
    ),
    Setting {
        short: Some('d'),
        ..of(
            Global,
            DB,
            "AVIARY_DB",
            Kind::List,
            "NAME",
            Told("the URI's; for daemons else every one"),
            "The database that holds the input and Aviary's collections; for a coordinator or worker several, with commas between",
        )
    },
    Setting {
        short: Some('o'),
        ..of(
            Global,
            OUTPUT,
            "AVIARY_OUTPUT",
            Kind::Choice(&["table", "wide", "json", "name"]),
            "FORMAT",
            Told("table"),
            "How to print: table (columns for people), wide (more columns), json (one JSON document a line) or name (only names)",
        )
    },
    of(Global, CONFIG, "AVIARY_CONFIG", Kind::Path, "FILE", NONE, "A TOML file with settings"),
    of(
        Rare,
        LOG,
        "AVIARY_LOG",
        Kind::Filter,
        "FILTER",
        Told("by --verbose"),
        "Which logs to write, such as debug or aviary=debug. Verbs that are no daemons log only with it or with --verbose",
    ),
    of(
        Rare,
        "cache",
        "AVIARY_CACHE",
        Kind::Path,
        "DIR",
        Told("$XDG_CACHE_HOME/aviary, else $HOME/.cache/aviary"),
        "Where fetched servers, compilers and compiled modules are kept",
    ),
    of(
        Rare,
        "mongod",
        "AVIARY_MONGOD",
        Kind::Path,
        "PROGRAM",
        Told("on PATH, else in the cache, else fetched"),
        "The mongod that `aviary demo` and `aviary up` start",
    ),
    of(
        Rare,
        "mongos",
        "AVIARY_MONGOS",
        Kind::Path,
        "PROGRAM",
        Told("on PATH, else a stand-in"),
        "The router that `aviary up --shards` starts",
    ),
    of(
        Rare,
        "go",
        "AVIARY_GO",
        Kind::Path,
        "PROGRAM",
        Told("on PATH, else in the cache"),
        "The Go compiler",
    ),
    of(
        Rare,
        "rustc",
        "AVIARY_RUSTC",
        Kind::Path,
        "PROGRAM",
        Told("on PATH, else in the cache"),
        "The Rust compiler",
    ),
    of(
        Rare,
        "zig",
        "AVIARY_ZIG",
        Kind::Path,
        "PROGRAM",
        Told("on PATH, else in the cache"),
        "Zig, which compiles C, C++ and Zig",
    ),
    of(
        Rare,
        "asc",
        "AVIARY_ASC",
        Kind::Path,
        "PROGRAM",
        Told("the project's, else on PATH, else in the cache"),
        "The AssemblyScript compiler",
    ),
    of(
        Daemons,
        TRUST_DATABASES,
        "AVIARY_TRUST_DATABASES",
        Kind::List,
        "NAME,NAME",
        NONE,
        "Other databases that jobs of this one may read and write without a grant of their owners: one team owns them all. Give coordinators and workers the same",
    ),
    of(
        Daemons,
        POLL_MS,
        "AVIARY_POLL_MS",
        Kind::Number(5, POLL_MS_MAX),
        "MS",
        Fallback::Number(config::POLL_MS),
        "Look for work at least this often, in milliseconds",
    ),
    of(
        Daemons,
        WATCH,
        "AVIARY_WATCH",
        Kind::Switch,
        "ON|OFF",
        Fallback::Switch(true),
        "Whether change streams wake the daemon early; it polls in any case",
    ),
    of(
        Caps,
        "cap-memory-mb",
        "AVIARY_CAP_MEMORY_MB",
        Kind::Number(0, config::GUEST_MEMORY_MB_MAX),
        "MIB",
        Fallback::Number(config::GUEST_MEMORY_MB_MAX),
        "Memory of one function, in MiB",
    ),
    of(
        Caps,
        "cap-record-timeout",
        "AVIARY_CAP_RECORD_TIMEOUT",
        Kind::Duration(0, config::RECORD_TIMEOUT_MS_MAX),
        "DURATION",
        Fallback::Number(config::RECORD_TIMEOUT_MS_MAX),
        "Time that one record may take",
    ),
    of(
        Caps,
        "cap-task-timeout",
        "AVIARY_CAP_TASK_TIMEOUT",
        Kind::Duration(0, config::TASK_TIMEOUT_MS_MAX),
        "DURATION",
        Fallback::Number(config::TASK_TIMEOUT_MS_MAX),
        "Time that one attempt at a task may take, also where the job names none",
    ),
    of(
        Caps,
        "cap-record-output",
        "AVIARY_CAP_RECORD_OUTPUT",
        Kind::Number(0, config::RECORD_OUTPUT_BYTES_MAX),
        "BYTES",
        Fallback::Number(config::RECORD_OUTPUT_BYTES_MAX),
        "Bytes that one record may emit",
    ),
    of(
        Caps,
        "cap-log-bytes",
        "AVIARY_CAP_LOG_BYTES",
        Kind::Number(0, config::LOG_BYTES_MAX as u64),
        "BYTES",
        Fallback::Number(config::LOG_BYTES_MAX as u64),
        "Bytes of lines that one attempt may log",
    ),
    of(
        Caps,
        "cap-partitions",
        "AVIARY_CAP_PARTITIONS",
        Kind::Number(0, config::PARTITIONS_MAX as u64),
        "N",
        Fallback::Number(config::PARTITIONS_MAX as u64),
        "Partitions of the shuffle",
    ),
    of(
        Caps,
        "cap-query-time",
        "AVIARY_CAP_QUERY_TIME",
        Kind::Duration(0, config::QUERY_TIME_MS_MAX),
        "DURATION",
        Fallback::Number(config::QUERY_TIME_MS_MAX),
        "Time that the server may spend on reading one piece of the input",
    ),
    of(
        Caps,
        "cap-script-time",
        "AVIARY_CAP_SCRIPT_TIME",
        Kind::Duration(0, config::QUERY_TIME_MS_MAX),
        "DURATION",
        Fallback::Number(config::SCRIPT_TIME_MS_DEFAULT),
        "The same where the query runs JavaScript in the server ($where, $function)",
    ),
    of(
        Worker,
        SHARD_URI,
        "AVIARY_SHARD_URI",
        Kind::Uri,
        "U",
        NONE,
        "In a sharded cluster, a member of the shard to work for, asked without a router between: the server that this worker runs beside, by its unix socket where it has one",
    ),
    of(
        Worker,
        SHARD_URI_FILE,
        "AVIARY_SHARD_URI_FILE",
        Kind::Path,
        "FILE",
        NONE,
        "A file that holds that address, as for --uri-file",
    ),
    of(
        Worker,
        SHARD,
        "AVIARY_SHARD",
        Kind::Text,
        "NAME",
        Told("that of --shard-uri, or all of them"),
        "In a sharded cluster, the shard to work for through the router",
    ),
    of(
        Worker,
        SLOTS,
        "AVIARY_SLOTS",
        Kind::Number(1, 256),
        "N",
        Told("the processors"),
        "Tasks run at once",
    ),
    of(
        Worker,
        MEMORY_MB,
        "AVIARY_MEMORY_MB",
        Kind::Number(1, config::GUEST_MEMORY_MB_MAX),
        "M",
        Fallback::Number(config::WORKER_MEMORY_MB_DEFAULT),
        "Memory that functions may use at most, in MiB, each",
    ),
    of(
        Worker,
        SPILL_BYTES,
        "AVIARY_SPILL_BYTES",
        Kind::Number(1, BYTES_MAX),
        "BYTES",
        Told("half of what is free there when the worker starts"),
        "Temporary files of all its tasks together, in bytes, in TMPDIR: reduce tasks that merge many runs write them",
    ),
    of(
        Deployment,
        LEASE_TTL_MS,
        "AVIARY_LEASE_TTL_MS",
        Kind::Number(config::LEASE_TTL_MS_MIN, config::LEASE_TTL_MS_MAX),
        "MS",
        Fallback::Number(config::LEASE_TTL_MS),
        "How long a lease lasts unless it is renewed, in milliseconds: after this time a dead worker's tasks are given away",
    ),
    of(
        Deployment,
        SPLIT_BYTES,
        "AVIARY_SPLIT_BYTES",
        Kind::Number(1, BYTES_MAX),
        "BYTES",
        Fallback::Number(config::SPLIT_BYTES_TARGET),
        "Bytes of input for one map task. Only coordinators use it",
    ),
    of(
        Deployment,
        NATURAL_SPLIT_BYTES,
        "AVIARY_NATURAL_SPLIT_BYTES",
        Kind::Number(0, BYTES_MAX),
        "BYTES",
        Fallback::Number(config::NATURAL_SPLIT_BYTES_MIN),
        "Bytes of a split from which on the input is read in a member's own order. Only coordinators use it",
    ),
    of(
        Deployment,
        ONE_TASK_BYTES,
        "AVIARY_ONE_TASK_BYTES",
        Kind::Number(0, config::ONE_TASK_BYTES_MAX),
        "BYTES",
        Fallback::Number(config::ONE_TASK_BYTES_MAX),
        "Bytes of input below which one task does a whole job; 0 for never. Only coordinators use it",
    ),
    of(
        Deployment,
        MANIFEST_BYTES,
        "AVIARY_MANIFEST_BYTES",
        Kind::Number(0, config::MANIFEST_BYTES_MAX as u64),
        "BYTES",
        Fallback::Number(config::MANIFEST_BYTES_MAX as u64),
        "Bytes of a manifest in a map task's document. Only workers use it",
    ),
    of(
        Deployment,
        KEPT_BYTES,
        "AVIARY_KEPT_BYTES",
        Kind::Number(0, config::KEPT_BYTES_MAX as u64),
        "BYTES",
        Fallback::Number(config::KEPT_BYTES_MAX as u64),
        "Bytes of blocks in a map task's own document. Only workers use it",
    ),
    of(
        Deployment,
        RETENTION,
        "AVIARY_RETENTION",
        Kind::Duration(config::RETENTION_MS_MIN, config::RETENTION_MS_MAX),
        "DURATION",
        Fallback::Number(config::RETENTION_MS),
        "How long a refused request stays, and what is left of a removed job. Coordinators and `aviary rm` use it",
    ),
];

/// The setting of this name, or of this key.
#[must_use]
pub fn named(name: &str) -> Option<&'static Setting> {
    ALL.iter().find(|setting| setting.name == name || setting.key() == name)
}

const NONE: Fallback = Told("none");

const fn of(
    group: Group,
    name: &'static str,
    variable: &'static str,
    kind: Kind,
    takes: &'static str,
    default: Fallback,
    help: &'static str,
) -> Setting {
    Setting { name, variable, short: None, group, kind, takes, default, help }
}
