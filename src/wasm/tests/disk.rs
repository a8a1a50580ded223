//! Compiled modules on disk are used when intact, and never otherwise.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::guests::{emitter, endless};
use super::*;

fn host_at(root: &Path) -> Host {
    Host::new(HostOptions {
        cache_dir: Some(root.to_path_buf()),
        instances_max: 2,
        ..HostOptions::default()
    })
    .unwrap()
}

/// Loads a guest that emits once, runs it, and returns what the host did for it.
fn run(root: &Path) -> HostStats {
    let host = host_at(root);
    let module = load(&host, &emitter(1));
    let mut instance =
        Instance::new(&module, InstanceOptions::default(), Collect::default()).unwrap();
    instance.call(Stage::Map, &[]).unwrap();
    assert_eq!(instance.into_sink().pairs.len(), 1);
    host.stats()
}

fn directory(root: &Path) -> PathBuf {
    let mut found = fs::read_dir(root).unwrap();
    let directory = found.next().unwrap().unwrap().path();
    assert!(found.next().is_none());
    directory
}

fn compiled_files(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory(root)).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "cwasm"));
    paths.sort();
    paths
}

const COMPILED: HostStats =
    HostStats { compiled: 1, disk_hits: 0, disk_rejected: 0, memory_hits: 0 };
const READ: HostStats = HostStats { compiled: 0, disk_hits: 1, ..COMPILED };
const REJECTED: HostStats = HostStats { disk_rejected: 1, ..COMPILED };

#[test]
fn the_second_process_reads_what_the_first_compiled() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(run(root.path()), COMPILED);
    assert_eq!(run(root.path()), READ);
}

#[test]
fn only_the_owner_can_read_or_write() {
    let root = tempfile::tempdir().unwrap();
    run(root.path());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let directory = directory(root.path());
    assert_eq!(mode(&directory), 0o700);
    for entry in fs::read_dir(&directory).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    // A directory that was opened to others is closed again.
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o770)).unwrap();
    assert_eq!(run(root.path()), READ);
    assert_eq!(mode(&directory), 0o700);
}

#[test]
fn a_link_in_place_of_the_directory_is_refused() {
    let (root, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(root.path());
    let directory = directory(root.path());
    fs::remove_dir_all(&directory).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), &directory).unwrap();
    let options = HostOptions {
        cache_dir: Some(root.path().to_path_buf()),
        instances_max: 2,
        ..HostOptions::default()
    };
    let error = Host::new(options).unwrap_err();
    assert!(matches!(error, HostError::Cache(CacheError::NotPrivate { .. })), "{error:?}");
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[test]
fn a_changed_byte_anywhere_is_found_and_the_module_compiled_again() {
    let root = tempfile::tempdir().unwrap();
    run(root.path());
    let path = compiled_files(root.path()).remove(0);
    let intact = fs::read(&path).unwrap();
    for place in [0, 8, 20, 40, intact.len() / 2, intact.len() - 1] {
        let mut damaged = intact.clone();
        damaged[place] ^= 1;
        fs::write(&path, &damaged).unwrap();
        assert_eq!(run(root.path()), REJECTED, "byte {place}");
        assert_eq!(fs::read(&path).unwrap()[..8], intact[..8]);
        assert_eq!(run(root.path()), READ, "byte {place}");
    }
    for len in [0, 7, 39, 40, intact.len() - 1] {
        fs::write(&path, &intact[..len]).unwrap();
        assert_eq!(run(root.path()), REJECTED, "cut to {len}");
    }
}

#[test]
fn an_intact_file_of_another_module_is_not_taken_for_this_one() {
    let root = tempfile::tempdir().unwrap();
    run(root.path());
    let path = compiled_files(root.path()).remove(0);
    load(&host_at(root.path()), &endless());
    let other = compiled_files(root.path()).into_iter().find(|other| *other != path).unwrap();
    fs::copy(other, &path).unwrap();
    assert_eq!(run(root.path()), REJECTED);
}

#[test]
fn a_file_made_with_another_key_is_not_trusted() {
    let (root, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(root.path());
    run(other.path());
    fs::copy(compiled_files(other.path()).remove(0), compiled_files(root.path()).remove(0))
        .unwrap();
    assert_eq!(run(root.path()), REJECTED);
    // A key that others could read is replaced, and nothing made with it is trusted.
    let key = directory(root.path()).join("key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let before = fs::read(&key).unwrap();
    assert_eq!(run(root.path()), REJECTED);
    assert_ne!(fs::read(&key).unwrap(), before);
}

#[test]
fn another_version_has_a_directory_of_its_own() {
    let root = tempfile::tempdir().unwrap();
    run(root.path());
    let name = directory(root.path()).file_name().unwrap().to_string_lossy().into_owned();
    assert!(name.starts_with("aviary-cache-48.0.8-"), "{name}");
    // What an older version left is not looked at, and still there for it.
    let old = root.path().join("aviary-cache-1.0.0-0000000000000000");
    fs::rename(directory(root.path()), &old).unwrap();
    assert_eq!(run(root.path()), COMPILED);
    assert_eq!(run(root.path()), READ);
    assert!(old.join("key").exists());
}

#[test]
fn the_engine_that_is_set_up_otherwise_does_not_run_it() {
    // Without a pool, memory is laid out otherwise, and so is the code.
    let root = tempfile::tempdir().unwrap();
    run(root.path());
    let unpooled = HostOptions {
        cache_dir: Some(root.path().to_path_buf()),
        instances_max: 100_000,
        ..HostOptions::default()
    };
    let host = Host::new(unpooled).unwrap();
    load(&host, &emitter(1));
    assert_eq!(host.stats(), COMPILED);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
}

#[test]
fn the_least_recently_used_modules_make_room() {
    let root = tempfile::tempdir().unwrap();
    run(root.path());
    let first = compiled_files(root.path()).remove(0);
    let bytes = fs::metadata(&first).unwrap().len();
    // Room for two; the first was used last long ago.
    let file = fs::File::options().write(true).open(&first).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    let host = Host::new(HostOptions {
        cache_dir: Some(root.path().to_path_buf()),
        cache_bytes_max: bytes * 5 / 2,
        ..HostOptions::default()
    })
    .unwrap();
    load(&host, &emitter(2));
    assert!(first.exists());
    load(&host, &emitter(3));
    assert!(!first.exists());
    assert_eq!(compiled_files(root.path()).len(), 2);
}

#[test]
fn a_digest_must_be_the_one_of_the_bytes() {
    let host = host();
    let wrong = blake3::hash(b"something else");
    let error = host.load(&wrong, emitter(1).as_bytes()).unwrap_err();
    assert!(matches!(error, HostError::Digest { expected, .. } if expected == wrong));
    assert!(host.loaded(&wrong).is_none());
}

#[test]
fn threads_that_need_the_same_module_compile_it_once() {
    let host = Host::new(HostOptions { instances_max: 1, ..HostOptions::default() }).unwrap();
    let text = emitter(77);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| load(&host, &text));
        }
    });
    let stats = host.stats();
    assert_eq!((stats.compiled, stats.memory_hits), (1, 3));
    assert!(host.loaded(&blake3::hash(text.as_bytes())).is_some());
}
