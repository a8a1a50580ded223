//! Names of functions: which digest one leads to now, and which it led to before.

use bson::raw::RawDocumentBuf;
use bson::{Document, doc};
use futures_util::TryStreamExt;

use super::documents::{FunctionName, FunctionRow, NameVersion, StoredFunction};
use crate::config;
use crate::error::{Error, Result};
use crate::store::Store;
use crate::store::error::Action;
use crate::store::readable::{Listed, list, read_one};

impl Store {
    /// Lets a name lead to a digest from now on, and returns the name's version: one more than before
    /// when it led elsewhere.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn name_function(&self, name: &str, digest: &str) -> Result<i32> {
        let same = doc! { "$eq": ["$digest", digest] };
        let earlier = doc! { "$ifNull": ["$earlier", []] };
        let left = doc! { "digest": "$digest", "version": "$version", "set": "$set" };
        // A version that was removed is never given again: somebody may still ask for it.
        let highest = doc! { "$max": ["$version", "$highest", 0] };
        let version = doc! { "$add": [highest, 1] };
        let kept = -i32::try_from(config::NAME_VERSIONS_MAX).unwrap_or(i32::MAX);
        let update = vec![doc! { "$set": {
            "kind": "name",
            "name": { "$literal": name },
            "digest": digest,
            "earlier": { "$cond": [
                same.clone(),
                earlier.clone(),
                { "$cond": [
                    { "$eq": [{ "$type": "$digest" }, "missing"] },
                    [],
                    { "$slice": [{ "$concatArrays": [earlier, [left]] }, kept] },
                ] },
            ] },
            "version": { "$cond": [same.clone(), "$version", version] },
            "set": { "$cond": [same, "$set", "$$NOW"] },
        } }];
        let named = self
            .functions()
            .find_one_and_update(doc! { "_id": name_id(name) }, update)
            .upsert(true)
            .return_document(mongodb::options::ReturnDocument::After)
            .await
            .action("name a function")
            .map_err(|e| self.explain(e))?;
        Ok(named.and_then(|named| named.get_i32("version").ok()).unwrap_or(1))
    }

    /// Finds a function by name, by `name@version`, by digest or by the beginning of a digest (at least six
    /// digits).
    ///
    /// # Errors
    /// [`Error::Refused`] for the beginning of several digests, [`crate::error::Error::Store`].
    pub async fn find_function(&self, text: &str) -> Result<Option<StoredFunction>> {
        match self.resolve_function(text).await? {
            Some(digest) => self.function(&digest).await,
            None => Ok(None),
        }
    }

    async fn resolve_function(&self, text: &str) -> Result<Option<String>> {
        const PREFIX_DIGITS_MIN: usize = 6;
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => match version.parse::<i32>() {
                Ok(version) => (name, Some(version)),
                Err(_) => return Ok(None),
            },
            None => (text, None),
        };
        if let Some(named) = self.function_name(name).await? {
            return Ok(match version {
                Some(version) if version != named.version => {
                    named.earlier.into_iter().find(|e| e.version == version).map(|e| e.digest)
                }
                _ => Some(named.digest),
            });
        }
        let is_digest = text.len() >= PREFIX_DIGITS_MIN
            && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !is_digest {
            return Ok(None);
        }
        let filter =
            doc! { "kind": "function", "_id": { "$gte": text, "$lt": format!("{text}g") } };
        let found: Vec<Document> = self
            .functions()
            .find(filter)
            .projection(doc! { "_id": 1 })
            .limit(2)
            .await
            .action("look up a function")?
            .try_collect()
            .await
            .action("look up a function")?;
        if found.len() > 1 {
            return Err(Error::refused(
                format!("{text} is the beginning of several digests"),
                "give more of its digits",
            ));
        }
        Ok(found.first().and_then(|row| row.get_str("_id").ok()).map(str::to_owned))
    }

    async fn function_name(&self, name: &str) -> Result<Option<FunctionName>> {
        let found = self
            .functions()
            .clone_with_type::<RawDocumentBuf>()
            .find_one(doc! { "_id": name_id(name) })
            .await
            .action("look up a function")?;
        read_one("the name", found)
    }

    pub(super) async fn forget_version(&self, name: &FunctionName, digest: &str) -> Result<()> {
        let id = doc! { "_id": name_id(&name.name), "digest": &name.digest };
        let left: Vec<&NameVersion> = name.earlier.iter().filter(|e| e.digest != digest).collect();
        let serialised = |versions: &[&NameVersion]| {
            bson::serialize_to_bson(&versions)
                .map_err(|e| Error::Internal(format!("versions do not serialise: {e}")))
        };
        let action = "forget a function's name";
        if name.digest != digest {
            let set = doc! { "$set": { "earlier": serialised(&left)? } };
            self.functions().update_one(id, set).await.action(action)?;
        } else if let Some((last, before)) = left.split_last() {
            let set = doc! { "$set": {
                "digest": &last.digest,
                "version": last.version,
                "highest": name.highest.unwrap_or(0).max(name.version),
                "set": last.set,
                "earlier": serialised(before)?,
            } };
            self.functions().update_one(id, set).await.action(action)?;
        } else {
            self.functions().delete_one(id).await.action(action)?;
        }
        Ok(())
    }

    /// Lists the catalogue, the youngest first.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn list_functions(&self) -> Result<Listed<FunctionRow>> {
        let found = self
            .functions()
            .clone_with_type::<RawDocumentBuf>()
            .find(doc! { "kind": "function" })
            .projection(doc! { "content": 0, "sources": 0 })
            .sort(doc! { "created": -1, "_id": 1 })
            .await
            .action("list functions")?;
        let mut listed: Listed<FunctionRow> = list("function", found, "list functions").await?;
        let names = self
            .functions()
            .clone_with_type::<RawDocumentBuf>()
            .find(doc! { "kind": "name" })
            .sort(doc! { "_id": 1 })
            .await
            .action("list functions")?;
        let names: Listed<FunctionName> = list("the name", names, "list functions").await?;
        listed.unreadable.extend(names.unreadable);
        for row in &mut listed.rows {
            for name in &names.rows {
                if name.digest == row.digest {
                    row.names.push(name.name.clone());
                }
                let before = name.earlier.iter().filter(|e| e.digest == row.digest);
                row.names.extend(before.map(|e| format!("{}@{}", name.name, e.version)));
            }
        }
        Ok(listed)
    }
}

pub(super) fn name_id(name: &str) -> String {
    format!("name:{name}")
}
