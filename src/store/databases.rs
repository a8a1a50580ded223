//! The databases of a deployment: which of them have Aviary's collections, and a store for each.

use std::sync::Arc;

use bson::doc;
use futures_util::TryStreamExt;

use super::error::Action;
use super::{AVIARY, Store};
use crate::error::Result;
use crate::request::REQUESTS;

/// Those of the server itself.
const OF_THE_SERVER: [&str; 3] = ["admin", "config", "local"];

/// Whether a database is none of the server's own.
#[must_use]
pub fn is_of_users(name: &str) -> bool {
    !OF_THE_SERVER.contains(&name)
}

impl Store {
    /// Whether it is bound to a database that can hold Aviary's collections: one that connected to any is not.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        is_of_users(self.db_name())
    }

    /// The same connection, bound to another database.
    #[must_use]
    pub fn of_database(&self, name: &str) -> Self {
        Self {
            db: self.other_db(name),
            direct: self.direct.as_ref().map(|direct| Arc::new(direct.of_database(name))),
            avoided: Arc::default(),
            open_jobs: Arc::default(),
            accounts: Arc::default(),
            natural: Arc::default(),
            ..self.clone()
        }
    }

    /// Whether a coordinator has something to do in the database: requests without an answer, jobs that have not ended,
    /// or that have not been cleaned up after.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn has_work(&self) -> Result<bool> {
        if !self.jobs_to_tend(None).await?.is_empty() {
            return Ok(true);
        }
        for collection in self.request_collections().await? {
            if !self.unanswered(&collection, &[]).await?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The names of all databases that this user may do something in, but for those of the server itself.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn database_names(&self) -> Result<Vec<String>> {
        let mut names = self
            .client
            .list_database_names()
            .authorized_databases(true)
            .await
            .action("list the databases")?;
        names.retain(|name| is_of_users(name));
        names.sort_unstable();
        Ok(names)
    }

    /// Whether somebody has run `aviary init` on a database, as far as this user can see.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn has_aviary(&self, name: &str) -> Result<bool> {
        const ACTION: &str = "look for Aviary's collections";
        // With only names asked for, those that the user may read are enough to be allowed to ask.
        let command = doc! {
            "listCollections": 1,
            "filter": { "name": { "$in": [AVIARY, REQUESTS] } },
            "nameOnly": true,
            "authorizedCollections": true,
        };
        let found = self.client.database(name).run_cursor_command(command).await.action(ACTION)?;
        let found: Vec<bson::Document> = found.try_collect().await.action(ACTION)?;
        let has = |wanted: &str| {
            found.iter().any(|one| one.get_str("name").is_ok_and(|name| name == wanted))
        };
        Ok(has(AVIARY) && has(REQUESTS))
    }
}
