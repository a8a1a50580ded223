//! Which compilers are there, and how they are used.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Mutex;

use aviary::toolchain::{self, Language};

use crate::common::{root, run};

/// Whether a language can be compiled here. Where not, says so, or fails in CI.
pub fn there(language: Language) -> bool {
    if toolchain::compiler(language).is_some() {
        return true;
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "{} is not here; install it: {}",
        language.needs(),
        language.install()
    );
    static SAID: Mutex<Vec<Language>> = Mutex::new(Vec::new());
    let mut said = SAID.lock().expect("a lock");
    if said.contains(&language) {
        return false;
    }
    said.push(language);
    // Past the harness, which keeps what a passing test prints to itself.
    writeln!(
        std::io::stderr(),
        "skipped: functions in {language}, which take {}; install it: {}",
        language.needs(),
        language.install()
    )
    .expect("written");
    false
}

/// An example's file.
pub fn example(language: Language, name: &str) -> PathBuf {
    let dir = match language {
        Language::Cpp => "cpp",
        other => other.name(),
    };
    let extension = language.extensions()[0];
    root().join("examples").join(dir).join(format!("{name}.{extension}"))
}

/// A compiler that keeps account of its runs compiles one source once, a changed one again.
pub async fn what_was_compiled_once_is_not_compiled_again() {
    if !there(Language::Zig) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (log, wrapper) = (dir.path().join("log"), dir.path().join("zig"));
    let real = match std::env::var("AVIARY_ZIG") {
        Ok(program) => program,
        Err(_) => {
            let own =
                aviary_testcontainers::dirs::cache_path().unwrap().join("toolchains/bin/python3");
            let python = if own.is_file() { own } else { "python3".into() };
            format!("{} -m ziglang", python.display())
        }
    };
    let script = format!("#!/bin/sh\necho \"$1\" >> {}\nexec {real} \"$@\"\n", log.display());
    std::fs::write(&wrapper, script).unwrap();
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let docs = root().join("examples/orders.jsonl");
    let job = dir.path().join("job.zig");
    let source = std::fs::read_to_string(example(Language::Zig, "sum_by_customer")).unwrap();
    let env = [
        ("AVIARY_ZIG".to_owned(), wrapper.display().to_string()),
        ("AVIARY_CACHE".to_owned(), dir.path().join("cache").display().to_string()),
    ];
    let args = [
        "try".to_owned(),
        "--docs".to_owned(),
        docs.display().to_string(),
        "--module".to_owned(),
        job.display().to_string(),
    ];
    let mut outputs = Vec::new();
    for text in [&source, &source, &source.replace("//!", "//! Changed:")] {
        std::fs::write(&job, text).unwrap();
        outputs.push(run(&args, &env).await.ok().stdout);
    }
    assert!(outputs.iter().all(|output| *output == outputs[0] && output.lines().count() == 3));
    let runs = std::fs::read_to_string(&log).unwrap();
    assert_eq!(runs.lines().filter(|line| *line == "build-exe").count(), 2, "{runs}");
    // A kept module that was damaged is made again.
    for entry in std::fs::read_dir(dir.path().join("cache/built")).unwrap() {
        std::fs::write(entry.unwrap().path(), "damaged").unwrap();
    }
    assert_eq!(run(&args, &env).await.ok().stdout, outputs[0]);
    let runs = std::fs::read_to_string(&log).unwrap();
    assert_eq!(runs.lines().filter(|line| *line == "build-exe").count(), 3, "{runs}");
}

/// Whoever compiles the same source with the same compiler gets the same function, wherever the file lies.
pub fn equal_sources_are_equal_modules() {
    for language in
        [Language::Go, Language::Rust, Language::C, Language::Zig, Language::AssemblyScript]
    {
        if !there(language) {
            continue;
        }
        let path = example(language, "sum_by_customer");
        let text = std::fs::read_to_string(&path).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join(path.file_name().unwrap());
        // A comment at the end makes it another source, which was not compiled before.
        std::fs::write(&copy, format!("{text}// {}\n", dir.path().display())).unwrap();
        let [one, other] =
            [&path, &copy].map(|path| toolchain::build(std::slice::from_ref(path)).unwrap());
        assert!(one.module == other.module, "{language}");
        assert_eq!(one.sources[0].text, text);
        assert_eq!(one.language, language);
        assert!(one.toolchain.contains(|c: char| c.is_ascii_digit()), "{}", one.toolchain);
    }
}

pub fn streaming_functions_have_their_three_exports() {
    for language in Language::ALL {
        if language == Language::Cpp || !there(language) {
            continue;
        }
        let built = toolchain::build(&[example(language, "median")]).unwrap();
        let mut exports = exports(&built.module);
        exports.retain(|name| name.starts_with("reduce") || name == "map" || name == "combine");
        exports.sort();
        assert_eq!(exports, ["map", "reduce_begin", "reduce_end", "reduce_next"], "{language}");
    }
}

fn exports(module: &[u8]) -> Vec<String> {
    use wasmtime::wasmparser::{Parser, Payload};
    let mut names = Vec::new();
    for payload in Parser::new(0).parse_all(module) {
        if let Payload::ExportSection(section) = payload.unwrap() {
            names.extend(section.into_iter().map(|export| export.unwrap().name.to_owned()));
        }
    }
    names
}
