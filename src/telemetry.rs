//! Logs: text for people at a terminal, JSON for daemons.

use tracing_subscriber::EnvFilter;

use crate::error::{Error, Result};

/// How logs are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// A line for a person.
    Text,
    /// One JSON object a line.
    Json,
}

/// A filter in the syntax of `tracing-subscriber`'s `EnvFilter`. `place` is where it was given.
///
/// # Errors
/// [`Error::Usage`] for what is no filter.
pub fn filter(given: &str, place: &str) -> Result<EnvFilter> {
    let bad = |why| {
        Error::Usage(format!(
            "{place} {given:?} is no filter of logs, like debug or aviary=debug: {why}"
        ))
    };
    EnvFilter::builder().parse(given).map_err(bad)
}

/// Sends logs to standard error, those that the filter lets pass, or else the verbosity.
pub fn init(format: LogFormat, verbosity: u8, filter: Option<EnvFilter>) {
    let default = match verbosity {
        0 => "warn,aviary=info",
        1 => "info,aviary=debug",
        _ => "debug,aviary=trace",
    };
    let filter = filter.unwrap_or_else(|| EnvFilter::new(default));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(crate::terminal::err);
    let installed = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    // A second call keeps the first subscriber, which is what a test that runs two verbs wants.
    let _ = installed;
}

/// The machine's name, for documents that people read.
pub fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_else(|| "localhost".to_owned())
}
