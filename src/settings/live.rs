//! What a daemon goes by while it runs: what it was given itself, and what its database says now.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::{Chosen, Origin, Scope, Stored};
use crate::config::Settings;
use crate::error::Result;

/// The settings of a daemon. Clones share them.
#[derive(Debug, Clone)]
pub struct Live(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    own: Chosen,
    now: RwLock<Settings>,
    /// What was warned of.
    told: Mutex<BTreeSet<String>>,
}

impl Live {
    /// Those of a daemon that was given these itself, until it learns what its database says.
    ///
    /// # Errors
    /// [`crate::error::Error::Usage`] for settings that contradict each other.
    pub fn new(own: Chosen) -> Result<Self> {
        let now = RwLock::new(own.settings()?);
        Ok(Self(Arc::new(Inner { own, now, told: Mutex::default() })))
    }

    /// Those of a daemon that was given the same, for another database.
    #[must_use]
    pub fn again(&self) -> Self {
        let own = self.0.own.clone();
        let now = own.settings().unwrap_or_else(|_| self.now());
        Self(Arc::new(Inner { own, now: RwLock::new(now), told: Mutex::default() }))
    }

    /// The settings as they are now.
    #[must_use]
    pub fn now(&self) -> Settings {
        *self.0.now.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the database says. What cannot be used, and what the daemon was told otherwise, is warned of once.
    pub fn learn(&self, stored: &Stored) {
        let mut all = self.0.own.clone();
        all.offer_all(Origin::Database, &stored.values);
        let Ok(settings) = all.settings() else { return };
        let before = std::mem::replace(
            &mut *self.0.now.write().unwrap_or_else(PoisonError::into_inner),
            settings,
        );
        if before != settings {
            tracing::info!(?settings, "the deployment's settings have changed");
        }
        for warning in self.disagreements(stored).into_iter().chain(stored.problems.iter().cloned())
        {
            let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
            // A document that changes all the time must not fill the memory.
            const TOLD_MAX: usize = 100;
            if told.len() < TOLD_MAX && told.insert(warning.clone()) {
                tracing::warn!("{warning}");
            }
        }
    }

    /// Where this daemon was told otherwise than the others.
    fn disagreements(&self, stored: &Stored) -> Vec<String> {
        let differing = stored.values.iter().filter(|(setting, value)| {
            setting.scope() == Scope::Deployment
                && self.0.own.get(setting.name).is_some_and(|own| own != value)
        });
        let told = differing.map(|(setting, value)| {
            let own = self.0.own.get(setting.name).unwrap_or(value);
            let origin = self.0.own.origin(setting.name);
            format!(
                "{} is {} for this daemon, from its {}, and {} in the database, which other daemons go by",
                setting.name,
                setting.shown(own),
                origin.as_str(),
                setting.shown(value)
            )
        });
        told.collect()
    }
}
