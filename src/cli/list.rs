//! `aviary list`.

use clap::Args;

use super::args::{Format, Global, at_least_none};
use super::output;
use crate::error::{Error, Result};
use crate::job::JobState;
use crate::store::jobs::JobFilter;

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only jobs of this client.
    #[arg(long, value_name = "ID")]
    pub(super) client: Option<String>,
    /// Only jobs with this tag.
    #[arg(long, value_name = "T")]
    pub(super) tag: Option<String>,
    /// Only jobs in this state.
    #[arg(long, value_name = "S")]
    pub(super) state: Option<String>,
    /// At most this many; 0 is all of them.
    #[arg(long, value_name = "N", default_value_t = 50)]
    #[arg(value_parser = at_least_none(), allow_negative_numbers = true)]
    pub(super) limit: i64,
}

pub(super) async fn run(global: &Global, args: ListArgs) -> Result<()> {
    if let Some(state) = &args.state
        && !JobState::ALL.iter().any(|known| known.as_str() == state)
    {
        return Err(Error::Usage(format!(
            "{state:?} is not a job state; use one of {}",
            JobState::ALL.map(JobState::as_str).join(", ")
        )));
    }
    let store = global.store("aviary-list").await?;
    let filter =
        JobFilter { client: args.client, tag: args.tag, state: args.state, limit: args.limit };
    let mut jobs = Vec::new();
    let listed = store.jobs(&filter).await?;
    output::tell_unreadable(global, &listed.unreadable);
    for job in listed.rows {
        let phases = store.phases(&job).await?;
        jobs.push((job, phases));
    }
    let waiting = super::asked::tell_waiting(global, &store).await;
    if let Err(error) = waiting {
        tracing::debug!(%error, "cannot tell which requests wait");
    }
    if jobs.is_empty() && listed.unreadable.is_empty() {
        output::hint_at_db(global, &store, "no such jobs");
    }
    let wide = global.format() == Format::Wide;
    let mut headings = vec![
        "job", "state", "created", "input", "output", "map", "reduce", "took", "client", "tag",
    ];
    if wide {
        headings.extend(["priority", "counters", "error"]);
    }
    output::print_rows(
        global.format(),
        &jobs,
        |(job, _)| job.id.to_string(),
        |(job, phases)| output::job_json(job, phases),
        &headings,
        |(job, phases)| {
            let spec = &job.spec;
            let mut row = vec![
                job.id.to_string(),
                job.state.to_string(),
                output::when(job.created),
                format!("{}.{}", spec.input.db, spec.input.collection),
                super::status::shown_output(job),
                format!("{}/{}", phases.map.done, phases.map.total),
                format!("{}/{}", phases.reduce.done, phases.reduce.total),
                output::duration(Some(job.created), output::ended(job)),
                job.client.clone().unwrap_or_default(),
                job.tag.clone().unwrap_or_default(),
            ];
            if wide {
                row.push(job.priority.to_string());
                row.push(job.counters.as_ref().map(output::counters).unwrap_or_default());
                row.push(job.error.as_ref().map(|e| e.message.clone()).unwrap_or_default());
            }
            row
        },
    )
}
