//! The directory of one deployment, with the watchdog over it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

use crate::dirs;
use crate::error::{At, Error, Result};
use crate::process::{self, Record};
use crate::state::State;
use crate::watchdog::Watchdog;

/// The file that says that a directory is a deployment's. It is the first thing written there, so that a start
/// that failed can be tried again in the same directory.
pub(crate) const MARKER: &str = "aviary-deployment";
const MARKER_TEXT: &str =
    "aviary up made what is in this directory; aviary down --remove removes it\n";

/// Drop it after the processes in it: the directory must not change while it is being removed.
#[derive(Debug)]
pub(crate) struct Home {
    path: PathBuf,
    watchdog: Mutex<Option<Watchdog>>,
    /// Removed on drop; absent for a directory of the caller's.
    temporary: Option<TempDir>,
}

impl Home {
    /// Uses `dir`, or a new temporary directory.
    pub(crate) fn create(dir: Option<&Path>, keep: bool) -> Result<Self> {
        let mut temporary = None;
        let path = match dir {
            Some(dir) => {
                create_private(dir)?;
                dir.to_path_buf()
            }
            None => {
                let parent = std::env::temp_dir();
                let made = tempfile::Builder::new()
                    .prefix("aviary-")
                    .tempdir_in(&parent)
                    .at("create a directory in", &parent)?;
                let path = made.path().to_path_buf();
                if keep {
                    let _path = made.keep();
                } else {
                    temporary = Some(made);
                }
                path
            }
        };
        let path = fs::canonicalize(&path).at("resolve", &path)?;
        if temporary.is_none() {
            claim(&path)?;
        }
        // What an earlier run listed is gone; none of it is this run's business.
        fs::remove_file(path.join("pids")).ok();
        let watchdog = Watchdog::start(&path, temporary.is_some())?;
        Ok(Self { path, watchdog: Mutex::new(Some(watchdog)), temporary })
    }

    /// Uses the directory of a deployment that another program started.
    pub(crate) fn attach(dir: &Path) -> Result<Self> {
        Ok(Self {
            path: fs::canonicalize(dir).at("resolve", dir)?,
            watchdog: Mutex::new(None),
            temporary: None,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    /// Has the watchdog end this process too.
    pub(crate) fn watch(&self, record: &Record) -> Result<()> {
        watch_in(&self.path, record)
    }

    /// Lets everything outlive this program.
    pub(crate) fn leave(&self) {
        let mut watchdog = self.watchdog.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watchdog) = watchdog.take() {
            watchdog.disarm();
        }
    }
}

/// Makes a directory for its owner alone, with those above it; one that is there stays as it is.
pub(crate) fn create_private(dir: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).at("create", dir)
}

/// Makes a directory a deployment's. One that holds anything else is refused: `down` removes files by name.
fn claim(dir: &Path) -> Result<()> {
    dirs::check_own_dir(dir)?;
    if is_deployment(dir)? {
        return Ok(());
    }
    if fs::read_dir(dir).at("read", dir)?.next().is_some() {
        return Err(Error::NotEmpty { dir: dir.to_path_buf() });
    }
    let marker = dir.join(MARKER);
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&marker)
        .at("create", &marker)?;
    file.write_all(MARKER_TEXT.as_bytes()).at("write", &marker)
}

/// Whether a deployment was started in the directory, be it that the start failed.
///
/// # Errors
///
/// When somebody else put the file there that says so.
pub(crate) fn is_deployment(dir: &Path) -> Result<bool> {
    let marker = dir.join(MARKER);
    if fs::symlink_metadata(&marker).is_ok() {
        dirs::check_own_file(&marker)?;
        return Ok(true);
    }
    if State::path(dir).exists() {
        // Reading it tells whether it is what we write, and nobody else did.
        State::read(dir)?;
        return Ok(true);
    }
    Ok(false)
}

/// Whether a process that the watchdog over `dir` is to end still runs.
pub(crate) fn lists_running(dir: &Path) -> bool {
    let listed = fs::read_to_string(dir.join("pids")).unwrap_or_default();
    listed.lines().any(|line| {
        let numbers = line
            .split_once(' ')
            .and_then(|(pid, started)| Some((pid.parse().ok()?, started.parse().ok()?)));
        numbers.is_some_and(|(pid, started)| process::is_running(pid, started))
    })
}

/// Has the watchdog over `dir` end this process too.
pub(crate) fn watch_in(dir: &Path, record: &Record) -> Result<()> {
    let path = dir.join("pids");
    let mut file =
        OpenOptions::new().create(true).append(true).mode(0o600).open(&path).at("open", &path)?;
    let line = format!("{} {}\n", record.pid, record.started_ticks);
    file.write_all(line.as_bytes()).at("write", &path)
}
