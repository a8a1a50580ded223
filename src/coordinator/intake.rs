//! From a request to a job, or to a refusal.
//!
//! Everything of a job is set here: a request is read, checked completely, and copied field by field. It can be
//! repeated at any point: the job's id is fixed before the job is written, and a job that is there already is the
//! request's own or somebody else's, which its document tells.

use std::time::{Duration, Instant};

use bson::{DateTime, doc};

use super::planning;
use crate::config::{Caps, Settings};
use crate::error::{Error, Result};
use crate::functions;
use crate::ids::JobId;
use crate::job::limits::is_job_id;
use crate::job::{Job, JobEvent, JobSpec, JobState, Reducer, RequestRef};
use crate::protocol::backoff::Backoff;
use crate::request::document::{FunctionWish, ReduceWish, usage};
use crate::request::job::{self, At, Fault};
use crate::request::{Asked, Problem, Wish, tenant};
use crate::settings::Live;
use crate::store::Store;
use crate::store::requests::Found;
use crate::store::retry::{self, within};
use crate::wasm::Stage;

/// Takes requests in, and remembers which have to wait.
pub(super) struct Intake {
    store: Store,
    settings: Live,
    collections: Vec<String>,
    looked: Option<Instant>,
    /// Requests that could not be answered: the collection and the `_id`.
    backoff: Backoff<(String, String)>,
    since: Instant,
}

impl Intake {
    pub(super) fn new(store: Store, settings: Live) -> Self {
        /// Requests that cannot be answered, to be remembered.
        const FAILING_MAX: usize = 1_000;
        Self {
            store,
            settings,
            collections: Vec::new(),
            looked: None,
            backoff: Backoff::new(FAILING_MAX),
            since: Instant::now(),
        }
    }

    /// Answers every request that has no answer, as far as it can be done now. What cannot be answered waits; it
    /// holds up no other.
    ///
    /// # Errors
    /// Only when collections cannot be listed at all.
    pub(super) async fn look(&mut self) -> Result<()> {
        /// How often new collections of requests are looked for.
        const LIST_EVERY: Duration = Duration::from_secs(5);
        if self.looked.is_none_or(|at| at.elapsed() > LIST_EVERY) {
            let store = self.store.clone();
            let listing = async move { store.request_collections().await };
            self.collections = within(retry::ANSWER_MAX, "list requests", listing).await?;
            self.looked = Some(Instant::now());
        }
        for collection in self.collections.clone() {
            if let Err(error) = self.take_in(&collection).await {
                tracing::warn!(collection, %error, "could not read requests; trying again");
            }
        }
        Ok(())
    }

    async fn take_in(&mut self, collection: &str) -> Result<()> {
        let now = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let put_off = self.backoff.put_off(now).filter(|(of, _)| of == collection);
        let put_off: Vec<String> = put_off.map(|(_, id)| id.clone()).collect();
        let (store, of) = (self.store.clone(), collection.to_owned());
        let reading = async move { store.unanswered(&of, &put_off).await };
        for id in within(retry::ANSWER_MAX, "look for requests", reading).await? {
            let (store, settings, of) =
                (self.store.clone(), self.settings.now(), collection.to_owned());
            let asked = id.clone();
            let answering = async move {
                match store.request(&of, &asked).await? {
                    Some(found) => answer(&store, &settings, found).await,
                    None => Ok(()),
                }
            };
            let key = (collection.to_owned(), id);
            match within(retry::ANSWER_MAX, "answer a request", answering).await {
                Ok(()) => self.backoff.worked(&key),
                Err(error) => {
                    let again_ms = self.backoff.failed(&key, now);
                    tracing::warn!(collection, request = key.1, %error, again_ms, "the request has to wait");
                }
            }
        }
        Ok(())
    }
}

/// Answers one request.
///
/// # Errors
/// What keeps it from being answered for the time being.
async fn answer(store: &Store, settings: &Settings, found: Found) -> Result<()> {
    let (collection, id) = (found.collection.clone(), found.id.clone());
    match understand(store, &settings.caps, found).await {
        Ok(()) => Ok(()),
        Err(fault) if fault.is_passing() => Err(*fault.error),
        Err(fault) => {
            tracing::info!(collection, request = %id, error = %fault.error, "request refused");
            let problem = Problem::of(&fault.error, fault.field.as_deref());
            store.refuse(&collection, &id, &problem, settings.retention).await.map(|_| ())
        }
    }
}

async fn understand(store: &Store, caps: &Caps, found: Found) -> std::result::Result<(), Fault> {
    let Found { collection, id, job, asked } = found;
    let asked = asked.map_err(|malformed| Fault {
        field: malformed.field.clone(),
        error: Box::new(Error::Usage(malformed.why)),
    })?;
    let request = RequestRef { collection, id: asked.id.clone() };
    let asked = asked.sorted().at("")?;
    match asked.wish {
        Wish::Run(asked) => begin(store, caps, &request, &id, job, *asked).await,
        Wish::Cancel(job) => {
            let job = own_job(store, &request, &job).await.at("cancel")?;
            cancel(store, &job).await.at("cancel")?;
            accepted(store, &request, &id, &job.id).await.at("")
        }
        Wish::Resume(job) => {
            let job = own_job(store, &request, &job).await.at("resume")?;
            resume(store, &job).await.at("resume")?;
            accepted(store, &request, &id, &job.id).await.at("")
        }
    }
}

async fn accepted(store: &Store, request: &RequestRef, id: &str, job: &JobId) -> Result<()> {
    let set = doc! { "job": job, "result": { "job": job } };
    store.accept(&request.collection, id, set).await.map(|_| ())
}

/// The job that a request may speak of: one that came the same way. Jobs that came without a request belong to
/// the collection of everybody.
async fn own_job(store: &Store, request: &RequestRef, text: &str) -> Result<Job> {
    let missing = || Error::NotFound { what: format!("job {text}"), hint: String::new() };
    let id = match store.answer_to(&request.collection, text).await?.and_then(|answer| answer.job) {
        Some(job) => job,
        None => text.to_owned(),
    };
    let job = store.job(&JobId::from_text(id)).await?.ok_or_else(missing)?;
    let came_by =
        job.request.as_ref().map_or(crate::request::REQUESTS, |from| from.collection.as_str());
    if came_by != request.collection {
        return Err(missing());
    }
    Ok(job)
}

async fn cancel(store: &Store, job: &Job) -> Result<()> {
    let (and, set) = match job.state {
        JobState::Stopped => {
            let (and, set, _) = super::cancelling_stopped(store, job).await?;
            (and, set)
        }
        _ => (doc! {}, doc! {}),
    };
    if store.transition(&job.id, JobEvent::CancelRequested, and, set).await? {
        store.cancel_tasks(&job.id).await?;
        return Ok(());
    }
    if store.request_cancel(&job.id).await? {
        return Ok(());
    }
    match store.job(&job.id).await? {
        Some(now) if now.state == JobState::Cancelled => Ok(()),
        Some(now) => Err(Error::refused(
            format!("the state of job {} is {}", now.id, now.state),
            "a job can be cancelled until its results are in place",
        )),
        None => Err(Error::NotFound { what: format!("job {}", job.id), hint: String::new() }),
    }
}

async fn resume(store: &Store, job: &Job) -> Result<()> {
    if job.state == JobState::Stopped
        && let Some(request) = &job.request
    {
        store.untell_stop(request).await?;
    }
    if super::resume(store, job).await? {
        return Ok(());
    }
    Err(Error::refused(
        format!("the state of job {} is {}", job.id, job.state),
        "only a stopped job can be resumed",
    ))
}

/// Makes a job of a request.
async fn begin(
    store: &Store,
    caps: &Caps,
    request: &RequestRef,
    id: &str,
    set_aside: Option<String>,
    mut asked: Asked,
) -> std::result::Result<(), Fault> {
    let notes = job::translated(&mut asked).at("command")?;
    let own = JobId::from_text(&asked.id);
    let job = match set_aside.map(JobId::from_text) {
        Some(job) if is_job_id(&job) => job,
        Some(_) => return Err(usage("job", "is for the coordinator to set")).at("job"),
        None if is_job_id(&own) => own,
        None => match store.reserve_job(&request.collection, id).await.at("")? {
            Some(job) => job,
            None => return Ok(()),
        },
    };
    if !is_there(store, request, &job).await? {
        let spec = spec(store, caps, &job, &mut asked).await?;
        let document = new_job(store, request, job.clone(), spec, &asked).at("priority")?;
        store.insert_job(&document).await.at("")?;
        // Whoever removes a function looks for jobs that need it before and after. One that is marked to go stays.
        let digests = document.spec.digests();
        let (gone, stays) =
            tokio::join!(store.keep_functions(&digests), is_there(store, request, &job));
        let gone = gone.at("")?;
        if !gone.is_empty() {
            cancel(store, &document).await.at("")?;
            let why = format!("function {} was removed just now", gone.join(", "));
            return Err(Error::refused(why, "insert the function again and submit once more"))
                .at("");
        }
        if !stays? {
            return Ok(());
        }
    }
    let mut set = doc! { "job": &job };
    if !notes.is_empty() {
        set.insert("progress", doc! { "state": "submitted", "notes": notes });
    }
    if store.accept(&request.collection, id, set).await.at("")? {
        tracing::info!(request = %request.id, job = %job, "request accepted");
        return Ok(());
    }
    // It was taken back, or answered by another coordinator that was as fast.
    let answer = store.answer_to(&request.collection, job.as_str()).await.at("")?;
    if answer.is_none_or(|answer| answer.state.as_deref() == Some("refused"))
        && let Some(taken_back) = store.job(&job).await.at("")?
        && !taken_back.state.is_terminal()
    {
        cancel(store, &taken_back).await.at("")?;
    }
    Ok(())
}

/// Whether the job is there, or was and is removed.
async fn is_there(
    store: &Store,
    request: &RequestRef,
    id: &JobId,
) -> std::result::Result<bool, Fault> {
    let (removed, job) = tokio::join!(store.removed(id), store.job(id));
    if removed.at("")?.is_some() {
        return Ok(true);
    }
    match job.at("_id")? {
        None => Ok(false),
        Some(job) if job.request.as_ref() == Some(request) => Ok(true),
        Some(_) => Err(Error::refused(format!("there is another job {id}"), "choose another _id"))
            .at("_id"),
    }
}

/// What the job will do, with nothing left to be checked that can be checked now.
async fn spec(
    store: &Store,
    caps: &Caps,
    id: &JobId,
    asked: &mut Asked,
) -> std::result::Result<JobSpec, Fault> {
    let home = store.db_name();
    let mut spec = job::drafted(home, id, asked)?;
    caps.check(&spec).map_err(Error::from).at("limits")?;
    store.authorize(&spec).await.at("")?;
    // Asked for at once, and what is wrong is told in this order.
    let (inspected, query, target) = tokio::join!(
        store.inspect_input(&spec.input),
        store.check_query(&spec.input),
        planning::fit_target(store, &spec.output),
    );
    inspected.at("input")?;
    query.at("input")?;
    target.at("out")?;
    functions_of(store, &mut spec, asked).await?;
    spec.validate(home).at("")?;
    Ok(spec)
}

/// Finds the functions, those in the request first: they are stored, under their digests.
async fn functions_of(
    store: &Store,
    spec: &mut JobSpec,
    asked: &mut Asked,
) -> std::result::Result<(), Fault> {
    let map = asked.map.take().ok_or_else(|| Error::Usage("map is missing".into())).at("map")?;
    let reduce = match asked.reduce.take() {
        None => None,
        Some(ReduceWish::Builtin(name)) => match functions::builtin(&name).at("reduce")? {
            Some(builtin) => {
                spec.reduce = Some(builtin);
                None
            }
            None => {
                return Err(Error::refused(
                    "reduce is a string, but no built-in",
                    "use _sum, _count, _min, _max, _avg or _stats, or {js: \"function …\"}",
                ))
                .at("reduce");
            }
        },
        Some(ReduceWish::Function(wish)) => Some(*wish),
    };
    let stages = [
        (Stage::Map, Some(map)),
        (Stage::Combine, asked.combine.take()),
        (Stage::Reduce, reduce),
        (Stage::Finalize, asked.finalize.take()),
    ];
    // One that is given once may be named by its digest elsewhere in the request.
    let given = |wish: &Option<FunctionWish>| {
        wish.as_ref().is_some_and(|wish| wish.js.is_some() || wish.wasm.is_some())
    };
    let (inline, named): (Vec<_>, Vec<_>) = stages.into_iter().partition(|(_, wish)| given(wish));
    for (stage, wish) in inline.into_iter().chain(named) {
        let Some(wish) = wish else { continue };
        let reference = functions::wished(store, wish, stage).await.at(&stage.to_string())?;
        match stage {
            Stage::Map => spec.map = reference,
            Stage::Combine => spec.combine = Some(reference),
            Stage::Reduce => spec.reduce = Some(Reducer::Function(reference)),
            Stage::Finalize => spec.finalize = Some(reference),
        }
    }
    Ok(())
}

fn new_job(
    store: &Store,
    request: &RequestRef,
    id: JobId,
    spec: JobSpec,
    asked: &Asked,
) -> Result<Job> {
    let priority = i32::try_from(asked.priority)
        .ok()
        .ok_or_else(|| usage("priority", &format!("is {}, which is too much", asked.priority)))?;
    let client = tenant(&request.collection).map(str::to_owned).or_else(|| asked.client.clone());
    Ok(Job {
        request: Some(request.clone()),
        client,
        tag: asked.tag.clone(),
        priority,
        ..Job::new(id, store.home(), spec, DateTime::now())
    })
}
