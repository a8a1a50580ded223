//! Where compilers are: named by a variable, on `PATH`, or in well-known places.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use aviary_testcontainers::{named, program};

use super::Language;
use super::sources::Sources;
use crate::dirs;
use crate::error::Error;

/// A compiler that was found and asked for its version.
#[derive(Debug, Clone)]
pub(super) struct Tool {
    /// The program.
    pub(super) program: PathBuf,
    /// Arguments that go before all others.
    pub(super) before: Vec<OsString>,
    /// What it is and its version, as it is stored with a function.
    pub(super) name: String,
}

/// A place where a compiler may be.
pub(super) struct Candidate {
    program: PathBuf,
    before: Vec<OsString>,
    /// Named by a variable: when that one does not work, no other is taken instead.
    insisted: Option<&'static str>,
    /// In a place that we chose, not the user: it runs only if nobody else could have put it there.
    checked: bool,
}

/// A compiler, or why there is none.
pub(super) type Found = Result<Tool, Missing>;

/// What was found and is not usable.
#[derive(Debug)]
pub(super) struct Missing(pub(super) Vec<String>);

impl Missing {
    /// The one line that a person needs.
    pub(super) fn refusal(&self, sources: &Sources) -> Error {
        let found = if self.0.is_empty() { "none was found".to_owned() } else { self.0.join(", ") };
        let language = sources.language;
        Error::refused(
            format!("compiling {} takes {} ({found})", sources.names(), language.needs()),
            format!(
                "install it with `{}`, or name one with {}",
                language.install(),
                language.variable()
            ),
        )
    }
}

impl Candidate {
    pub(super) fn at(program: impl Into<PathBuf>) -> Self {
        Self::with(program, &[])
    }

    pub(super) fn with(program: impl Into<PathBuf>, before: &[&str]) -> Self {
        let before = before.iter().map(Into::into).collect();
        // It runs elsewhere than where a person may have named it from.
        let program = program::named(program.into().as_os_str());
        Self { program, before, insisted: None, checked: false }
    }

    /// The same, in a place that the user did not name.
    pub(super) fn checked(self) -> Self {
        Self { checked: true, ..self }
    }

    /// What the candidate prints, if it is there and succeeds.
    pub(super) fn says(&self, args: &[&str]) -> Option<String> {
        says(command(&self.program, &self.before).args(args))
    }

    pub(super) fn tool(self, name: String) -> Tool {
        Tool { program: self.program, before: self.before, name }
    }
}

impl Tool {
    /// A command that runs it.
    pub(super) fn command(&self) -> Command {
        command(&self.program, &self.before)
    }

    /// What it prints, if it succeeds.
    pub(super) fn says(&self, args: &[&str]) -> Option<String> {
        says(self.command().args(args))
    }
}

/// A command that runs a compiler, which see [`program::command`].
fn command(program: &Path, before: &[OsString]) -> Command {
    let mut command = program::command(program, &program::FOR_COMPILERS);
    command.args(before);
    command
}

/// The first line that a command prints, if it succeeds. A compiler says it in one line; what is none may say
/// anything.
fn says(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.lines().next().unwrap_or_default().trim().to_owned())
}

/// The first candidate that `usable` takes; it tells what is wrong with one that is there and is not
/// usable.
pub(super) fn first(
    language: Language,
    candidates: Vec<Candidate>,
    usable: impl Fn(&Candidate) -> Result<String, Option<String>>,
) -> Found {
    let variable = language.variable();
    let named = named::var_os(variable);
    let candidates = match named {
        Some(program) => {
            vec![Candidate { insisted: Some(variable), ..Candidate::at(program) }]
        }
        None => candidates,
    };
    choose(candidates, usable)
}

fn choose(
    candidates: Vec<Candidate>,
    usable: impl Fn(&Candidate) -> Result<String, Option<String>>,
) -> Found {
    let mut found = Vec::new();
    for candidate in candidates {
        let shown = candidate.program.display().to_string();
        if candidate.checked
            && candidate.program.exists()
            && let Err(error) = dirs::check_file(&candidate.program)
        {
            found.push(format!("{shown} is not used: {error}"));
            continue;
        }
        match usable(&candidate) {
            Ok(name) => return Ok(candidate.tool(name)),
            // The same directory may be on PATH twice.
            Err(Some(why)) if found.contains(&format!("{shown} {why}")) => {}
            Err(Some(why)) => found.push(format!("{shown} {why}")),
            Err(None) => found.extend(
                candidate.insisted.map(|name| format!("{name} names {shown}, which does not run")),
            ),
        }
    }
    Err(Missing(found))
}

/// Every program of that name on `PATH`.
pub(super) fn on_path(name: &str) -> Vec<Candidate> {
    program::all_on_path(name).map(Candidate::at).collect()
}

/// Where the commands that our refusals name install to: Aviary's own cache, so that no other part
/// of the machine is touched.
pub(super) fn toolchains_dir() -> Option<PathBuf> {
    dirs::cache_path("toolchains").ok()
}

/// A program there.
pub(super) fn in_toolchains(program: &str, before: &[&str]) -> Option<Candidate> {
    Some(Candidate::with(toolchains_dir()?.join(program), before).checked())
}

/// A program in a package of Python's, run by itself: `python3 -m` would load more than that package. It is looked
/// for where our refusals have it installed, and where the user's own Python has its packages.
pub(super) fn in_python_package(package: &str, program: &str) -> Vec<Candidate> {
    // Isolated, Python loads nothing from the working directory nor from where a variable says; it leaves the
    // user's own packages out as well, which are added. The package is found and not run.
    const FIND: &str = "import importlib.util, os, site, sys; sys.path.append(site.getusersitepackages()); \
                        print(os.path.dirname(importlib.util.find_spec(sys.argv[1]).origin))";
    let installed = toolchains_dir().into_iter().flat_map(|dir| {
        let versions = std::fs::read_dir(dir.join("lib")).into_iter().flatten().flatten();
        versions.map(|version| version.path().join("site-packages").join(package))
    });
    let known = on_path("python3").into_iter().filter_map(|python| {
        python.says(&["-I", "-c", FIND, package]).filter(|dir| !dir.is_empty()).map(PathBuf::from)
    });
    let there = installed.chain(known).map(|dir| dir.join(program)).filter(|file| file.is_file());
    there.map(|file| Candidate::at(file).checked()).collect()
}

/// Where a compiler keeps what it compiled, when it finds no place by itself: in our cache, or with the job.
pub(super) fn compiler_cache(name: &str, job: &std::path::Path) -> PathBuf {
    dirs::cache(name).unwrap_or_else(|_| job.join(format!(".{name}")))
}

/// The first two numbers of a version like `go1.27.3`.
pub(super) fn version(text: &str) -> Option<(u32, u32)> {
    let digits = text.find(|c: char| c.is_ascii_digit())?;
    let mut parts = text.get(digits..)?.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_compilers_say() {
        assert_eq!(version("go1.27.3"), Some((1, 27)));
        assert_eq!(version("Version 0.28.20"), Some((0, 28)));
        assert_eq!(version("0.15.2"), Some((0, 15)));
        assert_eq!(version("go1.24rc1"), Some((1, 24)));
        assert_eq!(version("devel"), None);
    }

    #[test]
    fn what_is_there_and_not_usable_is_told() {
        let candidates = || vec![Candidate::at("/no/such/compiler"), Candidate::at("/bin/sh")];
        let usable = |candidate: &Candidate| {
            candidate
                .says(&["-c", "echo 1.2"])
                .ok_or(None)
                .and_then(|v| Err(Some(format!("is {v}"))))
        };
        let missing = choose(candidates(), usable).unwrap_err();
        assert_eq!(missing.0, ["/bin/sh is 1.2"]);
    }
}
