//! Which process is meant, and signals to it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::until;
use crate::error::{Error, Result};

/// What identifies a process across programs; process ids alone are used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The name given to it.
    pub name: String,
    /// Its process id.
    pub pid: u32,
    /// When it started, in clock ticks since the machine did.
    pub started_ticks: u64,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Its log file.
    pub log: PathBuf,
}

impl Record {
    /// Whether this very process still runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        is_running(self.pid, self.started_ticks)
    }
}

/// Whether the process of that id which started then still runs.
pub(crate) fn is_running(pid: u32, started_ticks: u64) -> bool {
    stat(pid).is_some_and(|stat| stat.started_ticks == started_ticks && !stat.is_dead())
}

/// Ends processes of other programs: asks, waits up to `grace`, kills. Only those that are still
/// the ones recorded are touched.
pub(crate) async fn end_all(records: &[Record], grace: Duration) -> Result<()> {
    let running = || records.iter().filter(|record| record.is_running());
    for record in running() {
        tolerate_gone(send(record, Signal::SIGTERM))?;
        tolerate_gone(send(record, Signal::SIGCONT))?;
    }
    let all_gone = || match running().next() {
        Some(record) => Err(format!("{} running", record.name)),
        None => Ok(()),
    };
    if until("the end of all processes", grace, all_gone).await.is_ok() {
        return Ok(());
    }
    for record in running() {
        tolerate_gone(send_to_group(record, Signal::SIGKILL))?;
    }
    until("the end of all killed processes", grace, all_gone).await
}

pub(super) fn tolerate_gone(result: Result<()>) -> Result<()> {
    match result {
        Err(Error::NotRunning { .. }) => Ok(()),
        other => other,
    }
}

fn raw_pid(record: &Record) -> Result<Pid> {
    i32::try_from(record.pid)
        .ok()
        .filter(|pid| *pid > 1)
        .map(Pid::from_raw)
        .ok_or_else(|| Error::NotRunning { name: record.name.clone(), pid: record.pid })
}

pub(super) fn send_to_group(record: &Record, signal: Signal) -> Result<()> {
    signal_result(record, signal, killpg(raw_pid(record)?, signal))
}

fn send(record: &Record, signal: Signal) -> Result<()> {
    signal_result(record, signal, kill(raw_pid(record)?, signal))
}

fn signal_result(record: &Record, signal: Signal, result: nix::Result<()>) -> Result<()> {
    result.map_err(|source| match source {
        nix::errno::Errno::ESRCH => {
            Error::NotRunning { name: record.name.clone(), pid: record.pid }
        }
        source => Error::Signal {
            signal: signal.as_str(),
            name: record.name.clone(),
            pid: record.pid,
            source,
        },
    })
}

pub(super) struct Stat {
    state: char,
    threads: u32,
    pub(super) started_ticks: u64,
}

impl Stat {
    /// A main thread is a zombie already while other threads still hold files and ports.
    fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X') && self.threads <= 1
    }
}

pub(super) fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may contain anything.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    // The state was field 3, the number of threads is field 20, the start time field 22.
    let threads = fields.nth(16)?.parse().ok()?;
    let started_ticks = fields.nth(1)?.parse().ok()?;
    Some(Stat { state, threads, started_ticks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_with_another_start_time_is_not_this_process() {
        let pid = std::process::id();
        let mut record = Record {
            name: "this".to_owned(),
            pid,
            started_ticks: stat(pid).unwrap().started_ticks,
            command: Vec::new(),
            log: PathBuf::new(),
        };
        assert!(record.is_running());
        record.started_ticks += 1;
        assert!(!record.is_running());
    }
}
