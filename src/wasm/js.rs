//! The JavaScript guest: an interpreter that is itself a guest and takes its functions as text.

use std::sync::OnceLock;

use bson::raw::{RawDocumentBuf, cstr};

use super::abi::{Stage, StageSet};

/// The module that ships inside the program.
pub static JS_GUEST: &[u8] = include_bytes!("../../guests/js/quickjs.wasm");

/// The digest of [`JS_GUEST`], by which it is loaded.
pub fn js_guest_digest() -> &'static blake3::Hash {
    static DIGEST: OnceLock<blake3::Hash> = OnceLock::new();
    DIGEST.get_or_init(|| blake3::hash(JS_GUEST))
}

/// JavaScript sources, one function expression or program a stage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Script {
    /// Called for each document, as `this`; calls `emit(key, value)`.
    pub map: Option<String>,
    /// Called with a key and its values, on the mapping side.
    pub combine: Option<String>,
    /// Called with a key and its values.
    pub reduce: Option<String>,
    /// Called with a key and its result.
    pub finalize: Option<String>,
}

impl Script {
    /// The source of a stage.
    #[must_use]
    pub fn source(&self, stage: Stage) -> Option<&str> {
        match stage {
            Stage::Map => self.map.as_deref(),
            Stage::Combine => self.combine.as_deref(),
            Stage::Reduce => self.reduce.as_deref(),
            Stage::Finalize => self.finalize.as_deref(),
        }
    }

    /// The stages that have a source.
    #[must_use]
    pub fn stages(&self) -> StageSet {
        let given = |stage: &Stage| self.source(*stage).is_some();
        Stage::ALL.into_iter().filter(given).collect()
    }

    /// The BSON document that the guest is given.
    pub(crate) fn to_bson(&self) -> Vec<u8> {
        let mut document = RawDocumentBuf::new();
        for stage in Stage::ALL {
            let Some(source) = self.source(stage) else {
                continue;
            };
            match stage {
                Stage::Map => document.append(cstr!("map"), source),
                Stage::Combine => document.append(cstr!("combine"), source),
                Stage::Reduce => document.append(cstr!("reduce"), source),
                Stage::Finalize => document.append(cstr!("finalize"), source),
            }
        }
        document.into_bytes()
    }
}
