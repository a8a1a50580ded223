//! What a daemon finds out about a deployment's databases.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Bound;

use crate::error::Result;
use crate::store::Store;
use crate::store::retry::{self, within};

/// Databases without Aviary's collections that are looked into at one time, after the first.
const LOOKED_INTO: usize = 3;

/// Which of them have Aviary's collections.
#[derive(Default)]
pub(super) struct Known {
    with: BTreeSet<String>,
    /// The others, the one longest not looked into first.
    without: VecDeque<String>,
    has_looked: bool,
    /// The one of the former that was looked into last.
    checked: String,
    looks: u32,
}

impl Known {
    /// The names of those that have Aviary's collections; nothing where the deployment does not say.
    pub(super) async fn look(&mut self, store: &Store) -> Option<BTreeSet<String>> {
        /// How many looks one that has them is trusted for: it may have been emptied.
        const CHECKED_EVERY: u32 = 5;
        let names =
            ask(store, "list the databases", |store| async move { store.database_names().await });
        let names: BTreeSet<String> = names.await?.into_iter().collect();
        self.with.retain(|name| names.contains(name));
        self.without.retain(|name| names.contains(name));
        let is_new = |name: &&String| !self.with.contains(*name) && !self.without.contains(*name);
        let new: Vec<String> = names.iter().filter(is_new).cloned().collect();
        // New ones first.
        let most = new.len() + if self.has_looked { LOOKED_INTO } else { 0 };
        for name in new.into_iter().rev() {
            self.without.push_front(name);
        }
        for _ in 0..most.min(self.without.len()) {
            let Some(name) = self.without.pop_front() else { break };
            match has_aviary(store, &name).await {
                Some(true) => {
                    self.with.insert(name);
                }
                _ => self.without.push_back(name),
            }
        }
        self.looks = self.looks.wrapping_add(1);
        if self.has_looked && (self.with.len() < 3 || self.looks.is_multiple_of(CHECKED_EVERY)) {
            self.check_next(store).await;
        }
        self.has_looked = true;
        Some(self.with.clone())
    }

    async fn check_next(&mut self, store: &Store) {
        let later = (Bound::Excluded(&self.checked), Bound::Unbounded);
        let next = self.with.range::<String, _>(later).next().or_else(|| self.with.first());
        let Some(name) = next.cloned() else { return };
        if has_aviary(store, &name).await == Some(false) {
            self.with.remove(&name);
            self.without.push_back(name.clone());
        }
        self.checked = name;
    }
}

/// Whether a database has Aviary's collections; nothing where that cannot be found out.
pub(super) async fn has_aviary(store: &Store, name: &str) -> Option<bool> {
    let name = name.to_owned();
    let look = |store: Store| async move { store.has_aviary(&name).await };
    ask(store, "look for Aviary's collections", look).await
}

/// Asks something, for so long as an answer may take.
pub(super) async fn ask<T, Q, A>(store: &Store, what: &'static str, question: Q) -> Option<T>
where
    T: Send + 'static,
    Q: FnOnce(Store) -> A,
    A: Future<Output = Result<T>> + Send + 'static,
{
    match within(retry::ANSWER_MAX, what, question(store.clone())).await {
        Ok(answer) => Some(answer),
        Err(error) => {
            tracing::warn!(db = store.db_name(), %error, "could not {what}; trying again");
            None
        }
    }
}
