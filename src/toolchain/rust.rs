//! Rust: the user's files import the crate `aviary`; an export is appended to a file for each function that
//! it defines, so that functions need be neither public nor listed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::find::{self, Candidate, Found};
use super::sources::write;
use super::{Job, Language, scan};
use crate::error::{Error, Result};

/// The crate `aviary`.
pub(super) const SDK: &[(&str, &str)] = &[
    ("lib.rs", include_str!("../../guests/rust/lib.rs")),
    ("glue.rs", include_str!("../../guests/rust/glue.rs")),
    ("read.rs", include_str!("../../guests/rust/read.rs")),
    ("sums.rs", include_str!("../../guests/rust/sums.rs")),
    ("write.rs", include_str!("../../guests/rust/write.rs")),
];

const VERSION_MIN: (u32, u32) = (1, 91);
pub(super) const TARGET: &str = "wasm32-unknown-unknown";

/// What each function is called by, given `len`.
const STAGES: &[(&str, &str)] = &[
    ("map", "(_: u32, len: u32) { glue::map(len, super::AVIARY_SUMS, |doc| super::map(doc)) }"),
    ("combine", "(_: u32, len: u32) { glue::each(len, |doc| glue::reduce(doc, super::combine)) }"),
    ("reduce", "(_: u32, len: u32) { glue::each(len, |doc| glue::reduce(doc, super::reduce)) }"),
    (
        "reduce_begin",
        "(_: u32, len: u32) { glue::each(len, |doc| glue::reduce_begin(doc, super::reduce_begin)) }",
    ),
    (
        "reduce_next",
        "(_: u32, len: u32) { glue::each(len, |doc| glue::reduce_next(doc, super::reduce_next)) }",
    ),
    ("reduce_end", "() { glue::reduce_end(super::reduce_end) }"),
    (
        "finalize",
        "(_: u32, len: u32) { glue::each(len, |doc| glue::finalize(doc, super::finalize)) }",
    ),
];

/// Finds a compiler that has the target's standard library.
pub(super) fn find() -> Found {
    // A compiler of a distribution has its own libraries only; those of the target lie here then.
    let mut candidates = find::on_path("rustc");
    if let Some(dir) = find::toolchains_dir() {
        let sysroot = dir.join("rust").display().to_string();
        candidates.extend(find::in_toolchains("rust/bin/rustc", &["--sysroot", &sysroot]));
    }
    let usable = |candidate: &Candidate| {
        let said = candidate.says(&["--version"]).ok_or(None)?;
        let version = said.strip_prefix("rustc ").and_then(find::version);
        if version.is_none_or(|version| version < VERSION_MIN) {
            return Err(Some(format!("is {said}")));
        }
        let libraries = candidate.says(&["--print", "target-libdir", "--target", TARGET]);
        let core = |dir: &String| {
            let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
            files.into_iter().any(|file| file.file_name().to_string_lossy().starts_with("libcore-"))
        };
        match libraries.filter(core) {
            Some(_) => Ok(said),
            None => Err(Some(format!("({said}) has no {TARGET}"))),
        }
    };
    find::first(Language::Rust, candidates, usable).map(without_rustup)
}

/// The compiler that rustup would run. Rustup itself obeys a `rust-toolchain.toml` in any directory above the one
/// it is run in, whoever put it there.
fn without_rustup(tool: find::Tool) -> find::Tool {
    let is_rustup = std::fs::canonicalize(&tool.program)
        .is_ok_and(|program| program.file_name().is_some_and(|name| name == "rustup"));
    let real = if is_rustup { tool.says(&["--print", "sysroot"]) } else { None };
    match real.map(|sysroot| Path::new(&sysroot).join("bin/rustc")).filter(|rustc| rustc.is_file())
    {
        Some(program) => find::Tool { program, ..tool },
        None => tool,
    }
}

/// Compiles.
pub(super) fn build(job: &Job<'_>) -> Result<PathBuf> {
    for (name, text) in SDK {
        write(&job.dir.join("aviary").join(name), text)?;
    }
    let mut modules = String::from(
        "#[unsafe(export_name = \"aviary_abi_v1\")]\npub extern \"C\" fn abi() {}\n\n\
         #[unsafe(export_name = \"aviary_alloc\")]\n\
         pub extern \"C\" fn alloc(len: u32) -> *mut u8 { aviary::glue::alloc(len) }\n\n\
         #[unsafe(export_name = \"aviary_sums\")]\n\
         pub extern \"C\" fn sums(wanted: i32) { aviary::glue::sums(wanted) }\n\n",
    );
    let mut any = false;
    for (index, file) in job.sources.compiled().enumerate() {
        let exports = exports(job, &file.text);
        any |= exports.is_some();
        let exports = exports.unwrap_or_default();
        write(&job.dir.join(&file.name), &format!("{}\n{exports}", file.text))?;
        let _ =
            writeln!(modules, "#[path = {:?}]\nmod {};", file.name, module_name(&file.name, index));
    }
    if !any {
        return Err(Error::refused(
            format!("{} defines no function of a job", job.sources.names()),
            "write `fn map(doc: Doc)` or `fn reduce(key: Value, values: Values) -> f64`",
        ));
    }
    write(&job.dir.join("aviary_job.rs"), &modules)?;
    let rlib = job.dir.join("libaviary.rlib");
    let mut library = rustc(job);
    library
        .args(["--crate-name", "aviary", "--crate-type", "rlib", "aviary/lib.rs", "-o"])
        .arg(&rlib);
    job.run(&mut library, readable)?;
    let out = job.dir.join("aviary.wasm");
    let mut module = rustc(job);
    module
        .args(["--crate-name", "aviary_job", "--crate-type", "cdylib", "aviary_job.rs"])
        .args(["--extern", "aviary=libaviary.rlib", "-A", "warnings", "-o"])
        .arg(&out);
    job.run(&mut module, readable)?;
    Ok(out)
}

fn rustc(job: &Job<'_>) -> std::process::Command {
    let mut rustc = job.tool.command();
    rustc
        .args(["--edition", "2024", "--target", TARGET, "--color", "never"])
        .args(["-C", "opt-level=3", "-C", "panic=abort", "-C", "codegen-units=1"])
        // Function names stay, for the stack of a trap.
        .args(["-C", "strip=debuginfo"]);
    rustc
}

/// What the compiler says about a user's file, without how to ask for more.
fn readable(line: &str) -> bool {
    !line.starts_with("error: aborting due to")
        && !line.starts_with("For more information about")
        && !line.starts_with("Some errors have detailed explanations")
}

/// The module of a file. Files may use each other's public items by it.
fn module_name(file: &str, index: usize) -> String {
    let stem = Path::new(file).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let plain = stem.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && stem.starts_with(|c: char| c.is_ascii_lowercase());
    // A keyword would do as a raw identifier, but nobody would guess it.
    if plain
        && !matches!(
            stem,
            "mod" | "fn" | "use" | "type" | "match" | "move" | "loop" | "self" | "super" | "crate"
        )
    {
        stem.to_owned()
    } else {
        format!("file_{index}")
    }
}

/// The exports of the functions that a file defines.
fn exports(job: &Job<'_>, text: &str) -> Option<String> {
    let defined = scan::functions(job.sources.language, text, "fn");
    let mut exports = String::from(
        "use aviary::glue::defaults::*;\nmod aviary_exports {\n    use aviary::glue;\n",
    );
    let mut any = false;
    for (name, body) in STAGES {
        if defined.iter().any(|function| function.name == *name) {
            any = true;
            let _ = writeln!(
                exports,
                "    #[unsafe(export_name = \"{name}\")]\n    extern \"C\" fn {name}{body}"
            );
        }
    }
    exports.push_str("}\n");
    any.then_some(exports)
}
