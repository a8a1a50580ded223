//! Flags of daemons.

use std::path::PathBuf;

use clap::Args;

use super::path;
use crate::config::{self, Caps};
use crate::error::{Error, Result};

/// What jobs may ask for in this fleet; a job that asks for more fails and says so. Give every coordinator and
/// worker the same.
#[derive(Debug, Args)]
#[command(next_help_heading = "Caps on what jobs ask for")]
pub(in crate::cli) struct CapArgs {
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
    pub(in crate::cli) fn caps(&self) -> Result<Caps> {
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
pub(in crate::cli) struct WorkerArgs {
    /// In a sharded cluster, a member of the shard to work for, asked without a router between: the
    /// server that this worker runs beside, by its unix socket where it has one.
    #[arg(long, env = "AVIARY_SHARD_URI", hide_env_values = true, value_name = "U")]
    pub(in crate::cli) shard_uri: Option<String>,
    /// A file that holds that address, as for --uri-file.
    #[arg(long, env = "AVIARY_SHARD_URI_FILE", value_name = "FILE", value_parser = path())]
    pub(in crate::cli) shard_uri_file: Option<PathBuf>,
    /// In a sharded cluster, the shard to work for through the router [default: that of --shard-uri,
    /// or all of them].
    #[arg(long, env = "AVIARY_SHARD", value_name = "NAME")]
    pub(in crate::cli) shard: Option<String>,
    /// Tasks run at once [default: the processors].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(in crate::cli) slots: Option<u16>,
    /// Memory that functions may use at most, in MiB, each.
    #[arg(long, value_name = "M", default_value_t = config::WORKER_MEMORY_MB_DEFAULT, value_parser = clap::value_parser!(u64).range(1..=config::GUEST_MEMORY_MB_MAX))]
    pub(in crate::cli) memory_mb: u64,
    /// Temporary files of all its tasks together, in bytes, in TMPDIR: reduce tasks that merge many runs write
    /// them [default: half of what is free there when the worker starts].
    #[arg(long, env = "AVIARY_SPILL_BYTES", value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    pub(in crate::cli) spill_bytes: Option<u64>,
    #[command(flatten)]
    pub(in crate::cli) caps: CapArgs,
    #[command(flatten)]
    pub(in crate::cli) fleet: FleetArgs,
}

/// What coordinators and workers of a fleet are told alike.
#[derive(Debug, Args)]
pub(in crate::cli) struct FleetArgs {
    /// Other databases that jobs of this one may read and write without a grant of their owners: one team
    /// owns them all. Give coordinators and workers the same.
    #[arg(long, env = "AVIARY_TRUST_DATABASES", value_name = "NAME,NAME", value_delimiter = ',')]
    pub(in crate::cli) trust_databases: Vec<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CoordinatorArgs {
    #[command(flatten)]
    pub(in crate::cli) fleet: FleetArgs,
    /// Not used any more: coordinators run no functions.
    #[arg(long, value_name = "M", hide = true)]
    pub(in crate::cli) memory_mb: Option<u64>,
    #[command(flatten)]
    pub(in crate::cli) caps: CapArgs,
}
