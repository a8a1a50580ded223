//! The command line: a file a verb, and the contract of flags, output and exit codes.

mod args;
mod asked;
mod cancel;
mod cluster;
mod command;
mod config;
mod containers;
pub mod corpus;
mod counters;
mod daemons;
mod databases;
mod demo;
mod deployments;
mod documents;
mod failed;
mod foresight;
mod functions;
mod init;
mod list;
mod logs;
mod new;
mod output;
mod publishing;
mod replay;
mod results;
mod resume;
mod rm;
mod status;
mod submit;
mod tasks;
mod trial;
mod uri_file;
mod wait;
mod waiting;
mod workers;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::error::Result;
use crate::store::{ConnectOptions, Store};
use crate::telemetry::{self, LogFormat};
use crate::terminal::{self, tell};

pub use args::Cli;
use args::{Command, Global};

/// Parses the command line, runs the verb, reports the error, returns the exit code.
pub fn main() -> ExitCode {
    print_panics_safely();
    let mut cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; they go to standard output and end with 0.
            let usage = error.use_stderr();
            print_usage(&error);
            return ExitCode::from(if usage { 2 } else { 0 });
        }
    };
    if let Command::CompileModule(args) = &cli.command {
        return crate::wasm::compile_child::main(&args.orders());
    }
    let is_daemon = cli.command.is_daemon();
    let filter = match cli.global.resolve(!is_daemon).and_then(|()| cli.global.log_filter()) {
        Ok(filter) => filter,
        Err(error) => {
            tell!("error: {error}");
            return ExitCode::from(error.exit_code());
        }
    };
    // Programs read what a daemon logs, unless a person has started it and looks at it.
    let is_read = !is_daemon || std::io::stderr().is_terminal();
    let format = if is_read { LogFormat::Text } else { LogFormat::Json };
    if is_daemon || cli.global.verbose > 0 || filter.is_some() {
        let verbosity = cli.global.verbose.saturating_sub(u8::from(!is_daemon));
        telemetry::init(format, verbosity, filter);
    }
    if !cli.global.quiet && !is_daemon {
        crate::toolchain::tell_of_compiling(|what| tell!("{what}"));
    }
    cli.global.warn_of_passwords(&cli.command);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(crate::wasm::THREAD_STACK_BYTES)
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tell!("error: failed to start: {error}");
            return ExitCode::from(1);
        }
    };
    let outcome = runtime.block_on(run(cli));
    let code = match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    };
    // The runtime is never shut down: what is still running ends with the process. A shutdown would drop
    // the driver's tasks in any order while others still use them, and the driver panics then; and a
    // blocking read of a terminal would hold the exit up.
    std::mem::forget(runtime);
    code
}

/// Prints help, or what is wrong with the command line. It quotes arguments and the environment, so it has clap's
/// colors only if it is plain text, and no connection string that was given as something else.
fn print_usage(error: &clap::Error) {
    let text = error.render().to_string();
    // With a variable set, the command line is not empty to clap, which then lists hidden verbs too.
    if error.kind() == clap::error::ErrorKind::MissingSubcommand
        && let Some(help) = help_of(&text)
    {
        tell!("{}", help.trim_end());
        return;
    }
    // A usage line lists as required what the environment gives.
    let lines = text.split_inclusive('\n').map(|line| match line.starts_with("Usage: ") {
        false => line.to_owned(),
        true => crate::settings::ALL.iter().fold(line.to_owned(), |line, setting| {
            line.replace(&format!(" --{} <{}> ", setting.name, setting.takes), " ")
        }),
    });
    let text = lines.collect::<String>();
    let has_uri =
        text.split_whitespace().any(|word| word.contains("mongodb") && word.contains("://"));
    if error.use_stderr() && has_uri {
        tell!("error: a connection string goes with --uri or AVIARY_URI; see aviary --help");
    } else if error.use_stderr()
        && text.contains("'--collection <COLL>' cannot be used multiple times")
    {
        tell!(
            "error: a job reads one collection: submit a job for each, and let the later ones add to the first one's results \
             with --out reduce:NAME"
        );
    } else if error.use_stderr() && text.contains("Usage: ") && terminal::is_plain(&text) {
        tell!("{}", text.trim_end());
    } else if terminal::is_plain(&text) {
        let _ = error.print();
    } else if error.use_stderr() {
        tell!("{}", text.trim_end());
    } else {
        let _ = output::line(text.trim_end());
    }
}

/// The help of the command that an error names as lacking a subcommand.
fn help_of(error: &str) -> Option<String> {
    let mut words = error.split('\'').nth(1)?.split_whitespace();
    let mut command = Cli::command();
    command.build();
    words.next()?;
    let named = words.try_fold(&mut command, |command, word| command.find_subcommand_mut(word))?;
    Some(named.render_help().to_string())
}

/// Has panics printed like everything else.
fn print_panics_safely() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        tell!("thread {:?} {panic}", thread.name().unwrap_or("unnamed"));
        let trace = std::backtrace::Backtrace::capture();
        if trace.status() == std::backtrace::BacktraceStatus::Captured {
            tell!("{trace}");
        }
    }));
}

async fn run(cli: Cli) -> Result<()> {
    let global = cli.global;
    match cli.command {
        Command::Demo(args) => demo::run(&global, args).await,
        Command::Up(args) => cluster::up(&global, args).await,
        Command::Down(args) => cluster::down(&global, args).await,
        Command::Init(args) => init::run(&global, args).await,
        Command::Config(args) => config::run(&global, args).await,
        Command::Insert(args) => functions::insert(&global, args).await,
        Command::New(args) => new::run(&global, &args),
        Command::Functions(args) => functions::run(&global, args).await,
        Command::Submit(args) => submit::run(&global, *args).await,
        Command::List(args) => list::run(&global, args).await,
        Command::Status(args) => status::run(&global, args).await,
        Command::Tasks(args) => tasks::run(&global, args).await,
        Command::Logs(args) => logs::run(&global, args).await,
        Command::Failed(args) => failed::run(&global, args).await,
        Command::Replay(args) => replay::run(&global, args).await,
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
        Command::CompileModule(_) => Ok(()),
        Command::Servers => containers::servers(&global).await,
    }
}

/// A server that is there answers sooner.
const CONNECTING: std::time::Duration = std::time::Duration::from_secs(2);

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
        let options = ConnectOptions {
            uri: self.deployment()?,
            db: self.db.clone(),
            any_db: !self.is_verb,
            app_name: app_name.to_owned(),
            shard,
            shard_uri,
            trusted: self.trusted.iter().cloned().collect(),
        };
        let connecting = Store::connect(&options);
        tokio::pin!(connecting);
        // A person who waits should know what for; a daemon logs it.
        tokio::select! {
            store = &mut connecting => return store,
            () = tokio::time::sleep(CONNECTING) => {}
        }
        if !self.quiet && self.is_verb {
            tell!("no answer from {} yet, still trying", crate::store::uri::redact(&options.uri));
        }
        connecting.await
    }
}
