//! Finds a `mongod` program that runs here.
//!
//! The order is: `AVIARY_MONGOD`, `PATH`, the cache directory, and at last one download into the
//! cache directory through the user's own pip.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::{Progress, dirs, fetch, named, program};

/// The environment variable that names the server program to use.
pub const MONGOD_VARIABLE: &str = "AVIARY_MONGOD";

/// Finds a server program and makes sure that it runs; fetches one when there is none.
///
/// Blocks: for some tens of milliseconds as a rule, for as long as 42 MB take when a server has to
/// be fetched. Several processes may call it at once; one of them fetches, the others wait.
///
/// # Errors
///
/// When nothing is found and nothing can be fetched, or when what was found does not run. The
/// message lists what a person can do about it.
pub fn locate(progress: &Progress) -> Result<PathBuf> {
    let path = match named::var_os(MONGOD_VARIABLE) {
        Some(value) => {
            let path = program::named(&value);
            if !is_executable(&path) {
                return Err(Error::NotExecutable { path });
            }
            path
        }
        None => match program::all_on_path("mongod").next() {
            Some(path) => path,
            None => return fetch::cached_or_fetched(&dirs::cache_dir()?, progress),
        },
    };
    version(&path)?;
    Ok(path)
}

/// The version of a server program, such as `6.0.5`.
///
/// # Errors
///
/// When the program does not run; a missing shared library is named.
pub fn version(mongod: &Path) -> Result<String> {
    let output = program::command(&program::named(mongod.as_os_str()), &[])
        .arg("--version")
        .output()
        .map_err(|source| Error::Spawn { program: mongod.to_path_buf(), source })?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    if let Some(version) = parse_version(&stdout) {
        return Ok(version);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(match missing_library(&stderr) {
        Some(library) => Error::LibraryMissing { path: mongod.to_path_buf(), library },
        None => Error::Unusable {
            path: mongod.to_path_buf(),
            reason: format!("{} {}", output.status, stderr.trim()),
        },
    })
}

/// Why a version is for trying things out only, if it is: servers that are not in anybody's reach may be older than
/// the fix of what others could use against them.
#[must_use]
pub fn caution(version: &str) -> Option<String> {
    /// The first of each series that has it.
    const FIXED: [(u32, u32, u32); 6] =
        [(8, 2, 3), (8, 0, 17), (7, 0, 28), (6, 0, 27), (5, 0, 32), (4, 4, 30)];
    let mut numbers = version.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let (major, minor) = (numbers.next()?, numbers.next()?);
    let patch = numbers.next()?;
    let fixed = FIXED.iter().find(|fixed| (fixed.0, fixed.1) == (major, minor))?;
    (patch < fixed.2).then(|| {
        format!(
            "mongod {version} is for trying things out: CVE-2025-14847 is fixed in {major}.{minor}.{}",
            fixed.2
        )
    })
}

pub(crate) fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn parse_version(stdout: &str) -> Option<String> {
    let rest = stdout.lines().next()?.strip_prefix("db version v")?;
    Some(rest.trim().to_owned())
}

/// The loader writes `mongod: error while loading shared libraries: libcurl.so.4: cannot open …`;
/// a library that is too old reads `…/libcrypto.so.3: version `OPENSSL_3.0.3' not found`.
pub(crate) fn missing_library(stderr: &str) -> Option<String> {
    if let Some((_, rest)) = stderr.split_once("error while loading shared libraries: ") {
        return rest.split(':').next().map(|name| name.trim().to_owned());
    }
    let line = stderr.lines().find(|line| line.contains(".so") && line.contains("not found"))?;
    Some(line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_from_the_first_line() {
        let text = "db version v6.0.5\nBuild Info: {";
        assert_eq!(parse_version(text).as_deref(), Some("6.0.5"));
        assert_eq!(parse_version("mongod: not found"), None);
    }

    #[test]
    fn a_server_without_the_fix_is_for_trying_things_out() {
        let told = caution("6.0.5").unwrap();
        assert_eq!(
            told,
            "mongod 6.0.5 is for trying things out: CVE-2025-14847 is fixed in 6.0.27"
        );
        assert!(caution("6.0.27").is_none() && caution("9.0.0").is_none() && caution("").is_none());
        assert!(caution("8.0.16-rc1").is_some());
    }

    #[test]
    fn a_missing_library_is_named() {
        let text = "/x/mongod: error while loading shared libraries: libcurl.so.4: cannot open shared object file: No such file or directory";
        assert_eq!(missing_library(text).as_deref(), Some("libcurl.so.4"));
        assert_eq!(missing_library("Illegal instruction"), None);
    }
}
