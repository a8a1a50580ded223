//! Programs of this machine that Aviary runs: where they are looked for, and what they get to see.
//!
//! * A program is looked for in the absolute directories of `PATH`. An entry that is empty or relative means the
//!   working directory, where anybody may have put a program of that name.
//! * It runs where nobody else can put a file: in `/`, or in a directory that we made. Python, Node.js, rustup and
//!   others load what lies in the working directory or above it.
//! * It gets the variables that are named here. Others would have it load code (`PYTHONPATH`, `NODE_OPTIONS`,
//!   `GOFLAGS`, `RUSTFLAGS`, `CPATH`, `LD_PRELOAD`), or hold what is not its business, like the password in
//!   `AVIARY_URI`.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::mongod::is_executable;

/// What every program gets: who and where the user is, and what the C library needs.
const KEPT: [&str; 15] = [
    "HOME",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_CTYPE",
    "LC_MESSAGES",
    "TZ",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    // This program was started with these itself.
    "LD_LIBRARY_PATH",
    "GLIBC_TUNABLES",
    "SSL_CERT_FILE",
];

/// What pip gets besides: the way to the user's package mirror.
pub(crate) const FOR_PIP: [&str; 12] = [
    "PIP_*",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
];

/// What compilers get besides: where they are and where they keep what they compiled.
pub const FOR_COMPILERS: [&str; 5] =
    ["RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "CARGO_HOME", "GOCACHE", "ZIG_GLOBAL_CACHE_DIR"];

/// The directories of `PATH` that mean the same wherever this program runs.
pub fn directories() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).filter(|dir| dir.is_absolute()).collect()
}

/// Every program of that name on `PATH`.
pub fn all_on_path(name: &str) -> impl Iterator<Item = PathBuf> {
    let name = name.to_owned();
    directories().into_iter().map(move |dir| dir.join(&name)).filter(|file| is_executable(file))
}

/// The program that a person named: by its path from the working directory, or by its name on `PATH`.
pub fn named(program: &OsStr) -> PathBuf {
    let path = Path::new(program);
    if path.components().count() > 1 || path.has_root() {
        return std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    }
    // One that is not there does not run, and the error names it.
    path.to_str().and_then(|name| all_on_path(name).next()).unwrap_or_else(|| path.to_path_buf())
}

/// A command that runs a program in `/`, without a standard input, with the variables it may see and `more`; one
/// of these may end with `*`.
pub fn command(program: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(environment(more)).current_dir("/").stdin(Stdio::null());
    command
}

/// The variables that a program may see.
pub(crate) fn environment(more: &[&str]) -> Vec<(OsString, OsString)> {
    let is_kept = |name: &str| {
        KEPT.contains(&name)
            || more.iter().any(|kept| match kept.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => *kept == name,
            })
    };
    let mut kept: Vec<(OsString, OsString)> =
        std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(is_kept)).collect();
    if let Ok(path) = std::env::join_paths(directories()) {
        kept.push(("PATH".into(), path));
    }
    kept
}
