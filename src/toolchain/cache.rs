//! What was built before, so that submitting the same source twice compiles it once.
//!
//! A module is found by the digest of all that it follows from: sources, our part, compiler. It is
//! checked like every other module before it is used, so a damaged file costs a compilation or a
//! refusal, never more; failing to read or write costs a compilation. A module that another user could have
//! put there is not read: its code would run in jobs under this user's name.

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use super::find::Tool;
use super::sources::Sources;
use crate::config::BUILT_MODULES_MAX;
use crate::dirs;
use crate::error::Result;

/// Counts up whenever the way of building changes without any of the digested parts.
const FORMAT: &str = "1";

/// The digest of all that a module follows from.
pub(super) fn key(sources: &Sources, tool: &Tool) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut add = |part: &str| {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    };
    add(FORMAT);
    add(env!("CARGO_PKG_VERSION"));
    add(sources.language.name());
    add(&tool.name);
    for (name, text) in super::sdk(sources.language) {
        add(name);
        add(text);
    }
    add("sources");
    for file in &sources.files {
        add(&file.name);
        add(&file.text);
    }
    hasher.finalize().to_hex().to_string()
}

fn dir() -> Result<PathBuf> {
    dirs::cache("built")
}

/// The module of that digest.
pub(super) fn get(key: &str) -> Option<Vec<u8>> {
    let path = dir().ok()?.join(key);
    dirs::check_file(&path).ok()?;
    let bytes = fs::read(&path).ok()?;
    let (digest, module) = bytes.split_first_chunk::<{ blake3::OUT_LEN }>()?;
    if blake3::hash(module) != *digest {
        return None;
    }
    // The time of last use decides what is removed; failing to set it costs nothing but order.
    let _ = fs::File::options()
        .append(true)
        .open(&path)
        .and_then(|f| f.set_modified(SystemTime::now()));
    Some(module.to_vec())
}

/// Keeps a module, and removes the least recently used ones beyond the limit.
pub(super) fn put(key: &str, module: &[u8]) {
    let kept = || -> std::io::Result<()> {
        let dir = dir().map_err(std::io::Error::other)?;
        // It takes its name once it is complete, so that nobody reads a part of it.
        let mut file = tempfile::NamedTempFile::new_in(&dir)?;
        std::io::Write::write_all(&mut file, blake3::hash(module).as_bytes())?;
        std::io::Write::write_all(&mut file, module)?;
        file.persist(dir.join(key)).map_err(|e| e.error)?;
        let mut files = Vec::new();
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            files.push((entry.metadata()?.modified()?, entry.path()));
        }
        files.sort();
        let surplus = files.len().saturating_sub(BUILT_MODULES_MAX);
        for (_, path) in files.into_iter().take(surplus) {
            fs::remove_file(path)?;
        }
        Ok(())
    };
    if let Err(error) = kept() {
        tracing::debug!(%error, "a built module could not be kept");
    }
}
