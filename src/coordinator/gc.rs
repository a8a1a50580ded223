//! Leaving nothing behind.
//!
//! A job that has ended is cleaned up at once. A worker that was frozen in the meantime can still
//! bring something back (its blocks, or a piece of the hidden collection), so leftovers of ended
//! jobs are looked for again and again.

use std::collections::HashMap;

use bson::doc;

use crate::error::{Error, Result};
use crate::ids::JobId;
use crate::job::spec::HIDDEN_PREFIX;
use crate::job::{Job, JobState, Output, OutputMode};
use crate::store::Store;

/// Fences and removes whatever an ended job no longer needs.
///
/// # Errors
/// [`crate::error::Error::Store`]; the job stays on the list and is cleaned up later.
pub async fn clean_up(store: &Store, job: &Job) -> Result<()> {
    store.cancel_tasks(&job.id).await?;
    store.delete_stale_plans(job).await?;
    if !job.spec.keep_intermediates {
        store.delete_blocks(&job.id).await?;
    }
    crate::halt::point("clean").await;
    drop_hidden(store, job).await?;
    let output = &job.spec.output;
    if output.mode.adds() && job.publish.is_some() {
        // Its source is gone by now. What it has on its way must not arrive in another job's turn.
        store.end_merges(job.id.as_str()).await?;
    }
    if output.mode.has_target() {
        store.release_turn(&job.id, output).await?;
    }
    let counters = store.counters(job).await?;
    store.set_job(&job.id, doc! {}, doc! { "cleaned": true, "counters": counters }).await?;
    Ok(())
}

/// Drops the hidden collections of an ended job, but for an inline result.
///
/// # Errors
/// [`crate::error::Error::Store`].
pub async fn drop_hidden(store: &Store, job: &Job) -> Result<()> {
    let output = &job.spec.output;
    let hidden = Output::hidden(&job.id);
    if let Err(error @ (Error::Refused { .. } | Error::Usage(_))) = store.authorize(&job.spec).await
    {
        // It could not write there, so nothing there is its own.
        tracing::debug!(job = %job.id, %error, "leaving the output's database alone");
        return Ok(());
    }
    let kept = job.state == JobState::Succeeded && output.mode == OutputMode::Inline;
    for name in store.hidden_collections(&output.db).await? {
        let of_this_job = name
            .strip_prefix(&hidden)
            .is_some_and(|rest| rest.is_empty() && !kept || rest.starts_with('-'));
        if of_this_job {
            store.drop_collection(&output.db, &name).await?;
        }
    }
    Ok(())
}

/// Looks for what zombies of ended jobs have brought back.
///
/// # Errors
/// [`crate::error::Error::Store`].
pub async fn sweep(store: &Store) -> Result<()> {
    let mut known: HashMap<JobId, Looked> = HashMap::new();
    for id in store.jobs_with_blocks().await? {
        let job = look_up(store, &mut known, &id).await?;
        let wanted = match job {
            Looked::Job(job) => !job.state.is_terminal() || job.spec.keep_intermediates,
            Looked::Gone => false,
            Looked::Newer => true,
        };
        if !wanted {
            tracing::info!(job = %id, "removing blocks of an ended job");
            store.delete_blocks(&id).await?;
        }
    }
    for id in store.jobs_with_logs().await? {
        // An attempt that was frozen can write its lines after its job was removed.
        if matches!(look_up(store, &mut known, &id).await?, Looked::Gone) {
            store.delete_logs(&id).await?;
        }
    }
    for id in store.jobs_with_open_tasks().await? {
        // A coordinator that was frozen while it planned can write its tasks after the job's end, and a worker
        // that missed a block can send a map task back.
        match look_up(store, &mut known, &id).await? {
            Looked::Job(job) if job.state.is_terminal() => {
                store.cancel_tasks(&id).await?;
                store.delete_stale_plans(&job).await?;
            }
            Looked::Job(_) | Looked::Newer => {}
            Looked::Gone if store.removed(&id).await?.is_some() => store.delete_tasks(&id).await?,
            Looked::Gone => {}
        }
    }
    for (turn, id) in store.turns().await? {
        let job = look_up(store, &mut known, &id).await?;
        let is_free = match job {
            Looked::Job(job) => job.state.is_terminal() && job.cleaned,
            Looked::Gone => true,
            Looked::Newer => false,
        };
        if is_free {
            store.drop_turn(&turn, &id).await?;
        }
    }
    for db in store.output_databases().await? {
        // One database that cannot be listed must not keep the others' leftovers.
        if let Err(error) = sweep_outputs(store, &mut known, &db).await {
            tracing::warn!(db, %error, "could not look for leftovers");
        }
    }
    Ok(())
}

/// Drops hidden collections that zombies of ended or removed jobs have brought back.
async fn sweep_outputs(store: &Store, known: &mut HashMap<JobId, Looked>, db: &str) -> Result<()> {
    const ID_LEN: usize = 24;
    for name in store.hidden_collections(db).await? {
        let Some(id) = name.strip_prefix(HIDDEN_PREFIX).and_then(|rest| rest.get(..ID_LEN)) else {
            continue;
        };
        let id = JobId::from_text(id);
        match look_up(store, known, &id).await? {
            Looked::Job(job) if job.state.is_terminal() && job.spec.output.db == db => {
                drop_hidden(store, &job).await?;
            }
            Looked::Job(_) | Looked::Newer => {}
            // A job that was never in this database may be another Aviary's: leave it alone.
            Looked::Gone if store.removed(&id).await?.as_deref() == Some(db) => {
                tracing::info!(job = %id, name, "removing what is left of a removed job");
                store.drop_collection(db, &name).await?;
            }
            Looked::Gone => {}
        }
    }
    Ok(())
}

/// What is known of a job that something is left of.
#[derive(Clone)]
enum Looked {
    Job(Box<Job>),
    Gone,
    /// This version cannot read it, so it cannot tell what the job still needs.
    Newer,
}

async fn look_up(store: &Store, known: &mut HashMap<JobId, Looked>, id: &JobId) -> Result<Looked> {
    if let Some(job) = known.get(id) {
        return Ok(job.clone());
    }
    let job = match store.job(id).await {
        Ok(Some(job)) => Looked::Job(Box::new(job)),
        Ok(None) => Looked::Gone,
        Err(Error::Newer { .. }) => Looked::Newer,
        Err(error) => return Err(error),
    };
    known.insert(id.clone(), job.clone());
    Ok(job)
}
