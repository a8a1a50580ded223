//! AssemblyScript: a generated entry imports the user's files and exports the stages that they have.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::find::{self, Candidate, Found};
use super::sources::write;
use super::{Job, Language};
use crate::error::{Error, Result};

/// The package `aviary`.
pub(super) const SDK: &[(&str, &str)] = &[
    ("bytes.ts", include_str!("../../guests/as/aviary/bytes.ts")),
    ("glue.ts", include_str!("../../guests/as/aviary/glue.ts")),
    ("host.ts", include_str!("../../guests/as/aviary/host.ts")),
    ("index.ts", include_str!("../../guests/as/aviary/index.ts")),
    ("sums.ts", include_str!("../../guests/as/aviary/sums.ts")),
    ("value.ts", include_str!("../../guests/as/aviary/value.ts")),
    ("write.ts", include_str!("../../guests/as/aviary/write.ts")),
];

const VERSION_MIN: (u32, u32) = (0, 28);

/// A function of the user's, its export, and what that does; `JOB` is the user's file.
const STAGES: &[(&str, &str, &str)] = &[
    (
        "map",
        "map(ptr: usize, len: u32)",
        "beginMap(ptr, len); while (next()) JOB.map(doc()); endMap();",
    ),
    (
        "combine",
        "combine(ptr: usize, len: u32)",
        "begin(ptr, len); while (next()) result(JOB.combine(key(), values()));",
    ),
    (
        "reduce",
        "reduce(ptr: usize, len: u32)",
        "begin(ptr, len); while (next()) result(JOB.reduce(key(), values()));",
    ),
    (
        "finalize",
        "finalize(ptr: usize, len: u32)",
        "begin(ptr, len); while (next()) result(JOB.finalize(key(), value()));",
    ),
    (
        "reduceBegin",
        "reduce_begin(ptr: usize, len: u32)",
        "begin(ptr, len); while (next()) JOB.reduceBegin(keptKey());",
    ),
    (
        "reduceNext",
        "reduce_next(ptr: usize, len: u32)",
        "begin(ptr, len); while (next()) JOB.reduceNext(values());",
    ),
    ("reduceEnd", "reduce_end()", "result(JOB.reduceEnd());"),
];

/// Finds the compiler: also where npm puts it for the project that the files belong to.
pub(super) fn find(dir: &Path) -> Found {
    let local = "node_modules/.bin/asc";
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf());
    let mut candidates: Vec<Candidate> = dir
        .ancestors()
        .map(|dir| dir.join(local))
        .filter(|program| program.is_file())
        .map(|program| Candidate::at(program).checked())
        .collect();
    candidates.extend(find::on_path("asc"));
    candidates.extend(find::in_toolchains(local, &[]));
    let usable = |candidate: &Candidate| {
        let said = candidate.says(&["--version"]).ok_or(None)?;
        match said.strip_prefix("Version ").and_then(find::version) {
            Some(version) if version >= VERSION_MIN => {
                Ok(said.replace("Version", "assemblyscript"))
            }
            _ => Err(Some(format!("is {said}"))),
        }
    };
    find::first(Language::AssemblyScript, candidates, usable)
}

/// Compiles.
pub(super) fn build(job: &Job<'_>) -> Result<PathBuf> {
    job.place(job.dir)?;
    for (name, text) in SDK {
        // The compiler looks here before it looks into a `node_modules` of any directory above.
        write(&job.dir.join("node_modules/aviary").join(name), text)?;
    }
    write(&job.dir.join("aviary_job.ts"), &entry(job)?)?;
    let mut asc = job.tool.command();
    asc.args(["aviary_job.ts", "-o", "aviary.wasm", "-O3", "--runtime", "minimal"])
        .args(["--exportStart", "_initialize", "--use", "abort=~lib/aviary/host/aborted"])
        .args([
            "--use",
            "seed=~lib/aviary/host/seeded",
            "--use",
            "console=~lib/aviary/host/console",
        ])
        .env("NO_COLOR", "1");
    job.run(&mut asc, |line| !line.starts_with("FAILURE ")).map_err(|error| match error {
        Error::Refused { why, hint } if hint.is_empty() => {
            Error::Refused { why, hint: DIALECT.into() }
        }
        error => error,
    })?;
    Ok(job.dir.join("aviary.wasm"))
}

/// What the ending of the file does not say.
const DIALECT: &str = ".ts is compiled as AssemblyScript, which has TypeScript's syntax but its own library: no regular \
                       expressions, no closures, no any; for those write JavaScript (.js)";

fn entry(job: &Job<'_>) -> Result<String> {
    let mut text = String::from(
        "import { begin, beginMap, doc, endMap, key, keptKey, next, result, value, values } from \"aviary/glue\";\n\
         export { aviary_abi_v1, aviary_alloc, aviary_sums } from \"aviary/glue\";\n",
    );
    let mut exports = String::new();
    for (index, file) in job.sources.compiled().enumerate() {
        let stem = file.name.trim_end_matches(".ts");
        let _ = writeln!(text, "import * as job{index} from \"./{stem}\";");
        let of_file = |name: &str| {
            let defined = job.sources.defined("function", name);
            defined.is_some_and(|defined| defined.file == file)
        };
        for (name, export, body) in STAGES.iter().filter(|(name, ..)| of_file(name)) {
            let body = body.replace("JOB", &format!("job{index}"));
            let _ = writeln!(exports, "export function {export}: void {{ {body} }} // {name}");
        }
    }
    if exports.is_empty() {
        return Err(Error::refused(
            format!("{} defines no function of a job", job.sources.names()),
            "write `export function map(doc: Doc): void` or `export function reduce(key: Value, values: Values): f64`",
        ));
    }
    Ok(text + &exports)
}
