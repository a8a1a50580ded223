//! `aviary submit`: one job, checked before anything is written.

use bson::{DateTime, Document};

use super::args::{Format, Global, JobFunctions, SubmitArgs};
use super::{command, foresight, output, wait};
use crate::config;
use crate::error::{Error, Result};
use crate::functions::{self, CheckedFor, Given};
use crate::ids::JobId;
use crate::job::{
    FunctionRef, Input, Job, JobEvent, JobSpec, JobState, Limits, Output, OutputMode, ReadMode,
    Reducer,
};
use crate::store::Store;
use crate::store::retry::until_known;
use crate::task::JobPhases;
use crate::task::counters::UPDATED;
use crate::wasm::{Host, Stage};

/// A job's functions as given, found and checked, none of them stored yet.
pub(super) struct Found {
    pub(super) map: Given,
    pub(super) combine: Option<Given>,
    pub(super) reduce: Option<FoundReduce>,
    pub(super) finalize: Option<Given>,
}

/// A reduce as given.
pub(super) enum FoundReduce {
    Builtin(Reducer),
    Function(Given),
}

pub(super) async fn run(global: &Global, mut args: SubmitArgs) -> Result<()> {
    let host = super::daemons::host(args.job.memory_mb.max(config::WORKER_MEMORY_MB_DEFAULT))?;
    if let Some(given) = args.job.command.take() {
        let rest = command::apply(&host, &given, &mut args.job).await?;
        for note in rest.notes.iter().filter(|_| !global.quiet) {
            eprintln!("note: {note}");
        }
        args.out = rest.out;
        args.out_db = args.out_db.or(rest.out_db);
        args.tag = args.tag.or(rest.tag);
    }
    if args.job.collection.is_empty() {
        return Err(Error::Usage("nothing to read; give --collection, or a --command".into()));
    }
    let scope = ejson_document("--scope", &args.job.scope)?;
    let (mode, target) = parse_out(&args.out)?;
    let store = global.store("aviary-submit").await?;
    let id = JobId::generate();
    let input = input(&args.job, store.db_name(), args.read)?;
    let output = Output {
        mode,
        db: args.out_db.clone().unwrap_or_else(|| store.db_name().to_owned()),
        collection: target.unwrap_or_else(|| Output::hidden(&id)),
    };
    // Refuse what needs no function first: it is the cheapest to say.
    let placeholder = FunctionRef { digest: String::new(), language: "js".into(), name: None };
    let mut spec = JobSpec {
        input,
        map: placeholder,
        combine: None,
        reduce: None,
        finalize: None,
        skip_single_values: args.job.skip_single_values,
        scope,
        output,
        partitions: args.partitions,
        limits: limits(&args.job),
        no_combine: args.job.no_combine,
        keep_intermediates: args.keep_intermediates,
    };
    spec.validate_without_functions(store.db_name())?;
    let size = store.inspect_input(&spec.input).await?;
    store.check_query(&spec.input).await?;
    let mut is_missing = false;
    if mode.has_target() {
        let target = store.describe(&spec.output.db, &spec.output.collection).await?;
        is_missing = target.is_none();
        if let Some(target) = target {
            crate::coordinator::refuse_target(&spec.output, &target)?;
        }
    }
    let checked_for = CheckedFor { scope: &spec.scope, limits: &spec.limits, mode };
    let found = find(Some(&store), &host, &args.job, &checked_for).await?;
    let checked = referring(&spec, &found);
    checked.validate(store.db_name())?;
    if is_missing {
        crate::coordinator::refuse_missing(&spec.output)?;
    }
    if args.dry_run {
        output::line(dry_run(&checked)?)?;
        return Ok(());
    }
    if !store.is_initialised().await? {
        until_known(async |_| store.init().await).await?;
    }
    spec.map = given_stored(&store, &found.map).await?;
    spec.combine = stored(&store, found.combine.as_ref()).await?;
    spec.finalize = stored(&store, found.finalize.as_ref()).await?;
    spec.reduce = match &found.reduce {
        None => None,
        Some(FoundReduce::Builtin(builtin)) => Some(builtin.clone()),
        Some(FoundReduce::Function(given)) => {
            Some(Reducer::Function(given_stored(&store, given).await?))
        }
    };
    let job = new_job(id, &store, spec, &args);
    store.insert_job(&job).await?;
    // The worker finds out too, if this cannot be asked now.
    match still_there(&store, &job).await {
        Err(error) if error.is_transient() => tracing::debug!(%error, "cannot look for functions"),
        looked => looked?,
    }
    if !global.quiet {
        if !args.detach {
            eprintln!("job {} submitted", job.id);
        }
        // The job is written, so whatever fails from here on must not look as if it were not.
        if let Err(error) = foresight::warn(&store, &job, size.bytes).await {
            tracing::debug!(%error, "cannot tell how the job will fare");
        }
    }
    if args.detach {
        return announce(global, &store, &job).await;
    }
    finish(global, &store, &job.id, args.timeout.map(Into::into)).await
}

/// Whoever removes a function looks for jobs that need it before and after; this is the other half, so that
/// one of the two notices.
async fn still_there(store: &Store, job: &Job) -> Result<()> {
    let missing = store.missing_functions(&job.spec.digests()).await?;
    if missing.is_empty() {
        return Ok(());
    }
    until_known(async |_| {
        store.transition(&job.id, JobEvent::CancelRequested, bson::doc! {}, bson::doc! {}).await
    })
    .await?;
    Err(Error::refused(
        format!(
            "function {} was removed just now; job {} is cancelled",
            missing.join(", "),
            job.id
        ),
        "insert the function again and submit once more",
    ))
}

/// Waits for a job, prints how it ended, and turns that into the exit code.
pub(super) async fn finish(
    global: &Global,
    store: &Store,
    id: &JobId,
    timeout: Option<std::time::Duration>,
) -> Result<()> {
    let (job, phases) = tokio::select! {
        ended = wait::ended(store, id, global.quiet, timeout) => ended?,
        // The job is the database's by now, and goes on.
        _ = tokio::signal::ctrl_c() => {
            return Err(Error::WaitTimeout { job: id.to_string(), how: "goes on".into() });
        }
    };
    match global.format() {
        Format::Json => output::line(output::job_json(&job, &phases))?,
        Format::Name => output::line(&job.id)?,
        Format::Table | Format::Wide => {
            wait::verdict(&job)?;
            if !global.quiet {
                summary(&job);
            }
            if job.spec.output.mode == OutputMode::Inline {
                super::results::print(
                    store,
                    &job,
                    Document::from_iter([("_id".into(), 1.into())]),
                    0,
                )
                .await?;
            }
        }
    }
    wait::verdict(&job)
}

fn summary(job: &Job) {
    let counters: Vec<String> = job
        .counters
        .iter()
        .flatten()
        .map(|(name, value)| format!("{name} {}", output::number(value)))
        .collect();
    eprintln!(
        "job {} {} in {}: {}",
        job.id,
        job.state,
        output::duration(Some(job.created), job.finished),
        counters.join(", ")
    );
    let Output { mode, db, collection } = &job.spec.output;
    if *mode == OutputMode::Update {
        let count = |name| job.counters.as_ref().and_then(|counters| counters.get(name));
        let [updated, output] =
            [UPDATED, "output"].map(|n| count(n).map_or("0".into(), output::number));
        eprintln!("{updated} of {output} results had a document to update in {db}.{collection}");
    } else if mode.has_target() {
        eprintln!("results are in {db}.{collection}");
    }
}

async fn announce(global: &Global, store: &Store, job: &Job) -> Result<()> {
    match global.format() {
        Format::Json => {
            let phases: JobPhases = store.phases(job).await.unwrap_or_default();
            output::line(output::job_json(job, &phases))?;
        }
        Format::Name | Format::Table | Format::Wide => output::line(&job.id)?,
    }
    Ok(())
}

fn new_job(id: JobId, store: &Store, spec: JobSpec, args: &SubmitArgs) -> Job {
    Job {
        id,
        kind: "job".into(),
        shard: store.home().to_owned(),
        state: JobState::Submitted,
        client: args.client.clone(),
        tag: args.tag.clone(),
        priority: args.priority,
        spec,
        created: DateTime::now(),
        started: None,
        finished: None,
        stopped: None,
        snapshot: None,
        plan: 0,
        map_tasks: 0,
        reduce_tasks: 0,
        reduce_on: Vec::new(),
        input_bytes: None,
        input_documents: None,
        input_uuid: None,
        counters: None,
        publish: None,
        role: 0,
        cancel: false,
        waiting: None,
        error: None,
        cleaned: false,
    }
}

/// Finds and checks every function that a job names.
pub(super) async fn find(
    store: Option<&Store>,
    host: &Host,
    args: &JobFunctions,
    job: &CheckedFor<'_>,
) -> Result<Found> {
    let named = named_stages(store, host, args).await?;
    let one = async |text: &Option<String>, stage| match text {
        Some(text) => Given::find(store, host, text, stage, job).await.map(Some),
        None => Ok(None),
    };
    let map = one(&named.map, Stage::Map)
        .await?
        .ok_or_else(|| Error::Usage("no map given; use --map or --module".into()))?;
    let reduce = match &named.reduce {
        None => None,
        Some(text) => Some(match functions::builtin(text)? {
            Some(builtin) => FoundReduce::Builtin(builtin),
            None => {
                FoundReduce::Function(Given::find(store, host, text, Stage::Reduce, job).await?)
            }
        }),
    };
    if args.no_combine && !matches!(reduce, Some(FoundReduce::Function(_))) {
        return Err(Error::Usage("--no-combine needs a --reduce that is a function".into()));
    }
    if named.combine.is_some() && matches!(reduce, Some(FoundReduce::Builtin(_))) {
        return Err(Error::Usage(
            "a built-in reduce combines on the map side by itself; leave --combine out".into(),
        ));
    }
    if named.combine.as_ref().is_some_and(|text| functions::builtin(text).ok().flatten().is_some())
    {
        return Err(Error::Usage(
            "a built-in goes with --reduce; it combines on the map side by itself".into(),
        ));
    }
    Ok(Found {
        map,
        combine: one(&named.combine, Stage::Combine).await?,
        reduce,
        finalize: one(&named.finalize, Stage::Finalize).await?,
    })
}

struct Named {
    map: Option<String>,
    combine: Option<String>,
    reduce: Option<String>,
    finalize: Option<String>,
}

/// `--module` stands for each stage that it exports and that no other flag names.
async fn named_stages(store: Option<&Store>, host: &Host, args: &JobFunctions) -> Result<Named> {
    let mut named = Named {
        map: args.map.clone(),
        combine: args.combine.clone(),
        reduce: args.reduce.clone(),
        finalize: args.finalize.clone(),
    };
    let Some(module) = &args.module else { return Ok(named) };
    let path = std::path::Path::new(module);
    let stages = if path.is_file() {
        functions::Source::read(host, path)?.stages
    } else {
        let found = match store {
            Some(store) => store.find_function(module).await?,
            None => None,
        };
        found.ok_or_else(|| functions::not_found(module))?.stages
    };
    if stages.is_empty() {
        return Err(Error::refused(
            format!("{module} is not a module with several stages"),
            "give --map, --reduce, … instead; a script serves one stage at a time",
        ));
    }
    for (stage, slot) in [
        ("map", &mut named.map),
        ("combine", &mut named.combine),
        ("reduce", &mut named.reduce),
        ("finalize", &mut named.finalize),
    ] {
        if slot.is_none() && stages.iter().any(|s| s == stage) {
            *slot = Some(module.clone());
        }
    }
    // The module's combine belongs to its own reduce.
    let is_builtin = |text: &String| functions::builtin(text).ok().flatten().is_some();
    if args.no_combine || named.reduce.as_ref().is_some_and(is_builtin) {
        named.combine.clone_from(&args.combine);
    }
    Ok(named)
}

async fn stored(store: &Store, given: Option<&Given>) -> Result<Option<FunctionRef>> {
    match given {
        Some(given) => given_stored(store, given).await.map(Some),
        None => Ok(None),
    }
}

/// Storing the same function twice is storing it once.
async fn given_stored(store: &Store, given: &Given) -> Result<FunctionRef> {
    until_known(async |_| given.stored(store).await).await
}

fn reference(given: &Given) -> FunctionRef {
    match given {
        Given::Known(known) => known.clone(),
        Given::New(source) => FunctionRef {
            digest: source.digest(),
            language: source.language.to_owned(),
            name: Some(source.file.clone()),
        },
    }
}

/// The job as it will be once its functions are stored.
fn referring(spec: &JobSpec, found: &Found) -> JobSpec {
    let mut spec = spec.clone();
    spec.map = reference(&found.map);
    spec.combine = found.combine.as_ref().map(reference);
    spec.finalize = found.finalize.as_ref().map(reference);
    spec.reduce = found.reduce.as_ref().map(|reduce| match reduce {
        FoundReduce::Builtin(builtin) => builtin.clone(),
        FoundReduce::Function(given) => Reducer::Function(reference(given)),
    });
    spec
}

fn dry_run(spec: &JobSpec) -> Result<String> {
    let bson = bson::serialize_to_bson(spec)
        .map_err(|e| Error::Internal(format!("a job does not serialise: {e}")))?;
    Ok(output::ejson(&bson).to_string())
}

/// The input that the flags describe.
pub(super) fn input(args: &JobFunctions, db: &str, read: ReadMode) -> Result<Input> {
    let optional = |flag: &str, text: &Option<String>| {
        text.as_ref().map(|text| ejson_document(flag, text)).transpose()
    };
    Ok(Input {
        db: args.input_db.clone().unwrap_or_else(|| db.to_owned()),
        collection: args.collection.clone(),
        query: ejson_document("--query", &args.query)?,
        sort: optional("--sort", &args.sort)?,
        limit: args.limit,
        projection: optional("--projection", &args.projection)?,
        collation: optional("--collation", &args.collation)?,
        read,
    })
}

/// The limits that the flags describe.
pub(super) fn limits(args: &JobFunctions) -> Limits {
    let ms = |timeout: humantime::Duration| {
        u64::try_from(std::time::Duration::from(timeout).as_millis()).unwrap_or(u64::MAX)
    };
    Limits {
        memory_mb: args.memory_mb,
        record_timeout_ms: ms(args.record_timeout),
        task_timeout_ms: args.task_timeout.map(ms),
        record_output_bytes: args.record_output,
        log_bytes: args.log_bytes,
    }
}

/// Parses a flag's extended JSON into a document.
pub(super) fn ejson_document(flag: &str, text: &str) -> Result<Document> {
    let bad = |why: String| {
        Error::Usage(format!(
            "{flag} is not a JSON document with names in double quotes, like '{{\"v\": {{\"$gt\": 5}}}}': {why}"
        ))
    };
    let json: serde_json::Value = serde_json::from_str(text).map_err(|e| bad(e.to_string()))?;
    match bson::Bson::try_from(json) {
        Ok(bson::Bson::Document(doc)) => Ok(doc),
        Ok(_) => Err(bad("it must be an object, like {\"status\": \"paid\"}".into())),
        Err(e) => Err(bad(e.to_string())),
    }
}

fn parse_out(text: &str) -> Result<(OutputMode, Option<String>)> {
    let not_understood = || {
        Error::Usage(format!(
            "--out {text} is not understood; use replace:NAME, merge:NAME, reduce:NAME, \
             update:NAME or inline"
        ))
    };
    match text.split_once(':') {
        None if text == "inline" => Ok((OutputMode::Inline, None)),
        Some((mode, name)) if !name.is_empty() => {
            let mode = match mode {
                "replace" => OutputMode::Replace,
                "merge" => OutputMode::Merge,
                "reduce" => OutputMode::Reduce,
                "update" => OutputMode::Update,
                _ => return Err(not_understood()),
            };
            Ok((mode, Some(name.to_owned())))
        }
        _ => Err(not_understood()),
    }
}
