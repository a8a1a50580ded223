//! How a managed process is started.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use super::Managed;
use super::record::{Record, stat};
use crate::error::{At, Error, Result};
use crate::program;

/// A program to start.
#[derive(Debug, Clone)]
pub struct ManagedCommand {
    name: String,
    program: PathBuf,
    args: Vec<OsString>,
    envs: Vec<(OsString, Option<OsString>)>,
    dir: Option<PathBuf>,
    isolated: bool,
    log: PathBuf,
}

impl ManagedCommand {
    /// `program` whose output and errors are appended to the file `log`.
    pub fn new(program: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        let program = program.into();
        let name =
            program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
        Self {
            name,
            program,
            args: Vec::new(),
            envs: Vec::new(),
            dir: None,
            isolated: false,
            log: log.into(),
        }
    }

    /// The name used in messages and in the state file; the program's name otherwise.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.envs.push((name.into(), Some(value.into())));
        self
    }

    /// Keeps an environment variable of this program from the new one.
    #[must_use]
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Self {
        self.envs.push((name.into(), None));
        self
    }

    /// The directory it runs in; this program's otherwise.
    #[must_use]
    pub fn current_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Runs it in `dir`, and keeps from it what is not its business (see [`program`]). What was set
    /// before and after is set still.
    #[must_use]
    pub fn isolated(mut self, dir: impl Into<PathBuf>) -> Self {
        self.program = program::named(self.program.as_os_str());
        self.isolated = true;
        self.current_dir(dir)
    }

    /// Starts it.
    ///
    /// # Errors
    ///
    /// When the log cannot be opened or the program cannot be started.
    pub fn spawn(&self) -> Result<Managed> {
        // Logs tell addresses and input, so they are for their owner alone.
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.log)
            .at("open", &self.log)?;
        let log_start_bytes = log.metadata().at("read", &self.log)?.len();
        let errors = log.try_clone().at("open", &self.log)?;
        let mut command = Command::new(&self.program);
        command.args(&self.args).stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
        if self.isolated {
            command.env_clear().envs(program::environment(&[]));
        }
        for (name, value) in &self.envs {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        let child = command
            .spawn()
            .map_err(|source| Error::Spawn { program: self.program.clone(), source })?;
        let pid = child.id();
        let words = std::iter::once(self.program.as_os_str())
            .chain(self.args.iter().map(OsString::as_os_str));
        Ok(Managed {
            record: Record {
                name: self.name.clone(),
                pid,
                // A child that is not reaped keeps its entry, so this reads the right process.
                started_ticks: stat(pid).map_or(0, |stat| stat.started_ticks),
                command: words.map(|word| word.to_string_lossy().into_owned()).collect(),
                log: self.log.clone(),
            },
            child: Some(Mutex::new(child)),
            log_start_bytes,
            leave_running: AtomicBool::new(false),
        })
    }
}
