//! The settings of a deployment as its database holds them.
//!
//! `aviary config set` writes only what is valid, but whoever may write to Aviary's collections can write anything. What
//! is no value of its setting counts as not written.

use bson::{Bson, Document};

use super::file::Values;
use super::{Origin, Scope, table};

/// The field of the document that holds the values, by their keys.
pub const VALUES: &str = "values";

/// What the database holds.
#[derive(Debug, Clone, Default)]
pub struct Stored {
    /// What can be used.
    pub values: Values,
    /// What cannot, each with what to do.
    pub problems: Vec<String>,
}

impl Stored {
    /// Reads the document.
    #[must_use]
    pub fn of(document: &Document) -> Self {
        let values = match document.get(VALUES) {
            Some(Bson::Document(values)) => values,
            None => return Self::default(),
            Some(_) => return Self::unreadable("it has no document of values"),
        };
        let mut stored = Self::default();
        for setting in table::ALL.iter().filter(|s| s.scope() == Scope::Deployment) {
            let Some(given) = values.get(setting.key()) else { continue };
            match setting.typed(given, &Origin::Database.place(setting, None)) {
                Ok(Some(value)) => stored.values.push((setting, value)),
                Ok(None) => {}
                Err(error) => stored.problems.push(format!(
                    "{error}; the next place or the default counts instead: run aviary config set {0} VALUE, or aviary \
                     config unset {0}",
                    setting.name
                )),
            }
        }
        let known =
            |key: &str| table::ALL.iter().any(|s| s.scope() == Scope::Deployment && s.key() == key);
        let unknown = values.keys().filter(|key| !known(key)).count();
        if unknown > 0 {
            stored.problems.push(format!(
                "{unknown} of the database's settings are unknown to this version of aviary and passed over; a newer one \
                 may have written them"
            ));
        }
        stored
    }

    /// A document that is none of settings.
    #[must_use]
    pub fn unreadable(why: &str) -> Self {
        let problem = format!(
            "the database's settings cannot be read, since {why}; the defaults count instead: run aviary config set for \
             what should be otherwise"
        );
        Self { values: Values::new(), problems: vec![problem] }
    }
}
