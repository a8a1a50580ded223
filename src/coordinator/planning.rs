//! Planning a job: its snapshot, its splits, its partitions and its tasks; and what has to hold for them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bson::{Timestamp, doc};

use super::plan;
use crate::config::{self, Settings};
use crate::error::{Error, Result};
use crate::job::target::options_for;
use crate::job::{Job, JobEvent, JobState, Output, OutputMode, ReadMode};
use crate::store::Store;
use crate::store::incarnation::Incarnation;
use crate::store::output::{Described, TargetTemplate};
use crate::store::topology::Placement;
use crate::task::{Task, TaskKind};

/// Plans a job and opens its mapping.
///
/// A plan is made at an instant of its own: one that a coordinator before this has fixed may be too old by
/// now, and nothing has been read at it.
pub(super) async fn make_plan(store: &Store, settings: &Settings, job: &Job) -> Result<()> {
    crate::halt::point("plan").await;
    let input = &job.spec.input;
    store.authorize(&job.spec).await?;
    // Asked for at once, and what keeps the job is told in this order.
    let (size, collation, target_options, by_shard) = tokio::join!(
        store.inspect_input(input),
        async {
            match &input.collation {
                Some(_) => Ok(None),
                None => store.collation_of(&input.db, &input.collection).await,
            }
        },
        check_target(store, job),
        slots(store),
    );
    let (size, collation, target_options, by_shard) =
        (size?, collation?, target_options?, by_shard?);
    let by_shard = match sum(&by_shard) {
        0 if size.bytes >= config::ONE_TASK_BYTES_MAX => slots_soon(store).await?,
        _ => by_shard,
    };
    let slots = sum(&by_shard);
    let Some(Placed { placement, time, input: found }) = place(store, job).await? else {
        return Ok(());
    };
    let count = plan::split_count(&job.spec, size, settings.split_bytes, slots);
    let partitions = plan::partition_count(&job.spec, size, slots);
    let mut read_from = None;
    let pieces = if job.spec.input.has_one_reader() && store.is_sharded() {
        vec![plan::whole(&placement)]
    } else {
        let fields = plan::sampled_fields(&placement);
        let samples = match plan::sample_count(count) {
            samples if samples == 0 || fields.is_empty() => Vec::new(),
            samples => store.sample(input, &fields, samples).await?,
        };
        let natural = match &placement {
            Placement::One(shard)
                if plan::may_be_natural(
                    job,
                    partitions,
                    size,
                    count,
                    settings.natural_split_bytes,
                ) =>
            {
                let ids = samples.iter().filter_map(|row| row.first()).cloned().collect();
                store.natural_cuts(input, time, ids).await.map(|cuts| (shard, cuts))
            }
            _ => None,
        };
        match natural {
            Some((shard, cuts)) => {
                let pieces = plan::cut_natural(shard, &cuts, count);
                read_from = Some(cuts.member);
                pieces
            }
            None => match plan::cut(&placement, samples, count) {
                pieces if plan::is_torn(&placement, &pieces, input) => {
                    vec![plan::whole(&placement)]
                }
                pieces => pieces,
            },
        }
    };
    let one_task = plan::fits_one_task(&job.spec, partitions, pieces.len(), size, settings.one_task_bytes)
            // A task that writes results must always read the same.
            && read_from.is_none();
    let reduce_on = match pieces.first() {
        _ if !store.is_sharded() => Vec::new(),
        Some(piece) if one_task => vec![piece.shard.clone()],
        _ => plan::reduce_on(partitions, &by_shard),
    };
    let reduce_tasks = if one_task { 0 } else { partitions };

    let hidden = Output::hidden(&job.id);
    store.create_hidden(&job.spec.output.db, &hidden, &target_options).await?;
    let Some(number) = store.begin_plan(job).await? else { return Ok(()) };
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
    for partition in 0..reduce_tasks {
        tasks.push(planned(TaskKind::Reduce, partition, placed.reducing_shard(partition)));
    }
    store.insert_tasks(&tasks).await?;
    crate::halt::point("plan.written").await;
    let mut set = doc! {
        "map_tasks": i64::try_from(map_tasks).unwrap_or(i64::MAX),
        "reduce_tasks": i64::from(reduce_tasks),
        "one_task": one_task,
        "spec.partitions": i64::from(partitions),
        "reduce_on": reduce_on,
        "input_bytes": i64::try_from(size.bytes).unwrap_or(i64::MAX),
        "input_documents": i64::try_from(size.documents).unwrap_or(i64::MAX),
        "read_from": read_from,
        "input_collation": collation,
    };
    set.extend(found.uuid.map(|uuid| ("input_uuid".to_owned(), uuid)));
    // Without a snapshot, the router follows a database that is moved.
    let place = found.database.filter(|_| input.read == ReadMode::Snapshot);
    set.extend(place.map(|place| ("input_place".to_owned(), place.into())));
    // The ranges are those of this instant: a coordinator that has fixed another has to plan for it.
    let this = doc! { "plan": number, "snapshot": time, "role": job.role };
    store.transition(&job.id, JobEvent::Planned, this, set).await?;
    Ok(())
}

/// The same where there are none yet: workers that serve every database are about to report in one that has rested.
async fn slots_soon(store: &Store) -> Result<BTreeMap<String, u32>> {
    const WITHIN: Duration = Duration::from_secs(2);
    const LOOK_EVERY: Duration = Duration::from_millis(50);
    /// They do not all wake at the same moment.
    const APART: Duration = Duration::from_millis(300);
    let began = Instant::now();
    while sum(&slots(store).await?) == 0 {
        if began.elapsed() > WITHIN {
            return slots(store).await;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    tokio::time::sleep(APART).await;
    slots(store).await
}

fn sum(by_shard: &BTreeMap<String, u32>) -> u32 {
    by_shard.values().fold(0_u32, |sum, more| sum.saturating_add(*more))
}

/// The slots of the workers that are alive, by the shard they work for. Those who work for every shard
/// count for each; without any worker, shards count alike.
async fn slots(store: &Store) -> Result<BTreeMap<String, u32>> {
    let shards = store.shards().await?;
    let staying = shards.iter().filter(|shard| !shard.draining);
    let mut slots: BTreeMap<String, u32> = staying.map(|shard| (shard.name.clone(), 0)).collect();
    for (of, more) in store.slots_by_shard().await? {
        for (shard, sum) in &mut slots {
            if of == *shard || of == store.home() {
                *sum = sum.saturating_add(more);
            }
        }
    }
    if slots.values().any(|sum| *sum > 0) {
        slots.retain(|_, sum| *sum > 0);
    }
    Ok(slots)
}

/// An instant, and where the input's documents were then.
struct Placed {
    placement: Placement,
    time: Timestamp,
    input: Incarnation,
}

/// Fixes the instant at which the input is read, and finds out where its documents were then. `None`
/// when the job is no longer being planned.
async fn place(store: &Store, job: &Job) -> Result<Option<Placed>> {
    /// Chunks that were merged in the meantime forget who owned them, a list of chunks that changes while
    /// it is read is of no time, and a collection may have been replaced or moved; more than a few in a row do not
    /// happen.
    const TRIES_MAX: u32 = 10;
    let input = &job.spec.input;
    let mine = doc! {
        "state": JobState::Planning.as_str(),
        "plan": job.plan,
        "role": job.role,
    };
    for _ in 0..TRIES_MAX {
        let before = store.incarnation(&input.db, &input.collection).await?;
        let time = store.cluster_time().await?;
        if !store.set_job(&job.id, mine.clone(), doc! { "snapshot": time }).await? {
            return Ok(None);
        }
        crate::halt::point("plan.timed").await;
        let owned_at = (input.read == ReadMode::Snapshot).then_some(time);
        let placement = store.placement(&input.db, &input.collection, owned_at).await?;
        let after = store.incarnation(&input.db, &input.collection).await?;
        let is_the_same = before == after && owned_at.is_none_or(|at| after.was_there_at(at));
        if let Some(placement) = placement.filter(|_| is_the_same) {
            return Ok(Some(Placed { placement, time, input: after }));
        }
        // Nothing has been read yet, so a later instant is as good.
    }
    Err(Error::refused(
        "the input is being replaced or moved, or its chunks split or merged, all the time, so that nobody knows who \
         owned them",
        "submit the job again when that is over",
    ))
}

/// The target must be replaceable; its options are what the hidden collection is created with.
async fn check_target(store: &Store, job: &Job) -> Result<TargetTemplate> {
    let output = &job.spec.output;
    let Some(target) = fit_target(store, output).await? else {
        return Ok(TargetTemplate::default());
    };
    let options = options_for(output, &target.options)?;
    if output.mode.adds() {
        // Its chunks are for what is renamed.
        return Ok(TargetTemplate { options, ..TargetTemplate::default() });
    }
    let collection = output.collection.clone();
    Ok(TargetTemplate { options, shard_key: target.shard_key, collection })
}

/// The target, if there is one: of a kind that can take the results.
///
/// # Errors
/// [`Error::Refused`], [`Error::NotFound`] where there must be one, [`Error::Store`].
pub(super) async fn fit_target(store: &Store, output: &Output) -> Result<Option<Described>> {
    if !output.mode.has_target() {
        return Ok(None);
    }
    let target = store.describe(&output.db, &output.collection).await?;
    match &target {
        Some(target) => refuse_target(output, target)?,
        None => refuse_missing(output)?,
    }
    Ok(target)
}

/// Refuses a target that is not there, where results only change what is.
///
/// # Errors
/// [`Error::NotFound`].
pub(crate) fn refuse_missing(output: &Output) -> Result<()> {
    if output.mode != OutputMode::Update {
        return Ok(());
    }
    Err(Error::NotFound {
        what: format!("collection {}.{}", output.db, output.collection),
        hint: "update changes documents that are there: check the name, and -d or --out-db; names are \
               case-sensitive. merge:NAME adds the results instead"
            .into(),
    })
}

/// Refuses targets that cannot take results, or that a rename cannot replace without losing what they are.
///
/// # Errors
/// [`Error::Refused`].
pub(crate) fn refuse_target(output: &Output, target: &Described) -> Result<()> {
    options_for(output, &target.options)?;
    if target.kind != "collection" {
        return Err(Error::refused(
            format!("the output {}.{} is a {}", output.db, output.collection, target.kind),
            "results go to plain collections: name another",
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
    Ok(())
}

fn is_by_id(key: &bson::Document) -> bool {
    key.len() == 1 && key.contains_key("_id")
}

/// A collection that is dropped or renamed takes its history along, and whoever reads it then sees none of its
/// documents, and no error: so a job whose input is no longer there has not read all of it.
pub(super) async fn refuse_lost_input(store: &Store, job: &Job) -> Result<()> {
    let input = &job.spec.input;
    // A collection keeps its identity where its database is moved, and its history stays behind.
    if let Some(place) = &job.input_place
        && store.database_place(&input.db).await?.as_ref() != Some(place)
    {
        return Err(Error::refused(
            format!("the database {} was moved to another shard while the job read it", input.db),
            "nothing was published; submit the job again",
        ));
    }
    let Some(uuid) = &job.input_uuid else { return Ok(()) };
    let is_there = async || -> Result<bool> {
        Ok(store.name_of(&input.db, uuid).await?.as_ref() == Some(&input.collection))
    };
    if is_there().await? {
        return Ok(());
    }
    // A server that was superseded may not know yet. It acknowledges no write, and after one it is not asked.
    store.cluster_time().await?;
    if is_there().await? {
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
