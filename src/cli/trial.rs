//! `aviary try`: the functions over a sample of the real collection, or over documents of a file, in this
//! process. No workers, no writes; with a file, no server.

use std::io::Write as _;
use std::path::PathBuf;

use bson::{Document, RawDocumentBuf};
use clap::Args;

use super::args::{Global, JobFunctions};
use super::documents;
use super::submit::{self, FoundReduce};
use crate::config;
use crate::error::{Error, Result};
use crate::exec::collation::Collated;
use crate::exec::deadline::Deadline;
use crate::exec::in_parts::Differs;
use crate::exec::local_run::{LocalJob, LocalReduce, Spoiled};
use crate::exec::prepare::{self, ExecEnv, Loaded};
use crate::functions::{CheckedFor, Given};
use crate::job::validate::check_limit;
use crate::job::{OutputMode, ReadMode};
use crate::store::Store;
use crate::terminal::{self, tell};
use crate::wasm::{Host, Stage};

#[derive(Debug, Args)]
pub(super) struct TryArgs {
    #[command(flatten)]
    pub(super) job: JobFunctions,
    /// Documents to run over instead of a collection's, without any server: one of extended JSON a
    /// line; `-` for standard input.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["collection", "input_db", "query", "sort", "projection"]
    )]
    pub(super) docs: Option<PathBuf>,
    /// Documents to read.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(super) sample: i64,
}

pub(super) async fn run(global: &Global, mut args: TryArgs) -> Result<()> {
    let host = super::daemons::host(1024)?;
    if let Some(given) = args.job.command.take() {
        // Where results would go, and how, makes no difference to a trial.
        super::command::apply(&host, &given, &mut args.job).await?;
    }
    let scope = submit::ejson_document("--scope", &args.job.scope)?;
    if args.sample <= 0 {
        return Err(Error::Usage("--sample must be at least 1".into()));
    }
    check_limit(args.job.limit)?;
    let limits = submit::limits(&args.job);
    limits.validate()?;
    let (store, docs, collation) = match &args.docs {
        Some(file) => {
            let most = args.job.limit.map_or(args.sample, |limit| limit.min(args.sample));
            (None, documents::read(file, usize::try_from(most).unwrap_or(0))?, None)
        }
        None => {
            let (store, docs, collation) = sample(global, &args).await?;
            (Some(store), docs, collation)
        }
    };
    let store = store.as_ref();
    // What a worker that suits the job would give.
    let host = super::daemons::host(limits.memory_mb.max(config::WORKER_MEMORY_MB_DEFAULT))?;
    let found = submit::find(
        store,
        &host,
        &args.job,
        &CheckedFor { scope: &scope, limits: &limits, mode: OutputMode::Inline },
    )
    .await?;
    let around = ExecEnv {
        now_ms: bson::DateTime::now().timestamp_millis(),
        seed: *blake3::hash(b"try").as_bytes(),
        scope: scope
            .to_vec()
            .map_err(|e| Error::Usage(format!("the parameters do not serialise: {e}")))?,
        limits: prepare::limits(&limits),
        deadline: limits.task_timeout_ms.and_then(Deadline::after_ms),
        careful: true,
        interrupt: crate::wasm::Interrupt::default(),
    };
    let job = LocalJob {
        map: load(store, &host, &found.map, Stage::Map, &around).await?,
        combine: match &found.combine {
            Some(given) => Some(load(store, &host, given, Stage::Combine, &around).await?),
            None => None,
        },
        no_combine: args.job.no_combine,
        reduce: match &found.reduce {
            None => None,
            Some(FoundReduce::Builtin(crate::job::Reducer::Builtin(name))) => {
                Some(LocalReduce::Builtin(name.clone()))
            }
            Some(FoundReduce::Builtin(crate::job::Reducer::Function(_))) => None,
            Some(FoundReduce::Function(given)) => Some(LocalReduce::Function(Box::new(
                load(store, &host, given, Stage::Reduce, &around).await?,
            ))),
        },
        finalize: match &found.finalize {
            Some(given) => Some(load(store, &host, given, Stage::Finalize, &around).await?),
            None => None,
        },
        skip_single_values: args.job.skip_single_values,
        collation,
    };
    let count = docs.len();
    let outcome = tokio::task::spawn_blocking(move || job.run(&docs))
        .await
        .map_err(|e| Error::Internal(format!("the trial panicked: {e}")))??;
    let mut out = terminal::out();
    for result in &outcome.results {
        match writeln!(out, "{}", super::output::result(result)) {
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.map_err(|e| Error::io("print the results", e))?,
        }
    }
    if !global.quiet {
        tell!("{}", of_counts(count, &outcome.counters));
    }
    if let Some(key) = &outcome.twice {
        tell!(
            "warning: the key {key} was emitted twice, and a map-only job fails then: emit each key once, or give a --reduce"
        );
    }
    if let Some(spoiled) = &outcome.spoiled {
        tell!("{}", of_spoiled(spoiled));
    }
    match &outcome.parts {
        None => {}
        Some(Differs::Untold) if global.quiet => {}
        Some(differs) => tell!("{}", of_parts(differs)),
    }
    Ok(())
}

/// Tells what a trial read and made.
fn of_counts(documents: usize, counters: &Document) -> String {
    if documents == 0 {
        return "documents tried: 0; none matches, so the functions have not run".to_owned();
    }
    format!("documents tried: {documents}; {}", super::output::counters(counters))
}

/// Tells that a reduce makes no number of numbers.
fn of_spoiled(spoiled: &Spoiled) -> String {
    let Spoiled { key, result, is_decimal } = spoiled;
    let advice = match is_decimal {
        true => {
            "; a NumberDecimal is an object in JavaScript, and + joins objects as text: emit value.toNumber(), or let \
             --reduce _sum add decimals exactly"
        }
        false => "; look at what your reduce does with them",
    };
    format!(
        "warning: the values of the key {key} are numbers, and your reduce made {result} of them{advice}"
    )
}

/// Tells that a reduce does not bear what a job does with it.
fn of_parts(differs: &Differs) -> String {
    let rule = "a job may reduce some of a key's values first, or one alone, and give reduce its own results; so return \
                what is also a value (sums and counts, divided in --finalize), or give --no-combine, or a reduce that \
                streams";
    match differs {
        Differs::Results { keys, of, key, at_once, in_parts } => format!(
            "warning: your reduce is not associative: reduced in parts, {keys} of {of} results are different; that of the key \
             {key} is {at_once} at once and {in_parts} in parts; {rule}"
        ),
        Differs::Fails { why } => {
            format!("warning: your reduce fails on its own results; {rule}; what it says:\n{why}")
        }
        Differs::Untold => "note: no key of these documents has more than two values, so it was not tried whether your \
                            reduce bears being done in parts, as jobs do it; take more documents, or some that share \
                            their keys"
            .to_owned(),
    }
}

/// Documents of the collection, and the way to it.
async fn sample(
    global: &Global,
    args: &TryArgs,
) -> Result<(Store, Vec<RawDocumentBuf>, Option<Collated>)> {
    if args.job.collection.is_empty() {
        return Err(Error::Usage(
            "nothing to try on; give --collection, or --docs with a file".into(),
        ));
    }
    let store = global.store("aviary-try").await?;
    let input = submit::input(&args.job, store.db_name(), ReadMode::Committed)?;
    store.inspect_input(&input).await?;
    let docs = store.sample_documents(&input, args.sample).await?;
    let has_one = store.collation_of(&input.db, &input.collection).await?.is_some();
    Ok((store, docs, Collated::of_input(&input, has_one)))
}

pub(super) async fn load(
    store: Option<&Store>,
    host: &Host,
    given: &Given,
    stage: Stage,
    around: &ExecEnv,
) -> Result<Loaded> {
    match given {
        Given::Known(known) => match store {
            Some(store) => prepare::load(store, host, known, stage, around).await,
            None => Err(Error::Internal("a stored function without a store".into())),
        },
        Given::Named(name) => Err(Error::NotPermitted {
            action: format!("read the function {name}"),
            why: "this user may not read the catalogue".into(),
            hint: "give a file, or ask for the role aviary-author".into(),
        }),
        Given::New(source) => {
            let content = source.content.clone();
            let loaded = prepare::compile(host, source.language, content, stage, around).await?;
            Ok(loaded.named(Some(source.file.clone())))
        }
    }
}
