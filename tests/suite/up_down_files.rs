//! `up` takes no directory that holds something else, and `down --remove` removes what `up` made: the user's files
//! survive both.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::common::{Ran, run};
use aviary_testcontainers::state::State;

const NOTHING: [(String, String); 0] = [];

async fn up(dir: &Path, more: &[&str]) -> Ran {
    let mut args = vec!["up", "--detach", "--workers", "1", "--dir", dir.to_str().unwrap()];
    args.extend(more);
    run(&args, &NOTHING).await
}

async fn down(dir: &Path) -> Ran {
    run(&["down", "--remove", "--dir", dir.to_str().unwrap()], &NOTHING).await
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The flags for so many shards; none for a replica set.
fn shape(shards: &str) -> Vec<&str> {
    if shards == "0" { Vec::new() } else { vec!["--shards", shards] }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_with_other_files_is_refused_and_left_as_it_is() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("thesis");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("chapter-1.txt"), "years of work").unwrap();
    for shards in ["0", "2"] {
        let ran = up(&dir, &shape(shards)).await;
        assert_eq!(ran.code, 8, "{ran:#?}");
        assert!(ran.stderr.contains("it is not empty"), "{ran:#?}");
        assert!(ran.stderr.contains("name an empty directory"), "{ran:#?}");
    }
    assert_eq!(down(&dir).await.code, 5);
    assert_eq!(names(&dir), ["chapter-1.txt"]);
    assert_eq!(fs::read_to_string(dir.join("chapter-1.txt")).unwrap(), "years of work");
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_a_deployment_leaves_what_the_user_put_beside_it() {
    let parent = tempfile::tempdir().unwrap();
    let elsewhere = parent.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("kept"), "kept").unwrap();
    for (name, shards, server) in [("set", "0", "member-0"), ("cluster", "1", "s0/member-0")] {
        // An empty directory that is there already is as good as a new one.
        let dir = parent.path().join(name);
        fs::create_dir(&dir).unwrap();
        up(&dir, &shape(shards)).await.ok();
        let users = ["notes.txt", "worker-notes.log", "member-x/file"];
        for file in users {
            let file = dir.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "mine").unwrap();
        }
        fs::write(dir.join(server).join("backup"), "mine").unwrap();
        symlink(&elsewhere, dir.join("member-7")).unwrap();
        symlink(&elsewhere, dir.join("s7")).unwrap();
        symlink(elsewhere.join("kept"), dir.join("worker-7.log")).unwrap();

        let ran = down(&dir).await.ok();
        for left in ["notes.txt", "member-7", "s7", "worker-7.log"] {
            let left = dir.join(left);
            assert!(ran.stderr.contains(left.to_str().unwrap()), "{left:?}: {ran:#?}");
        }
        for file in users {
            assert_eq!(fs::read_to_string(dir.join(file)).unwrap(), "mine", "{file}");
        }
        assert_eq!(fs::read_to_string(dir.join(server).join("backup")).unwrap(), "mine");
        let top = server.split('/').next().unwrap();
        let mut expected = vec![top, "member-7", "member-x", "notes.txt", "s7", "worker-7.log"];
        expected.push("worker-notes.log");
        expected.sort_unstable();
        assert_eq!(names(&dir), expected);
        assert_eq!(names(&elsewhere), ["kept"]);
        // Now it is a directory with the user's files in it, like any other.
        assert_eq!(up(&dir, &shape(shards)).await.code, 8);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_the_directory_is_never_removed_through() {
    let parent = tempfile::tempdir().unwrap();
    let (dir, link) = (parent.path().join("dir"), parent.path().join("link"));
    fs::create_dir(&dir).unwrap();
    symlink(&dir, &link).unwrap();
    up(&link, &[]).await.ok();
    down(&link).await.ok();
    assert!(link.is_symlink());
    assert!(names(&dir).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_leaves_nothing_running_and_can_be_repeated_or_removed() {
    let parent = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (name, shards) in [("set", "0"), ("cluster", "1")] {
        let dir = parent.path().join(name);
        let failed = up(&dir, &[&shape(shards)[..], &["--port", &port]].concat()).await;
        assert_eq!(failed.code, 8, "{failed:#?}");
        let running = || {
            let processes = fs::read_dir("/proc").unwrap().flatten();
            processes
                .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
                .map(|line| String::from_utf8_lossy(&line).into_owned())
                .filter(|line| line.contains(&format!("--dbpath={}/", dir.display())))
                .collect::<Vec<_>>()
        };
        assert!(running().is_empty(), "{:#?}", running());
        assert!(!names(&dir).is_empty(), "its logs tell why");
        down(&dir).await.ok();
        assert!(!dir.exists());
        up(&dir, &[&shape(shards)[..], &["--port", &port]].concat()).await;
        up(&dir, &shape(shards)).await.ok();
        down(&dir).await.ok();
        assert!(!dir.exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_another_user_could_have_written_ends_no_process() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("dir");
    up(&dir, &[]).await.ok();
    let state = State::read(&dir).unwrap();
    let path = State::path(&dir);
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    let log = dir.join("coordinator.log");
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
    for (what, mode, before) in [(&path, 0o666, 0o600), (&dir, 0o777, 0o700)] {
        fs::set_permissions(what, fs::Permissions::from_mode(mode)).unwrap();
        let refused = down(&dir).await;
        assert_eq!(refused.code, 8, "{refused:#?}");
        assert!(refused.stderr.contains("lets other users write to it"), "{refused:#?}");
        assert!(state.running().count() > 0);
        fs::set_permissions(what, fs::Permissions::from_mode(before)).unwrap();
    }
    down(&dir).await.ok();
    assert!(!dir.exists());
}
