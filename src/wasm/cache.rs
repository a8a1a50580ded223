//! Compiled modules on the worker's own disk.
//!
//! Loading compiled code is trusting it, so a file counts only if it carries a keyed digest made
//! with a key that lies in the same private directory, and only the bytes in memory that passed
//! that check are handed to the runtime. Whoever can read that key can already act as this
//! process. A file that fails any check is removed, and the module is compiled again.
//!
//! What a child has compiled is loaded too ([`load`]): it comes from a process that this one has started from its own
//! program, through a pipe that nobody else has an end of.
//!
//! Layout: `<root>/aviary-cache-<runtime version>-<engine hash>/<digest>.cwasm`, each file being
//! magic, keyed digest over (module digest, code), code. The directory is for its owner only.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use wasmtime::{Engine, Module};

use super::compiler::FromChild;
use super::limits::COMPILED_BYTES_MAX;

const MAGIC: &[u8; 8] = b"AVCWASM1";
const MAC_BYTES: usize = 32;
const HEADER_BYTES: usize = MAGIC.len() + MAC_BYTES;
const KEY_FILE: &str = "key";
const DIRECTORY_PREFIX: &str = "aviary-cache-";
const EXTENSION: &str = "cwasm";
const TEMPORARY_PREFIX: &str = ".new-";
/// A file that was being written for so long belongs to a process that is gone.
const TEMPORARY_AGE_MAX: Duration = Duration::from_secs(3600);

/// Why the directory for compiled modules cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// It cannot be made, read or written.
    #[error("use the cache of compiled modules {}: {source}; AVIARY_CACHE names another directory", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It belongs to someone else, or is no directory.
    #[error("use the cache of compiled modules {}: it must be a directory that this process owns; AVIARY_CACHE names another one", path.display())]
    NotPrivate {
        /// The directory.
        path: PathBuf,
    },
}

/// What the cache holds of a module.
pub(crate) enum Lookup {
    Found(Module),
    Missing,
    /// There was a file that must not be trusted; it was removed.
    Rejected,
}

/// A directory of compiled modules for one version of the engine.
pub(crate) struct DiskCache {
    root: PathBuf,
    directory: PathBuf,
    key: [u8; MAC_BYTES],
    bytes_max: u64,
}

impl DiskCache {
    /// Opens or makes the directory for this version below `root`.
    pub(crate) fn open(root: &Path, version: &str, bytes_max: u64) -> Result<Self, CacheError> {
        let directory = root.join(format!("{DIRECTORY_PREFIX}{version}"));
        let at = |path: &Path| {
            let path = path.to_path_buf();
            move |source| CacheError::Io { path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(at(&directory))?;
        let kind = fs::symlink_metadata(&directory).map_err(at(&directory))?;
        // A file made here has this process's owner, which nothing in the standard library tells.
        let probe = temporary(&directory).map_err(at(&directory))?;
        let owner = probe.as_file().metadata().map_err(at(&directory))?.uid();
        if !kind.is_dir() || kind.uid() != owner {
            return Err(CacheError::NotPrivate { path: directory });
        }
        if kind.mode() & 0o077 != 0 {
            // Volumes that are shared by group are opened like this when they are mounted. Whatever
            // was put here meanwhile fails its check, since the key is judged by itself.
            let private = fs::Permissions::from_mode(0o700);
            fs::set_permissions(&directory, private).map_err(at(&directory))?;
        }
        let key = key(&directory.join(KEY_FILE), &directory, owner).map_err(at(&directory))?;
        Ok(Self { root: root.to_path_buf(), directory, key, bytes_max })
    }

    /// Reads a module, if an intact one is there.
    pub(crate) fn get(&self, engine: &Engine, digest: &blake3::Hash) -> Lookup {
        let path = self.path(digest);
        let found = match self.read(&path, engine, digest) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Lookup::Missing,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a compiled module could not be read");
                None
            }
        };
        if let Some(module) = found {
            return Lookup::Found(module);
        }
        tracing::warn!(path = %path.display(), "a compiled module was not intact and is made again");
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "it could not be removed");
        }
        Lookup::Rejected
    }

    /// Writes a module's code, and removes the least used ones beyond the limit.
    pub(crate) fn put(&self, digest: &blake3::Hash, code: &[u8]) -> io::Result<()> {
        if code.len() as u64 + HEADER_BYTES as u64 > self.bytes_max.min(COMPILED_BYTES_MAX) {
            return Ok(());
        }
        let mut file = temporary(&self.directory)?;
        file.write_all(MAGIC)?;
        file.write_all(self.mac(digest, code).as_bytes())?;
        file.write_all(code)?;
        // No sync: a file that a crash leaves half written fails its check and is made again.
        file.persist(self.path(digest)).map_err(|error| error.error)?;
        self.evict()
    }

    fn path(&self, digest: &blake3::Hash) -> PathBuf {
        self.directory.join(format!("{digest}.{EXTENSION}"))
    }

    fn mac(&self, digest: &blake3::Hash, code: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(digest.as_bytes());
        hasher.update(code);
        hasher.finalize()
    }

    fn read(
        &self,
        path: &Path,
        engine: &Engine,
        digest: &blake3::Hash,
    ) -> io::Result<Option<Module>> {
        let file = File::open(path)?;
        let mut bytes = Vec::new();
        (&file).take(COMPILED_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        let Some(code) = self.verified(&bytes, digest) else {
            return Ok(None);
        };
        let module = match deserialize(engine, code) {
            Ok(module) => module,
            Err(error) => {
                tracing::warn!(%error, "a compiled module is for another engine");
                return Ok(None);
            }
        };
        // The time of last use decides what is evicted; failing to set it costs nothing but order.
        if let Err(error) = file.set_modified(SystemTime::now()) {
            tracing::debug!(%error, "the time of a compiled module could not be set");
        }
        Ok(Some(module))
    }

    /// The code in a file's bytes, if its keyed digest is right.
    fn verified<'a>(&self, bytes: &'a [u8], digest: &blake3::Hash) -> Option<Verified<'a>> {
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (mac, code) = rest.split_first_chunk::<MAC_BYTES>()?;
        let intact = magic == MAGIC && self.mac(digest, code) == blake3::Hash::from_bytes(*mac);
        intact.then_some(Verified(code))
    }

    /// Removes the least recently used modules, of every version, until the limit holds.
    fn evict(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for directory in fs::read_dir(&self.root)? {
            let directory = directory?;
            let name = directory.file_name();
            if name.to_string_lossy().starts_with(DIRECTORY_PREFIX)
                && directory.file_type()?.is_dir()
            {
                list(&directory.path(), &mut files)?;
            }
        }
        files.sort();
        let mut total: u64 = files.iter().map(|(_, _, bytes)| bytes).sum();
        for (_, path, bytes) in files {
            if total <= self.bytes_max {
                break;
            }
            remove(&path)?;
            total -= bytes;
        }
        Ok(())
    }
}

/// Code that may be loaded: [`DiskCache::verified`] has found its keyed digest right, or [`load`] was given it by a
/// child. Nothing else makes one.
struct Verified<'a>(&'a [u8]);

/// Loads what a child of this process has compiled.
pub(crate) fn load(engine: &Engine, code: &FromChild) -> wasmtime::Result<Module> {
    deserialize(engine, Verified(code.code()))
}

#[expect(
    unsafe_code,
    reason = "compiled code can only be loaded by trusting it; the type says that it was checked"
)]
fn deserialize(engine: &Engine, code: Verified<'_>) -> wasmtime::Result<Module> {
    // SAFETY: The bytes must come unchanged from `Module::serialize` or `Engine::precompile_module`, which make the
    // same. Either their digest is keyed with a secret that only processes of this owner can read, and those write
    // nothing else with it: the slice that was checked is the slice that is read, so no change on disk can come
    // between. Or they are all that a child wrote into a pipe that this process made for it, which runs
    // nothing but the same program's `precompile_module`, and said by its exit code that they are whole.
    unsafe { Module::deserialize(engine, code.0) }
}

/// The files of one directory: time of last use, path, size. Abandoned temporaries are removed.
fn list(directory: &Path, files: &mut Vec<(SystemTime, PathBuf, u64)>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            // Another process evicts as well.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let modified = metadata.modified()?;
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            files.push((modified, path, metadata.len()));
        } else if entry.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX)
            && modified.elapsed().is_ok_and(|age| age > TEMPORARY_AGE_MAX)
        {
            remove(&path)?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A file for the owner only, which takes its name once it is complete.
fn temporary(directory: &Path) -> io::Result<tempfile::NamedTempFile> {
    tempfile::Builder::new().prefix(TEMPORARY_PREFIX).tempfile_in(directory)
}

/// Reads the key, making it at first use. Of several processes that make one, the first wins.
fn key(path: &Path, directory: &Path, owner: u32) -> io::Result<[u8; MAC_BYTES]> {
    if let Some(key) = read_key(path, owner)? {
        return Ok(key);
    }
    let mut key = [0; MAC_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    let mut file = temporary(directory)?;
    file.write_all(&key)?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(key),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            read_key(path, owner)?.ok_or(error.error)
        }
        Err(error) => Err(error.error),
    }
}

/// The key, unless there is none or it is not one that only the owner could read and make. A key
/// that others could is removed, and with it goes the trust in every file made with it.
fn read_key(path: &Path, owner: u32) -> io::Result<Option<[u8; MAC_BYTES]>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    let mut key = [0; MAC_BYTES];
    if metadata.mode() & 0o077 == 0
        && metadata.uid() == owner
        && metadata.len() == MAC_BYTES as u64
        && file.read_exact(&mut key).is_ok()
    {
        return Ok(Some(key));
    }
    remove(path)?;
    Ok(None)
}
