//! Flags that every verb takes, and what they come to together with the other places of settings.

use std::path::PathBuf;

use clap::Args;
use tracing_subscriber::EnvFilter;

use super::setting::{EveryVerb, Given, Takes};
use crate::cli::uri_file::{self, Address};
use crate::config;
use crate::error::{Error, Result};
use crate::files;
use crate::job::validate::check_database_name;
use crate::settings::file::{self, Values};
use crate::settings::{Chosen, Group, Origin, Scope, Value, named, table};
use crate::store::databases::is_of_users;
use crate::store::uri::has_secret;
use crate::telemetry;

/// Flags that every verb takes.
#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct Global {
    #[command(flatten)]
    pub(in crate::cli) given: Given<EveryVerb>,
    /// Print nothing but data and errors.
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub(in crate::cli) quiet: bool,
    /// Say more on standard error; twice for everything.
    #[arg(short, long, global = true, help_heading = "Global options", action = clap::ArgAction::Count)]
    pub(in crate::cli) verbose: u8,
    /// What the settings of every verb come to.
    #[arg(skip)]
    pub(in crate::cli) chosen: Chosen,
    /// What the configuration file says of all settings.
    #[arg(skip)]
    pub(in crate::cli) file: Values,
    /// Where the deployment is.
    #[arg(skip)]
    pub(in crate::cli) address: Address,
    /// The database, if one was named.
    #[arg(skip)]
    pub(in crate::cli) db: Option<String>,
    /// All databases that were named: several for daemons only.
    #[arg(skip)]
    pub(in crate::cli) dbs: Vec<String>,
    #[arg(skip)]
    pub(in crate::cli) format: Format,
    /// Whether a person waits for the verb, rather than starting a daemon.
    #[arg(skip)]
    pub(in crate::cli) is_verb: bool,
    /// What a daemon was told of other databases.
    #[arg(skip)]
    pub(in crate::cli) trusted: Vec<String>,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::cli) enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// More columns.
    Wide,
    /// One JSON document a line.
    Json,
    /// Only names.
    Name,
}

impl Global {
    /// Makes of flags, variables and the configuration file what holds for every verb. Programs and directories that
    /// were named are taken from now on.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the place and what is allowed; those of a file that cannot be read, or that holds a
    /// password and is not its owner's alone.
    pub(in crate::cli) fn resolve(&mut self, is_verb: bool) -> Result<()> {
        self.is_verb = is_verb;
        self.given.offer_to(&mut self.chosen)?;
        if let Some(path) = self.chosen.path(table::CONFIG) {
            let text = files::read_text(path, config::CONFIG_FILE_BYTES_MAX)?;
            self.file = file::read(path, &text)?;
            let is_secret = self
                .file
                .iter()
                .any(|(setting, value)| setting.is_secret() && has_secret(&setting.shown(value)));
            if is_secret {
                uri_file::check(path)?;
            }
        }
        let file = self.file.iter().filter(|(setting, _)| setting.scope() == Scope::Client);
        self.chosen.offer_all(Origin::File, file);
        self.address = Address::of(&self.chosen, table::URI, table::URI_FILE);
        self.name_databases()?;
        self.format = match self.chosen.text(table::OUTPUT).as_deref() {
            Some("wide") => Format::Wide,
            Some("json") => Format::Json,
            Some("name") => Format::Name,
            _ => Format::Table,
        };
        for (setting, origin, value) in self.chosen.iter() {
            if let (true, Value::Text(value)) = (setting.is_place(), value)
                && origin != Origin::Variable
            {
                aviary_testcontainers::named::name(setting.variable, value.clone());
            }
        }
        Ok(())
    }

    fn name_databases(&mut self) -> Result<()> {
        let Some(setting) = named(table::DB).filter(|_| self.chosen.get(table::DB).is_some())
        else {
            return Ok(());
        };
        let place = self.chosen.origin(table::DB).place(setting, self.file().as_deref());
        self.dbs = self.chosen.list(table::DB);
        for db in &self.dbs {
            check_database_name(db)
                .map_err(|e| Error::Usage(format!("{e}; {place} names the database")))?;
        }
        if let Some(db) = self.dbs.iter().find(|db| !is_of_users(db)) {
            return Err(Error::Usage(format!("{db} belongs to the server; {place} names another")));
        }
        self.db = match self.dbs.as_slice() {
            [] => return Err(Error::Usage(format!("{place} must be the name of a database"))),
            [db] => Some(db.clone()),
            [_, ..] if self.is_verb => {
                return Err(Error::Usage(format!(
                    "{place} names several databases, which only a coordinator or a worker takes; name one"
                )));
            }
            [_, ..] => None,
        };
        Ok(())
    }

    /// What the settings of other groups come to: what a verb was given, and what the file says of them.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the place and what is allowed.
    pub(in crate::cli) fn with<T: Takes>(&self, given: &Given<T>) -> Result<Chosen> {
        let mut chosen = Chosen::default();
        given.offer_to(&mut chosen)?;
        let file = self.file.iter().filter(|(setting, _)| T::GROUPS.contains(&setting.group));
        chosen.offer_all(Origin::File, file);
        Ok(chosen)
    }

    /// What this process was told of settings that the deployment shares, for verbs without flags for them.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the place and what is allowed.
    pub(in crate::cli) fn of_deployment(&self) -> Result<Chosen> {
        let mut chosen = Chosen::default();
        chosen.offer_environment(Group::Deployment)?;
        let file = self.file.iter().filter(|(s, _)| s.scope() == Scope::Deployment);
        chosen.offer_all(Origin::File, file);
        Ok(chosen)
    }

    /// The variables that daemons get which this process starts: what it was told otherwise than by variables, but for
    /// where the deployment is.
    pub(in crate::cli) fn for_daemons(&self) -> Vec<(&'static str, String)> {
        let told = self.chosen.iter().filter(|(setting, origin, _)| {
            setting.group == Group::Rare && *origin != Origin::Variable
        });
        let told = told.map(|(setting, _, value)| (setting, value));
        let file = self.file.iter().filter(|(setting, _)| {
            let is_address = [table::SHARD_URI, table::SHARD_URI_FILE, table::SHARD];
            setting.scope() != Scope::Client
                && !is_address.contains(&setting.name)
                && std::env::var_os(setting.variable).is_none()
        });
        told.chain(file.map(|(setting, value)| (*setting, value)))
            .map(|(setting, value)| (setting.variable, setting.shown(value)))
            .collect()
    }

    /// Which logs to write, if it was said.
    ///
    /// # Errors
    /// [`Error::Usage`] for what is no filter.
    pub(in crate::cli) fn log_filter(&self) -> Result<Option<EnvFilter>> {
        let (Some(given), Some(setting)) = (self.chosen.text(table::LOG), named(table::LOG)) else {
            return Ok(None);
        };
        let place = self.chosen.origin(table::LOG).place(setting, self.file().as_deref());
        telemetry::filter(&given, &place).map(Some)
    }

    /// The configuration file.
    pub(in crate::cli) fn file(&self) -> Option<PathBuf> {
        self.chosen.path(table::CONFIG).map(PathBuf::from)
    }

    /// The format, tables by default.
    pub(in crate::cli) fn format(&self) -> Format {
        self.format
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::cli::Cli;

    #[test]
    fn daemons_that_up_starts_get_what_it_was_told_but_for_where_the_deployment_is() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("aviary.toml");
        let text = "db = \"other\"\nshard = \"s0\"\nlog = \"debug\"\ncache = \"/there\"\npoll_ms = 50\n\
                    split_bytes = 9\nretention = \"2days\"\ntrust_databases = [\"a\", \"b\"]\nwatch = false\n";
        std::fs::write(&file, text).unwrap();
        let args = ["aviary", "up", "--log", "info", "--config", file.to_str().unwrap()];
        let mut cli = Cli::try_parse_from(args).unwrap();
        cli.global.resolve(true).unwrap();
        let told: Vec<(&str, String)> = cli.global.for_daemons();
        let mut told: Vec<(&str, &str)> =
            told.iter().map(|(variable, value)| (*variable, value.as_str())).collect();
        told.sort_unstable();
        let wanted = [
            ("AVIARY_CACHE", "/there"),
            ("AVIARY_LOG", "info"),
            ("AVIARY_POLL_MS", "50"),
            ("AVIARY_RETENTION", "2days"),
            ("AVIARY_SPLIT_BYTES", "9"),
            ("AVIARY_TRUST_DATABASES", "a,b"),
            ("AVIARY_WATCH", "off"),
        ];
        assert_eq!(told, wanted);
        assert_eq!(cli.global.db.as_deref(), Some("other"));
    }
}
