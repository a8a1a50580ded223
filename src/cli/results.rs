//! `aviary results`: a job's results as JSON lines.

use bson::Document;
use clap::Args;

use super::args::{Global, at_least_none};
use super::submit::ejson_document;
use crate::error::{Error, Result};
use crate::job::{Job, JobState, Output};
use crate::store::Store;
use crate::terminal;

#[derive(Debug, Args)]
pub(super) struct ResultsArgs {
    /// A job's id, the unambiguous beginning or end of one, or `last`.
    #[arg(value_name = "JOB")]
    pub(super) job: String,
    /// At most this many; 0 is all of them.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    #[arg(value_parser = at_least_none(), allow_negative_numbers = true)]
    pub(super) limit: i64,
    /// The order, as for submit's --query.
    #[arg(long, value_name = "DOC", default_value = "{\"_id\": 1}")]
    pub(super) sort: String,
}

pub(super) async fn run(global: &Global, args: ResultsArgs) -> Result<()> {
    let sort = ejson_document("--sort", &args.sort)?;
    let store = global.store("aviary-results").await?;
    let job = store.find_job(&args.job).await?;
    if job.state != JobState::Succeeded {
        super::wait::verdict(&job)?;
        return Err(Error::NotFound {
            what: format!("results of job {}", job.id),
            hint: format!("the job is {}; wait for it with aviary status -w {}", job.state, job.id),
        });
    }
    print(&store, &job, sort, args.limit).await
}

/// Prints the results of a job that succeeded.
pub(super) async fn print(store: &Store, job: &Job, sort: Document, limit: i64) -> Result<()> {
    use std::io::Write as _;
    let output = &job.spec.output;
    let name = match output.mode.has_target() {
        false => Output::hidden(&job.id),
        true => output.collection.clone(),
    };
    let mut out = std::io::BufWriter::new(terminal::out());
    let failed = |e| Error::io("print the results", e);
    // There may be more of them than fit into memory.
    let printed = store
        .results(&output.db, &name, sort, limit, |doc| {
            writeln!(out, "{}", super::output::result(&doc)).map_err(failed)
        })
        .await;
    match printed.and_then(|()| out.flush().map_err(failed)) {
        // A reader that has seen enough (`| head`) is not an error.
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}
