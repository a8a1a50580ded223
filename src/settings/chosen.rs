//! Which of the places that name a setting counts.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use super::table::{self, named};
use super::{Fallback, Group, Kind, Origin, Setting, Value};
use crate::config::{Caps, LEASE_MARGIN_MS, Settings};
use crate::error::Result;

/// What was chosen for each setting, and where.
#[derive(Debug, Clone, Default)]
pub struct Chosen(BTreeMap<&'static str, (Origin, Value)>);

impl Chosen {
    /// Takes a value from one of the places. It counts if none that goes before it has named the setting, in whichever
    /// order they are asked.
    pub fn offer(&mut self, setting: &'static Setting, origin: Origin, value: Value) {
        let is_stronger = self.0.get(setting.name).is_none_or(|(known, _)| *known <= origin);
        if is_stronger {
            self.0.insert(setting.name, (origin, value));
        }
    }

    /// Takes a value as text, from a flag or a variable.
    ///
    /// # Errors
    /// [`crate::error::Error::Usage`] naming the place and what is allowed.
    pub fn offer_text(
        &mut self,
        setting: &'static Setting,
        origin: Origin,
        given: &OsStr,
    ) -> Result<()> {
        if let Some(value) = setting.parse(given, &origin.place(setting, None))? {
            self.offer(setting, origin, value);
        }
        Ok(())
    }

    /// Takes what the environment says of the settings of a group.
    ///
    /// # Errors
    /// Those of [`offer_text`](Self::offer_text).
    pub fn offer_environment(&mut self, group: Group) -> Result<()> {
        for setting in table::ALL.iter().filter(|setting| setting.group == group) {
            if let Some(given) = std::env::var_os(setting.variable) {
                self.offer_text(setting, Origin::Variable, &given)?;
            }
        }
        Ok(())
    }

    /// Takes what several settings have in one place.
    pub fn offer_all<'a>(
        &mut self,
        origin: Origin,
        values: impl IntoIterator<Item = &'a (&'static Setting, Value)>,
    ) {
        for (setting, value) in values {
            self.offer(setting, origin, value.clone());
        }
    }

    /// What was chosen; nothing where the default holds.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).map(|(_, value)| value)
    }

    /// Where it was.
    #[must_use]
    pub fn origin(&self, name: &str) -> Origin {
        self.0.get(name).map_or(Origin::Default, |(origin, _)| *origin)
    }

    /// All that was chosen.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Setting, Origin, &Value)> {
        self.0.iter().filter_map(|(name, (origin, value))| Some((named(name)?, *origin, value)))
    }

    /// A number, or the default where that is one.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        match (self.get(name), named(name).map(|setting| setting.default)) {
            (Some(Value::Number(n)), _) => Some(*n),
            (_, Some(Fallback::Number(n))) => Some(n),
            _ => None,
        }
    }

    /// A text that was chosen.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        match self.get(name)? {
            Value::Text(text) => Some(text.to_string_lossy().into_owned()),
            _ => None,
        }
    }

    /// A path that was chosen.
    #[must_use]
    pub fn path(&self, name: &str) -> Option<&Path> {
        match self.get(name)? {
            Value::Text(text) => Some(Path::new(text)),
            _ => None,
        }
    }

    /// Names that were chosen.
    #[must_use]
    pub fn list(&self, name: &str) -> Vec<String> {
        match self.get(name) {
            Some(Value::List(names)) => names.clone(),
            _ => Vec::new(),
        }
    }

    /// What a daemon goes by.
    ///
    /// # Errors
    /// [`crate::error::Error::Usage`] for a cap on scripts above that on all queries.
    pub fn settings(&self) -> Result<Settings> {
        let number = |name| self.number(name).unwrap_or_default();
        let size = |name| usize::try_from(number(name)).unwrap_or(usize::MAX);
        let lease_ttl_ms = number(table::LEASE_TTL_MS);
        Ok(Settings {
            lease_ttl_ms,
            lease_margin_ms: (lease_ttl_ms / 6).min(LEASE_MARGIN_MS),
            poll_ms: number(table::POLL_MS),
            watch: !matches!(self.get(table::WATCH), Some(Value::Switch(false))),
            split_bytes: number(table::SPLIT_BYTES),
            natural_split_bytes: number(table::NATURAL_SPLIT_BYTES),
            one_task_bytes: number(table::ONE_TASK_BYTES),
            manifest_bytes_max: size(table::MANIFEST_BYTES),
            kept_bytes_max: size(table::KEPT_BYTES),
            retention: Duration::from_millis(number(table::RETENTION)),
            caps: self.caps()?,
        })
    }

    fn caps(&self) -> Result<Caps> {
        const SCRIPT: &str = "cap-script-time";
        let number = |name| self.number(name).unwrap_or_default();
        let query_time_ms = number("cap-query-time");
        let script_time_ms = match (self.get(SCRIPT), named(SCRIPT)) {
            (Some(Value::Number(given)), Some(setting)) if *given > query_time_ms => {
                let place = self.origin(SCRIPT).place(setting, None);
                return Err(setting.beyond(&place, *given, "above", query_time_ms));
            }
            _ => number(SCRIPT).min(query_time_ms),
        };
        Ok(Caps {
            memory_mb: number("cap-memory-mb"),
            record_timeout_ms: number("cap-record-timeout"),
            task_timeout_ms: number("cap-task-timeout"),
            record_output_bytes: number("cap-record-output"),
            log_bytes: number("cap-log-bytes"),
            partitions: number("cap-partitions"),
            query_time_ms,
            script_time_ms,
        })
    }
}

impl Setting {
    /// Whether its value is a path or a program that code below the command line looks for by its variable.
    #[must_use]
    pub fn is_place(&self) -> bool {
        self.group == Group::Rare && self.kind == Kind::Path
    }
}
