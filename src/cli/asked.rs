//! Jobs that are asked for and not there yet: their requests wait for a coordinator.

use std::time::Duration;

use serde_json::json;

use super::args::{Format, Global};
use super::output;
use crate::error::{Error, Result};
use crate::request::{Answer, Problem, REQUESTS};
use crate::store::Store;
use crate::store::retry::until_known;
use crate::terminal::tell;

/// Finds a job, or the request for it that nobody has answered.
pub(super) enum Found {
    Job(Box<crate::job::Job>),
    /// The request's `_id`.
    Request(String),
}

/// Finds a job as [`Store::find_job`] does, or its request.
///
/// # Errors
/// As there.
pub(super) async fn find(store: &Store, text: &str) -> Result<Found> {
    let missing = match store.find_job(text).await {
        // Ids begin with their time, so a request that is younger than the last job has a greater one.
        Ok(job) => match youngest(store, text).await? {
            Some(id) if *id > *job.id.as_str() => return Ok(Found::Request(id)),
            _ => return Ok(Found::Job(Box::new(job))),
        },
        Err(error @ Error::NotFound { .. }) => error,
        Err(error) => return Err(error),
    };
    if let Some(id) = youngest(store, text).await? {
        return Ok(Found::Request(id));
    }
    let waits = |answer: &Answer| answer.state.is_none();
    match store.answer_to(REQUESTS, text).await? {
        Some(answer) if waits(&answer) => Ok(Found::Request(text.to_owned())),
        _ => Err(missing),
    }
}

/// The youngest request that waits, if the last job is asked for.
async fn youngest(store: &Store, text: &str) -> Result<Option<String>> {
    if text != "last" {
        return Ok(None);
    }
    match store.waiting_requests().await {
        Err(error) if error.is_unpermitted() => Ok(None),
        waiting => Ok(waiting?.into_iter().max()),
    }
}

/// Shows a request that waits.
///
/// # Errors
/// [`Error::Store`].
pub(super) async fn show(global: &Global, store: &Store, id: &str) -> Result<()> {
    let why = match store.has_coordinator().await? {
        true => "the coordinator to take the request in".to_owned(),
        false => store.missing("coordinator"),
    };
    match global.format() {
        Format::Json => {
            let waiting = [json!({ "task": null, "why": why, "since": null })];
            output::line(json!({ "id": id, "state": "requested", "waiting": waiting }))
        }
        Format::Name => output::name(id),
        Format::Table | Format::Wide => {
            let mut table = output::table(&["field", "value"]);
            for (name, value) in [("job", id), ("state", "requested"), ("waiting", &why)] {
                table.add_row([name.to_owned(), value.to_owned()]);
            }
            table.print()
        }
    }
}

/// Takes a request back. `false` when it has been answered meanwhile.
///
/// # Errors
/// [`Error::Store`].
pub(super) async fn take_back(store: &Store, id: &str, retention: Duration) -> Result<bool> {
    let why = Problem {
        code: "cancelled".into(),
        field: None,
        message: "the request was taken back".into(),
        hint: None,
    };
    until_known(async |again| {
        let refused = store.refuse(REQUESTS, id, &why, retention).await?;
        let answer = if again && !refused { store.answer_to(REQUESTS, id).await? } else { None };
        Ok(refused || answer.is_some_and(|answer| answer.error.as_ref() == Some(&why)))
    })
    .await
}

/// Says which requests wait.
///
/// # Errors
/// [`Error::Store`].
pub(super) async fn tell_waiting(global: &Global, store: &Store) -> Result<()> {
    const NAMED_MAX: usize = 5;
    if global.quiet {
        return Ok(());
    }
    let waiting = store.waiting_requests().await?;
    if !waiting.is_empty() {
        let named: Vec<&str> = waiting.iter().take(NAMED_MAX).map(String::as_str).collect();
        let more = if waiting.len() > NAMED_MAX { ", …" } else { "" };
        tell!("{} more wait for a coordinator: {}{more}", waiting.len(), named.join(", "));
    }
    Ok(())
}
