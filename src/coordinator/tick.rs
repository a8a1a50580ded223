//! One look at every open job, and what can be done for it now.

use std::collections::BTreeMap;

use bson::{Timestamp, doc};

use super::{complete, plan, publish, sweep};
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::job::{Job, JobError, JobEvent, JobState, Output, OutputMode, ReadMode};
use crate::store::Store;
use crate::store::output::{Described, Like};
use crate::store::topology::Placement;
use crate::task::{Task, TaskKind};
use crate::wasm::Host;
use crate::worker::loader::refuse_memory;

/// Tends every open job once. A job that cannot go on fails; the others are not held up by it.
pub(super) async fn tick(store: &Store, host: &Host, settings: &Settings) -> Result<()> {
    store.quarantine_exhausted().await?;
    let mut away = None;
    for job in store.jobs_to_tend().await? {
        if let Err(error) = tend(store, host, settings, &job).await {
            // A shard that is away holds up the jobs that need it, and no others.
            if error.is_transient() {
                away.get_or_insert(error);
                continue;
            }
            // A coordinator of the job's own version can tend it.
            if matches!(error, Error::Newer { .. }) {
                continue;
            }
            tracing::warn!(job = %job.id, %error, "the job cannot go on");
            if !job.state.is_terminal() {
                let error = JobError {
                    code: error.code().to_owned(),
                    message: error.to_string(),
                    task: None,
                };
                fail(store, &job, error).await?;
            }
        }
    }
    away.map_or(Ok(()), Err)
}

/// Moves a job on as far as it will go now.
async fn tend(store: &Store, host: &Host, settings: &Settings, job: &Job) -> Result<()> {
    let mut job = job.clone();
    loop {
        let before = job.state;
        match job.state {
            JobState::Submitted => {
                store.transition(&job.id, JobEvent::Taken, doc! {}, doc! {}).await?;
            }
            JobState::Planning => {
                // It reduces results into the target itself, and that a job should not learn at its end.
                if job.spec.output.mode == OutputMode::Reduce {
                    refuse_memory(&job, host, "the coordinator", "coordinators")?;
                    complete::check(store, host, &job).await?;
                }
                make_plan(store, settings, &job).await?;
            }
            JobState::Mapping => tend_mapping(store, &job).await?,
            JobState::Reducing => tend_reducing(store, &job).await?,
            JobState::Publishing => publish::publish(store, host, &job).await?,
            JobState::Succeeded | JobState::Failed | JobState::Cancelled => {
                if !job.cleaned {
                    sweep::clean_up(store, &job).await?;
                }
                return Ok(());
            }
        }
        let Some(now) = store.job(&job.id).await? else { return Ok(()) };
        if now.state == before {
            return Ok(());
        }
        tracing::info!(job = %now.id, from = %before, to = %now.state, "job moved on");
        job = now;
    }
}

async fn make_plan(store: &Store, settings: &Settings, job: &Job) -> Result<()> {
    crate::halt::point("plan").await;
    let input = &job.spec.input;
    let size = store.inspect_input(input).await?;
    let identity = store.identity(&input.db, &input.collection).await?;
    let target_options = check_target(store, job).await?;
    let by_shard = slots(store).await?;
    let slots = by_shard.values().sum();
    let Some((placement, time)) = place(store, job).await? else { return Ok(()) };
    let count = plan::split_count(&job.spec, size, settings.split_bytes, slots);
    let pieces = if job.spec.input.has_one_reader() && store.is_sharded() {
        vec![plan::whole(&placement)]
    } else {
        let fields = plan::sampled_fields(&placement);
        let samples = match plan::sample_count(count) {
            samples if samples == 0 || fields.is_empty() => Vec::new(),
            samples => store.sample(input, &fields, samples).await?,
        };
        match plan::cut(&placement, samples, count) {
            pieces if plan::is_torn(&placement, &pieces, input) => vec![plan::whole(&placement)],
            pieces => pieces,
        }
    };
    let partitions = plan::partition_count(&job.spec, size, slots);
    let reduce_on =
        if store.is_sharded() { plan::reduce_on(partitions, &by_shard) } else { Vec::new() };

    let hidden = Output::hidden(&job.id);
    store.create_hidden(&job.spec.output.db, &hidden, &target_options).await?;
    let Some(number) = store.begin_plan(&job.id).await? else { return Ok(()) };
    let map_tasks = pieces.len();
    let planned = |kind, n, shard: &str| Task {
        priority: job.priority,
        ..Task::planned(kind, &job.id, number, n, shard)
    };
    let mut tasks: Vec<Task> = Vec::with_capacity(map_tasks);
    for (n, piece) in (0_u32..).zip(pieces) {
        tasks.push(Task { split: Some(piece.split), ..planned(TaskKind::Map, n, &piece.shard) });
    }
    let placed = Job { reduce_on: reduce_on.clone(), ..job.clone() };
    for partition in 0..partitions {
        tasks.push(planned(TaskKind::Reduce, partition, placed.reducing_shard(partition)));
    }
    store.insert_tasks(&tasks).await?;
    crate::halt::point("plan.written").await;
    let mut set = doc! {
        "map_tasks": i64::try_from(map_tasks).unwrap_or(i64::MAX),
        "reduce_tasks": i64::from(partitions),
        "spec.partitions": i64::from(partitions),
        "reduce_on": reduce_on,
        "input_bytes": i64::try_from(size.bytes).unwrap_or(i64::MAX),
        "input_documents": i64::try_from(size.documents).unwrap_or(i64::MAX),
    };
    set.extend(identity.map(|uuid| ("input_uuid".to_owned(), uuid)));
    // The ranges are those of this instant: a coordinator that has fixed another has to plan for it.
    let this = doc! { "plan": number, "snapshot": time };
    store.transition(&job.id, JobEvent::Planned, this, set).await?;
    Ok(())
}

/// The slots of the workers that are alive, by the shard they work for. Those who work for every shard
/// count for each; without any worker, shards count alike.
async fn slots(store: &Store) -> Result<BTreeMap<String, u32>> {
    let shards = store.shards().await?;
    let staying = shards.iter().filter(|shard| !shard.draining);
    let mut slots: BTreeMap<String, u32> = staying.map(|shard| (shard.name.clone(), 0)).collect();
    for worker in store.workers().await?.rows {
        let of_worker = u32::try_from(worker.slots).unwrap_or(0);
        for (shard, sum) in slots.iter_mut().filter(|_| worker.is_alive()) {
            if worker.shard == *shard || worker.shard == store.home() {
                *sum += of_worker;
            }
        }
    }
    if slots.values().any(|sum| *sum > 0) {
        slots.retain(|_, sum| *sum > 0);
    }
    Ok(slots)
}

/// Fixes the instant at which the input is read, and finds out where its documents were then. `None`
/// when the job is no longer being planned.
async fn place(store: &Store, job: &Job) -> Result<Option<(Placement, Timestamp)>> {
    /// Chunks that were merged in the meantime forget who owned them, and a list of chunks that changes while
    /// it is read is of no time; more than a few in a row do not happen.
    const TRIES_MAX: u32 = 10;
    let input = &job.spec.input;
    let mut known = job.snapshot;
    for _ in 0..TRIES_MAX {
        let time = match known {
            Some(time) => time,
            None => {
                let time = store.cluster_time().await?;
                let planning = doc! { "state": JobState::Planning.as_str() };
                if !store.set_job(&job.id, planning, doc! { "snapshot": time }).await? {
                    return Ok(None);
                }
                time
            }
        };
        let owned_at = (input.read == ReadMode::Snapshot).then_some(time);
        if let Some(placement) = store.placement(&input.db, &input.collection, owned_at).await? {
            return Ok(Some((placement, time)));
        }
        // Nothing has been read yet, so a later instant is as good.
        known = None;
    }
    Err(Error::refused(
        "the input's chunks are being split or merged all the time, so that nobody knows who owned them",
        "submit the job again when that is over",
    ))
}

/// The target must be replaceable; its options are what the hidden collection is created with.
async fn check_target(store: &Store, job: &Job) -> Result<Like> {
    let output = &job.spec.output;
    if !output.mode.has_target() {
        return Ok(Like::default());
    }
    let Some(target) = store.describe(&output.db, &output.collection).await? else {
        return Ok(Like::default());
    };
    refuse_target(output, &target)?;
    if output.mode.adds() {
        // Its chunks are for what is renamed; validator and collation are for every result.
        let mut options = target.options;
        if output.mode == OutputMode::Update {
            // What is set is part of a document, which the whole has to satisfy.
            options.remove("validator");
        }
        return Ok(Like { options, ..Like::default() });
    }
    let collection = output.collection.clone();
    Ok(Like { options: target.options, shard_key: target.shard_key, collection })
}

/// Refuses targets that cannot take results, or that a rename cannot replace without losing what they are.
///
/// # Errors
/// [`Error::Refused`].
pub(crate) fn refuse_target(output: &Output, target: &Described) -> Result<()> {
    let (kind, options) = (target.kind.as_str(), &target.options);
    if output.mode == OutputMode::Reduce && options.contains_key("collation") {
        return Err(Error::refused(
            format!("the output {}.{} has a collation", output.db, output.collection),
            "reduce cannot tell which results that makes one: name a collection without",
        ));
    }
    if let Some(key) = target.shard_key.as_ref().filter(|key| !is_by_id(key)) {
        return Err(Error::refused(
            format!("the output {}.{} is sharded by {key}", output.db, output.collection),
            "results are found by their _id alone: name a collection that is sharded by {_id: 1} or {_id: \"hashed\"}, or one that is not sharded",
        ));
    }
    if target.zoned && !output.mode.adds() {
        return Err(Error::refused(
            format!(
                "ranges of the output {}.{} are assigned to zones",
                output.db, output.collection
            ),
            "a cluster does not let such a collection be replaced: use merge, reduce or update, or name another",
        ));
    }
    let what = if kind == "view" {
        "a view"
    } else if kind == "timeseries" {
        "a time series collection"
    } else if options.get_bool("capped").unwrap_or(false) {
        "a capped collection"
    } else if options.contains_key("clusteredIndex") {
        "a clustered collection"
    } else {
        return Ok(());
    };
    Err(Error::refused(
        format!("the output {}.{} is {what}", output.db, output.collection),
        "results go to plain collections: name another",
    ))
}

fn is_by_id(key: &bson::Document) -> bool {
    key.len() == 1 && key.contains_key("_id")
}

async fn tend_mapping(store: &Store, job: &Job) -> Result<()> {
    crate::halt::point("mapping").await;
    let phases = store.phases(job).await?;
    if phases.map.planned > 0 {
        store.open_phase(job, TaskKind::Map).await?;
    }
    if phases.map.quarantined > 0 {
        return fail_with_task(store, job).await;
    }
    if phases.map.done < u64::from(job.map_tasks) {
        return Ok(());
    }
    refuse_lost_input(store, job).await?;
    if job.reduce_tasks == 0 {
        publish::begin(store, job, JobEvent::MappedOnly).await
    } else {
        store.transition(&job.id, JobEvent::Mapped, doc! { "plan": job.plan }, doc! {}).await?;
        Ok(())
    }
}

/// A collection that is dropped or renamed takes its history along, and whoever reads it then sees none of its
/// documents, and no error: so a job whose input is no longer there has not read all of it.
async fn refuse_lost_input(store: &Store, job: &Job) -> Result<()> {
    let input = &job.spec.input;
    let Some(uuid) = &job.input_uuid else { return Ok(()) };
    if store.name_of(&input.db, uuid).await?.as_ref() == Some(&input.collection) {
        return Ok(());
    }
    Err(Error::refused(
        format!(
            "the input {}.{} was dropped, renamed or replaced while the job read it",
            input.db, input.collection
        ),
        "nothing was published; submit the job again when the collection is there to stay",
    ))
}

async fn tend_reducing(store: &Store, job: &Job) -> Result<()> {
    crate::halt::point("reducing").await;
    let phases = store.phases(job).await?;
    if phases.reduce.planned > 0 {
        store.open_phase(job, TaskKind::Reduce).await?;
    }
    if phases.reduce.quarantined > 0 || phases.map.quarantined > 0 {
        return fail_with_task(store, job).await;
    }
    if phases.reduce.done < u64::from(job.reduce_tasks) {
        return Ok(());
    }
    publish::begin(store, job, JobEvent::Reduced).await
}

async fn fail_with_task(store: &Store, job: &Job) -> Result<()> {
    let Some(task) = store.quarantined(job).await? else { return Ok(()) };
    let error = task.error.unwrap_or_default();
    let text = |name: &str| error.get_str(name).unwrap_or("unknown").to_owned();
    fail(
        store,
        job,
        JobError {
            code: text("code"),
            message: text("message"),
            task: Some(task.id.short().to_owned()),
        },
    )
    .await
}

async fn fail(store: &Store, job: &Job, error: JobError) -> Result<()> {
    let error = bson::serialize_to_bson(&error)
        .map_err(|e| Error::Internal(format!("an error does not serialise: {e}")))?;
    store.transition(&job.id, JobEvent::Failed, doc! {}, doc! { "error": error }).await?;
    if let Some(job) = store.job(&job.id).await? {
        sweep::clean_up(store, &job).await?;
    }
    Ok(())
}
