//! `aviary status`: one job.

use clap::Args;

use super::args::{Format, Global};
use super::asked::{self, Found};
use super::{output, publishing, waiting};
use crate::error::{Error, Result};
use crate::ids::JobId;
use crate::job::{FunctionRef, Job, OutputMode, Reducer};
use crate::request::REQUESTS;
use crate::task::PhaseCounts;

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// A job's id, the unambiguous beginning or end of one, or `last`.
    #[arg(value_name = "JOB")]
    pub(super) job: String,
    /// Wait until the job ends; the exit code says how.
    #[arg(short, long)]
    pub(super) watch: bool,
}

pub(super) async fn run(global: &Global, args: StatusArgs) -> Result<()> {
    let store = global.store("aviary-status").await?;
    let job = match asked::find(&store, &args.job).await? {
        Found::Job(job) => *job,
        Found::Request(id) if args.watch => {
            let accepted = super::submit::accepted(&store, REQUESTS, &id, None);
            let id = watched(&id, "waits for a coordinator to take it in", accepted).await?;
            store.find_job(id.as_ref().map_or(args.job.as_str(), JobId::as_str)).await?
        }
        Found::Request(id) => return asked::show(global, &store, &id).await,
    };
    let (job, phases) = if args.watch {
        let ended = super::wait::ended(&store, &job.id, global.quiet, None);
        watched(job.id.as_str(), "goes on", ended).await?
    } else {
        let phases = store.phases(&job).await?;
        (job, phases)
    };
    let waiting = waiting::reasons(&store, &job).await?;
    match global.format() {
        Format::Json => {
            let mut json = output::job_json(&job, &phases);
            if let Some(fields) = json.as_object_mut() {
                fields.insert("waiting".into(), waiting::json(&waiting));
                fields.insert("publish".into(), publishing::json(&store, &job).await?);
            }
            output::line(json)?;
        }
        Format::Name => output::line(&job.id)?,
        Format::Table | Format::Wide => {
            let mut rows: Vec<(&str, String)> = vec![
                ("job", job.id.to_string()),
                ("state", job.state.to_string()),
                ("input", format!("{}.{}", job.spec.input.db, job.spec.input.collection)),
                ("output", shown_output(&job)),
                ("map", job.spec.map.name.clone().unwrap_or_else(|| job.spec.map.digest.clone())),
                (
                    "reduce",
                    match &job.spec.reduce {
                        None => "none (map-only)".into(),
                        Some(Reducer::Builtin(name)) => name.clone(),
                        Some(Reducer::Function(f)) => {
                            f.name.clone().unwrap_or_else(|| f.digest.clone())
                        }
                    },
                ),
                ("created", output::date(Some(job.created)).unwrap_or_default()),
                ("took", output::duration(Some(job.created), output::ended(&job))),
                ("map tasks", counts(&phases.map)),
                ("reduce tasks", counts(&phases.reduce)),
            ];
            let input = &job.spec.input;
            let shown = |doc: &bson::Document| output::query(doc).to_string();
            if !input.query.is_empty() {
                rows.push(("query", shown(&input.query)));
            }
            rows.extend(input.sort.as_ref().map(|sort| ("sort", shown(sort))));
            rows.extend(input.limit.map(|limit| ("limit", limit.to_string())));
            rows.extend(input.projection.as_ref().map(|p| ("projection", shown(p))));
            if !job.spec.scope.is_empty() {
                rows.push(("scope", shown(&job.spec.scope)));
            }
            let named = |f: &FunctionRef| f.name.clone().unwrap_or_else(|| f.digest.clone());
            rows.extend(job.spec.combine.as_ref().map(|f| ("combine", named(f))));
            rows.extend(job.spec.finalize.as_ref().map(|f| ("finalize", named(f))));
            let counted = job.counters.as_ref().map(output::counters);
            rows.extend(counted.filter(|text| !text.is_empty()).map(|text| ("counters", text)));
            if !job.spec.on_error.is_fail() {
                rows.push(("on error", job.spec.on_error.to_string()));
            }
            rows.extend(super::failed::of_job(&job).map(|text| ("skipped", text)));
            rows.extend(publishing::row(&store, &job).await?.map(|text| ("publish", text)));
            rows.extend(waiting.iter().map(|reason| ("waiting", reason.to_string())));
            let mut table = output::table(&["field", "value"]);
            output::wrap(&mut table);
            for (name, value) in rows {
                table.add_row([name.to_owned(), value]);
            }
            if let Some(error) = &job.error {
                table.add_text("error", &format!("{}: {}", error.code, error.message));
                if let Some(task) = &error.task {
                    table.add_row(["failed task".to_owned(), task.clone()]);
                }
            }
            table.print()?;
        }
    }
    if args.watch { super::wait::verdict(&job) } else { Ok(()) }
}

/// Watching ends with Ctrl-C; the job goes on.
async fn watched<T>(job: &str, how: &str, watching: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        watched = watching => watched,
        _ = tokio::signal::ctrl_c() => {
            Err(Error::WaitTimeout { job: job.to_owned(), how: how.to_owned() })
        }
    }
}

/// Where a job's results go, in a word.
pub(super) fn shown_output(job: &Job) -> String {
    let output = &job.spec.output;
    match output.mode {
        OutputMode::Inline => "inline".into(),
        OutputMode::Replace => format!("{}.{}", output.db, output.collection),
        mode => format!("{mode} {}.{}", output.db, output.collection),
    }
}

fn counts(phase: &PhaseCounts) -> String {
    format!(
        "{} total, {} waiting, {} leased, {} done, {} quarantined, {} cancelled",
        phase.total,
        phase.ready + phase.planned,
        phase.leased,
        phase.done,
        phase.quarantined,
        phase.cancelled
    )
}
