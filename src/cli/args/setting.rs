//! Flags and variables of settings, made from their table.

use std::ffi::OsString;
use std::marker::PhantomData;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};

use crate::error::Result;
use crate::settings::{self, Chosen, Group, Kind, Origin, Setting};

/// Which settings a verb takes.
pub(in crate::cli) trait Takes:
    Clone + std::fmt::Debug + Send + Sync + 'static
{
    /// The groups of them.
    const GROUPS: &'static [Group];
    /// Whether their variables count too.
    const VARIABLES: bool = true;
}

/// Those of every verb.
#[derive(Debug, Clone)]
pub(in crate::cli) struct EveryVerb;
impl Takes for EveryVerb {
    const GROUPS: &'static [Group] = &[Group::Global, Group::Rare];
}

/// Those of coordinators.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Coordinator;
impl Takes for Coordinator {
    const GROUPS: &'static [Group] = &[Group::Daemons, Group::Caps, Group::Deployment];
}

/// Those of workers, and so of any daemon.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Worker;
impl Takes for Worker {
    const GROUPS: &'static [Group] =
        &[Group::Worker, Group::Daemons, Group::Caps, Group::Deployment];
}

/// Those that `init` writes into the database. A variable is for the process that has it, and so is not written.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Init;
impl Takes for Init {
    const GROUPS: &'static [Group] = &[Group::Deployment];
    const VARIABLES: bool = false;
}

/// What the command line and the environment say of settings, as it was typed.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Given<T> {
    values: Vec<(&'static Setting, Origin, OsString)>,
    of: PhantomData<T>,
}

impl<T: Takes> Given<T> {
    /// Offers what was given.
    ///
    /// # Errors
    /// [`crate::error::Error::Usage`] naming the flag or variable and what is allowed.
    pub(in crate::cli) fn offer_to(&self, chosen: &mut Chosen) -> Result<()> {
        for (setting, origin, given) in &self.values {
            chosen.offer_text(setting, *origin, given)?;
        }
        Ok(())
    }

    fn settings() -> impl Iterator<Item = &'static Setting> {
        T::GROUPS.iter().flat_map(|group| settings::ALL.iter().filter(|s| s.group == *group))
    }

    fn read(matches: &ArgMatches) -> Self {
        let mut values = Vec::new();
        for setting in Self::settings() {
            let origin = match matches.value_source(setting.name) {
                Some(ValueSource::CommandLine) => Origin::Flag,
                Some(ValueSource::EnvVariable) => Origin::Variable,
                _ => continue,
            };
            let given = matches.get_many::<OsString>(setting.name).unwrap_or_default();
            let given: Vec<OsString> = given.cloned().collect();
            values.push((setting, origin, given.join(std::ffi::OsStr::new(","))));
        }
        Self { values, of: PhantomData }
    }
}

impl<T: Takes> FromArgMatches for Given<T> {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        Ok(Self::read(matches))
    }

    fn update_from_arg_matches(
        &mut self,
        matches: &ArgMatches,
    ) -> std::result::Result<(), clap::Error> {
        *self = Self::read(matches);
        Ok(())
    }
}

impl<T: Takes> clap::Args for Given<T> {
    fn augment_args(command: Command) -> Command {
        Self::settings().fold(command, |command, setting| command.arg(arg::<T>(setting)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

fn arg<T: Takes>(setting: &'static Setting) -> Arg {
    let mut arg = Arg::new(setting.name)
        .long(setting.name)
        .value_name(setting.takes)
        .value_parser(clap::value_parser!(OsString))
        .help(help(setting));
    if let Some(short) = setting.short {
        arg = arg.short(short);
    }
    if setting.kind == Kind::List {
        arg = arg.action(ArgAction::Append);
    }
    if T::VARIABLES {
        arg = arg.env(setting.variable).hide_env_values(setting.is_secret());
    }
    match setting.group {
        Group::Global => arg.global(true).help_heading("Global options"),
        Group::Rare => {
            arg.global(true).help_heading("Logs, files and programs").hide_short_help(true)
        }
        Group::Daemons | Group::Worker => arg,
        Group::Caps => arg.help_heading("Caps on what jobs ask for (the same for the whole fleet)"),
        Group::Deployment => {
            arg.help_heading("Settings of the deployment (see aviary config)").hide_short_help(true)
        }
    }
}

fn help(setting: &Setting) -> String {
    match setting.shown_default() {
        none if none == "none" => setting.help.to_owned(),
        default => format!("{} [default: {default}]", setting.help),
    }
}
