//! Every setting: what it is called, what it may be, and which of the places that name it counts.
//!
//! A setting has one name, and with it a flag (`--split-bytes`), an environment variable (`AVIARY_SPLIT_BYTES`) and a
//! key of the configuration file (`split_bytes`). The order of precedence is the same for all of them: flag, variable,
//! file, database, default. Only settings that a whole deployment shares are kept in the database.
//!
//! Reading order: [`table`] (all of them), [`value`] (what each takes), [`chosen`] (which place counts), [`mod@file`] and
//! [`stored`] (two of the places), [`live`] (what a daemon goes by while it runs).

pub mod chosen;
pub mod file;
pub mod live;
pub mod stored;
pub mod table;
pub mod value;

use std::path::Path;

pub use chosen::Chosen;
pub use live::Live;
pub use stored::Stored;
pub use table::{ALL, named};
pub use value::Value;

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its name: the long flag without its dashes.
    pub name: &'static str,
    /// Its environment variable.
    pub variable: &'static str,
    /// A short flag for it.
    pub short: Option<char>,
    /// Which settings it belongs to.
    pub group: Group,
    /// What it takes.
    pub kind: Kind,
    /// What help calls its value.
    pub takes: &'static str,
    /// What holds where nobody chose.
    pub default: Fallback,
    /// What it does, in one line.
    pub help: &'static str,
}

/// Settings that go together: the same verbs have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Of every verb.
    Global,
    /// Of every verb, seldom needed.
    Rare,
    /// Of coordinators and workers.
    Daemons,
    /// What coordinators and workers let jobs ask for.
    Caps,
    /// Of workers.
    Worker,
    /// What all daemons of a deployment share.
    Deployment,
}

/// Whom a setting is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The process that has it, whichever verb it runs.
    Client,
    /// One daemon.
    Daemon,
    /// Every daemon of the deployment: the database can hold it.
    Deployment,
}

/// What a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text.
    Text,
    /// A MongoDB URI, which may hold a password.
    Uri,
    /// A path, or the name of a program. An empty one is none.
    Path,
    /// A filter of logs. An empty one is none.
    Filter,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Names with commas between.
    List,
    /// On or off.
    Switch,
    /// A whole number in this range.
    Number(u64, u64),
    /// A duration in this range, in milliseconds.
    Duration(u64, u64),
}

/// What holds where nobody chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// This number; of a duration, milliseconds.
    Number(u64),
    /// On or off.
    Switch(bool),
    /// What these words say: it is known only where the setting is used.
    Told(&'static str),
}

/// The place that a value comes from. A later one in this list goes before an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// None: it is the default.
    Default,
    /// The document of the deployment's settings.
    Database,
    /// The configuration file.
    File,
    /// The environment.
    Variable,
    /// The command line.
    Flag,
}

impl Origin {
    /// All of them, the weakest first.
    pub const ALL: [Self; 5] =
        [Self::Default, Self::Database, Self::File, Self::Variable, Self::Flag];

    /// Its name for scripts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Database => "database",
            Self::File => "file",
            Self::Variable => "variable",
            Self::Flag => "flag",
        }
    }

    /// A setting as this place calls it.
    #[must_use]
    pub fn place(self, setting: &Setting, file: Option<&Path>) -> String {
        match self {
            Self::Flag => setting.flag(),
            Self::Variable => setting.variable.to_owned(),
            Self::File => {
                let file = file.map_or_else(|| "the file".to_owned(), |f| f.display().to_string());
                format!("{} in {file}", setting.key())
            }
            Self::Database => format!("{} in the database's settings", setting.key()),
            Self::Default => setting.name.to_owned(),
        }
    }
}

impl Setting {
    /// Its flag.
    #[must_use]
    pub fn flag(&self) -> String {
        format!("--{}", self.name)
    }

    /// Its key in the configuration file and in the database.
    #[must_use]
    pub fn key(&self) -> String {
        self.name.replace('-', "_")
    }

    /// Whom it is for.
    #[must_use]
    pub const fn scope(&self) -> Scope {
        match self.group {
            Group::Global | Group::Rare => Scope::Client,
            Group::Daemons | Group::Caps | Group::Worker => Scope::Daemon,
            Group::Deployment => Scope::Deployment,
        }
    }

    /// Whether the configuration file may have it: all but the one that names the file.
    #[must_use]
    pub fn is_in_file(&self) -> bool {
        self.name != table::CONFIG
    }

    /// Whether a value of it must not be shown as it is.
    #[must_use]
    pub const fn is_secret(&self) -> bool {
        matches!(self.kind, Kind::Uri)
    }
}

impl Scope {
    /// Its name for scripts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Daemon => "daemon",
            Self::Deployment => "deployment",
        }
    }
}

#[cfg(test)]
mod tests;
