//! The function catalogue's documents.

use bson::spec::BinarySubtype;
use bson::{Binary, DateTime, doc};
use futures_util::TryStreamExt;
use mongodb::Collection;
use serde::{Deserialize, Serialize};

use super::error::{Action, classify};
use super::{FUNCTIONS, Store};
use crate::error::{Result, StoreErrorKind};

/// A function as stored: found by the digest of its bytes, so equal content is stored once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredFunction {
    /// BLAKE3 of `content`, in hexadecimal.
    #[serde(rename = "_id")]
    pub digest: String,
    /// Always `function`.
    pub kind: String,
    /// `wasm` or `js`.
    pub language: String,
    /// The file it came from, for people.
    pub file: String,
    /// The stages it has; for JavaScript, empty: a script is whatever stage it is given for.
    pub stages: Vec<String>,
    /// Bytes of `content`.
    pub size: i64,
    /// When it was stored first.
    pub created: DateTime,
    /// The module's or script's bytes.
    pub content: Binary,
}

/// A row of a listing: everything but the content.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FunctionRow {
    /// The digest.
    #[serde(rename = "_id")]
    pub digest: String,
    /// `wasm` or `js`.
    pub language: String,
    /// The file it came from.
    pub file: String,
    /// The stages it has.
    pub stages: Vec<String>,
    /// Bytes.
    pub size: i64,
    /// When it was stored first.
    pub created: DateTime,
    /// Names that lead to it now.
    #[serde(default)]
    pub names: Vec<String>,
}

impl StoredFunction {
    /// Wraps content under its digest.
    pub fn new(language: &str, file: &str, stages: Vec<String>, content: Vec<u8>) -> Self {
        Self {
            digest: blake3::hash(&content).to_hex().to_string(),
            kind: "function".into(),
            language: language.into(),
            file: file.into(),
            stages,
            size: i64::try_from(content.len()).unwrap_or(i64::MAX),
            created: DateTime::now(),
            content: Binary { subtype: BinarySubtype::Generic, bytes: content },
        }
    }
}

impl Store {
    fn functions(&self) -> Collection<bson::Document> {
        self.database().collection(FUNCTIONS)
    }

    /// Stores a function unless its content is stored already. `true` when it was new.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn put_function(&self, function: &StoredFunction) -> Result<bool> {
        let written =
            self.functions().clone_with_type::<StoredFunction>().insert_one(function).await;
        match written {
            Ok(_) => Ok(true),
            Err(e) if classify(&e).kind == StoreErrorKind::DuplicateKey => Ok(false),
            Err(e) => Err(e).action("store a function").map_err(|e| self.explain(e)),
        }
    }

    /// Lets a name lead to a digest from now on.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn name_function(&self, name: &str, digest: &str) -> Result<()> {
        self.functions()
            .update_one(
                doc! { "_id": format!("name:{name}") },
                doc! {
                    "$set": { "kind": "name", "name": name, "digest": digest },
                    "$currentDate": { "set": true },
                },
            )
            .upsert(true)
            .await
            .action("name a function")?;
        Ok(())
    }

    /// Finds a function by name, digest or the beginning of a digest (at least six digits).
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn find_function(&self, text: &str) -> Result<Option<StoredFunction>> {
        const PREFIX_DIGITS_MIN: usize = 6;
        let named = self
            .functions()
            .find_one(doc! { "_id": format!("name:{text}") })
            .await
            .action("look up a function")?;
        if let Some(digest) = named.as_ref().and_then(|row| row.get_str("digest").ok()) {
            return self.function(digest).await;
        }
        if text.len() < PREFIX_DIGITS_MIN || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(None);
        }
        self.functions()
            .clone_with_type::<StoredFunction>()
            .find_one(
                doc! { "kind": "function", "_id": { "$gte": text, "$lt": format!("{text}g") } },
            )
            .await
            .action("look up a function")
    }

    /// Reads a function by its digest.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn function(&self, digest: &str) -> Result<Option<StoredFunction>> {
        self.functions()
            .clone_with_type::<StoredFunction>()
            .find_one(doc! { "_id": digest, "kind": "function" })
            .await
            .action("read a function")
    }

    /// Lists the catalogue, the youngest first.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn list_functions(&self) -> Result<Vec<FunctionRow>> {
        self.functions()
            .aggregate(vec![
                doc! { "$match": { "kind": "function" } },
                doc! { "$project": { "content": 0 } },
                doc! { "$lookup": {
                    "from": FUNCTIONS, "localField": "_id", "foreignField": "digest", "as": "named",
                } },
                doc! { "$addFields": { "names": "$named.name" } },
                doc! { "$project": { "named": 0 } },
                doc! { "$sort": { "created": -1 } },
            ])
            .with_type::<FunctionRow>()
            .await
            .action("list functions")?
            .try_collect()
            .await
            .action("list functions")
    }
}
