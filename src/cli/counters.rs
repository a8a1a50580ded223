//! `aviary counters`: sums over a job's committed tasks, also while it runs.

use super::args::{Format, Global, JobArg};
use super::output;
use crate::error::Result;

pub(super) async fn run(global: &Global, args: JobArg) -> Result<()> {
    let store = global.store("aviary-counters").await?;
    let mut job = store.find_job(&args.job).await?;
    job.counters = Some(store.counters(&job).await?);
    match global.format() {
        Format::Json => output::line(output::counters_json(&job))?,
        Format::Name => {
            for name in job.counters.iter().flatten().map(|(name, _)| name) {
                output::name(name)?;
            }
        }
        Format::Table | Format::Wide => {
            let mut table = output::table(&["counter", "value"]);
            for (name, value) in job.counters.iter().flatten() {
                table.add_row([name.clone(), output::number(value)]);
            }
            table.print()?;
        }
    }
    Ok(())
}
