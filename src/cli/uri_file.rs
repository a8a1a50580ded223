//! Where the deployment's address comes from: the command line, a file, the environment.
//!
//! An address often holds a password, and every user of a machine can read the command lines of its processes. So
//! it may be in a file that only its owner can read.

use std::path::{Path, PathBuf};

use aviary_testcontainers::{Error as LocalError, secret};

use super::args::{Command, Global};
use super::deployments;
use crate::error::{Error, Result};
use crate::settings::{Chosen, Origin, table};
use crate::store::uri::has_secret;
use crate::terminal::tell;

/// An address, and a file with one, each with the place that names it. What is nearer to the person goes first.
#[derive(Debug, Clone, Default)]
pub(super) struct Address {
    uri: Option<(Origin, String)>,
    file: Option<(Origin, PathBuf)>,
}

impl Address {
    /// What the settings of these names say.
    pub(super) fn of(chosen: &Chosen, uri: &str, file: &str) -> Self {
        Self {
            uri: chosen.text(uri).map(|given| (chosen.origin(uri), given)),
            file: chosen.path(file).map(|given| (chosen.origin(file), given.to_owned())),
        }
    }

    /// This one.
    pub(super) fn at(uri: String) -> Self {
        Self { uri: Some((Origin::Flag, uri)), file: None }
    }

    /// The one that counts. `flag` names it.
    ///
    /// # Errors
    /// [`Error::Usage`] when one place gives two. Those of a file that does not hold one safely.
    pub(super) fn choose(&self, flag: &str) -> Result<Option<String>> {
        match (&self.uri, &self.file) {
            (None, None) => Ok(None),
            (Some((_, uri)), None) => Ok(Some(uri.clone())),
            (Some((at, _)), Some((file_at, _))) if at == file_at => Err(Error::Usage(format!(
                "{flag} and {flag}-file both give an address; leave one of them out (or of the variables or keys that \
                 stand for them)"
            ))),
            (Some((at, uri)), Some((file_at, _))) if at > file_at => Ok(Some(uri.clone())),
            (_, Some((_, file))) => read(file).map(Some),
        }
    }

    /// Says that others can see a password that stands on the command line.
    fn warn_of_password(&self, flag: &str, tell: impl Fn(&str)) {
        if self.uri.as_ref().is_some_and(|(at, uri)| *at == Origin::Flag && has_secret(uri)) {
            tell(&format!(
                "every user of this machine can see the password in {flag}; put the URI into a file that only you \
                 can read, and name it with {flag}-file"
            ));
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
        match self.address.choose("--uri")? {
            Some(uri) => Ok(uri),
            None if self.is_verb => deployments::only(self),
            None => Err(deployments::none_given()),
        }
    }

    /// Says that others can see passwords that stand on the command line.
    pub(super) fn warn_of_passwords(&self, command: &Command) {
        let tell = |text: &str| match command.is_daemon() {
            true => tracing::warn!("{text}"),
            false if self.quiet => {}
            false => tell!("warning: {text}"),
        };
        self.address.warn_of_password("--uri", tell);
        if let Command::Worker(worker) = command
            && let Ok(chosen) = self.with(&worker.given)
        {
            Address::of(&chosen, table::SHARD_URI, table::SHARD_URI_FILE)
                .warn_of_password("--shard-uri", tell);
        }
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
