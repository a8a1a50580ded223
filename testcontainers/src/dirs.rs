//! Decides which directories and files on this machine are trusted.
//!
//! Aviary executes, loads or believes a file only when no other user could have put it there. A path is
//! trusted when it belongs to this process's user or to root, and only that user can write to it. The same
//! must hold for every directory above it, up to the root: whoever can write to one of those can swap the
//! path. A sticky directory such as `/tmp` may lie above, because nobody can rename what belongs to us there.
//!
//! There is no default cache directory at a fixed path under `/tmp`: any user could create it first. A fresh
//! directory for each process would be safe, but it would fetch and compile everything again. So without
//! `AVIARY_CACHE`, `XDG_CACHE_HOME` and `HOME` there is no cache, and the error names them.
//!
//! A crate for well-known directories (`etcetera`) would replace three lines, and it guesses a home directory
//! where we want to refuse.

use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use crate::error::{At, Error, Result};
use crate::named;

/// The environment variable that names the cache directory.
pub const CACHE_VARIABLE: &str = "AVIARY_CACHE";

const WRITABLE_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;
const PRIVATE: u32 = 0o700;

/// Where the cache directory is, whether it exists or not: `AVIARY_CACHE`, else `aviary` in the user's cache
/// directory. Use it to show the path; use [`cache_dir`] to keep something there.
///
/// # Errors
///
/// [`Error::NoCache`] when none of the variables is set.
pub fn cache_path() -> Result<PathBuf> {
    let set = |name: &str| named::var_os(name).map(PathBuf::from);
    // A relative path would mean another directory for each working directory.
    let absolute = |name: &str| set(name).filter(|path| path.is_absolute());
    if let Some(chosen) = set(CACHE_VARIABLE) {
        return std::path::absolute(&chosen).at("find", &chosen);
    }
    absolute("XDG_CACHE_HOME")
        .map(|dir| dir.join("aviary"))
        .or_else(|| absolute("HOME").map(|dir| dir.join(".cache").join("aviary")))
        .ok_or(Error::NoCache)
}

/// The cache directory, made for its owner alone where it is missing, and trusted.
///
/// # Errors
///
/// [`Error::NoCache`] when no variable names it, [`Error::Cache`] when it cannot be created,
/// [`Error::Untrusted`] when another user could put something there.
pub fn cache_dir() -> Result<PathBuf> {
    private(&cache_path()?)
}

/// A directory in the cache, made and trusted like the cache itself.
///
/// # Errors
///
/// Those of [`cache_dir`].
pub fn cache(name: &str) -> Result<PathBuf> {
    private(&cache_dir()?.join(name))
}

/// Names `AVIARY_CACHE` when the cache cannot be written to.
pub(crate) fn in_cache<T>(path: &Path, outcome: io::Result<T>) -> Result<T> {
    outcome.map_err(|source| Error::Cache { path: path.to_path_buf(), source })
}

fn private(dir: &Path) -> Result<PathBuf> {
    in_cache(dir, DirBuilder::new().recursive(true).mode(PRIVATE).create(dir))?;
    // Whatever symbolic links led here are out of the way from now on.
    let dir = in_cache(dir, fs::canonicalize(dir))?;
    check_path(&dir)?;
    Ok(dir)
}

/// The file that a path leads to, trusted. So is every directory that holds a symbolic link on the way.
///
/// # Errors
///
/// [`Error::Untrusted`] when it is no regular file or another user could have put it there,
/// [`Error::File`] when it cannot be looked at.
pub fn trusted_file(path: &Path) -> Result<PathBuf> {
    const LINKS_MAX: usize = 40;
    let mut path = std::path::absolute(path).at("find", path)?;
    for _ in 0..LINKS_MAX {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { break };
        let dir = fs::canonicalize(dir).at("find", dir)?;
        let file = dir.join(name);
        let meta = fs::symlink_metadata(&file).at("look at", &file)?;
        check_path(&dir)?;
        if meta.is_symlink() {
            // One that is relative begins where the link is.
            path = dir.join(fs::read_link(&file).at("read", &file)?);
            continue;
        }
        check_own_file(&file)?;
        return Ok(file);
    }
    Err(untrusted(&path, "it does not lead to a file".to_owned()))
}

/// Makes sure that nobody else can put anything into this directory, wherever it lies.
pub(crate) fn check_own_dir(dir: &Path) -> Result<()> {
    let meta = fs::symlink_metadata(dir).at("look at", dir)?;
    match objection(&meta, false) {
        Some(why) => Err(untrusted(dir, why)),
        None => Ok(()),
    }
}

/// Makes sure that a file in a directory that is our own is our own too, and no symbolic link.
pub(crate) fn check_own_file(path: &Path) -> Result<()> {
    let meta = fs::symlink_metadata(path).at("look at", path)?;
    let why = if meta.is_file() {
        objection(&meta, false)
    } else {
        Some("it is not a regular file".to_owned())
    };
    match why {
        Some(why) => Err(untrusted(path, why)),
        None => Ok(()),
    }
}

/// Checks a path without symbolic links, and every directory above it.
fn check_path(path: &Path) -> Result<()> {
    for (above, part) in path.ancestors().enumerate() {
        let meta = fs::symlink_metadata(part).at("look at", part)?;
        if let Some(why) = objection(&meta, above > 0) {
            return Err(untrusted(part, why));
        }
    }
    Ok(())
}

fn objection(meta: &Metadata, sticky_is_enough: bool) -> Option<String> {
    let us = geteuid().as_raw();
    let mode = meta.mode() & 0o7777;
    if meta.uid() != us && meta.uid() != 0 {
        let owner = meta.uid();
        return Some(format!("it belongs to user {owner}, and this program runs as user {us}"));
    }
    let shared = mode & WRITABLE_BY_OTHERS != 0;
    let protected = sticky_is_enough && meta.is_dir() && mode & STICKY != 0;
    (shared && !protected).then(|| format!("its mode {mode:04o} lets other users write to it"))
}

fn untrusted(path: &Path, why: String) -> Error {
    Error::Untrusted { path: path.to_path_buf(), why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_new_directory_is_for_its_owner_alone() {
        let parent = tempfile::tempdir().unwrap();
        let made = private(&parent.path().join("a/b")).unwrap();
        for dir in [made.as_path(), made.parent().unwrap()] {
            assert_eq!(fs::metadata(dir).unwrap().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused_and_so_is_all_below_it() {
        let parent = tempfile::tempdir().unwrap();
        let (above, dir) = (parent.path().join("above"), parent.path().join("above/dir"));
        private(&dir).unwrap();
        for mode in [0o777, 0o770, 0o702, 0o1777] {
            chmod(&dir, mode);
            let refused = private(&dir).unwrap_err().to_string();
            assert!(refused.contains("lets other users write to it"), "{mode:o}: {refused}");
        }
        chmod(&dir, 0o700);
        chmod(&above, 0o777);
        let refused = private(&dir).unwrap_err().to_string();
        assert!(refused.contains(above.to_str().unwrap()), "{refused}");
        // Like /tmp: what is there cannot be renamed by anybody but its owner.
        chmod(&above, 0o1777);
        private(&dir).unwrap();
    }

    #[test]
    fn a_file_is_judged_by_where_it_really_is() {
        let parent = tempfile::tempdir().unwrap();
        let (open, own) = (parent.path().join("open"), parent.path().join("own"));
        private(&open).unwrap();
        private(&own).unwrap();
        fs::write(open.join("program"), "").unwrap();
        chmod(&open.join("program"), 0o755);
        symlink(open.join("program"), own.join("program")).unwrap();
        assert_eq!(trusted_file(&own.join("program")).unwrap(), open.join("program"));
        chmod(&open, 0o777);
        trusted_file(&own.join("program")).unwrap_err();
        chmod(&open, 0o700);
        chmod(&open.join("program"), 0o757);
        trusted_file(&own.join("program")).unwrap_err();
        trusted_file(&own).unwrap_err();
    }

    #[test]
    fn what_belongs_to_another_user_is_refused() {
        if !geteuid().is_root() {
            println!("skipped: only root can give files away");
            return;
        }
        let parent = tempfile::tempdir().unwrap();
        let dir = private(&parent.path().join("dir")).unwrap();
        chown(&dir, Some(65_534), None).unwrap();
        let refused = private(&dir).unwrap_err().to_string();
        assert!(refused.contains("belongs to user 65534"), "{refused}");
        assert!(refused.contains(CACHE_VARIABLE), "{refused}");
    }
}
