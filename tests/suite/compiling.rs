//! Modules are compiled by a child of the worker's, under limits, and what goes wrong there says whose fault it is.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::AVIARY;
use aviary::wasm::{
    CompileLimits, Compiler, Host, HostError, HostOptions, Instance, InstanceOptions, JS_GUEST,
    Module, Nowhere, Script, Stage, js_guest_digest, wat_to_wasm,
};

fn host(program: &Path, options: HostOptions) -> Host {
    let compiler = Compiler::Child(program.to_owned());
    Host::new(HostOptions { compiler, instances_max: 2, ..options }).unwrap()
}

/// The program itself, with this done before.
fn after(dir: &Path, script: &str) -> PathBuf {
    let path = dir.join("program");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\nexec {AVIARY} \"$@\"\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    path
}

/// A module whose map traps unless it is given this number.
fn small(number: i32) -> Vec<u8> {
    wat_to_wasm(&format!(
        r#"(module (memory (export "memory") 1) (func (export "aviary_abi_v1"))
            (func (export "aviary_alloc") (param i32) (result i32) (i32.const 8))
            (func (export "map") (param i32 i32)
                (if (i32.ne (i32.load (local.get 0)) (i32.const {number})) (then unreachable))))"#
    ))
    .unwrap()
}

fn load(host: &Host, wasm: &[u8]) -> Result<Module, HostError> {
    host.load(&blake3::hash(wasm), wasm)
}

fn run(module: &Module, number: i32) {
    let mut instance = Instance::new(module, InstanceOptions::default(), Nowhere).unwrap();
    instance.call(Stage::Map, &number.to_le_bytes()).unwrap();
}

fn lines(path: &Path) -> usize {
    std::fs::read_to_string(path).unwrap_or_default().lines().count()
}

#[test]
fn a_child_compiles_once_and_what_it_made_runs() {
    let dir = tempfile::tempdir().unwrap();
    let said = dir.path().join("said");
    let program = after(dir.path(), &format!("echo begun >> {}", said.display()));
    let at = || HostOptions { cache_dir: Some(dir.path().join("cache")), ..HostOptions::default() };
    let first = host(&program, at());
    run(&load(&first, &small(7)).unwrap(), 7);
    assert_eq!((first.stats().compiled, lines(&said)), (1, 1));
    // Of what is compiled already nobody starts a child.
    let second = host(&dir.path().join("no such program"), at());
    run(&load(&second, &small(7)).unwrap(), 7);
    assert_eq!((second.stats().compiled, second.stats().disk_hits), (0, 1));
    // The interpreter is a module like others.
    let js = first.load(js_guest_digest(), JS_GUEST).unwrap();
    let script = Script { map: Some("function () {}".to_owned()), ..Script::default() };
    let options = InstanceOptions { script: Some(script), ..InstanceOptions::default() };
    Instance::new(&js, options, Nowhere).unwrap();
    // Where there is no room for a pool, other code is needed.
    let scarce = host(&program, HostOptions { instances_max: 100_000, ..HostOptions::default() });
    run(&load(&scarce, &small(8)).unwrap(), 8);
}

/// What exceeds the child's limits does so everywhere, and is not tried again.
#[test]
fn a_module_that_takes_too_much_is_refused_by_the_limit_it_exceeds() {
    let dir = tempfile::tempdir().unwrap();
    let said = dir.path().join("said");
    let program = after(dir.path(), &format!("echo begun >> {}", said.display()));
    let cases = [
        (
            CompileLimits { memory_bytes: 1, ..CompileLimits::default() },
            "memory for compiling in bytes",
        ),
        (
            CompileLimits { cpu_seconds: 1, ..CompileLimits::default() },
            "processor time for compiling in seconds",
        ),
    ];
    let program_bytes = std::fs::metadata(AVIARY).unwrap().len();
    for (n, (limits, expected)) in cases.into_iter().enumerate() {
        // With room for itself and little more.
        let memory_bytes = match limits.memory_bytes {
            1 => program_bytes + (64 << 20),
            plenty => plenty,
        };
        let compile = CompileLimits { memory_bytes, ..limits };
        let host = host(&program, HostOptions { compile, ..HostOptions::default() });
        let heavy = heavy();
        for _ in 0..2 {
            match load(&host, &heavy).unwrap_err() {
                HostError::CompileLimit { what, .. } => assert_eq!(what, expected),
                other => panic!("{expected}: {other}"),
            }
        }
        assert_eq!(lines(&said), n + 1);
    }
}

/// A module that no limit on operators refuses. Of all operators, calls take the compiler most memory; so many take more
/// than a second.
fn heavy() -> Vec<u8> {
    let calls = format!("(func {})", "call $nothing ".repeat(60_000));
    wat_to_wasm(&format!(
        r#"(module (memory (export "memory") 1) (func $nothing (export "aviary_abi_v1"))
            (func (export "aviary_alloc") (param i32) (result i32) (i32.const 8))
            (func (export "map") (param i32 i32)) {})"#,
        calls.repeat(16)
    ))
    .unwrap()
}

/// What another hand does to the child says nothing of the module, which is tried again.
#[test]
fn a_child_that_is_killed_or_gets_no_processor_is_the_machines_fault() {
    let dir = tempfile::tempdir().unwrap();
    let once = dir.path().join("once");
    let hurt = |what: &str| {
        let _ = std::fs::remove_file(&once);
        let once = once.display();
        after(dir.path(), &format!("[ -e {once} ] || {{ : > {once}; {what}; }}"))
    };
    let time = Duration::from_millis(300);
    let cases = [
        (
            "kill -9 $$",
            CompileLimits::default(),
            "was killed, as systems do that are short of memory",
        ),
        ("kill -15 $$", CompileLimits::default(), "was ended by signal 15"),
        (
            "exec /bin/sleep 1000",
            CompileLimits { time, ..CompileLimits::default() },
            "too little of the processors",
        ),
    ];
    for (n, (what, compile, expected)) in cases.into_iter().enumerate() {
        let program = hurt(what);
        let number = i32::try_from(n).unwrap();
        let short = host(&program, HostOptions { compile, ..HostOptions::default() });
        let error = load(&short, &small(number)).unwrap_err();
        assert!(matches!(error, HostError::CannotCompile { .. }), "{what}: {error}");
        assert!(error.to_string().contains(expected), "{what}: {error}");
        let enough = host(&program, HostOptions::default());
        run(&load(&enough, &small(number)).unwrap(), number);
        if compile == CompileLimits::default() {
            run(&load(&short, &small(number)).unwrap(), number);
        }
    }
    let none = host(&dir.path().join("no such program"), HostOptions::default());
    let error = load(&none, &small(1)).unwrap_err();
    assert!(matches!(error, HostError::CannotCompile { .. }), "{error}");
}

/// The first child waits until it may go on. Others are compiled meanwhile.
#[test]
fn a_module_that_takes_long_does_not_hold_up_others() {
    let dir = tempfile::tempdir().unwrap();
    let (first, go_on) = (dir.path().join("first"), dir.path().join("go-on"));
    let (shown, until) = (first.display(), go_on.display());
    let wait = format!(
        "if [ ! -e {shown} ]; then : > {shown}; while [ ! -e {until} ]; do /bin/sleep 0.02; done; fi"
    );
    let host = host(&after(dir.path(), &wait), HostOptions::default());
    std::thread::scope(|scope| {
        let long = scope.spawn(|| load(&host, &small(1)));
        while !first.exists() {
            std::thread::yield_now();
        }
        run(&load(&host, &small(2)).unwrap(), 2);
        assert!(!long.is_finished());
        std::fs::write(&go_on, "").unwrap();
        run(&long.join().unwrap().unwrap(), 1);
    });
}

#[test]
fn the_child_takes_nothing_but_a_module() {
    let ended = |wasm: &'static [u8]| {
        use std::io::Write;
        let mut child = std::process::Command::new(AVIARY)
            .args(["compile-module", "--memory-bytes", "4000000000", "--cpu-seconds", "60"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(wasm).unwrap();
        child.wait_with_output().unwrap()
    };
    for nonsense in [&b""[..], b"\0asm", b"(module", b"\0asm\x0d\0\x01\0"] {
        let ran = ended(nonsense);
        assert_eq!((ran.status.code(), ran.stdout.len()), (Some(3), 0), "{nonsense:?}: {ran:?}");
        assert!(!ran.stderr.is_empty());
    }
}
