//! `aviary try`: the functions over a sample of the real collection, in this process. No workers, no
//! writes.

use std::io::Write as _;

use super::args::{Global, TryArgs};
use super::submit::{self, FoundReduce};
use crate::error::{Error, Result};
use crate::functions::Given;
use crate::job::ReadMode;
use crate::store::Store;
use crate::wasm::{Host, Stage};
use crate::worker::deadline::Deadline;
use crate::worker::loader::{self, Loaded, Surroundings};
use crate::worker::local::{LocalJob, LocalReduce};

pub(super) async fn run(global: &Global, args: TryArgs) -> Result<()> {
    let scope = submit::ejson_document("--scope", &args.job.scope)?;
    if args.sample <= 0 {
        return Err(Error::Usage("--sample must be at least 1".into()));
    }
    let limits = submit::limits(&args.job);
    limits.validate()?;
    let store = global.store("aviary-try").await?;
    let input = submit::input(&args.job, store.db_name(), ReadMode::Committed)?;
    store.inspect_input(&input).await?;
    // What a worker that suits the job would give.
    let host = super::daemons::host(limits.memory_mb.max(1024))?;
    let found = submit::find(Some(&store), &host, &args.job, &scope).await?;
    let around = Surroundings {
        now_ms: bson::DateTime::now().timestamp_millis(),
        seed: *blake3::hash(b"try").as_bytes(),
        scope: scope
            .to_vec()
            .map_err(|e| Error::Usage(format!("the parameters do not serialise: {e}")))?,
        limits: loader::limits(&limits),
        deadline: limits.task_timeout_ms.and_then(Deadline::after_ms),
        careful: true,
    };
    let job = LocalJob {
        map: load(&store, &host, &found.map, Stage::Map, &around).await?,
        combine: match &found.combine {
            Some(given) => Some(load(&store, &host, given, Stage::Combine, &around).await?),
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
                load(&store, &host, given, Stage::Reduce, &around).await?,
            ))),
        },
        finalize: match &found.finalize {
            Some(given) => Some(load(&store, &host, given, Stage::Finalize, &around).await?),
            None => None,
        },
    };
    let docs = store.sample_documents(&input, args.sample).await?;
    let count = docs.len();
    let outcome = tokio::task::spawn_blocking(move || job.run(&docs))
        .await
        .map_err(|e| Error::Internal(format!("the trial panicked: {e}")))??;
    let mut out = std::io::stdout().lock();
    for result in &outcome.results {
        let line = bson::Document::try_from(result.as_ref())
            .map_err(|e| Error::Internal(format!("a result is malformed: {e}")))?;
        let line = super::output::ejson(&bson::Bson::Document(line));
        match writeln!(out, "{line}") {
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.map_err(|e| Error::io("print the results", e))?,
        }
    }
    if !global.quiet {
        let counters: Vec<String> = outcome
            .counters
            .iter()
            .map(|(name, value)| format!("{name} {}", super::output::number(value)))
            .collect();
        eprintln!("documents tried: {count}; {}", counters.join(", "));
    }
    Ok(())
}

async fn load(
    store: &Store,
    host: &Host,
    given: &Given,
    stage: Stage,
    around: &Surroundings,
) -> Result<Loaded> {
    match given {
        Given::Known(known) => loader::load(store, host, known, stage, around).await,
        Given::New(source) => {
            let content = source.content.clone();
            let loaded = loader::compile(host, source.language, content, stage, around).await?;
            Ok(loaded.named(Some(source.file.clone())))
        }
    }
}
