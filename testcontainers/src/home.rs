//! The directory of one deployment, with the watchdog over it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;

use crate::error::{At, Result};
use crate::process::Record;
use crate::watchdog::Watchdog;

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
                fs::create_dir_all(dir).at("create", dir)?;
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

/// Has the watchdog over `dir` end this process too.
pub(crate) fn watch_in(dir: &Path, record: &Record) -> Result<()> {
    let path = dir.join("pids");
    let mut file = OpenOptions::new().create(true).append(true).open(&path).at("open", &path)?;
    let line = format!("{} {}\n", record.pid, record.started_ticks);
    file.write_all(line.as_bytes()).at("write", &path)
}
