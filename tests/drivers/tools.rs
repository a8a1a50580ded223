//! Where the drivers of Node and of Go come from.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use crate::common::root;

const NODE_DRIVER: &str = "mongodb@7.9.0";
/// The oldest Node that it runs on, and the driver for older ones, such as Debian's.
const NODE_MAJOR: u32 = 20;
const OLDER_NODE_DRIVER: &str = "mongodb@6.22.0";
/// Where Debian puts the sources of Go's packages (`golang-mongodb-mongo-driver-dev`).
const GO_PATH: &str = "/usr/share/gocode";

/// The directory with Node's driver, installed with npm below `target/`.
pub async fn node() -> Option<PathBuf> {
    static ONE_INSTALLS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _guard = ONE_INSTALLS.lock().await;
    let Some(major) = node_major().await else { return missing("there is no Node") };
    let driver = if major < NODE_MAJOR { OLDER_NODE_DRIVER } else { NODE_DRIVER };
    let prefix = root().join("target/node-mongodb");
    let modules = prefix.join("node_modules");
    let has_it = || {
        let package = std::fs::read(modules.join("mongodb/package.json")).unwrap_or_default();
        let package: serde_json::Value = serde_json::from_slice(&package).unwrap_or_default();
        package["version"].as_str().is_some_and(|at| driver == format!("mongodb@{at}"))
    };
    if !has_it() {
        let args = ["install", "--silent", "--no-fund", "--no-audit", "--prefix"];
        Command::new("npm").args(args).arg(&prefix).arg(driver).output().await.ok();
    }
    if has_it() {
        return Some(modules);
    }
    missing(&format!("{driver} cannot be installed with npm"))
}

async fn node_major() -> Option<u32> {
    let told = Command::new("node").arg("--version").output().await.ok()?;
    let version = String::from_utf8(told.stdout).ok()?;
    version.trim().strip_prefix('v')?.split('.').next()?.parse().ok()
}

/// A program in Go, compiled with Debian's package of the driver and the Go that functions are compiled with, or the
/// one on `PATH`.
pub async fn go(source: &Path) -> Option<PathBuf> {
    let driver = Path::new(GO_PATH).join("src/go.mongodb.org/mongo-driver/mongo");
    if !driver.is_dir() {
        return missing("golang-mongodb-mongo-driver-dev is not installed");
    }
    let Some(go) = go_program().await else { return missing("there is no Go") };
    let out = root().join("target/go-mongodb");
    std::fs::create_dir_all(&out).expect("a directory");
    let program = out.join("plain");
    let built = Command::new(go)
        .args(["build", "-o"])
        .args([&program, source])
        .envs([("GO111MODULE", "off"), ("GOPATH", GO_PATH), ("GOFLAGS", "")])
        .envs([("GOTOOLCHAIN", "local"), ("GOPROXY", "off"), ("CGO_ENABLED", "0")])
        .output()
        .await
        .expect("go runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Some(program)
}

async fn go_program() -> Option<PathBuf> {
    let dir = |name: &str| std::env::var_os(name).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let cache = dir("AVIARY_CACHE").or_else(|| {
        let caches = dir("XDG_CACHE_HOME").or_else(|| Some(dir("HOME")?.join(".cache")))?;
        Some(caches.join("aviary"))
    });
    let cached = cache.map(|cache| cache.join("toolchains/bin/go"));
    for go in cached.into_iter().chain([PathBuf::from("go")]) {
        let version = Command::new(&go).arg("version").output().await;
        if version.is_ok_and(|version| version.status.success()) {
            return Some(go);
        }
    }
    None
}

fn missing(what: &str) -> Option<PathBuf> {
    assert!(std::env::var_os("CI").is_none(), "{what}");
    println!("skipped: {what}");
    None
}
