//! Reading what the owners of other databases have granted.

use std::collections::HashMap;

use bson::doc;
use bson::raw::RawDocumentBuf;

use super::Store;
use super::error::Action;
use crate::error::Result;
use crate::job::JobSpec;
use crate::job::authority::{GRANTS, Grant, needs, refuse_reserved};

impl Store {
    /// Makes sure that a job may touch what it names.
    ///
    /// # Errors
    /// [`crate::error::Error::Refused`] naming what is not granted, and how it is; [`crate::error::Error::Store`].
    pub async fn authorize(&self, spec: &JobSpec) -> Result<()> {
        refuse_reserved(spec)?;
        let mut grants: HashMap<String, Grant> = HashMap::new();
        for need in needs(spec, self.db_name(), &self.trusted) {
            let grant = match grants.get(&need.db) {
                Some(grant) => grant.clone(),
                None => self.grant(&need.db).await?,
            };
            if !grant.covers(&need) {
                return Err(need.refused(self.db_name()));
            }
            grants.insert(need.db, grant);
        }
        Ok(())
    }

    /// Whether jobs may have anything of their own in a database.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn may_write_in(&self, db: &str) -> Result<bool> {
        let own = db == self.db_name() || self.trusted.contains(db);
        Ok(own || !self.grant(db).await?.write.is_empty())
    }

    /// What another database grants to this one. A document that is no grant grants nothing.
    async fn grant(&self, db: &str) -> Result<Grant> {
        let found = self
            .other_db(db)
            .collection::<RawDocumentBuf>(GRANTS)
            .find_one(doc! { "_id": self.db_name() })
            .await
            .action(format!("read {db}.{GRANTS}"))
            .map_err(|e| self.explain(e))?;
        let grant =
            found.map(|raw| bson::deserialize_from_slice(raw.as_bytes()).unwrap_or_default());
        Ok(grant.unwrap_or_default())
    }
}
