//! Putting a result in place: the one step that touches a collection users own.
//!
//! Reduce tasks write into a hidden collection of the job. Its **identity** (the UUID that a rename
//! keeps) is recorded in the job document by the very update that moves the job to `publishing`,
//! when every task has committed and nobody has reason to write to it any more. From then on the
//! result is that UUID, whatever name it bears:
//!
//! ```text
//!   hidden ──rename──▶ staged by publisher P ──count, indexes──▶ ──rename, drop target──▶ target
//!                         │        ▲
//!                         └─rename─┘  (a later publisher Q takes it over)
//! ```
//!
//! * A publisher acts only on the collection that bears the UUID, and moves it to a name that holds
//!   its own token before the last rename. A publisher that was overtaken finds that its source no
//!   longer exists, and its rename does nothing.
//! * A reducer that wakes up late can bring the hidden name back with part of a result, but never
//!   with this UUID; such a ghost is swept.
//! * When the target already bears the UUID, the result is in place, and only the job's state is
//!   behind. So every step can be repeated after a crash at any point.
//!
//! `merge`, `reduce` and `update` end otherwise: the staged collection is merged into the target by the
//! server (`$merge`), which can be repeated, since it writes the same documents again.
//!
//! ```text
//!   staged ──[reduce: completed]──▶ staged ──$merge──▶ succeeded, fenced by the publisher's token
//! ```
//!
//! * **A target is read before it is written, and never again.** For `reduce`, a second collection gets
//!   the values that the target shall have, computed from what it holds (`complete.rs`). One
//!   update, fenced by the token, makes that collection's UUID the job's result; before it nothing was
//!   written to the target, and after it nothing is computed any more. So no value is reduced twice.
//! * A publisher that was overtaken finds its staged collection gone, so its merge has nothing to read,
//!   and the end of the job, which names its token, is refused to it. What its merge may still have on
//!   the way is stopped, or waited for, by the one that takes over.

use bson::{Bson, Document, doc};

use super::complete;
use crate::error::{Error, Result};
use crate::ids::Token;
use crate::job::{Job, JobEvent, Output, OutputMode};
use crate::store::Store;
use crate::wasm::Host;

/// Records what is to be published and moves the job to `publishing`.
///
/// # Errors
/// [`Error::Refused`] when the hidden collection is gone, [`Error::Store`].
pub async fn begin(store: &Store, job: &Job, event: JobEvent) -> Result<()> {
    let output = &job.spec.output;
    let hidden = Output::hidden(&job.id);
    let described = store.describe(&output.db, &hidden).await?;
    let uuid = described.and_then(|d| d.uuid).ok_or_else(|| vanished(job))?;
    let counters = store.counters(job).await?;
    let set = doc! { "publish": { "uuid": uuid }, "counters": counters };
    store.transition(&job.id, event, doc! { "plan": job.plan }, set).await?;
    Ok(())
}

/// Puts the result in place and moves the job to `succeeded`.
///
/// # Errors
/// [`Error::Refused`] when the result cannot be put in place at all, [`Error::Store`].
pub async fn publish(store: &Store, host: &Host, job: &Job) -> Result<()> {
    let uuid = job
        .publish
        .as_ref()
        .and_then(|publish| publish.get("uuid").cloned())
        .ok_or_else(|| vanished(job))?;
    match job.spec.output.mode {
        OutputMode::Inline => {
            check_count(store, job, &Output::hidden(&job.id)).await?;
        }
        OutputMode::Replace => {
            if !replace(store, job, &uuid).await? {
                // Another publisher has taken over and will see to the rest.
                return Ok(());
            }
        }
        OutputMode::Merge | OutputMode::Reduce | OutputMode::Update => {
            let Some(mine) = merge(store, host, job, uuid).await? else { return Ok(()) };
            store.transition(&job.id, JobEvent::Published, mine, doc! {}).await?;
            return Ok(());
        }
    }
    store.transition(&job.id, JobEvent::Published, doc! {}, doc! {}).await?;
    Ok(())
}

/// Merges the results into the target. Returns the fence behind which the job may end, or `None` when
/// another publisher has taken over.
async fn merge(store: &Store, host: &Host, job: &Job, mut uuid: Bson) -> Result<Option<Document>> {
    let output = &job.spec.output;
    let token = Token::generate();
    let fence = doc! { "publish.token": &token };
    let mine = doc! { "state": "publishing", "publish.token": &token };
    let set = doc! { "publish.token": &token };
    if !store.set_job(&job.id, doc! { "state": "publishing" }, set).await? {
        return Ok(None);
    }
    let flag = |name: &str| job.publish.as_ref().is_some_and(|p| p.contains_key(name));
    let mut completed = flag("completed") || output.mode != OutputMode::Reduce;
    let staged = Output::staged(&job.id, token.as_str());
    loop {
        match store.name_of(&output.db, &uuid).await? {
            Some(name) if name == staged && !completed => {
                check_count(store, job, &staged).await?;
                let whole = complete::complete(store, host, job, &staged).await?;
                check_count(store, job, &whole.name).await?;
                crate::halt::point("publish.completed").await;
                let set = doc! { "publish.uuid": &whole.uuid, "publish.completed": true };
                if !store.set_job(&job.id, mine.clone(), set).await? {
                    return Ok(None);
                }
                crate::halt::point("publish.recorded").await;
                uuid = whole.uuid;
                completed = true;
            }
            Some(name) if name == staged => {
                check_count(store, job, &staged).await?;
                crate::halt::point("publish.merge").await;
                let set = doc! { "publish.merging": true };
                if !store.set_job(&job.id, mine.clone(), set).await? {
                    return Ok(None);
                }
                store.merge_into(output, &staged, job.id.as_str()).await?;
                crate::halt::point("publish.merged").await;
                return Ok(Some(fence));
            }
            Some(name) => {
                if !store.set_job(&job.id, mine.clone(), fence.clone()).await? {
                    return Ok(None);
                }
                // Either a ghost, or the results as they were before they were completed.
                store.drop_collection(&output.db, &staged).await?;
                store.rename(&output.db, &name, &staged, false).await?;
                // Nobody else can begin to merge from here on; what has begun ends first.
                store.end_merges(job.id.as_str()).await?;
                crate::halt::point("publish.staged").await;
            }
            None => return Err(vanished(job)),
        }
    }
}

/// `true` once the target bears the UUID; `false` when another publisher has taken over.
async fn replace(store: &Store, job: &Job, uuid: &Bson) -> Result<bool> {
    let output = &job.spec.output;
    let token = Token::generate();
    let mine = doc! { "state": "publishing", "publish.token": &token };
    if !store
        .set_job(&job.id, doc! { "state": "publishing" }, doc! { "publish.token": &token })
        .await?
    {
        return Ok(false);
    }
    let staged = Output::staged(&job.id, token.as_str());
    loop {
        let name = store.name_of(&output.db, uuid).await?;
        let last_step_begun = || job.publish.as_ref().is_some_and(|p| p.contains_key("renaming"));
        match name {
            Some(name) if name == output.collection => return Ok(true),
            Some(name) if name == staged => {
                check_count(store, job, &staged).await?;
                store.catch_up(output, &staged).await?;
                store.copy_indexes(&output.db, &output.collection, &staged).await?;
                crate::halt::point("publish.rename").await;
                // From here on a vanished UUID means that the result was in place and has been
                // replaced or dropped by its owner since.
                if !store.set_job(&job.id, mine.clone(), doc! { "publish.renaming": true }).await? {
                    return Ok(false);
                }
                if store.rename(&output.db, &staged, &output.collection, true).await? {
                    crate::halt::point("publish.renamed").await;
                    return Ok(true);
                }
            }
            Some(name) => {
                if !store.set_job(&job.id, mine.clone(), doc! { "publish.token": &token }).await? {
                    return Ok(false);
                }
                // Only a ghost can bear this name without the UUID.
                store.drop_collection(&output.db, &staged).await?;
                store.rename(&output.db, &name, &staged, false).await?;
                crate::halt::point("publish.staged").await;
            }
            None if last_step_begun() => return Ok(true),
            None => return Err(vanished(job)),
        }
    }
}

/// What the tasks say they wrote must be what is there, to the document.
async fn check_count(store: &Store, job: &Job, name: &str) -> Result<()> {
    let said = job.counters.as_ref().and_then(|c| c.get_i64("output").ok()).unwrap_or(0);
    let found = store.count_exactly(&job.spec.output.db, name).await?;
    if u64::try_from(said).ok() == Some(found) {
        return Ok(());
    }
    let why = if job.spec.reduce.is_none() {
        "a map-only job must emit each key once"
    } else {
        "a function is not deterministic, or somebody wrote to the job's hidden collection"
    };
    Err(Error::refused(
        format!("the tasks wrote {said} results, the collection holds {found}"),
        format!("{why}; nothing was published"),
    ))
}

fn vanished(job: &Job) -> Error {
    Error::refused(
        format!("the job's hidden collection {} is gone", Output::hidden(&job.id)),
        "somebody dropped it; submit the job again",
    )
}
