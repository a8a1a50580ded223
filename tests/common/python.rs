//! A Python with the real pymongo.

use std::path::PathBuf;

use crate::common::root;

const PYMONGO: &str = "pymongo==4.15.4";

/// A Python that has pymongo, in an environment of its own below `target/`. `None`, with a line that
/// says so, where it cannot be made; in CI that is an error.
pub async fn python() -> Option<PathBuf> {
    static ONE_INSTALLS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _guard = ONE_INSTALLS.lock().await;
    let environment = root().join("target/pymongo");
    let python = environment.join("bin/python");
    let check = "import pymongo, sys; sys.exit('pymongo==' + pymongo.version != sys.argv[1])";
    let has_it = async || {
        let run = tokio::process::Command::new(&python).args(["-c", check, PYMONGO]).output().await;
        run.is_ok_and(|run| run.status.success())
    };
    if !has_it().await {
        let made = tokio::process::Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&environment)
            .output()
            .await;
        if made.is_ok_and(|made| made.status.success()) {
            let install =
                ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", PYMONGO];
            tokio::process::Command::new(&python).args(install).output().await.ok();
        }
        if !has_it().await {
            assert!(std::env::var_os("CI").is_none(), "{PYMONGO} could not be installed with pip");
            println!("skipped: there is no pymongo, and pip cannot install it");
            return None;
        }
    }
    Some(python)
}
