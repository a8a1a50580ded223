//! One process that this program looks after.
//!
//! It writes to a log file, lives in a process group of its own (so Ctrl-C in a terminal reaches
//! the owner only), can be killed, frozen and thawed, and ends with the value that stands for it.
//! Signals go to the whole group, so a child's own children are meant as well.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::error::{At, Error, Result};

mod command;
mod record;

pub use command::ManagedCommand;
pub use record::Record;
pub(crate) use record::{end_all, is_running};
use record::{send_to_group, tolerate_gone};

/// How often conditions are looked at.
pub(crate) const POLL: Duration = Duration::from_millis(20);
/// The longest wait for a line in a log.
const LOG_WAIT_S_MAX: u64 = 120;
/// How much of a log is shown when a process fails.
const TAIL_LINES_MAX: usize = 8;
const TAIL_LINE_CHARS_MAX: usize = 400;

/// A process that is killed when this value is dropped, unless it was left running on purpose.
///
/// Should this program itself be killed, nothing is dropped; tie the process to a deployment with
/// [`crate::ReplicaSet::adopt`] to have it end even then.
#[derive(Debug)]
pub struct Managed {
    record: Record,
    /// Absent for a process that another program started.
    child: Option<Mutex<Child>>,
    log_start_bytes: u64,
    leave_running: AtomicBool,
}

impl Managed {
    /// Takes hold of a process that another program started. Dropping it leaves it running.
    #[must_use]
    pub fn attach(record: Record) -> Self {
        Self { record, child: None, log_start_bytes: 0, leave_running: AtomicBool::new(true) }
    }

    /// The name given to it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// Its process id, which is also that of its process group.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.record.pid
    }

    /// What identifies it.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Whether it runs (a frozen process does).
    #[must_use]
    pub fn is_running(&self) -> bool {
        match self.child() {
            Some(mut child) => matches!(child.try_wait(), Ok(None)),
            None => self.record.is_running(),
        }
    }

    /// Ends it at once (SIGKILL). It is gone when [`Managed::wait`] returns.
    ///
    /// # Errors
    ///
    /// When it no longer runs.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::SIGKILL)
    }

    /// Stops it in its tracks (SIGSTOP); its connections stay open.
    ///
    /// # Errors
    ///
    /// When it no longer runs.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on after [`Managed::freeze`] (SIGCONT).
    ///
    /// # Errors
    ///
    /// When it no longer runs.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Asks it to end (SIGTERM).
    ///
    /// # Errors
    ///
    /// When it no longer runs.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::SIGTERM)
    }

    /// Asks it to end as Ctrl-C does (SIGINT).
    ///
    /// # Errors
    ///
    /// When it no longer runs.
    pub fn interrupt(&self) -> Result<()> {
        self.signal(Signal::SIGINT)
    }

    /// The exit status, when it has ended.
    ///
    /// # Errors
    ///
    /// When another program started it.
    pub fn try_wait(&self) -> Result<Option<ExitStatus>> {
        match self.child() {
            Some(mut child) => child.try_wait().at("wait for", Path::new(self.name())),
            None => Err(Error::NotAChild { name: self.name().to_owned(), pid: self.pid() }),
        }
    }

    /// Waits until it ends, however long that takes.
    ///
    /// # Errors
    ///
    /// When another program started it.
    pub async fn wait(&self) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until it no longer runs, whoever started it, for at most `limit`.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] when it still runs then.
    pub async fn wait_gone(&self, limit: Duration) -> Result<()> {
        let what = format!("the end of {}", self.name());
        until(&what, limit, || if self.is_running() { Err("running".to_owned()) } else { Ok(()) })
            .await
    }

    /// Asks it to end, and ends it when it has not done so within `grace`. Also ends a frozen one.
    ///
    /// # Errors
    ///
    /// When it can be neither asked nor killed. Having ended already is no error.
    pub async fn stop(&self, grace: Duration) -> Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        // A frozen process takes the request only once it runs again.
        tolerate_gone(self.terminate())?;
        tolerate_gone(self.thaw())?;
        if self.wait_gone(grace).await.is_ok() {
            return Ok(());
        }
        tolerate_gone(self.kill())?;
        self.wait_gone(Duration::from_secs(LOG_WAIT_S_MAX)).await
    }

    /// What it wrote since it started (or all of the log, when another program started it).
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    pub fn log(&self) -> Result<String> {
        let path = &self.record.log;
        let mut file = File::open(path).at("open", path)?;
        file.seek(SeekFrom::Start(self.log_start_bytes)).at("read", path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).at("read", path)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The log file.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.record.log
    }

    /// Waits until its log contains `text`.
    ///
    /// # Errors
    ///
    /// [`Error::Start`] when it ends without having written it, [`Error::Timeout`] after two
    /// minutes.
    pub async fn wait_for_log(&self, text: &str) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(LOG_WAIT_S_MAX);
        loop {
            // Asked before reading, so that the last words of a process are not missed.
            let running = self.is_running();
            let log = self.log()?;
            if log.contains(text) {
                return Ok(());
            }
            if !running {
                return Err(self.start_error(&log));
            }
            if Instant::now() > deadline {
                return Err(Error::Timeout {
                    what: format!("{text:?} in the log of {}", self.name()),
                    limit: Duration::from_secs(LOG_WAIT_S_MAX),
                    seen: telling_lines(&log),
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Lets it run on when this value is dropped, and says how to find it again.
    pub fn detach(&self) -> Record {
        self.leave_running.store(true, Ordering::Relaxed);
        self.record.clone()
    }

    fn start_error(&self, log: &str) -> Error {
        let status = match self.try_wait() {
            Ok(Some(status)) => status.to_string(),
            _ => "an unknown status".to_owned(),
        };
        Error::Start { name: self.name().to_owned(), status, log: telling_lines(log) }
    }

    fn child(&self) -> Option<std::sync::MutexGuard<'_, Child>> {
        let child = self.child.as_ref()?;
        Some(child.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        // The guard is held across the signal: nobody reaps the child in between, so its id
        // cannot have passed to another process.
        let mut child = self.child();
        let running = match &mut child {
            Some(child) => matches!(child.try_wait(), Ok(None)),
            None => self.record.is_running(),
        };
        if running {
            return send_to_group(&self.record, signal);
        }
        Err(Error::NotRunning { name: self.name().to_owned(), pid: self.pid() })
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        if self.leave_running.load(Ordering::Relaxed) {
            return;
        }
        let record = &self.record;
        if let Some(mut child) = self.child()
            && matches!(child.try_wait(), Ok(None))
        {
            // Nothing is left to be done about a failure here; the watchdog tries again.
            send_to_group(record, Signal::SIGKILL).ok();
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Polls `check` until it is content; what it last said goes into the error.
pub(crate) async fn until<T>(
    what: &str,
    limit: Duration,
    mut check: impl FnMut() -> Result<T, String>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match check() {
            Ok(value) => return Ok(value),
            Err(seen) if Instant::now() > deadline => {
                return Err(Error::Timeout { what: what.to_owned(), limit, seen });
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

/// The errors in a log, or its last lines when it has none.
pub(crate) fn telling_lines(log: &str) -> String {
    let is_error = |line: &&str| {
        line.contains(r#""s":"E""#) || line.contains(r#""s":"F""#) || line.contains("rror")
    };
    let mut lines: Vec<&str> = log.lines().filter(is_error).collect();
    if lines.is_empty() {
        lines = log.lines().collect();
    }
    let skipped = lines.len().saturating_sub(TAIL_LINES_MAX);
    let shown: Vec<String> = lines
        .into_iter()
        .skip(skipped)
        .map(|line| line.chars().take(TAIL_LINE_CHARS_MAX).collect())
        .collect();
    if shown.is_empty() {
        return "(nothing)".to_owned();
    }
    shown.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_shown_before_plain_lines() {
        let log = "{\"s\":\"I\",\"msg\":\"a\"}\n{\"s\":\"E\",\"msg\":\"b\"}\n{\"s\":\"I\"}";
        assert_eq!(telling_lines(log), "{\"s\":\"E\",\"msg\":\"b\"}");
        assert_eq!(telling_lines("one\ntwo"), "one\ntwo");
        assert_eq!(telling_lines(""), "(nothing)");
    }
}
