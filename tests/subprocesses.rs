//! What Aviary runs on this machine is what the user installed: nothing in the working directory, beside the
//! compiler's or in the environment gets into it, and it learns no secret.

#![cfg(test)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use aviary::toolchain::{self, Language};

const AVIARY: &str = env!("CARGO_BIN_EXE_aviary");
const PASSWORD: &str = "s3cret-of-the-deployment";
/// The programs that Aviary looks for.
const PROGRAMS: [&str; 12] = [
    "mongod", "mongos", "go", "rustc", "zig", "asc", "node", "python3", "pip3", "pip", "sh", "cat",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A directory that is full of what other users may have put there, and an environment that leads to it.
struct Hostile {
    dir: tempfile::TempDir,
}

impl Hostile {
    fn new() -> Self {
        let hostile = Self { dir: tempfile::tempdir().unwrap() };
        let trace = hostile.path("trace").display().to_string();
        for program in PROGRAMS {
            let script = format!("#!/bin/sh\necho {program} \"$@\" >> {trace}\nexit 0\n");
            hostile.file(&format!("bin/{program}"), &script);
            if program != "pip" {
                hostile.file(program, &script);
            }
        }
        let python = format!("open({trace:?}, 'a').write(__file__ + '\\n')\n");
        for module in ["pip", "ziglang", "site", "importlib", "encodings"] {
            hostile.file(&format!("{module}/__init__.py"), &python);
            hostile.file(&format!("{module}/__main__.py"), &python);
        }
        hostile.file("sitecustomize.py", &python);
        let script = format!("require('fs').appendFileSync({trace:?}, 'node\\n');\n");
        hostile.file("evil.js", &script);
        for name in ["glue", "index", "host", "value", "write", "bytes"] {
            hostile.file(&format!("node_modules/aviary/{name}.ts"), "this is not for anybody");
        }
        hostile.file(
            "rust-toolchain.toml",
            &format!("[toolchain]\npath = {:?}\n", hostile.path("rust")),
        );
        hostile.file("rust/bin/rustc", &format!("#!/bin/sh\necho rustc >> {trace}\nexit 1\n"));
        hostile.file("include/stdint.h", "#error hostile");
        hostile.file("include/stddef.h", "#error hostile");
        hostile.file("include/string.h", "#error hostile");
        hostile.file("go.work", "this is no workspace");
        hostile.file("asconfig.json", "this is no configuration");
        hostile
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs the binary in this directory, with this environment; tells its exit code and what it printed.
    async fn runs(&self, args: &[&str], env: &[(&str, &str)]) -> (i32, String) {
        let here = self.dir.path().display().to_string();
        let path = std::env::var("PATH").unwrap();
        let mut command = tokio::process::Command::new(AVIARY);
        command
            .args(args)
            .current_dir(self.dir.path())
            .env("PATH", format!(":.:bin:{path}"))
            .env("TMPDIR", &here)
            .env("AVIARY_CACHE", self.path("cache"))
            .env("AVIARY_URI", format!("mongodb://u:{PASSWORD}@127.0.0.1:9/test"))
            .env("AVIARY_SHARD_URI", format!("mongodb://u:{PASSWORD}@127.0.0.1:9/test"))
            .env("PYTHONPATH", &here)
            .env("PYTHONSTARTUP", self.path("sitecustomize.py"))
            .env("NODE_OPTIONS", format!("--require {here}/evil.js"))
            .env("NODE_PATH", &here)
            .env("RUSTC_WRAPPER", self.path("rustc"))
            .env("RUSTFLAGS", "--hostile")
            .env("RUSTC_BOOTSTRAP", "1")
            .env("GOFLAGS", format!("-toolexec={here}/go"))
            .env("GOROOT", &here)
            .env("CPATH", self.path("include"))
            .env("C_INCLUDE_PATH", self.path("include"))
            .env("ZIG_LIB_DIR", &here)
            .env("BASH_ENV", self.path("sh"))
            .env("PIP_INDEX_URL", "http://127.0.0.1:9/")
            .env("PIP_RETRIES", "0")
            .env_remove("PIP_FIND_LINKS")
            .env_remove("RUSTUP_TOOLCHAIN")
            .envs(env.iter().copied())
            .stdin(std::process::Stdio::null());
        let ended = command.output().await.unwrap();
        let told = format!(
            "{args:?} {env:?}: {}{}",
            String::from_utf8_lossy(&ended.stdout),
            String::from_utf8_lossy(&ended.stderr)
        );
        if let Ok(ran) = fs::read_to_string(self.path("trace")) {
            panic!("what lies here ran:\n{ran}{told}");
        }
        (ended.status.code().unwrap_or(-1), told)
    }
}

fn example(language: Language) -> PathBuf {
    let dir = if language == Language::Cpp { "cpp" } else { language.name() };
    root().join(format!("examples/{dir}/sum_by_customer.{}", language.extensions()[0]))
}

/// Where Aviary's own toolchains are, linked into the hostile machine's cache.
fn link_toolchains(hostile: &Hostile) {
    let known = aviary_testcontainers::dirs::cache_path().unwrap().join("toolchains");
    let cache = hostile.path("cache");
    fs::create_dir_all(&cache).unwrap();
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o700)).unwrap();
    if known.is_dir() {
        std::os::unix::fs::symlink(known, cache.join("toolchains")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_language_compiles_where_everything_is_hostile() {
    let mut compiled = Vec::new();
    for language in Language::ALL {
        if toolchain::compiler(language).is_none() {
            assert!(std::env::var_os("CI").is_none(), "{} is not here", language.needs());
            println!("skipped: {language}");
            continue;
        }
        let hostile = Hostile::new();
        link_toolchains(&hostile);
        let docs = root().join("examples/orders.jsonl").display().to_string();
        let module = example(language).display().to_string();
        let (code, told) = hostile.runs(&["try", "--docs", &docs, "--module", &module], &[]).await;
        assert_eq!(code, 0, "{language}: {told}");
        assert!(told.contains("\"value\""), "{language}: {told}");
        compiled.push(language);
    }
    println!("compiled: {compiled:?}");
}

/// What a program that Aviary runs gets to see.
fn seen(dump: &str) -> BTreeMap<&str, &str> {
    dump.lines().filter_map(|line| line.split_once('=')).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_program_that_is_run_learns_a_secret_or_is_told_what_to_load() {
    // PWD and its like are the shell's own.
    const KNOWN: [&str; 20] = [
        "HOME",
        "USER",
        "LOGNAME",
        "TMPDIR",
        "LANG",
        "LANGUAGE",
        "TZ",
        "PATH",
        "LD_LIBRARY_PATH",
        "GLIBC_TUNABLES",
        "SSL_CERT_FILE",
        "PWD",
        "OLDPWD",
        "SHLVL",
        "_",
        "RUSTUP_HOME",
        "CARGO_HOME",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "ZIG_GLOBAL_CACHE_DIR",
    ];
    const SET_BY_US: [&str; 10] = [
        "GOOS",
        "GOARCH",
        "CGO_ENABLED",
        "GO111MODULE",
        "GOFLAGS",
        "GOWORK",
        "GOPROXY",
        "GOTOOLCHAIN",
        "ZIG_LOCAL_CACHE_DIR",
        "NO_COLOR",
    ];
    for (variable, source, version) in [
        ("AVIARY_GO", "f.go", "go1.99"),
        ("AVIARY_ZIG", "f.c", "0.15.2"),
        ("AVIARY_ZIG", "f.zig", "0.15.2"),
        ("AVIARY_ASC", "f.ts", "Version 0.99.0"),
        ("AVIARY_MONGOD", "", "db version v6.0.5"),
    ] {
        let hostile = Hostile::new();
        let dump = hostile.path("dump");
        // Named by a path from the working directory.
        let script = format!(
            "#!/bin/sh\n{{ echo cwd=$(/bin/pwd -P); /usr/bin/env; }} >> {}\n\
             case \"$*\" in *version*|*GOVERSION*) echo {version}; exit 0;; esac\nexit 1\n",
            dump.display()
        );
        hostile.file("tools/mine", &script);
        let text = match source {
            "f.go" => "package main\nfunc Map(doc aviary.Doc, emit aviary.Emit) {}",
            "f.zig" => "pub fn map(doc: aviary.Doc) void {}",
            "f.ts" => "export function map(doc: Doc): void {}",
            _ => "int x;",
        };
        hostile.file("f/keep", "");
        if !source.is_empty() {
            hostile.file(&format!("f/{source}"), text);
        }
        let path = format!("f/{source}");
        let args: Vec<&str> = match variable {
            "AVIARY_MONGOD" => vec!["up", "--detach", "--dir", "deployment"],
            _ => vec!["insert", &path],
        };
        let (code, told) = hostile.runs(&args, &[(variable, "./tools/mine")]).await;
        assert_eq!(code, 8, "{told}");
        assert!(!told.contains(PASSWORD), "{told}");
        let dump = fs::read_to_string(&dump)
            .unwrap_or_else(|e| panic!("{variable} did not run: {e}: {told}"));
        assert!(!dump.contains(PASSWORD), "{variable}: {dump}");
        for (name, value) in seen(&dump) {
            if name == "cwd" {
                let ours = value == "/"
                    || value.contains("/cache/build/aviary-build-")
                    || value.contains("/deployment/member-");
                assert!(ours, "{variable} runs in {value}");
                continue;
            }
            let known =
                KNOWN.contains(&name) || SET_BY_US.contains(&name) || name.starts_with("LC_");
            assert!(known, "{variable} gets {name}={value}");
            if name == "PATH" {
                assert!(
                    value.split(':').all(|dir| dir.starts_with('/')),
                    "{variable}: PATH={value}"
                );
            }
            if name == "GOFLAGS" {
                assert_eq!(value, "");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_neither_taken_from_the_working_directory_nor_fetched_by_what_lies_there() {
    let hostile = Hostile::new();
    // Without a mongod on PATH one would be fetched, from a mirror that does not answer.
    let (code, told) = hostile.runs(&["up", "--detach", "--dir", "deployment"], &[]).await;
    if code == 0 {
        // There is one on PATH, which is another way not to run what lies here.
        let (code, told) = hostile.runs(&["down", "--dir", "deployment"], &[]).await;
        assert_eq!(code, 0, "{told}");
        return;
    }
    assert_eq!(code, 8, "{told}");
    assert!(told.contains("mongod") && told.contains("failed with"), "the real pip ran: {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_starts_and_stops_where_everything_is_hostile() {
    let mongod =
        aviary_testcontainers::mongod::locate(&aviary_testcontainers::Progress::silent()).unwrap();
    let hostile = Hostile::new();
    let mongod = mongod.to_str().unwrap();
    let args = ["up", "--detach", "--dir", "deployment"];
    let (code, told) = hostile.runs(&args, &[("AVIARY_MONGOD", mongod)]).await;
    assert_eq!(code, 0, "{told}");
    let mut servers = 0;
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let read = |name: &str| fs::read(process.path().join(name)).unwrap_or_default();
        let words = String::from_utf8_lossy(&read("cmdline")).into_owned();
        if !words.contains(&format!(
            "--dbpath={}",
            hostile.path("deployment").canonicalize().unwrap().display()
        )) {
            continue;
        }
        servers += 1;
        let environment = String::from_utf8_lossy(&read("environ")).into_owned();
        assert!(
            !environment.contains(PASSWORD) && !environment.contains("NODE_OPTIONS"),
            "{environment}"
        );
    }
    let (code, told) = hostile.runs(&["down", "--dir", "deployment", "--remove"], &[]).await;
    assert_eq!(code, 0, "{told}");
    assert_eq!(servers, 1, "the server was looked at");
}
