//! The file that describes a deployment, `cluster.json` in its directory.
//!
//! It lets another program find a deployment that was left running, and end exactly the processes
//! that belong to it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{At, Error, Result};
use crate::process::{Record, end_all};
use crate::{dirs, home, removal};

/// The version of the file's format.
pub const FORMAT: u32 = 1;

const STATE_FILE: &str = "cluster.json";
const DRAFT_FILE: &str = "cluster.json.new";
/// The file, and what it is called while it is being written.
pub(crate) const STATE_FILES: [&str; 2] = [STATE_FILE, DRAFT_FILE];

/// How long processes have to end by themselves before they are killed.
const GRACE_S: u64 = 30;

/// A user's name and password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// The name, in the database `admin`.
    pub user: String,
    /// The password.
    pub password: String,
}

/// What is known of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// [`FORMAT`].
    pub format: u32,
    /// The replica set's name.
    pub name: String,
    /// The address, with the administrator's credentials if there are any.
    pub uri: String,
    /// The members' ports on 127.0.0.1.
    pub ports: Vec<u16>,
    /// The administrator, when the deployment checks who its clients are.
    pub root: Option<Credentials>,
    /// Tells this run of the machine from others: process ids and start times begin anew with it.
    pub boot: String,
    /// The server processes, one for each port.
    pub members: Vec<Record>,
    /// Other processes that end with the deployment, such as workers.
    pub others: Vec<Record>,
    /// Logs of other processes that ended with an earlier run in the same directory.
    #[serde(default)]
    pub old_logs: Vec<PathBuf>,
}

impl State {
    /// Where the state of the deployment in `dir` is kept.
    #[must_use]
    pub fn path(dir: &Path) -> PathBuf {
        dir.join(STATE_FILE)
    }

    /// Reads the state of the deployment in `dir`.
    ///
    /// # Errors
    ///
    /// When there is none, when it cannot be understood, or when another user could have written it: it says
    /// which processes to end and how to start them again.
    pub fn read(dir: &Path) -> Result<Self> {
        let dir = &fs::canonicalize(dir).at("find", dir)?;
        let path = Self::path(dir);
        dirs::check_own_dir(dir)?;
        dirs::check_own_file(&path)?;
        let text = fs::read(&path).at("read", &path)?;
        serde_json::from_slice(&text).map_err(|source| Error::State { path, source })
    }

    /// Writes the state of the deployment in `dir`, readable for its owner only and all at once.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let path = Self::path(dir);
        let draft = dir.join(DRAFT_FILE);
        let text = serde_json::to_vec_pretty(self)
            .map_err(|source| Error::State { path: path.clone(), source })?;
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)
            .at("create", &draft)?;
        file.write_all(&text).at("write", &draft)?;
        fs::rename(&draft, &path).at("rename to", &path)
    }

    /// The logs of all other processes, those of earlier runs included.
    pub(crate) fn logs(&self) -> Vec<PathBuf> {
        let others = self.others.iter().map(|record| &record.log);
        let mut logs: Vec<PathBuf> = self.old_logs.iter().chain(others).cloned().collect();
        logs.sort();
        logs.dedup();
        logs
    }

    /// The processes that still run.
    pub fn running(&self) -> impl Iterator<Item = &Record> {
        let same_boot = self.boot == boot();
        self.members
            .iter()
            .chain(&self.others)
            .filter(move |record| same_boot && record.is_running())
    }
}

/// What became of a deployment that was taken down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    /// The processes that were running.
    pub processes: Vec<Record>,
    /// What is left in the directory after its removal, because nobody here made it.
    pub left: Vec<PathBuf>,
}

/// Whether a deployment was ever started in `dir`; a start that failed counts.
///
/// # Errors
///
/// When another user could have made it look so.
pub fn is_deployment(dir: &Path) -> Result<bool> {
    home::is_deployment(dir)
}

/// Ends the deployment in `dir`: first what was added to it, then its servers. With `remove`, what was made in
/// the directory goes too, and the directory if nothing else is in it. Without it, the data stay and a later
/// start in the same directory serves them again.
///
/// # Errors
///
/// When there is no deployment, or when a process can be neither asked nor made to end.
pub async fn down(dir: &Path, remove: bool) -> Result<Ended> {
    let mut ended = Ended::default();
    let mut logs = Vec::new();
    // A start that failed leaves files and no state.
    if !remove || State::path(dir).exists() || !is_deployment(dir)? {
        let state = State::read(dir)?;
        ended.processes = state.running().cloned().collect();
        logs = state.logs();
        let grace = Duration::from_secs(GRACE_S);
        if state.boot == boot() {
            end_all(&state.others, grace).await?;
            end_all(&state.members, grace).await?;
        }
    }
    if remove {
        dirs::check_own_dir(&fs::canonicalize(dir).at("find", dir)?)?;
        ended.left = removal::remove(dir, &logs)?;
    }
    Ok(ended)
}

pub(crate) fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}
