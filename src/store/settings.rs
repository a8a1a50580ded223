//! The document that holds what every daemon of a deployment shares; what it means is told in [`crate::settings`].

use std::time::Duration;

use bson::raw::RawDocumentBuf;
use bson::{Bson, Document, doc};

use super::error::Action;
use super::retry::within;
use super::{Store, shape};
use crate::error::Result;
use crate::settings::file::Values;
use crate::settings::stored::VALUES;
use crate::settings::{Live, Setting, Stored};

/// The `_id` of the document, and its kind.
pub(super) const SETTINGS: &str = "settings";

impl Store {
    /// What the database says of the deployment's settings.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`]; not for a document that is not as it should be.
    pub async fn deployment_settings(&self) -> Result<Stored> {
        let found = self
            .aviary()
            .clone_with_type::<RawDocumentBuf>()
            .find_one(self.this_document())
            .await
            .action("read the deployment's settings")
            .map_err(|e| self.explain(e))?;
        let Some(raw) = found else { return Ok(Stored::default()) };
        if let Err(why) = shape::check(raw.as_bytes()) {
            return Ok(Stored::unreadable(&why));
        }
        Ok(match bson::deserialize_from_slice::<Document>(raw.as_bytes()) {
            Ok(document) => Stored::of(&document),
            Err(error) => Stored::unreadable(&error.to_string()),
        })
    }

    /// Has a daemon's settings follow what the database says, if that comes within `limit`. What it cannot learn now it
    /// learns the next time.
    pub async fn learn_settings(&self, settings: &Live, limit: Duration) {
        let store = self.clone();
        let asking = async move { store.deployment_settings().await };
        match within(limit, "read the deployment's settings", asking).await {
            Ok(stored) => settings.learn(&stored),
            Err(error) => tracing::warn!(%error, "could not read the deployment's settings"),
        }
    }

    /// Writes settings, and leaves the others as they are. It can be repeated.
    ///
    /// # Errors
    /// [`crate::error::Error::NotPermitted`], [`crate::error::Error::Store`].
    pub async fn set_settings(&self, values: &Values) -> Result<()> {
        let mut set = Document::new();
        for (setting, value) in values {
            set.insert(setting.key(), setting.stored(value));
        }
        self.change_settings(vec![
            doc! { "$set": { VALUES: { "$mergeObjects": [values_now(), { "$literal": set }] } } },
        ])
        .await
    }

    /// Has the default count again.
    ///
    /// # Errors
    /// Those of [`set_settings`](Self::set_settings).
    pub async fn unset_setting(&self, setting: &Setting) -> Result<()> {
        self.change_settings(vec![
            doc! { "$set": { VALUES: values_now() } },
            doc! { "$unset": format!("{VALUES}.{}", setting.key()) },
        ])
        .await
    }

    async fn change_settings(&self, mut change: Vec<Document>) -> Result<()> {
        change.push(doc! { "$set": { "kind": SETTINGS, "changed": "$$NOW" } });
        self.aviary()
            .update_one(self.this_document(), change)
            .upsert(true)
            .await
            .action("change the deployment's settings")
            .map_err(|e| self.explain(e))?;
        Ok(())
    }

    fn this_document(&self) -> Document {
        doc! { "_id": SETTINGS, "shard": self.home() }
    }
}

/// An expression: the values that are there, none where that is no document.
fn values_now() -> Bson {
    let field = format!("${VALUES}");
    doc! { "$cond": [{ "$eq": [{ "$type": &field }, "object"] }, &field, {}] }.into()
}
