//! C, C++ and Zig, all compiled by zig. The headers' macros define the exports themselves; in Zig a
//! generated root names the functions that the user's files have.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use super::find::{self, Candidate, Found};
use super::sources::write;
use super::{Job, Language};
use crate::error::{Error, Result};

/// What the user's files include and import.
pub(super) const SDK: &[(&str, &str)] = &[
    ("aviary.h", include_str!("../../guests/c/aviary.h")),
    ("aviary.hpp", include_str!("../../guests/c/aviary.hpp")),
    ("aviary.zig", include_str!("../../guests/zig/aviary.zig")),
    ("aviary_sums.zig", include_str!("../../guests/zig/aviary_sums.zig")),
];

/// Zig changes from version to version; this one is tried.
const VERSION: (u32, u32) = (0, 15);
/// The functions that the library for Zig looks for in the root.
const ZIG_FUNCTIONS: [&str; 7] =
    ["map", "combine", "reduce", "finalize", "reduceBegin", "reduceNext", "reduceEnd"];
/// What it looks for there besides.
const ZIG_OPTIONS: &str = "aviary_options";

/// Finds zig.
pub(super) fn find() -> Found {
    let mut candidates = find::on_path("zig");
    candidates.extend(find::in_python_package("ziglang", "zig"));
    let usable = |candidate: &Candidate| {
        let said = candidate.says(&["version"]).ok_or(None)?;
        match find::version(&said) {
            Some(VERSION) => Ok(format!("zig {said}")),
            _ => Err(Some(format!("is {said}"))),
        }
    };
    find::first(Language::C, candidates, usable)
}

/// Compiles.
pub(super) fn build(job: &Job<'_>) -> Result<PathBuf> {
    job.place(job.dir)?;
    for (name, text) in SDK {
        write(&job.dir.join(name), text)?;
    }
    let out = job.dir.join("aviary.wasm");
    let mut zig = job.tool.command();
    zig.env("ZIG_LOCAL_CACHE_DIR", job.dir.join(".zig-cache"));
    if std::env::var_os("HOME").is_none() && std::env::var_os("ZIG_GLOBAL_CACHE_DIR").is_none() {
        zig.env("ZIG_GLOBAL_CACHE_DIR", find::compiler_cache("zig", job.dir));
    }
    if job.sources.language == Language::Zig {
        in_zig(job, &mut zig)?;
    } else {
        in_c(job, &mut zig);
    }
    job.run(&mut zig, readable)?;
    Ok(out)
}

fn in_c(job: &Job<'_>, zig: &mut Command) {
    let cpp = job.sources.language == Language::Cpp;
    if cpp {
        zig.args(["c++", "-std=c++20", "-fno-exceptions", "-fno-rtti"]);
    } else {
        zig.args(["cc", "-std=c2x"]);
    }
    zig.args(["-o", "aviary.wasm", "-I.", "-target", "wasm32-wasi", "-mexec-model=reactor"])
        .args(["-O3", "-s", "-Wl,-z,stack-size=1048576"])
        .args(job.sources.compiled().map(|file| file.name.as_str()));
}

fn in_zig(job: &Job<'_>, zig: &mut Command) -> Result<()> {
    let mut root = String::from(
        "const aviary = @import(\"aviary\");\n\
         pub const panic = aviary.panic;\n\
         pub const std_options: @import(\"std\").Options = .{ .logFn = aviary.logFn };\n\
         comptime {\n    _ = aviary;\n}\n",
    );
    let mut any = false;
    for name in ZIG_FUNCTIONS {
        if let Some(defined) = job.sources.defined("fn", name) {
            any = true;
            let _ = writeln!(root, "pub const {name} = @import(\"{}\").{name};", defined.file.name);
        }
    }
    if !any {
        return Err(Error::refused(
            format!("{} defines no function of a job", job.sources.names()),
            "write `pub fn map(doc: aviary.Doc) void` or `pub fn reduce(key: aviary.Value, values: aviary.Values) f64`",
        ));
    }
    if let Some(defined) = job.sources.defined("const", ZIG_OPTIONS) {
        let file = &defined.file.name;
        let _ = writeln!(root, "pub const {ZIG_OPTIONS} = @import(\"{file}\").{ZIG_OPTIONS};");
    }
    write(&job.dir.join("aviary_root.zig"), &root)?;
    zig.args(["build-exe", "-target", "wasm32-freestanding", "-O", "ReleaseSafe", "-fstrip"])
        .args(["-fno-entry", "-rdynamic", "--stack", "65536", "--dep", "aviary"])
        .args(["-Mroot=aviary_root.zig", "-Maviary=aviary.zig", "-femit-bin=aviary.wasm"])
        .args(["--color", "off"]);
    Ok(())
}

/// What the compiler says about a user's file, without the counts at the end.
fn readable(line: &str) -> bool {
    !line.ends_with("errors generated.") && !line.ends_with("error generated.")
}
