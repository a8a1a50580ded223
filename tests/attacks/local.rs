//! Another user of the machine puts files where Aviary, or a program that it runs, might look, or looks at what is
//! to be seen.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::common::Ran;
use crate::stage::Stage;
use crate::{Attack, Outcome, Role};

pub const ATTACKS: &[Attack] = &[
    attack("a mongod in the working directory, by a relative entry of PATH", |stage| {
        relative_path(stage).boxed()
    }),
    attack("a module of Python's own name, by PYTHONPATH", |stage| python_path(stage).boxed()),
    attack("a script that node loads, by NODE_OPTIONS", |stage| node_options(stage).boxed()),
    attack("a header of C's own name, by CPATH", |stage| cpath(stage).boxed()),
    attack("a rust-toolchain.toml in the directory for temporary files", |stage| {
        rust_toolchain(stage).boxed()
    }),
    attack("a compiler learns the database's password", |stage| learns(stage).boxed()),
    attack("the password of a daemon stands in ps", |stage| ps(stage).boxed()),
];

const fn attack(
    name: &'static str,
    run: for<'a> fn(&'a Stage) -> BoxFuture<'a, Outcome>,
) -> Attack {
    Attack { role: Role::Local, name, run }
}

/// A directory in which somebody has put something, and where the program is run.
pub struct Planted {
    pub dir: tempfile::TempDir,
}

impl Planted {
    pub fn new() -> Self {
        let planted = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(planted.path("cache")).unwrap();
        fs::set_permissions(planted.path("cache"), fs::Permissions::from_mode(0o700)).unwrap();
        planted
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What is left where something that was planted has run.
    pub fn trace(&self) -> PathBuf {
        self.path("trace")
    }

    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path.display().to_string()
    }

    /// A program that does this.
    pub fn program(&self, name: &str, script: &str) -> String {
        self.file(name, &format!("#!/bin/sh\n{script}\n"))
    }

    /// One that nobody wanted to run.
    fn evil(&self, name: &str) -> String {
        self.program(name, &format!("echo {name} >> {}; exit 1", self.trace().display()))
    }

    /// Runs the program here. Nothing is fetched from outside.
    pub async fn run(&self, stage: &Stage, args: &[&str], env: &[(&str, &str)]) -> Ran {
        let mut command = tokio::process::Command::new(&stage.bed.program);
        command
            .args(args)
            .env_clear()
            .current_dir(self.dir.path())
            .env("PATH", "/usr/bin:/bin")
            .env("TMPDIR", self.dir.path())
            .env("AVIARY_CACHE", self.path("cache"))
            .env("PIP_INDEX_URL", "http://127.0.0.1:9/")
            .env("PIP_RETRIES", "0")
            .envs(env.iter().copied());
        stage.ended(&mut command).await.expect("it ends")
    }

    /// Starts a deployment for which there is no server, or one to be ended at once.
    pub async fn up(&self, stage: &Stage, env: &[(&str, &str)]) -> Ran {
        let ran = self.run(stage, &["up", "--detach", "--dir", "deployment"], env).await;
        if ran.code == 0 {
            self.run(stage, &["down", "--dir", "deployment", "--remove"], env).await;
        }
        ran
    }

    fn ran(&self, ran: &Ran) -> Outcome {
        let trace = fs::read_to_string(self.trace()).unwrap_or_default();
        let evidence = format!("aviary ends with {}; what ran: {:?}", ran.code, trace.trim());
        Outcome::if_true(!trace.is_empty(), evidence)
    }
}

async fn relative_path(stage: &Stage) -> Outcome {
    let planted = Planted::new();
    planted.evil("mongod");
    let ran = planted.up(stage, &[("PATH", ".:/usr/bin:/bin")]).await;
    planted.ran(&ran)
}

/// The real Python, in a directory where no server is.
pub async fn only_python(planted: &Planted) -> Option<String> {
    let asked = ["-c", "import sys; print(sys.executable)"];
    let asked = tokio::process::Command::new("python3").args(asked).output().await.ok()?;
    let python = String::from_utf8(asked.stdout).unwrap();
    let bin = planted.path("bin");
    fs::create_dir_all(&bin).unwrap();
    std::os::unix::fs::symlink(Path::new(python.trim()), bin.join("python3")).unwrap();
    Some(bin.display().to_string())
}

async fn python_path(stage: &Stage) -> Outcome {
    let planted = Planted::new();
    let trace = planted.trace().display().to_string();
    planted.file("evil/sitecustomize.py", &format!("open({trace:?}, 'a').write('python')\n"));
    let Some(python) = only_python(&planted).await else { return Outcome::Untried("Python") };
    let evil = planted.path("evil").display().to_string();
    let ran = planted.up(stage, &[("PATH", &python), ("PYTHONPATH", &evil)]).await;
    planted.ran(&ran)
}

/// A compiler of the user's, which is run for a source.
async fn compile(
    stage: &Stage,
    planted: &Planted,
    source: (&str, &str),
    env: &[(&str, &str)],
) -> Outcome {
    planted.file(source.0, source.1);
    let ran = planted.run(stage, &["insert", source.0], env).await;
    assert!(planted.path("compiler-ran").exists(), "the compiler did not run: {ran:?}");
    planted.ran(&ran)
}

async fn node_options(stage: &Stage) -> Outcome {
    if tokio::process::Command::new("node").arg("--version").output().await.is_err() {
        return Outcome::Untried("node");
    }
    let planted = Planted::new();
    let (trace, known) = (planted.trace(), planted.path("compiler-ran"));
    let evil =
        format!("require('fs').appendFileSync({:?}, 'node');\n", trace.display().to_string());
    let evil = planted.file("evil.js", &evil);
    let asc = format!(
        "#!/usr/bin/env node\nrequire('fs').writeFileSync({:?}, ''); console.log('Version 0.99.0');\n",
        known.display().to_string()
    );
    let asc = planted.file("asc", &asc);
    let options = format!("--require {evil}");
    let path = std::env::var("PATH").unwrap();
    let env = [("AVIARY_ASC", asc.as_str()), ("NODE_OPTIONS", &options), ("PATH", &path)];
    let source = ("f.ts", "export function map(doc: Doc): void {}");
    compile(stage, &planted, source, &env).await
}

/// Stands in for zig, which looks for headers there first.
async fn cpath(stage: &Stage) -> Outcome {
    let planted = Planted::new();
    planted.file("include/stdint.h", "hostile");
    let (known, trace) = (planted.path("compiler-ran"), planted.trace());
    let zig = planted.program(
        "zig",
        &format!(
            "touch {}\ncase \"$*\" in *version*) echo 0.15.2; exit 0;; esac\n\
             [ -e \"$CPATH/stdint.h\" ] && cat \"$CPATH/stdint.h\" >> {}\nexit 1",
            known.display(),
            trace.display()
        ),
    );
    let include = planted.path("include").display().to_string();
    let env = [("AVIARY_ZIG", zig.as_str()), ("CPATH", &include)];
    compile(stage, &planted, ("f.c", "int x;"), &env).await
}

/// Stands in for rustup's rustc, which looks for the file in all directories above.
async fn rust_toolchain(stage: &Stage) -> Outcome {
    let planted = Planted::new();
    let evil = planted.evil("evil");
    planted.file("rust-toolchain.toml", "hostile");
    planted.file("lib/libcore-0.rlib", "");
    let known = planted.path("compiler-ran").display().to_string();
    planted.program(
        "bin/rustc",
        &format!(
            "touch {known}\ncase \"$*\" in *target-libdir*) echo {}; exit 0;; *--version*) echo rustc 1.99.0; exit 0;; \
             esac\ndir=$(pwd)\nwhile [ \"$dir\" != / ]; do\n\
             if [ -e \"$dir/rust-toolchain.toml\" ]; then {evil}; fi\ndir=$(dirname \"$dir\")\ndone\nexit 1",
            planted.path("lib").display()
        ),
    );
    let path = format!("{}:/usr/bin:/bin", planted.path("bin").display());
    // The cache is elsewhere, where nobody else can write.
    let cache = tempfile::tempdir().unwrap();
    let cache = cache.path().display().to_string();
    let source = ("f.rs", "use aviary::*;\nfn map(doc: Doc) {}");
    compile(stage, &planted, source, &[("PATH", &path), ("AVIARY_CACHE", &cache)]).await
}

const GO: (&str, &str) = ("f.go", "package main\nfunc Map(doc aviary.Doc, emit aviary.Emit) {}");

async fn learns(stage: &Stage) -> Outcome {
    let planted = Planted::new();
    let (known, trace) = (planted.path("compiler-ran"), planted.trace());
    let go = planted.program(
        "go",
        &format!(
            "touch {}\nenv | grep s3cret >> {}\n\
             case \"$*\" in *GOVERSION*) echo go1.99; exit 0;; esac\nexit 1",
            known.display(),
            trace.display()
        ),
    );
    let uri = "mongodb://user:s3cret@127.0.0.1:9/test?serverSelectionTimeoutMS=100";
    compile(stage, &planted, GO, &[("AVIARY_GO", &go), ("AVIARY_URI", uri)]).await
}

/// A daemon with a password, started by the flag that the version has for it.
async fn ps(stage: &Stage) -> Outcome {
    let help = stage.run(&["worker", "--help"]).await.expect("it ends").ok().stdout;
    let uri = "mongodb://user:s3cret@127.0.0.1:9/test";
    let file = stage.bed.file("uri", uri);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let file = file.display().to_string();
    let flag = if help.contains("--uri-file") { ["--uri-file", &file] } else { ["--uri", uri] };
    // As a flag it goes before what the environment says.
    let worker = stage.bed.spawn("seen", &["worker", flag[0], flag[1]], &[("AVIARY_URI", "")]);
    let line = fs::read_to_string(format!("/proc/{}/cmdline", worker.pid())).unwrap();
    let _ = worker.kill();
    Outcome::if_true(line.contains("s3cret"), line.replace('\0', " "))
}
