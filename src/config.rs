//! Every limit, named, with its unit last, and what daemons may be told otherwise.
//!
//! Constants are properties of the design, or defaults; [`Settings`] are what daemons go by.

use std::time::Duration;

/// How long a claim is valid on the server unless renewed.
pub const LEASE_TTL_MS: u64 = 15_000;
/// No lease is shorter: it could not be renewed in time.
pub const LEASE_TTL_MS_MIN: u64 = 600;
/// No lease lasts longer: whatever says that it does was not written by a daemon.
pub const LEASE_TTL_MS_MAX: u64 = 12 * 3_600_000;
/// A worker stops trusting its lease this long before the server would give it away.
pub const LEASE_MARGIN_MS: u64 = 2_000;
/// Attempts of one task that fail before the task is quarantined.
pub const ATTEMPTS_MAX: i32 = 4;
/// Attempts of one task that may lose their lease before the task is quarantined. They are more than
/// [`ATTEMPTS_MAX`], because a lease is also lost to a failover or a machine that is too busy, which is not
/// the task's fault; and they end, because a task may well be what ends its workers.
pub const LOST_MAX: i32 = 8;
/// The first retry of a failed task waits about this long; each further one twice as long.
pub const BACKOFF_BASE_MS: i64 = 500;
/// No retry waits longer than this.
pub const BACKOFF_MAX_MS: i64 = 30_000;
/// Damaged blocks of the shuffle that a reduce task has made again. One more, and they are not damaged by
/// chance: a disk is, or a worker of another version has written them.
pub const BLOCKS_DAMAGED_MAX: usize = 8;
/// Attempts kept in a task's history.
pub const HISTORY_MAX: i32 = 16;
/// Candidate tasks a claimer reads before it picks among them at random.
pub const CLAIM_CANDIDATES_MAX: i64 = 16;
/// Open jobs that a claimer reads at a time.
pub const CLAIM_JOBS_MAX: usize = 256;
/// Of these, those whose tasks it looks for at one time; it goes on with the others the next time.
pub const CLAIM_LOOKS_MAX: usize = 32;
/// Open jobs that a coordinator tends in one look; it goes on with the others in the next.
pub const JOBS_PER_LOOK: usize = 500;
/// Things of one kind that a sweep looks at; the next one goes on with the others.
pub const SWEPT_MAX: usize = 1_000;
/// What cannot be done for a job or swept, for a reason that does not pass by itself, is tried again after about this
/// long; each further time after twice as long.
pub const RETRY_BASE_MS: u64 = 1_000;
/// No such pause is longer.
pub const RETRY_MAX_MS: u64 = 120_000;
/// Workers and coordinators look for work at least this often, whatever a change stream says.
pub const POLL_MS: u64 = 1_000;
/// Workers say this often that they are alive.
pub const WORKER_REPORTS_EVERY: Duration = Duration::from_secs(5);
/// A worker that has not been seen for this long has missed a report.
pub const WORKER_SILENT_MS: i64 = 8_000;
/// A worker that has not been seen for this long is shown as gone.
pub const WORKER_GONE_MS: i64 = 30_000;
/// A worker that is gone for longer is listed for scripts only.
pub const WORKER_LISTED_MS: i64 = 600_000;

/// Bytes of input that a slot maps in a second, when a function was never run before: what a JavaScript
/// function with some work to do manages. Only a warning depends on it.
pub const MAP_BYTES_PER_SECOND: u64 = 8 << 20;

/// Largest query of a job, in bytes: it is part of a document, beside the job's functions.
pub const QUERY_BYTES_MAX: usize = 15 << 20;

/// Documents and arrays within each other, in whatever is read, emitted, stored or written: as many as servers take on
/// the wire. What a server stores may be less deep still, and it says so itself.
pub const NESTING_DEPTH_MAX: usize = 200;

/// Bytes of input a map task should read.
pub const SPLIT_BYTES_TARGET: u64 = 48 << 20;
/// Splits for each slot that a job has at least, so that slots end at about the same time.
pub const SPLITS_PER_SLOT: u64 = 4;
/// No split is made smaller than this for the sake of balance, in bytes.
pub const SPLIT_BYTES_MIN: u64 = 8 << 20;
/// Ranges of one split: small chunks of a shard are read together.
pub const RANGES_MAX: usize = 64;
/// Tasks that are claimed or committed by one command. The server takes more, but none is worth waiting for so many.
pub const TASKS_TOGETHER_MAX: usize = 64;
/// Map tasks of one job: their numbers have five digits in their names.
pub const SPLITS_MAX: u32 = 100_000;
/// Ids sampled for every split, so that splits come out within about 20 % of each other.
pub const SAMPLES_PER_SPLIT: u64 = 40;
/// Ids sampled by one plan; more would cost more than better balanced splits give back.
pub const SAMPLES_MAX: u64 = 200_000;
/// Bytes of an input that is read in the order in which one member keeps it: all of it is read again if that member
/// goes away.
pub const NATURAL_BYTES_MAX: u64 = 32 << 30;
/// Bytes of a split that is read in a member's own order, at least: its end takes a second look, which costs more than
/// what a smaller one saves.
pub const NATURAL_SPLIT_BYTES_MIN: u64 = 4 << 20;
/// Plans of one job after which it is not planned anew any more, whatever becomes of its input.
pub const PLANS_LOST_MAX: i32 = 5;
/// Partitions of one job.
pub const PARTITIONS_MAX: u32 = 1_024;
/// Bytes of input for each partition when the job names no number.
pub const PARTITION_BYTES_TARGET: u64 = 256 << 20;
/// Partitions chosen for a job that names no number.
pub const PARTITIONS_AUTO_MAX: u32 = 64;

/// Bytes one reply of a map task's cursor may carry.
pub const READ_BATCH_BYTES: u64 = 2 << 20;
/// Buffers of a worker up to this size are used again and again. It is more than a reply has, and no more than half of
/// what glibc would take for such.
pub const KEPT_BUFFER_BYTES: usize = 16 << 20;
/// Replies read ahead of the function.
pub const READ_AHEAD_BATCHES: usize = 2;
/// How often a session whose cursor waits for a function is used, so that it is kept: servers drop one that
/// nobody has used for half an hour.
pub const SESSION_REFRESH: Duration = Duration::from_secs(300);
/// Bytes of documents handed to a function in one call.
pub const CALL_BYTES_TARGET: usize = 256 << 10;
/// A call is made smaller when it lasts longer than this, so that deadlines stay per record.
pub const CALL_TARGET_MS: u128 = 20;
/// Bytes of a map task's manifest in the task's document; what a larger one names is written beside the blocks.
pub const MANIFEST_BYTES_MAX: usize = 4 << 20;
/// Bytes of input that one task may map and reduce: one reducer is done with as much before a second has started.
pub const ONE_TASK_BYTES_MAX: u64 = 8 << 20;
/// Bytes of blocks that such a task keeps in memory between map and reduce; more go through the database.
pub const ONE_TASK_KEPT_BYTES_MAX: usize = 16 << 20;
/// Bytes of blocks in a map task's own document: below this, a write and a read for each partition cost more than
/// that document's growth.
pub const KEPT_BYTES_MAX: usize = 64 << 10;
/// Bytes of such blocks that a reduce task reads together with the manifest; more are read as they are merged.
pub const KEPT_READ_BYTES_MAX: usize = 32 << 20;
/// Emits held in memory by one map task before they are combined and spilled.
pub const TABLE_BYTES_MAX: usize = 48 << 20;
/// Bytes of values gathered for one call of a user's reduce or combine.
pub const VALUES_BYTES_MAX: usize = 2 << 20;
/// Bytes of a block of the shuffle before compression. A reducer holds about three times as much
/// for each run it merges: the block being read, and the next one on its way.
pub const BLOCK_RAW_BYTES_TARGET: usize = 512 << 10;
/// Runs merged at once by a reducer.
pub const FAN_IN_MAX: usize = 48;
/// One part in so many of what the disk has free when a worker starts is for its temporary files, unless it is told
/// otherwise: the server beside it needs room too.
pub const SPILL_PART_OF_FREE: u64 = 2;
/// Bytes for them where the disk does not tell.
pub const SPILL_BYTES_DEFAULT: u64 = 16 << 30;
/// Batches that wait to be written by one task.
pub const BATCHES_WAITING_MAX: usize = 2;
/// Batches that one task writes at once.
pub const WRITES_IN_FLIGHT: usize = 4;
/// Bytes written to the database in one insert.
pub const WRITE_BATCH_BYTES: usize = 2 << 20;
/// Documents written to the database in one insert.
pub const WRITE_BATCH_DOCS: usize = 1_000;
/// Results that one command merges into a target: a publisher can be stopped between two.
pub const MERGE_PIECE_ROWS: u64 = 10_000;
/// How long a coordinator waits for what it does for one job before it turns to the next; what it does goes on.
pub const MOVE_MAX: Duration = Duration::from_secs(20);
/// Jobs that a coordinator moves at once.
pub const MOVES_AT_ONCE: usize = 8;
/// How long an attempt whose lease is lost may take to notice before its slot is used without it.
pub const ABANDON_AFTER: Duration = Duration::from_secs(30);
/// How long a refused request stays, and what is left of a removed job: seven days. A worker that was frozen can bring
/// back what a removed job has left, and nobody is frozen for longer and then goes on.
pub const RETENTION_MS: u64 = 7 * 24 * 3_600_000;
/// The least of it: a day.
pub const RETENTION_MS_MIN: u64 = 24 * 3_600_000;
/// The most of it: a year.
pub const RETENTION_MS_MAX: u64 = 365 * 24 * 3_600_000;
/// A MongoDB document's greatest size.
pub const DOCUMENT_BYTES_MAX: usize = 16 << 20;
/// Bytes of a function; larger ones are refused.
pub const FUNCTION_BYTES_MAX: usize = 64 << 20;
/// Bytes of a function in one document of the catalogue.
pub const FUNCTION_CHUNK_BYTES: usize = 15 << 20;
/// Bytes of source: of one file that is compiled, and of all that are stored beside their function.
pub const SOURCE_BYTES_MAX: usize = 4 << 20;
/// Bytes of a configuration file.
pub const CONFIG_FILE_BYTES_MAX: usize = 1 << 20;
/// Bytes of text that a person gives for one document: extended JSON of the largest one, whatever is in it.
pub const DOCUMENT_TEXT_BYTES_MAX: usize = 256 << 20;
/// Bytes of a compiler's words that are shown.
pub const COMPILER_TEXT_BYTES_MAX: usize = 16 << 10;
/// Compiled functions kept in the cache directory.
pub const BUILT_MODULES_MAX: usize = 64;
/// What a name led to before: so many versions are remembered.
pub const NAME_VERSIONS_MAX: usize = 100;
/// Bytes of a function's name.
pub const NAME_BYTES_MAX: usize = 128;
/// Distinct counters a job's functions may name.
pub const USER_COUNTERS_MAX: usize = 256;
/// Lines that the functions of one attempt may log; more are counted and dropped.
pub const LOG_LINES_MAX: usize = 1_000;
/// Bytes of such lines unless the job says otherwise.
pub const LOG_BYTES_DEFAULT: u64 = 1 << 20;
/// Bytes of such lines that a job may ask for: what so many lines of the greatest length have.
pub const LOG_BYTES_MAX: usize = 8 << 20;
/// Bytes of log lines that are written without waiting for more.
pub const LOG_BATCH_BYTES: usize = 128 << 10;
/// Pause between two writes of an attempt's log lines.
pub const LOG_PAUSE: Duration = Duration::from_secs(1);
/// Bytes of the error, and of the stack, that are kept of a record that failed.
pub const FAILED_TEXT_BYTES_MAX: usize = 16 << 10;
/// Counters of one job that are kept when its tasks name different ones.
pub const JOB_COUNTERS_MAX: i64 = 1_000;
/// Bytes of values that a reduce takes in one call when its values must not be combined.
pub const WHOLE_VALUES_BYTES_MAX: usize = 32 << 20;
/// Values of one key between two looks at the lease.
pub const VALUES_PER_CHECK: u64 = 4_096;
/// Linear memory that a function may ask for, in MiB: all that 32-bit addresses reach.
pub const GUEST_MEMORY_MB_MAX: u64 = 4_096;
/// Bytes that one record may emit unless the job says otherwise.
pub const RECORD_OUTPUT_BYTES_DEFAULT: u64 = 64 << 20;
/// Linear memory that a worker or coordinator gives a function at most unless told otherwise, in MiB.
pub const WORKER_MEMORY_MB_DEFAULT: u64 = 1_024;
/// Linear memory one function may use unless the job says otherwise.
pub const GUEST_MEMORY_MB_DEFAULT: u64 = 128;
/// Time one record may take unless the job says otherwise.
pub const RECORD_TIMEOUT_MS_DEFAULT: u64 = 30_000;
/// How long a client looks for a server before it gives up.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a command seeks to learn whether a write took effect whose reply was lost. An election of the servers' own
/// settings takes some 10 seconds.
pub const OUTCOME_SOUGHT: Duration = Duration::from_secs(60);
/// How long a worker looks for the server beside it before it asks the shard's primary.
pub const BESIDE_TIMEOUT: Duration = Duration::from_secs(2);

/// Time that one record may take, in milliseconds: a day.
pub const RECORD_TIMEOUT_MS_MAX: u64 = 24 * 3_600_000;
/// Time that one attempt at a task may take, in milliseconds: a week.
pub const TASK_TIMEOUT_MS_MAX: u64 = 7 * 24 * 3_600_000;
/// Bytes that one record may emit: a call of several may emit four times as much, which is held in memory.
pub const RECORD_OUTPUT_BYTES_MAX: u64 = 1 << 30;
/// Time that the server may spend on reading one piece of the input, in milliseconds: a day.
pub const QUERY_TIME_MS_MAX: u64 = 24 * 3_600_000;
/// The same where the query runs JavaScript in the server, in milliseconds: ten minutes unless a fleet says otherwise.
pub const SCRIPT_TIME_MS_DEFAULT: u64 = 10 * 60_000;

/// What jobs may ask for. The default is what this version allows at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Linear memory of one function, in MiB.
    pub memory_mb: u64,
    /// Time of one record, in milliseconds.
    pub record_timeout_ms: u64,
    /// Time of one attempt at a task, in milliseconds; jobs that name none have this.
    pub task_timeout_ms: u64,
    /// Bytes that one record emits.
    pub record_output_bytes: u64,
    /// Bytes of lines that one attempt logs.
    pub log_bytes: u64,
    /// Partitions of the shuffle.
    pub partitions: u64,
    /// Time that the server spends on reading one piece of the input, in milliseconds.
    pub query_time_ms: u64,
    /// The same for a query that runs JavaScript in the server.
    pub script_time_ms: u64,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            memory_mb: GUEST_MEMORY_MB_MAX,
            record_timeout_ms: RECORD_TIMEOUT_MS_MAX,
            task_timeout_ms: TASK_TIMEOUT_MS_MAX,
            record_output_bytes: RECORD_OUTPUT_BYTES_MAX,
            log_bytes: LOG_BYTES_MAX as u64,
            partitions: u64::from(PARTITIONS_MAX),
            query_time_ms: QUERY_TIME_MS_MAX,
            script_time_ms: SCRIPT_TIME_MS_DEFAULT,
        }
    }
}

/// What a daemon goes by. [`crate::settings`] says where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long a claim is valid on the server unless renewed, in milliseconds.
    pub lease_ttl_ms: u64,
    /// How long before its end a lease is no longer trusted locally, in milliseconds.
    pub lease_margin_ms: u64,
    /// The longest pause between two looks for work, in milliseconds.
    pub poll_ms: u64,
    /// Whether change streams wake the process early; polling always runs.
    pub watch: bool,
    /// Bytes of input a map task should read; only the coordinator's value counts.
    pub split_bytes: u64,
    /// Bytes of a split from which on the input is read in a member's own order; only the coordinator's value counts.
    pub natural_split_bytes: u64,
    /// Bytes of input below which one task does a whole job, if one reducer is enough for it; only the coordinator's
    /// value counts.
    pub one_task_bytes: u64,
    /// Bytes of a map task's manifest in the task's document.
    pub manifest_bytes_max: usize,
    /// Bytes of blocks that a map task may leave in its own document, all of its blocks or none.
    pub kept_bytes_max: usize,
    /// How long a refused request stays, and what is left of a removed job.
    pub retention: Duration,
    /// What jobs may ask for in this fleet.
    pub caps: Caps,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease_ttl_ms: LEASE_TTL_MS,
            lease_margin_ms: LEASE_MARGIN_MS,
            poll_ms: POLL_MS,
            watch: true,
            split_bytes: SPLIT_BYTES_TARGET,
            natural_split_bytes: NATURAL_SPLIT_BYTES_MIN,
            one_task_bytes: ONE_TASK_BYTES_MAX,
            manifest_bytes_max: MANIFEST_BYTES_MAX,
            kept_bytes_max: KEPT_BYTES_MAX,
            retention: Duration::from_millis(RETENTION_MS),
            caps: Caps::default(),
        }
    }
}

impl Settings {
    /// How often a held lease is renewed.
    pub fn renew_every(&self) -> Duration {
        Duration::from_millis(self.lease_ttl_ms / 3)
    }
}
