//! Directories for what Aviary keeps on this machine between runs.
//!
//! Which of them are trusted is decided in [`aviary_testcontainers::dirs`], which fetches programs and needs to
//! know it too.

use std::path::{Path, PathBuf};

use aviary_testcontainers::dirs;

use crate::error::{Error, Result};

/// A directory in the cache, made for its owner alone where it is missing.
///
/// # Errors
/// [`Error::Refused`] when there is no cache, or when another user could put something there.
pub fn cache(name: &str) -> Result<PathBuf> {
    dirs::cache(name).map_err(refused)
}

/// Where a directory in the cache is, whether it exists or not. It is not looked at: use it to show the path, and
/// for what checks by itself who wrote each file.
///
/// # Errors
/// [`Error::Refused`] when there is no cache.
pub fn cache_path(name: &str) -> Result<PathBuf> {
    Ok(dirs::cache_path().map_err(refused)?.join(name))
}

/// Refuses a program or a file that another user could have put there.
///
/// # Errors
/// [`Error::Refused`].
pub fn check_file(path: &Path) -> Result<()> {
    dirs::trusted_file(path).map(|_| ()).map_err(refused)
}

fn refused(error: aviary_testcontainers::Error) -> Error {
    Error::refused(format!("cannot {error}"), "")
}
