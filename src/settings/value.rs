//! What a setting's value may be, the same in every place that names it.

use std::ffi::{OsStr, OsString};
use std::time::Duration;

use bson::Bson;

use super::{Fallback, Kind, Setting};
use crate::error::{Error, Result};

/// A value that its setting takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A number; of a duration, milliseconds.
    Number(u64),
    /// On or off.
    Switch(bool),
    /// A text, or a path.
    Text(OsString),
    /// Several names.
    List(Vec<String>),
}

impl Setting {
    /// Reads a value from its text. `None` for one that is empty where that means none; `place` is what the setting is
    /// called there.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the place and what is allowed.
    pub fn parse(&self, given: &OsStr, place: &str) -> Result<Option<Value>> {
        if matches!(self.kind, Kind::Path | Kind::Filter) {
            return Ok((!given.is_empty()).then(|| Value::Text(given.to_owned())));
        }
        let Some(text) = given.to_str() else {
            return Err(self.refused(place, &given.to_string_lossy()));
        };
        let value = match self.kind {
            Kind::Text | Kind::Uri if text.is_empty() => None,
            Kind::Text | Kind::Uri | Kind::Path | Kind::Filter => Some(Value::Text(text.into())),
            Kind::Choice(words) => words.contains(&text).then(|| Value::Text(text.into())),
            Kind::List => Some(Value::List(names(text))),
            Kind::Switch => match text {
                "" => return Ok(None),
                "1" | "true" | "on" => Some(Value::Switch(true)),
                "0" | "false" | "off" => Some(Value::Switch(false)),
                _ => None,
            },
            Kind::Number(..) => text.parse().ok().map(Value::Number),
            Kind::Duration(..) => milliseconds(text).map(Value::Number),
        };
        let value = value.ok_or_else(|| self.refused(place, text))?;
        self.in_range(value, place).map(Some)
    }

    /// Reads a value from the configuration file or from the database's document, which have types. `None` as for
    /// [`parse`](Self::parse).
    ///
    /// # Errors
    /// As there.
    pub fn typed(&self, given: &Bson, place: &str) -> Result<Option<Value>> {
        let value = match (self.kind, given) {
            (Kind::Number(..), Bson::Int32(n)) => u64::try_from(*n).ok().map(Value::Number),
            (Kind::Number(..), Bson::Int64(n)) => u64::try_from(*n).ok().map(Value::Number),
            // What mongosh writes for a number.
            (Kind::Number(..), Bson::Double(n)) => whole(*n).map(Value::Number),
            (Kind::Switch, Bson::Boolean(on)) => Some(Value::Switch(*on)),
            (Kind::List, Bson::Array(each)) => {
                let names: Option<Vec<_>> =
                    each.iter().map(|name| name.as_str().map(str::to_owned)).collect();
                names.map(Value::List)
            }
            (Kind::List, Bson::String(text)) => Some(Value::List(names(text))),
            (Kind::Number(..) | Kind::Switch | Kind::List, _) => None,
            (_, Bson::String(text)) => return self.parse(OsStr::new(text), place),
            _ => None,
        };
        let value = value.ok_or_else(|| self.refused(place, &told(given)))?;
        self.in_range(value, place).map(Some)
    }

    /// A value as the database's document has it.
    #[must_use]
    pub fn stored(&self, value: &Value) -> Bson {
        match value {
            Value::Number(n) if !matches!(self.kind, Kind::Duration(..)) => {
                Bson::Int64(i64::try_from(*n).unwrap_or(i64::MAX))
            }
            Value::Switch(on) => Bson::Boolean(*on),
            other => Bson::String(self.shown(other)),
        }
    }

    /// A value as a flag and a variable take it, and as it is shown: of a setting that is secret, nobody may see it.
    #[must_use]
    pub fn shown(&self, value: &Value) -> String {
        match value {
            Value::Number(ms) if matches!(self.kind, Kind::Duration(..)) => duration(*ms),
            Value::Number(n) => n.to_string(),
            Value::Switch(on) => if *on { "on" } else { "off" }.to_owned(),
            Value::Text(text) => text.to_string_lossy().into_owned(),
            Value::List(names) => names.join(","),
        }
    }

    /// The default as it is shown.
    #[must_use]
    pub fn shown_default(&self) -> String {
        match self.default {
            Fallback::Number(n) => self.shown(&Value::Number(n)),
            Fallback::Switch(on) => self.shown(&Value::Switch(on)),
            Fallback::Told(words) => words.to_owned(),
        }
    }

    /// What it takes, to go on behind "must be".
    #[must_use]
    pub fn allowed(&self) -> String {
        match self.kind {
            Kind::Text => "a text that is not empty".to_owned(),
            Kind::Uri => "a MongoDB URI".to_owned(),
            Kind::Path => "a path".to_owned(),
            Kind::Filter => "a filter of logs, like debug or aviary=debug".to_owned(),
            Kind::Choice(words) => format!("one of {}", words.join(", ")),
            Kind::List => {
                "names, with commas between; in a file, an array of strings too".to_owned()
            }
            Kind::Switch => "on or off (1, true; 0, false); in a file, true or false".to_owned(),
            Kind::Number(least, most) => format!("a whole number from {least} to {most}"),
            Kind::Duration(least, most) => {
                let range = match least {
                    0 => format!("up to {}", duration(most)),
                    least => format!("from {} to {}", duration(least), duration(most)),
                };
                format!("a number with a unit, like 10s or 5m, {range}")
            }
        }
    }

    fn in_range(&self, value: Value, place: &str) -> Result<Value> {
        let (Value::Number(n), Kind::Number(least, most) | Kind::Duration(least, most)) =
            (&value, self.kind)
        else {
            return Ok(value);
        };
        if *n > most {
            return Err(self.beyond(place, *n, "above", most));
        }
        if *n < least {
            return Err(self.beyond(place, *n, "below", least));
        }
        Ok(value)
    }

    /// A number that is out of range.
    pub(super) fn beyond(&self, place: &str, given: u64, which: &str, limit: u64) -> Error {
        let (given, limit) = (self.shown(&Value::Number(given)), self.shown(&Value::Number(limit)));
        Error::Usage(format!(
            "{place} {given} is {which} what is allowed at all, {limit}: give {}",
            self.allowed()
        ))
    }

    fn refused(&self, place: &str, given: &str) -> Error {
        const SHOWN_CHARS_MAX: usize = 100;
        // A connection string that was given as something else may hold a password.
        let is_hidden = self.is_secret() || given.contains("mongodb") && given.contains("://");
        let short: String = given.chars().take(SHOWN_CHARS_MAX).collect();
        let not = if is_hidden { String::new() } else { format!(", not {short:?}") };
        Error::Usage(format!("{place} must be {}{not}", self.allowed()))
    }
}

/// Names with commas between.
fn names(text: &str) -> Vec<String> {
    text.split(',').map(str::to_owned).collect()
}

fn milliseconds(text: &str) -> Option<u64> {
    let given: humantime::Duration = text.trim().parse().ok()?;
    Some(u64::try_from(Duration::from(given).as_millis()).unwrap_or(u64::MAX))
}

fn duration(ms: u64) -> String {
    /// A year of humantime's has a quarter of a day more than a calendar's.
    const DAY_MS: u64 = 86_400_000;
    if ms > DAY_MS && ms.is_multiple_of(DAY_MS) {
        return format!("{}days", ms / DAY_MS);
    }
    humantime::format_duration(Duration::from_millis(ms)).to_string()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is whole, and in range"
)]
fn whole(n: f64) -> Option<u64> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    (n.fract() == 0.0 && (0.0..=EXACT_MAX).contains(&n)).then_some(n as u64)
}

/// A value of the wrong type, for a message.
fn told(given: &Bson) -> String {
    match given {
        Bson::String(text) => text.clone(),
        Bson::Document(_) => "a document".to_owned(),
        Bson::Array(_) => "an array".to_owned(),
        other => other.to_string(),
    }
}
