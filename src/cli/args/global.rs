//! Flags that every verb takes.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Deserialize;

use super::path;
use crate::cli::uri_file::{self, Sources};
use crate::error::{Error, Result};
use crate::store::uri::has_secret;

/// Flags that every verb takes.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct Global {
    /// The deployment: the MongoDB URI of a replica set, or of a sharded cluster's router.
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        env = "AVIARY_URI",
        hide_env_values = true,
        value_name = "URI"
    )]
    pub(in crate::cli) uri: Option<String>,
    /// A file that holds the URI, and that only its owner can read: `ps` shows the command line to everybody.
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        env = "AVIARY_URI_FILE",
        value_name = "FILE",
        value_parser = path()
    )]
    pub(in crate::cli) uri_file: Option<PathBuf>,
    /// Where the two came from.
    #[arg(skip)]
    pub(in crate::cli) sources: Sources,
    /// The database that holds the input and Aviary's collections [default: the URI's].
    #[arg(
        short,
        long,
        global = true,
        help_heading = "Global options",
        env = "AVIARY_DB",
        value_name = "NAME"
    )]
    pub(in crate::cli) db: Option<String>,
    /// How to print.
    #[arg(
        short,
        long,
        global = true,
        help_heading = "Global options",
        value_enum,
        value_name = "FORMAT"
    )]
    pub(in crate::cli) output: Option<Format>,
    /// Print nothing but data and errors.
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub(in crate::cli) quiet: bool,
    /// Say more on standard error; twice for everything.
    #[arg(short, long, global = true, help_heading = "Global options", action = clap::ArgAction::Count)]
    pub(in crate::cli) verbose: u8,
    /// A TOML file with `uri`, `db` and `output`.
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        env = "AVIARY_CONFIG",
        value_name = "FILE",
        value_parser = path()
    )]
    pub(in crate::cli) config: Option<PathBuf>,
    /// What a daemon was told of other databases.
    #[arg(skip)]
    pub(in crate::cli) trusted: Vec<String>,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli) enum Format {
    /// Columns for people.
    Table,
    /// More columns.
    Wide,
    /// One JSON document a line.
    Json,
    /// Only names.
    Name,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    uri: Option<String>,
    db: Option<String>,
    output: Option<Format>,
}

impl Global {
    /// Fills what flags and environment left open from the configuration file.
    pub(in crate::cli) fn with_file(mut self) -> Result<Self> {
        let Some(path) = self.config.as_ref().filter(|path| !path.as_os_str().is_empty()) else {
            return Ok(self);
        };
        let text = std::fs::read_to_string(path).map_err(|e| Error::unreadable(path, e))?;
        let file: File = toml::from_str(&text).map_err(|e| {
            Error::Usage(format!("{} is not a configuration: {}", path.display(), e.message()))
        })?;
        if file.uri.as_deref().is_some_and(has_secret) {
            uri_file::check(path)?;
        }
        self.uri = self.uri.or(file.uri);
        self.db = self.db.or(file.db);
        self.output = self.output.or(file.output);
        Ok(self)
    }

    /// The format, tables by default.
    pub(in crate::cli) fn format(&self) -> Format {
        self.output.unwrap_or(Format::Table)
    }
}
