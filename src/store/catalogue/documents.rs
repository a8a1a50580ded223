//! The documents of the catalogue.

use bson::spec::BinarySubtype;
use bson::{Binary, DateTime, doc};
use serde::{Deserialize, Serialize};

use crate::config;
use crate::ids::Token;

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
pub(super) struct Chunk {
    #[serde(rename = "_id")]
    id: String,
    kind: String,
    /// The digest of the whole.
    function: String,
    writing: String,
    n: i32,
    pub(super) content: Binary,
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
    pub(super) fn parts(&self) -> (Self, Vec<Chunk>) {
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

pub(super) fn chunk_id(digest: &str, writing: &str, n: i32) -> String {
    format!("{digest}/{writing}/{n:04}")
}

pub(super) fn digest_of(content: &[u8]) -> String {
    blake3::hash(content).to_hex().to_string()
}

fn binary(bytes: Vec<u8>) -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes }
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
