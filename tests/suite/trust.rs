//! Nothing runs on this machine that another user could have put there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Output;

const AVIARY: &str = env!("CARGO_BIN_EXE_aviary");
const NOBODY: u32 = 65_534;
/// The variables that say where the cache is.
const CACHE_VARIABLES: [&str; 3] = ["AVIARY_CACHE", "XDG_CACHE_HOME", "HOME"];
/// Where the system's own programs are: no server, and none of the compilers.
const PATH: &str = "/usr/bin:/bin";

/// A directory for a test, with programs in it that say that they ran.
struct Planted {
    dir: tempfile::TempDir,
}

impl Planted {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A program that leaves a trace, as it would be anybody's.
    fn program(&self, name: &str) -> PathBuf {
        let script =
            format!("#!/bin/sh\ntouch {}\necho db version v6.0.5\n", self.trace().display());
        self.file(name, &script)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        chmod(&path, 0o755);
        path
    }

    fn trace(&self) -> PathBuf {
        self.path("something-ran")
    }

    /// Runs the binary in this directory, and makes sure that no planted program ran.
    async fn refused(&self, args: &[&str], env: &[(&str, &Path)]) -> String {
        let Output { status, stdout, stderr } = tokio::process::Command::new(AVIARY)
            .args(args)
            .env_clear()
            .env("PATH", PATH)
            .env("TMPDIR", self.dir.path())
            // Nothing is to be fetched by what these tests run.
            .env("PIP_INDEX_URL", "http://127.0.0.1:9/")
            .env("PIP_RETRIES", "0")
            .envs(env.iter().copied())
            .current_dir(self.dir.path())
            .stdin(std::process::Stdio::null())
            .output()
            .await
            .unwrap();
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        let told = format!("{args:?}: {}\n{stderr}", String::from_utf8_lossy(&stdout));
        assert!(!self.trace().exists(), "a planted program ran: {told}");
        assert_eq!(status.code(), Some(8), "{told}");
        stderr
    }

    async fn up(&self, env: &[(&str, &Path)]) -> String {
        self.refused(&["up", "--detach", "--dir", "deployment"], env).await
    }
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn may_give_away() -> bool {
    let probe = tempfile::NamedTempFile::new().unwrap();
    let may = chown(probe.path(), Some(NOBODY), None).is_ok();
    if !may {
        println!("skipped: only root can give files away");
    }
    may
}

#[tokio::test]
async fn without_a_home_nothing_runs_from_a_path_that_anybody_could_have_made() {
    let planted = Planted::new();
    planted.program("aviary-cache/mongod-6.0.5");
    planted.program("aviary-cache/toolchains/bin/go");
    planted.program("aviary-cache/toolchains/bin/python3");
    let told = planted.up(&[]).await;
    assert!(CACHE_VARIABLES.iter().all(|name| told.contains(name)), "{told}");
    planted.refused(&["down"], &[]).await;
    for (name, text) in [("f.go", "package main"), ("f.c", "int x;")] {
        planted.file(name, text);
        let told = planted.refused(&["insert", name], &[]).await;
        assert!(told.contains("$AVIARY_CACHE/toolchains"), "{told}");
    }
    assert_eq!(
        fs::metadata(planted.path("aviary-cache/built")).err().map(|e| e.kind()),
        Some(std::io::ErrorKind::NotFound)
    );
}

#[tokio::test]
async fn a_cache_that_others_can_write_to_is_refused() {
    let planted = Planted::new();
    let cache = planted.path("cache");
    planted.program("cache/mongod-6.0.5");
    planted.program("cache/toolchains/bin/go");
    planted.file("f.go", "package main");
    for mode in [0o777, 0o770] {
        chmod(&cache, mode);
        let told = planted.up(&[("AVIARY_CACHE", &cache)]).await;
        assert!(told.contains("lets other users write to it"), "{told}");
        assert!(told.contains("AVIARY_CACHE"), "{told}");
        let told = planted.refused(&["insert", "f.go"], &[("AVIARY_CACHE", &cache)]).await;
        assert!(told.contains("bin/go is not used"), "{told}");
    }
    // Neither does a private one help below one that is not.
    chmod(&cache, 0o700);
    planted.program("open/cache/mongod-6.0.5");
    chmod(&planted.path("open/cache"), 0o700);
    chmod(&planted.path("open"), 0o777);
    let told = planted.up(&[("AVIARY_CACHE", &planted.path("open/cache"))]).await;
    assert!(told.contains("open: its mode 0777"), "{told}");
    // Nor a program that anybody can write to.
    chmod(&planted.path("cache/mongod-6.0.5"), 0o757);
    let told = planted.up(&[("AVIARY_CACHE", &cache)]).await;
    assert!(told.contains("mongod-6.0.5: its mode 0757"), "{told}");
}

#[tokio::test]
async fn a_cache_of_another_user_is_refused() {
    if !may_give_away() {
        return;
    }
    let planted = Planted::new();
    planted.program("home/.cache/aviary/mongod-6.0.5");
    planted.program("home/.cache/aviary/toolchains/bin/go");
    planted.file("f.go", "package main");
    let home = planted.path("home");
    // As with sudo, which may keep the user's own HOME.
    for stolen in ["home/.cache/aviary", "home"] {
        chown(planted.path(stolen), Some(NOBODY), None).unwrap();
        let told = planted.up(&[("HOME", &home)]).await;
        assert!(told.contains("belongs to user 65534"), "{told}");
        assert!(told.contains("AVIARY_CACHE"), "{told}");
        planted.refused(&["insert", "f.go"], &[("HOME", &home)]).await;
        chown(planted.path(stolen), Some(0), None).unwrap();
    }
    chown(planted.path("home/.cache/aviary/mongod-6.0.5"), Some(NOBODY), None).unwrap();
    planted.up(&[("HOME", &home)]).await;
}

#[tokio::test]
async fn a_home_that_cannot_be_written_to_is_told_with_the_way_out() {
    let planted = Planted::new();
    let told = planted.up(&[("HOME", Path::new("/proc"))]).await;
    assert!(told.contains("/proc/.cache/aviary"), "{told}");
    assert!(told.contains("AVIARY_CACHE"), "{told}");
}

#[tokio::test]
async fn nothing_runs_because_it_lies_in_the_working_directory_or_above_the_source() {
    let planted = Planted::new();
    let cache = planted.path("cache");
    let script = format!("open({:?}, 'w')\n", planted.trace().display().to_string());
    planted.file("ziglang/__main__.py", &script);
    planted.file("ziglang/__init__.py", "");
    planted.file("pip/__main__.py", &script);
    planted.file("pip/__init__.py", "");
    planted.file("f.c", "int x;");
    planted.refused(&["insert", "f.c"], &[("AVIARY_CACHE", &cache)]).await;
    planted.up(&[("AVIARY_CACHE", &cache)]).await;

    planted.program("shared/node_modules/.bin/asc");
    planted.file("shared/mine/f.ts", "export function map(): void {}");
    chmod(&planted.path("shared"), 0o777);
    let told = planted.refused(&["insert", "shared/mine/f.ts"], &[("AVIARY_CACHE", &cache)]).await;
    assert!(told.contains("asc is not used"), "{told}");
}
