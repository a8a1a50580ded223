//! The deployments that `aviary up` has started on this machine: for each a file in the cache that names its directory.
//! What runs there, the directory itself says.

use std::path::{Path, PathBuf};

use aviary_testcontainers::state::State;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::args::Global;
use super::cluster::with_db;
use super::output;
use crate::dirs;
use crate::error::{Error, Result};
use crate::terminal::tell;

const DIR: &str = "deployments";

/// What a file says.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    dir: PathBuf,
    db: String,
}

/// A deployment whose directory is still there.
#[derive(Debug)]
pub(super) struct Deployment {
    /// Where its data and logs are.
    pub(super) dir: PathBuf,
    /// Its address, with the database that its daemons work in.
    pub(super) uri: String,
    /// Its servers that run.
    running: usize,
    /// Its servers.
    servers: usize,
}

impl Deployment {
    fn read(note: Note) -> Option<Self> {
        let state = State::read(&note.dir).ok()?;
        Some(Self {
            uri: with_db(&state.uri, &note.db),
            running: state.members.iter().filter(|member| member.is_running()).count(),
            servers: state.members.len(),
            dir: note.dir,
        })
    }

    fn state(&self) -> String {
        match self.running {
            0 => "stopped".to_owned(),
            all if all == self.servers => "running".to_owned(),
            some => format!("{some} of {} servers run", self.servers),
        }
    }
}

/// Notes that a deployment was started in `dir`.
///
/// # Errors
/// Those of the cache, and [`Error::Io`].
pub(super) fn note(dir: &Path, db: &str) -> Result<()> {
    let dir = std::fs::canonicalize(dir).map_err(|e| Error::io("find the deployment", e))?;
    let name = blake3::hash(dir.as_os_str().as_encoded_bytes()).to_hex();
    let path = dirs::cache(DIR)?.join(format!("{}.json", &name[..16]));
    let text = json!(Note { dir, db: db.to_owned() }).to_string();
    std::fs::write(path, text).map_err(|e| Error::io("note the deployment", e))
}

/// All that are known, by directory. What has no directory any longer is forgotten.
///
/// # Errors
/// Those of the cache, and [`Error::Io`].
pub(super) fn known() -> Result<Vec<Deployment>> {
    let files =
        std::fs::read_dir(dirs::cache(DIR)?).map_err(|e| Error::io("list deployments", e))?;
    let mut known = Vec::new();
    for file in files.flatten() {
        let read = std::fs::read(file.path()).ok();
        let Some(note) = read.and_then(|text| serde_json::from_slice::<Note>(&text).ok()) else {
            continue;
        };
        if !State::path(&note.dir).exists() {
            // Another process may have forgotten it meanwhile.
            std::fs::remove_file(file.path()).ok();
        }
        known.extend(Deployment::read(note));
    }
    known.sort_by(|a, b| a.dir.cmp(&b.dir));
    Ok(known)
}

/// Prints all that are known.
///
/// # Errors
/// Those of [`known`], and [`Error::Io`].
pub(super) fn list(global: &Global) -> Result<()> {
    let known = known()?;
    if known.is_empty() && output::is_for_people(global) {
        tell!("no deployments; aviary up starts one");
    }
    output::print_rows(
        global.format(),
        &known,
        |one| one.dir.display().to_string(),
        |one| {
            json!({
                "dir": one.dir, "uri": one.uri, "state": one.state(), "running": one.running,
                "servers": one.servers,
            })
        },
        &["directory", "state", "uri"],
        |one| vec![one.dir.display().to_string(), one.state(), one.uri.clone()],
    )
}

/// That a deployment must be named.
pub(super) fn none_given() -> Error {
    Error::Usage(
        "no deployment given; use --uri, AVIARY_URI or --uri-file, or start one with aviary up"
            .into(),
    )
}

/// The deployment that is meant when none is named: the only one that runs on this machine.
///
/// # Errors
/// [`Error::Usage`] when none or several run.
pub(super) fn only(global: &Global) -> Result<String> {
    // Without a cache nothing was noted.
    let mut running = known().unwrap_or_default();
    running.retain(|one| one.running > 0);
    match running.as_slice() {
        [one] => {
            if !global.quiet {
                tell!("using the deployment of aviary up in {}", one.dir.display());
            }
            Ok(one.uri.clone())
        }
        [] => Err(none_given()),
        several => Err(Error::Usage(format!(
            "no deployment given, and {} run on this machine; name one with --uri: aviary up --list shows them",
            several.len()
        ))),
    }
}
