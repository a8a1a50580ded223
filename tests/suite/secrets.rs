//! Passwords stay out of what is printed, and may stay off the command line.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use crate::common::{AVIARY, Bed, Ran, run, wait_for};
use aviary_testcontainers::ReplicaSetOptions;
use bson::doc;

/// Connection strings with a password that is written in a wrong way, or in an option. Each part of the password,
/// and the user, begins with `s3c`.
const MALFORMED: [&str; 12] = [
    "mongodb://s3cuser:s3c/s3cret@h.invalid/db",
    "mongodb://s3cuser:/s3cret@h.invalid/db",
    "mongodb://s3cuser:s3c?s3cret@h.invalid/db",
    "mongodb://s3cuser:s3c?a=s3cret@h.invalid/db",
    "mongodb://s3cuser:s3c@s3cret@h.invalid/db",
    "mongodb://s3cuser:s3c%s3cret@h.invalid/db",
    "mongodb://s3cuser:s3cret@h.invalid:port/db",
    "mongodb://s3cuser:s3cret@/db",
    "mongodb://h.invalid/db?authMechanismProperties=s3cret",
    "mongodb://h.invalid/db?tlsCertificateKeyFilePassword=s3cret",
    "mongodb:/s3cuser:s3cret@h.invalid/db",
    "s3cuser:s3cret@h.invalid",
];

/// Runs the binary with nothing in its environment that names a deployment.
async fn bare(args: &[&str], env: &[(&str, &str)]) -> Ran {
    let env: Vec<(String, String)> =
        env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    run(args, &env).await
}

fn tells_no_secret(ran: &Ran, what: &str) {
    for text in [&ran.stdout, &ran.stderr] {
        assert!(!text.contains("s3c"), "{what}: {ran:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_malformed_uri_is_printed_by_any_verb_wherever_it_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("aviary.toml");
    for uri in MALFORMED {
        for args in
            [&["list", "-d", "test"][..], &["worker", "-d", "test"], &["coordinator", "-d", "test"]]
        {
            let given = [args, &["--uri", uri, "-vv"]].concat();
            for ran in [bare(args, &[("AVIARY_URI", uri)]).await, bare(&given, &[]).await] {
                assert_eq!(ran.code, 2, "{uri}: {ran:#?}");
                assert!(ran.stderr.contains("not a usable MongoDB URI"), "{uri}: {ran:#?}");
                tells_no_secret(&ran, uri);
            }
        }
        let assemble = ["assemble", "--config-servers", "c/h:1", "--shard", "s/h:1", "--uri", uri];
        tells_no_secret(&bare(&assemble, &[]).await, uri);
        fs::write(&config, format!("uri = {uri:?}\n")).unwrap();
        fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).unwrap();
        let file = config.to_str().unwrap();
        let ran = bare(&["list", "-d", "test", "--config", file], &[]).await;
        assert_eq!(ran.code, 2, "{uri}: {ran:#?}");
        tells_no_secret(&ran, uri);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_uri_in_the_wrong_place_is_not_repeated() {
    const URI: &str = "mongodb://s3cuser:s3cret@h.invalid/db?proxyPassword=s3cret";
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("aviary.toml");
    let file = config.to_str().unwrap();
    for args in
        [&["list", URI][..], &["--url", URI, "list"], &[URI], &["list", "-o", URI], &["tasks", URI]]
    {
        tells_no_secret(&bare(args, &[]).await, &format!("{args:?}"));
    }
    // Where the file's place for it is another.
    for text in [format!("output = {URI:?}"), format!("{URI:?} = 1"), format!("uri = [{URI:?}]")] {
        fs::write(&config, &text).unwrap();
        tells_no_secret(&bare(&["list", "--config", file], &[]).await, &text);
    }
    // Help shows what the environment says.
    for name in ["AVIARY_URI", "AVIARY_SHARD_URI"] {
        for args in [&["worker", "--help"][..], &["list", "--help"], &["--help"]] {
            let ran = bare(args, &[(name, URI)]).await.ok();
            tells_no_secret(&ran, name);
        }
    }
}

/// A file that holds a URI, with a mode.
fn uri_file(dir: &Path, name: &str, uri: &str, mode: u32) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, uri).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_uri_is_read_from_a_file_by_verbs_and_daemons_and_stands_in_no_command_line() {
    let bed = Bed::with(ReplicaSetOptions { auth: true, ..ReplicaSetOptions::default() }).await;
    let password = bed.set().root().unwrap().password.clone();
    let file = uri_file(bed.dir.path(), "uri", &format!("{}\n", bed.uri()), 0o600);
    let file = file.to_str().unwrap();
    bed.load("docs", vec![doc! { "_id": 1, "g": 1 }]).await;

    // The beds' variable is taken away from them: an empty file name is none.
    let daemon = |args: &[&str]| {
        let args = [args, &["--uri-file", file]].concat();
        bed.spawn("daemon", &args, &[("AVIARY_URI", "mongodb://127.0.0.1:9/none")])
    };
    let daemons = [daemon(&["coordinator"]), daemon(&["worker", "--slots", "1"])];
    let map = bed.file("map.js", "function () { emit(this.g, 1) }").display().to_string();
    let submit = ["submit", "-q", "-d", "test", "-c", "docs", "--map", &map, "--reduce", "_sum"];
    let ran = bare(&[&submit[..], &["--uri-file", file]].concat(), &[]).await.ok();
    assert_eq!(ran.json()[0]["value"], 1.0);
    bare(&submit, &[("AVIARY_URI_FILE", file)]).await.ok();
    for (n, daemon) in daemons.iter().enumerate() {
        let shown = fs::read_to_string(format!("/proc/{}/cmdline", daemon.pid())).unwrap();
        assert!(shown.contains("--uri-file") && !shown.contains(&password), "{n}: {shown}");
        assert!(!daemon.log().unwrap().contains(&password));
    }

    // What is nearer goes first; two of the same rank are refused.
    let nobody = "mongodb://127.0.0.1:9/test?serverSelectionTimeoutMS=200";
    let list = ["list", "-d", "test"];
    let flag = [&list[..], &["--uri-file", file]].concat();
    bare(&flag, &[("AVIARY_URI", nobody)]).await.ok();
    let uri = bed.uri();
    bare(&[&list[..], &["--uri", &uri]].concat(), &[("AVIARY_URI_FILE", "/nowhere")]).await.ok();
    for (args, env) in [
        ([&flag[..], &["--uri", nobody]].concat(), vec![]),
        (list.to_vec(), vec![("AVIARY_URI", nobody), ("AVIARY_URI_FILE", file)]),
    ] {
        let ran = bare(&args, &env).await;
        assert_eq!(ran.code, 2, "{ran:#?}");
        assert!(ran.stderr.contains("--uri and --uri-file both"), "{ran:#?}");
    }
    // A verb that takes no deployment does not look at the file.
    let dir = bed.dir.path().join("new");
    bare(&["new", "javascript", dir.to_str().unwrap()], &[("AVIARY_URI_FILE", "/nowhere")])
        .await
        .ok();

    // A password on the command line is told of, once, and not with --quiet.
    let shown = [&list[..], &["--uri", &uri]].concat();
    let ran = bare(&shown, &[]).await.ok();
    assert_eq!(ran.stderr.matches("can see the password in --uri").count(), 1, "{ran:#?}");
    assert!(!ran.stderr.contains(&password));
    let ran = bare(&[&shown[..], &["-q"]].concat(), &[]).await.ok();
    assert_eq!(ran.stderr, "");
    let ran = bare(&flag, &[]).await.ok();
    assert!(!ran.stderr.contains("password"), "{ran:#?}");
    let worker = bed.spawn("shown", &["worker", "--uri", &uri], &[]);
    let log = wait_for("the worker to warn", async || {
        let log = worker.log().unwrap();
        log.contains("can see the password in --uri").then_some(log)
    })
    .await;
    assert!(!log.contains(&password), "{log}");
}

#[tokio::test]
async fn a_uri_file_that_others_can_read_is_refused() {
    const NOBODY: u32 = 65_534;
    const URI: &str = "mongodb://s3cuser:s3cret@127.0.0.1:9/test?serverSelectionTimeoutMS=100";
    let dir = tempfile::tempdir().unwrap();
    let list =
        |file: &Path| ["list".to_owned(), "--uri-file".to_owned(), file.display().to_string()];
    let ends = async |file: &Path, env: &[(&str, &str)], code: i32| {
        let args = list(file);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let ran = bare(&args, env).await;
        tells_no_secret(&ran, &file.display().to_string());
        assert_eq!(ran.code, code, "{}: {ran:#?}", file.display());
        ran.stderr
    };
    // 6: it was read, and nobody answered there.
    for mode in [0o600, 0o400, 0o700] {
        let told = ends(&uri_file(dir.path(), &format!("{mode:o}"), URI, mode), &[], 6).await;
        assert!(told.contains("mongodb://127.0.0.1:9/test"), "{told}");
    }
    for mode in [0o644, 0o640, 0o604, 0o660, 0o602, 0o620, 0o444] {
        let told = ends(&uri_file(dir.path(), &format!("{mode:o}"), URI, mode), &[], 8).await;
        assert!(told.contains(&format!("its mode {mode:04o} lets other users")), "{told}");
        assert!(told.contains("chmod 600"), "{told}");
    }
    // A link is judged by what it leads to.
    std::os::unix::fs::symlink(dir.path().join("644"), dir.path().join("link")).unwrap();
    ends(&dir.path().join("link"), &[], 8).await;
    ends(&dir.path().join("none"), &[], 5).await;
    ends(dir.path(), &[], 8).await;
    ends(&uri_file(dir.path(), "empty", "\n", 0o600), &[], 2).await;
    let large = "x".repeat(100_000);
    ends(&uri_file(dir.path(), "large", &large, 0o600), &[], 8).await;
    for text in ["mongodb://s3cuser:s3c/ret@h", "s3cret"] {
        ends(&uri_file(dir.path(), "malformed", text, 0o600), &[], 2).await;
    }

    // systemd guards a directory, and the files in it have modes of its own.
    let credentials = dir.path().join("credentials");
    fs::create_dir(&credentials).unwrap();
    let credential = uri_file(&credentials, "uri", URI, 0o444);
    let env = [("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap())];
    fs::set_permissions(&credentials, fs::Permissions::from_mode(0o500)).unwrap();
    ends(&credential, &env, 6).await;
    ends(&credential, &[], 8).await;
    ends(&dir.path().join("644"), &env, 8).await;
    fs::set_permissions(&credentials, fs::Permissions::from_mode(0o755)).unwrap();
    ends(&credential, &env, 8).await;

    // A configuration file that holds a password is a secret too; another one is not.
    let config = dir.path().join("aviary.toml");
    for (text, mode, code) in [
        (URI, 0o644, 8),
        (URI, 0o600, 6),
        ("mongodb://127.0.0.1:9/test?serverSelectionTimeoutMS=100", 0o644, 6),
    ] {
        fs::write(&config, format!("uri = {text:?}")).unwrap();
        fs::set_permissions(&config, fs::Permissions::from_mode(mode)).unwrap();
        let ran = bare(&["list", "--config", config.to_str().unwrap()], &[]).await;
        tells_no_secret(&ran, text);
        assert_eq!(ran.code, code, "{ran:#?}");
    }

    let probe = uri_file(dir.path(), "given", URI, 0o440);
    if chown(&probe, Some(NOBODY), None).is_err() {
        println!("skipped: only root can give files away");
        return;
    }
    let told = ends(&probe, &[], 8).await;
    assert!(told.contains("belongs to user 65534"), "{told}");
    // As a secret is mounted into a container: root's, for a group to read.
    ends(&uri_file(dir.path(), "mount", URI, 0o440), &[], 6).await;
    as_nobody_reads_a_mount(URI);
}

/// A user of the group reads root's file, as in a container, and not one that all can read.
fn as_nobody_reads_a_mount(uri: &str) {
    use std::os::unix::process::CommandExt as _;
    const NOGROUP: u32 = 65_534;
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("aviary");
    // By another process: what this one has open for writing, the children of other tests have too for a moment, and a file
    // that anybody writes cannot be run.
    let copied = std::process::Command::new("cp").arg(AVIARY).arg(&program).status().unwrap();
    assert!(copied.success());
    for (mode, code) in [(0o440, 6), (0o444, 8)] {
        let file = uri_file(dir.path(), &format!("{mode:o}"), uri, mode);
        chown(&file, Some(0), Some(NOGROUP)).unwrap();
        let ended = std::process::Command::new(&program)
            .args(["list", "--uri-file"])
            .arg(&file)
            .env_clear()
            .uid(NOGROUP)
            .gid(NOGROUP)
            .current_dir("/")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(code), "{mode:o}: {told}");
        assert!(!told.contains("s3c"), "{told}");
    }
}
