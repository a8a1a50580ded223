//! `aviary coordinator` and `aviary worker`.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::args::{CoordinatorArgs, Global, WorkerArgs};
use super::databases;
use super::uri_file::Address;
use crate::config;
use crate::coordinator;
use crate::error::{Error, Result};
use crate::settings::{Live, table};
use crate::store::Store;
use crate::store::watch::WakeFor;
use crate::wasm::{Compiler, Host, HostOptions};
use crate::worker::{self, Slots, Spills, WorkerOptions};

pub(super) async fn coordinator(global: &Global, args: CoordinatorArgs) -> Result<()> {
    let own = global.with(&args.given)?;
    let settings = Live::new(own.clone())?;
    let global = Global { trusted: own.list(table::TRUST_DATABASES), ..global.clone() };
    let stop = stop_on_signal()?;
    let store = patiently(&stop, || global.store("aviary-coordinator")).await?;
    let serve = |store: Store, bell: Option<Arc<Notify>>, stop: CancellationToken| {
        coordinator::run(store, settings.again(), bell, stop)
    };
    let wakes = settings.now().watch.then_some(WakeFor::Coordinator);
    let outcome = databases::serve_all(&store, &global.dbs, wakes, serve, stop).await;
    store.close().await;
    outcome
}

pub(super) async fn worker(global: &Global, args: WorkerArgs) -> Result<()> {
    keep_freed_buffers();
    let own = global.with(&args.given)?;
    let settings = Live::new(own.clone())?;
    let global = Global { trusted: own.list(table::TRUST_DATABASES), ..global.clone() };
    let stop = stop_on_signal()?;
    let address = Address::of(&own, table::SHARD_URI, table::SHARD_URI_FILE);
    let (shard, shard_uri) = (own.text(table::SHARD), address.choose("--shard-uri")?);
    let connect = || global.store_beside("aviary-worker", shard.clone(), shard_uri.clone());
    let store = patiently(&stop, connect).await?;
    let slots = own.number(table::SLOTS).and_then(|slots| usize::try_from(slots).ok());
    let slots = slots.unwrap_or_else(|| {
        std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
    });
    let memory_mb = own.number(table::MEMORY_MB).unwrap_or(config::WORKER_MEMORY_MB_DEFAULT);
    let host = host_for(memory_mb, slots)?;
    let spills = Spills::new(own.number(table::SPILL_BYTES));
    tracing::info!(bytes = spills.space.bytes_max(), "room for temporary files");
    let slots = Slots::new(slots);
    let serve = |store: Store, bell: Option<Arc<Notify>>, stop: CancellationToken| {
        let (slots, spills) = (slots.clone(), spills.clone());
        let options = WorkerOptions { slots, settings: settings.again(), spills, bell };
        worker::run(store, host.clone(), options, stop)
    };
    let wakes = settings.now().watch.then_some(WakeFor::Workers);
    let outcome = databases::serve_all(&store, &global.dbs, wakes, serve, stop).await;
    store.close().await;
    outcome
}

/// Has the allocator keep what buffers of a few MiB leave behind, rather than give it back to the system and
/// fetch it again, zeroed, page by page, for the next. glibc takes the size of the largest mapped block that was
/// freed for such (mallopt(3), `M_MMAP_THRESHOLD`); other allocators do not mind.
fn keep_freed_buffers() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(config::KEPT_BUFFER_BYTES)));
}

/// The WebAssembly host, with the machine's cache of compiled modules.
pub(super) fn host(memory_mb: u64) -> Result<Host> {
    host_for(memory_mb, 1)
}

/// The same for so many tasks at once.
fn host_for(memory_mb: u64, slots: usize) -> Result<Host> {
    // A reduce, a combine, a finalize, and one that finds the record at fault.
    const INSTANCES_PER_SLOT: usize = 4;
    let instances = u32::try_from(slots * INSTANCES_PER_SLOT).unwrap_or(u32::MAX);
    // Without a cache each process compiles, no more. The cache of modules trusts no directory above it: it loads
    // only what is authenticated with a key of this user's.
    let cache = crate::dirs::cache_path("modules");
    if let Err(error) = &cache {
        tracing::warn!(%error, "no cache of compiled modules");
    }
    let options = HostOptions {
        cache_dir: cache.ok(),
        memory_bytes_max: usize::try_from(memory_mb << 20).unwrap_or(usize::MAX),
        instances_max: instances.max(HostOptions::default().instances_max),
        compiler: Compiler::of_this_program(),
        ..HostOptions::default()
    };
    match Host::new(options.clone()) {
        Ok(host) => Ok(host),
        Err(error) => {
            // A home that cannot be written to costs a compilation in each process, no more.
            tracing::warn!(%error, "no cache of compiled modules");
            Host::new(HostOptions { cache_dir: None, ..options })
                .map_err(|e| Error::Internal(e.to_string()))
        }
    }
}

/// Connects, waiting for a deployment that is not up yet: a daemon often starts before it is.
async fn patiently<C, S>(stop: &CancellationToken, connect: C) -> Result<Store>
where
    C: Fn() -> S,
    S: Future<Output = Result<Store>>,
{
    loop {
        match connect().await {
            Err(error) if error.is_transient() && !stop.is_cancelled() => {
                tracing::warn!(%error, "waiting for the database");
                tokio::select! {
                    () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
                    () = stop.cancelled() => return Err(error),
                }
            }
            outcome => return outcome,
        }
    }
}

/// A token that SIGTERM and SIGINT cancel.
pub(super) fn stop_on_signal() -> Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let stop = CancellationToken::new();
    let fail = |e| Error::io("listen for signals", e);
    let mut terminate = signal(SignalKind::terminate()).map_err(fail)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(fail)?;
    let token = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        token.cancel();
    });
    Ok(stop)
}
