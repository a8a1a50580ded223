//! Files that hold a secret: whether somebody else can read them.
//!
//! As with ssh, a key that others can read is not used, so that it is noticed before it is lost. The file that
//! was opened is judged, not its name, so a symbolic link may lead to it.

use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::unistd::geteuid;

use crate::error::{At, Error, Result};

/// Where systemd puts a service's credentials. It guards the directory, and gives the files modes of its own.
const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";
const SECRET_BYTES_MAX: u64 = 64 * 1024;

const FOR_OTHERS: u32 = 0o077;
/// A secret that is mounted into a container: root's, and nobody else can change it or, but for its group, read it.
const NOT_A_MOUNT: u32 = 0o337;

/// Reads a secret, without the newline at its end.
///
/// # Errors
///
/// [`Error::Secret`] when other users can read or write the file, when it is no file, or too large;
/// [`Error::File`] when it cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).at("open", path)?;
    check_open(path, &file)?;
    let mut secret = Vec::new();
    file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut secret).at("read", path)?;
    if secret.len() as u64 > SECRET_BYTES_MAX {
        return Err(refused(path, format!("it has more than {SECRET_BYTES_MAX} bytes")));
    }
    for end in [b'\n', b'\r'] {
        secret.pop_if(|last| *last == end);
    }
    Ok(secret)
}

/// Makes sure that nobody else can read a file.
///
/// # Errors
///
/// Those of [`read`].
pub fn check(path: &Path) -> Result<()> {
    check_open(path, &File::open(path).at("open", path)?)
}

fn check_open(path: &Path, file: &File) -> Result<()> {
    let meta = file.metadata().at("look at", path)?;
    // A pipe, as of a shell's <(command), is between two processes.
    if !meta.is_file() && !meta.file_type().is_fifo() {
        return Err(refused(path, "it is not a file".to_owned()));
    }
    match objection(&meta) {
        Some(why) if !is_credential(path) => Err(refused(path, why)),
        _ => Ok(()),
    }
}

fn objection(meta: &Metadata) -> Option<String> {
    let (owner, us, mode) = (meta.uid(), geteuid().as_raw(), meta.mode() & 0o7777);
    if owner != us && owner != 0 {
        return Some(format!("it belongs to user {owner}, and this program runs as user {us}"));
    }
    let is_mount = owner == 0 && mode & NOT_A_MOUNT == 0;
    if mode & FOR_OTHERS == 0 || is_mount {
        return None;
    }
    let what = if mode & 0o044 == 0 { "write to" } else { "read" };
    Some(format!("its mode {mode:04o} lets other users {what} it"))
}

/// Whether the file lies in systemd's directory, which nobody but the service can enter.
fn is_credential(path: &Path) -> bool {
    let Some(dir) = std::env::var_os(CREDENTIALS_VARIABLE).filter(|dir| !dir.is_empty()) else {
        return false;
    };
    let (Ok(dir), Ok(file)) = (fs::canonicalize(dir), fs::canonicalize(path)) else { return false };
    let guards = |meta: Metadata| {
        let own = meta.uid() == geteuid().as_raw() || meta.uid() == 0;
        own && meta.mode() & 0o027 == 0
    };
    file.parent() == Some(&dir) && fs::metadata(&dir).is_ok_and(guards)
}

fn refused(path: &Path, why: String) -> Error {
    Error::Secret { path: path.to_path_buf(), why }
}
