//! The WebAssembly host: runs untrusted map, combine, reduce and finalize functions.
//!
//! A guest is a core WebAssembly module that takes batches of BSON and emits BSON
//! ([`abi`] is the contract). This module checks guests ([`Host::inspect`]), compiles and caches
//! them ([`Host::load`]) and runs them ([`Instance`]), each under named [`limits`].
//!
//! It is synchronous: a call occupies its thread until the guest returns or its time is up. Run it
//! on threads made for blocking, with at least 2 MiB of stack.
//!
//! It is not: a WASI runtime (a guest sees no files, no network, no real clock), and not a place
//! that knows about jobs, tasks or the database.
//!
//! Reading order: [`abi`], [`limits`], `error`, `sink`, `host` (engine, `module`, `cache`, `compiler` and
//! [`compile_child`], `ticker`, `inspect`, `problem`), `instance` (`guest`, `imports`, `wasi`, `log`, `value`,
//! `ended`), `js`.

pub mod abi;
mod cache;
pub mod compile_child;
mod compiler;
mod ended;
mod error;
mod guest;
mod host;
mod imports;
mod inspect;
mod instance;
mod interrupt;
mod js;
pub mod limits;
mod log;
mod module;
mod problem;
mod sink;
#[cfg(test)]
mod tests;
mod ticker;
mod value;
mod wasi;

pub use abi::{Known, Level, Stage, StageSet, Step};
pub use cache::CacheError;
pub use compiler::{CompileLimits, Compiler};
pub use error::{EmitFault, GuestError, HostError, SinkError};
pub use host::{Host, HostOptions, HostStats};
pub use inspect::{ModuleInfo, inspect_module, wat_to_wasm};
pub use instance::{Instance, InstanceOptions};
pub use interrupt::Interrupt;
pub use js::{JS_GUEST, Script, js_guest_digest};
pub use limits::{Limits, THREAD_STACK_BYTES};
pub use module::Module;
pub use problem::{InvalidModule, Problem};
pub use sink::{Judge, Judged, Nowhere, Sink, Sums};
