//! The command line: a file a verb, and the contract of flags, output and exit codes.

mod args;
mod cancel;
mod cluster;
mod command;
mod containers;
pub mod corpus;
mod counters;
mod daemons;
mod demo;
mod documents;
mod foresight;
mod functions;
mod init;
mod list;
mod logs;
mod new;
mod output;
mod publishing;
mod results;
mod resume;
mod rm;
mod status;
mod submit;
mod tasks;
mod trial;
mod wait;
mod waiting;
mod workers;

use std::process::ExitCode;

use clap::Parser;

use crate::error::{Error, Result};
use crate::store::{ConnectOptions, Store};
use crate::telemetry::{self, LogFormat};

pub use args::Cli;
use args::{Command, Global};

/// Parses the command line, runs the verb, reports the error, returns the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; they go to standard output and end with 0.
            let usage = error.use_stderr();
            let _ = error.print();
            return ExitCode::from(if usage { 2 } else { 0 });
        }
    };
    let format = if cli.command.is_daemon() { LogFormat::Json } else { LogFormat::Text };
    let quietest = if cli.command.is_daemon() { 0 } else { 3 };
    if quietest == 0 || cli.global.verbose > 0 {
        telemetry::init(format, cli.global.verbose.saturating_sub(u8::from(quietest == 3)));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: failed to start: {error}");
            return ExitCode::from(1);
        }
    };
    let outcome = runtime.block_on(run(cli));
    let code = match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    };
    // The runtime is never shut down: what is still running ends with the process. A shutdown would drop
    // the driver's tasks in any order while others still use them, and the driver panics then; and a
    // blocking read of a terminal would hold the exit up.
    std::mem::forget(runtime);
    code
}

async fn run(cli: Cli) -> Result<()> {
    let global = cli.global.with_file()?;
    match cli.command {
        Command::Demo(args) => demo::run(&global, args).await,
        Command::Up(args) => cluster::up(&global, args).await,
        Command::Down(args) => cluster::down(&global, args).await,
        Command::Init(args) => init::run(&global, args).await,
        Command::Insert(args) => functions::insert(&global, args).await,
        Command::New(args) => new::run(&global, &args),
        Command::Functions(args) => functions::run(&global, args).await,
        Command::Submit(args) => submit::run(&global, *args).await,
        Command::List(args) => list::run(&global, args).await,
        Command::Status(args) => status::run(&global, args).await,
        Command::Tasks(args) => tasks::run(&global, args).await,
        Command::Logs(args) => logs::run(&global, args).await,
        Command::Counters(args) => counters::run(&global, args).await,
        Command::Results(args) => results::run(&global, args).await,
        Command::Cancel(args) => cancel::run(&global, args).await,
        Command::Resume(args) => resume::run(&global, args).await,
        Command::Rm(args) => rm::run(&global, args).await,
        Command::Workers => workers::run(&global).await,
        Command::Coordinator(args) => daemons::coordinator(&global, args).await,
        Command::Worker(args) => daemons::worker(&global, args).await,
        Command::Try(args) => trial::run(&global, *args).await,
        Command::TestRouter { args } => cluster::router(&args).await,
        Command::Assemble(args) => containers::assemble(&global, args).await,
        Command::Servers => containers::servers(&global).await,
    }
}

impl Global {
    /// Connects to the deployment that the command line names.
    async fn store(&self, app_name: &str) -> Result<Store> {
        self.store_beside(app_name, None, None).await
    }

    /// The same for a worker, which may have a shard to work for and a link of its own to it.
    async fn store_beside(
        &self,
        app_name: &str,
        shard: Option<String>,
        shard_uri: Option<String>,
    ) -> Result<Store> {
        let uri = self.uri.clone().ok_or_else(|| {
            Error::Usage(
                "no deployment given; use --uri or AVIARY_URI, or start one with aviary up".into(),
            )
        })?;
        let options = ConnectOptions {
            uri,
            db: self.db.clone(),
            app_name: app_name.to_owned(),
            shard,
            shard_uri,
        };
        Store::connect(&options).await
    }
}
