//! One look at every open job, and what can be done for it now.

use bson::doc;

use super::{plan, publish, sweep};
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::job::{Job, JobError, JobEvent, JobState, Output, OutputMode};
use crate::store::Store;
use crate::task::{Task, TaskKind};

/// Tends every open job once. A job that cannot go on fails; the others are not held up by it.
pub(super) async fn tick(store: &Store, settings: &Settings) -> Result<()> {
    store.quarantine_exhausted().await?;
    for job in store.jobs_to_tend().await? {
        if let Err(error) = tend(store, settings, &job).await {
            if error.is_transient() {
                return Err(error);
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
    Ok(())
}

/// Moves a job on as far as it will go now.
async fn tend(store: &Store, settings: &Settings, job: &Job) -> Result<()> {
    let mut job = job.clone();
    loop {
        let before = job.state;
        match job.state {
            JobState::Submitted => {
                store.transition(&job.id, JobEvent::Taken, doc! {}, doc! {}).await?;
            }
            JobState::Planning => make_plan(store, settings, &job).await?,
            JobState::Mapping => tend_mapping(store, &job).await?,
            JobState::Reducing => tend_reducing(store, &job).await?,
            JobState::Publishing => publish::publish(store, &job).await?,
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
    let target_options = check_target(store, job).await?;
    if job.snapshot.is_none() {
        // The first coordinator to say so fixes the instant; every plan of the job keeps it.
        let time = store.cluster_time().await?;
        let unset = doc! { "state": "planning", "snapshot": null };
        store.set_job(&job.id, unset, doc! { "snapshot": time }).await?;
    }
    let workers = store.workers().await?;
    let alive = workers.iter().filter(|w| w.silent_ms <= crate::config::WORKER_GONE_MS);
    let slots = alive.map(|w| w.slots.max(0)).sum::<i32>();
    let slots = u32::try_from(slots).unwrap_or(0);
    let count = plan::split_count(&job.spec, size, settings.split_bytes, slots);
    let samples = match plan::sample_count(count) {
        0 => Vec::new(),
        samples => store.sample_ids(input, samples).await?,
    };
    let splits = plan::cut(samples, count);
    let partitions = plan::partition_count(&job.spec, size, slots);

    let hidden = Output::hidden(&job.id);
    store.create_hidden(&job.spec.output.db, &hidden, &target_options).await?;
    let Some(number) = store.begin_plan(&job.id).await? else { return Ok(()) };
    let map_tasks = splits.len();
    let planned = |kind, n| Task {
        priority: job.priority,
        ..Task::planned(kind, &job.id, number, n, store.shard())
    };
    let mut tasks: Vec<Task> = Vec::with_capacity(map_tasks);
    for (n, split) in (0_u32..).zip(splits) {
        tasks.push(Task { split: Some(split), ..planned(TaskKind::Map, n) });
    }
    for partition in 0..partitions {
        tasks.push(planned(TaskKind::Reduce, partition));
    }
    store.insert_tasks(&tasks).await?;
    crate::halt::point("plan.written").await;
    let set = doc! {
        "map_tasks": i64::try_from(map_tasks).unwrap_or(i64::MAX),
        "reduce_tasks": i64::from(partitions),
        "spec.partitions": i64::from(partitions),
        "input_bytes": i64::try_from(size.bytes).unwrap_or(i64::MAX),
        "input_documents": i64::try_from(size.documents).unwrap_or(i64::MAX),
    };
    store.transition(&job.id, JobEvent::Planned, doc! { "plan": number }, set).await?;
    Ok(())
}

/// The target must be replaceable; its options are what the hidden collection is created with.
async fn check_target(store: &Store, job: &Job) -> Result<bson::Document> {
    let output = &job.spec.output;
    if output.mode == OutputMode::Inline {
        return Ok(bson::Document::new());
    }
    let Some(target) = store.describe(&output.db, &output.collection).await? else {
        return Ok(bson::Document::new());
    };
    refuse_target(output, &target.kind, &target.options)?;
    Ok(target.options)
}

/// Refuses targets that a rename cannot replace without losing what they are.
///
/// # Errors
/// [`Error::Refused`].
pub(crate) fn refuse_target(output: &Output, kind: &str, options: &bson::Document) -> Result<()> {
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
        "replace works on plain collections: name another",
    ))
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
    if job.reduce_tasks == 0 {
        publish::begin(store, job, JobEvent::MappedOnly).await
    } else {
        store.transition(&job.id, JobEvent::Mapped, doc! { "plan": job.plan }, doc! {}).await?;
        Ok(())
    }
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
