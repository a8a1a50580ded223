//! `aviary new`: a directory with working functions, documents to try them on, and the commands.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::args::Global;
use crate::error::{Error, Result};
use crate::terminal::tell;
use crate::toolchain::Language;

#[derive(Debug, Args)]
pub(super) struct NewArgs {
    /// The language of the functions.
    #[arg(value_enum, value_name = "LANGUAGE")]
    pub(super) language: Starter,
    /// A directory that is not there yet, or empty.
    #[arg(value_name = "DIR")]
    pub(super) dir: PathBuf,
}

/// What `new` can begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Starter {
    /// Needs nothing but aviary.
    #[value(alias = "js")]
    Javascript,
    /// Needs Go.
    Go,
    /// Needs Rust.
    #[value(alias = "rs")]
    Rust,
    /// Needs zig.
    C,
    /// Needs zig.
    #[value(alias = "c++")]
    Cpp,
    /// Needs zig.
    Zig,
    /// Needs AssemblyScript.
    #[value(alias = "typescript", alias = "ts", alias = "as")]
    Assemblyscript,
}

/// Documents for every starter.
const SAMPLE: &str = include_str!("../../examples/orders.jsonl");

impl Starter {
    /// The files with the functions.
    fn files(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Javascript => &[
                ("map.js", include_str!("../../examples/javascript/sum_by_customer.map.js")),
                ("reduce.js", include_str!("../../examples/javascript/sum_by_customer.reduce.js")),
            ],
            Self::Go => &[("job.go", include_str!("../../examples/go/sum_by_customer.go"))],
            Self::Rust => &[("job.rs", include_str!("../../examples/rust/sum_by_customer.rs"))],
            Self::C => &[("job.c", include_str!("../../examples/c/sum_by_customer.c"))],
            Self::Cpp => &[("job.cpp", include_str!("../../examples/cpp/sum_by_customer.cpp"))],
            Self::Zig => &[("job.zig", include_str!("../../examples/zig/sum_by_customer.zig"))],
            Self::Assemblyscript => {
                &[("job.ts", include_str!("../../examples/assemblyscript/sum_by_customer.ts"))]
            }
        }
    }

    /// The flags that name the functions.
    fn flags(self) -> String {
        match self.files() {
            [(file, _)] => format!("--module {file}"),
            _ => "--map map.js --reduce reduce.js".to_owned(),
        }
    }

    /// The language, if it is compiled.
    fn compiled(self) -> Option<Language> {
        let (file, _) = self.files().first()?;
        Language::of(Path::new(file))
    }

    fn readme(self) -> String {
        let flags = self.flags();
        let out = "--out replace:spent_by_customer";
        let (insert, submit) = match self {
            Self::Javascript => (
                "aviary insert --name spent-map map.js\n    aviary insert --name spent-reduce reduce.js"
                    .to_owned(),
                "aviary submit -c orders --map spent-map --reduce spent-reduce".to_owned(),
            ),
            _ => {
                let (file, _) = self.files().first().copied().unwrap_or_default();
                (
                    format!("aviary insert --name spent {file}"),
                    "aviary submit -c orders --module spent".to_owned(),
                )
            }
        };
        let compiler = self.compiled().map_or(String::new(), |language| {
            format!(
                "\n{} compiles it; if it is not there:\n\n    {}\n",
                language.needs(),
                language.install()
            )
        });
        format!(
            "# What each customer spent\n\
             {compiler}\n\
             Try it on the sample, without a server:\n\n    aviary try --docs sample.jsonl {flags}\n\n\
             The rest takes a deployment (`aviary up --detach` starts one and prints its URI):\n\n    \
             export AVIARY_URI='mongodb://…'\n    \
             mongoimport --uri \"$AVIARY_URI\" -c orders sample.jsonl\n    \
             aviary try -c orders {flags}\n    \
             aviary submit -c orders {flags} {out}\n\n\
             Or keep the function in the catalogue, and run it by its name:\n\n    {insert}\n    {submit} {out}\n",
        )
    }
}

pub(super) fn run(global: &Global, args: &NewArgs) -> Result<()> {
    let shown = args.dir.display();
    let failed = |e| Error::io(format!("write to {shown}"), e);
    std::fs::create_dir_all(&args.dir).map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists | std::io::ErrorKind::NotADirectory => {
            Error::refused(format!("{shown} is not a directory"), "name one that is not there yet")
        }
        _ => failed(e),
    })?;
    if std::fs::read_dir(&args.dir).map_err(failed)?.next().is_some() {
        return Err(Error::refused(
            format!("{shown} is not empty"),
            "name a directory that is not there yet; nothing was written",
        ));
    }
    let readme = args.language.readme();
    let others = [("sample.jsonl", SAMPLE), ("README.md", readme.as_str())];
    for (name, text) in args.language.files().iter().copied().chain(others) {
        std::fs::write(args.dir.join(name), text).map_err(failed)?;
        super::output::line(args.dir.join(name).display())?;
    }
    if !global.quiet && args.language == Starter::Assemblyscript {
        tell!(
            "job.ts is AssemblyScript: TypeScript's syntax, compiled to WebAssembly, without regular expressions and \
             closures; aviary new javascript has those"
        );
    }
    if !global.quiet {
        tell!("next: cd {shown} && aviary try --docs sample.jsonl {}", args.language.flags());
    }
    Ok(())
}
