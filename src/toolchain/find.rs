//! Where compilers are: named by a variable, on `PATH`, or in well-known places.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::Language;
use super::sources::Sources;
use crate::dirs;
use crate::error::Error;

/// A compiler that was found and asked for its version.
#[derive(Debug, Clone)]
pub(super) struct Tool {
    /// The program.
    pub(super) program: PathBuf,
    /// Arguments that go before all others, as in `python3 -m ziglang`.
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
        Self { program: program.into(), before, insisted: None, checked: false }
    }

    /// The same, in a place that the user did not name.
    pub(super) fn checked(self) -> Self {
        Self { checked: true, ..self }
    }

    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.before).stdin(Stdio::null());
        command
    }

    /// What the candidate prints, if it is there and succeeds.
    pub(super) fn says(&self, args: &[&str]) -> Option<String> {
        let mut command = self.command();
        // `python3 -m` runs what lies in the working directory, whoever put it there. A path that the user gave
        // may be relative to it.
        if self.insisted.is_none() {
            command.current_dir("/");
        }
        let output = command.args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        // A compiler says it in one line; what is none may say anything.
        output.status.success().then(|| text.lines().next().unwrap_or_default().trim().to_owned())
    }

    pub(super) fn tool(self, name: String) -> Tool {
        Tool { program: self.program, before: self.before, name }
    }
}

impl Tool {
    /// A command that runs it.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.before).stdin(Stdio::null());
        command
    }
}

/// The first candidate that `usable` takes; it tells what is wrong with one that is there and is not
/// usable.
pub(super) fn first(
    language: Language,
    candidates: Vec<Candidate>,
    usable: impl Fn(&Candidate) -> Result<String, Option<String>>,
) -> Found {
    let variable = language.variable();
    let named = std::env::var_os(variable).filter(|value| !value.is_empty());
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
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .filter(|file| file.is_file())
        .map(Candidate::at)
        .collect()
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
