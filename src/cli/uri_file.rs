//! Where the deployment's address comes from: the command line, a file, the environment.
//!
//! An address often holds a password, and every user of a machine can read the command lines of its processes. So
//! it may be in a file that only its owner can read.

use std::path::Path;

use aviary_testcontainers::{Error as LocalError, secret};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};

use super::args::{Cli, Command, Global, WorkerArgs};
use super::deployments;
use crate::error::{Error, Result};
use crate::store::uri::has_secret;
use crate::terminal::tell;

/// Where each address and each file with one was named, if it was.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sources {
    /// Whether a person waits for the verb, rather than starting a daemon.
    pub(super) is_verb: bool,
    uri: Named,
    uri_file: Named,
    shard_uri: Named,
    shard_uri_file: Named,
}

/// Where something was named; what is nearer to the person goes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    /// Nowhere, or in a configuration file.
    #[default]
    No,
    /// By a variable.
    InEnvironment,
    /// By a flag.
    OnCommandLine,
}

impl Named {
    fn of(matches: &ArgMatches, id: &str) -> Self {
        let known = matches.try_contains_id(id).unwrap_or(false);
        match known.then(|| matches.value_source(id)).flatten() {
            Some(ValueSource::CommandLine) => Self::OnCommandLine,
            Some(ValueSource::EnvVariable) => Self::InEnvironment,
            _ => Self::No,
        }
    }
}

impl Cli {
    /// Parses the command line, and remembers what came from where.
    pub(super) fn try_parse_with_sources() -> std::result::Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches()?;
        let mut cli = Self::from_arg_matches(&matches)?;
        let verb = matches.subcommand().map_or(&matches, |(_, verb)| verb);
        let is_verb = !cli.command.is_daemon();
        cli.global.sources = Sources {
            uri: Named::of(&matches, "uri"),
            is_verb,
            uri_file: Named::of(&matches, "uri_file"),
            shard_uri: Named::of(verb, "shard_uri"),
            shard_uri_file: Named::of(verb, "shard_uri_file"),
        };
        Ok(cli)
    }

    /// Says that others can see a password that stands on the command line.
    pub(super) fn warn_of_passwords(&self) {
        let shown = |uri: &Option<String>, named| {
            named == Named::OnCommandLine && uri.as_deref().is_some_and(has_secret)
        };
        let sources = &self.global.sources;
        let mut flags = Vec::new();
        if shown(&self.global.uri, sources.uri) {
            flags.push("--uri");
        }
        if let Command::Worker(worker) = &self.command
            && shown(&worker.shard_uri, sources.shard_uri)
        {
            flags.push("--shard-uri");
        }
        for flag in flags {
            let text = format!(
                "every user of this machine can see the password in {flag}; put the URI into a file that only you \
                 can read, and name it with {flag}-file"
            );
            match self.command.is_daemon() {
                true => tracing::warn!("{text}"),
                false if self.global.quiet => {}
                false => tell!("warning: {text}"),
            }
        }
    }
}

impl Global {
    /// The deployment's address.
    ///
    /// # Errors
    /// [`Error::Usage`] when two are given, or none: for a verb, the only one that runs on this machine is meant then.
    /// Those of a file that does not hold one safely.
    pub(super) fn deployment(&self) -> Result<String> {
        let Sources { uri, uri_file, .. } = self.sources;
        let chosen =
            choose("--uri", (self.uri.as_deref(), uri), (self.uri_file.as_deref(), uri_file))?;
        match chosen {
            Some(uri) => Ok(uri),
            None if self.sources.is_verb => deployments::only(self),
            None => Err(deployments::none_given()),
        }
    }

    /// The address of a worker's own shard, if it has one.
    ///
    /// # Errors
    /// Those of [`deployment`](Self::deployment).
    pub(super) fn shard_uri(&self, args: &WorkerArgs) -> Result<Option<String>> {
        let Sources { shard_uri, shard_uri_file, .. } = self.sources;
        let file = args.shard_uri_file.as_deref();
        choose("--shard-uri", (args.shard_uri.as_deref(), shard_uri), (file, shard_uri_file))
    }
}

fn choose(
    flag: &str,
    (uri, uri_named): (Option<&str>, Named),
    (file, file_named): (Option<&Path>, Named),
) -> Result<Option<String>> {
    // A variable that is set to nothing is not set.
    let file = file.filter(|file| !file.as_os_str().is_empty());
    match (uri, file) {
        (uri, None) => Ok(uri.map(str::to_owned)),
        (Some(_), Some(_)) if uri_named == file_named => Err(Error::Usage(format!(
            "{flag} and {flag}-file both give an address; leave one of them out (or of the variables that stand \
             for them)"
        ))),
        (Some(uri), Some(_)) if uri_named > file_named => Ok(Some(uri.to_owned())),
        (_, Some(file)) => read(file).map(Some),
    }
}

fn read(path: &Path) -> Result<String> {
    let bytes = secret::read(path).map_err(|e| refused(path, e))?;
    match String::from_utf8(bytes) {
        Ok(text) if text.trim().is_empty() => {
            Err(Error::Usage(format!("{} holds no URI", path.display())))
        }
        Ok(text) => Ok(text),
        Err(_) => {
            Err(Error::Usage(format!("{} holds no URI, since it is no text", path.display())))
        }
    }
}

/// Makes sure that nobody else can read a file.
///
/// # Errors
/// [`Error::Refused`].
pub(super) fn check(path: &Path) -> Result<()> {
    secret::check(path).map_err(|e| refused(path, e))
}

fn refused(path: &Path, error: LocalError) -> Error {
    match error {
        LocalError::File { source, .. } => Error::unreadable(path, source),
        other => Error::refused(format!("cannot {other}"), ""),
    }
}
