//! What a flag names: a built-in, a function in the catalogue, or a file.

use std::path::Path;

use super::{CheckedFor, Source, named, no_stage, not_found};
use crate::error::{Error, Result};
use crate::job::FunctionRef;
use crate::request::document::FunctionWish;
use crate::store::Store;
use crate::wasm::{Host, Stage};

/// What no name of a function has, and every text of one.
const INLINE: [char; 6] = ['(', '{', '[', ' ', '\n', ';'];

/// What an argument of `--map`, `--reduce`, … turned out to be.
#[derive(Debug, Clone)]
pub enum Given {
    /// A file, read and checked but not stored yet.
    New(Source),
    /// In the catalogue already.
    Known(FunctionRef),
    /// Perhaps in the catalogue, which this user may not read.
    Named(String),
}

impl Given {
    /// Finds a function by path, name or digest, and makes sure that it has the stage.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Refused`].
    pub async fn find(
        store: Option<&Store>,
        host: &Host,
        text: &str,
        stage: Stage,
        job: &CheckedFor<'_>,
    ) -> Result<Self> {
        let path = Path::new(text);
        if path.is_file() {
            let source = Source::read(host, path)?;
            source.check_stage(host, stage, job).await?;
            return Ok(Self::New(source));
        }
        let found = match store {
            Some(store) => match store.find_function(text).await {
                Err(Error::NotPermitted { .. }) if !text.contains(INLINE) => {
                    return Ok(Self::Named(text.to_owned()));
                }
                Err(Error::NotPermitted { .. }) => None,
                found => found?,
            },
            None => None,
        };
        let Some(found) = found else {
            if text.contains(INLINE) {
                let content = text.as_bytes().to_vec();
                let source = Source::script("the text", "inline text".to_owned(), content)?;
                source.check_stage(host, stage, job).await?;
                return Ok(Self::New(source));
            }
            return Err(not_found(text));
        };
        if found.language != "js" && !found.stages.contains(&stage.to_string()) {
            return Err(no_stage(text, stage, &found.stages));
        }
        Ok(Self::Known(FunctionRef {
            digest: found.digest,
            language: found.language,
            name: Some(text.to_owned()),
        }))
    }

    /// Stores it if it is new.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn stored(&self, store: &Store) -> Result<FunctionRef> {
        match self {
            Self::New(source) => source.store(store).await,
            Self::Known(known) => Ok(known.clone()),
            Self::Named(name) => Ok(named(name)),
        }
    }

    /// As a request names it. What has been named before, by its digest, is not sent twice.
    pub fn wish(&self, sent: &mut Vec<String>) -> FunctionWish {
        let of = |digest: String, name: Option<String>| FunctionWish {
            digest: Some(digest),
            name,
            ..FunctionWish::default()
        };
        match self {
            Self::Known(known) => of(known.digest.clone(), known.name.clone()),
            Self::Named(name) => {
                FunctionWish { name: Some(name.clone()), ..FunctionWish::default() }
            }
            Self::New(source) => {
                let digest = source.digest();
                if sent.contains(&digest) {
                    return of(digest, Some(source.file.clone()));
                }
                sent.push(digest);
                source.wish()
            }
        }
    }

    /// Its digest, if it is in the catalogue already.
    pub fn digest_if_known(&self) -> Option<&str> {
        match self {
            Self::Known(known) => Some(&known.digest),
            Self::New(_) | Self::Named(_) => None,
        }
    }

    /// Bytes that a request has for it.
    pub fn bytes(&self) -> usize {
        match self {
            Self::New(source) => {
                let sources = source.sources.iter().map(|(name, text)| name.len() + text.len());
                source.content.len() + sources.sum::<usize>()
            }
            Self::Known(_) | Self::Named(_) => 0,
        }
    }
}
