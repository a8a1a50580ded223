//! What a request wishes for, stored and checked.

use super::{Source, no_stage};
use crate::config;
use crate::error::{Error, Result};
use crate::job::FunctionRef;
use crate::request::document::{Built, FunctionWish};
use crate::store::Store;
use crate::wasm::{Stage, inspect_module};

/// Finds the function that a request asks for; one that comes with it is stored. Nothing of it is run: what is
/// wrong with a script shows when its first task runs.
///
/// # Errors
/// [`Error::Usage`], [`Error::NotFound`], [`Error::Refused`], [`Error::Store`].
pub async fn wished(store: &Store, wish: FunctionWish, stage: Stage) -> Result<FunctionRef> {
    let FunctionWish { js, wasm, name, digest, file, built } = wish;
    let shown = name.clone();
    let text = match (js, wasm, name, digest) {
        (Some(text), None, None, None) if built.is_none() => {
            let file = file.unwrap_or_else(|| "inline text".to_owned());
            let source = Source::script(&file, file.clone(), text.into_bytes())?;
            return source.store(store).await;
        }
        (None, Some(module), None, None) => {
            return wished_module(store, module.bytes, stage, file, built).await;
        }
        // With a digest, a name is for people.
        (None, None, Some(text), None) | (None, None, _, Some(text))
            if file.is_none() && built.is_none() =>
        {
            text
        }
        _ => {
            return Err(Error::Usage(format!(
                "{stage} has one of js, wasm, name or digest; file goes with the first two, built with wasm"
            )));
        }
    };
    let found = store.find_function(&text).await?.ok_or_else(|| Error::NotFound {
        what: format!("function {text}"),
        hint: "it is no name or digest in the catalogue".into(),
    })?;
    if found.language != "js" && !found.stages.contains(&stage.to_string()) {
        return Err(no_stage(&text, stage, &found.stages));
    }
    let name = Some(shown.unwrap_or(text));
    Ok(FunctionRef { digest: found.digest, language: found.language, name })
}

async fn wished_module(
    store: &Store,
    content: Vec<u8>,
    stage: Stage,
    file: Option<String>,
    built: Option<Built>,
) -> Result<FunctionRef> {
    const LANGUAGE_BYTES_MAX: usize = 32;
    let file = file.unwrap_or_else(|| "inline module".to_owned());
    let memory_max = usize::try_from(config::GUEST_MEMORY_MB_MAX << 20).unwrap_or(usize::MAX);
    // No tenth of a second for a module of the greatest size, but more than a runtime's thread should be kept for.
    let mut source = tokio::task::spawn_blocking(move || {
        Source::inspected(&file, file.clone(), content, |content| {
            inspect_module(content, memory_max)
        })
    })
    .await
    .map_err(|e| Error::Internal(format!("looking at a module panicked: {e}")))??;
    if !source.stages.contains(&stage.to_string()) {
        return Err(no_stage(&source.file, stage, &source.stages));
    }
    let mut language = source.language.to_owned();
    if let Some(built) = built {
        let is_word = |text: &str| {
            text.len() <= LANGUAGE_BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic())
        };
        if built.language == "js" || built.language.is_empty() || !is_word(&built.language) {
            return Err(Error::Usage(
                "built.language is not the name of a compiled language".into(),
            ));
        }
        language = built.language;
        source.toolchain = built.toolchain;
        source.sources = built.sources.into_iter().map(|file| (file.name, file.text)).collect();
    }
    source.store_as(store, &language).await
}
