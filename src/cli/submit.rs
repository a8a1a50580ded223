//! `aviary submit`: one job, checked before anything is written, as a request.

mod find;
mod follow;

use bson::DateTime;

use super::args::{Global, SubmitArgs};
use super::{command, foresight, output};
use crate::config;
use crate::error::{Error, Result, StoreErrorKind};
use crate::functions::{CheckedFor, Given};
use crate::ids::JobId;
use crate::job::{FunctionRef, Job, JobSpec, Output, Reducer};
use crate::request::convert::of_job;
use crate::request::document::{NAME_BYTES_MAX, ReduceWish};
use crate::request::{Asked, REQUESTS};
use crate::store::Store;
use crate::store::input::InputSize;
use crate::store::requests::tenants;
use crate::store::retry::until_known;
use crate::terminal::tell;

pub(super) use find::{Found, FoundReduce, ejson_document, find, input, limits};
use find::{given_stored, parse_out, referring};
pub(super) use follow::{accepted, finish};
use follow::{announce, detached_patience, follow};

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

fn dry_run(spec: &JobSpec) -> Result<String> {
    let document = crate::exact::written(spec)
        .map_err(|e| Error::Internal(format!("a job does not serialise: {e}")))?;
    Ok(output::ejson(&document.into()).to_string())
}
