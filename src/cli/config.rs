//! `aviary config`: what the settings are, where each comes from, and those that the deployment shares.

use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};

use super::args::{Format, Given, Global, Worker};
use super::output;
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::settings::file::{Values, nearest};
use crate::settings::{self, ALL, Chosen, Origin, Scope, Setting, Stored, Value};
use crate::store::Store;
use crate::store::retry::until_known;
use crate::store::uri::{has_secret, redact};
use crate::terminal::tell;

#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List every setting with its value and where that comes from. A daemon that is started with the same flags, variables
    /// and file goes by these.
    Show(Box<ShowArgs>),
    /// Write a setting of the deployment into the database. Daemons go by it within some seconds.
    Set {
        /// The setting, as its flag is called: split-bytes.
        key: String,
        /// Its value.
        value: String,
    },
    /// Remove a setting of the deployment from the database: its default counts again.
    Unset {
        /// The setting, as its flag is called: split-bytes.
        key: String,
    },
}

#[derive(Debug, Args)]
struct ShowArgs {
    #[command(flatten)]
    given: Given<Worker>,
}

pub(super) async fn run(global: &Global, args: ConfigArgs) -> Result<()> {
    match args.verb {
        Verb::Show(args) => show(global, &args.given).await,
        Verb::Set { key, value } => {
            let setting = of_deployment(&key)?;
            let value = setting
                .parse(value.as_ref(), setting.name)?
                .ok_or_else(|| Error::Usage(format!("{} must be {}", key, setting.allowed())))?;
            let store = global.store("aviary-config").await?;
            write(&store, &vec![(setting, value.clone())]).await?;
            if !global.quiet {
                tell!(
                    "{} is {} in {}: daemons go by it within some seconds",
                    setting.name,
                    setting.shown(&value),
                    store.db_name()
                );
            }
            Ok(())
        }
        Verb::Unset { key } => {
            let setting = of_deployment(&key)?;
            let store = global.store("aviary-config").await?;
            prepare(&store).await?;
            until_known(async |_| store.unset_setting(setting).await).await?;
            if !global.quiet {
                tell!(
                    "{} has its default again in {}, {}",
                    setting.name,
                    store.db_name(),
                    setting.shown_default()
                );
            }
            Ok(())
        }
    }
}

/// Writes settings of the deployment.
///
/// # Errors
/// [`Error::Refused`] where Aviary is not set up; [`Error::NotPermitted`], [`Error::Store`].
pub(super) async fn write(store: &Store, values: &Values) -> Result<()> {
    prepare(store).await?;
    until_known(async |_| store.set_settings(values).await).await
}

/// Makes sure that the database takes the document: an older version may have set it up.
async fn prepare(store: &Store) -> Result<()> {
    until_known(async |_| {
        if !store.refresh_validator().await? {
            return Err(Error::refused(
                format!("{} is not set up for Aviary", store.db_name()),
                "run aviary init first",
            ));
        }
        Ok(())
    })
    .await
}

/// What this process goes by of what the deployment shares.
///
/// # Errors
/// [`Error::Usage`] for a variable or a file, [`Error::Store`].
pub(super) async fn shared(global: &Global, store: &Store) -> Result<Settings> {
    let mut chosen = global.of_deployment()?;
    let stored = store.deployment_settings().await?;
    for problem in &stored.problems {
        if !global.quiet {
            tell!("warning: {problem}");
        }
    }
    chosen.offer_all(Origin::Database, &stored.values);
    chosen.settings()
}

/// The setting that a person means, if the database holds it.
fn of_deployment(key: &str) -> Result<&'static Setting> {
    let shared = || ALL.iter().filter(|setting| setting.scope() == Scope::Deployment);
    match settings::named(key) {
        Some(setting) if setting.scope() == Scope::Deployment => Ok(setting),
        Some(setting) => Err(Error::Usage(format!(
            "{} is not a setting of the deployment: give it to the process itself, by {}, {} or the key {} of the \
             configuration file",
            setting.name,
            setting.flag(),
            setting.variable,
            setting.key()
        ))),
        None => {
            let near = nearest(key, shared().map(|setting| setting.name.to_owned()));
            let hint = near.map_or_else(
                || {
                    let names: Vec<_> = shared().map(|setting| setting.name).collect();
                    format!("the database holds {}", names.join(", "))
                },
                |near| format!("did you mean {near}?"),
            );
            Err(Error::Usage(format!("unknown setting {key:?}: {hint}")))
        }
    }
}

/// A setting as it is listed.
struct Row {
    setting: &'static Setting,
    value: Option<Value>,
    origin: Origin,
    /// Whether the database was asked for it.
    asked: bool,
}

async fn show(global: &Global, given: &Given<Worker>) -> Result<()> {
    let others = global.with(given)?;
    // A cap may contradict another.
    others.settings()?;
    let stored = read(global).await;
    let is_asked = stored.is_some();
    let row = |setting: &'static Setting| {
        let mut chosen = match setting.scope() {
            Scope::Client => global.chosen.clone(),
            Scope::Daemon | Scope::Deployment => others.clone(),
        };
        let values = stored.iter().flat_map(|stored| &stored.values);
        chosen.offer_all(Origin::Database, values.filter(|(known, _)| known.name == setting.name));
        Row {
            setting,
            value: effective(setting, &chosen),
            origin: chosen.origin(setting.name),
            asked: is_asked && setting.scope() == Scope::Deployment,
        }
    };
    let rows: Vec<Row> = ALL.iter().map(row).collect();
    let wide = global.format() == Format::Wide;
    let headings: &[&str] = match wide {
        false => &["setting", "value", "from"],
        true => &["setting", "value", "from", "default", "of", "variable", "key"],
    };
    output::print_rows(
        global.format(),
        &rows,
        |row| row.setting.name.to_owned(),
        json_of,
        headings,
        |row| {
            let Row { setting, origin, .. } = row;
            let mut cells =
                vec![setting.name.to_owned(), shown(row), from(global, setting, *origin)];
            if wide {
                cells.extend([
                    setting.shown_default(),
                    setting.scope().as_str().to_owned(),
                    setting.variable.to_owned(),
                    if setting.is_in_file() { setting.key() } else { "-".to_owned() },
                ]);
            }
            cells
        },
    )
}

/// What the database says; nothing, with the reason told, where it does not.
async fn read(global: &Global) -> Option<Stored> {
    let asking = async {
        let store = global.store("aviary-config").await?;
        store.deployment_settings().await
    };
    match asking.await {
        Ok(stored) => {
            for problem in &stored.problems {
                tell!("warning: {problem}");
            }
            Some(stored)
        }
        Err(error) => {
            tell!("the database was not asked for the deployment's settings: {error}");
            None
        }
    }
}

fn effective(setting: &Setting, chosen: &Chosen) -> Option<Value> {
    match (chosen.get(setting.name), setting.default) {
        (Some(value), _) => Some(value.clone()),
        (None, settings::Fallback::Number(n)) => Some(Value::Number(n)),
        (None, settings::Fallback::Switch(on)) => Some(Value::Switch(on)),
        (None, settings::Fallback::Told(_)) => None,
    }
}

/// A value that may be seen.
fn shown(row: &Row) -> String {
    match &row.value {
        Some(value) => without_secret(row.setting, row.setting.shown(value)),
        None => format!("({})", row.setting.shown_default()),
    }
}

/// A URI may have been given where none belongs.
fn without_secret(setting: &Setting, text: String) -> String {
    if setting.is_secret() || has_secret(&text) { redact(&text) } else { text }
}

fn from(global: &Global, setting: &Setting, origin: Origin) -> String {
    match (origin, global.file()) {
        (Origin::Flag, _) => setting.flag(),
        (Origin::Variable, _) => setting.variable.to_owned(),
        (Origin::File, Some(file)) => file.display().to_string(),
        (origin, _) => origin.as_str().to_owned(),
    }
}

fn json_of(row: &Row) -> Json {
    let Row { setting, value, origin, asked } = row;
    let value = match value {
        None => Json::Null,
        Some(Value::Number(n)) if !matches!(setting.kind, settings::Kind::Duration(..)) => json!(n),
        Some(Value::Switch(on)) => json!(on),
        Some(Value::List(names)) => {
            json!(
                names.iter().map(|name| without_secret(setting, name.clone())).collect::<Vec<_>>()
            )
        }
        Some(_) => json!(shown(row)),
    };
    json!({
        "setting": setting.name,
        "value": value,
        "origin": origin.as_str(),
        "default": setting.shown_default(),
        "scope": setting.scope().as_str(),
        "flag": setting.flag(),
        "variable": setting.variable,
        "key": setting.is_in_file().then(|| setting.key()),
        "database_asked": asked,
    })
}
