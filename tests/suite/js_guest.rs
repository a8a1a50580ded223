//! The JavaScript guest that ships inside the program is what its digest and its build script say.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::root;

fn sh(dir: &Path, script: &str) -> std::process::Output {
    Command::new("sh")
        .args(["-c", script])
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .expect("sh runs")
}

#[test]
fn the_committed_guest_has_the_committed_digest() {
    let dir = root().join("guests").join("js");
    let checked = sh(&dir, "sha256sum -c --strict quickjs.wasm.sha256");
    assert!(checked.status.success(), "{checked:?}");
    let digest = std::fs::read_to_string(dir.join("quickjs.wasm.sha256")).unwrap();
    assert_eq!(digest.split_whitespace().nth(1), Some("quickjs.wasm"), "{digest}");
    assert_eq!(digest.lines().count(), 1, "{digest}");
    // And it is the one that is compiled in.
    assert_eq!(std::fs::read(dir.join("quickjs.wasm")).unwrap(), aviary::wasm::JS_GUEST);
}

#[test]
fn building_the_guest_again_gives_the_same_bytes() {
    let dir = root().join("guests").join("js");
    // Finds the compiler, or has Python's package installer fetch it.
    let zig = sh(&dir, "set -e; . ../zig.sh; zig version");
    if !zig.status.success() {
        assert!(std::env::var_os("CI").is_none(), "the compiler cannot be had: {zig:?}");
        println!(
            "skipped: the compiler cannot be had here: {}",
            String::from_utf8_lossy(&zig.stderr)
        );
        return;
    }
    let out = tempfile::tempdir().unwrap();
    let built = Command::new(dir.join("build.sh"))
        .arg(out.path())
        .stdin(Stdio::null())
        .output()
        .expect("build.sh runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    for name in ["quickjs.wasm", "quickjs.wasm.sha256", "LICENSE.quickjs"] {
        let (ours, again) = (dir.join(name), out.path().join(name));
        assert!(std::fs::read(ours).unwrap() == std::fs::read(again).unwrap(), "{name} differs");
    }
}
