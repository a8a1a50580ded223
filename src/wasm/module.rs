//! A compiled module: made once, instantiated for every task.

use std::any::{Any, TypeId};
use std::sync::{Arc, Mutex, PoisonError};

use wasmtime::{Engine, InstancePre, Linker, ModuleExport};

use super::abi::{
    EXPORT_ALLOC, EXPORT_INITIALIZE, EXPORT_JS_KNOWN, EXPORT_JS_LOAD, EXPORT_JS_STREAMS,
    EXPORT_JS_SUMS, EXPORT_MEMORY, EXPORT_SUMS, EXPORTS_STREAM, Stage,
};
use super::guest::Guest;
use super::inspect::ModuleInfo;
use super::sink::Sink;
use super::ticker::Ticker;
use super::{imports, wasi};

/// What modules and instances need of the host. The deadline thread lives as long as any of them.
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) ticker: Ticker,
    pub(crate) memory_bytes_max: usize,
    pub(crate) instances_max: u32,
}

/// A module that was checked and compiled. Clones share it.
#[derive(Clone)]
pub struct Module(Arc<Inner>);

struct Inner {
    digest: blake3::Hash,
    info: ModuleInfo,
    compiled: wasmtime::Module,
    exports: Exports,
    shared: Arc<Shared>,
    /// The module linked with the host's functions, once for each type of sink.
    linked: Mutex<Vec<(TypeId, Arc<dyn Any + Send + Sync>)>>,
}

/// Where the exports are, so that an instance finds them without comparing names.
pub(crate) struct Exports {
    pub(crate) memory: Option<ModuleExport>,
    pub(crate) alloc: Option<ModuleExport>,
    pub(crate) initialize: Option<ModuleExport>,
    pub(crate) js_load: Option<ModuleExport>,
    pub(crate) map: Option<ModuleExport>,
    pub(crate) combine: Option<ModuleExport>,
    pub(crate) reduce: Option<ModuleExport>,
    pub(crate) finalize: Option<ModuleExport>,
    /// The streaming form of the reduce: begin, next, end.
    pub(crate) stream: [Option<ModuleExport>; EXPORTS_STREAM.len()],
    pub(crate) js_streams: Option<ModuleExport>,
    pub(crate) js_known: Option<ModuleExport>,
    pub(crate) js_sums: Option<ModuleExport>,
    pub(crate) sums: Option<ModuleExport>,
}

impl Module {
    pub(crate) fn new(
        digest: blake3::Hash,
        info: ModuleInfo,
        compiled: wasmtime::Module,
        shared: Arc<Shared>,
    ) -> Self {
        let find = |name| compiled.get_export_index(name);
        let exports = Exports {
            memory: find(EXPORT_MEMORY),
            alloc: find(EXPORT_ALLOC),
            initialize: find(EXPORT_INITIALIZE),
            js_load: find(EXPORT_JS_LOAD),
            map: find(Stage::Map.name()),
            combine: find(Stage::Combine.name()),
            reduce: find(Stage::Reduce.name()),
            finalize: find(Stage::Finalize.name()),
            stream: EXPORTS_STREAM.map(find),
            js_streams: find(EXPORT_JS_STREAMS),
            js_known: find(EXPORT_JS_KNOWN),
            js_sums: find(EXPORT_JS_SUMS),
            sums: find(EXPORT_SUMS),
        };
        let linked = Mutex::new(Vec::new());
        Self(Arc::new(Inner { digest, info, compiled, exports, shared, linked }))
    }

    /// The digest of the bytes that it was made of.
    #[must_use]
    pub fn digest(&self) -> &blake3::Hash {
        &self.0.digest
    }

    /// What it is.
    #[must_use]
    pub fn info(&self) -> &ModuleInfo {
        &self.0.info
    }

    pub(crate) fn exports(&self) -> &Exports {
        &self.0.exports
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    /// The module linked for this type of sink, so that starting an instance resolves no names.
    pub(crate) fn linked<S: Sink>(&self) -> wasmtime::Result<InstancePre<Guest<S>>> {
        let mut linked = self.0.linked.lock().unwrap_or_else(PoisonError::into_inner);
        let known = linked.iter().find(|(kind, _)| *kind == TypeId::of::<S>());
        if let Some(found) =
            known.and_then(|(_, found)| found.downcast_ref::<InstancePre<Guest<S>>>())
        {
            return Ok(found.clone());
        }
        let mut linker = Linker::new(&self.0.shared.engine);
        imports::define::<S>(&mut linker)?;
        wasi::define::<S>(&mut linker)?;
        let made = linker.instantiate_pre(&self.0.compiled)?;
        linked.push((TypeId::of::<S>(), Arc::new(made.clone())));
        Ok(made)
    }
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Module")
            .field("digest", &self.0.digest)
            .field("stages", &self.0.info.stages)
            .finish_non_exhaustive()
    }
}
