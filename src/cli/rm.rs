//! `aviary rm`.

use super::args::{Global, RmArg};
use crate::error::{Error, Result};
use crate::job::{JobState, Output, OutputMode};
use crate::store::retry::until_known;
use crate::terminal::tell;

pub(super) async fn run(global: &Global, args: RmArg) -> Result<()> {
    if args.job == "last" {
        // Said twice, it would remove another job each time.
        return Err(Error::Usage("rm takes a job's id, not `last`".into()));
    }
    let store = global.store("aviary-rm").await?;
    let job = store.find_job(&args.job).await?;
    if !job.state.is_terminal() {
        return Err(Error::refused(
            format!("job {} is {}", job.id, job.state),
            match job.state {
                JobState::Stopped => format!(
                    "its target holds a part of its results: go on with aviary resume {0}, or leave it at \
                     that with aviary cancel {0}",
                    job.id
                ),
                _ => format!("cancel it first: aviary cancel {}", job.id),
            },
        ));
    }
    until_known(async |_| {
        crate::coordinator::gc::clean_up(&store, &job).await?;
        if job.spec.output.mode == OutputMode::Inline {
            store.drop_collection(&job.spec.output.db, &Output::hidden(&job.id)).await?;
        }
        store.delete_blocks(&job.id).await?;
        if let Some(request) = &job.request {
            store.expire_requests(request, &job.id).await?;
        }
        store.delete_job(&job.id).await
    })
    .await?;
    if !global.quiet {
        tell!("job {} is removed", job.id);
    }
    Ok(())
}
