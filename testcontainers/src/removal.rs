//! Removes a deployment's files from its directory, and nothing else.
//!
//! Only names that this library and its owner's daemons make are removed, and only when they are the kind of
//! thing that was made. Symbolic links are never followed, and never removed: a person made them. The directory
//! goes when nothing is left in it.

use std::fs::{self, FileType};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{At, Error, Result};
use crate::home::{self, MARKER};
use crate::state::STATE_FILES;

/// What stands in a deployment's directory under a name.
enum Entry {
    /// A file or a socket.
    File,
    /// The directory of one server: its data, and its logs.
    Member,
    /// The directory of a replica set of a sharded cluster.
    Set,
    /// Tells that the directory is a deployment's, so it goes last.
    Sign,
}

/// Removes what was made in `dir`, and those of `logs` that lie there. Returns what is left there because somebody
/// else made it.
pub(crate) fn remove(dir: &Path, logs: &[PathBuf]) -> Result<Vec<PathBuf>> {
    // A link to the directory stays, and so does the directory: the link would lead nowhere.
    let is_link = fs::symlink_metadata(dir).at("look at", dir)?.is_symlink();
    let dir = fs::canonicalize(dir).at("find", dir)?;
    refuse_running(&dir)?;
    let mut left = Vec::new();
    remove_in(&dir, logs, &mut left)?;
    if !is_link {
        remove_if_empty(&dir)?;
    }
    left.sort();
    Ok(left)
}

/// Leaves everything alone while a start is under way, which no state tells of yet.
fn refuse_running(dir: &Path) -> Result<()> {
    if home::lists_running(dir) {
        return Err(Error::StillRunning { dir: dir.to_path_buf() });
    }
    for (path, kind) in entries(dir)? {
        if matches!(known(&path, kind), Some(Entry::Set)) {
            refuse_running(&path)?;
        }
    }
    Ok(())
}

fn remove_in(dir: &Path, logs: &[PathBuf], left: &mut Vec<PathBuf>) -> Result<()> {
    let mut signs = Vec::new();
    for (path, kind) in entries(dir)? {
        match known(&path, kind) {
            Some(Entry::File) => fs::remove_file(&path).at("remove", &path)?,
            Some(Entry::Sign) => signs.push(path),
            Some(Entry::Member) => remove_member(&path, left)?,
            Some(Entry::Set) => {
                remove_in(&path, logs, left)?;
                remove_if_empty(&path)?;
            }
            None if kind.is_file() && logs.contains(&path) => {
                fs::remove_file(&path).at("remove", &path)?;
            }
            None => left.push(path),
        }
    }
    // A removal that was interrupted can be repeated for as long as these are there.
    for path in signs {
        fs::remove_file(&path).at("remove", &path)?;
    }
    Ok(())
}

fn remove_member(dir: &Path, left: &mut Vec<PathBuf>) -> Result<()> {
    for (path, kind) in entries(dir)? {
        match path.file_name().and_then(|name| name.to_str()) {
            // All in it is the server's. This does not follow links either.
            Some("data") if kind.is_dir() => fs::remove_dir_all(&path).at("remove", &path)?,
            // A server that rotates its log adds the time to the name.
            Some(name) if kind.is_file() && name.starts_with("mongod.log") => {
                fs::remove_file(&path).at("remove", &path)?;
            }
            _ => left.push(path),
        }
    }
    remove_if_empty(dir)
}

fn known(path: &Path, kind: FileType) -> Option<Entry> {
    use std::os::unix::fs::FileTypeExt;
    let name = path.file_name()?.to_str()?;
    let numbered = |before: &str, after: &str| {
        let digits = name.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
        digits.is_some_and(|digits| {
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        })
    };
    if kind.is_dir() {
        return match name {
            "cfg" => Some(Entry::Set),
            _ if numbered("s", "") => Some(Entry::Set),
            _ if numbered("member-", "") => Some(Entry::Member),
            _ => None,
        };
    }
    if kind.is_socket() {
        return numbered("mongodb-", ".sock").then_some(Entry::File);
    }
    if !kind.is_file() {
        return None;
    }
    if name == MARKER || STATE_FILES.contains(&name) {
        return Some(Entry::Sign);
    }
    let ours = matches!(name, "pids" | "key" | "router.log" | "coordinator.log")
        || numbered("worker-", ".log");
    ours.then_some(Entry::File)
}

/// What is in a directory, with its kind; a link's kind is that of a link.
fn entries(dir: &Path) -> Result<Vec<(PathBuf, FileType)>> {
    let read = || -> io::Result<Vec<_>> {
        fs::read_dir(dir)?
            .map(|entry| entry.and_then(|entry| Ok((entry.path(), entry.file_type()?))))
            .collect()
    };
    read().at("read", dir)
}

fn remove_if_empty(dir: &Path) -> Result<()> {
    match fs::remove_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        // A mount point.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(()),
        outcome => outcome.map_err(|source| Error::File {
            action: "remove",
            path: dir.to_path_buf(),
            source,
        }),
    }
}
