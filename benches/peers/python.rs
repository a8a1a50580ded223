//! The Python of the scripts that people would write instead.

use std::path::{Path, PathBuf};

use tokio::process::Command;

/// What the scripts import.
const PACKAGES: [&str; 3] = ["pymongo==4.20.1", "pymongoarrow==1.15.0", "polars==2.1.0"];

/// A Python with these packages, in an environment of its own below `target/`; `None` where it cannot be made, with
/// a line that says so.
pub async fn python() -> Option<PathBuf> {
    let environment = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench-python");
    let python = environment.join("bin/python");
    let has_all = async || {
        let check = "import sys, importlib.metadata as m\n\
                     for p in sys.argv[1:]: n, v = p.split('=='); assert m.version(n) == v";
        let run = Command::new(&python).args(["-c", check]).args(PACKAGES).output().await;
        run.is_ok_and(|run| run.status.success())
    };
    if has_all().await {
        return Some(python);
    }
    eprintln!("installing {} for the scripts", PACKAGES.join(", "));
    Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment).output().await.ok();
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    Command::new(&python).args(install).args(PACKAGES).output().await.ok();
    if has_all().await {
        return Some(python);
    }
    eprintln!("not measured: pymongo and polars, which need python3 with venv and pip");
    None
}
