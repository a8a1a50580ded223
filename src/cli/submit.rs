//! `aviary submit`: one job, checked before anything is written, as a request.

use std::time::{Duration, Instant};

use bson::{DateTime, Document};

use super::args::{Format, Global, JobFunctions, SubmitArgs};
use super::{command, foresight, output, wait};
use crate::config;
use crate::error::{Error, Result, StoreErrorKind};
use crate::functions::{self, CheckedFor, Given};
use crate::ids::JobId;
use crate::job::{FunctionRef, Input, Job, JobSpec, Limits, Output, OutputMode, ReadMode, Reducer};
use crate::request::document::{NAME_BYTES_MAX, ReduceWish, of_job};
use crate::request::{Asked, REQUESTS};
use crate::store::Store;
use crate::store::input::InputSize;
use crate::store::requests::tenants;
use crate::store::retry::{ANSWER_MAX, until_known, within};
use crate::task::JobPhases;
use crate::task::counters::{UNMATCHED, UPDATED};
use crate::terminal::tell;
use crate::wasm::{Host, Stage};

/// A job's functions as given, found and checked, none of them stored yet.
pub(super) struct Found {
    pub(super) map: Given,
    pub(super) combine: Option<Given>,
    pub(super) reduce: Option<FoundReduce>,
    pub(super) finalize: Option<Given>,
}

impl Found {
    /// Map, combine, reduce and finalize.
    fn stages(&self) -> [Option<&Given>; 4] {
        let reduce = match &self.reduce {
            Some(FoundReduce::Function(given)) => Some(given),
            Some(FoundReduce::Builtin(_)) | None => None,
        };
        [Some(&self.map), self.combine.as_ref(), reduce, self.finalize.as_ref()]
    }

    fn given(&self) -> impl Iterator<Item = &Given> {
        self.stages().into_iter().flatten()
    }
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
            tell!("note: {note}");
        }
        args.out = rest.out;
        args.out_db = args.out_db.or(rest.out_db);
        args.tag = args.tag.or(rest.tag);
    }
    if args.job.collection.is_empty() {
        return Err(Error::Usage("nothing to read; give --collection, or a --command".into()));
    }
    let names = [("--id", &args.id), ("--tag", &args.tag), ("--client", &args.client)];
    for (flag, name) in names.into_iter().filter_map(|(flag, name)| Some((flag, name.as_ref()?))) {
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) {
            return Err(Error::Usage(format!(
                "{flag} has {} bytes, and takes 1 to {NAME_BYTES_MAX}",
                name.len()
            )));
        }
    }
    let scope = ejson_document("--scope", &args.job.scope)?;
    let (mode, target) = parse_out(&args.out)?;
    let store = global.store("aviary-submit").await?;
    let requests = args.tenant.as_deref().map_or(Ok(REQUESTS.to_owned()), tenants)?;
    let id = JobId::generate();
    let input = input(&args.job, store.db_name(), args.read)?;
    let output = Output {
        mode,
        db: args.out_db.clone().unwrap_or_else(|| store.db_name().to_owned()),
        collection: target.unwrap_or_else(|| Output::hidden(&id)),
    };
    // Refuse what needs no function first: it is the cheapest to say.
    let placeholder = FunctionRef { digest: String::new(), language: "js".into(), name: None };
    let spec = JobSpec {
        input,
        map: placeholder,
        combine: None,
        reduce: None,
        finalize: None,
        skip_single_values: args.job.skip_single_values,
        scope,
        output,
        // Zero until the plan has chosen.
        partitions: args.partitions.unwrap_or(0),
        limits: limits(&args.job),
        no_combine: args.job.no_combine,
        keep_intermediates: args.keep_intermediates,
        on_error: args.on_error,
    };
    spec.validate_without_functions(store.db_name())?;
    // The database is asked while the functions are checked. What it says comes first: it was the cheaper to find out.
    let checked_for = CheckedFor { scope: &spec.scope, limits: &spec.limits, mode };
    let (around, found) = tokio::try_join!(look_around(&store, &spec), async {
        Ok(find(Some(&store), &host, &args.job, &checked_for).await)
    })?;
    let found = found?;
    let checked = referring(&spec, &found);
    checked.validate(store.db_name())?;
    if around.is_missing {
        crate::coordinator::refuse_missing(&spec.output)?;
    }
    let known: Vec<String> =
        found.given().filter_map(|given| given.digest_if_known()).map(str::to_owned).collect();
    let missing = permitted(store.missing_functions(&known).await)?.unwrap_or_default();
    if !missing.is_empty() {
        return Err(Error::refused(
            format!("function {} was removed just now", missing.join(", ")),
            "insert the function again and submit once more",
        ));
    }
    if args.dry_run {
        output::line(dry_run(&checked)?)?;
        return Ok(());
    }
    if around.is_initialised == Some(false) {
        until_known(async |_| store.init().await).await?;
    }
    let key = args.id.clone().unwrap_or_else(|| id.to_string());
    let asked = asked(&store, key.clone(), &spec, &found, &args).await?;
    let is_new = match store.insert_request(&requests, &asked).await {
        Ok(()) => true,
        Err(Error::Store { source, .. })
            if source.kind == StoreErrorKind::DuplicateKey && args.id.is_some() =>
        {
            refuse_other(&store, &requests, &asked).await?;
            false
        }
        written => written.map(|()| true)?,
    };
    let job = Job {
        client: args.client.clone(),
        tag: args.tag.clone(),
        priority: args.priority,
        ..Job::new(id, store.home(), checked, DateTime::now())
    };
    if !global.quiet {
        match (is_new, args.detach) {
            (false, _) => tell!("there is a request {key} already; this is its job"),
            (true, false) => tell!("job {key} submitted"),
            (true, true) => {}
        }
    }
    let timeout = args.timeout.map(Into::into);
    let patience = if args.detach { detached_patience(&store).await } else { timeout };
    // The request is written, so whatever fails from here on must not look as if it were not.
    let foreseen = async {
        if !global.quiet {
            let input_bytes = around.size.map_or(0, |size| size.bytes);
            if let Err(error) = foresight::warn(&store, &job, input_bytes).await {
                tracing::debug!(%error, "cannot tell how the job will fare");
            }
        }
    };
    let answered = accepted(&store, &requests, &key, patience);
    let answered = async { tokio::join!(answered, foreseen).0 };
    let accepted = tokio::select! {
        accepted = answered => match accepted {
            // The request is written, and nobody waits for its job here.
            Err(Error::Unreachable { why, .. }) if args.detach => {
                tell!("the answer to {key} cannot be read yet: {why}");
                None
            }
            accepted => accepted?,
        },
        // The request is the database's by now.
        _ = tokio::signal::ctrl_c() => None,
    };
    let id = match accepted {
        Some(id) => id,
        None if args.detach && args.id.is_none() => job.id.clone(),
        None if args.detach => JobId::from_text(key),
        None => {
            let how = "waits for a coordinator to take it in".to_owned();
            return Err(Error::WaitTimeout { job: key, how });
        }
    };
    if args.detach {
        return announce(global, &store, &Job { id, ..job }).await;
    }
    match store.job(&id).await {
        // A user who may submit need not be one who may look at jobs; the request tells what there is to know.
        Err(error) if error.is_unpermitted() => {
            follow(global, &store, &requests, &id, timeout).await
        }
        _ => finish(global, &store, &id, timeout).await,
    }
}

/// What the database tells before anything is written.
struct Around {
    size: Option<InputSize>,
    /// The target is known not to exist.
    is_missing: bool,
    /// `None` where this user may not see it.
    is_initialised: Option<bool>,
}

/// Refuses what needs no function to be refused. The coordinator checks all this again; a user who may submit need
/// not be one who may look.
async fn look_around(store: &Store, spec: &JobSpec) -> Result<Around> {
    let size = permitted(store.inspect_input(&spec.input).await)?;
    permitted(store.check_query(&spec.input).await)?;
    let mut is_missing = false;
    if spec.output.mode.has_target() {
        let target = permitted(store.describe(&spec.output.db, &spec.output.collection).await)?;
        is_missing = matches!(target, Some(None));
        if let Some(target) = target.flatten() {
            crate::coordinator::refuse_target(&spec.output, &target)?;
        }
    }
    let is_initialised = permitted(store.is_initialised().await)?;
    Ok(Around { size, is_missing, is_initialised })
}

/// Passes over what this user may not see.
fn permitted<T>(outcome: Result<T>) -> Result<Option<T>> {
    match outcome {
        Err(error) if error.is_unpermitted() => Ok(None),
        outcome => outcome.map(Some),
    }
}

/// Refuses to take another job for this one because it was given the same `--id`.
async fn refuse_other(store: &Store, requests: &str, asked: &Asked) -> Result<()> {
    let otherwise = permitted(store.asks_otherwise(requests, asked).await)?.unwrap_or_default();
    if otherwise.is_empty() {
        return Ok(());
    }
    Err(Error::refused(
        format!(
            "there is a request {} already, and it asks for another job: {} differ",
            asked.id,
            otherwise.join(", ")
        ),
        format!("give another --id, or look at that job with `aviary status {}`", asked.id),
    ))
}

/// The request for a job. Functions travel with it, unless they are too large for one document.
async fn asked(
    store: &Store,
    key: String,
    spec: &JobSpec,
    found: &Found,
    args: &SubmitArgs,
) -> Result<Asked> {
    /// Half of what a document may have; the rest is for everything else.
    const FUNCTIONS_BYTES_MAX: usize = 8 << 20;
    let bytes: usize = found.given().map(Given::bytes).sum();
    let mut sent = Vec::new();
    let mut wishes = Vec::new();
    for given in found.stages() {
        wishes.push(match given {
            Some(given) if bytes > FUNCTIONS_BYTES_MAX => {
                let stored = given_stored(store, given).await?;
                Some(Given::Known(stored).wish(&mut sent))
            }
            Some(given) => Some(given.wish(&mut sent)),
            None => None,
        });
    }
    let mut wishes = wishes.into_iter();
    let mut next = || wishes.next().flatten();
    let mut asked = of_job(key, spec);
    asked.map = next();
    asked.combine = next();
    let reduce = next();
    asked.finalize = next();
    asked.reduce = match &found.reduce {
        Some(FoundReduce::Builtin(Reducer::Builtin(name))) => {
            Some(ReduceWish::Builtin(name.clone()))
        }
        _ => reduce.map(|wish| ReduceWish::Function(Box::new(wish))),
    };
    asked.client.clone_from(&args.client);
    asked.tag.clone_from(&args.tag);
    asked.priority = i64::from(args.priority);
    Ok(asked)
}

/// How long a caller who does not wait for the job waits for the answer: where a coordinator runs, it comes at
/// once.
async fn detached_patience(store: &Store) -> Option<Duration> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let runs = store.has_coordinator().await.unwrap_or(true);
    Some(if runs { PATIENCE } else { Duration::ZERO })
}

/// Waits for the coordinator's answer, and returns the job's id. `None` when there is none in time.
///
/// # Errors
/// The refusal.
pub(super) async fn accepted(
    store: &Store,
    requests: &str,
    key: &str,
    patience: Option<Duration>,
) -> Result<Option<JobId>> {
    /// An answer of the database is waited for so long at least.
    const ANSWER_MIN: Duration = Duration::from_secs(5);
    let began = Instant::now();
    let mut heard = DateTime::now();
    loop {
        let left = patience.map(|patience| patience.saturating_sub(began.elapsed()));
        let limit = left.map_or(ANSWER_MAX, |left| left.clamp(ANSWER_MIN, ANSWER_MAX));
        let (asked, of, id) = (store.clone(), requests.to_owned(), key.to_owned());
        let asking = async move { asked.answer_to(&of, &id).await };
        let away = match within(limit, "ask for the answer", asking).await {
            Ok(answer) => {
                heard = DateTime::now();
                let answer = answer.unwrap_or_default();
                match (answer.state.as_deref(), answer.job, answer.error) {
                    (Some("accepted"), Some(job), _) => return Ok(Some(JobId::from_text(job))),
                    (Some("refused"), _, Some(problem)) => return Err(problem.error()),
                    _ => None,
                }
            }
            Err(error) if error.is_transient() => Some(error),
            Err(error) => return Err(error),
        };
        if patience.is_some_and(|patience| began.elapsed() >= patience) {
            return match away {
                None => Ok(None),
                Some(error) => Err(Error::Unreachable {
                    job: key.to_owned(),
                    since: output::date(Some(heard)).unwrap_or_default(),
                    why: error.to_string(),
                }),
            };
        }
        tokio::time::sleep(wait::pause(began.elapsed())).await;
    }
}

/// Waits for the end of a job as its request tells of it.
async fn follow(
    global: &Global,
    store: &Store,
    requests: &str,
    id: &JobId,
    timeout: Option<Duration>,
) -> Result<()> {
    let began = Instant::now();
    loop {
        let told = store.told(requests, id).await;
        match told {
            Err(error) if error.is_transient() => {}
            told => {
                let told = told?;
                if let Ok(error) = told.get_document("error") {
                    let message = error.get_str("message").unwrap_or("unknown").to_owned();
                    let job = id.to_string();
                    return Err(match error.get_str("code") {
                        Ok("cancelled") => Error::JobCancelled(job),
                        Ok("stopped") => Error::JobStopped { job, message },
                        _ => Error::JobFailed { job, message },
                    });
                }
                if let Ok(result) = told.get_document("result") {
                    match global.format() {
                        Format::Json => {
                            output::line(output::ejson(&bson::Bson::Document(result.clone())))?;
                        }
                        _ => output::line(id)?,
                    }
                    return Ok(());
                }
            }
        }
        if timeout.is_some_and(|timeout| began.elapsed() >= timeout) {
            return Err(Error::WaitTimeout { job: id.to_string(), how: "goes on".to_owned() });
        }
        tokio::time::sleep(wait::pause(began.elapsed())).await;
    }
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
            if !global.quiet {
                tell_warnings(store, &job).await;
            }
            wait::verdict(&job)?;
            if !global.quiet {
                super::failed::warn(&job);
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

/// Shows what the job's functions warn of, as `try` does.
async fn tell_warnings(store: &Store, job: &Job) {
    const SHOWN_MAX: i64 = 5;
    match store.warnings(job, SHOWN_MAX + 1).await {
        Ok(warnings) => {
            let shown = usize::try_from(SHOWN_MAX).unwrap_or(usize::MAX);
            for warning in warnings.iter().take(shown) {
                tell!("warning: {warning}");
            }
            if warnings.len() > shown {
                tell!("warning: there are more; `aviary logs {}` shows them all", job.id);
            }
        }
        // They are for people, and stay in the log.
        Err(error) => tracing::debug!(%error, "cannot read what the functions warn of"),
    }
}

fn summary(job: &Job) {
    tell!(
        "job {} {} in {}: {}",
        job.id,
        job.state,
        output::duration(Some(job.created), job.finished),
        job.counters.as_ref().map(output::counters).unwrap_or_default()
    );
    let count = |name| job.counters.as_ref()?.get(name).map(output::number);
    let Output { mode, db, collection } = &job.spec.output;
    if *mode == OutputMode::Update {
        let [updated, unmatched, output] =
            [UPDATED, UNMATCHED, "output"].map(|name| count(name).unwrap_or_else(|| "0".into()));
        tell!("{updated} of {output} results had a document to update in {db}.{collection}");
        if unmatched != "0" {
            tell!(
                "warning: {unmatched} results have an _id that it does not hold, and were left out"
            );
        }
    } else if mode.has_target() {
        tell!("results are in {db}.{collection}");
    }
    if count("input").as_deref() == Some("0") {
        let Input { db, collection, .. } = &job.spec.input;
        let left = match job.spec.output.mode {
            OutputMode::Replace => ", so the target is empty now",
            _ => "",
        };
        tell!("note: no document of {db}.{collection} matched{left}");
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

/// Finds and checks every function that a job names.
pub(super) async fn find(
    store: Option<&Store>,
    host: &Host,
    args: &JobFunctions,
    job: &CheckedFor<'_>,
) -> Result<Found> {
    let named = named_stages(store, host, args, job.scope).await?;
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
async fn named_stages(
    store: Option<&Store>,
    host: &Host,
    args: &JobFunctions,
    scope: &Document,
) -> Result<Named> {
    let mut named = Named {
        map: args.map.clone(),
        combine: args.combine.clone(),
        reduce: args.reduce.clone(),
        finalize: args.finalize.clone(),
    };
    let Some(module) = &args.module else { return Ok(named) };
    let path = std::path::Path::new(module);
    let stages = if path.is_file() {
        match functions::Source::read(host, path)? {
            script if script.language == "js" => script.script_stages(host, scope).await?,
            module => module.stages,
        }
    } else {
        let found = match store {
            Some(store) => store.find_function(module).await?,
            None => None,
        };
        let found = found.ok_or_else(|| functions::not_found(module))?;
        match found.language.as_str() {
            "js" => {
                let text = String::from_utf8_lossy(&found.content.bytes);
                functions::script::stages(host, &text, scope).await?
            }
            _ => found.stages,
        }
    };
    if stages.is_empty() {
        return Err(Error::refused(
            format!("{module} does not say by names which stages it has"),
            "name its functions map, reduce, … for --module, or give it as --map, --reduce, …",
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

/// Storing the same function twice is storing it once.
async fn given_stored(store: &Store, given: &Given) -> Result<FunctionRef> {
    until_known(async |_| given.stored(store).await).await
}

fn reference(given: &Given) -> FunctionRef {
    match given {
        Given::Known(known) => known.clone(),
        Given::Named(name) => functions::named(name),
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
    let document = crate::exact::written(spec)
        .map_err(|e| Error::Internal(format!("a job does not serialise: {e}")))?;
    Ok(output::ejson(&document.into()).to_string())
}

/// The input that the flags describe.
pub(super) fn input(args: &JobFunctions, db: &str, read: ReadMode) -> Result<Input> {
    let optional = |flag: &str, text: &Option<String>| {
        text.as_ref().map(|text| ejson_document(flag, text)).transpose()
    };
    Ok(Input {
        db: args.input_db.clone().unwrap_or_else(|| db.to_owned()),
        collection: args.collection.clone(),
        query: query(&args.query)?,
        sort: optional("--sort", &args.sort)?,
        limit: args.limit,
        projection: optional("--projection", &args.projection)?,
        collation: optional("--collation", &args.collation)?,
        read,
    })
}

/// The query, if it is no larger than a job may carry along.
fn query(text: &str) -> Result<Document> {
    let query = ejson_document("--query", text)?;
    let bytes =
        query.to_vec().map_err(|e| Error::Usage(format!("--query does not serialise: {e}")))?;
    if bytes.len() > config::QUERY_BYTES_MAX {
        return Err(Error::Usage(format!(
            "--query has {} bytes, and a job carries at most {} along; leave out documents in the map \
             instead, or give several jobs a part each, with --out merge:NAME",
            bytes.len(),
            config::QUERY_BYTES_MAX
        )));
    }
    crate::store::shape::check(&bytes).map_err(|why| {
        Error::Usage(format!("--query {}", why.strip_prefix("it ").unwrap_or(&why)))
    })?;
    Ok(query)
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

/// A flag's document: extended JSON, what one would type into mongosh, or a file with either.
pub(super) fn ejson_document(flag: &str, text: &str) -> Result<Document> {
    let bad = |what: &str, why: &str| {
        Error::Usage(format!(
            "{flag}{what} is no document, like '{{v: {{$gt: 5}}}}' or '{{\"v\": {{\"$gt\": 5}}}}': {why}"
        ))
    };
    if text.trim_start().starts_with(['{', '[', '"']) {
        return super::command::document(text).map_err(|why| bad("", &why));
    }
    let path = std::path::Path::new(text);
    match std::fs::read_to_string(path) {
        Ok(read) => super::command::document(&read).map_err(|why| bad(&format!(" {text}"), &why)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            Err(bad("", &format!("it begins with no brace, and there is no file {text}")))
        }
        Err(e) => Err(Error::unreadable(path, e)),
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
