//! `aviary replay`: a function once more on a record that it failed on, in this process.

use bson::RawDocumentBuf;
use clap::Args;

use super::args::Global;
use super::{daemons, output, trial};
use crate::config;
use crate::error::{Error, Result};
use crate::exec::combiner::boxed;
use crate::exec::function::{Batch, Guest};
use crate::exec::log_buffer::LogSink;
use crate::exec::prepare::{self, ExecEnv, Loaded};
use crate::exec::result_document::Rules;
use crate::functions::{CheckedFor, Given};
use crate::job::{FunctionRef, Job, Reducer};
use crate::store::Store;
use crate::store::failed::FailedRecord;
use crate::terminal::tell;
use crate::value::extjson::{self, Form};
use crate::wasm::{Host, Level, Sink, SinkError, Stage};

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// A job's id, the unambiguous beginning or end of one, or `last`.
    #[arg(value_name = "JOB")]
    pub(super) job: String,
    /// The record, as `aviary failed` names it, e.g. map/1.00000/0.
    #[arg(value_name = "RECORD")]
    pub(super) record: String,
    /// Another map than the job's: a file, a name or digest in the catalogue, or the text of a JavaScript function.
    #[arg(long, value_name = "F", conflicts_with_all = ["reduce", "finalize"])]
    pub(super) map: Option<String>,
    /// Another reduce, for a key that the reduce failed on.
    #[arg(long, value_name = "F", conflicts_with = "finalize")]
    pub(super) reduce: Option<String>,
    /// Another finalize, for a key that the finalize failed on.
    #[arg(long, value_name = "F")]
    pub(super) finalize: Option<String>,
}

pub(super) async fn run(global: &Global, args: ReplayArgs) -> Result<()> {
    let store = global.store("aviary-replay").await?;
    let job = store.find_job(&args.job).await?;
    let record = store.failed_record(&job, &args.record).await?;
    let stage = stage_of(&record)?;
    let host = daemons::host(job.spec.limits.memory_mb.max(config::WORKER_MEMORY_MB_DEFAULT))?;
    let around = ExecEnv { careful: true, ..ExecEnv::of(&job, &record.task())? };
    let loaded = function(&store, &host, &job, stage, &args, &around).await?;
    let document = document(global, &store, &job, stage, &record).await?;
    // What the job would not take is a failure here too.
    let rules = (stage == Stage::Map).then(|| Rules::of(&job)).transpose()?;
    let run = move || {
        let sink = Shown { tap: LogSink::printed(stage), emits: 0, rules };
        let mut guest = Guest::start(loaded, sink)?;
        if guest.streams() {
            return Err(Error::refused(
                "this reduce streams, and the values of its keys are not kept",
                "give a --reduce that does not, or try it with aviary try",
            ));
        }
        let mut batch = Batch::default();
        batch.push(document.as_bytes());
        guest.call(&batch)?;
        Ok(guest.into_sink().emits)
    };
    let emits = tokio::task::spawn_blocking(run)
        .await
        .map_err(|e| Error::Internal(format!("the function panicked: {e}")))??;
    if !global.quiet {
        tell!("{stage} ended well; it emitted {emits}");
    }
    Ok(())
}

fn stage_of(record: &FailedRecord) -> Result<Stage> {
    let stages = [Stage::Map, Stage::Combine, Stage::Reduce, Stage::Finalize];
    stages.into_iter().find(|stage| stage.name() == record.stage()).ok_or_else(|| Error::Newer {
        what: format!("record {}", record.name()),
        why: format!("its stage is {:?}", record.stage()),
    })
}

/// The function that was given, or else the one that failed.
async fn function(
    store: &Store,
    host: &Host,
    job: &Job,
    stage: Stage,
    args: &ReplayArgs,
    around: &ExecEnv,
) -> Result<Loaded> {
    let given =
        [(Stage::Map, &args.map), (Stage::Reduce, &args.reduce), (Stage::Finalize, &args.finalize)];
    let given = given.into_iter().find_map(|(of, text)| Some((of, text.as_ref()?)));
    let Some((of, text)) = given else {
        let known = known(job, stage).ok_or_else(|| {
            Error::Internal(format!("job {} has no {stage} that could have failed", job.id))
        })?;
        return prepare::load(store, host, known, stage, around).await;
    };
    if of != stage {
        return Err(Error::Usage(format!(
            "{stage} failed on this record; give another one with --{stage}, not --{of}"
        )));
    }
    let spec = &job.spec;
    let checked = CheckedFor { scope: &spec.scope, limits: &spec.limits, mode: spec.output.mode };
    let given = Given::find(Some(store), host, text, stage, &checked).await?;
    trial::load(Some(store), host, &given, stage, around).await
}

fn known(job: &Job, stage: Stage) -> Option<&FunctionRef> {
    match (stage, &job.spec.reduce) {
        (Stage::Map, _) => Some(&job.spec.map),
        (Stage::Combine, _) => job.spec.combine.as_ref(),
        (Stage::Reduce, Some(Reducer::Function(function))) => Some(function),
        (Stage::Reduce, _) => None,
        (Stage::Finalize, _) => job.spec.finalize.as_ref(),
    }
}

/// The kept copy, or else a document as the input holds it now.
async fn document(
    global: &Global,
    store: &Store,
    job: &Job,
    stage: Stage,
    record: &FailedRecord,
) -> Result<RawDocumentBuf> {
    if let Some(kept) = record.record() {
        return Ok(kept.to_owned());
    }
    let not_kept = format!(
        "record {} has {} bytes, and no copy of it was kept",
        record.name(),
        record.bytes()
    );
    let (Stage::Map, Some(id)) = (stage, record.id()) else {
        return Err(Error::refused(not_kept, "run the functions on such data with aviary try"));
    };
    let input = &job.spec.input;
    let found = store.input_document(input, id).await?.ok_or_else(|| Error::NotFound {
        what: format!("document {id} of {}.{}", input.db, input.collection),
        hint: format!("{not_kept}, and it was removed since"),
    })?;
    if !global.quiet {
        tell!(
            "note: {not_kept}; it is read from {}.{} as it is now, and may have changed since",
            input.db,
            input.collection
        );
    }
    Ok(found)
}

/// Prints what is emitted and logged.
struct Shown {
    tap: LogSink,
    emits: u64,
    rules: Option<Rules>,
}

impl Sink for Shown {
    fn emit(&mut self, key: &[u8], value: &[u8]) -> std::result::Result<(), SinkError> {
        if let Some(rules) = &self.rules {
            rules.judged(key, value).map_err(boxed)?;
        }
        self.emits += 1;
        let shown = |bytes| {
            let value = crate::exec::function::raw(bytes)?;
            Ok::<_, Error>(extjson::json(value, Form::Relaxed))
        };
        let pair = (shown(key).map_err(boxed)?, shown(value).map_err(boxed)?);
        output::line(serde_json::json!({ "key": pair.0, "value": pair.1 })).map_err(boxed)
    }
    fn count(&mut self, name: &str, delta: i64) {
        tell!("counter {name} {delta:+}");
    }
    fn log(&mut self, level: Level, text: &str) {
        self.tap.line(level, text);
    }
}
