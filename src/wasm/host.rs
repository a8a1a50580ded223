//! The engine and everything that a process has once: deadline thread, compiled modules.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wasmtime::wasmparser::WasmFeatures;
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
};

use super::cache::{self, DiskCache, Lookup};
use super::compiler::{self, CompileLimits, Compiler, NoCode, Turns};
use super::error::HostError;
use super::inspect::{self, FEATURES, ModuleInfo};
use super::js::js_guest_digest;
use super::limits::{
    BACKTRACE_FRAMES_MAX, MEMORIES_MAX, MODULES_IN_MEMORY_MAX, STACK_BYTES_MAX, TABLE_ELEMENTS_MAX,
    TABLES_MAX,
};
use super::module::{Module, Shared};
use super::problem::InvalidModule;
use super::ticker::Ticker;

/// The version of the runtime, part of the name of the directory for compiled modules. The runtime
/// checks its own version again when it loads one.
const RUNTIME_VERSION: &str = "48.0.8";
/// Memory of a finished instance that is cleared in place rather than given back, in bytes.
const KEEP_RESIDENT_BYTES: usize = 1 << 20;
/// Address space reserved for a memory that may grow, where address space is scarce, in bytes.
const GROWTH_BYTES: u64 = 1 << 20;
/// Unmapped space after a memory, where address space is scarce, in bytes.
const GUARD_BYTES: u64 = 1 << 16;

/// How a host is set up.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// Where compiled modules are kept between runs; `None` to compile in every process.
    pub cache_dir: Option<PathBuf>,
    /// Disk space for compiled modules, in bytes.
    pub cache_bytes_max: u64,
    /// Memory that any instance may have, in bytes. An instance's own limit may be lower.
    pub memory_bytes_max: usize,
    /// How many instances may exist at once. Each reserves 4 GiB of address space, not of memory.
    pub instances_max: u32,
    /// How precisely deadlines are kept, in milliseconds; at least 1.
    pub tick_ms: u64,
    /// Where modules are compiled.
    pub compiler: Compiler,
    /// What that may take, where it is not here.
    pub compile: CompileLimits,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self {
            cache_dir: None,
            cache_bytes_max: 1 << 30,
            memory_bytes_max: 1 << 30,
            instances_max: 64,
            tick_ms: 10,
            compiler: Compiler::Here,
            compile: CompileLimits::default(),
        }
    }
}

/// What a host has done since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HostStats {
    /// Modules compiled.
    pub compiled: u64,
    /// Modules read from disk instead.
    pub disk_hits: u64,
    /// Files that were not intact, and were not used.
    pub disk_rejected: u64,
    /// Modules found in memory.
    pub memory_hits: u64,
}

/// Runs guests. One is enough for a process; clones share it.
#[derive(Clone)]
pub struct Host(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    pooling: bool,
    disk: Option<DiskCache>,
    modules: Mutex<Modules>,
    compiler: Compiler,
    compile: CompileLimits,
    /// Taken while compiling: one compilation uses several cores already, and much memory.
    turns: Turns,
    compiled: AtomicU64,
    disk_hits: AtomicU64,
    disk_rejected: AtomicU64,
    memory_hits: AtomicU64,
}

/// A place for a module. Whoever holds the lock makes it, and others wait instead of making it too. What it was
/// refused for is kept as well: finding out once more would cost as much.
type Slot = Arc<Mutex<Option<Result<Module, NoCode>>>>;

#[derive(Default)]
struct Modules {
    slots: HashMap<blake3::Hash, (Slot, u64)>,
    uses: u64,
}

impl Host {
    /// Sets up the engine and its deadline thread.
    ///
    /// # Errors
    /// If the processor is not supported, the thread cannot start, or the directory for compiled
    /// modules cannot be used or is open to others.
    pub fn new(options: HostOptions) -> Result<Self, HostError> {
        let (engine, pooling) = engine(&options)?;
        let disk = match &options.cache_dir {
            Some(root) => {
                let version = format!("{RUNTIME_VERSION}-{:016x}", compatibility(&engine));
                Some(DiskCache::open(root, &version, options.cache_bytes_max)?)
            }
            None => None,
        };
        let tick = Duration::from_millis(options.tick_ms.max(1));
        let ticker = Ticker::start(engine.weak(), tick).map_err(HostError::Ticker)?;
        let shared = Arc::new(Shared {
            engine,
            ticker,
            memory_bytes_max: options.memory_bytes_max,
            instances_max: options.instances_max,
        });
        Ok(Self(Arc::new(Inner {
            shared,
            pooling,
            disk,
            modules: Mutex::default(),
            compiler: options.compiler,
            compile: options.compile,
            turns: Turns::default(),
            compiled: AtomicU64::default(),
            disk_hits: AtomicU64::default(),
            disk_rejected: AtomicU64::default(),
            memory_hits: AtomicU64::default(),
        })))
    }

    /// Checks a module, binary or text, against the contract, without compiling it.
    ///
    /// # Errors
    /// With everything that is wrong with it.
    pub fn inspect(&self, bytes: &[u8]) -> Result<ModuleInfo, InvalidModule> {
        let wasm = inspect::binary(bytes)?;
        inspect::inspect(&wasm, self.0.shared.memory_bytes_max)
    }

    /// A module that is in memory already, for which the bytes need not be fetched. One that is being
    /// compiled is not, and is not waited for.
    #[must_use]
    pub fn loaded(&self, digest: &blake3::Hash) -> Option<Module> {
        let slot = lock(&self.0.modules).slots.get(digest).map(|(slot, _)| slot.clone())?;
        let module = slot.try_lock().ok()?.clone()?.ok()?;
        self.0.memory_hits.fetch_add(1, Ordering::Relaxed);
        Some(module)
    }

    /// Provides a module: from memory, from disk, or by compiling it. Several calls for the same
    /// module at once compile it once.
    ///
    /// # Errors
    /// If the bytes do not have this digest, break the contract or do not compile.
    pub fn load(&self, digest: &blake3::Hash, bytes: &[u8]) -> Result<Module, HostError> {
        let slot = self.slot(digest);
        let mut place = lock(&slot);
        match &*place {
            Some(Ok(module)) => {
                self.0.memory_hits.fetch_add(1, Ordering::Relaxed);
                return Ok(module.clone());
            }
            Some(Err(refused)) => return Err(HostError::no_code(*digest, refused.clone())),
            None => {}
        }
        let found = blake3::hash(bytes);
        if found != *digest {
            return Err(HostError::Digest { expected: *digest, found });
        }
        let wasm = inspect::binary(bytes)?;
        let inspect = match digest == js_guest_digest() {
            true => inspect::inspect_own,
            false => inspect::inspect,
        };
        let info = inspect(&wasm, self.0.shared.memory_bytes_max)?;
        let compiled = match self.compiled(digest, &wasm) {
            Ok(compiled) => compiled,
            Err(why) => {
                // What this machine lacked it may have later.
                if !matches!(why, NoCode::Short(_)) {
                    *place = Some(Err(why.clone()));
                }
                return Err(HostError::no_code(*digest, why));
            }
        };
        let module = Module::new(*digest, info, compiled, self.0.shared.clone());
        *place = Some(Ok(module.clone()));
        Ok(module)
    }

    /// Memory that any instance may have, in bytes.
    #[must_use]
    pub fn memory_bytes_max(&self) -> usize {
        self.0.shared.memory_bytes_max
    }

    /// What was done so far.
    #[must_use]
    pub fn stats(&self) -> HostStats {
        HostStats {
            compiled: self.0.compiled.load(Ordering::Relaxed),
            disk_hits: self.0.disk_hits.load(Ordering::Relaxed),
            disk_rejected: self.0.disk_rejected.load(Ordering::Relaxed),
            memory_hits: self.0.memory_hits.load(Ordering::Relaxed),
        }
    }

    /// Whether instances come from a pool. Without enough address space for it they do not, and
    /// starting one takes longer.
    #[must_use]
    pub fn is_pooling(&self) -> bool {
        self.0.pooling
    }

    fn slot(&self, digest: &blake3::Hash) -> Slot {
        let mut modules = lock(&self.0.modules);
        modules.uses += 1;
        let now = modules.uses;
        let (slot, used) = modules.slots.entry(*digest).or_default();
        *used = now;
        let slot = slot.clone();
        if modules.slots.len() > MODULES_IN_MEMORY_MAX {
            let oldest = modules.slots.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(digest, _)| *digest) {
                modules.slots.remove(&oldest);
            }
        }
        slot
    }

    fn compiled(&self, digest: &blake3::Hash, wasm: &[u8]) -> Result<wasmtime::Module, NoCode> {
        let engine = &self.0.shared.engine;
        match self.0.disk.as_ref().map(|disk| disk.get(engine, digest)) {
            Some(Lookup::Found(module)) => {
                self.0.disk_hits.fetch_add(1, Ordering::Relaxed);
                tracing::info!(%digest, "read a compiled module from the cache");
                return Ok(module);
            }
            Some(Lookup::Rejected) => {
                self.0.disk_rejected.fetch_add(1, Ordering::Relaxed);
            }
            Some(Lookup::Missing) | None => {}
        }
        let turn = self.0.turns.take();
        let began = std::time::Instant::now();
        let (module, code) = match &self.0.compiler {
            Compiler::Here => {
                let module = wasmtime::Module::from_binary(engine, wasm).map_err(refused)?;
                let code = self.0.disk.as_ref().map(|_| module.serialize());
                (module, code.transpose().map_err(|error| error.to_string()))
            }
            Compiler::Child(program) => {
                let code = compiler::compile(program, &self.0.compile, self.0.pooling, wasm)?;
                (cache::load(engine, &code).map_err(refused)?, Ok(Some(code.into_code())))
            }
        };
        drop(turn);
        tracing::info!(%digest, ms = began.elapsed().as_millis(), "compiled a module");
        self.0.compiled.fetch_add(1, Ordering::Relaxed);
        let kept = code.and_then(|code| match (&self.0.disk, code) {
            (Some(disk), Some(code)) => disk.put(digest, &code).map_err(|error| error.to_string()),
            _ => Ok(()),
        });
        // The module runs all the same; only the next process compiles it once more.
        if let Err(error) = kept {
            tracing::warn!(%digest, %error, "a compiled module could not be kept");
        }
        Ok(module)
    }
}

fn refused(error: wasmtime::Error) -> NoCode {
    NoCode::Refused(format!("{error:#}"))
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("pooling", &self.0.pooling)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks is left half done by a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An engine with a pool of instances, or without one where address space is limited.
fn engine(options: &HostOptions) -> Result<(Engine, bool), HostError> {
    let mut config = config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(options)));
    match Engine::new(&config) {
        Ok(engine) => return Ok((engine, true)),
        Err(error) => {
            tracing::warn!(
                error = format!("{error:#}"),
                "no pool of instances, they are made one by one"
            );
        }
    }
    match Engine::new(&scarce_config()) {
        Ok(engine) => Ok((engine, false)),
        Err(error) => Err(HostError::Engine { message: format!("{error:#}") }),
    }
}

/// An engine that makes the same code as the one of a host, and has no room for instances.
pub(super) fn compiling_engine(scarce: bool) -> wasmtime::Result<Engine> {
    Engine::new(&if scarce { scarce_config() } else { config() })
}

/// The settings where address space is limited.
fn scarce_config() -> Config {
    let mut config = config();
    config
        .memory_reservation(0)
        .memory_reservation_for_growth(GROWTH_BYTES)
        .memory_guard_size(GUARD_BYTES);
    config
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .wasm_features(WasmFeatures::all().difference(FEATURES), false)
        .wasm_features(FEATURES, true)
        .cranelift_opt_level(OptLevel::Speed)
        .cranelift_nan_canonicalization(true)
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES_MAX)
        // Nothing here is asynchronous, but this may not be less.
        .async_stack_size(STACK_BYTES_MAX)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(BACKTRACE_FRAMES_MAX));
    config
}

fn pool(options: &HostOptions) -> PoolingAllocationConfig {
    let tables_max = u32::try_from(TABLES_MAX).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(options.instances_max)
        .total_memories(options.instances_max)
        .total_tables(options.instances_max.saturating_mul(tables_max))
        .max_memories_per_module(u32::try_from(MEMORIES_MAX).unwrap_or(u32::MAX))
        .max_tables_per_module(tables_max)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(options.memory_bytes_max)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(KEEP_RESIDENT_BYTES)
        .pagemap_scan(Enabled::Auto);
    pool
}

/// What the engine's compiled code depends on: settings, target, processor.
fn compatibility(engine: &Engine) -> u64 {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Host {
        Host::new(HostOptions { instances_max: 1, tick_ms: 60_000, ..HostOptions::default() })
            .unwrap()
    }

    #[test]
    fn the_deadline_thread_ends_with_the_last_host() {
        let first = small();
        let second = first.clone();
        let shared = Arc::downgrade(&first.0.shared);
        drop(first);
        assert_eq!(shared.strong_count(), 1);
        // Dropping what is shared joins the thread, long before its next tick.
        drop(second);
        assert_eq!(shared.strong_count(), 0);
    }

    #[test]
    fn the_named_version_is_the_one_of_the_runtime() {
        let lock = include_str!("../../Cargo.lock");
        let (_, rest) = lock.split_once("name = \"wasmtime\"\nversion = \"").unwrap();
        assert!(rest.starts_with(RUNTIME_VERSION));
    }

    #[test]
    fn the_modules_in_memory_are_limited() {
        let host = small();
        let digest = |number: usize| blake3::hash(&number.to_le_bytes());
        for number in 0..=MODULES_IN_MEMORY_MAX {
            // The first stays in use, so another one goes.
            host.slot(&digest(0));
            host.slot(&digest(number));
        }
        let modules = lock(&host.0.modules);
        assert_eq!(modules.slots.len(), MODULES_IN_MEMORY_MAX);
        assert!(modules.slots.contains_key(&digest(0)));
        assert!(!modules.slots.contains_key(&digest(1)));
    }
}
