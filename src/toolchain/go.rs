//! Go: the user's files are `package main` and import `aviary`; generated exports call the functions
//! that they define.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::find::{self, Candidate, Found};
use super::sources::write;
use super::{Job, Language};
use crate::error::{Error, Result};

/// The package `aviary`.
pub(super) const SDK: &[(&str, &str)] = &[
    ("glue.go", include_str!("../../guests/go/glue.go")),
    ("host.go", include_str!("../../guests/go/host.go")),
    ("read.go", include_str!("../../guests/go/read.go")),
    ("sums.go", include_str!("../../guests/go/sums.go")),
    ("write.go", include_str!("../../guests/go/write.go")),
];

const VERSION_MIN: (u32, u32) = (1, 24);

/// A function of the user's, its type, and the export that calls it.
struct Stage {
    function: &'static str,
    signature: &'static str,
    export: &'static str,
}

const STAGES: &[Stage] = &[
    Stage {
        function: "Map",
        signature: "func(aviary.Doc, aviary.Emit)",
        export: "//go:wasmexport map\nfunc aviaryMap(_, size uint32) { aviary.RunMap(size, Map) }\n\n\
                 //go:wasmexport aviary_sums\nfunc aviarySums(wanted int32) { aviary.WantSums(wanted) }",
    },
    Stage {
        function: "Combine",
        signature: "func(aviary.Value, []aviary.Value) any",
        export: "//go:wasmexport combine\nfunc aviaryCombine(_, size uint32) { aviary.RunReduce(size, Combine) }",
    },
    Stage {
        function: "Reduce",
        signature: "func(aviary.Value, []aviary.Value) any",
        export: "//go:wasmexport reduce\nfunc aviaryReduce(_, size uint32) { aviary.RunReduce(size, Reduce) }",
    },
    Stage {
        function: "ReduceBegin",
        signature: "func(aviary.Value)",
        export: "//go:wasmexport reduce_begin\nfunc aviaryReduceBegin(_, size uint32) { aviary.RunReduceBegin(size, ReduceBegin) }",
    },
    Stage {
        function: "ReduceNext",
        signature: "func(aviary.Value)",
        export: "//go:wasmexport reduce_next\nfunc aviaryReduceNext(_, size uint32) { aviary.RunReduceNext(size, ReduceNext) }",
    },
    Stage {
        function: "ReduceEnd",
        signature: "func() any",
        export: "//go:wasmexport reduce_end\nfunc aviaryReduceEnd() { aviary.RunReduceEnd(ReduceEnd) }",
    },
    Stage {
        function: "Finalize",
        signature: "func(aviary.Value, aviary.Value) any",
        export: "//go:wasmexport finalize\nfunc aviaryFinalize(_, size uint32) { aviary.RunFinalize(size, Finalize) }",
    },
];

/// Finds Go.
pub(super) fn find() -> Found {
    let mut candidates = find::on_path("go");
    candidates.extend(find::in_toolchains("bin/go", &[]));
    candidates.push(Candidate::at("/usr/local/go/bin/go"));
    let usable = |candidate: &Candidate| {
        let said = candidate.says(&["env", "GOVERSION"]).ok_or(None)?;
        match find::version(&said) {
            Some(version) if version >= VERSION_MIN => Ok(said),
            _ => Err(Some(format!("is {said}"))),
        }
    };
    find::first(Language::Go, candidates, usable)
}

/// Compiles.
pub(super) fn build(job: &Job<'_>) -> Result<PathBuf> {
    job.place(job.dir)?;
    for (name, text) in SDK {
        write(&job.dir.join("aviary").join(name), text)?;
    }
    write(&job.dir.join("aviary/go.mod"), "module aviary\n\ngo 1.24\n")?;
    write(
        &job.dir.join("go.mod"),
        "module job\n\ngo 1.24\n\nrequire aviary v0.0.0\n\nreplace aviary => ./aviary\n",
    )?;
    write(&job.dir.join("aviary_exports.go"), &exports(job)?)?;
    let out = job.dir.join("aviary.wasm");
    let mut go = job.tool.command();
    go.args(["build", "-trimpath", "-buildvcs=false", "-buildmode=c-shared"])
        // No build id: equal sources are to be equal bytes.
        .args(["-ldflags=-s -w -buildid=", "-o"])
        .arg(&out)
        .arg(".")
        .envs([("GOOS", "wasip1"), ("GOARCH", "wasm"), ("CGO_ENABLED", "0"), ("GO111MODULE", "on")])
        .envs([("GOFLAGS", ""), ("GOWORK", "off"), ("GOPROXY", "off"), ("GOTOOLCHAIN", "local")]);
    if std::env::var_os("HOME").is_none() && std::env::var_os("GOCACHE").is_none() {
        go.env("GOCACHE", find::compiler_cache("go-build", job.dir));
    }
    // "# job" only says which package it is, and what is wrong with our file is said of the user's too.
    job.run(&mut go, |line| {
        !line.starts_with("# ")
            && !line.starts_with("./aviary_exports.go")
            && !line.trim_start().starts_with("go get ")
    })
    .map_err(offline)?;
    Ok(out)
}

/// Go's advice would be to fetch the package, which changes nothing here.
fn offline(error: Error) -> Error {
    match error {
        Error::Refused { why, hint } if why.contains("no required module provides package") => {
            Error::Refused {
                why: why.replace("; to add it:", ""),
                hint: if hint.is_empty() { OFFLINE.to_owned() } else { hint },
            }
        }
        error => error,
    }
}

/// What to do about a package of somebody else's.
const OFFLINE: &str = "jobs are compiled offline, with Go's own packages and aviary: copy the code that you need into a \
                       .go file of the job";

/// The exports of the functions that there are. A line directive puts the check of a function's type where
/// the user wrote the function, so that the compiler names that place.
fn exports(job: &Job<'_>) -> Result<String> {
    let mut text = String::from("package main\n\nimport (\n\t\"aviary\"\n\t\"unsafe\"\n)\n\n");
    if job.sources.defined("func", "main").is_none() {
        text.push_str("func main() {}\n\n");
    }
    text.push_str(
        "//go:wasmexport aviary_abi_v1\nfunc aviaryABI() {}\n\n\
         //go:wasmexport aviary_alloc\nfunc aviaryAlloc(size uint32) unsafe.Pointer { return aviary.Alloc(size) }\n\n",
    );
    let mut checks = String::new();
    let mut any = false;
    for stage in STAGES {
        let Some(defined) = job.sources.defined("func", stage.function) else { continue };
        any = true;
        let _ = writeln!(text, "{}\n", stage.export);
        let _ = writeln!(
            checks,
            "//line {}:{}\nvar _ {} = {}",
            defined.file.name, defined.line, stage.signature, stage.function
        );
    }
    if !any {
        return Err(Error::refused(
            format!("{} defines no function of a job", job.sources.names()),
            "write `func Map(doc aviary.Doc, emit aviary.Emit)` or `func Reduce(key aviary.Value, values []aviary.Value) any`",
        ));
    }
    // Last, since everything behind a line directive is taken for the user's.
    Ok(text + &checks)
}
