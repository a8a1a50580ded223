//! `aviary rm`.

use std::time::Duration;

use clap::Args;

use super::args::Global;
use crate::error::{Error, Result};
use crate::job::{Job, JobState, Output, OutputMode};
use crate::store::Store;
use crate::store::jobs::JobFilter;
use crate::store::retry::until_known;
use crate::terminal::tell;

#[derive(Debug, Args)]
pub(super) struct RmArgs {
    /// Jobs' ids, or the unambiguous beginning or end of each.
    #[arg(value_name = "JOB", required_unless_present_any = ["tag", "client", "state"])]
    pub(super) jobs: Vec<String>,
    /// All ended jobs with this tag.
    #[arg(long, value_name = "T", conflicts_with = "jobs")]
    pub(super) tag: Option<String>,
    /// All ended jobs of this client.
    #[arg(long, value_name = "ID", conflicts_with = "jobs")]
    pub(super) client: Option<String>,
    /// All jobs in this state: succeeded, failed or cancelled.
    #[arg(long, value_name = "S", conflicts_with = "jobs", value_parser = ["succeeded", "failed", "cancelled"])]
    pub(super) state: Option<String>,
}

pub(super) async fn run(global: &Global, args: RmArgs) -> Result<()> {
    if args.jobs.iter().any(|job| job == "last") {
        // Said twice, it would remove another job each time.
        return Err(Error::Usage(
            "rm takes jobs' ids, not `last`, which is another job each time; aviary list shows them".into(),
        ));
    }
    let store = global.store("aviary-rm").await?;
    let mut jobs = Vec::with_capacity(args.jobs.len());
    for job in &args.jobs {
        let job = store.find_job(job).await?;
        refuse_running(&job)?;
        jobs.push(job);
    }
    if args.jobs.is_empty() {
        let filter = JobFilter { client: args.client, tag: args.tag, state: args.state, limit: 0 };
        let listed = store.jobs(&filter).await?;
        super::output::tell_unreadable(global, &listed.unreadable);
        jobs = listed.rows;
        // Nobody means these by a tag.
        jobs.retain(|job| job.state.is_terminal());
        if jobs.is_empty() {
            super::output::hint_at_db(global, &store, "no such ended jobs");
        }
    }
    let retention = super::config::shared(global, &store).await?.retention;
    // None is removed while one of them is known to be in use.
    for job in &jobs {
        remove(&store, job, retention).await?;
        if !global.quiet {
            tell!("job {} is removed", job.id);
        }
    }
    Ok(())
}

fn refuse_running(job: &Job) -> Result<()> {
    if job.state.is_terminal() {
        return Ok(());
    }
    Err(Error::refused(
        format!("the state of job {} is {}", job.id, job.state),
        match job.state {
            JobState::Stopped => format!(
                "its target holds a part of its results: go on with aviary resume {0}, or leave it at \
                 that with aviary cancel {0}",
                job.id
            ),
            _ => format!("cancel it first: aviary cancel {}", job.id),
        },
    ))
}

async fn remove(store: &Store, job: &Job, retention: Duration) -> Result<()> {
    until_known(async |_| {
        crate::coordinator::gc::clean_up(store, job).await?;
        if job.spec.output.mode == OutputMode::Inline {
            store.drop_collection(&job.spec.output.db, &Output::hidden(&job.id)).await?;
        }
        store.delete_blocks(&job.id).await?;
        store.delete_failed(&job.id).await?;
        if let Some(request) = &job.request {
            store.expire_requests(request, &job.id, retention).await?;
        }
        store.delete_job(&job.id, retention).await
    })
    .await
}
