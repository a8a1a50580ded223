//! What the coordinator says, in the request itself.

use bson::{Document, doc};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::job::{Job, JobState, OutputMode};
use crate::task::JobPhases;

/// The fields of an answer, as a client reads them.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Answer {
    /// `accepted` or `refused`; nothing as long as no coordinator has looked.
    #[serde(default)]
    pub state: Option<String>,
    /// The job.
    #[serde(default)]
    pub job: Option<String>,
    /// Why the request was refused, or why its job has no result.
    #[serde(default)]
    pub error: Option<Problem>,
}

/// Why a request was refused, or why its job has no result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A stable word.
    pub code: String,
    /// The field of the request that is at fault, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// For a person.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Problem {
    /// The answer to a request with an error.
    pub fn of(error: &Error, field: Option<&str>) -> Self {
        let (message, hint) = match error {
            Error::Refused { why, hint } => (why.clone(), hint.clone()),
            Error::NotPermitted { action, why, hint } => {
                (format!("the fleet is not permitted to {action}: {why}"), hint.clone())
            }
            Error::NotFound { what, hint } => (format!("{what} not found"), hint.clone()),
            other => (other.to_string(), String::new()),
        };
        Self {
            code: error.code().to_owned(),
            field: field.map(str::to_owned),
            message: in_fields(&message),
            hint: Some(in_fields(&hint)).filter(|hint| !hint.is_empty()),
        }
    }

    /// The error that a client ends with.
    pub fn error(&self) -> Error {
        let field = self.field.as_ref().map(|field| format!("{field}: ")).unwrap_or_default();
        let why = format!("{field}{}", self.message);
        let hint = self.hint.clone().unwrap_or_default();
        match self.code.as_str() {
            "usage" => Error::Usage(why),
            "not_found" => {
                Error::NotFound { what: why.trim_end_matches(" not found").to_owned(), hint }
            }
            _ => Error::refused(why, hint),
        }
    }

    /// As a document.
    pub fn document(&self) -> Document {
        let mut document = doc! { "code": &self.code, "message": &self.message };
        document.extend(self.field.as_ref().map(|field| ("field".to_owned(), field.into())));
        document.extend(self.hint.as_ref().map(|hint| ("hint".to_owned(), hint.into())));
        document
    }
}

/// The words of the command line in those of a request: what is wrong is told in one place for both.
fn in_fields(text: &str) -> String {
    const FIELDS: [(&str, &str); 26] = [
        ("-d", "the database"),
        ("--input-db", "input.db"),
        ("--collection", "input.collection"),
        ("--query", "input.query"),
        ("--sort", "input.sort"),
        ("--limit", "input.limit"),
        ("--projection", "input.projection"),
        ("--collation", "input.collation"),
        ("--read", "input.read"),
        ("--combine", "combine"),
        ("--no-combine", "noCombine"),
        ("--map", "map"),
        ("--reduce", "reduce"),
        ("--finalize", "finalize"),
        ("--out-db", "out.db"),
        ("--out", "out"),
        ("--scope", "scope"),
        ("--partitions", "partitions"),
        ("--memory-mb", "limits.memoryMb"),
        ("--record-timeout", "limits.recordTimeoutMs"),
        ("--task-timeout", "limits.taskTimeoutMs"),
        ("--record-output", "limits.recordOutputBytes"),
        ("--log-bytes", "limits.logBytes"),
        ("--skip-single-values", "skipSingleValues"),
        ("--keep-intermediates", "keepIntermediates"),
        ("--command", "command"),
    ];
    text.split(' ')
        .map(|word| {
            // With what punctuation follows.
            let flag = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            match FIELDS.iter().find(|(known, _)| *known == flag) {
                Some((known, field)) => format!("{field}{}", word.get(known.len()..).unwrap_or("")),
                None => word.to_owned(),
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// How far a job is.
pub fn progress(job: &Job, phases: &JobPhases) -> Document {
    let phase = |done: u64, tasks: u32, over: bool| {
        let tasks = i64::from(tasks);
        let done = if over { tasks } else { i64::try_from(done).unwrap_or(i64::MAX) };
        doc! { "done": done, "tasks": tasks }
    };
    let reduced =
        matches!(job.state, JobState::Publishing | JobState::Stopped | JobState::Succeeded);
    let mapped = reduced || job.state == JobState::Reducing;
    let mut progress = doc! {
        "state": job.state.as_str(),
        "map": phase(phases.map.done, job.map_tasks, mapped),
        "reduce": phase(phases.reduce.done, job.reduce_tasks, reduced),
    };
    if let Some(waiting) = &job.waiting {
        progress.insert("waiting", &waiting.why);
    }
    progress
}

/// What a job's end adds to the answer: `result` or `error`. A stopped job has an error, which goes when it goes on.
pub fn end(job: &Job) -> Document {
    let output = &job.spec.output;
    let collection = (output.mode == OutputMode::Inline || output.mode.has_target())
        .then(|| output.collection.clone());
    match job.state {
        JobState::Succeeded => doc! { "result": {
            "counters": job.counters.clone().unwrap_or_default(),
            "output": {
                "mode": output.mode.to_string(),
                "db": &output.db,
                "collection": collection,
            },
            "finished": job.finished,
        } },
        JobState::Failed | JobState::Stopped | JobState::Cancelled => {
            let (code, message) = match &job.error {
                Some(error) => (error.code.clone(), error.message.clone()),
                None => (job.state.as_str().to_owned(), format!("the job is {}", job.state)),
            };
            // A client tells the three apart by this word.
            let code = match job.state {
                JobState::Cancelled => "cancelled".to_owned(),
                JobState::Stopped => "stopped".to_owned(),
                _ => code,
            };
            doc! { "error": { "code": code, "message": message } }
        }
        _ => Document::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_in_the_words_of_a_request() {
        assert_eq!(in_fields("--limit must be at least 1"), "input.limit must be at least 1");
        assert_eq!(
            in_fields("--combine and --finalize need --reduce; a map-only job has neither"),
            "combine and finalize need reduce; a map-only job has neither"
        );
        assert_eq!(in_fields("use --out, please"), "use out, please");
        assert_eq!(in_fields("--outrage"), "--outrage");
    }

    #[test]
    fn a_problem_comes_back_as_the_error_that_it_was() {
        for error in [
            Error::Usage("bad".into()),
            Error::NotFound { what: "collection a.b".into(), hint: "check it".into() },
            Error::refused("no", "do this"),
        ] {
            let problem = Problem::of(&error, None);
            assert_eq!(problem.error().to_string(), error.to_string());
            assert_eq!(problem.error().exit_code(), error.exit_code());
        }
    }
}
