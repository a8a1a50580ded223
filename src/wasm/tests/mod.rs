//! Behaviour of the host, shown with guests written for it.

mod disk;
mod environment;
mod guests;
mod inspecting;
mod javascript;
mod known;
mod limiting;
mod output;
mod streaming;
mod sums;
mod wasi;

use std::sync::OnceLock;
use std::time::Duration;

use super::*;

/// Keeps everything, and fails on the pair with this number.
#[derive(Debug, Default)]
pub(crate) struct Collect {
    pub(crate) pairs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) counts: Vec<(String, i64)>,
    pub(crate) logs: Vec<(Level, String)>,
    pub(crate) fail_at: Option<usize>,
}

/// What [`Collect`] fails with.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("disk full")]
struct DiskFull(u8);

impl Sink for Collect {
    fn emit(&mut self, key: &[u8], value: &[u8]) -> Result<(), SinkError> {
        if self.fail_at == Some(self.pairs.len()) {
            return Err(Box::new(DiskFull(7)));
        }
        self.pairs.push((key.to_vec(), value.to_vec()));
        Ok(())
    }

    fn count(&mut self, name: &str, delta: i64) {
        self.counts.push((name.to_owned(), delta));
    }

    fn log(&mut self, level: Level, text: &str) {
        self.logs.push((level, text.to_owned()));
    }
}

/// The host that most tests share, as they would in one process.
fn host() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(|| Host::new(HostOptions::default()).unwrap())
}

fn load(host: &Host, text: &str) -> Module {
    host.load(&blake3::hash(text.as_bytes()), text.as_bytes()).unwrap()
}

fn start(text: &str, options: InstanceOptions) -> Result<Instance<Collect>, GuestError> {
    Instance::new(&load(host(), text), options, Collect::default())
}

/// Starts a guest and calls its map with nothing.
fn map(text: &str, options: InstanceOptions) -> (Instance<Collect>, Result<(), GuestError>) {
    let mut instance = start(text, options).unwrap();
    let result = instance.call(Stage::Map, &[]);
    (instance, result)
}

/// The error of a map that fails.
fn map_error(text: &str, options: InstanceOptions) -> GuestError {
    map(text, options).1.unwrap_err()
}

fn timeout_ms(call_timeout_ms: u64) -> InstanceOptions {
    InstanceOptions {
        limits: Limits {
            call_timeout: Duration::from_millis(call_timeout_ms),
            ..Limits::default()
        },
        ..InstanceOptions::default()
    }
}
