//! The function catalogue's documents.
//!
//! A function is found by the BLAKE3 of its bytes, so equal content is stored once. Three kinds of document
//! live in the collection: `function` (manifest, source and bytes), `chunk` (a part of bytes that do not fit
//! beside their manifest) and `name` (which digest a name leads to now, and which it led to before). Chunks are written
//! before their function and removed after it, and belong to this one writing of it: a function that can be found
//! is whole, whoever removes and stores it at the same time.
//!
//! A function that is to be removed is marked first. Workers still find it; whoever submits a job takes it for
//! gone, and whoever stores it again takes the mark away. Only while it is marked, and no job needs it, it goes.

use bson::raw::RawDocumentBuf;
use bson::spec::BinarySubtype;
use bson::{Binary, DateTime, Document, doc};
use futures_util::TryStreamExt;
use mongodb::Collection;
use serde::{Deserialize, Serialize};

use super::error::{Action, classify};
use super::readable::{Listed, list, read_one};
use super::retry::until_known;
use super::{FUNCTIONS, Store};
use crate::config;
use crate::error::{Error, Result, StoreErrorKind};
use crate::ids::Token;
use crate::job::JobState;
use crate::job::limits::{FUNCTION_CHUNKS_MAX, Over, within};

/// A function as stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredFunction {
    /// BLAKE3 of `content`, in hexadecimal.
    #[serde(rename = "_id")]
    pub digest: String,
    /// Always `function`.
    pub kind: String,
    /// What it was written in: `js`, `wasm`, `go`, …
    pub language: String,
    /// The file it came from, for people.
    pub file: String,
    /// The stages it has; for JavaScript, empty: a script is whatever stage it is given for.
    pub stages: Vec<String>,
    /// Bytes of `content`.
    pub size: i64,
    /// When it was stored first.
    pub created: DateTime,
    /// What built it, with its version; nothing for what needed no building.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toolchain: Option<String>,
    /// The text it was built from, for people who want to know what ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceFile>,
    /// How many chunks hold the content, when it is not here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunks: Option<i32>,
    /// What the names of these chunks have in common, and those of no other writing of the same content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writing: Option<String>,
    /// The module's or script's bytes; empty as long as they are in chunks.
    pub content: Binary,
}

/// A file that a function was built from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// The file's name, without its directory.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// A part of a function's bytes.
#[derive(Debug, Serialize, Deserialize)]
struct Chunk {
    #[serde(rename = "_id")]
    id: String,
    kind: String,
    /// The digest of the whole.
    function: String,
    writing: String,
    n: i32,
    content: Binary,
}

/// What a name leads to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FunctionName {
    /// The name.
    pub name: String,
    /// The digest it leads to now.
    pub digest: String,
    /// Which version that is, from 1.
    pub version: i32,
    /// The highest version it ever had, if that was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub highest: Option<i32>,
    /// Since when.
    pub set: DateTime,
    /// What it led to before, the oldest first; at most [`config::NAME_VERSIONS_MAX`].
    #[serde(default)]
    pub earlier: Vec<NameVersion>,
}

/// What a name led to before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NameVersion {
    /// The digest.
    pub digest: String,
    /// The version.
    pub version: i32,
    /// Since when.
    pub set: DateTime,
}

/// A row of a listing: everything but content and source.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FunctionRow {
    /// The digest.
    #[serde(rename = "_id")]
    pub digest: String,
    /// What it was written in.
    pub language: String,
    /// The file it came from.
    pub file: String,
    /// The stages it has.
    pub stages: Vec<String>,
    /// Bytes.
    pub size: i64,
    /// When it was stored first.
    pub created: DateTime,
    /// What built it.
    #[serde(default)]
    pub toolchain: Option<String>,
    /// Names that lead to it, now (`name@3`) or before.
    #[serde(default)]
    pub names: Vec<String>,
}

impl StoredFunction {
    /// Wraps content under its digest.
    pub fn new(language: &str, file: &str, stages: Vec<String>, content: Vec<u8>) -> Self {
        Self {
            digest: digest_of(&content),
            kind: "function".into(),
            language: language.into(),
            file: file.into(),
            stages,
            size: i64::try_from(content.len()).unwrap_or(i64::MAX),
            created: DateTime::now(),
            toolchain: None,
            sources: Vec::new(),
            chunks: None,
            writing: None,
            content: binary(content),
        }
    }

    /// Adds what it was built from, and by what.
    #[must_use]
    pub fn built(mut self, toolchain: Option<String>, sources: Vec<SourceFile>) -> Self {
        self.toolchain = toolchain;
        self.sources = sources;
        self
    }

    /// Whether the bytes are the ones that the digest was made of.
    pub fn is_intact(&self) -> bool {
        digest_of(&self.content.bytes) == self.digest
    }

    /// The document to be stored and the chunks to be stored before it.
    fn parts(&self) -> (Self, Vec<Chunk>) {
        let beside: usize = self.sources.iter().map(|s| s.name.len() + s.text.len()).sum();
        if self.content.bytes.len() + beside <= config::FUNCTION_CHUNK_BYTES {
            return (self.clone(), Vec::new());
        }
        let writing = Token::generate().to_string();
        let chunks = (0..).zip(self.content.bytes.chunks(config::FUNCTION_CHUNK_BYTES));
        let chunks: Vec<Chunk> = chunks
            .map(|(n, bytes)| Chunk {
                id: chunk_id(&self.digest, &writing, n),
                kind: "chunk".into(),
                function: self.digest.clone(),
                writing: writing.clone(),
                n,
                content: binary(bytes.to_vec()),
            })
            .collect();
        let mut whole = self.clone();
        whole.chunks = i32::try_from(chunks.len()).ok();
        whole.writing = Some(writing);
        whole.content = binary(Vec::new());
        (whole, chunks)
    }
}

fn chunk_id(digest: &str, writing: &str, n: i32) -> String {
    format!("{digest}/{writing}/{n:04}")
}

fn digest_of(content: &[u8]) -> String {
    blake3::hash(content).to_hex().to_string()
}

fn binary(bytes: Vec<u8>) -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes }
}

impl Store {
    fn functions(&self) -> Collection<Document> {
        self.database().collection(FUNCTIONS)
    }

    /// Stores a function unless its content is stored already. `true` when it was new.
    ///
    /// Content that was damaged since is replaced.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn put_function(&self, function: &StoredFunction) -> Result<bool> {
        if let Some(known) = self.function(&function.digest).await?
            && known.is_intact()
            && self.keep_function(&function.digest).await?
        {
            return Ok(false);
        }
        let (whole, chunks) = function.parts();
        for chunk in &chunks {
            self.functions()
                .clone_with_type::<Chunk>()
                .insert_one(chunk)
                .await
                .action("store a part of a function")
                .map_err(|e| self.explain(e))?;
        }
        let written = self
            .functions()
            .clone_with_type::<StoredFunction>()
            .replace_one(doc! { "_id": &whole.digest }, &whole)
            .upsert(true)
            .await;
        match written {
            Ok(outcome) => Ok(outcome.upserted_id.is_some()),
            // Somebody else stored the same at the same time.
            Err(e) if classify(&e).kind == StoreErrorKind::DuplicateKey => Ok(false),
            Err(e) => Err(e).action("store a function").map_err(|e| self.explain(e)),
        }
    }

    /// Takes back that a function is to be removed; `false` when it is gone already.
    async fn keep_function(&self, digest: &str) -> Result<bool> {
        let kept = self
            .functions()
            .update_one(doc! { "_id": digest }, doc! { "$unset": { REMOVING: "" } })
            .await
            .action("keep a function")
            .map_err(|e| self.explain(e))?;
        Ok(kept.matched_count == 1)
    }

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

    /// Reads a function by its digest, with its bytes. Whether they are the right ones is for the caller
    /// to check ([`StoredFunction::is_intact`]).
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn function(&self, digest: &str) -> Result<Option<StoredFunction>> {
        let found = self
            .functions()
            .clone_with_type::<RawDocumentBuf>()
            .find_one(doc! { "_id": digest, "kind": "function" })
            .await
            .action("read a function")?;
        let found: Option<StoredFunction> = read_one("function", found)?;
        let Some(mut function) = found else { return Ok(None) };
        let chunks = function.chunks.unwrap_or(0);
        let of = |over: Over| {
            Error::refused(
                format!("function {digest}: {over}"),
                "the catalogue was tampered with or damaged: insert the function again",
            )
        };
        within("chunks", u64::try_from(chunks).unwrap_or(u64::MAX), FUNCTION_CHUNKS_MAX)
            .map_err(of)?;
        for n in 0..chunks {
            let found = self
                .functions()
                .clone_with_type::<RawDocumentBuf>()
                .find_one(
                    doc! { "_id": chunk_id(digest, function.writing.as_deref().unwrap_or(""), n) },
                )
                .await
                .action("read a part of a function")?;
            // A part that is missing shows in the digest.
            let Some(chunk) = read_one::<Chunk>("a part of a function", found)? else { break };
            function.content.bytes.extend_from_slice(&chunk.content.bytes);
        }
        let bytes = function.content.bytes.len() as u64;
        within("content", bytes, config::FUNCTION_BYTES_MAX as u64).map_err(of)?;
        Ok(Some(function))
    }

    /// Which of these digests the catalogue does not have, or not for long.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn missing_functions(&self, digests: &[String]) -> Result<Vec<String>> {
        let filter =
            doc! { "kind": "function", "_id": { "$in": digests }, REMOVING: { "$exists": false } };
        let found: Vec<Document> = self
            .functions()
            .find(filter)
            .projection(doc! { "_id": 1 })
            .await
            .action("look up functions")?
            .try_collect()
            .await
            .action("look up functions")?;
        let known: Vec<&str> = found.iter().filter_map(|row| row.get_str("_id").ok()).collect();
        let missing = digests.iter().filter(|digest| !known.contains(&digest.as_str()));
        Ok(missing.cloned().collect())
    }

    /// Keeps functions that a job needs, also those that are marked to go, and returns those that are gone.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn keep_functions(&self, digests: &[String]) -> Result<Vec<String>> {
        let mut gone = Vec::new();
        for digest in self.missing_functions(digests).await? {
            if !self.keep_function(&digest).await? {
                gone.push(digest);
            }
        }
        Ok(gone)
    }

    /// Jobs that have not ended and run this function, and requests for such, by id.
    ///
    /// # Errors
    /// [`crate::error::Error::Store`].
    pub async fn jobs_using(&self, digest: &str) -> Result<Vec<String>> {
        const SHOWN_MAX: i64 = 10;
        let ended: Vec<&str> =
            JobState::ALL.iter().filter(|s| s.is_terminal()).map(|s| s.as_str()).collect();
        let stages = ["map", "combine", "reduce.function", "finalize"];
        let any: Vec<Document> =
            stages.iter().map(|stage| doc! { format!("spec.{stage}.digest"): digest }).collect();
        let filter = doc! {
            "shard": self.home(), "kind": "job", "state": { "$nin": ended }, "$or": any,
        };
        let jobs: Vec<Document> = self
            .aviary()
            .clone_with_type::<Document>()
            .find(filter)
            .projection(doc! { "_id": 1 })
            .limit(SHOWN_MAX)
            .await
            .action("look for jobs of a function")?
            .try_collect()
            .await
            .action("look for jobs of a function")?;
        let mut using: Vec<String> =
            jobs.iter().filter_map(|job| job.get_str("_id").ok()).map(str::to_owned).collect();
        using.extend(self.requests_using(digest).await?);
        Ok(using)
    }

    /// Removes a function, and the versions of names that lead to it: a name goes back to the version before, or
    /// away with its last one. Refused while a job that has not ended needs the function.
    ///
    /// # Errors
    /// [`Error::Refused`] naming the jobs, [`crate::error::Error::Store`].
    pub async fn remove_function(&self, function: &StoredFunction) -> Result<()> {
        until_known(async |again| self.try_remove(function, again).await).await
    }

    async fn try_remove(&self, function: &StoredFunction, again: bool) -> Result<()> {
        let digest = &function.digest;
        self.refuse_used(digest).await?;
        let action = "remove a function";
        let this = doc! { "_id": digest };
        let marked = self.functions().update_one(this, doc! { "$set": { REMOVING: true } }).await;
        marked.action(action).map_err(|e| self.explain(e))?;
        // A job may have been submitted meanwhile; whoever submits looks after writing, as this does.
        if let Err(used) = self.refuse_used(digest).await {
            self.keep_function(digest).await?;
            return Err(used);
        }
        let still = doc! { "_id": digest, REMOVING: true };
        let gone = self.functions().delete_one(still).await.action(action)?;
        // An earlier try may have removed it; what is left are its names and parts.
        if gone.deleted_count == 0 && !(again && self.function(digest).await?.is_none()) {
            return Err(Error::refused(
                format!("function {digest} was stored again just now, or removed by somebody else"),
                "see aviary functions list",
            ));
        }
        let names = self
            .functions()
            .clone_with_type::<RawDocumentBuf>()
            .find(doc! { "kind": "name", "$or": [{ "digest": digest }, { "earlier.digest": digest }] })
            .await
            .action(action)?;
        for name in list::<FunctionName>("the name", names, action).await?.rows {
            self.forget_version(&name, digest).await?;
        }
        let parts = doc! { "kind": "chunk", "function": digest, "writing": &function.writing };
        self.functions().delete_many(parts).await.action(action)?;
        Ok(())
    }

    async fn refuse_used(&self, digest: &str) -> Result<()> {
        let jobs = self.jobs_using(digest).await?;
        if jobs.is_empty() {
            return Ok(());
        }
        Err(Error::refused(
            format!("function {digest} is needed by {}", jobs.join(", ")),
            "wait for the job to end, or cancel it: aviary cancel JOB",
        ))
    }

    async fn forget_version(&self, name: &FunctionName, digest: &str) -> Result<()> {
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

/// The field by which a function that is to be removed is marked.
const REMOVING: &str = "removing";

fn name_id(name: &str) -> String {
    format!("name:{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_beside_its_manifest_is_cut_up_and_whole_again() {
        let bytes: Vec<u8> = (0..config::FUNCTION_CHUNK_BYTES * 2 + 1).map(|n| n as u8).collect();
        let function = StoredFunction::new("wasm", "big.wasm", vec!["map".into()], bytes.clone());
        let (whole, chunks) = function.parts();
        assert_eq!((whole.chunks, whole.content.bytes.len()), (Some(3), 0));
        assert_eq!(whole.size, bytes.len() as i64);
        let together: Vec<u8> = chunks.into_iter().flat_map(|c| c.content.bytes).collect();
        assert_eq!(together, bytes);

        let small = StoredFunction::new("wasm", "small.wasm", Vec::new(), bytes[..100].to_vec());
        let (whole, chunks) = small.parts();
        assert!(chunks.is_empty() && whole.chunks.is_none() && whole.is_intact());
    }

    #[test]
    fn large_sources_push_the_content_into_chunks() {
        let text = "x".repeat(config::SOURCE_BYTES_MAX);
        let sources = vec![SourceFile { name: "a.go".into(), text }];
        let content = vec![0; config::FUNCTION_CHUNK_BYTES - 10];
        let function = StoredFunction::new("go", "a.go", Vec::new(), content).built(None, sources);
        let (whole, chunks) = function.parts();
        assert_eq!(chunks.len(), 1);
        let bytes = bson::serialize_to_vec(&whole).unwrap().len();
        assert!(bytes < 16 << 20);
    }
}
