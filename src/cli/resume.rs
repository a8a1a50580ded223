//! `aviary resume`: a job whose results were refused by its target goes on publishing.

use super::args::{Global, JobArg};
use crate::error::{Error, Result};
use crate::store::retry::until_known;
use crate::terminal::tell;

pub(super) async fn run(global: &Global, args: JobArg) -> Result<()> {
    let store = global.store("aviary-resume").await?;
    let job = store.find_job(&args.job).await?;
    let resumed = until_known(async |_| crate::coordinator::resume(&store, &job).await).await?;
    if !resumed {
        let now = store.find_job(job.id.as_str()).await?;
        return Err(Error::refused(
            format!("the state of job {} is {}", job.id, now.state),
            "only a job that stopped while publishing can be resumed",
        ));
    }
    if !global.quiet {
        tell!("job {0} goes on publishing; aviary status -w {0} follows it", job.id);
    }
    Ok(())
}
